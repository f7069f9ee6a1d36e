//! Volumes made of generated files: config maps, secrets, pod fields, tokens, and projections that
//! combine them.
//!
//! Pure: given the objects, [`collect`] says which files a volume holds. A plain config map volume
//! is treated as a projection of one source.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, ServiceAccountTokenProjection, Volume,
};

use super::atomic::{FileEntry, Files, is_valid_path};
use crate::objects::{Kind, Payload};
use crate::pod::fields::{self, Facts, FieldError};

/// Mode of files for which the API names none.
const DEFAULT_MODE: u32 = 0o644;

/// A token that a volume asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenRequest {
    pub(crate) audience: Option<String>,
    pub(crate) expiration_seconds: i64,
}

/// One source of files.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    Object {
        kind: Kind,
        name: String,
        items: Vec<KeyToPath>,
        optional: bool,
    },
    Downward(Vec<DownwardAPIVolumeFile>),
    Token {
        request: TokenRequest,
        path: String,
    },
}

/// A volume of generated files.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Projection {
    pub(crate) sources: Vec<Source>,
    pub(crate) default_mode: u32,
}

/// Why the files of a volume cannot be determined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProjectionError {
    #[error("{kind} {name:?} not found")]
    MissingObject { kind: &'static str, name: String },
    #[error("{kind} {name:?} references non-existent key: {key}")]
    MissingKey {
        kind: &'static str,
        name: String,
        key: String,
    },
    #[error("path {path:?} must be relative and must not contain or start with \"..\"")]
    Path { path: String },
    #[error("file {path}: {source}")]
    Field { path: String, source: FieldError },
    #[error("file {path}: the pod has no address yet")]
    NoAddress { path: String },
    #[error("the token for {path} has not been issued")]
    NoToken { path: String },
}

/// What files are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) facts: Facts<'a>,
    pub(crate) objects: &'a BTreeMap<(Kind, String), std::sync::Arc<Payload>>,
    pub(crate) tokens: &'a BTreeMap<TokenRequest, String>,
}

/// Understands a volume as generated files; `None` when it is another kind of volume, an error
/// naming the source when a source is not supported.
pub(crate) fn parse(volume: &Volume) -> Result<Option<Projection>, &'static str> {
    if let Some(source) = &volume.config_map {
        return Ok(Some(Projection {
            sources: vec![Source::Object {
                kind: Kind::ConfigMap,
                name: source.name.clone(),
                items: source.items.clone().unwrap_or_default(),
                optional: source.optional == Some(true),
            }],
            default_mode: mode(source.default_mode, DEFAULT_MODE),
        }));
    }
    if let Some(source) = &volume.secret {
        return Ok(Some(Projection {
            sources: vec![Source::Object {
                kind: Kind::Secret,
                name: source.secret_name.clone().unwrap_or_default(),
                items: source.items.clone().unwrap_or_default(),
                optional: source.optional == Some(true),
            }],
            default_mode: mode(source.default_mode, DEFAULT_MODE),
        }));
    }
    if let Some(source) = &volume.downward_api {
        return Ok(Some(Projection {
            sources: vec![Source::Downward(source.items.clone().unwrap_or_default())],
            default_mode: mode(source.default_mode, DEFAULT_MODE),
        }));
    }
    let Some(projected) = &volume.projected else {
        return Ok(None);
    };
    let mut sources = Vec::new();
    for source in projected.sources.iter().flatten() {
        if let Some(config_map) = &source.config_map {
            sources.push(Source::Object {
                kind: Kind::ConfigMap,
                name: config_map.name.clone(),
                items: config_map.items.clone().unwrap_or_default(),
                optional: config_map.optional == Some(true),
            });
        }
        if let Some(secret) = &source.secret {
            sources.push(Source::Object {
                kind: Kind::Secret,
                name: secret.name.clone(),
                items: secret.items.clone().unwrap_or_default(),
                optional: secret.optional == Some(true),
            });
        }
        if let Some(downward) = &source.downward_api {
            sources.push(Source::Downward(downward.items.clone().unwrap_or_default()));
        }
        if let Some(token) = &source.service_account_token {
            sources.push(Source::Token {
                request: token_request(token),
                path: token.path.clone(),
            });
        }
        if source.cluster_trust_bundle.is_some() {
            return Err("clusterTrustBundle");
        }
        if source.pod_certificate.is_some() {
            return Err("podCertificate");
        }
    }
    Ok(Some(Projection {
        sources,
        default_mode: mode(projected.default_mode, DEFAULT_MODE),
    }))
}

fn token_request(token: &ServiceAccountTokenProjection) -> TokenRequest {
    TokenRequest {
        audience: token
            .audience
            .clone()
            .filter(|audience| !audience.is_empty()),
        expiration_seconds: token.expiration_seconds.unwrap_or(3600),
    }
}

fn mode(mode: Option<i32>, default: u32) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok())
        .map_or(default, |mode| mode & 0o777)
}

/// The files of a volume. Where sources name the same path, the later one wins.
pub(crate) fn collect(
    projection: &Projection,
    inputs: Inputs<'_>,
) -> Result<Files, ProjectionError> {
    let mut files = Files::new();
    for source in &projection.sources {
        match source {
            Source::Object {
                kind,
                name,
                items,
                optional,
            } => {
                let payload = inputs.objects.get(&(*kind, name.clone()));
                collect_object(
                    &mut files,
                    projection.default_mode,
                    (*kind, name, items, *optional),
                    payload.map(AsRef::as_ref),
                )?;
            }
            Source::Downward(items) => {
                for item in items {
                    let content = downward(inputs.facts, item)?;
                    let mode = mode(item.mode, projection.default_mode);
                    insert(&mut files, &item.path, content.into_bytes(), mode)?;
                }
            }
            Source::Token { request, path } => {
                let token = inputs
                    .tokens
                    .get(request)
                    .ok_or_else(|| ProjectionError::NoToken { path: path.clone() })?;
                let content = token.clone().into_bytes();
                insert(&mut files, path, content, projection.default_mode)?;
            }
        }
    }
    Ok(files)
}

fn collect_object(
    files: &mut Files,
    default_mode: u32,
    (kind, name, items, optional): (Kind, &str, &[KeyToPath], bool),
    payload: Option<&Payload>,
) -> Result<(), ProjectionError> {
    let Some(payload) = payload else {
        return if optional {
            Ok(())
        } else {
            Err(ProjectionError::MissingObject {
                kind: kind.name(),
                name: name.to_owned(),
            })
        };
    };
    if items.is_empty() {
        for (key, content) in payload.files() {
            insert(files, key, content.to_vec(), default_mode)?;
        }
    }
    for item in items {
        match payload.file(&item.key) {
            Some(content) => {
                let mode = mode(item.mode, default_mode);
                insert(files, &item.path, content.to_vec(), mode)?;
            }
            None if optional => {}
            None => {
                return Err(ProjectionError::MissingKey {
                    kind: kind.name(),
                    name: name.to_owned(),
                    key: item.key.clone(),
                });
            }
        }
    }
    Ok(())
}

fn downward(facts: Facts<'_>, item: &DownwardAPIVolumeFile) -> Result<String, ProjectionError> {
    let wrong = |source| ProjectionError::Field {
        path: item.path.clone(),
        source,
    };
    if let Some(selector) = &item.field_ref {
        return fields::field(&facts, &selector.field_path)
            .map_err(wrong)?
            .ok_or_else(|| ProjectionError::NoAddress {
                path: item.path.clone(),
            });
    }
    match &item.resource_field_ref {
        Some(selector) => fields::resource(&facts, None, selector).map_err(wrong),
        None => Ok(String::new()),
    }
}

fn insert(
    files: &mut Files,
    path: &str,
    content: Vec<u8>,
    mode: u32,
) -> Result<(), ProjectionError> {
    if !is_valid_path(Path::new(path)) {
        return Err(ProjectionError::Path {
            path: path.to_owned(),
        });
    }
    files.insert(PathBuf::from(path), FileEntry { content, mode });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::fields::Allocatable;

    fn files(volume: Value) -> Result<Vec<(String, String, u32)>, ProjectionError> {
        let mut volume = volume;
        volume["name"] = json!("v");
        let volume: Volume = serde_json::from_value(volume).unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"a": "1"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]},
        }))
        .unwrap();
        let payload = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(key, value)| (*key, value.as_bytes().to_vec()));
            Arc::new(Payload::from_pairs(pairs))
        };
        let objects = [
            (
                (Kind::ConfigMap, "cm".to_owned()),
                payload(&[("one", "1"), ("two", "2")]),
            ),
            (
                (Kind::Secret, "s".to_owned()),
                payload(&[("password", "hunter2")]),
            ),
            (
                (Kind::ConfigMap, "evil".to_owned()),
                payload(&[("..data", "x")]),
            ),
        ]
        .into();
        let request = TokenRequest {
            audience: None,
            expiration_seconds: 3600,
        };
        let tokens = [(request, "jwt".to_owned())].into();
        let inputs = Inputs {
            facts: Facts {
                pod: &pod,
                node_name: "n",
                host_ip: "127.0.0.1".parse().unwrap(),
                pod_ip: None,
                allocatable: Allocatable {
                    cpus: 1,
                    memory_bytes: 1,
                    storage_bytes: 1,
                },
            },
            objects: &objects,
            tokens: &tokens,
        };
        let projection = parse(&volume).unwrap().unwrap();
        let files = collect(&projection, inputs)?.into_iter();
        Ok(files
            .map(|(path, file)| {
                let content = String::from_utf8(file.content).unwrap();
                (path.to_str().unwrap().to_owned(), content, file.mode)
            })
            .collect())
    }

    fn file(path: &str, content: &str, mode: u32) -> (String, String, u32) {
        (path.to_owned(), content.to_owned(), mode)
    }

    #[test]
    fn whole_objects_and_chosen_keys_become_files() {
        assert_eq!(
            files(json!({"configMap": {"name": "cm"}})).unwrap(),
            [file("one", "1", 0o644), file("two", "2", 0o644)]
        );
        let chosen = json!({"configMap": {"name": "cm", "defaultMode": 0o400, "items": [
            {"key": "one", "path": "deep/er/one"}, {"key": "two", "path": "two", "mode": 0o755},
        ]}});
        assert_eq!(
            files(chosen).unwrap(),
            [file("deep/er/one", "1", 0o400), file("two", "2", 0o755)]
        );
        assert_eq!(
            files(json!({"secret": {"secretName": "s"}})).unwrap(),
            [file("password", "hunter2", 0o644)]
        );
    }

    #[test]
    fn projections_combine_sources_and_the_later_wins() {
        let volume = json!({"projected": {"defaultMode": 0o444, "sources": [
            {"configMap": {"name": "cm"}},
            {"secret": {"name": "s", "items": [{"key": "password", "path": "one"}]}},
            {"downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "cpu", "mode": 0o600,
                 "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}},
            ]}},
            {"serviceAccountToken": {"path": "token"}},
        ]}});
        assert_eq!(
            files(volume).unwrap(),
            [
                file("cpu", "2", 0o600),
                file("labels", "a=\"1\"", 0o444),
                file("one", "hunter2", 0o444),
                file("token", "jwt", 0o444),
                file("two", "2", 0o444),
            ]
        );
    }

    #[test]
    fn what_is_missing_is_an_error_unless_optional() {
        for (volume, expected) in [
            (
                json!({"configMap": {"name": "x"}}),
                "configmap \"x\" not found",
            ),
            (
                json!({"secret": {"secretName": "s", "items": [{"key": "k", "path": "p"}]}}),
                "non-existent key: k",
            ),
            (json!({"configMap": {"name": "evil"}}), "..data"),
            (
                json!({"configMap": {"name": "cm", "items": [{"key": "one", "path": "../x"}]}}),
                "../x",
            ),
            (
                json!({"downwardAPI": {"items": [
                    {"path": "ip", "fieldRef": {"fieldPath": "status.podIP"}}]}}),
                "no address",
            ),
            (
                json!({"projected": {"sources": [
                    {"serviceAccountToken": {"path": "t", "audience": "other"}}]}}),
                "not been issued",
            ),
        ] {
            let error = files(volume).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(
            files(json!({"configMap": {"name": "x", "optional": true}})).unwrap(),
            []
        );
        let volume = json!({"secret": {"secretName": "s", "optional": true, "items": [
            {"key": "k", "path": "p"}, {"key": "password", "path": "q"}]}});
        assert_eq!(files(volume).unwrap(), [file("q", "hunter2", 0o644)]);
    }
}
