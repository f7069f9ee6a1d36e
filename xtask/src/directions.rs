//! The arrows between crates, checked: who may depend on whom, and who must not know Kubernetes.

use anyhow::{Result, bail};
use serde_json::Value;

use crate::{cargo, report};

/// Each package with the workspace packages it may depend on and the outside crates it must not.
/// Only normal dependencies count: a test may look at more than the code it tests.
const RULES: &[(&str, &[&str], &[&str])] = &[
    (CRDS, &[], &[]),
    (SERVICE, &[], &["kube", "k8s-openapi"]),
    (RUNTIME, &[SERVICE], &["kube", "k8s-openapi"]),
    (CONTROLLER, &[CRDS, SERVICE], &[]),
    (ROUTER, &[CRDS, SERVICE], &[]),
    (APISERVER, &[SERVICE], &[]),
    (NODE, &[SERVICE], &[]),
    (
        LOCAL,
        &[CRDS, SERVICE, RUNTIME, CONTROLLER, ROUTER, APISERVER, NODE],
        &[],
    ),
    (LOAD, &[SERVICE, RUNTIME, ROUTER], &[]),
    (FUZZ, &[SERVICE, RUNTIME, ROUTER], &[]),
    (
        "agent-sandbox-tests",
        &[
            CRDS, SERVICE, RUNTIME, CONTROLLER, ROUTER, APISERVER, NODE, LOCAL, LOAD,
        ],
        &[],
    ),
    ("xtask", &[], &["kube", "k8s-openapi"]),
];
const CRDS: &str = "agent-sandbox-crds";
const SERVICE: &str = "agent-sandbox-service";
const RUNTIME: &str = "agent-sandbox-runtime";
const CONTROLLER: &str = "agent-sandbox-controller";
const ROUTER: &str = "agent-sandbox-router";
const APISERVER: &str = "agent-sandbox-apiserver";
const NODE: &str = "agent-sandbox-node";
const LOCAL: &str = "agent-sandbox-local";
const FUZZ: &str = "agent-sandbox-fuzz";
const LOAD: &str = "agent-sandbox-load";

/// Fails with one line per forbidden arrow.
pub(crate) fn run() -> Result<()> {
    report::step("dependency direction");
    let broken = violations(&cargo::metadata()?);
    if !broken.is_empty() {
        bail!("forbidden dependencies:\n  {}", broken.join("\n  "));
    }
    Ok(())
}

fn violations(metadata: &Value) -> Vec<String> {
    let packages: Vec<&Value> = list(metadata, "packages").collect();
    let members: Vec<&str> = packages.iter().copied().filter_map(name).collect();
    let mut broken = Vec::new();
    for package in &packages {
        let Some(source) = name(package) else {
            continue;
        };
        let Some((_, allowed, forbidden)) = RULES.iter().find(|(rule, ..)| *rule == source) else {
            broken.push(format!(
                "{source}: has no rule; give it one in xtask/src/directions.rs"
            ));
            continue;
        };
        for dependency in list(package, "dependencies") {
            let Some(target) = name(dependency) else {
                continue;
            };
            if dependency.get("kind").is_some_and(|kind| !kind.is_null()) {
                continue;
            }
            if members.contains(&target) && !allowed.contains(&target) {
                broken.push(format!("{source} -> {target}"));
            }
            if forbidden.contains(&target) {
                broken.push(format!("{source} -> {target} (must not know Kubernetes)"));
            }
        }
    }
    broken
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn name(value: &Value) -> Option<&str> {
    value.get("name").and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn forbidden_arrows_are_named_and_test_dependencies_are_not() {
        let metadata = json!({"packages": [
            {"name": NODE, "dependencies": [
                {"name": CRDS, "kind": null},
                {"name": APISERVER, "kind": "dev"},
                {"name": "kube", "kind": null},
            ]},
            {"name": RUNTIME, "dependencies": [{"name": "kube", "kind": null}]},
            {"name": CRDS, "dependencies": []},
            {"name": APISERVER, "dependencies": []},
            {"name": "newcomer", "dependencies": []},
        ]});
        assert_eq!(
            violations(&metadata),
            [
                "agent-sandbox-node -> agent-sandbox-crds",
                "agent-sandbox-runtime -> kube (must not know Kubernetes)",
                "newcomer: has no rule; give it one in xtask/src/directions.rs",
            ]
        );
    }
}
