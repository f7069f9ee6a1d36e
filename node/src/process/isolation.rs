//! How containers are confined on this machine: tried out once at start, then reported.
//!
//! The strongest confinement is chosen whose probe, a container that does nothing, really starts.
//! A node that can confine nothing refuses to start unless its operator explicitly asked for
//! plain processes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::container::StartError;
use super::init::message::{Confinement, Launch, Main, Process, Root, UserMap};
use super::leftovers::Records;
use super::spawn::Spawner;

/// First host id of the range that containers use when the node has privileges. Far away from
/// ordinary users, subordinate ids and the ranges of other container managers.
pub const DEFAULT_ID_BASE: u32 = 1_879_048_192;

/// Whether a node may run pods that nothing confines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unconfined {
    /// Refuse to start (the default).
    #[default]
    Refuse,
    /// Run plain processes that can read whatever the node's user can read.
    Allow,
}

/// The kinds of confinement, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Private root, process ids and user ids of its own.
    Namespaces,
    /// The host's tree, of which Landlock shows a part.
    Landlock,
    /// Nothing.
    Plain,
}

/// What was found, for the operator to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolation {
    level: Level,
    confinement: Confinement,
    achieved: Vec<String>,
    missing: Vec<String>,
}

/// No confinement works on this machine.
#[derive(Debug, thiserror::Error)]
#[error(
    "pods cannot be confined here: {}; allow unprivileged user namespaces or Landlock, or accept unconfined pods",
    .tried.join("; ")
)]
pub struct NoIsolation {
    tried: Vec<String>,
}

impl Isolation {
    /// Tries the candidates in order and keeps the first that works.
    pub(crate) async fn detect(
        spawner: &Spawner,
        records: &Arc<Records>,
        scratch: &Path,
        unconfined: Unconfined,
        id_base: u32,
    ) -> Result<Self, NoIsolation> {
        let privileged = rustix::process::geteuid().is_root();
        let mut tried = Vec::new();
        for confinement in candidates(privileged, unconfined, id_base) {
            match probe(spawner, records, scratch, &confinement).await {
                Ok(()) => return Ok(Self::describe(confinement, tried)),
                Err(error) => tried.push(format!("{}: {error}", name(&confinement))),
            }
        }
        Err(NoIsolation { tried })
    }

    /// Puts into words what `confinement` gives, after the `tried` ones failed.
    pub(crate) fn describe(confinement: Confinement, tried: Vec<String>) -> Self {
        let mut achieved = vec!["no new privileges".to_owned(), "own environment".to_owned()];
        let mut missing = tried;
        match &confinement {
            Confinement::Namespaces(map) => {
                achieved
                    .push("user, mount, pid, IPC and UTS namespaces with a private root".into());
                achieved.push(match map {
                    UserMap::Single => "the node's own user as the container's user".into(),
                    UserMap::Range { base } => format!("host user ids from {base}"),
                });
                if scopes_sockets() {
                    achieved.push("abstract sockets of the host hidden by Landlock".into());
                } else {
                    missing.push(
                        "abstract sockets of the host are reachable: needs Linux 6.12".into(),
                    );
                }
            }
            Confinement::Landlock { uid_base } => {
                achieved.push("file access limited by Landlock".into());
                achieved.extend(uid_base.map(|base| format!("host user ids from {base}")));
                missing.push("volumes cannot be mounted at their paths".into());
                missing
                    .push("other processes and file names are visible, not their content".into());
            }
            Confinement::Plain { .. } => {
                missing.push("pods can read whatever the node's user can read".into());
                missing.push("volumes cannot be mounted at their paths".into());
            }
        }
        missing.push("the network is the host's; each pod has a loopback address".into());
        missing.push("memory and CPU limits are not enforced".into());
        Self {
            level: match confinement {
                Confinement::Namespaces(_) => Level::Namespaces,
                Confinement::Landlock { .. } => Level::Landlock,
                Confinement::Plain { .. } => Level::Plain,
            },
            confinement,
            achieved,
            missing,
        }
    }

    /// The kind of confinement in use.
    pub fn level(&self) -> Level {
        self.level
    }

    /// What containers are given, one phrase each.
    pub fn achieved(&self) -> &[String] {
        &self.achieved
    }

    /// What they are not given and why, one phrase each.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    pub(crate) fn confinement(&self) -> &Confinement {
        &self.confinement
    }

    /// Whether volumes appear at the paths that containers name.
    pub(crate) fn has_private_root(&self) -> bool {
        self.level == Level::Namespaces
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Namespaces => "namespaces",
            Level::Landlock => "landlock",
            Level::Plain => "none",
        };
        write!(f, "{level} ({})", self.achieved.join(", "))
    }
}

fn candidates(privileged: bool, unconfined: Unconfined, base: u32) -> Vec<Confinement> {
    let uid_base = privileged.then_some(base);
    let mut list = Vec::new();
    if privileged {
        list.push(Confinement::Namespaces(UserMap::Range { base }));
    }
    list.push(Confinement::Namespaces(UserMap::Single));
    list.push(Confinement::Landlock { uid_base });
    if unconfined == Unconfined::Allow {
        list.push(Confinement::Plain { uid_base });
    }
    list
}

fn name(confinement: &Confinement) -> &'static str {
    match confinement {
        Confinement::Namespaces(UserMap::Range { .. }) => "namespaces with a range of users",
        Confinement::Namespaces(UserMap::Single) => "namespaces without privileges",
        Confinement::Landlock { .. } => "Landlock",
        Confinement::Plain { .. } => "plain processes",
    }
}

/// Starts a container that ends at once, with the file tree that real ones get.
async fn probe(
    spawner: &Spawner,
    records: &Arc<Records>,
    scratch: &Path,
    confinement: &Confinement,
) -> Result<(), StartError> {
    let directory = scratch.join("probe");
    std::fs::create_dir_all(&directory).map_err(StartError::Files)?;
    let launch = Launch {
        confinement: confinement.clone(),
        root: Root {
            directory: directory.clone(),
            host_paths: host_paths(),
            directories: vec![PathBuf::from("/tmp")],
            ..Root::default()
        },
        hostname: "probe".into(),
        main: Main::Probe,
        process: Process {
            cwd: match confinement {
                Confinement::Namespaces(_) => "/".into(),
                Confinement::Landlock { .. } | Confinement::Plain { .. } => directory.clone(),
            },
            ..Process::default()
        },
    };
    let null = || {
        std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/null")
            .map(Into::into)
            .map_err(StartError::Files)
    };
    let outcome = async {
        let container = spawner
            .launch("probe", &launch, null()?, null()?, records)
            .await?;
        match container.wait().await {
            0 => Ok(()),
            code => Err(StartError::Setup(format!(
                "the probe exited with status {code}"
            ))),
        }
    }
    .await;
    crate::state_dir::remove_tree(&directory).map_err(StartError::Files)?;
    outcome
}

/// What of the host's tree every container sees, read-only: programs, libraries and the
/// configuration that libraries look up. Never home directories, never anything that holds state.
pub(crate) fn host_paths() -> Vec<PathBuf> {
    const PATHS: [&str; 33] = [
        "/usr",
        "/bin",
        "/sbin",
        "/lib",
        "/lib32",
        "/lib64",
        "/libx32",
        "/nix/store",
        "/gnu/store",
        "/etc/alternatives",
        "/etc/ca-certificates",
        "/etc/ca-certificates.conf",
        "/etc/crypto-policies",
        "/etc/debian_version",
        "/etc/fonts",
        "/etc/gai.conf",
        "/etc/inputrc",
        "/etc/ld.so.cache",
        "/etc/ld.so.conf",
        "/etc/ld.so.conf.d",
        "/etc/localtime",
        "/etc/mime.types",
        "/etc/nsswitch.conf",
        "/etc/os-release",
        "/etc/pki",
        "/etc/protocols",
        "/etc/python3",
        "/etc/services",
        "/etc/ssl/certs",
        "/etc/ssl/openssl.cnf",
        "/etc/static",
        "/etc/terminfo",
        "/etc/timezone",
    ];
    PATHS.iter().map(PathBuf::from).collect()
}

/// Whether the kernel can keep a program away from abstract sockets. Creating a rule set restricts
/// nobody.
fn scopes_sockets() -> bool {
    use landlock::{CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::AbstractUnixSocket)
        .and_then(Ruleset::create)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_processes_are_a_candidate_only_when_allowed() {
        let base = DEFAULT_ID_BASE;
        let refused = candidates(false, Unconfined::Refuse, base);
        assert_eq!(
            refused,
            [
                Confinement::Namespaces(UserMap::Single),
                Confinement::Landlock { uid_base: None }
            ]
        );
        let allowed = candidates(true, Unconfined::Allow, base);
        assert_eq!(allowed.len(), 4);
        assert_eq!(
            allowed.last(),
            Some(&Confinement::Plain {
                uid_base: Some(base)
            })
        );
    }

    #[test]
    fn no_private_place_of_the_host_is_shown() {
        for path in host_paths() {
            for private in [
                "/home",
                "/root",
                "/var",
                "/run",
                "/tmp",
                "/etc/shadow",
                "/proc",
                "/sys",
            ] {
                assert!(!path.starts_with(private), "{} is shown", path.display());
                assert!(!Path::new(private).starts_with(&path), "{private} is shown");
            }
        }
    }
}
