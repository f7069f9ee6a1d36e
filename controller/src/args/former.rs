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
    /// `debug`, `info`, `error`, or a number above 0 for more detail
    #[arg(long = "zap-log-level", value_name = "LEVEL")]
    log_level: Option<String>,
    /// Accepted and ignored
    #[arg(long = "zap-stacktrace-level", hide = true)]
    stacktrace_level: Option<String>,
    /// Accepted and ignored
    #[arg(long = "zap-time-encoding", hide = true)]
    time_encoding: Option<String>,
}

impl ZapArgs {
    /// What these flags mean for the logs of this program.
    pub(super) fn apply(self, mut log: LogArgs) -> LogArgs {
        let Self {
            devel,
            encoder,
            log_level,
            stacktrace_level: _,
            time_encoding: _,
        } = self;
        match encoder.as_deref() {
            Some("json") => log.format = LogFormat::Json,
            Some(_) => log.format = LogFormat::Plain,
            None => {}
        }
        let level = match log_level.as_deref() {
            Some(number) if number.parse::<u8>().is_ok_and(|n| n > 1) => Some("trace"),
            Some("debug" | "1") => Some("debug"),
            Some("error" | "panic" | "fatal") => Some("error"),
            Some("warn") => Some("warn"),
            Some(_) => Some("info"),
            None => devel.then_some("debug"),
        };
        if let Some(level) = level {
            level.clone_into(&mut log.filter);
        }
        log
    }
}

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
    #[arg(long, hide = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    enable_pprof: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    enable_pprof_debug: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true)]
    pprof_block_profile_rate: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true)]
    pprof_mutex_profile_fraction: Option<String>,
    /// Accepted and ignored
    #[arg(long, hide = true, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    enable_tracing: Option<String>,
}

impl FormerArgs {
    /// The flags that were passed, by name.
    pub(super) fn passed(self) -> Vec<&'static str> {
        let Self {
            webhook_port,
            webhook_cert_dir,
            webhook_cert_name,
            webhook_key_name,
            webhook_service_name,
            webhook_namespace,
            manage_webhook_certs,
            enable_webhook,
            enable_pprof,
            enable_pprof_debug,
            pprof_block_profile_rate,
            pprof_mutex_profile_fraction,
            enable_tracing,
        } = self;
        [
            ("--webhook-port", webhook_port),
            ("--webhook-cert-dir", webhook_cert_dir),
            ("--webhook-cert-name", webhook_cert_name),
            ("--webhook-key-name", webhook_key_name),
            ("--webhook-service-name", webhook_service_name),
            ("--webhook-namespace", webhook_namespace),
            ("--manage-webhook-certs", manage_webhook_certs),
            ("--enable-webhook", enable_webhook),
            ("--enable-pprof", enable_pprof),
            ("--enable-pprof-debug", enable_pprof_debug),
            ("--pprof-block-profile-rate", pprof_block_profile_rate),
            (
                "--pprof-mutex-profile-fraction",
                pprof_mutex_profile_fraction,
            ),
            ("--enable-tracing", enable_tracing),
        ]
        .into_iter()
        .filter(|(_, value)| value.as_deref().is_some_and(|value| value != "false"))
        .map(|(name, _)| name)
        .collect()
    }
}
