//! The cluster that is there already, through `kubectl`: what is put into it and taken out again.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::{cargo, report};

/// The cluster, through `kubectl`.
pub(super) struct Cluster {
    pub(super) kubeconfig: OsString,
}

impl Cluster {
    /// That it answers and is free for us.
    pub(super) fn check(&self) -> Result<()> {
        self.kubectl(&["get", "--raw", "/readyz"]).context(
            "the cluster that KUBECONFIG names is not ready; check it with `kubectl get nodes`",
        )?;
        let kinds = self.kubectl(&[
            "get",
            "--ignore-not-found",
            "--output=name",
            "--filename",
            KINDS,
        ])?;
        if !kinds.is_empty() {
            bail!(
                "the cluster has our kinds already, and this command deletes every object of them \
                 in the end; use another cluster, or remove them and all their objects with \
                 `kubectl delete --filename {KINDS}`"
            );
        }
        Ok(())
    }

    /// Deletes what the suite left, and waits until the cluster has collected what it owned.
    pub(super) fn remove_objects(&self) -> Result<()> {
        report::step("removing what was created");
        let installed = self.kubectl(&["api-resources", "--output=name"])?;
        // Claims first, so that nothing is claimed again; pools before sandboxes, so that nothing is
        // refilled.
        for kind in REMOVAL_ORDER {
            if installed.lines().any(|name| name == kind) {
                self.kubectl(&["delete", kind, "--all", "--namespace", NAMESPACE, TIMEOUT])?;
            }
        }
        // Those of the Rust suites: each test deletes its own and does not wait.
        self.kubectl(&["delete", "namespaces", "--selector", TESTS, TIMEOUT])?;
        // An owner whose kind is gone is not collected, so this comes before the kinds.
        self.kubectl(&[
            "wait",
            "--for=delete",
            "pods,services,networkpolicies",
            "--selector",
            OURS,
            "--namespace",
            NAMESPACE,
            TIMEOUT,
        ])?;
        Ok(())
    }

    /// Installs our kinds, which [`Cluster::check`] has found absent, once.
    pub(super) fn apply_kinds(&self) -> Result<()> {
        self.kubectl(&["apply", "--server-side", "--filename", KINDS])
            .map(drop)
    }

    /// Whether our kinds are served.
    pub(super) fn has_kinds(&self) -> bool {
        let condition = "--for=condition=Established";
        let waited = self.kubectl(&["wait", condition, "--timeout=10s", "--filename", KINDS]);
        waited.is_ok()
    }

    pub(super) fn remove_kinds(&self) -> Result<()> {
        self.kubectl(&["delete", "--ignore-not-found", "--filename", KINDS, TIMEOUT])?;
        Ok(())
    }

    /// Whether the platform's own namespace is there.
    pub(super) fn has_system_namespace(&self) -> Result<bool> {
        let found = [
            "get",
            "namespace",
            SYSTEM,
            "--ignore-not-found",
            "--output=name",
        ];
        Ok(!self.kubectl(&found)?.is_empty())
    }

    /// The Rust suites make it, and those of one run share it.
    pub(super) fn remove_system_namespace(&self) -> Result<()> {
        self.kubectl(&["delete", "namespace", SYSTEM, "--ignore-not-found", TIMEOUT])?;
        Ok(())
    }

    pub(super) fn json(&self, what: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "--output=json"], what].concat())?;
        serde_json::from_str(&text).context("`kubectl get` did not print JSON")
    }

    /// Runs `kubectl` and returns what it printed; its complaint is the error.
    pub(super) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("kubectl")
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .current_dir(cargo::root()?)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound => anyhow!(
                    "kubectl is not on the PATH; install it from https://kubernetes.io/docs/tasks/tools/"
                ),
                _ => anyhow!(error).context("kubectl does not start"),
            })?;
        if !output.status.success() {
            bail!(
                "`kubectl {}` failed: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The first container among these pods whose image cannot be had, and why.
pub(super) fn image_trouble(pods: &Value) -> Option<String> {
    let texts = |value: &Value, path: &str| {
        let text = value.pointer(path).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let pods = pods.pointer("/items")?.as_array()?;
    pods.iter().find_map(|pod| {
        let containers = pod.pointer("/status/containerStatuses")?.as_array()?;
        containers.iter().find_map(|container| {
            let reason = texts(container, "/state/waiting/reason");
            IMAGE_TROUBLES.contains(&reason.as_str()).then(|| {
                format!(
                    "pod {} waits with {reason} for {}",
                    texts(pod, "/metadata/name"),
                    texts(container, "/image"),
                )
            })
        })
    })
}

const KINDS: &str = "charts/agent-sandbox/crds";
/// Where the platform itself lives in a cluster.
const SYSTEM: &str = "agent-sandbox-system";
/// Where the SDK suites work.
pub(super) const NAMESPACE: &str = "default";
/// What the operator labels everything with that it makes for a sandbox.
pub(super) const OURS: &str = "agents.x-k8s.io/sandbox-name-hash";
/// What the Rust suites label their namespaces with.
const TESTS: &str = "app.kubernetes.io/part-of=agent-sandbox-tests";
const REMOVAL_ORDER: [&str; 4] = [
    "sandboxclaims.extensions.agents.x-k8s.io",
    "sandboxwarmpools.extensions.agents.x-k8s.io",
    "sandboxtemplates.extensions.agents.x-k8s.io",
    "sandboxes.agents.x-k8s.io",
];
const IMAGE_TROUBLES: [&str; 4] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
];
/// How long `kubectl` may wait for a deletion.
const TIMEOUT: &str = "--timeout=180s";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_image_nobody_has_is_told_from_a_slow_start() {
        let pods = |reason: &str| {
            json!({"items": [
                {"metadata": {"name": "new"}, "status": {}},
                {"metadata": {"name": "a"}, "status": {"containerStatuses": [
                    {"image": "some:1", "state": {"waiting": {"reason": reason}}},
                ]}},
            ]})
        };
        assert_eq!(image_trouble(&pods("ContainerCreating")), None);
        let trouble = image_trouble(&pods("ImagePullBackOff")).unwrap();
        assert_eq!(trouble, "pod a waits with ImagePullBackOff for some:1");
        assert_eq!(image_trouble(&json!({"items": []})), None);
    }
}
