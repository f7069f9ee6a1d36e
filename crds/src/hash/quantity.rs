//! Kubernetes quantities (`500m`, `1.5Gi`, `12e6`): their canonical text and their value.
//!
//! The rules are those of `k8s.io/apimachinery/pkg/api/resource`, including that a quantity which looks canonical at a
//! glance keeps the text it was written with (`1.250` stays, `1.5` becomes `1500m`).

/// A quantity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quantity {
    negative: bool,
    /// The amount is `mantissa * 10^exponent`.
    mantissa: u128,
    exponent: i32,
    format: Format,
    /// The text it keeps.
    kept: Option<String>,
}

/// The kind of suffix a quantity is written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `n u m k M G T P E`, or none.
    Decimal,
    /// `e3`
    Exponent,
    /// `Ki Mi Gi Ti Pi Ei`
    Binary,
}

/// The finest amount, as a power of ten. Finer ones are rounded away from zero.
const FINEST: i32 = -9;
/// The largest amount with a binary suffix.
const LARGEST_BINARY: u128 = i64::MAX as u128;

const DECIMAL: &[(&str, i32)] = &[
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
/// Powers of 1024, from 1 on.
const BINARY: &[&str] = &["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Quantity {
    /// Reads a quantity. `None` if the text is not one, or has more digits than any amount needs.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let negative = text.starts_with('-');
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, rest) = split_digits(unsigned.trim_start_matches('0'));
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => split_digits(rest),
            None => ("", rest),
        };
        if !unsigned.starts_with(|c: char| c.is_ascii_digit()) && fraction.is_empty() {
            return None;
        }
        let (format, power) = suffix_of(suffix)?;
        let whole = if whole.is_empty() { "0" } else { whole };
        let digits = format!("{whole}{fraction}");
        let places = i32::try_from(fraction.len()).ok()?;

        let mut mantissa: u128 = digits.parse().ok()?;
        let mut exponent = -places;
        if format == Format::Binary {
            // With this few places, an amount that does not fit is beyond the largest one whatever its exact value.
            mantissa = match mantissa.checked_mul(1 << power) {
                None if places <= 18 => u128::MAX,
                product => product?,
            };
        } else {
            exponent = exponent.checked_add(power)?;
        }
        let kept = looks_canonical(format, power, &digits, places).then(|| text.to_owned());
        let mut quantity = Self {
            negative,
            mantissa,
            exponent,
            format,
            kept,
        };
        quantity.round();
        quantity.strip_zeros();
        Some(quantity)
    }

    /// The text Kubernetes prints.
    pub(super) fn canonical(&self) -> String {
        if self.mantissa == 0 {
            return "0".to_owned();
        }
        if let Some(kept) = &self.kept {
            return kept.clone();
        }
        let sign = if self.negative { "-" } else { "" };
        if let Some((number, suffix)) = self.binary() {
            return format!("{sign}{number}{suffix}");
        }
        let shift = self.exponent.rem_euclid(3);
        let number = format!(
            "{}{}",
            self.mantissa,
            "0".repeat(shift.unsigned_abs() as usize)
        );
        let exponent = self.exponent - shift;
        let suffix = DECIMAL.iter().find(|(_, power)| *power == exponent);
        match suffix {
            _ if exponent == 0 => format!("{sign}{number}"),
            Some((suffix, _)) if self.format != Format::Exponent => {
                format!("{sign}{number}{suffix}")
            }
            _ => format!("{sign}{number}e{exponent}"),
        }
    }

    /// A text that two quantities share exactly if they are the same amount.
    pub(super) fn by_value(&self) -> String {
        if self.mantissa == 0 {
            return "0".to_owned();
        }
        let sign = if self.negative { "-" } else { "" };
        format!("{sign}{}e{}", self.mantissa, self.exponent)
    }

    /// Number and suffix, for a whole amount of at least 1024 written with a binary suffix.
    fn binary(&self) -> Option<(u128, &'static str)> {
        let scale = 10_u128.checked_pow(u32::try_from(self.exponent).ok()?)?;
        let mut number = self.mantissa.checked_mul(scale)?;
        if self.format != Format::Binary || number < 1024 {
            return None;
        }
        let mut suffix = "";
        for next in BINARY {
            if !number.is_multiple_of(1024) {
                break;
            }
            number /= 1024;
            suffix = next;
        }
        Some((number, suffix))
    }

    /// Brings the amount into the range Kubernetes keeps.
    fn round(&mut self) {
        if self.exponent < FINEST {
            let excess = self.exponent.abs_diff(FINEST);
            self.mantissa = match 10_u128.checked_pow(excess) {
                Some(unit) => self.mantissa.div_ceil(unit),
                None => u128::from(self.mantissa != 0),
            };
            self.exponent = FINEST;
        }
        if self.format == Format::Binary {
            let scale = 10_u128.pow(self.exponent.unsigned_abs());
            if self.mantissa > LARGEST_BINARY * scale {
                (self.mantissa, self.exponent) = (LARGEST_BINARY, 0);
            }
        }
    }

    fn strip_zeros(&mut self) {
        while self.mantissa != 0 && self.mantissa.is_multiple_of(10) {
            self.mantissa /= 10;
            self.exponent += 1;
        }
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// The format and the power (of ten, or of two for binary ones) that a suffix stands for.
fn suffix_of(suffix: &str) -> Option<(Format, i32)> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Format::Decimal, *power));
    }
    if let Some(at) = (10..)
        .step_by(10)
        .zip(BINARY)
        .find(|(_, name)| **name == suffix)
    {
        return Some((Format::Binary, at.0));
    }
    let power = suffix.strip_prefix(['e', 'E'])?;
    Some((Format::Exponent, power.parse().ok()?))
}

/// Whether Kubernetes takes the text for canonical without computing the canonical one.
fn looks_canonical(format: Format, power: i32, digits: &str, places: i32) -> bool {
    /// Digits that a 64-bit integer holds for certain.
    const SAFE_DIGITS: usize = 18;
    match format {
        Format::Binary => {
            let room = 14 - power * 3 / 10;
            let fits = places == 0 && usize::try_from(room).is_ok_and(|room| digits.len() <= room);
            fits && digits
                .parse()
                .is_ok_and(|value: u64| !value.is_multiple_of(8))
        }
        Format::Decimal | Format::Exponent => {
            let scale = power - places;
            digits.len() <= SAFE_DIGITS
                && scale >= FINEST
                && scale % 3 == 0
                && !digits.ends_with("000")
                && !digits.starts_with('0')
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).unwrap().canonical()
    }

    fn by_value(text: &str) -> String {
        Quantity::parse(text).unwrap().by_value()
    }

    #[test]
    fn canonical_form() {
        for (written, expected) in [
            ("1024Mi", "1Gi"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1.5", "1500m"),
            ("1Gi", "1Gi"),
            ("250m", "250m"),
            ("1500m", "1500m"),
            ("1000Mi", "1000Mi"),
            ("1048576Ki", "1Gi"),
            ("2048", "2048"),
            ("100000", "100k"),
            ("1500000", "1500k"),
            ("1e3", "1e3"),
            ("1E3", "1E3"),
            ("1000e3", "1e6"),
            ("12e6", "12e6"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1.1Ki", "1126400m"),
            ("0", "0"),
            ("0.0", "0"),
            ("0Gi", "0"),
            ("-0", "0"),
            ("-1000m", "-1"),
            ("-1.5Gi", "-1536Mi"),
            ("0.1n", "1n"),
            ("1.0000000001", "1000000001n"),
            (".5", "500m"),
            ("5.", "5."),
            ("9Ei", "9223372036854775807"),
            ("71550008461860892.0758055Ei", "9223372036854775807"),
            ("1Ei", "1Ei"),
            ("7Ei", "7Ei"),
            ("8Mi", "8Mi"),
            ("100E", "100E"),
            ("1e100", "10e99"),
            // Kept because they look canonical.
            ("1.250", "1.250"),
            ("+5", "+5"),
            ("05", "05"),
            ("1025Mi", "1025Mi"),
        ] {
            assert_eq!(canonical(written), expected, "{written}");
        }
    }

    #[test]
    fn text_that_is_not_a_quantity() {
        for text in [
            "", "-", ".", "x", "1x", "1 Gi", "1gi", "1e", "1e1.5", "1..5", "--1", "Ki", "1KiB",
        ] {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
    }

    #[test]
    fn equal_amounts_have_equal_values() {
        for (a, b) in [
            ("1Gi", "1024Mi"),
            ("1Gi", "1073741824"),
            ("1", "1000m"),
            ("1k", "1e3"),
            ("0.5", "500m"),
            ("0", "0Gi"),
            ("-1", "-1000m"),
            ("1.250", "1250m"),
        ] {
            assert_eq!(by_value(a), by_value(b), "{a} {b}");
        }
        assert_ne!(by_value("1Gi"), by_value("1G"));
        assert_ne!(by_value("1"), by_value("-1"));
    }

    proptest! {
        #[test]
        fn canonical_form_keeps_the_amount_and_is_stable(
            text in r"[-+]?[0-9]{1,12}(\.[0-9]{1,6})?(n|u|m||k|M|G|T|P|E|Ki|Mi|Gi|Ti|e[0-9]|E-[0-6])"
        ) {
            let quantity = Quantity::parse(&text).unwrap();
            let printed = quantity.canonical();
            let again = Quantity::parse(&printed).unwrap();
            prop_assert_eq!(again.by_value(), quantity.by_value(), "{}", &printed);
            prop_assert_eq!(again.canonical(), printed);
        }

        #[test]
        fn any_text_is_read_or_refused(text in r"[-+]{0,2}[0-9.]{0,60}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,12}") {
            if let Some(quantity) = Quantity::parse(&text) {
                quantity.canonical();
                quantity.by_value();
            }
        }
    }
}
