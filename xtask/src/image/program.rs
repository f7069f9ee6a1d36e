//! The in-pod runtime as a program that runs in any image: linked statically.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::elf;
use crate::cargo;

const PACKAGE: &str = "agent-sandbox-runtime";
/// Between the flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\u{1f}";

/// Builds the program for this machine's architecture and returns where it is.
///
/// The C library's own target is used, since it is always installed: the runtime resolves no names, the
/// one thing that a statically linked C library cannot do by itself.
pub(crate) fn build() -> Result<PathBuf> {
    let host = host()?;
    let flags = flags()?;
    let status = cargo::cargo(&[
        "build",
        "--locked",
        "--package",
        PACKAGE,
        "--profile",
        cargo::DIST,
        "--target",
        &host,
    ])?
    .env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR))
    .status()
    .context("cargo does not start")?;
    if !status.success() {
        bail!("the runtime could not be built ({status}), see above");
    }
    let path = cargo::target_directory()?
        .join(&host)
        .join(cargo::DIST)
        .join(PACKAGE);
    let program = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    elf::check_static(&program).with_context(|| {
        format!(
            "{} (the target {host} must support `-C target-feature=+crt-static`)",
            path.display()
        )
    })?;
    Ok(path)
}

fn flags() -> Result<Vec<String>> {
    let mut flags = vec![
        "-Ctarget-feature=+crt-static".to_owned(),
        // Where the linker knows it: else 350 KiB of relocations are read at every start, and stay resident.
        "-Clink-arg=-Wl,-z,pack-relative-relocs".to_owned(),
    ];
    // The program is the same wherever it was built, and tells nobody where that was.
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let usual = || std::env::home_dir().map(|home| home.join(".cargo"));
    let sources = [
        (Some(cargo::root()?.to_owned()), "/src"),
        (home.or_else(usual), "/cargo"),
    ];
    for (from, to) in sources {
        let from = from.context("there is no home directory; set CARGO_HOME")?;
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    Ok(flags)
}

/// The target that programs of this machine are built for.
fn host() -> Result<String> {
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler)
        .arg("-vV")
        .current_dir(cargo::root()?)
        .output()
        .context("rustc does not start")?;
    let text = String::from_utf8(output.stdout).context("rustc printed no text")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_owned())
}
