//! `cargo xtask fuzz`: libFuzzer over the properties in `tests/fuzz`, each for a stated time.
//!
//! The programs are built with stable Rust: the compiler's own pass counts what they reach, and
//! libFuzzer itself is C++ that a dependency compiles. Kept inputs are only read; what a run finds
//! stays in the target directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cargo, report};

/// Which properties, and for how long.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The properties; all when none is named
    #[arg(value_parser = TARGETS)]
    targets: Vec<String>,
    /// Seconds for each
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

/// The programs of the workspace in `fuzz/`.
const TARGETS: [&str; 9] = [
    "headers",
    "tokens",
    "settings",
    "requests",
    "answers",
    "multipart",
    "paths",
    "ranges",
    "messages",
];
/// Has the compiler count what runs, where libFuzzer looks for it.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                        -Cllvm-args=-sanitizer-coverage-pc-table \
                        -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";
/// How libFuzzer ends when it is told to.
const INTERRUPTED: i32 = 72;
/// Megabytes a program may take, and seconds for one input.
const LIMITS: [&str; 2] = ["-rss_limit_mb=2048", "-timeout=30"];

/// Builds the programs and runs them one after the other; fails at the first input that breaks a
/// property, and says where it is.
pub(crate) fn run(args: &Args) -> Result<()> {
    compiler()?;
    let root = cargo::root()?;
    let place = cargo::target_directory()?.join("xtask").join("fuzz");
    let host = host()?;
    report::step("build the fuzz programs");
    let manifest = root.join("fuzz").join("Cargo.toml");
    let status = cargo::cargo(&["build", "--release", "--target", &host])?
        .arg("--manifest-path")
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&place)
        .env("RUSTFLAGS", COVERAGE)
        .status()
        .context("cargo does not start")?;
    if !status.success() {
        bail!("the fuzz programs do not build ({status})");
    }
    let all = TARGETS.map(str::to_owned);
    let targets = if args.targets.is_empty() {
        &all[..]
    } else {
        &args.targets
    };
    for target in targets {
        report::step(&format!("fuzz {target} for {} s", args.seconds));
        let program = place.join(&host).join("release").join(target);
        fuzz(root, &place, target, &program, args.seconds)?;
    }
    Ok(())
}

fn fuzz(root: &Path, place: &Path, target: &str, program: &Path, seconds: u32) -> Result<()> {
    let (found, broken) = (place.join("corpus").join(target), place.join("broken"));
    for directory in [&found, &broken] {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let mut prefix = broken.join(target).into_os_string();
    prefix.push("-");
    let mut artifacts = std::ffi::OsString::from("-artifact_prefix=");
    artifacts.push(prefix);
    let status = Command::new(program)
        // What is found is written to the first directory; the others are only read.
        .arg(&found)
        .arg(seeds(root, target))
        .arg(format!("-max_total_time={seconds}"))
        .args(LIMITS)
        .arg("-print_final_stats=1")
        .arg("-verbosity=1")
        .arg(artifacts)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{} does not start", program.display()))?;
    if status.code() == Some(INTERRUPTED) {
        bail!("{target}: interrupted before its time was over");
    }
    if !status.success() {
        bail!(
            "{target}: an input breaks a property ({status}); it is in {}",
            broken.display()
        );
    }
    Ok(())
}

fn seeds(root: &Path, target: &str) -> PathBuf {
    root.join("tests").join("fuzz").join("seeds").join(target)
}

/// Fails when there is nothing to compile libFuzzer with.
fn compiler() -> Result<()> {
    let named = std::env::var_os("CXX");
    let program = named.unwrap_or_else(|| "c++".into());
    let there = Command::new(&program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !there {
        bail!(
            "libFuzzer is C++ and {} does not run: install a C++ compiler (on Debian and Ubuntu the package g++) or name one in CXX",
            program.display()
        );
    }
    Ok(())
}

/// The machine that is compiled for. Named, so that what runs during the build is not instrumented.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .arg("-vV")
        .output()
        .context("rustc does not start")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("`rustc -vV` names no host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_has_seeds_and_a_source() {
        let root = cargo::root().unwrap();
        for target in TARGETS {
            assert!(seeds(root, target).is_dir(), "{target}");
            let source = root.join("fuzz/targets").join(target).with_extension("rs");
            assert!(source.is_file(), "{target}");
        }
    }
}
