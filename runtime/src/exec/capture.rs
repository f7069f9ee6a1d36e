//! Keeping one stream of a command within a limit: its beginning and its end.
//!
//! The beginning says what ran, the end says how it failed; when something must go, it is the middle,
//! and the count of what went is kept.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

/// The kept output of one stream.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Captured {
    /// Everything, or the beginning if something was omitted.
    pub head: Vec<u8>,
    /// How many bytes are missing between `head` and `tail`.
    pub omitted: u64,
    /// The end; empty unless something was omitted.
    pub tail: Vec<u8>,
}

/// Collects the output of one stream.
#[derive(Debug)]
pub(super) struct Capture {
    head: Vec<u8>,
    /// Room left in `head`.
    head_room: usize,
    tail: VecDeque<Bytes>,
    tail_bytes: usize,
    tail_limit: usize,
    omitted: u64,
}

/// Pieces smaller than this are merged, so that a million one-byte writes do not keep a million
/// buffers.
const PIECE: usize = 4096;

impl Capture {
    /// Keeps at most `limit` bytes, half of them from the beginning.
    pub(super) fn new(limit: usize) -> Self {
        let head = limit.div_ceil(2);
        Self {
            head: Vec::new(),
            head_room: head,
            tail: VecDeque::new(),
            tail_bytes: 0,
            tail_limit: limit - head,
            omitted: 0,
        }
    }

    pub(super) fn push(&mut self, mut bytes: Bytes) {
        let fits = bytes.split_to(bytes.len().min(self.head_room));
        self.head.extend_from_slice(&fits);
        self.head_room -= fits.len();
        if bytes.is_empty() {
            return;
        }
        self.tail_bytes += bytes.len();
        self.append_tail(bytes);
        while self.tail_bytes > self.tail_limit {
            let excess = self.tail_bytes - self.tail_limit;
            let Some(oldest) = self.tail.front_mut() else {
                break;
            };
            let dropped = excess.min(oldest.len());
            oldest.advance(dropped);
            if oldest.is_empty() {
                self.tail.pop_front();
            }
            self.tail_bytes -= dropped;
            self.omitted += dropped as u64;
        }
    }

    fn append_tail(&mut self, bytes: Bytes) {
        match self.tail.back_mut() {
            Some(last) if last.len() + bytes.len() <= PIECE => {
                *last = [last.as_ref(), bytes.as_ref()].concat().into();
            }
            _ => self.tail.push_back(bytes),
        }
    }

    pub(super) fn finish(mut self) -> Captured {
        let mut tail = Vec::new();
        // When nothing is missing there is no end apart from the whole.
        let target = match self.omitted {
            0 => &mut self.head,
            _ => &mut tail,
        };
        for piece in self.tail {
            target.extend_from_slice(&piece);
        }
        Captured {
            head: self.head,
            omitted: self.omitted,
            tail,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn capture(limit: usize, pieces: &[&[u8]]) -> Captured {
        let mut capture = Capture::new(limit);
        for piece in pieces {
            capture.push(Bytes::copy_from_slice(piece));
        }
        capture.finish()
    }

    #[test]
    fn keeps_beginning_and_end() {
        let kept = capture(6, &[b"abcdef", b"ghi", b"jkl"]);
        assert_eq!(
            kept,
            Captured {
                head: b"abc".to_vec(),
                omitted: 6,
                tail: b"jkl".to_vec()
            }
        );
        assert_eq!(capture(6, &[b"ab", b"cdef"]).head, b"abcdef");
        assert_eq!(capture(0, &[b"ab"]).omitted, 2);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_uncounted_and_nothing_kept_beyond_the_limit(
            limit in 0usize..64,
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..12),
        ) {
            let all = pieces.concat();
            let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let kept = capture(limit, &slices);
            prop_assert!(kept.head.len() + kept.tail.len() <= limit);
            prop_assert_eq!(kept.head.len() as u64 + kept.omitted + kept.tail.len() as u64, all.len() as u64);
            prop_assert!(all.starts_with(&kept.head) && all.ends_with(&kept.tail));
            prop_assert_eq!(kept.omitted == 0, all.len() <= limit);
        }
    }
}
