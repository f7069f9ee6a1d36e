//! Installing the `tracing` subscriber; only a program's `main` does so, once.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::args::{LogArgs, LogFormat};

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error(
        "--log-filter {filter:?} is not a filter such as `info` or `warn,agent_sandbox_router=debug`"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// Where it stopped making sense.
        source: ParseError,
    },
    /// A subscriber is already installed in this process.
    #[error("logging is already set up in this process")]
    Installed(#[from] TryInitError),
}

/// Sends log lines to standard error, in the format asked for.
///
/// # Errors
/// A filter that does not parse, or a second call in one process.
pub fn init(args: &LogArgs) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(&args.filter).map_err(|source| LogError::Filter {
        filter: args.filter.clone(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match args.format {
        LogFormat::Plain => builder.finish().try_init()?,
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_quoted() {
        let args = LogArgs {
            filter: "a=b=c".to_owned(),
            format: LogFormat::Plain,
        };
        let error = init(&args).unwrap_err().to_string();
        assert!(error.contains("a=b=c"), "{error}");
    }
}
