//! `cargo xtask demo`: the main job, end to end, with the unmodified SDK.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{cargo, python, report};

/// How to run the demo.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Build with optimisations (slower to build, faster to run)
    #[arg(long)]
    release: bool,
}

/// Builds the platform, prepares Python, and hands over to `agent-sandbox up`.
///
/// The last step replaces this process, so that an interrupt reaches the platform alone, which
/// stops everything it started and passes the script's exit status on.
pub(crate) fn run(args: &Args) -> Result<()> {
    report::step("building the platform (the first time takes minutes)");
    let program = build(args.release)?;
    let python = python::environment(python::USUAL, "examples/requirements.txt")?;
    report::step("agent-sandbox up, with examples/template.yaml and examples/pool.yaml");
    // A directory of its own: the user's platform may be up meanwhile.
    let state = cargo::target_directory()?.join("xtask").join("demo");
    let error = Command::new(program)
        .current_dir(cargo::root()?)
        .args(["up", "--router-port", "0", "--api-port", "0", "--state-dir"])
        .arg(state)
        .args([
            "--apply",
            "examples/template.yaml",
            "--apply",
            "examples/pool.yaml",
            "--",
        ])
        .arg(python)
        .arg("examples/quickstart.py")
        .exec();
    Err(error).context("agent-sandbox does not start")
}

/// Builds the user's command and returns its path.
pub(crate) fn build(release: bool) -> Result<PathBuf> {
    let mut arguments = vec!["build", "--package", "agent-sandbox-local"];
    if release {
        arguments.push("--release");
    }
    cargo::run(&arguments)?;
    let profile = if release { "release" } else { "debug" };
    Ok(cargo::target_directory()?
        .join(profile)
        .join("agent-sandbox"))
}
