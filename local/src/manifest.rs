//! Applying the files of `--apply`, as `kubectl apply --server-side` would.
//!
//! All files are read before the first object is applied. An object's namespace is `default` unless
//! it names one.

use std::collections::HashSet;
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
    /// There is nothing in the file.
    #[error("--apply {}: there is no object in the file", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
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
    #[error("--apply {}, document {document}: {kind} {name}: {message}", file.display())]
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
        message: String,
    },
    /// Nobody serves objects of this kind.
    #[error(
        "--apply {}, document {document}: {kind} {name}: this API server has no {kind} in {version}; \
         correct apiVersion and kind, or apply the CustomResourceDefinition in front of it",
        file.display()
    )]
    UnknownKind {
        /// The file.
        file: PathBuf,
        /// Which document.
        document: usize,
        /// The object's kind.
        kind: String,
        /// The object's name.
        name: String,
        /// The object's API version.
        version: String,
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
            message: first_line(&error.to_string()),
        })?;
    let before = manifests.len();
    for (index, value) in documents.into_iter().enumerate() {
        if value.is_null() {
            continue;
        }
        let document = index + 1;
        for value in items(value) {
            let object = object(value).map_err(|message| ManifestError::Object {
                file: file.to_owned(),
                document,
                message,
            })?;
            manifests.push(Manifest {
                file: file.to_owned(),
                document,
                object,
            });
        }
    }
    if manifests.len() == before {
        return Err(ManifestError::Empty {
            file: file.to_owned(),
        });
    }
    Ok(())
}

/// The objects of a document: those of a `List`, as `kubectl get -o yaml` writes it, or the one.
fn items(mut document: Value) -> Vec<Value> {
    let is_list = document.get("kind").is_some_and(|kind| kind == "List");
    match document.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if is_list => items,
        Some(items) => {
            if let Some(slot) = document.get_mut("items") {
                *slot = items;
            }
            vec![document]
        }
        None => vec![document],
    }
}

fn object(value: Value) -> Result<DynamicObject, String> {
    if !value.is_object() {
        return Err("this is no mapping".to_owned());
    }
    let object = DynamicObject::deserialize(value).map_err(|error| error.to_string())?;
    if object.types.is_none() {
        return Err("apiVersion and kind are required".to_owned());
    }
    if object.metadata.name.is_none() {
        return Err("metadata.name is required".to_owned());
    }
    Ok(object)
}

/// The place and the reason; the quotation of the text that follows is for wider screens.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
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
    let mut defined = HashSet::new();
    for manifest in manifests {
        let Manifest { object, .. } = &manifest;
        let (gvk, name) = (manifest.gvk(), object.name_any());
        let soon = defined.contains(&(gvk.group.clone(), gvk.kind.clone()));
        let found = served(client, &gvk, soon).await;
        let (resource, scope) = found
            .map_err(|error| manifest.refused(&error))?
            .ok_or_else(|| manifest.unknown_kind(&gvk))?;
        let api: Api<DynamicObject> = match scope {
            Scope::Cluster => Api::all_with(client.clone(), &resource),
            Scope::Namespaced => {
                let namespace = object.namespace();
                let namespace = namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
                Api::namespaced_with(client.clone(), namespace, &resource)
            }
        };
        api.patch(&name, &parameters, &Patch::Apply(object))
            .await
            .map_err(|error| manifest.refused(&error))?;
        tracing::info!(kind = gvk.kind, name, "applied");
        defined.extend(definition(object));
    }
    Ok(())
}

impl Manifest {
    fn gvk(&self) -> GroupVersionKind {
        let types = self.object.types.as_ref();
        types
            .and_then(|types| GroupVersionKind::try_from(types).ok())
            .unwrap_or_else(|| GroupVersionKind::gvk("", "", ""))
    }

    fn refused(&self, error: &kube::Error) -> ManifestError {
        ManifestError::Refused {
            file: self.file.clone(),
            document: self.document,
            kind: self.gvk().kind,
            name: self.object.name_any(),
            message: words(error),
        }
    }

    fn unknown_kind(&self, gvk: &GroupVersionKind) -> ManifestError {
        ManifestError::UnknownKind {
            file: self.file.clone(),
            document: self.document,
            kind: gvk.kind.clone(),
            name: self.object.name_any(),
            version: gvk.api_version(),
        }
    }
}

/// The group and kind that an object defines, if it is a definition.
fn definition(object: &DynamicObject) -> Option<(String, String)> {
    let types = object.types.as_ref()?;
    if types.kind != "CustomResourceDefinition" {
        return None;
    }
    let spec = object.data.get("spec")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some((
        text(spec.get("group")?)?,
        text(spec.get("names")?.get("kind")?)?,
    ))
}

/// The resource that serves a kind; `None` when there is none. One that will be there `soon`,
/// because its definition was applied a moment ago, is waited for.
async fn served(
    client: &Client,
    gvk: &GroupVersionKind,
    soon: bool,
) -> kube::Result<Option<(ApiResource, Scope)>> {
    let deadline = tokio::time::Instant::now() + KIND_DEADLINE;
    loop {
        match pinned_kind(client, gvk).await {
            Ok((resource, capabilities)) => return Ok(Some((resource, capabilities.scope))),
            Err(kube::Error::Discovery(_)) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => return Err(error),
        }
        if !soon || tokio::time::Instant::now() >= deadline {
            return Ok(None);
        }
        tokio::time::sleep(KIND_RETRY).await;
    }
}

/// What an API server said, without the wrapping of the client.
pub(crate) fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
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
    fn lists_are_their_items() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- {apiVersion: v1, kind: Secret, metadata: {name: b}}\n";
        assert_eq!(of(text).unwrap().len(), 2);
        let own = "apiVersion: example.com/v1\nkind: Basket\nmetadata: {name: a}\nitems: [apple]\n";
        let basket = &of(own).unwrap()[0].object;
        assert_eq!(basket.data["items"][0], "apple");
    }

    #[test]
    fn definitions_are_recognised() {
        let text = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a}\nspec: {group: example.com, names: {kind: Basket}}\n";
        let defined = definition(&of(text).unwrap()[0].object);
        assert_eq!(defined, Some(("example.com".into(), "Basket".into())));
        let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
        assert_eq!(definition(&of(other).unwrap()[0].object), None);
    }

    #[test]
    fn what_is_missing_is_named_with_its_place() {
        let cases = [
            ("just text\n", "this is no mapping"),
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
            error.contains("pool.yaml: not YAML: line 1") && error.lines().count() == 1,
            "{error}"
        );
        let error = of("# nothing\n").unwrap_err().to_string();
        assert_eq!(error, "--apply pool.yaml: there is no object in the file");
        let error = read(&["absent.yaml".into()]).unwrap_err().to_string();
        assert_eq!(error, "--apply absent.yaml: cannot read the file");
    }
}
