//! `Range` headers: what is selected lies within the file and is never more than it.

use agent_sandbox_runtime::fuzzing::{Ranges, ranges};

/// Reads a line with the size of a file, and the value of the header.
pub(crate) fn check(bytes: &[u8]) {
    let mut halves = bytes.splitn(2, |byte| *byte == b'\n');
    let size = String::from_utf8_lossy(halves.next().unwrap_or_default()).into_owned();
    let value = String::from_utf8_lossy(halves.next().unwrap_or_default()).into_owned();
    let size: u64 = size.trim().parse().unwrap_or(1000);
    let selected = ranges(&value, size);
    if let Ranges::Parts(parts) = &selected {
        assert!((1..=32).contains(&parts.len()), "{} parts", parts.len());
        for part in parts {
            assert!(
                part.start < part.end && part.end <= size,
                "{part:?} of {size}"
            );
        }
        let total: u128 = parts
            .iter()
            .map(|part| u128::from(part.end - part.start))
            .sum();
        assert!(total <= u128::from(size), "{total} bytes of {size}");
    }
    if let Some((first, last)) = one(&value) {
        let expected = if first > last {
            Ranges::Whole
        } else if first >= size {
            Ranges::Unsatisfiable
        } else {
            let only = first..last.saturating_add(1).min(size);
            Ranges::Parts([only].into())
        };
        assert_eq!(selected, expected, "{value:?} of {size}");
    }
}

/// The positions in `bytes=1-2`, when it is written as plainly as that.
fn one(value: &str) -> Option<(u64, u64)> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let plain = |text: &str| {
        let digits =
            (1..19).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    };
    Some((plain(first)?, plain(last)?))
}
