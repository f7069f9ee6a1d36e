//! Our definitions on an API server: what they default, refuse, keep, print and serve.

mod defaults;
mod definitions;
mod merging;
mod rules;
mod subresources;
mod unknown_fields;
mod validation;
mod versions;

use anyhow::Result;
use serde_json::{Value, json};

use crate::target::{Target, with};

const CORE: &str = "agents.x-k8s.io";
const EXTENSIONS: &str = "extensions.agents.x-k8s.io";

/// One of our resources, in one of its versions.
#[derive(Clone, Copy)]
struct Resource {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
}

const SANDBOX: Resource = Resource {
    group: CORE,
    version: "v1beta1",
    plural: "sandboxes",
    kind: "Sandbox",
};
const CLAIM: Resource = Resource {
    group: EXTENSIONS,
    version: "v1beta1",
    plural: "sandboxclaims",
    kind: "SandboxClaim",
};
const TEMPLATE: Resource = Resource {
    group: EXTENSIONS,
    version: "v1beta1",
    plural: "sandboxtemplates",
    kind: "SandboxTemplate",
};
const POOL: Resource = Resource {
    group: EXTENSIONS,
    version: "v1beta1",
    plural: "sandboxwarmpools",
    kind: "SandboxWarmPool",
};

impl Resource {
    /// The same resource in the deprecated version.
    fn deprecated(self) -> Self {
        Self {
            version: "v1alpha1",
            ..self
        }
    }

    fn group_version(self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    fn collection(self, target: &Target) -> String {
        target.path(&format!("/apis/{}", self.group_version()), self.plural)
    }

    fn path(self, target: &Target, name: &str) -> String {
        format!("{}/{name}", self.collection(target))
    }

    /// A whole object.
    fn object(self, name: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": self.group_version(),
            "kind": self.kind,
            "metadata": { "name": name },
            "spec": spec,
        })
    }

    /// Creates an object and answers with its spec as the server keeps it.
    async fn create(self, target: &Target, name: &str, spec: &Value) -> Result<Value> {
        let object = self.object(name, spec);
        let created = target.create(&self.collection(target), &object).await?;
        Ok(created["spec"].clone())
    }

    /// The spec of an object, read in this version.
    async fn spec(self, target: &Target, name: &str) -> Result<Value> {
        let object = target.get(&self.path(target, name)).await?.ok()?;
        Ok(object["spec"].clone())
    }
}

/// A blueprint with one container, and what `change` does to it.
fn blueprint(change: impl FnOnce(&mut Value)) -> Value {
    let mut spec =
        json!({ "podTemplate": { "spec": { "containers": [{ "name": "main", "image": "i" }] } } });
    change(&mut spec);
    spec
}

fn volume_claim(name: &str, size: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": size } } },
    })
}

fn condition(type_: &str, change: &Value) -> Value {
    let condition = json!({
        "type": type_,
        "status": "True",
        "reason": "Because",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    with(condition, change.clone())
}
