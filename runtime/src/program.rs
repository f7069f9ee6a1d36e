//! The program around the runtime: what only the owner of a process may do.
//!
//! `main` calls [`main`]; so does any other program that wants to be a runtime when it is asked to.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use agent_sandbox_service::log;
use agent_sandbox_service::shutdown::{Shutdown, signals};
use agent_sandbox_service::tasks::Tasks;
use anyhow::Context;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::access;
use crate::app::Runtime;
use crate::args::{Args, Parsed};

/// File work, which may keep 64 of them for archives and 16 for what takes turns, and the starts of commands
/// share these threads. They are made when they are needed, and each costs memory for a while.
const BLOCKING_THREADS: usize = 160;

/// How long threads may take to end when everything else has.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Runs the runtime with these arguments, the program's name first, until a signal ends it.
#[allow(
    clippy::print_stderr,
    reason = "logging may not be set up when starting fails"
)]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let parsed = match Args::parse_from(arguments, std::env::vars_os()) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version are no failures; clap knows where each belongs.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            return match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::FAILURE,
            };
        }
    };
    match run(parsed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent-sandbox-runtime: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(parsed: Parsed) -> anyhow::Result<()> {
    let Parsed {
        log,
        mut config,
        warnings,
    } = parsed;
    let requests = log::init_gathering(&log, access::TARGET)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    protect();
    config.command_open_files = raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("cannot start the event loop")?;
    let outcome = runtime.block_on(async {
        // Before anything can be seen from outside: who sees this program may signal it.
        let shutdown = Shutdown::new();
        let signalled = signals(&shutdown).context("cannot listen for signals")?;
        let runtime = Runtime::builder(config).build()?;
        let listeners = runtime.bind()?;
        let background = Tasks::new("program");
        adopt_orphans(&runtime, &background)?;
        background.spawn("signals", async move {
            let signal = signalled.await;
            tracing::info!(signal, "shutting down");
        });
        // What is said about requests is said to the end, after the last of them.
        let (reports, last) = (Tasks::new("reports"), Shutdown::new());
        let sink = Box::new(std::io::stderr());
        reports.spawn("log", requests.write_out(sink, last.clone()));
        runtime.serve(listeners, shutdown).await;
        last.trigger();
        reports.shutdown(LAST_WORK).await;
        anyhow::Ok(())
    });
    // Work on files that is still under way has nobody to answer to.
    runtime.shutdown_timeout(LAST_WORK);
    outcome
}

/// Orphans of commands become children of this process, as they do anyway when it is process 1, and
/// their exit statuses must be taken.
fn adopt_orphans(runtime: &Runtime, background: &Tasks) -> anyhow::Result<()> {
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::debug!(%error, "cannot become a subreaper");
    }
    runtime.processes().own_all_children();
    let mut exits = signal(SignalKind::child()).context("cannot listen for SIGCHLD")?;
    let processes = runtime.processes().clone();
    background.spawn("orphans", async move {
        while exits.recv().await.is_some() {
            processes.reap_orphans();
        }
    });
    Ok(())
}

/// Commands run as the same user. They must not read this process's memory or environment, where a
/// token may be, nor inherit what was left open.
fn protect() {
    if let Err(error) = crate::sys::descriptors::close_on_exec() {
        tracing::debug!(%error, "commands may inherit descriptors this process was started with");
    }
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "cannot hide this process from the commands it runs");
    }
}

/// Many connections and commands need many descriptors here, but not in the commands: some close, or
/// wait on, as many as they may have. Returns the limit that commands get, if it is another.
fn raise_open_files() -> Option<u64> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.current.filter(|_| raised != limit),
        Err(error) => {
            tracing::debug!(%error, "cannot raise the limit of open files");
            None
        }
    }
}
