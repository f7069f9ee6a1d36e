//! Pods: what they ask for, what they are, and the worker that makes one out of the other.
//!
//! Most of this directory is pure: `phase` and `plan` decide, `status` reports, `launch`, `env`,
//! `fields` and `security` translate. Only `worker` acts, and only `probe::ask` talks to containers.

pub(crate) mod env;
pub(crate) mod fields;
pub(crate) mod launch;
pub(crate) mod phase;
pub(crate) mod plan;
pub(crate) mod probe;
pub(crate) mod references;
pub(crate) mod restart;
pub(crate) mod security;
pub(crate) mod status;
pub(crate) mod worker;

use std::fmt;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};

/// Names one pod for good: a later pod of the same name has another uid.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PodId {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl PodId {
    /// The id of a pod; `None` when the object did not come from an API server.
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        Some(Self {
            namespace: meta.namespace.clone()?,
            name: meta.name.clone()?,
            uid: meta.uid.clone()?,
        })
    }

    /// The pod as the object of an event.
    pub(crate) fn reference(&self, pod: &Pod) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: None,
        }
    }
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
