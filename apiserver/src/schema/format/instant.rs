//! Dates and times. Pure predicates, called by the formats.

use super::is_digits;

pub(super) fn is_date(text: &str) -> bool {
    let mut parts = text.split('-');
    let (Some(year), Some(month), Some(day), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    if year.len() != 4 || month.len() != 2 || day.len() != 2 {
        return false;
    }
    let number = |s: &str| is_digits(s).then(|| s.parse::<i16>().ok()).flatten();
    let (Some(year), Some(month), Some(day)) = (number(year), number(month), number(day)) else {
        return false;
    };
    let (Ok(month), Ok(day)) = (i8::try_from(month), i8::try_from(day)) else {
        return false;
    };
    jiff::civil::Date::new(year, month, day).is_ok()
}

/// RFC 3339, with `t` and `z` in either case.
pub(super) fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let Some((date, time)) = lower.split_once('t') else {
        return false;
    };
    if !is_date(date) {
        return false;
    }
    let Some((clock, rest)) = time.split_at_checked(8) else {
        return false;
    };
    let mut parts = clock.split(':');
    for limit in [23, 59, 59] {
        let ok = parts.next().is_some_and(|p| {
            p.len() == 2 && is_digits(p) && p.parse::<u8>().is_ok_and(|n| n <= limit)
        });
        if !ok {
            return false;
        }
    }
    if parts.next().is_some() {
        return false;
    }
    let (fraction, zone) = if let Some(fraction) = rest.strip_suffix('z') {
        (fraction, "+00:00")
    } else if let Some(at) = rest.rfind(['+', '-']) {
        rest.split_at(at)
    } else {
        return false;
    };
    let mut fraction = fraction.chars();
    let fraction_ok = fraction.next().is_none() || is_digits(fraction.as_str());
    let zone_ok = zone
        .strip_prefix(['+', '-'])
        .and_then(|zone| zone.split_once(':'))
        .is_some_and(|(h, m)| h.len() == 2 && m.len() == 2 && is_digits(h) && is_digits(m));
    fraction_ok && zone_ok
}
