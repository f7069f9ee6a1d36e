//! Numbers that identify something: UUIDs, and those with a check digit. Pure predicates, called by
//! the formats.

use super::{is_digits, is_hex};

/// A UUID whose dashes are optional; versions 4 and 5 also fix the variant.
pub(super) fn is_uuid(text: &str, version: Option<char>) -> bool {
    const DASHES: [usize; 4] = [8, 12, 16, 20];
    let mut digits = String::with_capacity(32);
    let mut dash_allowed = true;
    for c in text.chars() {
        if c == '-' {
            if !dash_allowed || !DASHES.contains(&digits.len()) {
                return false;
            }
            dash_allowed = false;
        } else {
            digits.push(c.to_ascii_lowercase());
            dash_allowed = true;
        }
    }
    if digits.len() != 32 || !is_hex(&digits) || !dash_allowed {
        return false;
    }
    let at = |i: usize| digits.chars().nth(i);
    match version {
        None => true,
        Some('3') => at(12) == Some('3'),
        Some(version) => {
            at(12) == Some(version) && at(16).is_some_and(|c| matches!(c, '8' | '9' | 'a' | 'b'))
        }
    }
}

/// The decimal digits of `text` when nothing but spaces and dashes is around them.
fn separated_digits(text: &str) -> Option<Vec<u32>> {
    text.chars()
        .filter(|c| !matches!(c, ' ' | '-'))
        .map(|c| c.to_digit(10))
        .collect()
}

pub(super) fn is_isbn10(text: &str) -> bool {
    let body: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
    if body.chars().count() != 10 {
        return false;
    }
    let mut sum = 0;
    for (i, c) in (1_u32..).zip(body.chars()) {
        let digit = match c.to_digit(10) {
            Some(digit) => digit,
            None if i == 10 && c == 'X' => 10,
            None => return false,
        };
        sum += i * digit;
    }
    sum % 11 == 0
}

pub(super) fn is_isbn13(text: &str) -> bool {
    let Some(digits) = separated_digits(text) else {
        return false;
    };
    let sum: u32 = digits
        .iter()
        .enumerate()
        .map(|(i, digit)| if i % 2 == 0 { *digit } else { digit * 3 })
        .sum();
    digits.len() == 13 && sum.is_multiple_of(10)
}

/// A number of a known issuer with a correct Luhn sum; anything but digits is ignored.
pub(super) fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let prefix = |n: usize| digits.iter().take(n).fold(0, |acc, d| acc * 10 + d);
    let issuer = match digits.len() {
        13 => prefix(1) == 4,
        14 => matches!(prefix(3), 300..=305) || matches!(prefix(2), 36 | 38),
        15 => matches!(prefix(2), 34 | 37) || matches!(prefix(4), 2131 | 1800),
        16 => {
            prefix(1) == 4
                || matches!(prefix(2), 51..=55 | 35)
                || prefix(4) == 6011
                || prefix(2) == 65
        }
        _ => false,
    };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, digit)| match (i % 2, digit * 2) {
            (0, _) => *digit,
            (_, doubled) if doubled > 9 => doubled - 9,
            (_, doubled) => doubled,
        })
        .sum();
    issuer && sum.is_multiple_of(10)
}

/// `ddd-dd-dddd`, where the dashes may be spaces or absent.
pub(super) fn is_ssn(text: &str) -> bool {
    let mut rest = text;
    for (width, last) in [(3, false), (2, false), (4, true)] {
        let Some((digits, tail)) = rest.split_at_checked(width) else {
            return false;
        };
        if !is_digits(digits) {
            return false;
        }
        rest = if last {
            tail
        } else {
            tail.strip_prefix(['-', ' ']).unwrap_or(tail)
        };
    }
    rest.is_empty()
}
