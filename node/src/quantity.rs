//! Kubernetes resource quantities as exact numbers.
//!
//! Pure. Used for resource fields in environments and volumes, for limits and for the capacity of
//! the node. Format: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A quantity in billionths, rounded away from zero as the API server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Amount(i128);

const NANO: i128 = 1_000_000_000;

impl Amount {
    /// A whole number.
    pub(crate) fn whole(number: u64) -> Self {
        Self(i128::from(number) * NANO)
    }

    /// Parses a quantity; `None` when it is malformed or too large.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (number, suffix) = split_suffix(text)?;
        let (multiplier, divisor) = scale(suffix)?;
        let (negative, digits) = match number.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, number.strip_prefix('+').unwrap_or(number)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 18 {
            return None;
        }
        let mut mantissa: i128 = 0;
        for digit in whole.chars().chain(fraction.chars()) {
            let digit = digit.to_digit(10)?;
            mantissa = mantissa.checked_mul(10)?.checked_add(digit.into())?;
        }
        let divisor = divisor.checked_mul(10_i128.checked_pow(fraction.len().try_into().ok()?)?)?;
        let scaled = mantissa.checked_mul(multiplier)?.checked_mul(NANO)?;
        let value = divide_up(scaled, divisor);
        Some(Self(if negative { -value } else { value }))
    }

    /// Parses an API value.
    pub(crate) fn of(quantity: &Quantity) -> Option<Self> {
        Self::parse(&quantity.0)
    }

    /// How often `divisor` fits, rounded up; what a resource field shows.
    pub(crate) fn in_units_of(self, divisor: Self) -> Option<i128> {
        (divisor.0 > 0).then(|| divide_up(self.0, divisor.0))
    }

    /// The value rounded up to a whole number.
    pub(crate) fn ceil(self) -> i128 {
        divide_up(self.0, NANO)
    }

    /// Whether it is zero.
    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0
    }
}

fn divide_up(value: i128, divisor: i128) -> i128 {
    let quotient = value / divisor;
    if value % divisor > 0 {
        quotient + 1
    } else {
        quotient
    }
}

/// Splits the number from its suffix or exponent.
fn split_suffix(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    text.split_at_checked(end)
}

/// The factor of a suffix as multiplier and divisor.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1 << (10 * power), 1));
    let decimal = |power: u32| Some((10_i128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, NANO)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10_i128.checked_pow(power.unsigned_abs())?;
            Some(if power < 0 { (1, factor) } else { (factor, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood() {
        for (text, nano) in [
            ("0", 0),
            ("1", NANO),
            ("100m", NANO / 10),
            ("1.5", NANO * 3 / 2),
            (".5", NANO / 2),
            ("2.", NANO * 2),
            ("-3", -3 * NANO),
            ("1k", 1000 * NANO),
            ("1Ki", 1024 * NANO),
            ("1.5Gi", (3 << 29) * NANO),
            ("5n", 5),
            ("0.1n", 1),
            ("1e3", 1000 * NANO),
            ("1E-3", NANO / 1000),
            ("1E", 10_i128.pow(18) * NANO),
        ] {
            assert_eq!(Amount::parse(text), Some(Amount(nano)), "{text}");
        }
        for bad in ["", "x", "1x", "1.2.3", "--1", "1e", "Ki", "1ki", "1e999"] {
            assert_eq!(Amount::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn units_round_up() {
        let amount = |text| Amount::parse(text).unwrap();
        assert_eq!(amount("250m").in_units_of(amount("1")), Some(1));
        assert_eq!(amount("250m").in_units_of(amount("1m")), Some(250));
        assert_eq!(amount("64Mi").in_units_of(amount("1Mi")), Some(64));
        assert_eq!(amount("65M").in_units_of(amount("1Mi")), Some(62));
        assert_eq!(amount("1").in_units_of(amount("0")), None);
    }
}
