//! Which programs of this machine stand for which images.

use std::path::Path;

use agent_sandbox_node::{Image, ImageTable, Init, InvalidImageName};

/// The hidden first argument with which this program runs as the in-pod runtime.
pub const RUNTIME_ARGUMENT: &str = "runtime";

/// Names under which sandbox runtimes are published: our own, and those that existing templates of
/// the upstream project use. Any registry, repository and tag in front or behind is accepted.
const RUNTIME_NAMES: &[&str] = &[
    "agent-sandbox-runtime",
    "agent-sandbox-runtime-python",
    "python-runtime-sandbox",
    "sandboxd",
];
/// The user sandboxes run as, as in the published images.
const RUNTIME_USER: u32 = 1000;
const RUNTIME_ROOT: &str = "/app";
const RUNTIME_PORT: u16 = 8888;

/// The table of local mode: the runtime of this build under every name above, and what the host
/// offers under the names of common base images. `program` is this very executable.
///
/// # Errors
/// Never for the names above; a test proves it.
pub fn table(program: &Path) -> Result<ImageTable, InvalidImageName> {
    let runtime = Image::program(program)
        .names(RUNTIME_NAMES)?
        // Its own address only: pods share the machine's network.
        .entrypoint_args([RUNTIME_ARGUMENT, "--address", "$(POD_IP)"])
        .env(
            "SANDBOX_BASE_DIR",
            format!("$(CONTAINER_ROOT){RUNTIME_ROOT}"),
        )
        .working_dir(RUNTIME_ROOT)
        .user(RUNTIME_USER, RUNTIME_USER)
        .port(RUNTIME_PORT)
        .init(Init::Own);
    Ok(ImageTable::host_defaults().with(runtime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_valid() {
        table(Path::new("/usr/bin/agent-sandbox")).unwrap();
    }
}
