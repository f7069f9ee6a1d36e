//! What one command may use of the machine: the kernel's resource limits, by their usual names.

use std::str::FromStr;

use rustix::process::Resource;

use crate::sys::spawn::Limit;

/// The limits of a command. Each holds for every process of the command by itself, except `nproc`,
/// which counts all processes of the user (and does not bind a privileged one).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ResourceLimits {
    /// In the order of [`KINDS`].
    values: [Option<u64>; KINDS.len()],
}

/// A resource, its name in `ulimit` and `limits.conf`, and whether it is measured in bytes.
struct Kind {
    resource: Resource,
    name: &'static str,
    bytes: bool,
}

const KINDS: [Kind; 8] = [
    kind(Resource::As, "as", true),
    kind(Resource::Core, "core", true),
    kind(Resource::Cpu, "cpu", false),
    kind(Resource::Data, "data", true),
    kind(Resource::Fsize, "fsize", true),
    kind(Resource::Nofile, "nofile", false),
    kind(Resource::Nproc, "nproc", false),
    kind(Resource::Stack, "stack", true),
];

const fn kind(resource: Resource, name: &'static str, bytes: bool) -> Kind {
    Kind {
        resource,
        name,
        bytes,
    }
}

/// Why something is no limit.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LimitError {
    /// There is no such resource.
    #[error(
        "no resource is named {0:?}; expected as, core, cpu, data, fsize, nofile, nproc or stack"
    )]
    Resource(String),
    /// The value is no number.
    #[error("{name} is {value:?}; expected a whole number{}", unit(*.bytes))]
    Value {
        /// The resource.
        name: &'static str,
        /// What was given.
        value: String,
        /// Whether it is measured in bytes.
        bytes: bool,
    },
    /// There is no `=`.
    #[error("{0:?} has no value; expected NAME=VALUE, such as nproc=256")]
    Form(String),
}

fn unit(bytes: bool) -> &'static str {
    if bytes {
        " of bytes, or of KiB, MiB or GiB"
    } else {
        ""
    }
}

impl ResourceLimits {
    /// Sets one limit by the resource's name, in bytes, seconds (`cpu`) or a count.
    ///
    /// # Errors
    /// [`LimitError::Resource`] for a name that is none.
    pub fn set(&mut self, name: &str, value: u64) -> Result<(), LimitError> {
        let (slot, _) = self.slot(name)?;
        *slot = Some(value);
        Ok(())
    }

    fn set_text(&mut self, text: &str) -> Result<(), LimitError> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| LimitError::Form(text.to_owned()))?;
        let (slot, kind) = self.slot(name.trim())?;
        let number = number(value.trim(), kind.bytes).ok_or_else(|| LimitError::Value {
            name: kind.name,
            value: value.to_owned(),
            bytes: kind.bytes,
        })?;
        *slot = Some(number);
        Ok(())
    }

    fn slot(&mut self, name: &str) -> Result<(&mut Option<u64>, &'static Kind), LimitError> {
        self.values
            .iter_mut()
            .zip(&KINDS)
            .find(|(_, kind)| kind.name == name)
            .ok_or_else(|| LimitError::Resource(name.to_owned()))
    }

    /// Of each resource the lower of both limits.
    #[must_use]
    pub(super) fn strictest(&self, other: &Self) -> Self {
        let mut values = self.values;
        for (value, other) in values.iter_mut().zip(other.values) {
            *value = match (*value, other) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        Self { values }
    }

    /// In the kernel's terms. Where this process may use less itself, that is what commands get:
    /// nobody but a privileged user could raise it.
    pub(super) fn kernel(&self) -> Vec<Limit> {
        let own = |resource| {
            let own = rustix::process::getrlimit(resource).maximum;
            own.unwrap_or(u64::MAX)
        };
        self.values
            .iter()
            .zip(&KINDS)
            .filter_map(|(value, kind)| {
                let value = (*value)?.min(own(kind.resource));
                Some(Limit {
                    resource: kind.resource,
                    soft: value,
                    hard: value,
                })
            })
            .collect()
    }
}

impl FromStr for ResourceLimits {
    type Err = LimitError;

    /// From `NAME=VALUE` pairs with commas between them; a value in bytes may end with `KiB`, `MiB` or
    /// `GiB`. Of equal names the last counts.
    fn from_str(text: &str) -> Result<Self, LimitError> {
        let mut limits = Self::default();
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            limits.set_text(pair)?;
        }
        Ok(limits)
    }
}

fn number(text: &str, bytes: bool) -> Option<u64> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let scaled = units.iter().find_map(|(unit, factor)| {
        let number = text.strip_suffix(unit)?;
        Some((number.trim_end(), *factor))
    });
    match scaled {
        Some((number, factor)) if bytes => number.parse::<u64>().ok()?.checked_mul(factor),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_limits_or_say_what_is_expected() {
        let limits: ResourceLimits = " nproc=64, as=2GiB,fsize=10 MiB,nproc=32".parse().unwrap();
        let mut same = ResourceLimits::default();
        same.set("as", 2 << 30).unwrap();
        same.set("fsize", 10 << 20).unwrap();
        same.set("nproc", 32).unwrap();
        assert_eq!(limits, same);
        assert_eq!("".parse(), Ok(ResourceLimits::default()));
        for (text, says) in [
            ("nproc", "\"nproc\" has no value; expected NAME=VALUE"),
            (
                "threads=1",
                "no resource is named \"threads\"; expected as,",
            ),
            ("nproc=1KiB", "nproc is \"1KiB\"; expected a whole number"),
            (
                "as=-1",
                "as is \"-1\"; expected a whole number of bytes, or of KiB",
            ),
            ("as=99999999999GiB", "as is \"99999999999GiB\""),
            ("cpu=", "cpu is \"\"; expected a whole number"),
        ] {
            let error = text.parse::<ResourceLimits>().unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }

    #[test]
    fn the_stricter_of_two_limits_holds() {
        let one: ResourceLimits = "nproc=64,cpu=5".parse().unwrap();
        let other: ResourceLimits = "nproc=99,nofile=7".parse().unwrap();
        let both = "nproc=64,cpu=5,nofile=7".parse().unwrap();
        assert_eq!(one.strictest(&other), both);
        assert_eq!(other.strictest(&one), both);
    }

    #[test]
    fn no_limit_is_above_this_process_own() {
        let own = rustix::process::getrlimit(Resource::Nofile)
            .maximum
            .unwrap();
        let limits: ResourceLimits = format!("nofile={}", own + 1).parse().unwrap();
        let [limit] = limits.kernel().try_into().unwrap();
        assert_eq!((limit.soft, limit.hard), (own, own));
    }
}
