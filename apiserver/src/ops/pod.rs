//! The create-only subresources of pods: binding and eviction.

use serde_json::{Value, json};

use super::create::Ownership;
use super::update::{Candidate, Part};
use super::{DeleteOptions, Deleted, Engine, Target, WriteOptions, Written};
use crate::meta;
use crate::schema::FieldError;
use crate::status::ApiError;

impl Engine {
    /// `pods/binding`: puts a pod on a node.
    pub fn bind(
        &self,
        target: &Target,
        binding: &Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        if meta::text(binding, "name") != target.name {
            return Err(ApiError::bad_request(
                "name in URL does not match name in Binding object",
            ));
        }
        let reference = binding.get("target");
        let text = |field: &str| {
            reference
                .and_then(|r| r.get(field))
                .and_then(Value::as_str)
                .unwrap_or("")
                .to_owned()
        };
        let (kind, node) = (text("kind"), text("name"));
        let refuse = |error| ApiError::invalid("", "Binding", &target.name, &[error]);
        if !matches!(kind.as_str(), "" | "Node") {
            let error = FieldError::not_supported("target.kind", &json!(kind), ["Node", "<empty>"]);
            return Err(refuse(error));
        }
        if node.is_empty() {
            return Err(refuse(FieldError::required("target.name", "")));
        }
        let path = |parts: &[&str]| parts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (node_name, conditions) =
            (path(&["spec", "nodeName"]), path(&["status", "conditions"]));
        let paths = [node_name.clone(), conditions.clone()];
        let part = Part::Only {
            subresource: "binding",
            paths: &paths,
        };
        let now = meta::time(self.clock.now());
        self.replace(target, part, options, |old| {
            let uid = meta::text(binding, "uid");
            if !uid.is_empty() && uid != meta::text(old, "uid") {
                let why = format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                    meta::text(old, "uid")
                );
                return Err(ApiError::conflict_because(
                    &target.descriptor,
                    &target.name,
                    &why,
                ));
            }
            if meta::is_deleting(old) {
                let why = "pod is being deleted, cannot be assigned to a host";
                return Err(ApiError::conflict_because(
                    &target.descriptor,
                    &target.name,
                    why,
                ));
            }
            let bound = meta::at(old, &node_name)
                .and_then(Value::as_str)
                .unwrap_or("");
            if !bound.is_empty() {
                let why = format!(
                    "pod {} is already assigned to node \"{bound}\"",
                    target.name
                );
                return Err(ApiError::conflict_because(
                    &target.descriptor,
                    &target.name,
                    &why,
                ));
            }
            let mut object = old.clone();
            meta::put(&mut object, &node_name, Some(node.as_str().into()));
            let scheduled = with_condition(meta::at(old, &conditions), &now);
            meta::put(&mut object, &conditions, Some(scheduled));
            Ok(Candidate {
                object,
                ownership: Ownership::Record,
                warnings: Vec::new(),
            })
        })
    }

    /// `pods/eviction`: deletes a pod the way a drain does.
    pub fn evict(
        &self,
        target: &Target,
        eviction: &Value,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        if meta::text(eviction, "name") != target.name {
            return Err(ApiError::bad_request(
                "name in URL does not match name in Eviction object",
            ));
        }
        self.delete(target, options)
    }
}

/// The conditions with `PodScheduled` true.
fn with_condition(conditions: Option<&Value>, now: &str) -> Value {
    let others = conditions
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|condition| condition.get("type").and_then(Value::as_str) != Some("PodScheduled"))
        .cloned();
    let scheduled = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": now,
    });
    others.chain([scheduled]).collect()
}
