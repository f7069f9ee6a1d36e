//! Times as the API writes them, and ages as `kubectl` shows them.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// Rewrites an RFC 3339 time as a `Time` field carries it: UTC, whole seconds. `None` if `text` is
/// not an RFC 3339 time.
pub fn canonical_time(text: &str) -> Option<String> {
    Some(format_time(parse(text)?))
}

/// Rewrites an RFC 3339 time as a `MicroTime` field carries it: UTC, exactly six decimals. `None`
/// if `text` is not an RFC 3339 time.
pub fn canonical_micro_time(text: &str) -> Option<String> {
    Some(format_micro_time(parse(text)?))
}

/// A `Time` field's text: UTC, whole seconds.
pub fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A `MicroTime` field's text: UTC, exactly six decimals.
pub fn format_micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// The time in an object's field, for arithmetic; `None` if it is not an RFC 3339 time.
pub fn parse(text: &str) -> Option<Timestamp> {
    // RFC 3339 wants the full form: `jiff` alone would also take shorter ISO 8601 ones.
    let bytes = text.as_bytes();
    let full = bytes.len() >= 20
        && bytes.get(10) == Some(&b'T')
        && (text.ends_with('Z') || matches!(bytes.get(bytes.len() - 6), Some(b'+' | b'-')));
    if full { text.parse().ok() } else { None }
}

/// The duration between `then` and `now` with two or three significant figures, as the AGE column
/// of `kubectl get` shows it.
pub fn human_age(then: Timestamp, now: Timestamp) -> String {
    human_duration(now.duration_since(then))
}

/// A duration with two or three significant figures: `45s`, `3m20s`, `5h`, `2d3h`, `400d`, `3y`.
pub fn human_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    let hours = minutes / 60;
    let days = hours / 24;
    // Two units, the smaller one left out when it is zero.
    let pair = |major: i64, unit: char, minor: i64, minor_unit: char| match minor {
        0 => format!("{major}{unit}"),
        _ => format!("{major}{unit}{minor}{minor_unit}"),
    };
    match () {
        // Clocks of two machines differ a little; a moment ahead still counts as now.
        () if seconds < -1 => "<invalid>".to_owned(),
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => pair(days, 'd', hours % 24, 'h'),
        () if days < 365 * 2 => format!("{days}d"),
        () if days < 365 * 8 => pair(days / 365, 'y', days % 365, 'd'),
        () => format!("{}y", days / 365),
    }
}

/// The moment `seconds` and `nanos` after the epoch, if its year has four digits.
pub fn from_epoch(seconds: i64, nanos: i32) -> Option<Timestamp> {
    let time = Timestamp::new(seconds, nanos).ok()?;
    // The calendar year must have four digits, or clients cannot read the text back.
    let year = time.to_zoned(TimeZone::UTC).year();
    (0..=9999).contains(&year).then_some(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_become_utc_seconds() {
        for (text, expected) in [
            ("2024-01-02T03:04:05Z", Some("2024-01-02T03:04:05Z")),
            ("2024-01-02T03:04:05.999Z", Some("2024-01-02T03:04:05Z")),
            ("2024-01-02T03:04:05+02:00", Some("2024-01-02T01:04:05Z")),
            ("2024-01-02 03:04:05Z", None),
            ("2024-01-02T03:04:05", None),
            ("2024-01-02", None),
            ("now", None),
            ("", None),
        ] {
            assert_eq!(canonical_time(text).as_deref(), expected, "{text}");
        }
        assert_eq!(
            canonical_micro_time("2024-01-02T03:04:05Z").as_deref(),
            Some("2024-01-02T03:04:05.000000Z")
        );
        assert_eq!(
            canonical_micro_time("2024-01-02T03:04:05.123456789Z").as_deref(),
            Some("2024-01-02T03:04:05.123456Z")
        );
    }

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        for (seconds, expected) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (600, "10m"),
            (179 * 60, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 60, "3h1m"),
            (8 * HOUR + 60, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (2 * DAY + HOUR, "2d1h"),
            (8 * DAY, "8d"),
            (729 * DAY, "729d"),
            (730 * DAY, "2y"),
            (731 * DAY, "2y1d"),
            (8 * 365 * DAY, "8y"),
        ] {
            assert_eq!(
                human_duration(SignedDuration::from_secs(seconds)),
                expected,
                "{seconds}"
            );
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}") {
            let _outcome = (canonical_time(&text), canonical_micro_time(&text));
        }
    }
}
