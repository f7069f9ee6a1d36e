//! The bytes of large bodies: a block that repeats, so that sending costs nothing and a receiver can
//! tell every byte that is lost, doubled or moved. Both ends of a body use it.

use std::sync::LazyLock;

use bytes::Bytes;

mod body;

pub use self::body::{BreaksOff, PatternBody};

/// How many bytes repeat. Odd, so that no buffer size of a proxy divides it.
pub const PERIOD: usize = 65_521;

static BLOCK: LazyLock<Bytes> = LazyLock::new(|| {
    // Two periods, so that a whole period can be taken from any offset.
    let bytes: Vec<u8> = (0..2 * PERIOD).map(|at| byte(at % PERIOD)).collect();
    Bytes::from(bytes)
});

/// At most a period of the pattern from `offset`, and no more than `limit` bytes. Copies nothing.
pub fn chunk(offset: u64, limit: u64) -> Bytes {
    let start = position(offset);
    let length = usize::try_from(limit).unwrap_or(PERIOD).min(PERIOD);
    BLOCK.slice(start..start + length)
}

/// A body that is compared with the pattern as it arrives.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Check {
    bytes: u64,
    broken: bool,
}

impl Check {
    /// Takes the next bytes.
    pub fn take(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let expected = chunk(self.bytes, data.len() as u64);
            let Some((now, later)) = data.split_at_checked(expected.len()) else {
                return;
            };
            self.broken |= *now != *expected;
            self.bytes += now.len() as u64;
            data = later;
        }
    }

    /// How many bytes there were.
    pub fn bytes(self) -> u64 {
        self.bytes
    }

    /// Whether all of them were the pattern's.
    pub fn is_sound(self) -> bool {
        !self.broken
    }
}

fn position(offset: u64) -> usize {
    usize::try_from(offset % PERIOD as u64).unwrap_or_default()
}

/// Neighbours differ, and so do bytes a power of two apart.
fn byte(at: usize) -> u8 {
    let mixed = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
    u8::try_from(mixed).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_sound_however_it_is_cut() {
        let mut check = Check::default();
        let mut sent = 0;
        for limit in [1, 70_000, 65_521, 3, 131_042] {
            let part = chunk(sent, limit);
            sent += part.len() as u64;
            for half in part.chunks(part.len().div_ceil(2)) {
                check.take(half);
            }
        }
        assert_eq!((check.bytes(), check.is_sound()), (sent, true));
        let twice: Vec<u8> = [chunk(0, 65_521), chunk(0, 65_521)].concat();
        let mut check = Check::default();
        check.take(&twice);
        assert!(check.is_sound());
    }

    #[test]
    fn lost_doubled_and_changed_bytes_are_noticed() {
        let body = [chunk(0, 65_521), chunk(0, 65_521)].concat();
        let sound = |bytes: &[u8]| {
            let mut check = Check::default();
            check.take(bytes);
            check.is_sound()
        };
        assert!(sound(&body));
        for lost in [1, 2, 4096, 16_384, 65_536] {
            let mut cut = body.clone();
            cut.drain(100..100 + lost);
            assert!(!sound(&cut), "{lost} bytes are lost");
            let mut doubled = body[..100 + lost].to_vec();
            doubled.extend_from_slice(&body[100..]);
            assert!(!sound(&doubled), "{lost} bytes are doubled");
        }
        let mut changed = body;
        changed[70_000] ^= 1;
        assert!(!sound(&changed));
    }
}
