//! The runtime as a program.

use std::ffi::OsString;
use std::process::ExitCode;

use agent_sandbox_runtime::{install, program};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    install::when_asked(&arguments).unwrap_or_else(|| program::main(arguments))
}
