//! Garbage collection by owner references.
//!
//! Published behaviour: an object whose owners are all gone is deleted; an owner deleted in the
//! foreground waits for the dependents that block it; one deleted with orphaning is forgotten by
//! its dependents first. Owners are followed by UID: an object of the same name is not the owner.

mod graph;

use std::sync::Arc;

use agent_sandbox_service::shutdown::Shutdown;
use parking_lot::Mutex;
use serde_json::Value;

use self::graph::{Graph, Node, Standing, Work};
use super::queue::Queue;
use crate::meta;
use crate::ops::{DeleteOptions, Engine, FOREGROUND, ORPHAN, Preconditions, Propagation, Target};
use crate::registry::Descriptor;
use crate::status::ApiError;
use crate::store::{Event, Observer, Uid};

/// Collects garbage.
#[derive(Debug)]
pub(super) struct Collector {
    engine: Engine,
    shared: Arc<Shared>,
}

/// What the observer and the worker share.
#[derive(Debug)]
struct Shared {
    graph: Mutex<Graph>,
    queue: Queue<Work>,
}

impl Observer for Shared {
    fn observe(&self, resource: &Arc<str>, event: &Event) {
        for work in self.graph.lock().observe(resource, event) {
            self.queue.push(work);
        }
    }
}

impl Collector {
    pub(super) fn new(engine: &Engine) -> Self {
        let shared = Arc::new(Shared {
            graph: Mutex::default(),
            queue: Queue::new(),
        });
        engine.store.observe(shared.clone());
        Self {
            engine: engine.clone(),
            shared,
        }
    }

    pub(super) async fn run(self, shutdown: Shutdown) {
        let mut registry = self.engine.registry.changes();
        loop {
            tokio::select! {
                () = shutdown.triggered() => return,
                work = self.shared.queue.next() => {
                    self.perform(work);
                    // Long cascades must not keep requests waiting.
                    tokio::task::yield_now().await;
                }
                published = registry.changed() => {
                    if published.is_err() {
                        return;
                    }
                    // Owners of kinds that were unknown can be judged now.
                    for work in self.shared.graph.lock().take_undecided() {
                        self.shared.queue.push(work);
                    }
                }
            }
        }
    }

    fn perform(&self, work: Work) {
        let (uid, outcome) = match work {
            Work::Check(uid) => (uid, self.check(uid)),
            Work::Foreground(uid) => (uid, self.foreground(uid)),
            Work::Orphan(uid) => (uid, self.orphan(uid)),
        };
        match outcome {
            Ok(()) => {}
            Err(error) if error.reason() == "NotFound" => {}
            // Somebody changed the object meanwhile: look again at what it is now.
            Err(error) if error.reason() == "Conflict" => self.shared.queue.push(work),
            Err(error) => tracing::warn!(%uid, %error, "garbage collection failed"),
        }
    }

    /// Deletes an object whose owners are gone, or drops its references to those that are.
    fn check(&self, uid: Uid) -> Result<(), ApiError> {
        let snapshot = self.engine.registry.snapshot();
        let (node, standing, has_dependents) = {
            let mut graph = self.shared.graph.lock();
            let Some(node) = graph.node(uid).cloned() else {
                return Ok(());
            };
            let standing = graph.standing(uid, &node, &snapshot);
            (node, standing, graph.has_dependents(uid))
        };
        if node.deleting && !node.foreground || node.owners.is_empty() {
            return Ok(());
        }
        let Some(descriptor) = snapshot.qualified(&node.resource) else {
            return Ok(());
        };
        let Standing {
            solid,
            waiting,
            absent,
        } = standing;
        if solid {
            let lost: Vec<usize> = waiting.into_iter().chain(absent).collect();
            return self.drop_references(descriptor, uid, &node, &lost);
        }
        let propagation = if !waiting.is_empty() && has_dependents {
            Propagation::Foreground
        } else if node.orphan {
            Propagation::Orphan
        } else if node.foreground {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        self.delete(descriptor, uid, &node, propagation)
    }

    /// Makes a foreground deletion go on: dependents go, then the finalizer.
    fn foreground(&self, uid: Uid) -> Result<(), ApiError> {
        let (node, dependents, blocked) = {
            let graph = self.shared.graph.lock();
            let Some(node) = graph.node(uid).cloned() else {
                return Ok(());
            };
            (node, graph.dependents(uid), graph.is_blocked(uid))
        };
        if !(node.deleting && node.foreground) {
            return Ok(());
        }
        if !blocked {
            return self.release(uid, &node, FOREGROUND);
        }
        for dependent in dependents {
            self.shared.queue.push(Work::Check(dependent));
        }
        Ok(())
    }

    /// Lets the dependents of an object forget it, then lets it go.
    fn orphan(&self, uid: Uid) -> Result<(), ApiError> {
        let (node, dependents) = {
            let graph = self.shared.graph.lock();
            let Some(node) = graph.node(uid).cloned() else {
                return Ok(());
            };
            let dependents: Vec<(Uid, Node)> = graph
                .dependents(uid)
                .into_iter()
                .filter_map(|dependent| Some((dependent, graph.node(dependent)?.clone())))
                .collect();
            (node, dependents)
        };
        if !(node.deleting && node.orphan) {
            return Ok(());
        }
        let snapshot = self.engine.registry.snapshot();
        for (dependent, dependent_node) in dependents {
            let Some(descriptor) = snapshot.qualified(&dependent_node.resource) else {
                continue;
            };
            let owner = uid.to_string();
            self.amend(descriptor, dependent, &dependent_node, |object| {
                remove_references(object, |reference| reference == owner);
            })?;
        }
        self.release(uid, &node, ORPHAN)
    }

    fn release(&self, uid: Uid, node: &Node, finalizer: &str) -> Result<(), ApiError> {
        let snapshot = self.engine.registry.snapshot();
        let Some(descriptor) = snapshot.qualified(&node.resource) else {
            return Ok(());
        };
        self.amend(descriptor, uid, node, |object| {
            meta::remove_finalizer(object, finalizer);
        })
    }

    fn drop_references(
        &self,
        descriptor: &Arc<Descriptor>,
        uid: Uid,
        node: &Node,
        lost: &[usize],
    ) -> Result<(), ApiError> {
        if lost.is_empty() {
            return Ok(());
        }
        let lost: Vec<String> = lost
            .iter()
            .filter_map(|at| node.owners.get(*at)?.uid)
            .map(|owner| owner.to_string())
            .collect();
        self.amend(descriptor, uid, node, |object| {
            remove_references(object, |reference| {
                lost.iter().any(|owner| owner == reference)
            });
        })
    }

    fn delete(
        &self,
        descriptor: &Arc<Descriptor>,
        uid: Uid,
        node: &Node,
        propagation: Propagation,
    ) -> Result<(), ApiError> {
        let target = Target::stored(descriptor, &node.key.namespace, &node.key.name)?;
        let options = DeleteOptions {
            propagation: Some(propagation),
            preconditions: Preconditions {
                uid: Some(uid.to_string()),
                // A reference to a new owner may have been added since.
                resource_version: Some(node.revision.to_string()),
            },
            ..DeleteOptions::default()
        };
        self.engine.delete(&target, &options).map(drop)
    }

    fn amend(
        &self,
        descriptor: &Arc<Descriptor>,
        uid: Uid,
        node: &Node,
        change: impl Fn(&mut Value),
    ) -> Result<(), ApiError> {
        let (namespace, name) = (&node.key.namespace, &node.key.name);
        self.engine
            .amend(descriptor, namespace, name, Some(uid), change)
    }
}

fn remove_references(object: &mut Value, lost: impl Fn(&str) -> bool) {
    let path = ["metadata", "ownerReferences"].map(ToOwned::to_owned);
    let Some(references) = meta::at(object, &path).and_then(Value::as_array) else {
        return;
    };
    let kept: Vec<Value> = references
        .iter()
        .filter(|reference| !lost(reference.get("uid").and_then(Value::as_str).unwrap_or("")))
        .cloned()
        .collect();
    let kept = if kept.is_empty() {
        None
    } else {
        Some(kept.into())
    };
    meta::put(object, &path, kept);
}
