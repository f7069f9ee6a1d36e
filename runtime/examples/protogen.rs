//! Writes the code generated from the protocol definitions into the repository, or with `--check`
//! compares it with what is there. No protocol compiler needs to be installed.
//!
//! Run by `cargo xtask generate`. Ends with status 1 when a file is stale (`--check`) or cannot be written.

use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

const DEFINITIONS: &str = "proto";
const SERVICE: &str = "process/v1/process.proto";
/// What is generated, in the directory of the generated code.
const CODE: &str = "process.v1.rs";
const DESCRIPTORS: &str = "process.v1.binpb";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => {
            let mut out = io::stderr();
            writeln!(out, "unknown argument {other}: expected --check or nothing")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let runtime = Path::new(env!("CARGO_MANIFEST_DIR"));
    let definitions = runtime.join(DEFINITIONS);
    let mut compiler = protox::Compiler::new([&definitions])?;
    // With comments: they become documentation here, and reflection is for people.
    compiler.include_source_info(true).include_imports(true);
    compiler.open_file(SERVICE)?;
    let made = tempfile::tempdir()?;
    let mut code = tonic_prost_build::configure();
    code = code.out_dir(made.path()).build_transport(false);
    code.bytes(".")
        .compile_fds(compiler.file_descriptor_set())?;
    std::fs::write(
        made.path().join(DESCRIPTORS),
        compiler.encode_file_descriptor_set(),
    )?;
    let mut stale = false;
    for name in [CODE, DESCRIPTORS] {
        let path = runtime.join("src").join("proto").join(name);
        let contents = std::fs::read(made.path().join(name))?;
        if std::fs::read(&path).is_ok_and(|found| found == contents) {
            writeln!(io::stdout(), "fresh   runtime/src/proto/{name}")?;
        } else if check {
            writeln!(io::stdout(), "stale   runtime/src/proto/{name}")?;
            stale = true;
        } else {
            std::fs::write(&path, &contents)?;
            writeln!(io::stdout(), "written runtime/src/proto/{name}")?;
        }
    }
    Ok(ExitCode::from(u8::from(stale)))
}
