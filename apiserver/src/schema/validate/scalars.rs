//! Bounds of strings and numbers.

use serde_json::{Number, Value};

use super::super::error::FieldError;
use super::super::format::Format;
use super::super::path::Path;
use super::super::render;
use super::super::structural::{Checks, Kind, Node};
use super::Walk;

impl Walk {
    pub(super) fn scalar(&mut self, checks: &Checks, value: &Value, path: &Path<'_>) {
        match value {
            Value::String(text) => {
                self.checked += 1;
                if let Some(error) = string(checks, value, text, path) {
                    self.errors.push(error);
                }
            }
            Value::Number(number) => {
                self.checked += 1;
                self.number(checks, value, number, path);
            }
            _ => {}
        }
    }

    fn number(&mut self, checks: &Checks, value: &Value, number: &Number, path: &Path<'_>) {
        let mut refuse = |detail: String| {
            self.errors.push(FieldError::invalid(
                path,
                value,
                format_args!("{path} in body {detail}"),
            ));
        };
        let compared = Compared::new(number);
        if let Some(factor) = checks.multiple_of
            && !compared.is_multiple_of(factor)
        {
            refuse(format!("should be a multiple of {}", render::float(factor)));
        }
        if let Some(min) = checks.minimum {
            let exclusive = checks.exclusive_minimum;
            if compared.below(min) || exclusive && compared.equals(min) {
                let words = if exclusive {
                    "greater than"
                } else {
                    "greater than or equal to"
                };
                refuse(format!("should be {words} {}", compared.show(min)));
            }
        }
        if let Some(max) = checks.maximum {
            let exclusive = checks.exclusive_maximum;
            if compared.above(max) || exclusive && compared.equals(max) {
                let words = if exclusive {
                    "less than"
                } else {
                    "less than or equal to"
                };
                refuse(format!("should be {words} {}", compared.show(max)));
            }
        }
    }

    /// Whether a number fits its format.
    pub(super) fn range(&mut self, schema: &Node, number: &Number, path: &Path<'_>) {
        let fits = match (schema.kind, schema.format) {
            (Kind::Integer, Format::Int32) => {
                fits_integer(number, f64::from(i32::MIN), 2_147_483_648.0)
            }
            // As a float, the largest 64-bit integers round up to the end of the range.
            (Kind::Integer, _) if number.is_i64() => true,
            (Kind::Integer, _) => fits_integer(
                number,
                -9_223_372_036_854_775_808.0,
                9_223_372_036_854_775_808.0,
            ),
            (Kind::Number, Format::Float) => number
                .as_f64()
                .is_some_and(|f| f.abs() <= f64::from(f32::MAX)),
            _ => true,
        };
        if fits {
            return;
        }
        let kind = schema.kind.as_str();
        let detail = match schema.format {
            Format::None => {
                format!("Checked value must be of type {kind} (default format) in {path}")
            }
            format => format!(
                "Checked value must be of type {kind} with format {} in {path}",
                format.as_str()
            ),
        };
        self.whole(detail);
    }
}

/// Whether a number is an integer from `min` up to, but not including, `end`.
fn fits_integer(number: &Number, min: f64, end: f64) -> bool {
    number
        .as_f64()
        .is_some_and(|f| f.fract() == 0.0 && f >= min && f < end)
}

/// The first bound of a string that does not hold.
fn string(checks: &Checks, value: &Value, text: &str, path: &Path<'_>) -> Option<FieldError> {
    if checks.max_length.is_some() || checks.min_length.is_some() {
        let length = text.chars().count() as u64;
        if let Some(max) = checks.max_length
            && length > max
        {
            return Some(FieldError::too_long(path, max));
        }
        if let Some(min) = checks.min_length
            && length < min
        {
            return Some(FieldError::invalid(
                path,
                value,
                format_args!("{path} in body should be at least {min} chars long"),
            ));
        }
    }
    let pattern = checks.pattern.as_ref()?;
    (!pattern.matches(text)).then(|| {
        FieldError::invalid(
            path,
            value,
            format_args!("{path} in body should match '{}'", pattern.as_str()),
        )
    })
}

/// A number as it is compared with bounds: integers exactly, with bounds cut to integers.
enum Compared {
    Integer(i64),
    Float(f64),
}

impl Compared {
    fn new(number: &Number) -> Self {
        number.as_i64().map_or_else(
            || Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            Self::Integer,
        )
    }

    fn below(&self, bound: f64) -> bool {
        match self {
            Self::Integer(n) => *n < cut(bound),
            Self::Float(f) => *f < bound,
        }
    }

    fn above(&self, bound: f64) -> bool {
        match self {
            Self::Integer(n) => *n > cut(bound),
            Self::Float(f) => *f > bound,
        }
    }

    #[expect(clippy::float_cmp, reason = "an exclusive bound is exact")]
    fn equals(&self, bound: f64) -> bool {
        match self {
            Self::Integer(n) => *n == cut(bound),
            Self::Float(f) => *f == bound,
        }
    }

    fn is_multiple_of(&self, factor: f64) -> bool {
        match self {
            Self::Integer(n) if factor >= 1.0 => {
                n.checked_rem(cut(factor)).is_none_or(|rest| rest == 0)
            }
            Self::Integer(n) => {
                #[expect(clippy::cast_precision_loss, reason = "as Kubernetes computes it")]
                let n = *n as f64;
                integral(n / factor)
            }
            Self::Float(f) => integral(f / factor),
        }
    }

    fn show(&self, bound: f64) -> String {
        match self {
            Self::Integer(_) => cut(bound).to_string(),
            Self::Float(_) => render::float(bound),
        }
    }
}

/// A quotient that is an integer but for rounding.
fn integral(quotient: f64) -> bool {
    (quotient - quotient.round()).abs() < 1e-9 * quotient.abs().max(1.0)
}

/// The bound without its fraction.
#[expect(
    clippy::cast_possible_truncation,
    reason = "bounds beyond 64 bits saturate, as the comparison needs"
)]
const fn cut(bound: f64) -> i64 {
    bound as i64
}
