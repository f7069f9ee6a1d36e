//! Durations as `format: duration` reads them: Go's syntax, else words as in `2 days`.
//!
//! Used by validation, and by CEL, which sees such strings as durations.

/// Nanoseconds in `text`, `None` when it is not a duration or does not fit 64 bits.
pub(super) fn parse(text: &str) -> Option<i64> {
    parse_go(text).or_else(|| parse_words(text))
}

/// Go's `time.ParseDuration`: a sign and numbers with units, for example `-1h30m0.5s`.
fn parse_go(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if unsigned == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    let mut rest = unsigned;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at(end);
        let unit = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3_600 * SECOND,
            _ => return None,
        };
        total += scaled(number, unit)?;
        rest = next;
    }
    let total = if text.starts_with('-') { -total } else { total };
    i64::try_from(total).ok()
}

/// `number`, which may have a fraction, times `unit`.
fn scaled(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse::<u64>().ok()?.into()
    };
    // Beyond 18 digits a fraction of an hour is far below a nanosecond.
    let digits = fraction.get(..fraction.len().min(18))?;
    let part: i128 = if digits.is_empty() {
        0
    } else {
        digits.parse::<u64>().ok()?.into()
    };
    let scale = 10_i128.pow(u32::try_from(digits.len()).ok()?);
    Some(whole * unit + part * unit / scale)
}

/// Numbers and unit words in any order of sizes, anywhere in the text, for example `1 week 2 days`.
fn parse_words(text: &str) -> Option<i64> {
    let mut total: i128 = 0;
    let mut found = false;
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (_, from_digits) = rest.split_at(start);
        let end = from_digits
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(from_digits.len());
        let (digits, tail) = from_digits.split_at(end);
        let tail = tail.trim_start();
        let end = tail
            .find(|c: char| !c.is_ascii_alphabetic() && c != 'µ')
            .unwrap_or(tail.len());
        let (word, next) = tail.split_at(end);
        rest = next;
        if word.is_empty() {
            continue;
        }
        let number: i128 = digits.parse::<i64>().ok()?.into();
        if let Some(unit) = word_unit(&word.to_lowercase()) {
            found = true;
            total += number * unit;
        }
    }
    if !found {
        return None;
    }
    i64::try_from(total).ok()
}

/// The unit a word names: a short form, or any word that starts with the long form.
fn word_unit(word: &str) -> Option<i128> {
    const UNITS: [(&[&str], &str, i128); 8] = [
        (&["ns"], "nano", 1),
        (&["us", "µs"], "micro", 1_000),
        (&["ms"], "milli", 1_000_000),
        (&["s"], "sec", SECOND),
        (&["m"], "min", 60 * SECOND),
        (&["h", "hr"], "hour", 3_600 * SECOND),
        (&["d"], "day", 24 * 3_600 * SECOND),
        (&["w", "wk"], "week", 7 * 24 * 3_600 * SECOND),
    ];
    UNITS
        .iter()
        .find(|(short, long, _)| short.contains(&word) || word.starts_with(long))
        .map(|(_, _, unit)| *unit)
}

const SECOND: i128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_and_word_durations() {
        let second = 1_000_000_000;
        for (text, nanos) in [
            ("0", Some(0)),
            ("1s", Some(second)),
            ("-1.5h", Some(-5_400 * second)),
            ("1h2m3s4ms5us6ns", Some(3_723 * second + 4_005_006)),
            (".5s", Some(second / 2)),
            ("22 ns", Some(22)),
            ("1 week 2 days", Some(9 * 86_400 * second)),
            ("3 minutes", Some(180 * second)),
            ("", None),
            ("1", None),
            (".s", None),
            // The words are looked for anywhere.
            ("1.2.3s", Some(3 * second)),
            ("abc", None),
            ("9223372036s", Some(9_223_372_036 * second)),
            ("9223372037s", None),
        ] {
            assert_eq!(parse(text), nanos, "{text}");
        }
    }
}
