//! What else lives in a cluster: a scheduler, kubelets and a garbage collector. They learn of every
//! change and react to it in their own time.

use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::kube_model::{Entry, FOREGROUND, Id, is_deleting};
use crate::trace::Actor;
use crate::world::{World, id, spawn};

/// How often whoever waits for something looks again.
const AGAIN: Duration = Duration::from_millis(400);

/// Images whose programs end by themselves.
pub(crate) const SUCCEEDS: &str = "succeeds";
pub(crate) const FAILS: &str = "fails";

/// Sets going what a change causes.
pub(crate) fn react(world: &World, rng: &mut Rng, entry: &Entry) {
    let mut later = |most: u64, act: Act| {
        let delay = Duration::from_millis(rng.u64(1..=most));
        let world = world.clone();
        spawn(async move {
            let mut delay = delay;
            loop {
                tokio::time::sleep(delay).await;
                if act.run(&world) {
                    return;
                }
                delay = AGAIN;
            }
        });
    };
    let id = entry.id.clone();
    match (&entry.old, &entry.new) {
        (None, Some(new)) => {
            let uid = new["metadata"]["uid"].clone();
            if id.resource == "pods" {
                later(800, Act::Schedule(id.clone(), uid.clone()));
            }
            if owners(new).is_some_and(|owners| !owners.is_empty()) {
                later(2_000, Act::CheckOwner(id, uid));
            }
        }
        (Some(old), Some(new)) if is_deleting(new) && !is_deleting(old) => {
            let uid = new["metadata"]["uid"].clone();
            if id.resource == "pods" {
                later(3_000, Act::Finish(id.clone(), uid.clone()));
            }
            if is_foreground(new) {
                later(500, Act::Foreground(id, uid));
            }
        }
        (Some(old), Some(new)) if owners(old) != owners(new) => {
            later(2_000, Act::CheckOwner(id, new["metadata"]["uid"].clone()));
        }
        (Some(old), None) => {
            later(1_000, Act::Collect(old["metadata"]["uid"].clone()));
        }
        _ => {}
    }
}

/// Something the cluster does.
enum Act {
    /// Bind a pod to a node.
    Schedule(Id, Value),
    /// Start a pod's containers.
    Start(Id, Value),
    /// Let a pod's program end.
    End(Id, Value, &'static str),
    /// Remove a pod that has terminated.
    Finish(Id, Value),
    /// Delete what this object owned.
    Collect(Value),
    /// Delete an object whose owner does not exist.
    CheckOwner(Id, Value),
    /// Delete an object after what it owns.
    Foreground(Id, Value),
}

impl Act {
    /// Does it, or nothing if it has lost its object; `false` to try again later.
    fn run(&self, world: &World) -> bool {
        match self {
            Self::Schedule(pod, uid) => schedule(world, pod, uid),
            Self::Start(pod, uid) => {
                if lives(world, pod, uid) {
                    world.step(Actor::Node, format!("starts pod {}", pod.name), |state| {
                        state.start_pod(pod, None);
                    });
                }
                true
            }
            Self::End(pod, uid, phase) => {
                if lives(world, pod, uid) {
                    end_pod(world, pod, phase);
                }
                true
            }
            Self::Finish(pod, uid) => {
                if exists(world, pod, uid) {
                    world.step(Actor::Node, format!("pod {} is gone", pod.name), |state| {
                        state.remove(pod);
                    });
                }
                true
            }
            Self::Collect(owner) => {
                let orphans = world.lock().state.owned_by(owner);
                for orphan in orphans {
                    collect(world, &orphan);
                }
                true
            }
            Self::CheckOwner(object, uid) => {
                if exists(world, object, uid) && is_orphan(world, object) {
                    collect(world, object);
                }
                true
            }
            Self::Foreground(object, uid) => foreground(world, object, uid),
        }
    }
}

/// Ends a pod's program.
pub(crate) fn end_pod(world: &World, pod: &Id, phase: &str) {
    world.step(Actor::Node, format!("pod {} {phase}", pod.name), |state| {
        let since = state.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let status = json!({"status": {"phase": phase, "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": since},
            {"type": "Ready", "status": "False", "lastTransitionTime": since},
        ]}});
        drop(state.patch(pod, &status, true));
    });
}

fn exists(world: &World, object: &Id, uid: &Value) -> bool {
    let inner = world.lock();
    inner
        .state
        .get(object)
        .is_some_and(|found| found["metadata"]["uid"] == *uid)
}

fn lives(world: &World, pod: &Id, uid: &Value) -> bool {
    let inner = world.lock();
    inner.state.get(pod).is_some_and(|found| {
        found["metadata"]["uid"] == *uid
            && !is_deleting(found)
            && matches!(
                found["status"]["phase"].as_str(),
                Some("Pending" | "Running")
            )
    })
}

fn schedule(world: &World, pod: &Id, uid: &Value) -> bool {
    if !lives(world, pod, uid) {
        return true;
    }
    let node = {
        let inner = world.lock();
        let load = |node: &str| {
            let pods = inner.state.list("pods");
            pods.filter(|pod| pod["spec"]["nodeName"] == node).count()
        };
        inner
            .state
            .list("nodes")
            .filter(|node| is_schedulable(node))
            .filter_map(|node| node["metadata"]["name"].as_str())
            .min_by_key(|node| load(node))
            .map(str::to_owned)
    };
    let since = world.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let Some(node) = node else {
        world.step(
            Actor::Node,
            format!("no node for pod {}", pod.name),
            |state| {
                let status = json!({"status": {"conditions": [{
                    "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                    "message": "no node has room", "lastTransitionTime": since,
                }]}});
                drop(state.patch(pod, &status, true));
            },
        );
        return false;
    };
    let image = world.step(
        Actor::Node,
        format!("pod {} goes to {node}", pod.name),
        |state| {
            drop(state.patch(pod, &json!({"spec": {"nodeName": node}}), false));
            let status = json!({"status": {"conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": since},
            ]}});
            let pod = state.patch(pod, &status, true).ok();
            pod.and_then(|pod| {
                let image = pod.pointer("/spec/containers/0/image")?.as_str()?;
                Some(image.to_owned())
            })
        },
    );
    let (start, end) = {
        let mut inner = world.lock();
        (inner.rng.u64(1..=2_000), inner.rng.u64(1_000..=6_000))
    };
    let run = |delay: u64, act: Act| {
        let world = world.clone();
        spawn(async move {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            act.run(&world);
        });
    };
    run(start, Act::Start(pod.clone(), uid.clone()));
    let ended = match image.as_deref() {
        Some(SUCCEEDS) => Some("Succeeded"),
        Some(FAILS) => Some("Failed"),
        _ => None,
    };
    if let Some(phase) = ended {
        run(start + end, Act::End(pod.clone(), uid.clone(), phase));
    }
    true
}

fn is_schedulable(node: &Value) -> bool {
    node["spec"]["unschedulable"] != true
        && node.pointer("/status/conditions/0/status") == Some(&json!("True"))
}

/// A node fails or recovers, and with it the pods it runs.
pub(crate) fn set_node_health(world: &World, name: &str, healthy: bool) {
    let truth = if healthy { "True" } else { "False" };
    world.step(Actor::Node, format!("{name} Ready={truth}"), |state| {
        let since = state.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let ready = json!({"type": "Ready", "status": truth, "lastTransitionTime": since});
        let status = json!({"status": {"conditions": [ready]}});
        drop(state.patch(&id("nodes", name), &status, true));
        let pods: Vec<String> = state
            .list("pods")
            .filter(|pod| pod["spec"]["nodeName"] == name && pod["status"]["phase"] == "Running")
            .filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned()))
            .collect();
        for pod in pods {
            let scheduled =
                json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": since});
            let status = json!({"status": {"conditions": [scheduled, ready]}});
            drop(state.patch(&id("pods", &pod), &status, true));
        }
    });
}

fn collect(world: &World, orphan: &Id) {
    let what = format!("deletes {} {}", orphan.resource, orphan.name);
    world.step(Actor::Collector, what, |state| {
        drop(state.delete(orphan, &json!({})));
    });
}

fn owners(object: &Value) -> Option<&Vec<Value>> {
    object["metadata"]["ownerReferences"].as_array()
}

fn is_orphan(world: &World, object: &Id) -> bool {
    let inner = world.lock();
    let owners = inner.state.get(object).and_then(|object| owners(object));
    let Some(owners) = owners.filter(|owners| !owners.is_empty()) else {
        return false;
    };
    let exists = |uid: &Value| {
        let mut all = inner.state.all();
        all.any(|(_, object)| object["metadata"]["uid"] == *uid)
    };
    !owners.iter().any(|owner| exists(&owner["uid"]))
}

fn is_foreground(object: &Value) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|list| list.iter().any(|it| it == FOREGROUND))
}

fn foreground(world: &World, object: &Id, uid: &Value) -> bool {
    if !exists(world, object, uid) {
        return true;
    }
    let dependents = world.lock().state.owned_by(uid);
    for dependent in &dependents {
        let deleting = world
            .lock()
            .state
            .get(dependent)
            .is_some_and(|it| is_deleting(it));
        if !deleting {
            collect(world, dependent);
        }
    }
    if !dependents.is_empty() {
        return false;
    }
    let what = format!("lets {} {} go", object.resource, object.name);
    world.step(Actor::Collector, what, |state| {
        drop(state.patch(object, &json!({"metadata": {"finalizers": null}}), false));
    });
    true
}
