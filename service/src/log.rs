//! Installing the `tracing` subscriber; only a program's `main` does so, once.

use std::io::{IsTerminal, Write};

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::args::{LogArgs, LogFormat};
use crate::gather::Gathered;

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
    install(args, std::io::stderr)
}

/// Like [`init`], but lines about requests, which are those of `target` that are no warnings, wait in
/// what is returned for [`Gathered::write_out`]. All others are written at once: by it while it runs, so
/// that a reader who does not read stops nothing, else directly.
///
/// # Errors
/// Those of [`init`].
pub fn init_gathering(args: &LogArgs, target: &'static str) -> Result<Gathered, LogError> {
    let gathered = Gathered::new();
    let sinks = Sinks {
        target,
        gathered: gathered.clone(),
    };
    install(args, sinks)?;
    Ok(gathered)
}

fn install<W>(args: &LogArgs, writer: W) -> Result<(), LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&args.filter).map_err(|source| LogError::Filter {
        filter: args.filter.clone(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal());
    match args.format {
        LogFormat::Plain => builder.finish().try_init()?,
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
    }
    Ok(())
}

/// Chooses where a line goes.
struct Sinks {
    target: &'static str,
    gathered: Gathered,
}

enum Sink<'a> {
    Urgent(&'a Gathered),
    Gathered(&'a Gathered),
}

impl<'a> MakeWriter<'a> for Sinks {
    type Writer = Sink<'a>;

    fn make_writer(&'a self) -> Sink<'a> {
        Sink::Urgent(&self.gathered)
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Sink<'a> {
        if line.target() == self.target && *line.level() >= Level::INFO {
            return Sink::Gathered(&self.gathered);
        }
        self.make_writer()
    }
}

impl Write for Sink<'_> {
    /// The subscriber hands over each line in one call.
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        // What finds no room is counted there; an error here would be reported line by line.
        match self {
            Self::Urgent(gathered) => {
                if gathered.append_urgent(|to| to.write_all(line)).is_none() {
                    std::io::stderr().write_all(line)?;
                }
            }
            Self::Gathered(gathered) => {
                gathered.append(|to| to.write_all(line));
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_requests_are_gathered_and_warnings_are_not() {
        let gathered = Gathered::new();
        let sinks = Sinks {
            target: "requests",
            gathered: gathered.clone(),
        };
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(sinks)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "requests", "first");
            tracing::warn!(target: "requests", "trouble");
            tracing::info!("of something else");
            tracing::info!(target: "requests", "second");
        });
        let text = String::from_utf8(gathered.take()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].ends_with("requests: first") && lines[1].ends_with("second"));
    }

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
