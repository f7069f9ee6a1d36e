//! `bench-claims`: measures claims against the cluster that `KUBECONFIG` names. `cargo xtask bench
//! claims` builds and runs it.

use std::process::ExitCode;

use agent_sandbox_service::causes;
use agent_sandbox_tests::load::{Args, run};
use clap::Parser;

#[tokio::main(worker_threads = 2)]
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
