//! The order of Debian's version numbers.

use std::cmp::Ordering;

/// Compares two versions, `[EPOCH:]UPSTREAM[-REVISION]`.
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (split(left), split(right));
    left.0
        .cmp(&right.0)
        .then_with(|| part(left.1, right.1))
        .then_with(|| part(left.2, right.2))
}

fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch.parse().unwrap_or(0), upstream, revision)
}

/// Compares by turns what is not digits, and digits as numbers.
fn part(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left.as_bytes(), right.as_bytes());
    while !left.is_empty() || !right.is_empty() {
        let (a, b) = (take(&mut left, false), take(&mut right, false));
        let longest = a.len().max(b.len());
        let weights = |text: &[u8]| -> Vec<u32> {
            (0..longest)
                .map(|at| weight(text.get(at).copied()))
                .collect()
        };
        let order = weights(a).cmp(&weights(b)).then_with(|| {
            let (a, b) = (
                number(take(&mut left, true)),
                number(take(&mut right, true)),
            );
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        });
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Splits off the beginning that is digits, or that is not.
fn take<'a>(text: &mut &'a [u8], digits: bool) -> &'a [u8] {
    let end = text.iter().position(|byte| byte.is_ascii_digit() != digits);
    let (taken, rest) = text.split_at(end.unwrap_or(text.len()));
    *text = rest;
    taken
}

fn number(digits: &[u8]) -> &[u8] {
    let start = digits.iter().position(|digit| *digit != b'0');
    digits
        .get(start.unwrap_or(digits.len())..)
        .unwrap_or_default()
}

/// A tilde comes before the end, the end before letters, and letters before everything else.
fn weight(byte: Option<u8>) -> u32 {
    match byte {
        Some(b'~') => 0,
        None => 1,
        Some(byte) if byte.is_ascii_alphabetic() => 2 + u32::from(byte),
        Some(byte) => 1000 + u32::from(byte),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_order() {
        let ordered = [
            "0~~",
            "0~",
            "0",
            "0a",
            "0+",
            "1.0~rc1-1",
            "1.0-1",
            "1.0-1+b2",
            "1.0-1+b10",
            "1.0-1+deb13u1",
            "1.0-2~bpo1",
            "1.0-2",
            "1.0a-1",
            "1.0.1",
            "1.2",
            "1.10",
            "1:0.1",
        ];
        for (at, left) in ordered.iter().enumerate() {
            for (other, right) in ordered.iter().enumerate() {
                assert_eq!(compare(left, right), at.cmp(&other), "{left} {right}");
            }
        }
        assert_eq!(compare("1.0", "1.00"), Ordering::Equal);
        assert_eq!(compare("0:1", "1"), Ordering::Equal);
    }
}
