//! `agent-sandbox-controller`: the operator as a program of its own.

use std::process::ExitCode;
use std::time::Duration;

use agent_sandbox_controller::args::Args;
use agent_sandbox_service::allocator::{self, Allocator};
use agent_sandbox_service::causes;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// How long free memory is kept. A list of thousands of objects leaves a lot of it, and what follows is quiet.
const KEEP_FREE_MEMORY: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    allocator::keep_free_memory_for(KEEP_FREE_MEMORY);
    let arguments = match Args::read(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, and the rest is the user's to mend.
            let asked = error.exit_code() == 0;
            if error.print().is_ok() && asked {
                return ExitCode::SUCCESS;
            }
            return ExitCode::FAILURE;
        }
    };
    match arguments.run() {
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
