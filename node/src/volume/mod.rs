//! The volumes of a pod: directories beneath its own, made before the first container starts and
//! removed with the pod; persistent claims are kept elsewhere and only lent.
//!
//! Called by the pod's worker. Containers see a volume through a bind mount, so nothing here is
//! reachable by a path inside a pod.

mod atomic;
pub(crate) mod claim;
pub(crate) mod projected;
mod token;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use kube::Client;

use self::atomic::Outcome;
use self::projected::{Inputs, Projection, ProjectionError};
pub(crate) use self::token::Tokens;
use crate::pod::env::{Environment, expand};
use crate::pod::fields::Facts;
use crate::pod::references::Snapshot;
use crate::process::init::message::{Access, Bind};

/// Owner of generated files and directories on the host; `None` leaves it at the node's user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ownership {
    ids: Option<(u32, u32)>,
}

impl Ownership {
    /// The superuser of a container whose ids begin at `base`, with the pod's file system group.
    pub(crate) fn within(base: Option<u32>, group: Option<u32>) -> Self {
        let group = group.unwrap_or(0);
        Self {
            ids: base.map(|base| (base, base.saturating_add(group))),
        }
    }

    fn apply(self, path: &Path) -> io::Result<()> {
        match self.ids {
            Some((uid, gid)) => std::os::unix::fs::lchown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}

/// Why a volume cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// Nothing the node could do, now or later; the pod must be changed.
    #[error(
        "volume {volume:?}: {what} is not possible on this node; use emptyDir, configMap, secret, downwardAPI, projected or persistentVolumeClaim"
    )]
    Unsupported { volume: String, what: String },
    /// Something is not there yet; the pod waits for it.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
    Projection {
        volume: String,
        source: ProjectionError,
    },
    /// The claim is missing or not bound.
    #[error("volume {volume:?}: {source}")]
    Claim {
        volume: String,
        source: claim::ClaimError,
    },
    /// No token was issued.
    #[error("volume {volume:?}: request a token for service account {account:?}: {source}")]
    Token {
        volume: String,
        account: String,
        source: kube::Error,
    },
    /// The host's file system refused.
    #[error("volume {volume:?}: {source}")]
    Io { volume: String, source: io::Error },
    /// A container mounts what does not exist.
    #[error("volumeMount {mount:?}: the pod has no volume {volume:?}")]
    NoSuchVolume { mount: String, volume: String },
    /// A path that must not leave its volume does.
    #[error("volumeMount {mount:?}: subPath {path:?} must be relative and must not contain \"..\"")]
    SubPath { mount: String, path: String },
}

impl VolumeError {
    /// Whether trying again can help.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Unsupported { .. } | Self::NoSuchVolume { .. } | Self::SubPath { .. }
        )
    }
}

/// The volumes of one pod.
#[derive(Debug)]
pub(crate) struct PodVolumes {
    directory: PathBuf,
    owner: Ownership,
    volumes: BTreeMap<String, Content>,
    tokens: Tokens,
}

#[derive(Debug)]
enum Content {
    Empty,
    Files(Projection),
    Claim { name: String, path: Option<PathBuf> },
}

impl PodVolumes {
    /// Understands the volumes of a pod; touches nothing.
    pub(crate) fn parse(
        pod: &Pod,
        spec: &PodSpec,
        directory: PathBuf,
        owner: Ownership,
    ) -> Result<Self, VolumeError> {
        let mut volumes = BTreeMap::new();
        for volume in spec.volumes.iter().flatten() {
            volumes.insert(volume.name.clone(), parse(volume)?);
        }
        Ok(Self {
            directory,
            owner,
            volumes,
            tokens: Tokens::for_pod(pod, spec),
        })
    }

    /// Creates what is missing and brings generated files up to date. Idempotent.
    pub(crate) async fn sync(
        &mut self,
        client: &Client,
        facts: Facts<'_>,
        snapshot: &Snapshot,
        claims: &Path,
        now: Timestamp,
    ) -> Result<(), VolumeError> {
        for (name, content) in &mut self.volumes {
            let path = self.directory.join(name);
            let io_error = |source| VolumeError::Io {
                volume: name.clone(),
                source,
            };
            match content {
                Content::Empty => make_empty(&path, self.owner).map_err(io_error)?,
                Content::Claim { name: claim, path } => {
                    if path.is_none() {
                        let namespace = facts.pod.metadata.namespace.as_deref();
                        let found =
                            claim::locate(client, namespace.unwrap_or_default(), claim, claims)
                                .await
                                .map_err(|source| VolumeError::Claim {
                                    volume: name.clone(),
                                    source,
                                })?;
                        make_empty(&found, self.owner).map_err(io_error)?;
                        *path = Some(found);
                    }
                }
                Content::Files(projection) => {
                    self.tokens
                        .ensure(client, projection, now)
                        .await
                        .map_err(|source| VolumeError::Token {
                            volume: name.clone(),
                            account: self.tokens.account().to_owned(),
                            source,
                        })?;
                    let inputs = Inputs {
                        facts,
                        objects: snapshot.objects(),
                        tokens: self.tokens.issued(),
                    };
                    let files = projected::collect(projection, inputs).map_err(|source| {
                        VolumeError::Projection {
                            volume: name.clone(),
                            source,
                        }
                    })?;
                    let outcome = atomic::write(&path, &files, self.owner).map_err(io_error)?;
                    if outcome == Outcome::Replaced {
                        tracing::debug!(volume = name, files = files.len(), "wrote a volume");
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether there are files that follow the pod's own fields.
    pub(crate) fn follows_pod(&self) -> bool {
        self.volumes.values().any(|content| match content {
            Content::Files(projection) => projection
                .sources
                .iter()
                .any(|source| matches!(source, projected::Source::Downward(_))),
            Content::Empty | Content::Claim { .. } => false,
        })
    }

    /// When a token must be renewed next.
    pub(crate) fn renewal(&self) -> Option<Timestamp> {
        self.tokens.renewal()
    }

    /// What a container mounts, parents before children.
    pub(crate) fn mounts(
        &self,
        container: &Container,
        environment: &Environment,
    ) -> Result<Vec<Bind>, VolumeError> {
        let mut binds = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let content =
                self.volumes
                    .get(&mount.name)
                    .ok_or_else(|| VolumeError::NoSuchVolume {
                        mount: mount.mount_path.clone(),
                        volume: mount.name.clone(),
                    })?;
            let (source, writable) = match content {
                Content::Empty => (self.directory.join(&mount.name), true),
                Content::Files(_) => (self.directory.join(&mount.name), false),
                Content::Claim { path, .. } => {
                    let path = path.clone().ok_or_else(|| VolumeError::NoSuchVolume {
                        mount: mount.mount_path.clone(),
                        volume: mount.name.clone(),
                    })?;
                    (path, true)
                }
            };
            let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
                (Some(path), _) if !path.is_empty() => Some(path.clone()),
                (_, Some(text)) if !text.is_empty() => Some(expand(text, |name| {
                    environment.get(name).map(str::to_owned)
                })),
                _ => None,
            };
            if let Some(path) = sub_path.as_deref().filter(|path| !is_beneath(path)) {
                return Err(VolumeError::SubPath {
                    mount: mount.mount_path.clone(),
                    path: path.to_owned(),
                });
            }
            let read_only = mount.read_only == Some(true) || !writable;
            binds.push(Bind {
                source,
                sub_path: sub_path.map(PathBuf::from),
                target: Path::new("/").join(&mount.mount_path),
                access: if read_only {
                    Access::ReadOnly
                } else {
                    Access::ReadWrite
                },
            });
        }
        binds.sort_by_key(|bind| bind.target.components().count());
        Ok(binds)
    }
}

fn parse(volume: &Volume) -> Result<Content, VolumeError> {
    let unsupported = |what: &str| VolumeError::Unsupported {
        volume: volume.name.clone(),
        what: what.to_owned(),
    };
    if volume.empty_dir.is_some() {
        return Ok(Content::Empty);
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return Ok(Content::Claim {
            name: claim.claim_name.clone(),
            path: None,
        });
    }
    match projected::parse(volume) {
        Ok(Some(projection)) => Ok(Content::Files(projection)),
        Ok(None) => Err(unsupported(&kind_of(volume))),
        Err(source) => Err(unsupported(source)),
    }
}

/// The name of a volume's only source.
fn kind_of(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let mut keys = value.as_object().into_iter().flat_map(|map| map.keys());
    keys.find(|key| *key != "name")
        .map_or_else(|| "a volume without a source".to_owned(), Clone::clone)
}

/// Whether a sub-path stays inside its volume by its own words; links are looked at when it is
/// mounted.
fn is_beneath(path: &str) -> bool {
    use std::path::Component;
    Path::new(path)
        .components()
        .all(|component| matches!(component, Component::Normal(_) | Component::CurDir))
}

/// A directory in which everybody may write, as volumes of a pod are.
fn make_empty(path: &Path, owner: Ownership) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(path)?,
        made => made?,
    }
    owner.apply(path)?;
    // New files belong to the pod's group.
    let mode = if owner.ids.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests;
