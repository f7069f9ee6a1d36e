//! The command line. Parsed once, converted once into a [`Config`].
//!
//! `SANDBOX_BASE_DIR` and `SANDBOX_EXEC_TIMEOUT_SECONDS` keep the rule of the original runtime: a blank
//! or senseless value means the default, with a warning. The same value given as a flag is an error.

mod daemon;
mod lenient;
mod limits;
mod listen;
mod sandbox;

use std::ffi::OsString;
use std::path::PathBuf;

use agent_sandbox_service::args::{LogArgs, ZapArgs, two_dashes};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use http::HeaderValue;

use self::daemon::{Chosen, DaemonArgs};
use self::lenient::{Lenient, seconds};
use self::limits::LimitArgs;
use self::listen::ListenArgs;
use self::sandbox::{DEFAULT_ROOT, SandboxArgs};
use crate::config::{Config, DEFAULT_EXEC_TIMEOUT, TokenSource};

/// Runs commands and serves files inside a sandbox
#[derive(Clone, Debug, Parser)]
#[command(
    name = "agent-sandbox-runtime",
    version,
    override_usage = "agent-sandbox-runtime [OPTIONS]\n       agent-sandbox-runtime install DIR",
    after_help = "install DIR copies this program into a directory and ends; `install --help` says how."
)]
pub struct Args {
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    sandbox: SandboxArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    daemon: DaemonArgs,
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    zap: ZapArgs,
}

/// A parsed command line.
#[derive(Debug)]
pub struct Parsed {
    /// How to log.
    pub log: LogArgs,
    /// The validated settings, with the environment commands start from.
    pub config: Config,
    /// What was replaced by a default and why; to be logged once logging works.
    pub warnings: Vec<String>,
}

impl Args {
    /// Parses `arguments`, the program's name first, with `environment` for the commands.
    ///
    /// # Errors
    /// Names the flag and what is expected. Also carries `--help` and `--version`.
    pub fn parse_from<I, T>(
        arguments: I,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Parsed, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let arguments = arguments
            .into_iter()
            .map(|argument| two_dashes(argument.into()));
        let matches = Self::command().try_get_matches_from(arguments)?;
        Self::from_arg_matches(&matches)?.convert(&matches, environment)
    }

    fn convert(
        self,
        matches: &ArgMatches,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Parsed, clap::Error> {
        self.limits.check().map_err(|text| invalid(&text))?;
        let Self {
            listen:
                ListenArgs {
                    address,
                    ports,
                    identity,
                    idle_timeout_seconds,
                    token_file,
                    token,
                },
            sandbox:
                SandboxArgs {
                    root_dir,
                    exec_timeout_seconds,
                    metadata_env_prefix,
                    shutdown_timeout_seconds,
                },
            limits:
                LimitArgs {
                    max_processes,
                    kept_processes,
                    command_limits,
                    max_collected_bytes,
                    max_output_bytes,
                    max_request_bytes,
                    max_upload_bytes,
                    max_connections,
                    body_timeout_seconds,
                },
            daemon,
            log,
            zap,
        } = self;
        let (log, ignored) = zap.apply(log);
        let mut lenient = Lenient {
            matches,
            warnings: Vec::new(),
        };
        let root = lenient.take(
            ("root_dir", "--root-dir", "SANDBOX_BASE_DIR"),
            &root_dir,
            |value| match value.to_str().map(str::trim) {
                Some("") => Err("it is blank; name a directory, such as /app".to_owned()),
                _ => Ok(PathBuf::from(value)),
            },
            PathBuf::from(DEFAULT_ROOT),
        )?;
        let exec_timeout = lenient.take(
            (
                "exec_timeout_seconds",
                "--exec-timeout-seconds",
                "SANDBOX_EXEC_TIMEOUT_SECONDS",
            ),
            &exec_timeout_seconds,
            |value| seconds(value.to_str().unwrap_or_default()),
            DEFAULT_EXEC_TIMEOUT,
        )?;
        let mut warnings = lenient.warnings;
        warnings.extend(ignored);
        let environment: Vec<(OsString, OsString)> = environment.into_iter().collect();
        let identity = identity.or_else(|| host(&environment));
        let mut config = Config {
            address,
            ports,
            root,
            exec_timeout,
            max_processes,
            kept_processes,
            max_output_bytes,
            max_collected_bytes,
            max_request_bytes,
            max_upload_bytes,
            max_connections,
            body_timeout: body_timeout_seconds,
            identity,
            token: token_file
                .map(TokenSource::File)
                .or_else(|| token.map(TokenSource::Value)),
            environment,
            command_limits: command_limits.unwrap_or_default(),
            metadata_prefix: metadata_env_prefix,
            shutdown_timeout: shutdown_timeout_seconds,
            idle_timeout: idle_timeout_seconds,
            ..Config::new("")
        };
        let given = |id| matches.value_source(id) != Some(ValueSource::DefaultValue);
        let chosen = Chosen {
            ports: given("ports"),
            root: given("root_dir"),
        };
        daemon
            .apply(chosen, &mut config)
            .map_err(|text| invalid(&text))?;
        Ok(Parsed {
            log,
            config,
            warnings,
        })
    }
}

/// The name Kubernetes and container engines give the machine: a pod's is the pod's.
fn host(environment: &[(OsString, OsString)]) -> Option<HeaderValue> {
    let (_, name) = environment.iter().find(|(name, _)| name == "HOSTNAME")?;
    HeaderValue::from_bytes(name.as_encoded_bytes()).ok()
}

fn invalid(text: &str) -> clap::Error {
    Args::command().error(clap::error::ErrorKind::ValueValidation, text)
}

#[cfg(test)]
mod tests;
