//! Pod fields that environments and downward-API volumes can show.
//!
//! Pure. Paths and formats:
//! <https://kubernetes.io/docs/concepts/workloads/pods/downward-api/#available-fields>.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::quantity::Amount;

/// What is known about a pod on its node, beyond the object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) node_name: &'a str,
    pub(crate) host_ip: IpAddr,
    pub(crate) pod_ip: Option<IpAddr>,
    /// What the node offers; shown for limits that a container does not set.
    pub(crate) allocatable: Allocatable,
}

/// What the node offers to pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allocatable {
    pub(crate) cpus: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) storage_bytes: u64,
}

/// A field that cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FieldError {
    #[error(
        "field path {path:?} is not supported; expected a field of metadata, spec or status that the downward API offers"
    )]
    UnknownField { path: String },
    #[error(
        "resource {resource:?} is not supported; expected limits or requests of cpu, memory or ephemeral-storage"
    )]
    UnknownResource { resource: String },
    #[error("divisor {divisor:?} of resource {resource:?} is not a positive quantity")]
    Divisor { resource: String, divisor: String },
    #[error("container {name:?} of a resource field is not in the pod")]
    UnknownContainer { name: String },
}

/// The value of a field path; `None` while the pod has no address yet.
pub(crate) fn field(facts: &Facts<'_>, path: &str) -> Result<Option<String>, FieldError> {
    let meta = &facts.pod.metadata;
    let spec = facts.pod.spec.as_ref();
    let unknown = || FieldError::UnknownField {
        path: path.to_owned(),
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(unknown()),
        };
        let value = map.as_ref().and_then(|map| map.get(key));
        return Ok(Some(value.cloned().unwrap_or_default()));
    }
    Ok(Some(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => format_map(meta.labels.as_ref()),
        "metadata.annotations" => format_map(meta.annotations.as_ref()),
        "spec.nodeName" => facts.node_name.to_owned(),
        "spec.serviceAccountName" => spec
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.to_string(),
        "status.podIP" | "status.podIPs" => return Ok(facts.pod_ip.map(|ip| ip.to_string())),
        _ => return Err(unknown()),
    }))
}

/// The value of a resource field.
pub(crate) fn resource(
    facts: &Facts<'_>,
    container: Option<&Container>,
    selector: &ResourceFieldSelector,
) -> Result<String, FieldError> {
    let spec = facts.pod.spec.as_ref();
    let container = match (&selector.container_name, container) {
        (Some(name), _) if !name.is_empty() => spec
            .and_then(|spec| {
                let init = spec.init_containers.iter().flatten();
                init.chain(&spec.containers).find(|c| c.name == *name)
            })
            .ok_or_else(|| FieldError::UnknownContainer { name: name.clone() })?,
        (_, Some(container)) => container,
        _ => {
            return Err(FieldError::UnknownContainer {
                name: String::new(),
            });
        }
    };
    let unknown = || FieldError::UnknownResource {
        resource: selector.resource.clone(),
    };
    let (list, name) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let capacity = match name {
        "cpu" => facts.allocatable.cpus,
        "memory" => facts.allocatable.memory_bytes,
        "ephemeral-storage" => facts.allocatable.storage_bytes,
        _ => return Err(unknown()),
    };
    let resources = container.resources.as_ref();
    let amount = |requests: bool| {
        let map = resources.and_then(|r| {
            if requests {
                r.requests.as_ref()
            } else {
                r.limits.as_ref()
            }
        });
        map.and_then(|map| map.get(name))
            .and_then(Amount::of)
            .filter(|amount| !amount.is_zero())
    };
    let amount = match list {
        "limits" => amount(false).unwrap_or_else(|| Amount::whole(capacity)),
        "requests" => amount(true).unwrap_or_else(|| Amount::whole(0)),
        _ => return Err(unknown()),
    };
    let divisor = selector
        .divisor
        .as_ref()
        .filter(|divisor| divisor.0 != "0" && !divisor.0.is_empty());
    let unit = match divisor {
        None => Some(Amount::whole(1)),
        Some(divisor) => Amount::of(divisor),
    };
    unit.and_then(|unit| amount.in_units_of(unit))
        .map(|value| value.to_string())
        .ok_or_else(|| FieldError::Divisor {
            resource: selector.resource.clone(),
            divisor: divisor.map(|divisor| divisor.0.clone()).unwrap_or_default(),
        })
}

/// Splits `metadata.labels['key']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// A map as the downward API writes it: sorted lines of `key="value"` with Go-style quoting.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", quote(value)))
        .collect();
    lines.join("\n")
}

fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                let code = u32::from(c);
                let (prefix, digits) = if code < 0x80 { ("\\x", 2) } else { ("\\u", 4) };
                quoted.push_str(prefix);
                for digit in (0..digits).rev() {
                    quoted.extend(char::from_digit((code >> (4 * digit)) & 0xf, 16));
                }
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "p", "namespace": "ns", "uid": "u-1",
                "labels": {"b": "2", "a": "1"},
                "annotations": {"note": "say \"hi\"\nback\\slash"},
            },
            "spec": {"serviceAccountName": "sa", "containers": [{
                "name": "c",
                "resources": {"limits": {"cpu": "250m"}, "requests": {"memory": "64Mi"}},
            }]},
        }))
        .unwrap()
    }

    fn facts(pod: &Pod) -> Facts<'_> {
        Facts {
            pod,
            node_name: "n",
            host_ip: "127.0.0.1".parse().unwrap(),
            pod_ip: Some("127.100.0.7".parse().unwrap()),
            allocatable: Allocatable {
                cpus: 4,
                memory_bytes: 1 << 30,
                storage_bytes: 1 << 40,
            },
        }
    }

    #[test]
    fn every_documented_field_has_its_value() {
        let pod = pod();
        for (path, expected) in [
            ("metadata.name", "p"),
            ("metadata.namespace", "ns"),
            ("metadata.uid", "u-1"),
            ("metadata.labels['a']", "1"),
            ("metadata.labels['absent']", ""),
            ("metadata.labels", "a=\"1\"\nb=\"2\""),
            (
                "metadata.annotations",
                "note=\"say \\\"hi\\\"\\nback\\\\slash\"",
            ),
            ("spec.nodeName", "n"),
            ("spec.serviceAccountName", "sa"),
            ("status.hostIP", "127.0.0.1"),
            ("status.podIP", "127.100.0.7"),
        ] {
            assert_eq!(
                field(&facts(&pod), path).unwrap().as_deref(),
                Some(expected),
                "{path}"
            );
        }
        for path in ["spec.containers", "metadata.foo['a']", ""] {
            assert!(field(&facts(&pod), path).is_err(), "{path}");
        }
        let mut waiting = facts(&pod);
        waiting.pod_ip = None;
        assert_eq!(field(&waiting, "status.podIP"), Ok(None));
    }

    #[test]
    fn resources_fall_back_to_the_node_and_round_up() {
        let pod = pod();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let value = |resource: &str, divisor: Option<&str>| {
            let selector = ResourceFieldSelector {
                resource: resource.into(),
                divisor: divisor.map(|divisor| Quantity(divisor.into())),
                container_name: None,
            };
            super::resource(&facts(&pod), Some(container), &selector)
        };
        for (resource, divisor, expected) in [
            ("limits.cpu", None, "1"),
            ("limits.cpu", Some("1m"), "250"),
            ("limits.memory", Some("1Mi"), "1024"),
            ("requests.memory", None, "67108864"),
            ("requests.cpu", None, "0"),
            ("limits.ephemeral-storage", Some("1Gi"), "1024"),
        ] {
            assert_eq!(value(resource, divisor).unwrap(), expected, "{resource}");
        }
        assert!(value("limits.gpu", None).is_err());
        assert!(value("limits.cpu", Some("-1")).is_err());
        assert!(value("cpu", None).is_err());
    }
}
