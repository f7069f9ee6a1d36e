//! The command line. Parsed once, converted once into a [`Config`].
//!
//! `SANDBOX_BASE_DIR` and `SANDBOX_EXEC_TIMEOUT_SECONDS` keep the rule of the original runtime: a blank
//! or senseless value means the default, with a warning. The same value given as a flag is an error.

mod daemon;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use agent_sandbox_service::args::{LogArgs, ZapArgs, two_dashes};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use http::HeaderValue;

use self::daemon::{Chosen, DaemonArgs};
use crate::config::{Config, DEFAULT_EXEC_TIMEOUT, DEFAULT_METADATA_PREFIX, TokenSource};
use crate::exec::ResourceLimits;

/// Runs commands and serves files inside a sandbox
#[derive(Clone, Debug, Parser)]
#[command(name = "agent-sandbox-runtime", version)]
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

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Listening")]
struct ListenArgs {
    /// Address to listen on
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_ADDRESS",
        default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        value_name = "IP"
    )]
    address: IpAddr,
    /// Port to listen on; may be repeated, every API answers on each (0 picks a free one)
    #[arg(
        long = "port",
        env = "AGENT_SANDBOX_RUNTIME_PORTS",
        default_value = "8888",
        value_delimiter = ',',
        value_name = "PORT"
    )]
    ports: Vec<u16>,
    /// What every answer says in X-Sandbox-Identity, so that a client sees when an address has got
    /// another owner [default: the environment variable HOSTNAME, which is a pod's name]
    #[arg(long, env = "AGENT_SANDBOX_RUNTIME_IDENTITY", value_name = "TEXT")]
    identity: Option<HeaderValue>,
    /// File with the bearer tokens, one in each line, of which every request but health checks must
    /// present one; read again when it changes
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_TOKEN_FILE",
        value_name = "FILE",
        conflicts_with = "token"
    )]
    token_file: Option<PathBuf>,
    /// The bearer token itself; only through the environment, where other users do not see it
    #[arg(
        long = "token-from-environment",
        env = "AGENT_SANDBOX_RUNTIME_TOKEN",
        hide = true,
        hide_env_values = true
    )]
    token: Option<String>,
}

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Sandbox")]
struct SandboxArgs {
    /// Directory that files and commands live in; created if missing
    #[arg(
        long,
        env = "SANDBOX_BASE_DIR",
        default_value = DEFAULT_ROOT,
        value_name = "DIR"
    )]
    root_dir: OsString,
    /// How long a command of /execute may run that names no timeout itself; the other APIs have no
    /// limit unless one is asked for
    #[arg(
        long,
        env = "SANDBOX_EXEC_TIMEOUT_SECONDS",
        default_value = "300",
        value_name = "SECONDS"
    )]
    exec_timeout_seconds: OsString,
    /// Environment variables with this prefix appear in `/v1/metadata`, unless they look like
    /// credentials
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_METADATA_ENV_PREFIX",
        default_value = DEFAULT_METADATA_PREFIX,
        value_name = "PREFIX"
    )]
    metadata_env_prefix: String,
    /// How long requests in flight may take after SIGTERM
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_SHUTDOWN_TIMEOUT_SECONDS",
        default_value = "10",
        value_name = "SECONDS",
        value_parser = seconds
    )]
    shutdown_timeout_seconds: Duration,
}

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Commands that may run at once; further ones are refused with 503
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_MAX_PROCESSES",
        default_value_t = 4096,
        value_name = "COUNT"
    )]
    max_processes: usize,
    /// Commands started through /v1/processes that stay known after their end, with the end of their
    /// output
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_KEPT_PROCESSES",
        default_value_t = 64,
        value_name = "COUNT"
    )]
    kept_processes: usize,
    /// What each command may use: as, core, cpu, data, fsize, nofile, nproc and stack, as in ulimit,
    /// such as nproc=256,as=2GiB [default: what the runtime itself may]
    #[arg(
        long = "command-limits",
        env = "AGENT_SANDBOX_RUNTIME_COMMAND_LIMITS",
        value_name = "NAME=VALUE,..."
    )]
    command_limits: Option<ResourceLimits>,
    /// Bytes of output held for answers of all commands together, beyond 128 KiB each; when they are
    /// used up, answers leave out more of the middle
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_MAX_COLLECTED_BYTES",
        default_value_t = 256 << 20,
        value_name = "BYTES"
    )]
    max_collected_bytes: usize,
    /// Bytes of each output of a command that an answer carries; the middle of the rest is omitted
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_MAX_OUTPUT_BYTES",
        default_value_t = 8 << 20,
        value_name = "BYTES"
    )]
    max_output_bytes: usize,
    /// Largest JSON request
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_MAX_REQUEST_BYTES",
        default_value_t = 4 << 20,
        value_name = "BYTES"
    )]
    max_request_bytes: usize,
    /// Largest uploaded file [default: no limit but the disk]
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_MAX_UPLOAD_BYTES",
        value_name = "BYTES"
    )]
    max_upload_bytes: Option<u64>,
    /// Connections served at once, per port
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_MAX_CONNECTIONS",
        default_value_t = 4096,
        value_name = "COUNT"
    )]
    max_connections: usize,
    /// How long a request's body may stay without a further byte, however long it takes as a whole;
    /// then it is given up with 408
    #[arg(
        long,
        env = "AGENT_SANDBOX_RUNTIME_BODY_TIMEOUT_SECONDS",
        default_value = "60",
        value_name = "SECONDS",
        value_parser = seconds
    )]
    body_timeout_seconds: Duration,
}

const DEFAULT_ROOT: &str = "/app";

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
        let Self {
            listen:
                ListenArgs {
                    address,
                    ports,
                    identity,
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
        at_least_one("--max-processes", max_processes)?;
        at_least_one("--max-connections", max_connections)?;
        at_least_one("--max-request-bytes", max_request_bytes)?;
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

/// Values that come from an environment the operator may not control.
struct Lenient<'a> {
    matches: &'a ArgMatches,
    warnings: Vec<String>,
}

impl Lenient<'_> {
    fn take<T>(
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

fn at_least_one(flag: &str, count: usize) -> Result<(), clap::Error> {
    if count == 0 {
        return Err(invalid(&format!("{flag} is 0; it must be at least 1")));
    }
    Ok(())
}

/// The name Kubernetes and container engines give the machine: a pod's is the pod's.
fn host(environment: &[(OsString, OsString)]) -> Option<HeaderValue> {
    let (_, name) = environment.iter().find(|(name, _)| name == "HOSTNAME")?;
    HeaderValue::from_bytes(name.as_encoded_bytes()).ok()
}

fn invalid(text: &str) -> clap::Error {
    Args::command().error(clap::error::ErrorKind::ValueValidation, text)
}

/// A finite number of seconds above 0.
fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.trim().parse().map_err(|_| EXPECTED.to_owned())?;
    if number > 0.0 {
        Duration::try_from_secs_f64(number).map_err(|_| EXPECTED.to_owned())
    } else {
        Err(EXPECTED.to_owned())
    }
}

const EXPECTED: &str = "expected a finite number of seconds above 0, such as 300 or 0.5";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Parsed, String> {
        let arguments = ["agent-sandbox-runtime"].iter().chain(arguments);
        Args::parse_from(arguments, []).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_the_published_ones() {
        let config = parse(&[]).unwrap().config;
        assert_eq!(config.address.to_string(), "0.0.0.0");
        assert_eq!(config.ports, [8888]);
        assert_eq!(config.root, PathBuf::from("/app"));
        assert_eq!(config.exec_timeout, Duration::from_secs(300));
        assert!(config.token.is_none() && config.max_upload_bytes.is_none());
    }

    #[test]
    fn flags_reach_the_config() {
        let config = parse(&[
            "--address=127.3.0.7",
            "--port=8888",
            "--port=8080,9090",
            "--root-dir=/workspace",
            "--exec-timeout-seconds=0.5",
            "--max-processes=7",
            "--max-upload-bytes=9",
            "--token-file=/run/token",
        ])
        .unwrap()
        .config;
        let addresses: Vec<String> = config.addresses().map(|a| a.to_string()).collect();
        assert_eq!(
            addresses,
            ["127.3.0.7:8888", "127.3.0.7:8080", "127.3.0.7:9090"]
        );
        assert_eq!(config.root, PathBuf::from("/workspace"));
        assert_eq!(config.exec_timeout, Duration::from_millis(500));
        assert_eq!(
            (config.max_processes, config.max_upload_bytes),
            (7, Some(9))
        );
        assert!(matches!(config.token, Some(TokenSource::File(_))));
    }

    #[test]
    fn bad_flags_are_named_with_what_is_expected() {
        for (arguments, texts) in [
            (["--root-dir", " "], ["--root-dir", "blank"]),
            (
                ["--exec-timeout-seconds", "soon"],
                ["--exec-timeout-seconds", "above 0"],
            ),
            (
                ["--exec-timeout-seconds", "nan"],
                ["--exec-timeout-seconds", "above 0"],
            ),
            (
                ["--exec-timeout-seconds", "0"],
                ["--exec-timeout-seconds", "above 0"],
            ),
            (
                ["--shutdown-timeout-seconds", "inf"],
                ["--shutdown-timeout-seconds", "above 0"],
            ),
            (["--max-processes", "0"], ["--max-processes", "at least 1"]),
            (["--port", "99999"], ["--port", "99999"]),
            (["--address", "localhost"], ["--address", "localhost"]),
        ] {
            let error = parse(&arguments).unwrap_err();
            assert!(texts.iter().all(|text| error.contains(text)), "{error}");
        }
    }

    #[test]
    fn flags_of_the_daemon_before_mean_what_they_meant() {
        let parsed = parse(&[
            "--listen-host=127.0.0.1",
            "-grpc-port=9091",
            "--shutdown-timeout=1m30s",
            "--http-idle-timeout=90s",
            "--stream-chunk-size=4096",
            "--zap-encoder=json",
        ])
        .unwrap();
        let config = parsed.config;
        let addresses: Vec<String> = config.addresses().map(|a| a.to_string()).collect();
        assert_eq!(addresses, ["127.0.0.1:8080", "127.0.0.1:9091"]);
        assert_eq!(config.root, PathBuf::from("/workspace"));
        assert_eq!(config.shutdown_timeout, Duration::from_secs(90));
        assert_eq!(config.idle_timeout, Duration::from_secs(90));
        assert_eq!(config.stream_chunk_bytes, Some(4096));
        // This program's own flags are not overruled.
        let config = parse(&["--port=8888", "--rest-port=8080", "--root-dir=/app"])
            .unwrap()
            .config;
        assert_eq!(config.ports, [8080, 8888, 9090]);
        assert_eq!(config.root, PathBuf::from("/app"));
        for (arguments, texts) in [
            (
                ["--rest-port=1", "--grpc-port=1"],
                ["--rest-port", "differ"],
            ),
            (["--rest-port=0", "--port=1"], ["--rest-port", "1.."]),
            (
                ["--listen-host=::1", "--address=::1"],
                ["--listen-host", "--address"],
            ),
            (["--http-idle-timeout", "0"], ["--http-idle-timeout", "60s"]),
            (
                ["--shutdown-timeout", "10"],
                ["--shutdown-timeout", "with units"],
            ),
        ] {
            let error = parse(&arguments).unwrap_err();
            assert!(texts.iter().all(|text| error.contains(text)), "{error}");
        }
    }

    #[test]
    fn the_sender_of_answers_is_the_host_unless_it_is_named() {
        let identity = |arguments: &[&str]| {
            let arguments = ["runtime"].iter().chain(arguments);
            let environment = [("HOSTNAME".into(), "pod-7".into())];
            Args::parse_from(arguments, environment)
                .unwrap()
                .config
                .identity
        };
        assert_eq!(identity(&[]).unwrap(), "pod-7");
        assert_eq!(identity(&["--identity=box"]).unwrap(), "box");
        assert!(
            parse(&["--identity", "a\nb"])
                .unwrap_err()
                .contains("--identity")
        );
        assert!(
            parse(&["--command-limits", "x=1"])
                .unwrap_err()
                .contains("nproc")
        );
    }

    #[test]
    fn seconds_are_finite_and_positive() {
        for good in ["1", "0.25", " 300 ", "1e3"] {
            assert!(seconds(good).is_ok(), "{good}");
        }
        for bad in ["", "0", "-1", "nan", "inf", "-inf", "1e400", "5s", "0x10"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
