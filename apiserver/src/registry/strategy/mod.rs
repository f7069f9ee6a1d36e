//! Per-kind hooks: what a descriptor's data cannot express.
//!
//! The write path calls the hooks of a resource in a fixed order: defaults of the schema,
//! `prepare_*`, validation by the schema, `validate`. Hooks are pure over their arguments; they see
//! the store only through [`Context`] and never write to it.

mod access;
mod config;
pub(crate) mod definition;
mod event;
mod namespace;
mod networking;
mod node;
mod pod;
mod pod_spec;
mod service;
mod volume;
mod workload;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::schema::FieldError;
use crate::store::{ListQuery, Object, Store};

/// What a hook may know about the request it runs in.
#[derive(Debug)]
pub struct Context<'a> {
    /// The request's time.
    pub now: Timestamp,
    /// Namespace of the object, empty for cluster-scoped ones.
    pub namespace: &'a str,
    /// Name of the object.
    pub name: &'a str,
    /// The subresource a write goes through; empty for the main resource.
    pub subresource: &'a str,
    pub(crate) store: &'a Store,
}

impl Context<'_> {
    /// Whether a namespaced object exists beside this one.
    pub fn has_neighbour(&self, resource: &str, name: &str) -> bool {
        self.store.get(resource, self.namespace, name).is_some()
    }

    /// Whether any stored object of a resource (`plural` or `plural.group`) satisfies `predicate`.
    pub fn any(&self, resource: &str, predicate: impl Fn(&Object) -> bool) -> bool {
        let everywhere = ListQuery {
            namespace: None,
            revision: None,
            after: None,
        };
        self.store
            .list(resource, everywhere, Some(1), predicate)
            .is_ok_and(|page| !page.objects.is_empty())
    }
}

/// How a DELETE without pending finalizers proceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The object goes at once.
    Now,
    /// `deletionTimestamp` is set this many seconds ahead and somebody else finishes the job.
    Graceful {
        /// The grace period; 0 removes the object at once.
        seconds: i64,
    },
    /// `deletionTimestamp` is set and nothing else; what holds the object decides when it goes.
    Marked,
}

/// What names of a kind look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// A DNS subdomain (RFC 1123), the rule for most kinds.
    Subdomain,
    /// A DNS label (RFC 1123).
    Label,
    /// A DNS label that starts with a letter (RFC 1035).
    Dns1035Label,
    /// Anything that can be one segment of a path.
    PathSegment,
}

/// Hooks of one resource. Every method has the behaviour of a plain custom resource by default.
pub trait Strategy: fmt::Debug + Send + Sync {
    /// Completes an object before it is created.
    fn prepare_create(&self, _ctx: &Context<'_>, _object: &mut Value) {}

    /// Completes an object before it replaces `old`.
    fn prepare_update(&self, _ctx: &Context<'_>, _new: &mut Value, _old: &Value) {}

    /// Why an object may not be created here and now, if so: 403.
    fn admit(&self, _ctx: &Context<'_>, _object: &Value) -> Result<(), String> {
        Ok(())
    }

    /// Why the object of this name may never be deleted, if so: 403.
    fn keeps(&self, _name: &str) -> Option<&'static str> {
        None
    }

    /// Checks beyond the schema.
    fn validate(&self, _ctx: &Context<'_>, _new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        Vec::new()
    }

    /// Texts for `Warning` headers.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// What names look like.
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }

    /// Whether a create may carry a status, although status is a subresource.
    fn keeps_status_on_create(&self) -> bool {
        false
    }

    /// Whether a write to the main resource may change the status, although it is a subresource.
    fn writes_status_with_spec(&self) -> bool {
        false
    }

    /// How a deletion proceeds; `requested` is the client's grace period.
    fn deletion(&self, _object: &Value, _requested: Option<i64>) -> Deletion {
        Deletion::Now
    }

    /// Whether something other than `metadata.finalizers` keeps a deleted object.
    fn holds(&self, _object: &Value) -> bool {
        false
    }

    /// Changes an object when it is marked for deletion. Called again for every further deletion.
    fn mark_deleting(&self, _object: &mut Value, _now: Timestamp) {}

    /// Rewrites an object of this view into the stored resource's form.
    fn stored_form(&self, object: Value) -> Value {
        object
    }

    /// Rewrites a stored object into this view's form.
    fn view_form(&self, object: Value) -> Value {
        object
    }
}

/// A resource without hooks.
#[derive(Debug)]
pub struct Plain;

impl Strategy for Plain {}

/// The hooks of a built-in resource; [`Plain`] when it has none.
pub fn strategy_for(group: &str, plural: &str) -> Arc<dyn Strategy> {
    match (group, plural) {
        ("", "configmaps") => Arc::new(config::ConfigMap),
        ("", "secrets") => Arc::new(config::Secret),
        ("", "namespaces") => Arc::new(namespace::Namespace),
        ("", "nodes") => Arc::new(node::Node),
        ("", "pods") => Arc::new(pod::Pod),
        ("", "services") => Arc::new(service::Service),
        ("", "persistentvolumeclaims") => Arc::new(volume::Claim),
        ("", "persistentvolumes") => Arc::new(volume::Volume),
        ("", "podtemplates") => Arc::new(workload::PodTemplate),
        ("apps", "deployments") => Arc::new(workload::Deployment),
        ("apps", "replicasets") => Arc::new(workload::ReplicaSet),
        ("apps", "statefulsets") => Arc::new(workload::StatefulSet),
        ("apps", "daemonsets") => Arc::new(workload::DaemonSet),
        ("batch", "jobs") => Arc::new(workload::Job),
        ("batch", "cronjobs") => Arc::new(workload::CronJob),
        ("apiextensions.k8s.io", "customresourcedefinitions") => Arc::new(definition::Definition),
        ("", "events") => Arc::new(event::CoreEvent),
        ("events.k8s.io", "events") => Arc::new(event::Event),
        ("rbac.authorization.k8s.io", "roles") => Arc::new(access::Role { namespaced: true }),
        ("rbac.authorization.k8s.io", "clusterroles") => {
            Arc::new(access::Role { namespaced: false })
        }
        ("rbac.authorization.k8s.io", "rolebindings") => {
            Arc::new(access::Binding { namespaced: true })
        }
        ("rbac.authorization.k8s.io", "clusterrolebindings") => {
            Arc::new(access::Binding { namespaced: false })
        }
        ("networking.k8s.io", "networkpolicies") => Arc::new(networking::NetworkPolicy),
        ("networking.k8s.io", "ingresses") => Arc::new(networking::Ingress),
        ("discovery.k8s.io", "endpointslices") => Arc::new(networking::EndpointSlice),
        ("policy", "poddisruptionbudgets") => Arc::new(networking::DisruptionBudget),
        ("coordination.k8s.io", "leases") => Arc::new(networking::Lease),
        _ => Arc::new(Plain),
    }
}

/// Sets a member of an object unless it is there.
fn default(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut()
        && map.get(field).is_none_or(Value::is_null)
    {
        map.insert(field.to_owned(), value.into());
    }
}

/// A member that is an object, created when absent.
fn child<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    let map = object.as_object_mut()?;
    let child = map
        .entry(field)
        .or_insert_with(|| Value::Object(serde_json::Map::new()));
    if child.is_null() {
        *child = Value::Object(serde_json::Map::new());
    }
    Some(child)
}

/// The elements of a member that is an array.
fn items_mut<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> + 'a {
    object
        .get_mut(field)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// The elements of a member that is an array.
fn items<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + 'a {
    object
        .get(field)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// A member that is a string; empty when absent.
fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests;
