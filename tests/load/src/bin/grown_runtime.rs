//! `grown-runtime MIB ARGUMENT...`: the runtime in a process that holds so many MiB besides, for the bench.
//! The runtime itself has no way to be made large, so that its memory cannot be wasted on request.

use std::ffi::OsString;
use std::process::ExitCode;

/// Bytes of a MiB.
const MEBIBYTE: usize = 1 << 20;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let held = match arguments.next().as_ref().map(hold) {
        Some(Ok(held)) => held,
        Some(Err(error)) => return complain(&error),
        None => return complain("the first argument must be a number of MiB, such as 1024"),
    };
    let code = agent_sandbox_runtime::program::main(std::iter::once(name).chain(arguments));
    drop(std::hint::black_box(held));
    code
}

/// Memory of this size, all of it there, in small pages: with large ones even `fork` would be cheap.
fn hold(mebibytes: &OsString) -> Result<Vec<u8>, String> {
    let size = mebibytes
        .to_str()
        .and_then(|text| text.parse::<usize>().ok())
        .and_then(|count| count.checked_mul(MEBIBYTE))
        .ok_or_else(|| {
            format!(
                "{}: a number of MiB is expected, such as 1024",
                mebibytes.display()
            )
        })?;
    rustix::thread::disable_transparent_huge_pages(true)
        .map_err(|error| format!("huge pages cannot be switched off: {error}"))?;
    // Not 0, which the kernel would give without any pages.
    Ok(std::hint::black_box(vec![1; size]))
}

#[expect(
    clippy::print_stderr,
    reason = "there is no log before the runtime starts"
)]
fn complain(error: &str) -> ExitCode {
    eprintln!("grown-runtime: {error}");
    ExitCode::FAILURE
}
