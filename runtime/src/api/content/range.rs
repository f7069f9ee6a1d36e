//! The `Range` header (RFC 9110, section 14): which bytes of a file are asked for.

use std::ops::Range;

/// What a `Range` header asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Selection {
    /// Everything: no range, or a header that is to be ignored.
    Whole,
    /// These ranges, in the order asked for; never empty, each non-empty and within the file.
    Parts(Vec<Range<u64>>),
    /// No range lies within the file.
    Unsatisfiable,
}

/// More ranges than this in one request serve nobody but attackers.
const MAX_RANGES: usize = 32;

/// Reads the value of a `Range` header for a file of `size` bytes. Malformed values, units other than
/// bytes, and requests for more bytes than the file has are answered with the whole file, as the
/// RFC allows.
pub(crate) fn parse(value: &str, size: u64) -> Selection {
    let Some((unit, set)) = value.split_once('=') else {
        return Selection::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    let mut parts = Vec::new();
    let mut count = 0;
    for spec in set
        .split(',')
        .map(str::trim)
        .filter(|spec| !spec.is_empty())
    {
        count += 1;
        match parse_one(spec, size) {
            _ if count > MAX_RANGES => return Selection::Whole,
            Err(Malformed) => return Selection::Whole,
            Ok(None) => {}
            Ok(Some(part)) => parts.push(part),
        }
    }
    if count == 0 {
        return Selection::Whole;
    }
    if parts.is_empty() {
        return Selection::Unsatisfiable;
    }
    let total = parts
        .iter()
        .try_fold(0u64, |total, part| total.checked_add(part.end - part.start));
    match total {
        Some(total) if total <= size => Selection::Parts(parts),
        _ => Selection::Whole,
    }
}

struct Malformed;

/// `Ok(None)` for a well-formed range outside the file.
fn parse_one(spec: &str, size: u64) -> Result<Option<Range<u64>>, Malformed> {
    let (first, last) = spec.split_once('-').ok_or(Malformed)?;
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        let length = position(last)?;
        let start = size.saturating_sub(length);
        return Ok((start < size).then_some(start..size));
    }
    let first = position(first)?;
    let end = if last.is_empty() {
        size
    } else {
        let last = position(last)?;
        if last < first {
            return Err(Malformed);
        }
        last.saturating_add(1).min(size)
    };
    Ok((first < end).then_some(first..end))
}

/// A position beyond any file is one beyond this file.
fn position(text: &str) -> Result<u64, Malformed> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed);
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[allow(
        clippy::single_range_in_vec_init,
        reason = "one range is what is meant"
    )]
    fn values_select_what_the_rfc_says() {
        use Selection::{Unsatisfiable, Whole};
        let parts = |ranges: &[Range<u64>]| Selection::Parts(ranges.to_vec());
        for (value, size, selection) in [
            ("bytes=0-3", 10, parts(&[0..4])),
            ("bytes=0-0", 10, parts(&[0..1])),
            ("bytes=4-", 10, parts(&[4..10])),
            ("bytes=-3", 10, parts(&[7..10])),
            ("bytes=-30", 10, parts(&[0..10])),
            ("bytes=8-99", 10, parts(&[8..10])),
            ("bytes=5-99999999999999999999", 10, parts(&[5..10])),
            ("Bytes = 1-2", 10, parts(&[1..3])),
            ("bytes=0-1, 4-5 ,8-", 10, parts(&[0..2, 4..6, 8..10])),
            ("bytes=0-1,20-30", 10, parts(&[0..2])),
            ("bytes=8-,0-1", 10, parts(&[8..10, 0..2])),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-5", 0, Unsatisfiable),
            ("bytes=99999999999999999999-", 10, Unsatisfiable),
            ("bytes=0-9,0-9", 10, Whole),
            ("bytes=5-3", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes", 10, Whole),
            ("lines=0-3", 10, Whole),
            ("", 10, Whole),
        ] {
            assert_eq!(parse(value, size), selection, "{value:?} of {size}");
        }
        let many = format!("bytes={}", "0-0,".repeat(MAX_RANGES + 1));
        assert_eq!(parse(&many, 1000), Whole);
    }

    proptest! {
        #[test]
        fn parts_are_within_the_file_whatever_is_sent(
            value in "(bytes=)?[0-9,\\- ]{0,40}|.{0,30}",
            size in 0u64..200,
        ) {
            if let Selection::Parts(parts) = parse(&value, size) {
                prop_assert!(!parts.is_empty());
                let mut total = 0;
                for part in parts {
                    prop_assert!(part.start < part.end && part.end <= size);
                    total += part.end - part.start;
                }
                prop_assert!(total <= size);
            }
        }
    }
}
