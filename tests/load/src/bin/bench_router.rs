//! `bench-router`: measures the router beside its peers. `cargo xtask bench router` builds and runs it.

use std::process::ExitCode;

use agent_sandbox_load::router_bench::{Args, run};
use agent_sandbox_service::causes;
use clap::Parser;

/// One thread: what makes the load must not disturb itself.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of the program to its user"
)]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {}", causes::on_one_line(error.as_ref()));
}
