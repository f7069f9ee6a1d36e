//! The command line of `agent-sandbox`, and its conversion into a validated [`Config`].

use std::ffi::OsString;
use std::path::PathBuf;

use agent_sandbox_service::args::{LogArgs, LogFormat};
use clap::{Args, Parser, Subcommand};

use crate::child::Command;
use crate::images::Mapping;

/// Sandboxes for AI agents on this machine: API server, node, controller and router in one process.
#[derive(Debug, Parser)]
#[command(name = "agent-sandbox", version, about, subcommand_required = true)]
pub struct Cli {
    #[command(subcommand)]
    pub subcommand: Subcommands,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Subcommands {
    /// Run the platform until it is interrupted, or around a command
    Up(UpArgs),
}

/// How to run the platform.
#[derive(Args, Debug)]
pub struct UpArgs {
    /// Directory for everything the platform keeps [default: $XDG_STATE_HOME/agent-sandbox, else
    /// ~/.local/state/agent-sandbox]
    #[arg(long, env = "AGENT_SANDBOX_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where desktop conventions keep state; decides the default of --state-dir
    #[arg(long, env = "XDG_STATE_HOME", hide = true)]
    xdg_state_home: Option<OsString>,
    /// The home directory; decides the default of --state-dir
    #[arg(long, env = "HOME", hide = true)]
    home: Option<OsString>,
    /// Port of the router on 127.0.0.1; 0 picks a free one
    #[arg(
        long,
        env = "AGENT_SANDBOX_ROUTER_PORT",
        default_value_t = 8080,
        value_name = "PORT"
    )]
    router_port: u16,
    /// Port of the Kubernetes API on 127.0.0.1; 0 picks a free one
    #[arg(
        long,
        env = "AGENT_SANDBOX_API_PORT",
        default_value_t = 6443,
        value_name = "PORT"
    )]
    api_port: u16,
    /// Keep objects and the data of volume claims in the state directory for the next `up --keep`;
    /// pods start again there, with empty files. Without it every start is empty
    #[arg(long, env = "AGENT_SANDBOX_KEEP")]
    keep: bool,
    /// Let pods use one more image name: for another image the node knows, or for a program of this
    /// machine. May be given several times
    #[arg(long = "image", value_name = "NAME=IMAGE|PROGRAM")]
    images: Vec<Mapping>,
    /// Manifests to apply before the platform reports ready; YAML or JSON, several documents each
    #[arg(long, value_name = "FILE", num_args = 1..)]
    apply: Vec<PathBuf>,
    /// What to log to standard error, as in `info` or `warn,agent_sandbox_controller=debug`
    #[arg(
        long,
        env = "AGENT_SANDBOX_LOG",
        default_value = "warn",
        value_name = "FILTER"
    )]
    log_filter: String,
    /// Line format of the log
    #[arg(long, env = "AGENT_SANDBOX_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// Where programs are looked for; decides what COMMAND is
    #[arg(long, env = "PATH", hide = true)]
    path: Option<OsString>,
    /// A command to run against the platform, with `KUBECONFIG` and `SANDBOX_ROUTER_URL` set; the
    /// platform stops with it and exits with its status
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// A validated configuration of `agent-sandbox up`.
#[derive(Debug)]
pub struct Config {
    /// Absolute path of the state directory.
    pub state_dir: PathBuf,
    /// Router port, 0 for any.
    pub router_port: u16,
    /// API server port, 0 for any.
    pub api_port: u16,
    /// What outlives the process.
    pub keep: Keep,
    /// Images beside those the node knows by itself, in order.
    pub images: Vec<Mapping>,
    /// Manifest files, in order.
    pub apply: Vec<PathBuf>,
    /// The command to run against the platform.
    pub command: Option<Command>,
}

/// What one run leaves for the next on the same state directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keep {
    /// Nothing: every start is empty.
    Nothing,
    /// Every object of the API, and the data of persistent volume claims. Pods are objects; their
    /// processes and their own files are not kept.
    Objects,
}

/// Why the command line cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// Neither the flag nor an environment variable names a state directory.
    #[error("no state directory: pass --state-dir DIR, or set HOME")]
    NoStateDir,
    /// The state directory's path cannot be made absolute.
    #[error("--state-dir {}: the current directory cannot be determined", path.display())]
    CurrentDir {
        /// What was given.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Both listeners want one port.
    #[error("--router-port and --api-port are both {port}; choose two ports, or 0 for free ones")]
    SamePort {
        /// The port.
        port: u16,
    },
}

impl UpArgs {
    /// Checks the arguments and fills in defaults.
    ///
    /// # Errors
    /// Names the flag and what was expected.
    pub fn into_config(self) -> Result<(Config, LogArgs), ArgsError> {
        let Self {
            state_dir,
            xdg_state_home,
            home,
            router_port,
            api_port,
            keep,
            images,
            apply,
            log_filter,
            log_format,
            path,
            command,
        } = self;
        if router_port == api_port && router_port != 0 {
            return Err(ArgsError::SamePort { port: router_port });
        }
        // The conventions have empty and relative values ignored.
        let absolute =
            |value: OsString| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
        let xdg = xdg_state_home.and_then(absolute);
        let home = home.and_then(absolute);
        let state_dir = state_dir
            .or_else(|| xdg.map(|state| state.join("agent-sandbox")))
            .or_else(|| home.map(|home| home.join(".local/state/agent-sandbox")))
            .ok_or(ArgsError::NoStateDir)?;
        let state_dir =
            std::path::absolute(&state_dir).map_err(|source| ArgsError::CurrentDir {
                path: state_dir,
                source,
            })?;
        let config = Config {
            state_dir,
            router_port,
            api_port,
            keep: if keep { Keep::Objects } else { Keep::Nothing },
            images,
            apply,
            command: Command::new(command, path),
        };
        Ok((
            config,
            LogArgs {
                filter: log_filter,
                format: log_format,
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Config, ArgsError> {
        let all = ["agent-sandbox", "up"].iter().chain(arguments);
        let Subcommands::Up(mut up) = Cli::try_parse_from(all).unwrap().subcommand;
        if !arguments.contains(&"--home") {
            up.home = Some("/home/me".into());
        }
        if !arguments.contains(&"--xdg-state-home") {
            up.xdg_state_home = None;
        }
        up.into_config().map(|(config, _)| config)
    }

    #[test]
    fn the_state_directory_follows_the_conventions() {
        let of = |arguments: &[&str]| parse(arguments).unwrap().state_dir;
        assert_eq!(of(&["--state-dir", "/a/b"]), PathBuf::from("/a/b"));
        assert!(of(&["--state-dir", "b"]).is_absolute());
        assert_eq!(
            of(&["--xdg-state-home", "/x"]),
            PathBuf::from("/x/agent-sandbox")
        );
        let fallback = PathBuf::from("/home/me/.local/state/agent-sandbox");
        assert_eq!(of(&["--xdg-state-home", "relative"]), fallback);
        assert_eq!(of(&[]), fallback);
        let error = parse(&["--home", ""]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no state directory: pass --state-dir DIR, or set HOME"
        );
    }

    #[test]
    fn one_port_cannot_serve_both() {
        let error = parse(&["--router-port", "7000", "--api-port", "7000"]).unwrap_err();
        assert!(error.to_string().contains("both 7000"));
        assert!(parse(&["--router-port", "0", "--api-port", "0"]).is_ok());
    }

    #[test]
    fn nothing_is_kept_unless_asked() {
        assert_eq!(parse(&[]).unwrap().keep, Keep::Nothing);
        assert_eq!(parse(&["--keep"]).unwrap().keep, Keep::Objects);
    }

    #[test]
    fn a_command_follows_the_dashes() {
        let config =
            parse(&["--apply", "a.yaml", "b.yaml", "--", "python3", "-c", "pass"]).unwrap();
        assert_eq!(
            config.apply,
            [PathBuf::from("a.yaml"), PathBuf::from("b.yaml")]
        );
        assert_eq!(
            config.command.unwrap().words().collect::<Vec<_>>(),
            ["python3", "-c", "pass"]
        );
        assert!(parse(&[]).unwrap().command.is_none());
    }
}
