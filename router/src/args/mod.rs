//! Flags, environment and configuration file of the router program, and their one conversion into
//! a [`Plan`].
//!
//! Precedence: command line, then file, then environment, then the default. The names are those of
//! the earlier routers, so that existing manifests keep working: one or two dashes, `=` or a blank,
//! booleans as `--flag` or `--flag=false`, durations such as `1m30s`. Zero means no limit where a
//! limit is meant.
//!
//! One file holds one group of flags and decides what they mean together.

use std::ffi::OsString;
use std::path::PathBuf;

use agent_sandbox_service::args::{GoDuration, LogArgs, ZapArgs, two_dashes};
use agent_sandbox_service::otlp::{OtlpArgs, OtlpError};
use clap::parser::ValueSource;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser};

mod authz;
mod file;
mod fixed;
mod limits;
mod listen;
mod plan;
mod python;
mod resolution;
mod time;
mod tls;
mod values;

pub use self::authz::{AuthzArgs, AuthzPlan};
pub use self::file::FileError;
use self::limits::LimitArgs;
use self::listen::ListenArgs;
pub use self::listen::Listeners;
pub use self::plan::{Lasting, Plan, Settings, Source};
use self::python::PythonEnvironment;
use self::resolution::ResolutionArgs;
use self::time::TimeArgs;
use self::tls::TlsArgs;
pub use self::values::BindAddress;
use self::values::truthy;
use crate::config::PodIpPolicy;

/// Routes requests to the sandbox named in their headers.
#[derive(Debug, Parser)]
#[command(name = "agent-sandbox-router", version, args_override_self = true)]
pub struct Args {
    /// YAML file with flags, by their names
    #[arg(long, env = "SANDBOX_ROUTER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    resolution: ResolutionArgs,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    authz: AuthzArgs,
    #[command(flatten)]
    python: PythonEnvironment,
    /// Log every request as a line of JSON on standard error
    #[arg(long, default_value = "true", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Logging")]
    access_log: bool,
    #[command(flatten)]
    otlp: OtlpArgs,
    /// Accepted; metrics are scraped and not pushed
    #[arg(long, hide = true, default_value = "false", value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_otel_metrics: bool,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    zap: ZapArgs,
}

/// Why the program does not start.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// A flag is unknown or malformed, or help was asked for.
    #[error(transparent)]
    Flags(#[from] clap::Error),
    /// The configuration file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Traces cannot be exported as asked.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// A value is impossible, alone or together with others.
    #[error("--{flag}: {problem}")]
    Value {
        /// The flag to change.
        flag: &'static str,
        /// What is wrong, and what was expected.
        problem: String,
    },
}

impl ArgsError {
    fn value(flag: &'static str, problem: impl Into<String>) -> Self {
        Self::Value {
            flag,
            problem: problem.into(),
        }
    }
}

impl Args {
    /// Reads a command line, the program's name included, and the file it names.
    ///
    /// # Errors
    /// A flag or key that does not parse, or a file that cannot be read.
    pub fn read(command_line: impl IntoIterator<Item = OsString>) -> Result<Self, ArgsError> {
        let mut command_line: Vec<OsString> = command_line.into_iter().map(two_dashes).collect();
        let command = Self::command();
        let first = command.clone().try_get_matches_from(&command_line)?;
        if let Some(path) = first.get_one::<PathBuf>("config")
            && !path.as_os_str().is_empty()
        {
            let flags = file::flags(path, &command)?;
            // Before the command line, which then overrides them.
            let after_name = 1.min(command_line.len());
            command_line.splice(after_name..after_name, flags);
        }
        let matches = command.try_get_matches_from(&command_line)?;
        let mut args = Self::from_arg_matches(&matches)?;
        // An empty variable is as good as none; an empty flag is a mistake, found below.
        if matches.value_source("cluster_domain") == Some(ValueSource::EnvVariable)
            && args.resolution.cluster_domain.is_empty()
        {
            "cluster.local".clone_into(&mut args.resolution.cluster_domain);
        }
        Ok(args)
    }

    /// Checks everything and decides.
    ///
    /// # Errors
    /// Names the flag that is impossible, and what was expected.
    pub fn plan(self) -> Result<Plan, ArgsError> {
        let Self {
            config: _,
            listen,
            tls,
            resolution,
            time,
            limits,
            authz,
            python,
            access_log,
            otlp,
            enable_otel_metrics,
            log,
            zap,
        } = self;
        let (python, mut warnings) = python.read();
        let (log, ignored) = zap.apply(log);
        warnings.extend(ignored);
        if enable_otel_metrics {
            warnings.push(
                "--enable-otel-metrics has no effect: metrics are served at --metrics-bind-address"
                    .to_owned(),
            );
        }
        let (listeners, drain) = listen.decide()?;
        let tls = tls.decide(listeners.https.is_some())?;
        let kubeconfig =
            (!resolution.kubeconfig.is_empty()).then(|| PathBuf::from(&resolution.kubeconfig));
        let (resolution, source) = resolution.decide()?;
        let (time, retry) = time.decide(&python)?;
        let (limits, pool, trusted_proxies) = limits.decide(&python)?;
        let authz = authz.decide()?;
        if authz.judges_sandboxes() && matches!(resolution.pod_ip, PodIpPolicy::Trust { .. }) {
            return Err(ArgsError::value(
                "pod-ip-header",
                "trust lets callers reach any address, so an --authz-mode that opens single sandboxes would open them all; use verify",
            ));
        }
        Ok(Plan {
            listeners,
            tls,
            source,
            kubeconfig,
            authz,
            settings: Settings {
                resolution,
                time,
                retry,
                limits,
                pool,
                drain,
                trusted_proxies,
                access_log,
                traces: otlp.settings("sandbox-router")?,
            },
            log,
            warnings,
        })
    }
}

#[cfg(test)]
mod tests;
