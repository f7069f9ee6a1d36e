//! Persistent volume claims: where their data lives, and whether a pod may use it yet.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, Client};

/// Why a claim cannot be used yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error("persistentvolumeclaim {name:?} not found")]
    Missing { name: String },
    #[error("persistentvolumeclaim {name:?} is not bound yet")]
    Unbound { name: String },
    #[error(
        "persistentvolumeclaim {name:?} asks for volumeMode Block; only Filesystem is possible on this node"
    )]
    Block { name: String },
    #[error("persistentvolumeclaim {name:?} is being deleted")]
    Deleting { name: String },
    #[error("read persistentvolumeclaim {name:?}")]
    Api { name: String, source: kube::Error },
}

/// The directory of a bound claim.
pub(crate) async fn locate(
    client: &Client,
    namespace: &str,
    name: &str,
    claims: &Path,
) -> Result<PathBuf, ClaimError> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(name).await.map_err(|source| ClaimError::Api {
        name: name.to_owned(),
        source,
    })?;
    let claim = found.ok_or_else(|| ClaimError::Missing {
        name: name.to_owned(),
    })?;
    directory(&claim, name, claims)
}

/// The directory of a claim, if a pod may use it.
fn directory(
    claim: &PersistentVolumeClaim,
    name: &str,
    claims: &Path,
) -> Result<PathBuf, ClaimError> {
    let name = || name.to_owned();
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(ClaimError::Deleting { name: name() });
    }
    let mode = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_mode.as_deref());
    if mode == Some("Block") {
        return Err(ClaimError::Block { name: name() });
    }
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    match (&claim.metadata.uid, phase) {
        (Some(uid), Some("Bound")) => Ok(claims.join(uid)),
        _ => Err(ClaimError::Unbound { name: name() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_bound_file_system_claim_can_be_used() {
        let usable = json!({"metadata": {"uid": "u"}, "status": {"phase": "Bound"}});
        let mut pending = usable.clone();
        pending["status"]["phase"] = json!("Pending");
        let mut block = usable.clone();
        block["spec"] = json!({"volumeMode": "Block"});
        let mut leaving = usable.clone();
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let at = |value| {
            let claim = serde_json::from_value(value).unwrap();
            directory(&claim, "c", Path::new("/claims")).map_err(|error| error.to_string())
        };
        assert_eq!(at(usable), Ok(PathBuf::from("/claims/u")));
        for (value, expected) in [
            (pending, "not bound"),
            (block, "Block"),
            (leaving, "deleted"),
        ] {
            let error = at(value).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
