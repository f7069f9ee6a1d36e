//! The configuration file: a YAML mapping from flag names to scalars.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use serde_json::{Map, Value};

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read config file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is no YAML mapping.
    #[error("config file {} is not a YAML mapping of flags: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        problem: String,
    },
    /// It names a flag that does not exist.
    #[error("unknown config key {key:?} in {}; keys are flag names without dashes in front", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value is a list or a mapping.
    #[error("config key {key:?} in {} must be a scalar; write lists as one comma-separated text", path.display())]
    NotScalar {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
}

/// The content of the file as flags.
pub(super) fn flags(path: &Path, command: &Command) -> Result<Vec<OsString>, FileError> {
    let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text, command)
}

fn parse(path: &Path, text: &str, command: &Command) -> Result<Vec<OsString>, FileError> {
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(Vec::new());
    }
    let mapping: Map<String, Value> =
        serde_saphyr::from_str(text).map_err(|error| FileError::Syntax {
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
    let mut flags = Vec::with_capacity(mapping.len());
    for (key, value) in mapping {
        let known = key != "config"
            && command
                .get_arguments()
                .any(|argument| argument.get_long() == Some(key.as_str()));
        if !known {
            return Err(FileError::UnknownKey {
                path: path.to_owned(),
                key,
            });
        }
        let value = match value {
            Value::Null => String::new(),
            Value::Bool(yes) => yes.to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => text,
            Value::Array(_) | Value::Object(_) => {
                return Err(FileError::NotScalar {
                    path: path.to_owned(),
                    key,
                });
            }
        };
        flags.push(format!("--{key}={value}").into());
    }
    Ok(flags)
}
