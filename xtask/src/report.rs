//! What a person sees while a command runs: one line per step, before the step starts.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this module is the terminal"
)]

use std::io::Write;

/// Announces a step.
pub(crate) fn step(text: &str) {
    println!("==> {text}");
    flush();
}

/// A line of detail or output.
pub(crate) fn line(text: &str) {
    println!("{text}");
    flush();
}

/// An error with its causes.
pub(crate) fn failure(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

fn flush() {
    // Output is often a pipe in CI; a closed one is the reader's choice and no fault of ours.
    drop(std::io::stdout().flush());
}
