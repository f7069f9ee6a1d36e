//! Entry point of `agent-sandbox`. Pods run this same program: as the init helper that confines them,
//! and as the in-pod runtime.

use std::ffi::{OsString, c_int, c_long};
use std::process::ExitCode;

use agent_sandbox_local::args::{Cli, Subcommands};
use agent_sandbox_local::images;
use agent_sandbox_local::up::{self, UpError};
use agent_sandbox_service::{causes, log};
use anyhow::Context;
use clap::Parser;

// Many small objects live and die in the API server; the system allocator keeps their pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[allow(
    unsafe_code,
    reason = "a function of the allocator that its crate does not declare"
)]
// SAFETY: the signature is that of `mimalloc.h`; any thread may call it at any time.
unsafe extern "C" {
    safe fn mi_option_set(option: c_int, value: c_long);
}

/// `mi_option_purge_delay` of `mimalloc.h`: after how many milliseconds memory that became free goes
/// back to the operating system. Only later calls of the allocator look at that clock, and an idle
/// process makes none.
const PURGE_DELAY: c_int = 15;
/// The allocator's own choice.
const USUAL_PURGE_DELAY: c_long = 1000;

fn main() -> ExitCode {
    // Before anything else: the helper must be the only thread of its process.
    if agent_sandbox_node::init::requested(std::env::args_os().skip(1)) {
        return agent_sandbox_node::init::main();
    }
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments
        .get(1)
        .is_some_and(|first| first == images::RUNTIME_ARGUMENT)
    {
        arguments.remove(1);
        return agent_sandbox_runtime::program::main(arguments);
    }
    match run(Cli::parse()) {
        Ok(status) => status,
        Err(error) => {
            report(&error);
            let status = error.downcast_ref::<UpError>().map(UpError::exit_status);
            status.map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli {
        subcommand: Subcommands::Up(arguments),
    } = cli;
    let (config, log_args) = arguments.into_config()?;
    log::init(&log_args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    // Most of what the start allocates is free when it ends, and would stay for good.
    mi_option_set(PURGE_DELAY, 0);
    let settled = || mi_option_set(PURGE_DELAY, USUAL_PURGE_DELAY);
    Ok(runtime.block_on(up::run(config, settled))?)
}

#[allow(
    clippy::print_stderr,
    reason = "the last word of the program to its user"
)]
fn report(error: &anyhow::Error) {
    eprintln!("error: {}", causes::on_one_line(error.as_ref()));
}
