//! Logging flags of the programs before these, which manifests in the wild still pass. What they mean here is
//! done; what they cannot mean is said.

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args as ClapArgs};

use super::{LogArgs, LogFormat};

/// Logging flags of the programs before.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "Logging, as before")]
pub struct ZapArgs {
    /// Readable debug logs
    #[arg(long = "zap-devel", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    devel: bool,
    /// `json` or `console`
    #[arg(long = "zap-encoder", value_parser = ["json", "console"], value_name = "FORMAT")]
    encoder: Option<String>,
    /// `debug`, `info`, `error`, `panic`, or a number above 0 for more detail
    #[arg(long = "zap-log-level", value_name = "LEVEL", value_parser = log_level)]
    log_level: Option<&'static str>,
    /// Accepted; errors are logged with their causes and without stack traces
    #[arg(long = "zap-stacktrace-level", hide = true, value_parser = ["info", "error", "panic"])]
    stacktrace_level: Option<String>,
    /// Accepted; times are always in the form of RFC 3339
    #[arg(long = "zap-time-encoding", hide = true, value_parser = ["epoch", "millis", "nano", "iso8601", "rfc3339", "rfc3339nano"])]
    time_encoding: Option<String>,
}

/// What a level of the earlier program is called here.
///
/// # Errors
/// Says what was expected.
fn log_level(text: &str) -> Result<&'static str, String> {
    match text.to_ascii_lowercase().as_str() {
        "debug" | "1" => Ok("debug"),
        "info" => Ok("info"),
        "warn" => Ok("warn"),
        "error" | "panic" | "dpanic" | "fatal" => Ok("error"),
        number if number.parse::<u8>().is_ok_and(|level| level > 1) => Ok("trace"),
        _ => Err("expected debug, info, error, panic or a number above 0".to_owned()),
    }
}

impl ZapArgs {
    /// What these flags mean for the logs of this program, and which of them mean nothing.
    pub fn apply(self, mut log: LogArgs) -> (LogArgs, Vec<String>) {
        let Self {
            devel,
            encoder,
            log_level,
            stacktrace_level,
            time_encoding,
        } = self;
        match encoder.as_deref() {
            Some("json") => log.format = LogFormat::Json,
            Some(_) => log.format = LogFormat::Plain,
            None if devel => log.format = LogFormat::Plain,
            None => {}
        }
        if let Some(level) = log_level.or_else(|| devel.then_some("debug")) {
            level.clone_into(&mut log.filter);
        }
        let mut ignored = Vec::new();
        if stacktrace_level.is_some() {
            ignored.push("--zap-stacktrace-level has no effect: errors name their causes".into());
        }
        if let Some(other) = time_encoding.filter(|form| !form.starts_with("rfc3339")) {
            ignored.push(format!(
                "--zap-time-encoding={other} has no effect: times are in the form of RFC 3339"
            ));
        }
        (log, ignored)
    }
}
