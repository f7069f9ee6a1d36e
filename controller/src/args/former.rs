//! Flags of the earlier program: logging flags that are translated, and flags whose subject is gone.
//! Values and manifests in the wild still pass them, so they are accepted.

use agent_sandbox_service::args::{LogArgs, LogFormat};
use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args as ClapArgs};

/// Logging flags of the earlier program.
#[derive(ClapArgs, Clone, Debug)]
#[command(next_help_heading = "Logging, as before")]
pub(super) struct ZapArgs {
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
    pub(super) fn apply(self, mut log: LogArgs) -> (LogArgs, Vec<String>) {
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

/// Why webhook flags do nothing.
const WEBHOOK: &str = "both versions are served without a webhook";
/// Why the rates of other profiles do nothing.
const PROFILE: &str = "waiting and locks are not profiled; /metrics tells of queues";

/// Flags whose subject is gone. Values in the wild still pass them.
#[derive(ClapArgs, Clone, Debug)]
pub(super) struct FormerArgs {
    /// Accepted and ignored
    #[arg(long, hide = true)]
    webhook_port: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true)]
    webhook_cert_dir: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true)]
    webhook_cert_name: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true)]
    webhook_key_name: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true)]
    webhook_service_name: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true)]
    webhook_namespace: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    manage_webhook_certs: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    enable_webhook: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true, allow_negative_numbers = true)]
    pprof_block_profile_rate: Option<i64>,
    /// Accepted and ignored
    #[arg(long, hide = true, allow_negative_numbers = true)]
    pprof_mutex_profile_fraction: Option<i64>,
}

impl FormerArgs {
    /// The flags that were passed, by name, and why each has no effect.
    pub(super) fn passed(self) -> Vec<(&'static str, &'static str)> {
        let Self {
            webhook_port,
            webhook_cert_dir,
            webhook_cert_name,
            webhook_key_name,
            webhook_service_name,
            webhook_namespace,
            manage_webhook_certs,
            enable_webhook,
            pprof_block_profile_rate,
            pprof_mutex_profile_fraction,
        } = self;
        [
            ("--webhook-port", webhook_port, WEBHOOK),
            ("--webhook-cert-dir", webhook_cert_dir, WEBHOOK),
            ("--webhook-cert-name", webhook_cert_name, WEBHOOK),
            ("--webhook-key-name", webhook_key_name, WEBHOOK),
            ("--webhook-service-name", webhook_service_name, WEBHOOK),
            ("--webhook-namespace", webhook_namespace, WEBHOOK),
            ("--manage-webhook-certs", manage_webhook_certs, WEBHOOK),
            ("--enable-webhook", enable_webhook, WEBHOOK),
            (
                "--pprof-block-profile-rate",
                pprof_block_profile_rate.map(|rate| rate.to_string()),
                PROFILE,
            ),
            (
                "--pprof-mutex-profile-fraction",
                pprof_mutex_profile_fraction.map(|fraction| fraction.to_string()),
                PROFILE,
            ),
        ]
        .into_iter()
        .filter(|(_, value, _)| value.as_deref().is_some_and(|value| value != "false"))
        .map(|(name, _, why)| (name, why))
        .collect()
    }
}
