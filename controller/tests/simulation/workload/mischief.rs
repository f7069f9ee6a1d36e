//! What nobody should do: take the names that the operators want, edit what is theirs, hide what they watch.

use agent_sandbox_crds::{labels, names};
use serde_json::json;

use crate::objects::name;
use crate::workload::{Workload, sandbox};

impl Workload {
    /// Somebody else's objects hold names that the operators want.
    pub(super) fn stand_in_the_way(&mut self) {
        let next = format!("c{}", self.claims + 1);
        let mine = json!({"foreign": "yes"});
        let (resource, object) = match self.rng.u8(0..5) {
            0 => (
                "pods",
                json!({"metadata": {"name": next, "labels": mine}, "spec": {}}),
            ),
            1 => (
                "pods",
                json!({"metadata": {"name": "s0", "labels": mine}, "spec": {}}),
            ),
            2 => (
                "services",
                json!({"metadata": {"name": "s1", "labels": mine}, "spec": {}}),
            ),
            3 => {
                let name = names::network_policy("t1");
                (
                    "networkpolicies",
                    json!({"metadata": {"name": name, "labels": mine}, "spec": {}}),
                )
            }
            _ => {
                let name = names::volume_claim("data", "s2");
                let claim = json!({"metadata": {"name": name, "labels": mine}, "spec": {}});
                ("persistentvolumeclaims", claim)
            }
        };
        let foreign = name(&object).to_owned();
        self.create(resource, object);
        self.foreign.push((resource, foreign));
    }

    /// Somebody edits what is the operators'.
    pub(super) fn tamper(&mut self) {
        let value = self.rng.u32(0..3).to_string();
        match self.rng.u8(0..8) {
            5 => self.second_sandbox(),
            6 => self.hide(),
            7 => {
                if let Some(policy) = self.any("networkpolicies") {
                    let labels = json!({labels::SANDBOX_TEMPLATE_REF_HASH: null});
                    self.patch(
                        "networkpolicies",
                        &policy,
                        json!({"metadata": {"labels": labels}}),
                    );
                }
            }
            0 => {
                if let Some(pod) = self.any("pods") {
                    let labels = json!({"version": value, labels::CREATED_BY: value});
                    self.patch("pods", &pod, json!({"metadata": {"labels": labels}}));
                }
            }
            1 => {
                if let Some(pod) = self.any("pods") {
                    let labels = json!({labels::SANDBOX_TEMPLATE_REF_HASH: null});
                    self.patch("pods", &pod, json!({"metadata": {"labels": labels}}));
                }
            }
            2 => {
                if let Some(sandbox) = self.any("sandboxes") {
                    let patch = json!({"spec": {"podTemplate": {"metadata": {"labels": {"by-hand": value}}}}});
                    self.patch("sandboxes", &sandbox, patch);
                }
            }
            3 => {
                if let Some(policy) = self.any("networkpolicies") {
                    self.patch(
                        "networkpolicies",
                        &policy,
                        json!({"spec": {"ingress": [{}]}}),
                    );
                }
            }
            _ => {
                if let Some(sandbox) = self.any("sandboxes") {
                    let patch = json!({"metadata": {"annotations": {"note": value}}});
                    self.patch("sandboxes", &sandbox, patch);
                }
            }
        }
    }

    /// Takes away the label by which the operators watch an object: to them it seems to be gone.
    fn hide(&mut self) {
        let resource = *self.pick(&["pods", "pods", "services", "persistentvolumeclaims"]);
        if let Some(name) = self.any(resource) {
            let labels = json!({labels::SANDBOX_NAME_HASH: null});
            self.patch(resource, &name, json!({"metadata": {"labels": labels}}));
        }
    }

    /// A sandbox beside the one that a claim has, as a crash or a restored backup may leave it.
    fn second_sandbox(&mut self) {
        let Some(claim) = self.any("sandboxclaims") else {
            return;
        };
        let owner = {
            let inner = self.world.lock();
            let claim = inner.get("sandboxclaims", &claim).expect("just found");
            json!({
                "apiVersion": "extensions.agents.x-k8s.io/v1beta1", "kind": "SandboxClaim",
                "name": name(claim), "uid": claim["metadata"]["uid"],
                "controller": true, "blockOwnerDeletion": true,
            })
        };
        let mut second = sandbox(&format!("left-by-{claim}"));
        second["metadata"]["ownerReferences"] = json!([owner]);
        self.create("sandboxes", second);
    }
}
