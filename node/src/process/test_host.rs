//! Lets the test executable be its own init helper and its own victim host.
//!
//! The test harness starts threads before any test runs, and the helper must not have any, so the
//! decision is made before `main`: functions in `.init_array` run there, with the arguments.

#![allow(
    unsafe_code,
    reason = "placing a function before main needs a linker section"
)]

use std::ffi::OsString;

/// First argument that turns the test executable into a host which starts one container and waits
/// to be killed. The second is its state directory, the third a confinement as JSON.
pub(super) const DOOMED_HOST: &str = "doomed-host";

// SAFETY: the section holds pointers to functions of this type, and the function may run before
// `main`: it uses nothing that the runtime sets up there except the arguments, which the standard
// library takes from an earlier entry of the same section.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

#[allow(clippy::exit, reason = "main, the test harness, must not run")]
extern "C" fn before_main() {
    if super::init::requested(std::env::args_os().skip(1)) {
        std::process::exit(super::init::run().into());
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == DOOMED_HOST) {
        super::tests::doomed_host(&arguments[1], &arguments[2]);
        std::process::exit(1);
    }
}
