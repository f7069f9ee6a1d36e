//! The environment of a container.
//!
//! Pure: configuration objects are looked up through a trait. Precedence is Kubernetes': the
//! image's defaults, then `envFrom` in order, then `env` in order; later entries win, and `$(NAME)`
//! refers to what was defined before.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource};

use super::fields::{self, Facts, FieldError};
use crate::objects::Payload;

/// Where referenced objects are found.
pub(crate) trait Objects {
    /// The data of a config map of the pod's namespace, if it exists.
    fn config_map(&self, name: &str) -> Option<&Payload>;
    /// The data of a secret of the pod's namespace, if it exists.
    fn secret(&self, name: &str) -> Option<&Payload>;
}

/// Why an environment cannot be built. Shown to the user as the container's waiting message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvError {
    #[error("{kind} {name:?} not found")]
    MissingObject { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {name}")]
    MissingKey {
        kind: &'static str,
        name: String,
        key: String,
    },
    #[error("{kind} {name}, key {key}: the value is not UTF-8 text")]
    NotText {
        kind: &'static str,
        name: String,
        key: String,
    },
    #[error("env {name}: {source}")]
    Field { name: String, source: FieldError },
    #[error("env {name}: {what} is not supported on this node")]
    Unsupported { name: String, what: &'static str },
    #[error("env {name}: the pod has no address yet")]
    NoAddress { name: String },
}

/// An environment and what had to be left out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) variables: Vec<(String, String)>,
    /// Keys of `envFrom` objects that cannot be variables.
    pub(crate) skipped: Vec<String>,
}

impl Environment {
    /// The value of a variable.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &str, value: String) {
        match self.variables.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }
}

/// Builds the environment of `container` on top of `defaults`.
pub(crate) fn build(
    facts: &Facts<'_>,
    container: &Container,
    defaults: Vec<(String, String)>,
    objects: &impl Objects,
) -> Result<Environment, EnvError> {
    let mut environment = Environment::default();
    for (name, value) in defaults {
        environment.set(&name, value);
    }
    // What $(NAME) can refer to: only what the pod itself has defined so far.
    let mut defined = BTreeMap::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let (kind, name, optional, payload) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(source), _) => (
                "configmap",
                &source.name,
                source.optional,
                objects.config_map(&source.name),
            ),
            (None, Some(source)) => (
                "secret",
                &source.name,
                source.optional,
                objects.secret(&source.name),
            ),
            (None, None) => continue,
        };
        let Some(payload) = payload else {
            if optional == Some(true) {
                continue;
            }
            return Err(EnvError::MissingObject {
                kind,
                name: name.clone(),
            });
        };
        for (key, value) in payload.texts() {
            let variable = format!("{prefix}{key}");
            match value {
                Ok(value) if is_variable_name(&variable) => {
                    defined.insert(variable.clone(), value.to_owned());
                    environment.set(&variable, value.to_owned());
                }
                _ => environment.skipped.push(variable),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => {
                expand(value, |name| defined.get(name).cloned())
            }
            (_, Some(source)) => {
                match resolve(facts, container, &variable.name, source, objects)? {
                    Some(value) => value,
                    None => continue,
                }
            }
            _ => String::new(),
        };
        defined.insert(variable.name.clone(), value.clone());
        environment.set(&variable.name, value);
    }
    Ok(environment)
}

/// The value behind `valueFrom`; `None` when it is optional and absent.
fn resolve(
    facts: &Facts<'_>,
    container: &Container,
    variable: &str,
    source: &EnvVarSource,
    objects: &impl Objects,
) -> Result<Option<String>, EnvError> {
    let field_error = |source| EnvError::Field {
        name: variable.to_owned(),
        source,
    };
    if let Some(selector) = &source.field_ref {
        let value = fields::field(facts, &selector.field_path).map_err(field_error)?;
        return value.map(Some).ok_or_else(|| EnvError::NoAddress {
            name: variable.to_owned(),
        });
    }
    if let Some(selector) = &source.resource_field_ref {
        return fields::resource(facts, Some(container), selector)
            .map(Some)
            .map_err(field_error);
    }
    if source.file_key_ref.is_some() {
        return Err(EnvError::Unsupported {
            name: variable.to_owned(),
            what: "fileKeyRef",
        });
    }
    let (kind, name, key, optional, payload) =
        match (&source.config_map_key_ref, &source.secret_key_ref) {
            (Some(selector), _) => (
                "configmap",
                &selector.name,
                &selector.key,
                selector.optional,
                objects.config_map(&selector.name),
            ),
            (None, Some(selector)) => (
                "secret",
                &selector.name,
                &selector.key,
                selector.optional,
                objects.secret(&selector.name),
            ),
            (None, None) => return Ok(Some(String::new())),
        };
    let optional = optional == Some(true);
    let Some(payload) = payload else {
        return if optional {
            Ok(None)
        } else {
            Err(EnvError::MissingObject {
                kind,
                name: name.clone(),
            })
        };
    };
    match payload.text(key) {
        Some(Ok(value)) => Ok(Some(value.to_owned())),
        Some(Err(_)) => Err(EnvError::NotText {
            kind,
            name: name.clone(),
            key: key.clone(),
        }),
        None if optional => Ok(None),
        None => Err(EnvError::MissingKey {
            kind,
            name: name.clone(),
            key: key.clone(),
        }),
    }
}

/// Kubernetes accepts any printable name without an equals sign.
fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| (' '..='~').contains(&c) && c != '=')
}

/// Replaces `$(NAME)` by the value that `lookup` knows. An unknown reference stays as it is, and
/// `$$` stands for one dollar sign, so that `$$(NAME)` is never replaced.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(tail) = after.strip_prefix('$') {
            expanded.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after
            .strip_prefix('(')
            .and_then(|tail| tail.split_once(')'))
        {
            let value = lookup(name).unwrap_or_else(|| format!("$({name})"));
            expanded.push_str(&value);
            rest = tail;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::fields::Allocatable;

    struct Fixed {
        config_maps: BTreeMap<String, Payload>,
        secrets: BTreeMap<String, Payload>,
    }

    impl Objects for Fixed {
        fn config_map(&self, name: &str) -> Option<&Payload> {
            self.config_maps.get(name)
        }

        fn secret(&self, name: &str) -> Option<&Payload> {
            self.secrets.get(name)
        }
    }

    fn environment(container: Value) -> Result<Environment, EnvError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"containers": []},
        }))
        .unwrap();
        let mut container = container;
        container["name"] = json!("c");
        let container: Container = serde_json::from_value(container).unwrap();
        let payload = |pairs: &[(&str, &[u8])]| {
            Payload::from_pairs(pairs.iter().map(|(key, value)| (*key, value.to_vec())))
        };
        let objects = Fixed {
            config_maps: [(
                "cm".to_owned(),
                payload(&[("one", b"1"), ("two", b"2"), ("bad=name", b"x")]),
            )]
            .into(),
            secrets: [(
                "s".to_owned(),
                payload(&[("password", b"hunter2"), ("binary", b"\xff\xfe")]),
            )]
            .into(),
        };
        let facts = Facts {
            pod: &pod,
            node_name: "n",
            host_ip: "127.0.0.1".parse().unwrap(),
            pod_ip: None,
            allocatable: Allocatable {
                cpus: 1,
                memory_bytes: 1,
                storage_bytes: 1,
            },
        };
        let defaults = vec![
            ("PATH".to_owned(), "/bin".to_owned()),
            ("one".to_owned(), "image".to_owned()),
        ];
        build(&facts, &container, defaults, &objects)
    }

    #[test]
    fn references_expand_and_dollars_escape() {
        let lookup = |name: &str| (name == "A").then(|| "x".to_owned());
        for (text, expected) in [
            ("plain", "plain"),
            ("$(A)", "x"),
            ("-$(A)-$(A)-", "-x-x-"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$x"),
            ("$$$$(A)", "$$(A)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$()", "$()"),
            ("$($(A))", "$($(A))"),
            ("é$(A)é", "éxé"),
        ] {
            assert_eq!(expand(text, lookup), expected, "{text}");
        }
    }

    #[test]
    fn later_sources_win_and_refer_to_earlier_ones() {
        let built = environment(json!({
            "envFrom": [
                {"configMapRef": {"name": "cm"}},
                {"prefix": "S_", "secretRef": {"name": "s"}},
                {"configMapRef": {"name": "absent", "optional": true}},
            ],
            "env": [
                {"name": "two", "value": "two"},
                {"name": "both", "value": "$(one)-$(two)-$(later)-$(PATH)"},
                {"name": "later", "value": "l"},
                {"name": "empty"},
            ],
        }))
        .unwrap();
        for (name, value) in [
            ("PATH", "/bin"),
            ("one", "1"),
            ("two", "two"),
            ("S_password", "hunter2"),
            // The image's PATH and what comes later are not known to references.
            ("both", "1-two-$(later)-$(PATH)"),
            ("later", "l"),
            ("empty", ""),
        ] {
            assert_eq!(built.get(name), Some(value), "{name}");
        }
        assert_eq!(built.skipped, ["bad=name", "S_binary"]);
        assert_eq!(built.get("S_binary"), None, "not text, not a variable");
    }

    #[test]
    fn single_values_come_from_objects_and_fields() {
        let built = environment(json!({"env": [
            {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "one"}}},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
            {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "D", "valueFrom": {"secretKeyRef": {"name": "s", "key": "x", "optional": true}}},
            {"name": "E", "valueFrom": {"secretKeyRef": {"name": "x", "key": "x", "optional": true}}},
        ]}))
        .unwrap();
        assert_eq!(built.get("A"), Some("1"));
        assert_eq!(built.get("B"), Some("hunter2"));
        assert_eq!(built.get("C"), Some("p"));
        assert_eq!((built.get("D"), built.get("E")), (None, None));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (env, expected) in [
            (
                json!({"configMapKeyRef": {"name": "x", "key": "k"}}),
                "configmap \"x\" not found",
            ),
            (
                json!({"secretKeyRef": {"name": "s", "key": "k"}}),
                "couldn't find key k in secret s",
            ),
            (
                json!({"secretKeyRef": {"name": "s", "key": "binary"}}),
                "not UTF-8",
            ),
            (json!({"fieldRef": {"fieldPath": "spec.nope"}}), "spec.nope"),
            (
                json!({"fieldRef": {"fieldPath": "status.podIP"}}),
                "no address",
            ),
            (
                json!({"fileKeyRef": {"volumeName": "v", "path": "p", "key": "k"}}),
                "fileKeyRef",
            ),
        ] {
            let error = environment(json!({"env": [{"name": "V", "valueFrom": env}]}))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = environment(json!({"envFrom": [{"secretRef": {"name": "x"}}]})).unwrap_err();
        assert_eq!(error.to_string(), "secret \"x\" not found");
    }
}
