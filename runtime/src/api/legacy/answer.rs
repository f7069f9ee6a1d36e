//! The answer of `/execute`, written piece by piece: the outputs are held once, however long their JSON is
//! and however slowly it is taken, and no other request waits for all of it to be encoded.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::{Body, Bytes};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::stream;

use crate::exec::Captured;

/// An answer up to about this size goes out whole.
const PIECE: usize = 64 << 10;
/// So many bytes of an output are encoded at a time, which base64 takes without padding.
const BLOCK: usize = 48 << 10;
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// What is answered. Members after the first three are only there when they have something to say,
/// because the original's clients compare the rest.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) stdout: Captured,
    pub(super) stderr: Captured,
    /// What the server says, in a line of its own below what the command wrote to `stderr`.
    pub(super) remark: String,
    pub(super) exit_code: i32,
    pub(super) timed_out: bool,
}

/// A stretch of JSON.
#[derive(Debug)]
enum Part {
    /// JSON already.
    Json(Bytes),
    /// The inside of a string; what is not UTF-8 is shown as U+FFFD.
    Text(Bytes),
    /// The inside of a string: exact bytes.
    Base64(Bytes),
}

impl Answer {
    /// The answer as a body.
    pub(super) fn body(self) -> Body {
        let mut encoder = self.encoder();
        if encoder.left() <= PIECE {
            let mut whole = Vec::new();
            while encoder.write(&mut whole) {}
            return Body::from(whole);
        }
        Body::from_stream(stream::unfold(encoder, |mut encoder| async move {
            let mut piece = Vec::with_capacity(PIECE + PIECE / 4);
            while piece.len() < PIECE && encoder.write(&mut piece) {}
            let piece = Ok::<_, Infallible>(Bytes::from(piece));
            piece
                .as_ref()
                .is_ok_and(|piece| !piece.is_empty())
                .then_some((piece, encoder))
        }))
    }

    fn encoder(self) -> Encoder {
        let mut parts = VecDeque::new();
        let mut more = format!(",\"exit_code\":{}", self.exit_code);
        if self.timed_out {
            more.push_str(",\"timed_out\":true");
        }
        let mut exact = Vec::new();
        let mut omitted = Vec::new();
        let remark = self.remark;
        for (name, output, remark) in [
            ("stdout", self.stdout, String::new()),
            ("stderr", self.stderr, remark),
        ] {
            let first = if name == "stdout" { "{" } else { "," };
            parts.push_back(Part::Json(format!("{first}\"{name}\":\"").into()));
            if output.omitted > 0 {
                let member = format!(",\"{name}_omitted_bytes\":{}", output.omitted);
                omitted.push(Part::Json(member.into()));
            }
            let is_whole = output.omitted == 0;
            let ends_its_line = output.is_empty() || output.ends_with(b'\n');
            for bytes in output.pieces() {
                if is_whole && std::str::from_utf8(&bytes).is_err() {
                    exact.push((name, bytes.clone()));
                }
                parts.push_back(Part::Text(bytes));
            }
            if !remark.is_empty() {
                if !ends_its_line {
                    parts.push_back(Part::Text(Bytes::from_static(b"\n")));
                }
                parts.push_back(Part::Text(remark.into()));
            }
            parts.push_back(Part::Json(Bytes::from_static(b"\"")));
        }
        parts.push_back(Part::Json(more.into()));
        for (name, bytes) in exact {
            parts.push_back(Part::Json(format!(",\"{name}_base64\":\"").into()));
            parts.push_back(Part::Base64(bytes));
            parts.push_back(Part::Json(Bytes::from_static(b"\"")));
        }
        parts.extend(omitted);
        parts.push_back(Part::Json(Bytes::from_static(b"}")));
        Encoder { parts }
    }
}

/// What has not been encoded yet.
#[derive(Debug)]
struct Encoder {
    parts: VecDeque<Part>,
}

impl Encoder {
    /// How many bytes, before they are encoded.
    fn left(&self) -> usize {
        let of = |part: &Part| match part {
            Part::Json(bytes) | Part::Text(bytes) | Part::Base64(bytes) => bytes.len(),
        };
        self.parts.iter().map(of).sum()
    }

    /// Adds a block to `piece`; `false` when nothing is left.
    fn write(&mut self, piece: &mut Vec<u8>) -> bool {
        let Some(part) = self.parts.front_mut() else {
            return false;
        };
        let left = match part {
            Part::Json(bytes) => {
                piece.extend_from_slice(bytes);
                bytes.clear();
                bytes
            }
            Part::Text(bytes) => {
                let block = bytes.split_to(character_end(bytes, BLOCK));
                for chunk in block.utf8_chunks() {
                    escape(chunk.valid(), piece);
                    if !chunk.invalid().is_empty() {
                        piece.extend_from_slice(REPLACEMENT);
                    }
                }
                bytes
            }
            Part::Base64(bytes) => {
                let block = bytes.split_to(BLOCK.min(bytes.len()));
                piece.extend_from_slice(STANDARD.encode(block).as_bytes());
                bytes
            }
        };
        if left.is_empty() {
            self.parts.pop_front();
        }
        true
    }
}

/// The largest place up to `limit` where no character is torn apart. A character has three bytes after
/// its first at most, so of a longer run of such bytes the last ones belong to none.
fn character_end(bytes: &[u8], limit: usize) -> usize {
    if bytes.len() <= limit {
        return bytes.len();
    }
    let follows = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    (limit.saturating_sub(3)..=limit)
        .rev()
        .find(|at| !follows(*at))
        .unwrap_or(limit)
}

/// Writes `text` as it stands between the quotes of a JSON string.
fn escape(text: &str, to: &mut Vec<u8>) {
    let start = to.len();
    // Writing a text to memory does not fail.
    if serde_json::to_writer(&mut *to, text).is_ok() {
        to.pop();
        to.remove(start);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn whole(bytes: &[u8]) -> Captured {
        Captured {
            head: bytes.to_vec(),
            ..Captured::default()
        }
    }

    fn encoded(answer: Answer) -> Value {
        let mut encoder = answer.encoder();
        let mut text = Vec::new();
        while encoder.write(&mut text) {}
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn members_are_in_the_order_of_the_original() {
        let mut encoder = Answer {
            stdout: whole(b"a\r\n\"b\""),
            exit_code: -9,
            ..Answer::default()
        }
        .encoder();
        let mut text = Vec::new();
        while encoder.write(&mut text) {}
        assert_eq!(
            String::from_utf8(text).unwrap(),
            r#"{"stdout":"a\r\n\"b\"","stderr":"","exit_code":-9}"#
        );
    }

    #[test]
    fn outputs_are_exact_or_say_what_is_missing() {
        let answer = encoded(Answer {
            stdout: whole(b"a\xffb"),
            stderr: Captured {
                head: b"begin".to_vec(),
                omitted: 7,
                tail: b"end\xc3".to_vec(),
            },
            exit_code: 3,
            ..Answer::default()
        });
        assert_eq!(
            answer,
            json!({
                "stdout": "a\u{fffd}b",
                "stderr": "begin\n[... 7 bytes omitted ...]\nend\u{fffd}",
                "exit_code": 3,
                "stdout_base64": "Yf9i",
                "stderr_omitted_bytes": 7,
            })
        );
    }

    #[test]
    fn a_remark_has_a_line_of_its_own() {
        for (stderr, expected) in [("", "late"), ("x", "x\nlate"), ("x\n", "x\nlate")] {
            let answer = encoded(Answer {
                stderr: whole(stderr.as_bytes()),
                remark: "late".to_owned(),
                timed_out: true,
                exit_code: 124,
                ..Answer::default()
            });
            assert_eq!(answer["stderr"], expected);
            assert_eq!(answer["timed_out"], true);
        }
    }

    proptest! {
        /// Blocks are 48 KiB, so what matters is what lies around a multiple of that.
        #[test]
        fn blocks_make_the_text_that_the_whole_would_make(
            around in proptest::collection::vec(
                prop_oneof![Just(0x80u8), Just(0xbf), Just(0xc3), Just(0xe2), Just(0xf0), any::<u8>()],
                0..24,
            ),
            before in 0usize..16,
        ) {
            let mut output = vec![b'.'; BLOCK - before];
            output.extend_from_slice(&around);
            output.extend_from_slice(&[b'.'; 100]);
            let answer = encoded(Answer { stdout: whole(&output), ..Answer::default() });
            let expected = String::from_utf8_lossy(&output);
            prop_assert_eq!(answer["stdout"].as_str(), Some(expected.as_ref()));
            let exact = answer.get("stdout_base64").and_then(Value::as_str);
            match exact {
                Some(exact) => prop_assert_eq!(STANDARD.decode(exact).unwrap(), output),
                None => prop_assert!(std::str::from_utf8(&output).is_ok()),
            }
        }
    }
}
