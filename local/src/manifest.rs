//! Applying the files of `--apply`, as `kubectl apply --server-side` would.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiResource, Scope, pinned_kind};
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use serde_json::Value;

/// Who owns the fields that `--apply` sets.
const MANAGER: &str = "agent-sandbox-up";
/// The namespace of namespaced objects that name none.
const DEFAULT_NAMESPACE: &str = "default";
/// How long a kind may take to be served after its definition was applied in the same run.
const KIND_DEADLINE: Duration = Duration::from_secs(10);
const KIND_RETRY: Duration = Duration::from_millis(20);

/// One object of a manifest file and where it stands there.
#[derive(Debug)]
pub struct Manifest {
    file: PathBuf,
    document: usize,
    object: DynamicObject,
}

/// Why manifests cannot be applied. The text names the file and the document in it, from 1.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("--apply {}: cannot read the file", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A document is not YAML.
    #[error("--apply {}: not YAML: {message}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A document is not a Kubernetes object.
    #[error(
        "--apply {}, document {document}: not a Kubernetes object (expected apiVersion, kind and metadata.name): {message}",
        file.display()
    )]
    Object {
        /// The file.
        file: PathBuf,
        /// Which document.
        document: usize,
        /// What is missing.
        message: String,
    },
    /// The API server refused the object.
    #[error("--apply {}, document {document}: {kind} {name}: {source}", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// Which document.
        document: usize,
        /// The object's kind.
        kind: String,
        /// The object's name.
        name: String,
        /// What the API server said.
        source: Box<kube::Error>,
    },
}

/// Reads every document of every file, so that a typo in the last is found before the first is
/// applied.
///
/// # Errors
/// Names the file and document that cannot be used.
pub fn read(files: &[PathBuf]) -> Result<Vec<Manifest>, ManifestError> {
    let mut manifests = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).map_err(|source| ManifestError::Read {
            file: file.clone(),
            source,
        })?;
        parse(file, &text, &mut manifests)?;
    }
    Ok(manifests)
}

fn parse(file: &Path, text: &str, manifests: &mut Vec<Manifest>) -> Result<(), ManifestError> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| ManifestError::Syntax {
            file: file.to_owned(),
            message: error.to_string(),
        })?;
    for (index, value) in documents.into_iter().enumerate() {
        if value.is_null() {
            continue;
        }
        let document = index + 1;
        let object_error = |message: String| ManifestError::Object {
            file: file.to_owned(),
            document,
            message,
        };
        let object =
            DynamicObject::deserialize(value).map_err(|error| object_error(error.to_string()))?;
        if object.types.is_none() {
            return Err(object_error("apiVersion and kind are required".to_owned()));
        }
        if object.metadata.name.is_none() {
            return Err(object_error("metadata.name is required".to_owned()));
        }
        manifests.push(Manifest {
            file: file.to_owned(),
            document,
            object,
        });
    }
    Ok(())
}

/// Applies the manifests in order.
///
/// # Errors
/// Names the object that the API server refused, with its words.
pub async fn apply(client: &Client, manifests: Vec<Manifest>) -> Result<(), ManifestError> {
    let parameters = PatchParams {
        field_validation: Some(kube::api::ValidationDirective::Strict),
        ..PatchParams::apply(MANAGER).force()
    };
    for Manifest {
        file,
        document,
        object,
    } in manifests
    {
        let (kind, name) = (
            object
                .types
                .as_ref()
                .map_or_else(String::new, |types| types.kind.clone()),
            object.name_any(),
        );
        let refused = |source| ManifestError::Refused {
            file: file.clone(),
            document,
            kind: kind.clone(),
            name: name.clone(),
            source: Box::new(source),
        };
        let (resource, scope) = served(client, &object).await.map_err(refused)?;
        let api: Api<DynamicObject> = match scope {
            Scope::Cluster => Api::all_with(client.clone(), &resource),
            Scope::Namespaced => {
                let namespace = object.namespace();
                let namespace = namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
                Api::namespaced_with(client.clone(), namespace, &resource)
            }
        };
        api.patch(&name, &parameters, &Patch::Apply(&object))
            .await
            .map_err(refused)?;
        tracing::info!(kind, name, "applied");
    }
    Ok(())
}

/// The resource that serves the object's kind. A definition applied a moment ago is waited for.
async fn served(client: &Client, object: &DynamicObject) -> kube::Result<(ApiResource, Scope)> {
    let gvk = object
        .types
        .as_ref()
        .and_then(|types| GroupVersionKind::try_from(types).ok())
        .unwrap_or_else(|| GroupVersionKind::gvk("", "", ""));
    let deadline = tokio::time::Instant::now() + KIND_DEADLINE;
    loop {
        match pinned_kind(client, &gvk).await {
            Ok((resource, capabilities)) => return Ok((resource, capabilities.scope)),
            Err(error) if tokio::time::Instant::now() >= deadline => return Err(error),
            Err(kube::Error::Discovery(_)) => tokio::time::sleep(KIND_RETRY).await,
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                tokio::time::sleep(KIND_RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<Manifest>, ManifestError> {
        let mut manifests = Vec::new();
        parse(Path::new("pool.yaml"), text, &mut manifests).map(|()| manifests)
    }

    #[test]
    fn documents_are_read_and_empty_ones_skipped() {
        let text = "---\n# only a comment\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: b}\n";
        let names: Vec<String> = of(text)
            .unwrap()
            .iter()
            .map(|one| one.object.name_any())
            .collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn what_is_missing_is_named_with_its_place() {
        let cases = [
            ("apiVersion: v1\nkind: Pod\n", "metadata"),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {}\n",
                "metadata.name is required",
            ),
            ("metadata: {name: a}\n", "apiVersion and kind are required"),
        ];
        for (text, expected) in cases {
            let error = of(text).unwrap_err().to_string();
            assert!(
                error.contains("pool.yaml, document 1") && error.contains(expected),
                "{error}"
            );
        }
        let error = of("a: [\n").unwrap_err().to_string();
        assert!(
            error.contains("pool.yaml") && error.contains("not YAML"),
            "{error}"
        );
        let error = read(&["absent.yaml".into()]).unwrap_err().to_string();
        assert_eq!(error, "--apply absent.yaml: cannot read the file");
    }
}
