//! Running cargo, and where it puts things.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The profile of what loads and is loaded: optimised like a release, but quick to build again.
pub(crate) const QUICK: &str = "quick";
/// The profile of what is shipped.
pub(crate) const DIST: &str = "dist";

/// The workspace root: the parent of this crate's directory.
pub(crate) fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask lies inside the workspace")
}

/// A cargo command in the workspace root.
pub(crate) fn cargo(arguments: &[&str]) -> Result<Command> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(root()?)
        .stdin(Stdio::null());
    Ok(command)
}

/// Runs cargo with its progress on the terminal.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let status = cargo(arguments)?.status().context("cargo does not start")?;
    if !status.success() {
        bail!("`cargo {}` failed ({status})", arguments.join(" "));
    }
    Ok(())
}

/// `cargo metadata` of the workspace, without its dependencies' details.
pub(crate) fn metadata() -> Result<Value> {
    let output = cargo(&["metadata", "--format-version", "1", "--no-deps"])?
        .stderr(Stdio::inherit())
        .output()
        .context("cargo does not start")?;
    if !output.status.success() {
        bail!("`cargo metadata` failed ({})", output.status);
    }
    serde_json::from_slice(&output.stdout).context("`cargo metadata` did not print JSON")
}

/// The target directory in force.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let metadata = metadata()?;
    let directory = metadata.get("target_directory").and_then(Value::as_str);
    Ok(directory
        .context("`cargo metadata` names no target directory")?
        .into())
}
