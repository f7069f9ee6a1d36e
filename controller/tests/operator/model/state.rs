//! What the model knows, and how calls change it: one lock holds it all, so that every call is one
//! step.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Call, Id, Path, Rule};

pub(super) struct State {
    revision: u64,
    uids: u64,
    pub(super) now: Timestamp,
    pub(super) objects: BTreeMap<Id, Value>,
    log: Vec<Entry>,
    pub(super) calls: Vec<Call>,
    pub(super) rules: Vec<Rule>,
    pub(super) delivery: Delivery,
    pub(super) held_kinds: BTreeSet<&'static str>,
    /// Watches begun so far.
    pub(super) watches: usize,
    /// Pods become Ready as soon as they are created.
    pub(super) kubelet: bool,
    /// Pods stay, deleting, until somebody finishes them.
    pub(super) graceful: bool,
    addresses: u32,
}

/// What becomes of watch events.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Delivery {
    Prompt,
    /// They wait.
    Held,
    /// Watches end as soon as they have begun.
    Cut,
    /// New watches do not even get a status line.
    Mute,
}

#[derive(Clone)]
struct Entry {
    revision: u64,
    id: Id,
    old: Option<Value>,
    new: Option<Value>,
}

#[derive(Debug)]
pub(super) struct Failure(pub(super) u16, pub(super) &'static str, pub(super) String);

type Answer = Result<Value, Failure>;

impl State {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            revision: 100,
            uids: 0,
            now,
            objects: BTreeMap::new(),
            log: Vec::new(),
            calls: Vec::new(),
            rules: Vec::new(),
            delivery: Delivery::Prompt,
            held_kinds: BTreeSet::new(),
            watches: 0,
            kubelet: true,
            graceful: false,
            addresses: 0,
        }
    }

    pub(super) fn answer(
        &mut self,
        path: &Path,
        call: &Call,
        query: &BTreeMap<String, String>,
        body: &[u8],
    ) -> Answer {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match call.verb {
            "list" => Ok(self.page(path, query.get("labelSelector").map(String::as_str))),
            "get" => self.known(&path.id()).cloned(),
            "create" => self.create(&path.resource, &path.namespace, body),
            "update" => self.update(&path.id(), body),
            "patch" => self.patch(&path.id(), &body, path.status),
            _ => self.delete(&path.id(), &body),
        }
    }

    fn known(&self, id: &Id) -> Result<&Value, Failure> {
        self.objects
            .get(id)
            .ok_or_else(|| Failure(404, "NotFound", format!("{} {:?} not found", id.0, id.2)))
    }

    fn page(&self, path: &Path, selector: Option<&str>) -> Value {
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|((resource, namespace, _), object)| {
                *resource == path.resource
                    && (path.namespace.is_empty() || *namespace == path.namespace)
                    && selects(selector, object)
            })
            .map(|(_, object)| object)
            .collect();
        json!({"metadata": {"resourceVersion": self.revision.to_string()}, "items": items})
    }

    pub(super) fn next_event(
        &self,
        path: &Path,
        selector: Option<&str>,
        at: &mut u64,
    ) -> Option<Value> {
        for entry in self.log.iter().filter(|entry| entry.revision > *at) {
            if entry.id.0 != path.resource
                || !(path.namespace.is_empty() || entry.id.1 == path.namespace)
            {
                continue;
            }
            let old = entry
                .old
                .as_ref()
                .filter(|object| selects(selector, object));
            let new = entry
                .new
                .as_ref()
                .filter(|object| selects(selector, object));
            let event = match (old, new) {
                (None, Some(new)) => json!({"type": "ADDED", "object": new}),
                (Some(_), Some(new)) => json!({"type": "MODIFIED", "object": new}),
                (Some(old), None) => {
                    let mut gone = old.clone();
                    gone["metadata"]["resourceVersion"] = json!(entry.revision.to_string());
                    json!({"type": "DELETED", "object": gone})
                }
                (None, None) => continue,
            };
            *at = entry.revision;
            return Some(event);
        }
        None
    }

    fn commit(&mut self, id: &Id, mut new: Option<Value>) -> Value {
        self.revision += 1;
        if let Some(policy) = new.as_mut().filter(|_| id.0 == "networkpolicies") {
            default_protocols(policy);
        }
        if let Some(object) = &mut new {
            object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        }
        let old = match &new {
            Some(object) => self.objects.insert(id.clone(), object.clone()),
            None => self.objects.remove(id),
        };
        self.log.push(Entry {
            revision: self.revision,
            id: id.clone(),
            old,
            new: new.clone(),
        });
        new.unwrap_or_default()
    }

    pub(super) fn create(&mut self, resource: &str, namespace: &str, mut object: Value) -> Answer {
        let name = object
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let id = (resource.to_owned(), namespace.to_owned(), name.clone());
        if self.objects.contains_key(&id) {
            let message = format!("{resource} {name:?} already exists");
            return Err(Failure(409, "AlreadyExists", message));
        }
        self.uids += 1;
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        metadata.insert("namespace".to_owned(), json!(namespace));
        metadata.insert(
            "uid".to_owned(),
            json!(format!("00000000-0000-4000-8000-{:012x}", self.uids)),
        );
        metadata.insert("generation".to_owned(), json!(1));
        let created = self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        metadata.insert("creationTimestamp".to_owned(), json!(created));
        let created = self.commit(&id, Some(object));
        if resource == "pods" {
            if self.kubelet {
                self.start_pod(&id);
            } else {
                self.objects.get_mut(&id).expect("just made")["status"] =
                    json!({"phase": "Pending"});
            }
        }
        Ok(created)
    }

    /// What a scheduler and a kubelet would report.
    fn start_pod(&mut self, id: &Id) {
        self.addresses += 1;
        let ip = format!("10.0.{}.{}", self.addresses / 250, self.addresses % 250 + 1);
        let since = self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let patch = json!({
            "spec": {"nodeName": format!("node-{}", self.addresses % 3)},
            "status": {
                "phase": "Running",
                "podIP": ip,
                "podIPs": [{"ip": ip}],
                "conditions": [
                    {"type": "PodScheduled", "status": "True", "lastTransitionTime": since},
                    {"type": "Ready", "status": "True", "lastTransitionTime": since},
                ],
            },
        });
        let mut pod = self.objects[id].clone();
        merge(&mut pod, &patch);
        self.commit(id, Some(pod));
    }

    fn update(&mut self, id: &Id, object: Value) -> Answer {
        let known = self.known(id)?;
        let wanted = object.pointer("/metadata/resourceVersion");
        if wanted.is_some() && wanted != known.pointer("/metadata/resourceVersion") {
            return Err(Failure(
                409,
                "Conflict",
                "the object has been modified".to_owned(),
            ));
        }
        let mut new = known.clone();
        new["spec"] = object["spec"].clone();
        Ok(self.commit(id, Some(new)))
    }

    pub(super) fn patch(&mut self, id: &Id, patch: &Value, status: bool) -> Answer {
        let known = self.known(id)?.clone();
        for member in ["uid", "resourceVersion"] {
            let wanted = patch.pointer(&format!("/metadata/{member}"));
            if wanted.is_some() && wanted != known.pointer(&format!("/metadata/{member}")) {
                let message = format!("precondition failed: {member}");
                return Err(Failure(409, "Conflict", message));
            }
        }
        let mut new = known.clone();
        if status {
            let part = json!({"status": patch["status"]});
            merge(&mut new, &part);
            if id.0 != "pods" {
                check_conditions(&new)?;
            }
        } else {
            let mut part = patch.clone();
            if let Some(members) = part.as_object_mut() {
                members.remove("status");
            }
            merge(&mut new, &part);
            if new["spec"] != known["spec"] && id.0 != "pods" {
                let generation = known["metadata"]["generation"].as_i64().unwrap_or(0);
                new["metadata"]["generation"] = json!(generation + 1);
            }
        }
        if new == known {
            return Ok(known);
        }
        Ok(self.commit(id, Some(new)))
    }

    pub(super) fn delete(&mut self, id: &Id, options: &Value) -> Answer {
        let known = self.known(id)?.clone();
        for member in ["uid", "resourceVersion"] {
            let wanted = options.pointer(&format!("/preconditions/{member}"));
            if wanted.is_some() && wanted != known.pointer(&format!("/metadata/{member}")) {
                let message = format!("precondition failed: {member}");
                return Err(Failure(409, "Conflict", message));
            }
        }
        let lingers = id.0 == "pods" && self.graceful;
        let held = known
            .pointer("/metadata/finalizers")
            .and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty());
        if lingers || held {
            if known.pointer("/metadata/deletionTimestamp").is_some() {
                return Ok(known);
            }
            let mut new = known;
            let at = self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            new["metadata"]["deletionTimestamp"] = json!(at);
            return Ok(self.commit(id, Some(new)));
        }
        self.remove(id);
        Ok(json!({"kind": "Status", "status": "Success"}))
    }

    pub(super) fn remove(&mut self, id: &Id) {
        let Some(gone) = self.objects.get(id).cloned() else {
            return;
        };
        self.commit(id, None);
        let uid = gone["metadata"]["uid"].clone();
        let orphans: Vec<Id> = self
            .objects
            .iter()
            .filter(|(_, object)| {
                let owners = object.pointer("/metadata/ownerReferences");
                owners
                    .and_then(Value::as_array)
                    .is_some_and(|list| list.iter().any(|owner| owner["uid"] == uid))
            })
            .map(|(id, _)| id.clone())
            .collect();
        for orphan in orphans {
            drop(self.delete(&orphan, &json!({})));
        }
    }
}

/// What the server fills in where a NetworkPolicy names a port alone.
fn default_protocols(policy: &mut Value) {
    for direction in ["ingress", "egress"] {
        let rules = policy.pointer_mut(&format!("/spec/{direction}"));
        let ports = rules
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
            .filter_map(|rule| rule.get_mut("ports")?.as_array_mut());
        for port in ports.flatten() {
            let port = port.as_object_mut().expect("a port");
            port.entry("protocol").or_insert(json!("TCP"));
        }
    }
}

fn selects(selector: Option<&str>, object: &Value) -> bool {
    selector.is_none_or(|key| object["metadata"]["labels"].get(key).is_some())
}

/// Refuses a status whose conditions break the definitions' rules, as the API server does.
fn check_conditions(object: &Value) -> Result<(), Failure> {
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    for condition in conditions.into_iter().flatten() {
        let text = |member: &str| condition[member].as_str().unwrap_or_default();
        let is_word = |c: char| c.is_ascii_alphanumeric() || "_,:".contains(c);
        let reason = text("reason");
        if !reason.starts_with(|c: char| c.is_ascii_alphabetic()) || !reason.chars().all(is_word) {
            let message = format!("status.conditions.reason: Invalid value: {reason:?}");
            return Err(Failure(422, "Invalid", message));
        }
        if text("message").chars().count() > 32_768 {
            let message = "status.conditions.message: Too long: may not be more than 32768 bytes";
            return Err(Failure(422, "Invalid", message.to_owned()));
        }
    }
    Ok(())
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let members = target.as_object_mut().expect("an object");
    for (name, change) in changes {
        if change.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}
