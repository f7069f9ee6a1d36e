//! Writes the generated files of this crate into the repository, or with `--check` compares them with what is there.
//!
//! Run by `cargo xtask generate`. Ends with status 1 when a file is stale (`--check`) or cannot be written.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use agent_sandbox_crds::generated_files;

fn main() -> io::Result<ExitCode> {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => {
            writeln!(
                io::stderr(),
                "unknown argument {other}: expected --check or nothing"
            )?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = crate_directory.parent().unwrap_or(crate_directory);
    let mut stale = false;
    for file in generated_files() {
        let path = root.join(&file.path);
        let fresh = std::fs::read(&path).is_ok_and(|found| found == file.contents.as_bytes());
        if fresh {
            writeln!(io::stdout(), "fresh   {}", file.path)?;
        } else if check {
            writeln!(io::stdout(), "stale   {}", file.path)?;
            stale = true;
        } else {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(&path, &file.contents)?;
            writeln!(io::stdout(), "written {}", file.path)?;
        }
    }
    Ok(ExitCode::from(u8::from(stale)))
}
