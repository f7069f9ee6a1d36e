//! Notations of Go programs, in which manifests of the programs before these are written.

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

/// A duration in Go's notation: `180s`, `1m30s`, `250ms`, or a bare `0`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GoDuration(pub Duration);

/// A text that is no duration.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected a duration with units, such as 180s, 1m30s or 250ms")]
pub struct DurationError;

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let mut rest = text;
        let mut total = 0.0;
        while !rest.is_empty() {
            let number_end = rest
                .find(|c: char| !(c.is_ascii_digit() || c == '.'))
                .ok_or(DurationError)?;
            let (number, after) = rest.split_at_checked(number_end).ok_or(DurationError)?;
            let unit_end = after
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(after.len());
            let (unit, after) = after.split_at_checked(unit_end).ok_or(DurationError)?;
            let scale = match unit {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(DurationError),
            };
            let number: f64 = number.parse().map_err(|_| DurationError)?;
            total += number * scale;
            rest = after;
        }
        if text.is_empty() {
            return Err(DurationError);
        }
        Duration::try_from_secs_f64(total)
            .map(Self)
            .map_err(|_| DurationError)
    }
}

/// Go accepts `-flag` for `--flag`.
pub fn two_dashes(argument: OsString) -> OsString {
    match argument.to_str() {
        Some(text)
            if text.len() > 2
                && text.starts_with('-')
                && !text.starts_with("--")
                && text
                    .chars()
                    .nth(1)
                    .is_some_and(|letter| letter.is_ascii_lowercase()) =>
        {
            format!("-{text}").into()
        }
        _ => argument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_in_gos_notation() {
        let millis = |text: &str| text.parse::<GoDuration>().map(|d| d.0.as_millis());
        assert_eq!(millis("180s"), Ok(180_000));
        assert_eq!(millis("1m30s"), Ok(90_000));
        assert_eq!(millis("1.5h"), Ok(5_400_000));
        assert_eq!(millis("250ms"), Ok(250));
        assert_eq!(millis("0"), Ok(0));
        assert_eq!(millis("0s"), Ok(0));
        for text in ["", "180", "s", "1x", "-1s", "1s2", "1..2s", "∞s"] {
            assert_eq!(millis(text), Err(DurationError), "{text}");
        }
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        let dashed = |text: &str| two_dashes(text.into()).into_string().unwrap();
        assert_eq!(dashed("-access-log=false"), "--access-log=false");
        assert_eq!(dashed("--access-log"), "--access-log");
        assert_eq!(dashed("-h"), "-h");
        assert_eq!(dashed("-"), "-");
        assert_eq!(dashed("value"), "value");
    }
}
