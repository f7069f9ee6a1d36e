//! Everything that is checked without running the platform.

use std::process::Stdio;

use anyhow::Result;

use crate::{cargo, directions, generate, named_tests, report};

/// Runs every check; stops at the first that fails.
pub(crate) fn run() -> Result<()> {
    report::step("formatting");
    cargo::run(&["fmt", "--all", "--check"])?;
    directions::run()?;
    named_tests::run()?;
    report::step("lints");
    cargo::run(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])?;
    generate::run(&generate::Args {
        check: true,
        what: None,
    })?;
    policy()
}

/// `cargo deny` where it is installed. Building it would take longer than everything else here, so
/// its absence is said, not hidden.
fn policy() -> Result<()> {
    let installed = cargo::cargo(&["deny", "--version"])?
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?
        .success();
    if !installed {
        report::step("dependency policy: NOT CHECKED, cargo-deny is not installed");
        return Ok(());
    }
    report::step("dependency policy");
    cargo::run(&["deny", "check", "bans", "licenses", "sources"])?;
    report::step("security advisories (needs the advisory database; allowed to fail)");
    if cargo::run(&["deny", "check", "advisories"]).is_err() {
        report::line("advisories could not be checked or are open, see above");
    }
    Ok(())
}
