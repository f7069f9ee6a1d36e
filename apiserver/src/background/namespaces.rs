//! Namespaces: what a new one gets, and how one goes.
//!
//! A namespace marked for deletion refuses new content (the store checks that at commit), loses
//! what it has, and is finalized when nothing is left.

use std::collections::HashSet;
use std::sync::Arc;

use agent_sandbox_service::shutdown::Shutdown;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::queue::Queue;
use crate::meta;
use crate::ops::{DeleteOptions, Engine, Target, WriteOptions};
use crate::registry::{Descriptor, Snapshot};
use crate::status::ApiError;
use crate::store::{Event, EventKind, ListQuery, Observer};

const NAMESPACES: &str = "namespaces";
/// Objects that every namespace has, by resource and name.
const PROVISIONS: [(&str, &str); 2] = [
    ("serviceaccounts", "default"),
    ("configmaps", "kube-root-ca.crt"),
];
/// The field manager of what is created here.
const MANAGER: &str = "agent-sandbox-apiserver";

/// Takes care of namespaces.
#[derive(Debug)]
pub(super) struct Namespaces {
    engine: Engine,
    root_ca: Option<String>,
    shared: Arc<Shared>,
}

/// What the observer and the worker share.
#[derive(Debug)]
struct Shared {
    queue: Queue<Arc<str>>,
    terminating: Mutex<HashSet<Arc<str>>>,
}

impl Observer for Shared {
    fn observe(&self, resource: &Arc<str>, event: &Event) {
        let object = &event.object;
        if **resource == *NAMESPACES {
            let name = &object.key().name;
            let gone = event.kind == EventKind::Deleted;
            if gone || !object.is_deleting() {
                self.terminating.lock().remove(name);
            } else {
                self.terminating.lock().insert(name.clone());
            }
            if !gone && (event.kind == EventKind::Added || object.is_deleting()) {
                self.queue.push(name.clone());
            }
            return;
        }
        if event.kind != EventKind::Deleted {
            return;
        }
        let namespace = &object.key().namespace;
        let provision = PROVISIONS.contains(&(&**resource, object.name()));
        if provision || self.terminating.lock().contains(namespace) {
            self.queue.push(namespace.clone());
        }
    }
}

impl Namespaces {
    pub(super) fn new(engine: &Engine, root_ca: Option<String>) -> Self {
        let shared = Arc::new(Shared {
            queue: Queue::new(),
            terminating: Mutex::default(),
        });
        engine.store.observe(shared.clone());
        Self {
            engine: engine.clone(),
            root_ca,
            shared,
        }
    }

    pub(super) async fn run(self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.triggered() => return,
                name = self.shared.queue.next() => {
                    if let Err(error) = self.reconcile(&name) {
                        tracing::warn!(namespace = %name, %error, "namespace not reconciled");
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn reconcile(&self, name: &Arc<str>) -> Result<(), ApiError> {
        let Some(namespace) = self.engine.store.get(NAMESPACES, "", name) else {
            return Ok(());
        };
        let snapshot = self.engine.registry.snapshot();
        if !namespace.is_deleting() {
            return self.provision(&snapshot, name);
        }
        let Some(resource) = snapshot.resource("", NAMESPACES) else {
            return Ok(());
        };
        let left = self.empty(&snapshot, name);
        let now = meta::time(self.engine.clock.now());
        self.engine.amend(resource, "", name, None, |namespace| {
            if left.is_empty() {
                let path = ["spec", "finalizers"].map(ToOwned::to_owned);
                meta::put(namespace, &path, None);
            }
            describe(namespace, &left, &now);
        })
    }

    /// Creates what every namespace has.
    fn provision(&self, snapshot: &Snapshot, namespace: &str) -> Result<(), ApiError> {
        for (plural, name) in PROVISIONS {
            let Some(descriptor) = snapshot.resource("", plural) else {
                continue;
            };
            let mut object = json!({ "metadata": { "name": name } });
            if plural == "configmaps" {
                let Some(root_ca) = &self.root_ca else {
                    continue;
                };
                let data = json!({ "ca.crt": root_ca });
                meta::put(&mut object, &["data".to_owned()], Some(data));
            }
            if self.engine.store.get(plural, namespace, name).is_some() {
                // A journal may hold the certificate of an earlier start.
                self.engine
                    .amend(descriptor, namespace, name, None, |stored| {
                        if let Some(data) = object.get("data") {
                            meta::put(stored, &["data".to_owned()], Some(data.clone()));
                        }
                    })?;
                continue;
            }
            let target = Target::stored(descriptor, namespace, "")?;
            let options = WriteOptions::internal(MANAGER);
            match self.engine.create(&target, object, &options) {
                Err(error)
                    if !matches!(error.reason(), "AlreadyExists" | "NotFound" | "Forbidden") =>
                {
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes the content of a namespace and returns how much of what is left.
    fn empty(&self, snapshot: &Snapshot, namespace: &str) -> Vec<(String, usize)> {
        let mut left = Vec::new();
        for descriptor in snapshot.descriptors().iter().filter(|d| d.is_namespaced()) {
            let resource = descriptor.qualified();
            self.delete_all(descriptor, &resource, namespace);
            let count = self.engine.store.count(&resource, Some(namespace));
            if count > 0 {
                left.push((resource, count));
            }
        }
        left
    }

    fn delete_all(&self, descriptor: &Arc<Descriptor>, resource: &str, namespace: &str) {
        let query = ListQuery {
            namespace: Some(namespace),
            revision: None,
            after: None,
        };
        let page = self
            .engine
            .store
            .list(resource, query, None, |object| !object.is_deleting());
        for object in page.map(|page| page.objects).unwrap_or_default() {
            let outcome = Target::stored(descriptor, namespace, object.name())
                .and_then(|target| self.engine.delete(&target, &DeleteOptions::default()));
            if let Err(error) = outcome {
                tracing::debug!(resource, namespace, name = object.name(), %error, "not deleted");
            }
        }
    }
}

/// Says in the namespace's conditions what it still waits for.
fn describe(namespace: &mut Value, left: &[(String, usize)], now: &str) {
    let path = ["status", "conditions"].map(ToOwned::to_owned);
    let remaining: Vec<String> = left
        .iter()
        .map(|(resource, count)| format!("{resource} has {count} resource instances"))
        .collect();
    let (status, reason, message) = if remaining.is_empty() {
        (
            "False",
            "ContentRemoved",
            "All content successfully removed".to_owned(),
        )
    } else {
        let list = remaining.join(", ");
        (
            "True",
            "SomeResourcesRemain",
            format!("Some resources are remaining: {list}"),
        )
    };
    let before = meta::at(namespace, &path)
        .and_then(Value::as_array)
        .and_then(|conditions| conditions.first())
        .filter(|condition| condition.get("status").and_then(Value::as_str) == Some(status))
        .and_then(|condition| condition.get("lastTransitionTime"))
        .cloned();
    let condition = json!({
        "type": "NamespaceContentRemaining",
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": before.unwrap_or_else(|| now.into()),
    });
    meta::put(namespace, &path, Some(json!([condition])));
}
