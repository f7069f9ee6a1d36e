//! `agent-sandbox-controller`: the operator as a program of its own.

use std::process::ExitCode;

use agent_sandbox_controller::args::Args;
use agent_sandbox_service::causes;
use clap::Parser;

fn main() -> ExitCode {
    match Args::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of the program to its user"
)]
fn report(error: &anyhow::Error) {
    eprintln!("error: {}", causes::on_one_line(error.as_ref()));
}
