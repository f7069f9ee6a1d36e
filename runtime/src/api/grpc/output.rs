//! Both outputs of a command in one message that its caller can receive.

use bytes::Bytes;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::exec::Captured;

/// Says how large a message the caller can receive, in bytes; its library refuses a larger one, and the
/// result would be lost.
pub(super) const LARGEST_MESSAGE: &str = "agent-sandbox-max-message-bytes";
/// What every library receives unless it is told otherwise.
const USUAL_MESSAGE: usize = 4 << 20;
/// What a message needs beside the outputs.
const OVERHEAD: usize = 256;
/// A caller with less room would learn nothing.
const LEAST: usize = 4096;

/// How many bytes of output the caller can receive.
///
/// # Errors
/// `INVALID_ARGUMENT` for a number that is none or too small.
pub(super) fn room(metadata: &MetadataMap) -> Result<usize, Status> {
    let message = match metadata.get(LARGEST_MESSAGE) {
        None => USUAL_MESSAGE,
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|bytes| *bytes >= LEAST)
            .ok_or_else(|| {
                Status::invalid_argument(format!(
                    "{LARGEST_MESSAGE} is {value:?}; expected a number of bytes, at least {LEAST}"
                ))
            })?,
    };
    Ok(message - OVERHEAD)
}

/// Both outputs within `room` bytes, and how many bytes of each are missing. What has to go goes from
/// the middle of the longer one, as far as that is enough.
pub(super) fn fit(stdout: Captured, stderr: Captured, room: usize) -> [(Bytes, u64); 2] {
    let (one, other) = (stdout.len(), stderr.len());
    let half = room / 2;
    let (one, other) = if one + other <= room {
        (one, other)
    } else if one <= half {
        (one, room - one)
    } else if other <= half {
        (room - other, other)
    } else {
        (half, half)
    };
    [(stdout, one), (stderr, other)].map(|(output, room)| {
        let output = output.shortened(room);
        let omitted = output.omitted;
        (output.marked(), omitted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(byte: u8, length: usize) -> Captured {
        Captured {
            head: vec![byte; length],
            ..Captured::default()
        }
    }

    #[test]
    fn the_longer_output_gives_way() {
        for (stdout, stderr, kept_stdout, kept_stderr) in [
            (500, 500, 500, 500),
            (5000, 100, 900, 100),
            (100, 5000, 100, 900),
            (5000, 6000, 500, 500),
            (1001, 0, 1000, 0),
        ] {
            let [out, err] = fit(whole(b'o', stdout), whole(b'e', stderr), 1000);
            assert!(out.0.len() + err.0.len() <= 1000);
            for ((bytes, omitted), length, kept) in
                [(out, stdout, kept_stdout), (err, stderr, kept_stderr)]
            {
                assert!(bytes.len() <= kept, "{stdout} {stderr}");
                if length == kept {
                    assert_eq!((bytes.len(), omitted), (length, 0));
                } else {
                    let marker = format!("\n[... {omitted} bytes omitted ...]\n");
                    assert_eq!(bytes.len() as u64 + omitted, (length + marker.len()) as u64);
                    assert!(String::from_utf8_lossy(&bytes).contains(&marker));
                }
            }
        }
    }

    #[test]
    fn callers_say_what_they_can_receive() {
        let mut metadata = MetadataMap::new();
        assert_eq!(room(&metadata).unwrap(), (4 << 20) - OVERHEAD);
        metadata.insert(LARGEST_MESSAGE, "8388608".parse().unwrap());
        assert_eq!(room(&metadata).unwrap(), (8 << 20) - OVERHEAD);
        for bad in ["", "-1", "100", "4MiB"] {
            metadata.insert(LARGEST_MESSAGE, bad.parse().unwrap());
            let status = room(&metadata).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().contains(LARGEST_MESSAGE));
        }
    }
}
