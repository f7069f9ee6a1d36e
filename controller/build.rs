//! Puts into the program what it is built from: commit, its time, compiler, platform. Nothing is asked
//! of the network; what the environment already says (image builds have no repository) is believed.

#![allow(
    clippy::disallowed_methods,
    reason = "a build script is told everything through the environment"
)]

use std::path::Path;
use std::process::Command;

fn main() {
    let commit = given("AGENT_SANDBOX_GIT_COMMIT").or_else(|| git(&["rev-parse", "HEAD"]));
    let date = given("AGENT_SANDBOX_BUILD_DATE")
        .or_else(|| git(&["show", "--no-patch", "--format=%cI", "HEAD"]));
    let compiler = std::env::var("RUSTC").ok().and_then(|rustc| {
        let version = run(&rustc, &["--version"])?;
        let number = version.split_whitespace().nth(1)?;
        Some(format!("rustc {number}"))
    });
    let set = |name: &str, value: Option<String>| {
        let value = value.unwrap_or_else(|| "unknown".to_owned());
        println!("cargo::rustc-env={name}={value}");
    };
    set("AGENT_SANDBOX_GIT_COMMIT", commit);
    set("AGENT_SANDBOX_BUILD_DATE", date);
    set("AGENT_SANDBOX_COMPILER", compiler);
    set("AGENT_SANDBOX_PLATFORM", platform());
    println!("cargo::rerun-if-changed=build.rs");
    // Only programs that are shipped are built anew for every commit.
    let shipped = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if let (true, Some(log)) = (shipped, git(&["rev-parse", "--git-path", "logs/HEAD"]))
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
}

/// What the environment says, if anything.
fn given(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn platform() -> Option<String> {
    let system = std::env::var("CARGO_CFG_TARGET_OS").ok()?;
    let processor = std::env::var("CARGO_CFG_TARGET_ARCH").ok()?;
    let processor = match processor.as_str() {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Some(format!("{system}/{processor}"))
}

fn git(arguments: &[&str]) -> Option<String> {
    run("git", arguments)
}

/// The one line that a command says, if it succeeds.
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.trim();
    (output.status.success() && !line.is_empty() && !line.contains('\n')).then(|| line.to_owned())
}
