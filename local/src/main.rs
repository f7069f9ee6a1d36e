//! Entry point of `agent-sandbox`. Pods run this same program: as the init helper that confines them,
//! and as the in-pod runtime.

use std::ffi::OsString;
use std::process::ExitCode;

use agent_sandbox_local::args::{Cli, Subcommands};
use agent_sandbox_local::up::{self, UpError};
use agent_sandbox_local::{causes, images};
use agent_sandbox_service::log;
use anyhow::Context;
use clap::Parser;

// Many small objects live and die in the API server; the system allocator keeps their pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    Ok(runtime.block_on(up::run(config))?)
}

#[allow(
    clippy::print_stderr,
    reason = "the last word of the program to its user"
)]
fn report(error: &anyhow::Error) {
    eprintln!("error: {}", causes::on_one_line(error.as_ref()));
}
