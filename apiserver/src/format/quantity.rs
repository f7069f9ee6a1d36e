//! Resource quantities (`500m`, `1Gi`, `1e3`): parsing, comparison and the canonical spelling.
//!
//! A quantity is kept as a whole number of nano-units in 128 bits, which holds every value the API
//! accepts: magnitudes are capped at 2^63-1 and precision finer than one nano is rounded away from
//! zero, both as the Kubernetes documentation of `Quantity` says. A real API server answers with the
//! canonical spelling (`0.5` comes back as `500m`, `1024Mi` as `1Gi`), so the codec of the built-in
//! kinds does too: a client that compares what it sent with what it reads sees the same differences.

use std::fmt;

use thiserror::Error;

/// A parsed quantity. Ordering and equality are by value; the spelling's family only decides how
/// the value is printed.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    family: Family,
}

/// Why a string is not a quantity, in the words a real API server uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// The string does not have the shape of a quantity.
    #[error(
        "quantities must match the regular expression \
         '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// The number before the suffix cannot be read.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is none of the known ones.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The family of suffixes a quantity was written with; it is printed with the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Decimal,
    Binary,
    Exponent,
}

const NANO: i128 = 1_000_000_000;
/// Parts of a nano kept while digits are summed.
const ATTO: i128 = 1_000_000_000_000_000_000;
/// The largest magnitude of a quantity; larger ones are read as this.
const MAX: i128 = (i64::MAX as i128) * NANO;

const DECIMAL_SUFFIXES: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY_SUFFIXES: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];

impl Quantity {
    /// Parses the textual form.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, text.get(1..).unwrap_or_default()),
            Some(b'+') => (false, text.get(1..).unwrap_or_default()),
            Some(_) => (false, text),
            None => return Err(QuantityError::Format),
        };
        let end_of = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, rest) = unsigned.split_at(end_of(unsigned));
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(end_of(rest)),
            None => ("", rest),
        };
        if !is_suffix_shaped(suffix) || (text.len() == suffix.len()) {
            return Err(QuantityError::Format);
        }
        if whole.is_empty() && fraction.is_empty() {
            return Err(QuantityError::Numeric);
        }
        let (family, scale) = interpret_suffix(suffix)?;
        let magnitude = scale.apply(whole, fraction);
        Ok(Self {
            nanos: if negative { -magnitude } else { magnitude },
            family,
        })
    }

    /// A quantity of `value` whole units, printed with decimal suffixes.
    pub fn from_units(value: i64) -> Self {
        Self {
            nanos: i128::from(value) * NANO,
            family: Family::Decimal,
        }
    }

    /// Whether the value is below zero.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether the value is zero.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether the value is a whole number of units.
    pub fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    /// The value in whole units, rounded up.
    pub fn units_rounded_up(self) -> i64 {
        let units = self.nanos.div_euclid(NANO) + i128::from(self.nanos.rem_euclid(NANO) != 0);
        i64::try_from(units).unwrap_or(if units < 0 { i64::MIN } else { i64::MAX })
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The canonical spelling: the largest suffix of the family that leaves a whole number.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        // Below 1024 and for fractions a binary suffix would lose precision or read oddly.
        if self.family == Family::Binary && self.is_whole() && self.nanos.abs() >= 1024 * NANO {
            let mut value = self.nanos / NANO;
            let mut suffix = "";
            for (name, _) in BINARY_SUFFIXES {
                if value % 1024 != 0 {
                    break;
                }
                value /= 1024;
                suffix = name;
            }
            return write!(f, "{value}{suffix}");
        }
        let mut value = self.nanos;
        let mut exponent = -9;
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        if self.family == Family::Exponent {
            return if exponent == 0 {
                write!(f, "{value}")
            } else {
                write!(f, "{value}e{exponent}")
            };
        }
        let suffix = DECIMAL_SUFFIXES
            .iter()
            .find(|(_, e)| *e == exponent)
            .map_or("", |(s, _)| s);
        write!(f, "{value}{suffix}")
    }
}

/// A power of ten or of two by which the digits are multiplied.
#[derive(Debug, Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

impl Scale {
    /// The magnitude of `whole.fraction` times this scale in nanos: rounded up to a whole nano and
    /// capped, without ever overflowing however many digits there are.
    fn apply(self, whole: &str, fraction: &str) -> i128 {
        let (tens, factor) = match self {
            Self::Ten(exponent) => (exponent.saturating_add(9), 1),
            Self::Two(exponent) => (9, 1_i128 << exponent),
        };
        let mut value: i128 = 0;
        // What lies below a nano, in 10^-18 of it, and whether anything finer was left out. Only a
        // binary suffix can lift such digits to a nano again, hence the exact sum.
        let mut below: i128 = 0;
        let mut finer = false;
        let whole_len = i32::try_from(whole.len()).unwrap_or(i32::MAX);
        for (index, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
            let digit = i128::from(digit - b'0');
            if digit == 0 {
                continue;
            }
            let index = i32::try_from(index).unwrap_or(i32::MAX);
            let place = whole_len
                .saturating_sub(1)
                .saturating_sub(index)
                .saturating_add(tens);
            let power = |exponent: i32| {
                u32::try_from(exponent)
                    .ok()
                    .and_then(|exponent| 10_i128.checked_pow(exponent))
                    .and_then(|power| power.checked_mul(digit))
                    .and_then(|part| part.checked_mul(factor))
            };
            if place >= 0 {
                let Some(part) = power(place) else { return MAX };
                value = value.saturating_add(part);
            } else if let Some(part) = power(place.saturating_add(18)) {
                below = below.saturating_add(part);
            } else {
                finer = true;
            }
        }
        let (carry, rest) = (below / ATTO, below % ATTO);
        value = value.saturating_add(carry);
        let rounded = finer || rest != 0;
        value.saturating_add(i128::from(rounded)).min(MAX)
    }
}

/// Whether `suffix` has the shape `[eEinumkKMGTP]*[-+]?[0-9]*`.
fn is_suffix_shaped(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit())
}

fn interpret_suffix(suffix: &str) -> Result<(Family, Scale), QuantityError> {
    if let Some((_, exponent)) = DECIMAL_SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Ok((Family::Decimal, Scale::Ten(*exponent)));
    }
    if let Some((_, exponent)) = BINARY_SUFFIXES.iter().find(|(name, _)| *name == suffix) {
        return Ok((Family::Binary, Scale::Two(*exponent)));
    }
    suffix
        .strip_prefix(['e', 'E'])
        .and_then(|exponent| exponent.parse::<i32>().ok())
        .map(|exponent| (Family::Exponent, Scale::Ten(exponent)))
        .ok_or(QuantityError::Suffix)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).expect(text).to_string()
    }

    #[test]
    fn canonical_spellings() {
        for (text, expected) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("-0", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("01", "1"),
            ("1.", "1"),
            (".5", "500m"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("100m", "100m"),
            ("1000", "1k"),
            ("1k", "1k"),
            ("1024", "1024"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("0.1Mi", "104857600m"),
            ("128974848", "128974848"),
            ("1e3", "1e3"),
            ("12E6", "12e6"),
            ("1e0", "1"),
            ("1e-3", "1e-3"),
            ("129M", "129M"),
            ("1E", "1E"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("1.0000000001", "1000000001n"),
            ("99999999999999999999", "9223372036854775807"),
            ("1e400", "9223372036854775807"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn malformed_quantities() {
        for (text, error) in [
            ("", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1Gi ", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            (".", QuantityError::Numeric),
            ("1Zi", QuantityError::Format),
            ("1mm", QuantityError::Suffix),
            ("1ki", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("١", QuantityError::Format),
        ] {
            assert_eq!(Quantity::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn comparison_is_by_value() {
        let q = |text| Quantity::parse(text).expect("valid");
        assert_eq!(q("1Gi"), q("1073741824"));
        assert!(q("1G") < q("1Gi"));
        assert!(q("-1") < q("0") && q("-1").is_negative());
        assert_eq!(q("1500m").units_rounded_up(), 2);
        assert_eq!(q("-1500m").units_rounded_up(), -1);
        assert!(!q("1500m").is_whole());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            let _outcome = Quantity::parse(&text);
        }

        #[test]
        fn canonical_spelling_is_a_fixed_point(text in "[+-]?[0-9]{1,22}(\\.[0-9]{0,12})?([numkMGTPE]|[KMGTPE]i|e-?[0-9]{1,2})?") {
            let parsed = Quantity::parse(&text).expect("shaped like a quantity");
            let spelled = parsed.to_string();
            let again = Quantity::parse(&spelled).expect("canonical spelling parses");
            prop_assert_eq!(parsed, again);
            prop_assert_eq!(spelled, again.to_string());
        }
    }
}
