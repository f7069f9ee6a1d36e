//! Values from an environment that the operator may not control, and how long something may take.

use std::ffi::OsString;
use std::time::Duration;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::invalid;

/// Values that come from an environment the operator may not control.
pub(super) struct Lenient<'a> {
    pub(super) matches: &'a ArgMatches,
    pub(super) warnings: Vec<String>,
}

impl Lenient<'_> {
    pub(super) fn take<T>(
        &mut self,
        (id, flag, variable): (&str, &str, &str),
        value: &OsString,
        parse: impl Fn(&OsString) -> Result<T, String>,
        default: T,
    ) -> Result<T, clap::Error> {
        match parse(value) {
            Ok(parsed) => Ok(parsed),
            Err(why) if self.matches.value_source(id) == Some(ValueSource::CommandLine) => {
                Err(invalid(&format!(
                    "{flag} \"{}\" cannot be used: {why}",
                    value.display()
                )))
            }
            Err(why) => {
                self.warnings.push(format!(
                    "{variable}=\"{}\" is ignored and the default used: {why}",
                    value.display()
                ));
                Ok(default)
            }
        }
    }
}

/// A finite number of seconds above 0.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.trim().parse().map_err(|_| EXPECTED.to_owned())?;
    if number > 0.0 {
        Duration::try_from_secs_f64(number).map_err(|_| EXPECTED.to_owned())
    } else {
        Err(EXPECTED.to_owned())
    }
}

const EXPECTED: &str = "expected a finite number of seconds above 0, such as 300 or 0.5";
