//! From a container in a pod's spec to a process that can be started.
//!
//! Pure: everything has been fetched, but for the host's resolver configuration, which [`files`]
//! reads.
//! Errors carry the reason under which the container waits.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

mod files;

use super::env::{self, Environment, expand};
use super::fields;
use super::phase::Reason;
use super::references::Snapshot;
use super::security::{self, Identity};
use crate::image::{self, Image, ImageError, ImageTable, Init, Program};
use crate::process::init::message::{Access, Bind, Launch, Limits, Main, Process, Root};
use crate::process::isolation::{self, Isolation};
use crate::quantity::Amount;
use crate::volume::PodVolumes;

/// Open files that a process may have.
const OPEN_FILES: u64 = 65_536;

/// Processes and threads that a container may have; counted per user namespace.
const PROCESSES: u64 = 8192;

/// Files that containers expect and that are the host's where there is no private root.
const GENERATED: [&str; 5] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/passwd",
    "/etc/group",
];

/// Home of users other than the superuser.
const HOME: &str = "/home/user";

/// Where a container leaves its last words unless it says otherwise.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// What is known when a container is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) facts: fields::Facts<'a>,
    pub(crate) spec: &'a PodSpec,
    pub(crate) container: &'a Container,
    pub(crate) images: &'a ImageTable,
    pub(crate) isolation: &'a Isolation,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) volumes: &'a PodVolumes,
    /// Directory on the host for this run of the container.
    pub(crate) directory: &'a Path,
}

/// A container ready to be started.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) launch: Launch,
    /// File on the host that receives the termination message.
    pub(crate) termination_log: PathBuf,
    /// Keys that could not become environment variables.
    pub(crate) skipped_env: Vec<String>,
}

/// Why a container cannot be started as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// Whether waiting can help.
    pub(crate) is_final: bool,
}

impl Refusal {
    fn config(error: &impl ToString, is_final: bool) -> Self {
        Self {
            reason: Reason::CreateContainerConfigError,
            message: error.to_string(),
            is_final,
        }
    }
}

/// Finds the image of a container.
pub(crate) fn resolve_image<'t>(
    images: &'t ImageTable,
    container: &Container,
) -> Result<&'t Image, Refusal> {
    let name = container.image.as_deref().unwrap_or_default();
    images.resolve(name).map_err(|error| Refusal {
        reason: match error {
            ImageError::Invalid(_) => Reason::InvalidImageName,
            ImageError::Unknown { .. } => Reason::ErrImagePull,
        },
        message: error.to_string(),
        is_final: true,
    })
}

/// TCP ports that the containers of a pod listen on, by their own words or their images'.
pub(crate) fn ports(spec: &PodSpec, images: &ImageTable) -> Vec<u16> {
    let containers = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    let mut ports: Vec<u16> = containers
        .flat_map(|container| {
            let image = resolve_image(images, container).ok();
            let declared = container.ports.iter().flatten();
            let declared = declared
                .filter(|port| {
                    port.protocol
                        .as_deref()
                        .is_none_or(|protocol| protocol == "TCP")
                })
                .filter_map(|port| u16::try_from(port.container_port).ok());
            let of_image = image
                .into_iter()
                .flat_map(|image| image.ports.iter().copied());
            declared.chain(of_image).collect::<Vec<_>>()
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Builds the process of a container.
pub(crate) fn prepare(inputs: &Inputs<'_>) -> Result<Prepared, Refusal> {
    let Inputs {
        facts,
        spec,
        container,
        isolation,
        ..
    } = inputs;
    let image = resolve_image(inputs.images, container)?;
    let identity = security::identity(spec, container, image.user)
        .map_err(|error| Refusal::config(&error, true))?;
    let places = Places::new(isolation, inputs.directory);
    let environment = environment(inputs, image, &identity, &places)?;
    let mut binds = inputs
        .volumes
        .mounts(container, &environment)
        .map_err(|error| Refusal::config(&error, error.is_final()))?;
    if !isolation.has_private_root() && !binds.is_empty() && !image.is_relocatable() {
        return Err(Refusal::config(
            &format!(
                "volumes cannot be mounted here: {}",
                isolation.missing().join("; ")
            ),
            true,
        ));
    }
    let termination_log = inputs.directory.join("termination-log");
    binds.push(Bind {
        source: termination_log.clone(),
        sub_path: None,
        target: termination_path(container),
        access: Access::ReadWrite,
    });
    binds.extend(image_binds(image));
    let argv = argv(container, image, &environment, facts.pod_ip, &places);
    if argv.is_empty() && image.program != Program::Pause {
        let name = container.image.as_deref().unwrap_or_default();
        let message = format!("image {name:?} has no command; set the container's command");
        return Err(Refusal::config(&message, true));
    }
    let cwd = match container.working_dir.as_deref() {
        Some(path) if !path.is_empty() => Path::new("/").join(path),
        _ => image.working_dir.clone(),
    };
    let hostname = hostname(facts.pod, spec);
    let mut directories = vec![
        PathBuf::from("/tmp"),
        PathBuf::from("/var/tmp"),
        "/run".into(),
    ];
    directories.push(home(&identity).into());
    directories.extend(image.directories.iter().cloned());
    let mut host_paths = isolation::host_paths();
    if !isolation.has_private_root() {
        // Those that a private root generates.
        host_paths.extend(GENERATED.map(PathBuf::from));
    }
    host_paths.extend(image.host_paths.iter().cloned());
    Ok(Prepared {
        launch: Launch {
            confinement: isolation.confinement().clone(),
            root: Root {
                directory: places.root.clone(),
                read_only: identity.read_only_root,
                host_paths,
                directories,
                files: files::provided(facts.pod_ip, spec, &hostname, &identity),
                links: links(image),
                binds,
            },
            hostname,
            main: match (&image.program, image.init, isolation.has_private_root()) {
                (Program::Pause, ..) if argv.is_empty() => Main::Pause,
                (_, Init::Own, true) => Main::PidOne,
                _ => Main::Supervised,
            },
            process: Process {
                argv,
                env: environment.variables,
                cwd: places.inside(&cwd),
                user: identity.user,
                limits: limits(container, isolation),
                capabilities: identity.capabilities,
            },
        },
        termination_log,
        skipped_env: environment.skipped,
    })
}

/// Where paths of the container are on the host, as seen by the container.
struct Places {
    root: PathBuf,
    private: bool,
}

impl Places {
    fn new(isolation: &Isolation, directory: &Path) -> Self {
        Self {
            root: directory.join("root"),
            private: isolation.has_private_root(),
        }
    }

    /// The path under which a program finds what it calls `path`.
    fn inside(&self, path: &Path) -> PathBuf {
        if self.private {
            return path.to_owned();
        }
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The value of `$(CONTAINER_ROOT)`.
    fn prefix(&self) -> String {
        if self.private {
            String::new()
        } else {
            self.root.display().to_string()
        }
    }
}

/// Names that images may refer to in arguments and environment.
fn builtin(name: &str, pod_ip: Option<IpAddr>, places: &Places) -> Option<String> {
    match name {
        "POD_IP" => pod_ip.map(|ip| ip.to_string()),
        "CONTAINER_ROOT" => Some(places.prefix()),
        _ => None,
    }
}

fn environment(
    inputs: &Inputs<'_>,
    image: &Image,
    identity: &Identity,
    places: &Places,
) -> Result<Environment, Refusal> {
    let pod_ip = inputs.facts.pod_ip;
    let hostname = hostname(inputs.facts.pod, inputs.spec);
    let bin = places.inside(Path::new(image::BIN));
    let path = image::PATH.replace(image::BIN, &bin.display().to_string());
    let home = places.inside(Path::new(home(identity)));
    let mut defaults = vec![
        ("PATH".to_owned(), path),
        ("HOSTNAME".to_owned(), hostname),
        ("HOME".to_owned(), home.display().to_string()),
    ];
    if !places.private {
        let temporary = places.inside(Path::new("/tmp"));
        defaults.push(("TMPDIR".to_owned(), temporary.display().to_string()));
    }
    for (name, value) in &image.env {
        let value = expand(value, |name| builtin(name, pod_ip, places));
        defaults.push((name.clone(), value));
    }
    env::build(&inputs.facts, inputs.container, defaults, inputs.snapshot)
        .map_err(|error| Refusal::config(&error, false))
}

fn argv(
    container: &Container,
    image: &Image,
    environment: &Environment,
    pod_ip: Option<IpAddr>,
    places: &Places,
) -> Vec<String> {
    let own = |list: &Option<Vec<String>>| -> Vec<String> {
        let expanded = list
            .iter()
            .flatten()
            .map(|text| expand(text, |name| environment.get(name).map(str::to_owned)));
        expanded.collect()
    };
    let of_image = |list: &[String]| -> Vec<String> {
        let expanded = list
            .iter()
            .map(|text| expand(text, |name| builtin(name, pod_ip, places)));
        expanded.collect()
    };
    let mut image = image.clone();
    image.entrypoint = of_image(&image.entrypoint);
    image.command = of_image(&image.command);
    if let (false, Program::Binary(program), Some(first)) =
        (places.private, &image.program, image.entrypoint.first_mut())
    {
        *first = program.display().to_string();
    }
    image.argv(&own(&container.command), &own(&container.args))
}

/// The image's own program at its place in the container.
fn image_binds(image: &Image) -> Option<Bind> {
    let Program::Binary(path) = &image.program else {
        return None;
    };
    Some(Bind {
        source: path.clone(),
        sub_path: None,
        target: Path::new(image::BIN).join(path.file_name()?),
        access: Access::ReadOnly,
    })
}

fn links(image: &Image) -> Vec<(PathBuf, PathBuf)> {
    let links = image.links.iter();
    links
        .map(|(name, target)| (Path::new(image::BIN).join(name), target.clone()))
        .collect()
}

fn termination_path(container: &Container) -> PathBuf {
    let path = container.termination_message_path.as_deref();
    let path = path
        .filter(|path| !path.is_empty())
        .unwrap_or(TERMINATION_LOG);
    Path::new("/").join(path)
}

fn home(identity: &Identity) -> &'static str {
    if identity.user.uid == 0 {
        "/root"
    } else {
        HOME
    }
}

/// The host name of a pod: its own wish, or its name, within the length the kernel allows.
fn hostname(pod: &Pod, spec: &PodSpec) -> String {
    let named = spec.hostname.as_deref().filter(|name| !name.is_empty());
    let name = named.or(pod.metadata.name.as_deref()).unwrap_or("pod");
    let name: String = name.chars().take(63).collect();
    name.trim_end_matches(['-', '.']).to_owned()
}

/// Limits that the kernel can keep for a process. Memory is not among them: an address-space
/// limit counts reservations that are never used, and would break programs that stay well below
/// their limit.
fn limits(container: &Container, isolation: &Isolation) -> Limits {
    let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
    let storage = limits
        .and_then(|limits| limits.get("ephemeral-storage"))
        .and_then(Amount::of)
        .and_then(|amount| u64::try_from(amount.ceil()).ok());
    Limits {
        open_files: Some(OPEN_FILES),
        // Without a user namespace the count would include the user's programs outside.
        processes: isolation.has_private_root().then_some(PROCESSES),
        // A single file larger than what the container may store in all is certainly too large.
        file_size: storage.filter(|bytes| *bytes > 0),
    }
}

#[cfg(test)]
mod tests;
