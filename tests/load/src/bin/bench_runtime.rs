//! `bench-runtime`: measures the in-pod runtime beside its floors and its peer. `cargo xtask bench
//! runtime` builds and runs it.

use std::process::ExitCode;

use agent_sandbox_load::runtime_bench::{Args, run};
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
