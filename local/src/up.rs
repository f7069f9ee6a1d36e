//! `agent-sandbox up`: the platform until it is interrupted, or around a command.

use std::io::Write;
use std::process::ExitCode;

use agent_sandbox_service::shutdown::{self, Shutdown};
use tokio::time::Instant;

use crate::args::Config;
use crate::child::ChildError;
use crate::part::Failure;
use crate::platform::{Platform, PlatformError};

/// Why `up` failed.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The platform does not start.
    #[error(transparent)]
    Start(#[from] PlatformError),
    /// A part of it stopped by itself.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The command cannot be run.
    #[error(transparent)]
    Command(#[from] ChildError),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

impl UpError {
    /// The status to exit with: what a shell says of a command that cannot run, else 1.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Command(error) => error.exit_status(),
            Self::Start(_) | Self::Failed(_) | Self::Signals(_) => 1,
        }
    }
}

/// Runs the platform and returns the status to exit with: the command's, else success. `settled` is
/// called once, when everything has started.
///
/// # Errors
/// See [`UpError`]. Whatever was started has been stopped.
pub async fn run(config: Config, settled: impl FnOnce()) -> Result<ExitCode, UpError> {
    let started = Instant::now();
    if let Some(command) = &config.command {
        command.find()?;
    }
    let interrupted = Shutdown::new();
    // Signals first, so that they are caught before there is anything to leave behind.
    let mut signalled = std::pin::pin!(shutdown::signals(&interrupted).map_err(UpError::Signals)?);
    let mut starting = std::pin::pin!(Platform::start(&config));
    let started_first = tokio::select! {
        biased;
        _ = &mut signalled => None,
        platform = &mut starting => Some(platform),
    };
    let Some(platform) = started_first else {
        // What is half started is stopped in order when it is whole.
        starting.await?.stop().await;
        return Ok(if config.command.is_some() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        });
    };
    let mut platform = platform?;
    settled();
    let outcome = if let Some(command) = &config.command {
        banner(
            &mut std::io::stderr(),
            &platform,
            started,
            Waiting::ForCommand,
        );
        let kubeconfig = platform.kubeconfig();
        let url = platform.router_url().to_owned();
        let running = command.run(&kubeconfig, &url);
        tokio::select! {
            status = running => status.map(ExitCode::from).map_err(UpError::from),
            failure = platform.failed() => Err(failure.into()),
        }
    } else {
        banner(
            &mut std::io::stdout(),
            &platform,
            started,
            Waiting::ForInterrupt,
        );
        tokio::select! {
            _ = &mut signalled => Ok(ExitCode::SUCCESS),
            failure = platform.failed() => Err(failure.into()),
        }
    };
    platform.stop().await;
    outcome
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Waiting {
    ForCommand,
    ForInterrupt,
}

/// Says what is where. The `export` lines are meant to be pasted.
fn banner(out: &mut dyn Write, platform: &Platform, started: Instant, waiting: Waiting) {
    let took = started.elapsed().as_secs_f64();
    let mut text = format!(
        "agent-sandbox {} is ready after {took:.2} s\n\n\
         \x20 Kubernetes API  {}\n\
         \x20 Router          {}\n\
         \x20 Pods            {}\n\
         \x20 State           {}\n",
        env!("CARGO_PKG_VERSION"),
        platform.api_url(),
        platform.router_url(),
        platform.isolation(),
        platform.state_dir().display(),
    );
    if waiting == Waiting::ForInterrupt {
        let exports = format!(
            "\n  export KUBECONFIG={}\n  export SANDBOX_ROUTER_URL={}\n\nPress Ctrl-C to stop.\n",
            platform.kubeconfig().display(),
            platform.router_url(),
        );
        text.push_str(&exports);
    }
    // A reader that is gone is no reason to stop.
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        tracing::debug!(%error, "the banner has no reader");
    }
}
