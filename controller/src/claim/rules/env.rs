//! `env`: environment variables a claim puts into its sandbox's containers.

use std::collections::BTreeMap;

use agent_sandbox_crds::condition::reason;
use agent_sandbox_crds::template::EnvVarsInjectionPolicy;
use serde_json::{Map, Value, json};

use super::Rejection;
use crate::objects::EnvEntry;

fn rejected(message: impl Into<String>) -> Rejection {
    Rejection::new(reason::ENV_VARS_INJECTION_REJECTED, message)
}

/// Puts the claim's variables into a pod spec, as the template's policy allows. Entries that name a
/// container go there; the rest go to the first container, after those that named it.
///
/// # Errors
/// When the policy forbids it, a container is unknown, or a variable may not be replaced.
pub fn inject(
    pod: &mut Map<String, Value>,
    entries: &[EnvEntry],
    policy: &EnvVarsInjectionPolicy,
) -> Result<(), Rejection> {
    if entries.is_empty() {
        return Ok(());
    }
    let overrides = match policy {
        EnvVarsInjectionPolicy::Allowed => false,
        EnvVarsInjectionPolicy::Overrides => true,
        _ => {
            return Err(rejected(
                "spec.env: the template does not allow environment variables (envVarsInjectionPolicy is Disallowed)",
            ));
        }
    };
    let first = container_names(pod, "containers")
        .into_iter()
        .next()
        .ok_or_else(|| rejected("spec.env: the template has no container"))?;
    let mut by_container: BTreeMap<&str, Vec<(usize, &EnvEntry)>> = BTreeMap::new();
    let named = |entry: &&EnvEntry| {
        entry
            .container_name
            .as_deref()
            .is_some_and(|it| !it.is_empty())
    };
    let numbered = || entries.iter().enumerate();
    for (index, entry) in numbered().filter(|(_, entry)| named(entry)) {
        let name = entry.container_name.as_deref().unwrap_or_default();
        by_container.entry(name).or_default().push((index, entry));
    }
    for (index, entry) in numbered().filter(|(_, entry)| !named(entry)) {
        by_container.entry(&first).or_default().push((index, entry));
    }
    for (name, entries) in by_container {
        let Some(container) = find_container(pod, name) else {
            let index = entries.first().map_or(0, |(index, _)| *index);
            return Err(rejected(format!(
                "spec.env[{index}].containerName: the template has no container {name:?}"
            )));
        };
        inject_into(container, name, &entries, overrides)?;
    }
    Ok(())
}

fn container_names(pod: &Map<String, Value>, list: &str) -> Vec<String> {
    pod.get(list)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|container| container.get("name")?.as_str().map(ToOwned::to_owned))
        .collect()
}

fn find_container<'a>(
    pod: &'a mut Map<String, Value>,
    name: &str,
) -> Option<&'a mut Map<String, Value>> {
    let list = ["initContainers", "containers"]
        .into_iter()
        .find(|list| container_names(pod, list).iter().any(|known| known == name))?;
    pod.get_mut(list)?
        .as_array_mut()?
        .iter_mut()
        .find(|container| container.get("name").and_then(Value::as_str) == Some(name))?
        .as_object_mut()
}

fn inject_into(
    container: &mut Map<String, Value>,
    name: &str,
    entries: &[(usize, &EnvEntry)],
    overrides: bool,
) -> Result<(), Rejection> {
    let draws_from_sources = container
        .get("envFrom")
        .and_then(Value::as_array)
        .is_some_and(|sources| !sources.is_empty());
    if draws_from_sources && !overrides {
        return Err(rejected(format!(
            "spec.env: container {name:?} takes variables from envFrom, so additions could replace them; envVarsInjectionPolicy must be Overrides"
        )));
    }
    let env = container
        .entry("env")
        .or_insert_with(|| Value::Array(Vec::new()));
    if env.is_null() {
        *env = Value::Array(Vec::new());
    }
    let Some(list) = env.as_array_mut() else {
        return Err(rejected(format!(
            "spec.env: env of container {name:?} is not a list"
        )));
    };
    for (index, entry) in entries {
        if !is_variable_name(&entry.name) {
            return Err(rejected(format!(
                "spec.env[{index}].name: {:?} is not a variable name: expected printable ASCII without '='",
                entry.name
            )));
        }
        let value = json!({"name": entry.name, "value": entry.value});
        let known = list
            .iter_mut()
            .find(|known| known.get("name").and_then(Value::as_str) == Some(entry.name.as_str()));
        match known {
            Some(known) if overrides => *known = value,
            Some(_) => {
                return Err(rejected(format!(
                    "spec.env[{index}].name: {:?} is already defined in container {name:?} and envVarsInjectionPolicy is Allowed, not Overrides",
                    entry.name
                )));
            }
            None => list.push(value),
        }
    }
    Ok(())
}

/// Kubernetes accepts any printable ASCII but `=`.
fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
}
