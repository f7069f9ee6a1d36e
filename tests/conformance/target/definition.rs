//! Definitions of custom resources: those a test makes up, and ours.

use agent_sandbox_crds::{PodSpecSchema, crd};
use anyhow::{Result, ensure};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::{Target, kubeconfig, with};

const COLLECTION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Our definitions belong to a whole cluster, so the tests of either schema take turns there.
static TURN: Mutex<()> = Mutex::const_new(());

/// A custom resource of the test.
pub(crate) struct Custom {
    /// Path of the definition.
    pub(crate) definition: String,
    pub(crate) group: String,
    pub(crate) plural: String,
    kind: String,
}

/// What [`Target::define`] takes for namespaced objects with no version but `v1`, of which `v1` says
/// the rest.
pub(crate) fn only_v1(v1: Value) -> Value {
    let version = json!({"name": "v1", "served": true, "storage": true});
    json!({"scope": "Namespaced", "versions": [with(version, v1)]})
}

/// The schema that keeps every field.
pub(crate) fn any_fields() -> Value {
    json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}})
}

impl Custom {
    /// The path of one object, or of the collection when `name` is empty.
    pub(crate) fn path(&self, target: &Target, version: &str, name: &str) -> String {
        let slash = if name.is_empty() { "" } else { "/" };
        target.path(
            &format!("/apis/{}/{version}", self.group),
            &format!("{}{slash}{name}", self.plural),
        )
    }

    /// An object in `v1`: `fields` are its `spec`, `status` and the like.
    pub(crate) fn object(&self, name: &str, fields: Value) -> Value {
        let object = json!({
            "apiVersion": format!("{}/v1", self.group), "kind": self.kind, "metadata": {"name": name},
        });
        with(object, fields)
    }

    /// Creates [`Custom::object`].
    pub(crate) async fn create(&self, target: &Target, name: &str, fields: Value) -> Result<Value> {
        let collection = self.path(target, "v1", "");
        target.create(&collection, &self.object(name, fields)).await
    }
}

impl Target {
    /// Installs a CRD and waits until its objects are served. `spec` lacks the names, which are made
    /// from `kind`; the group is the test's own.
    pub(crate) async fn define(&self, kind: &str, mut spec: Value) -> Result<Custom> {
        let plural = format!("{}s", kind.to_lowercase());
        let group = format!("{}.conformance.example.com", self.namespace);
        if let Some(spec) = spec.as_object_mut() {
            spec.insert("group".to_owned(), group.as_str().into());
            let names = spec.entry("names").or_insert_with(|| json!({}));
            if let Some(names) = names.as_object_mut() {
                names.insert("kind".to_owned(), kind.into());
                names.insert("plural".to_owned(), plural.as_str().into());
            }
        }
        let name = format!("{plural}.{group}");
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": name}, "spec": spec,
        });
        self.create(COLLECTION, &definition).await?;
        let path = format!("{COLLECTION}/{name}");
        self.eventually("the definition to be established", async || {
            let definition = self.get(&path).await?.ok()?;
            let conditions = definition
                .pointer("/status/conditions")
                .and_then(Value::as_array);
            let established = conditions.into_iter().flatten().any(|condition| {
                condition["type"] == "Established" && condition["status"] == "True"
            });
            Ok(established.then_some(()))
        })
        .await?;
        let custom = Custom {
            definition: path,
            group,
            plural,
            kind: kind.to_owned(),
        };
        // A real server announces before every replica of its storage is ready.
        let collection = custom.path(self, "v1", "");
        self.answers(&collection, StatusCode::OK).await?;
        Ok(custom)
    }

    /// Like [`Target::new`], with our definitions, of which Sandbox has this schema.
    pub(crate) async fn with_crds(pod_spec: PodSpecSchema) -> Result<Self> {
        // Installed before anything is done with them, and kept until the test is over.
        let turn = match kubeconfig() {
            Some(_) => Some(TURN.lock().await),
            None => None,
        };
        let mut target = Self::new().await?;
        target.turn = turn;
        target.install(pod_spec).await?;
        Ok(target)
    }

    async fn install(&self, pod_spec: PodSpecSchema) -> Result<()> {
        for crd in crd::all(pod_spec) {
            let name = crd.metadata.name.as_deref().unwrap_or_default();
            let path = format!("{COLLECTION}/{name}");
            let mut wanted = serde_json::to_value(&crd)?;
            let found = self.get(&path).await?;
            let answer = if found.status == StatusCode::NOT_FOUND {
                self.post(COLLECTION, &wanted).await?
            } else {
                let version = &found.ok()?["metadata"]["resourceVersion"];
                wanted["metadata"]["resourceVersion"] = version.clone();
                self.put(&path, &wanted).await?
            };
            ensure!(answer.status.is_success(), "{name}: {}", answer.body);
        }
        for crd in crd::all(pod_spec) {
            let root = format!("/apis/{}/v1beta1", crd.spec.group);
            let path = self.path(&root, &crd.spec.names.plural);
            self.answers(&path, StatusCode::OK).await?;
        }
        // A changed definition is served a little after it is accepted. The two forms differ in what they keep.
        let path = self.path("/apis/agents.x-k8s.io/v1beta1", "sandboxes") + "?dryRun=All";
        let probe = json!({
            "apiVersion": "agents.x-k8s.io/v1beta1",
            "kind": "Sandbox",
            "metadata": { "name": "probe" },
            "spec": { "podTemplate": { "spec": { "containers": [], "notInAnySchema": true } } },
        });
        let kept = pod_spec == PodSpecSchema::Lean;
        self.eventually("the wanted schema to be served", async || {
            let answer = self.post(&path, &probe).await?;
            let field = answer.body.pointer("/spec/podTemplate/spec/notInAnySchema");
            let served = answer.status == StatusCode::CREATED && field.is_some() == kept;
            Ok(served.then_some(()))
        })
        .await
    }
}
