//! Which programs of this machine stand for which images.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use agent_sandbox_node::{Image, ImageError, ImageName, ImageTable, Init, InvalidImageName};

use crate::child::is_executable;

/// The hidden first argument with which this program runs as the in-pod runtime.
pub const RUNTIME_ARGUMENT: &str = "runtime";

/// Names under which sandbox runtimes are published: our own, and those that existing templates of
/// the upstream project use. Any registry, repository and tag in front or behind is accepted.
const RUNTIME_NAMES: &[&str] = &[
    "agent-sandbox-runtime",
    "agent-sandbox-shell",
    "agent-sandbox-python",
    "agent-sandbox-python-data",
    "agent-sandbox-runtime-python",
    "python-runtime-sandbox",
];
/// The name of the sandbox daemon before, whose templates expect its directory and ports.
const DAEMON_NAME: &str = "sandboxd";
const DAEMON_ROOT: &str = "/workspace";
const DAEMON_PORTS: [u16; 2] = [8080, 9090];
/// The user sandboxes run as, as in the published images.
const RUNTIME_USER: u32 = 1000;
const RUNTIME_ROOT: &str = "/app";
const RUNTIME_PORT: u16 = 8888;

/// What the user lets an image stand for: `NAME=IMAGE` or `NAME=/PATH/OF/PROGRAM`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mapping {
    name: String,
    target: Target,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Target {
    /// Another image of the table.
    Image(String),
    /// A program of this machine.
    Program(PathBuf),
}

/// Why a mapping cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// It does not have the form.
    #[error("expected NAME=IMAGE or NAME=/PATH/OF/PROGRAM")]
    Form,
    /// The name is not an image reference.
    #[error(transparent)]
    Name(#[from] InvalidImageName),
    /// There is nothing to run at the path.
    #[error("{} is not a file that can be executed", .0.display())]
    Program(PathBuf),
}

impl FromStr for Mapping {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        let (name, target) = text.split_once('=').ok_or(MappingError::Form)?;
        ImageName::parse(name)?;
        let target = if target.starts_with('/') {
            let program = PathBuf::from(target);
            if !is_executable(&program) {
                return Err(MappingError::Program(program));
            }
            Target::Program(program)
        } else {
            ImageName::parse(target)?;
            Target::Image(target.to_owned())
        };
        Ok(Self {
            name: name.to_owned(),
            target,
        })
    }
}

/// Why there is no image table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A name is not an image reference.
    #[error(transparent)]
    Name(#[from] InvalidImageName),
    /// An image is to stand for one that is not there.
    #[error("--image {name}={target}")]
    Unknown {
        /// The new name.
        name: String,
        /// What it should stand for.
        target: String,
        /// What there is.
        source: ImageError,
    },
}

/// The table of local mode: the runtime of this build under every name above, what the host offers
/// under the names of common base images, and what the user adds. `program` is this very executable.
///
/// # Errors
/// When a mapping names an image that is neither above nor added by an earlier one.
pub fn table(program: &Path, mappings: &[Mapping]) -> Result<ImageTable, TableError> {
    let usual = image(program, RUNTIME_ROOT)
        .names(RUNTIME_NAMES)?
        .port(RUNTIME_PORT);
    let ports = DAEMON_PORTS.map(|port| port.to_string()).join(",");
    let daemon = DAEMON_PORTS
        .into_iter()
        .fold(image(program, DAEMON_ROOT), Image::port)
        .names([DAEMON_NAME])?
        .env("AGENT_SANDBOX_RUNTIME_PORTS", ports);
    let mut table = ImageTable::host_defaults().with(usual).with(daemon).remedy(
        "start `agent-sandbox up` with --image NAME=IMAGE or --image NAME=/PATH/OF/PROGRAM",
    );
    for Mapping { name, target } in mappings {
        match target {
            Target::Image(known) => {
                table
                    .add_alias(name, known)
                    .map_err(|source| TableError::Unknown {
                        name: name.clone(),
                        target: known.clone(),
                        source,
                    })?;
            }
            Target::Program(program) => table.add(Image::program(program).names([name])?),
        }
    }
    Ok(table)
}

/// The runtime of this build with its files at `root`.
fn image(program: &Path, root: &str) -> Image {
    Image::program(program)
        // Its own address only: pods share the machine's network.
        .entrypoint_args([RUNTIME_ARGUMENT, "--address", "$(POD_IP)"])
        .env("SANDBOX_BASE_DIR", format!("$(CONTAINER_ROOT){root}"))
        .working_dir(root)
        .user(RUNTIME_USER, RUNTIME_USER)
        .init(Init::Own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mappings(texts: &[&str]) -> Vec<Mapping> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn every_name_is_valid() {
        table(Path::new("/usr/bin/agent-sandbox"), &[]).unwrap();
    }

    #[test]
    fn images_are_mapped_in_order_to_images_and_programs() {
        let program = Path::new("/usr/bin/agent-sandbox");
        let list = mappings(&[
            "team/box:1=agent-sandbox-runtime",
            "tools:1=localhost/agent-sandbox-python:0.1.0",
            "more:1=localhost/agent-sandbox-shell:0.1.0",
            "other=team/box:1",
            "shell=/bin/sh",
        ]);
        table(program, &list).unwrap();
        let error = table(program, &mappings(&["other=team/box:1"])).unwrap_err();
        assert_eq!(error.to_string(), "--image other=team/box:1");
    }

    #[test]
    fn a_mapping_says_what_is_wrong_with_it() {
        let error = |text: &str| text.parse::<Mapping>().unwrap_err().to_string();
        assert_eq!(
            error("name"),
            "expected NAME=IMAGE or NAME=/PATH/OF/PROGRAM"
        );
        assert!(error("NAME=busybox").contains("lower-case letters"));
        assert!(error("name=").contains("it is empty"));
        let wanted = "/no/such/program is not a file that can be executed";
        assert_eq!(error("name=/no/such/program"), wanted);
        assert_eq!(
            error("name=/etc/passwd"),
            "/etc/passwd is not a file that can be executed"
        );
    }
}
