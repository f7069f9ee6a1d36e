//! The runtime as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_sandbox_runtime::program::main(std::env::args_os())
}
