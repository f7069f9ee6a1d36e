//! WebSocket frames (RFC 6455, section 5.2), as far as an echo of short messages needs them.

/// The key every client of the bench sends: the example of RFC 6455, section 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What that section says a server answers to [`KEY`].
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The longest payload whose length fits the second byte.
pub const LONGEST: usize = 125;

const BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const HEADER: usize = 2;
const MASK: usize = 4;

/// A client's frame: masked, as the RFC demands. The mask is constant because nothing here guards
/// against caches between.
pub fn masked(payload: &[u8]) -> Vec<u8> {
    let mask = [0x5a, 0x11, 0xc3, 0x7e];
    let mut frame = header(payload, MASKED);
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
    frame
}

/// A server's frame.
pub fn plain(payload: &[u8]) -> Vec<u8> {
    let mut frame = header(payload, 0);
    frame.extend(payload);
    frame
}

/// The payload of the masked frame at the start of these bytes and the frame's length, once all of it
/// is there.
pub fn unmask(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let length = usize::from(bytes.get(1)? & LENGTH);
    let mask = bytes.get(HEADER..HEADER + MASK)?;
    let end = HEADER + MASK + length;
    let payload = bytes.get(HEADER + MASK..end)?;
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b);
    Some((payload.collect(), end))
}

fn header(payload: &[u8], mask: u8) -> Vec<u8> {
    let length = payload.len().min(LONGEST);
    vec![BINARY, mask | u8::try_from(length).unwrap_or(LENGTH)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_the_rfc() {
        assert_eq!(plain(b"Hi"), [0x82, 2, b'H', b'i']);
        let mut frame = masked(b"hello");
        assert_eq!(frame[..2], [0x82, 0x85]);
        assert_eq!(unmask(&frame[..frame.len() - 1]), None);
        assert_eq!(unmask(&frame[..1]), None);
        let length = frame.len();
        frame.extend(b"next");
        assert_eq!(unmask(&frame), Some((b"hello".to_vec(), length)));
    }
}
