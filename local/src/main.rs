//! Entry point of `agent-sandbox`. Pods run this same program: as the init helper that confines them,
//! and as the in-pod runtime.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use agent_sandbox_local::args::{Cli, Subcommands};
use agent_sandbox_local::images;
use agent_sandbox_local::up::{self, UpError};
use agent_sandbox_service::allocator::{self, Allocator};
use agent_sandbox_service::{causes, log};
use anyhow::Context;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// How long free memory is kept once everything has started.
const KEEP_FREE_MEMORY: Duration = Duration::from_secs(1);

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
    allocator::keep_free_memory_for(Duration::ZERO);
    let settled = || allocator::keep_free_memory_for(KEEP_FREE_MEMORY);
    Ok(runtime.block_on(up::run(config, settled))?)
}

#[allow(
    clippy::print_stderr,
    reason = "the last word of the program to its user"
)]
fn report(error: &anyhow::Error) {
    eprintln!("error: {}", causes::on_one_line(error.as_ref()));
}
