//! What the model knows, and how calls change it. Every call is one step.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Request;

/// Plural, namespace, name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Id {
    pub(crate) resource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Id {
    pub(crate) fn new(resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// What a call answers when it has no effect.
#[derive(Clone, Debug)]
pub(crate) struct Failure(pub(crate) u16, pub(crate) &'static str, pub(crate) String);

pub(crate) type Answer = Result<Arc<Value>, Failure>;

/// A change of one object.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) revision: u64,
    pub(crate) id: Id,
    pub(crate) old: Option<Arc<Value>>,
    pub(crate) new: Option<Arc<Value>>,
}

impl Entry {
    /// The object before and after, as far as a watch may see it.
    fn seen_by(&self, watch: &Request) -> (Option<&Value>, Option<&Value>) {
        if !(watch.namespace.is_empty() || self.id.namespace == watch.namespace) {
            return (None, None);
        }
        let selected = |object: &'_ &Value| selects(watch.selector(), object);
        (
            self.old.as_deref().filter(selected),
            self.new.as_deref().filter(selected),
        )
    }
}

pub(crate) struct State {
    revision: u64,
    uids: u64,
    pub(crate) now: Timestamp,
    objects: BTreeMap<String, BTreeMap<(String, String), Arc<Value>>>,
    /// Every change, by kind and in order.
    log: BTreeMap<String, Vec<Entry>>,
    /// Pods become Ready as soon as they are created.
    pub(crate) kubelet: bool,
    /// Pods stay, deleting, until somebody finishes them.
    pub(crate) graceful: bool,
    /// What a removed object owned goes in the same step; otherwise somebody else sees to it.
    pub(crate) collects: bool,
    addresses: u32,
}

impl State {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            revision: 100,
            uids: 0,
            now,
            objects: BTreeMap::new(),
            log: BTreeMap::new(),
            kubelet: true,
            graceful: false,
            collects: true,
            addresses: 0,
        }
    }

    /// Serves any call but a watch.
    pub(crate) fn answer(&mut self, request: &Request) -> Answer {
        match request.verb {
            "list" => self.page(request).map(Arc::new),
            "get" => self.known(&request.id()).cloned(),
            "create" => self.create(&request.resource, &request.namespace, request.body.clone()),
            "update" => self.update(&request.id(), &request.body),
            "patch" => self.patch(&request.id(), &request.body, request.status),
            _ => self.delete(&request.id(), &request.body),
        }
    }

    pub(crate) fn get(&self, id: &Id) -> Option<&Arc<Value>> {
        let kind = self.objects.get(&id.resource)?;
        kind.get(&(id.namespace.clone(), id.name.clone()))
    }

    pub(crate) fn list(&self, resource: &str) -> impl Iterator<Item = &Arc<Value>> + use<'_> {
        self.objects
            .get(resource)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// Everything there is, with its plural.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Arc<Value>)> {
        self.objects
            .iter()
            .flat_map(|(resource, objects)| objects.values().map(|it| (resource.as_str(), it)))
    }

    fn known(&self, id: &Id) -> Result<&Arc<Value>, Failure> {
        self.get(id).ok_or_else(|| {
            let message = format!("{} {:?} not found", id.resource, id.name);
            Failure(404, "NotFound", message)
        })
    }

    /// One page of a list. All pages of a list show the objects as they were at its first one.
    fn page(&self, request: &Request) -> Result<Value, Failure> {
        let (revision, after) = match request.query.get("continue") {
            None => (self.revision, None),
            Some(token) => {
                let (revision, after) = read_token(token).ok_or_else(|| {
                    Failure(410, "Expired", "the continue token is too old".to_owned())
                })?;
                (revision, Some(after))
            }
        };
        let limit = request.number("limit").unwrap_or(u64::MAX);
        let mut items = Vec::new();
        let mut next = None;
        for (key, object) in self.at(&request.resource, revision) {
            let skipped = after.as_ref().is_some_and(|after| key <= *after)
                || !(request.namespace.is_empty() || key.0 == request.namespace)
                || !selects(request.selector(), &object);
            if skipped {
                continue;
            }
            if items.len() as u64 == limit {
                next = items.last().map(|(key, _)| token(revision, key));
                break;
            }
            items.push((key, object));
        }
        let items: Vec<&Value> = items.iter().map(|(_, object)| &**object).collect();
        Ok(json!({
            "metadata": {
                "resourceVersion": revision.to_string(),
                "continue": next.unwrap_or_default(),
            },
            "items": items,
        }))
    }

    /// The objects of a kind as they were at a revision.
    fn at(&self, resource: &str, revision: u64) -> BTreeMap<(String, String), Arc<Value>> {
        let mut objects = self.objects.get(resource).cloned().unwrap_or_default();
        for entry in self.log_after(resource, revision).iter().rev() {
            let key = (entry.id.namespace.clone(), entry.id.name.clone());
            match &entry.old {
                Some(old) => objects.insert(key, old.clone()),
                None => objects.remove(&key),
            };
        }
        objects
    }

    /// The revision of the last change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// The changes of a kind after a revision.
    pub(crate) fn log_after(&self, resource: &str, revision: u64) -> &[Entry] {
        let log = self
            .log
            .get(resource)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let start = log.partition_point(|entry| entry.revision <= revision);
        &log[start..]
    }

    /// What a watch says next, as a line of its answer. `at` moves to the revision up to which everything has
    /// been said.
    pub(crate) fn next_event(&self, watch: &Request, at: &mut u64) -> Option<String> {
        for entry in self.log_after(&watch.resource, *at) {
            *at = entry.revision;
            return Some(match entry.seen_by(watch) {
                (None, Some(new)) => line("ADDED", new),
                (Some(_), Some(new)) => line("MODIFIED", new),
                (Some(old), None) => {
                    let mut gone = old.clone();
                    gone["metadata"]["resourceVersion"] = json!(entry.revision.to_string());
                    line("DELETED", &gone)
                }
                (None, None) => continue,
            });
        }
        None
    }

    /// Whether a watch that has said everything up to `at` has more to say.
    pub(crate) fn has_event(&self, watch: &Request, at: u64) -> bool {
        let mut log = self.log_after(&watch.resource, at).iter();
        log.any(|entry| entry.seen_by(watch) != (None, None))
    }

    fn commit(&mut self, id: &Id, mut new: Option<Value>) -> Arc<Value> {
        self.revision += 1;
        if let Some(policy) = new.as_mut().filter(|_| id.resource == "networkpolicies") {
            default_protocols(policy);
        }
        if let Some(object) = &mut new {
            object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        }
        let new = new.map(Arc::new);
        let objects = self.objects.entry(id.resource.clone()).or_default();
        let key = (id.namespace.clone(), id.name.clone());
        let old = match &new {
            Some(object) => objects.insert(key, object.clone()),
            None => objects.remove(&key),
        };
        self.log
            .entry(id.resource.clone())
            .or_default()
            .push(Entry {
                revision: self.revision,
                id: id.clone(),
                old,
                new: new.clone(),
            });
        new.unwrap_or_default()
    }

    pub(crate) fn create(&mut self, resource: &str, namespace: &str, mut object: Value) -> Answer {
        let name = object
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let id = Id::new(resource, namespace, name);
        if self.get(&id).is_some() {
            let message = format!("{resource} {name:?} already exists");
            return Err(Failure(409, "AlreadyExists", message));
        }
        self.uids += 1;
        let created = self.seconds();
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        metadata.insert("namespace".to_owned(), json!(namespace));
        metadata.insert(
            "uid".to_owned(),
            json!(format!("00000000-0000-4000-8000-{:012x}", self.uids)),
        );
        metadata.insert("generation".to_owned(), json!(1));
        metadata.insert("creationTimestamp".to_owned(), json!(created));
        if resource == "pods" {
            object["status"] = json!({"phase": "Pending"});
        }
        let created = self.commit(&id, Some(object));
        if resource == "pods" && self.kubelet {
            let node = format!("node-{}", (self.addresses + 1) % 3);
            self.start_pod(&id, Some(&node));
        }
        Ok(created)
    }

    /// A change that changes nothing but the revision, as of fields that nobody here keeps.
    pub(crate) fn touch(&mut self, id: &Id) {
        if let Some(object) = self.get(id).cloned() {
            self.commit(id, Some((*object).clone()));
        }
    }

    /// What a kubelet reports of a pod that has come up; and a scheduler, given the node it chose.
    pub(crate) fn start_pod(&mut self, id: &Id, node: Option<&str>) {
        self.addresses += 1;
        let ip = format!("10.0.{}.{}", self.addresses / 250, self.addresses % 250 + 1);
        let since = self.seconds();
        let mut pod = (**self.get(id).expect("a pod")).clone();
        if let Some(node) = node {
            merge(&mut pod, &json!({"spec": {"nodeName": node}}));
        }
        merge(
            &mut pod,
            &json!({"status": {
                "phase": "Running",
                "podIP": ip,
                "podIPs": [{"ip": ip}],
                "conditions": [
                    {"type": "PodScheduled", "status": "True", "lastTransitionTime": since},
                    {"type": "Ready", "status": "True", "lastTransitionTime": since},
                ],
            }}),
        );
        self.commit(id, Some(pod));
    }

    fn update(&mut self, id: &Id, object: &Value) -> Answer {
        let known = self.known(id)?.clone();
        let wanted = object.pointer("/metadata/resourceVersion");
        if wanted.is_some() && wanted != known.pointer("/metadata/resourceVersion") {
            let message = "the object has been modified".to_owned();
            return Err(Failure(409, "Conflict", message));
        }
        let mut new = (*known).clone();
        new["spec"] = object["spec"].clone();
        Ok(self.commit(id, Some(new)))
    }

    pub(crate) fn patch(&mut self, id: &Id, patch: &Value, status: bool) -> Answer {
        let known = self.known(id)?.clone();
        for member in ["uid", "resourceVersion"] {
            let wanted = &patch["metadata"][member];
            if !wanted.is_null() && *wanted != known["metadata"][member] {
                let message = format!("precondition failed: {member}");
                return Err(Failure(409, "Conflict", message));
            }
        }
        let mut new = (*known).clone();
        if status {
            let part = json!({"status": patch["status"]});
            merge(&mut new, &part);
            if id.resource != "pods" {
                check_conditions(&new)?;
            }
        } else {
            let mut part = patch.clone();
            if let Some(members) = part.as_object_mut() {
                members.remove("status");
            }
            merge(&mut new, &part);
            if new["spec"] != known["spec"] && id.resource != "pods" {
                let generation = known["metadata"]["generation"].as_i64().unwrap_or(0);
                new["metadata"]["generation"] = json!(generation + 1);
            }
        }
        if new == *known {
            return Ok(known);
        }
        let finished = is_deleting(&new) && !is_held(&new) && is_held(&known);
        let committed = self.commit(id, Some(new));
        if finished {
            self.remove(id);
        }
        Ok(committed)
    }

    pub(crate) fn delete(&mut self, id: &Id, options: &Value) -> Answer {
        let known = self.known(id)?.clone();
        for member in ["uid", "resourceVersion"] {
            let wanted = &options["preconditions"][member];
            if !wanted.is_null() && *wanted != known["metadata"][member] {
                let message = format!("precondition failed: {member}");
                return Err(Failure(409, "Conflict", message));
            }
        }
        let mut new = (*known).clone();
        if options["propagationPolicy"] == "Foreground" && !self.collects && !is_deleting(&known) {
            let finalizers = &mut new["metadata"]["finalizers"];
            if finalizers.is_null() {
                *finalizers = json!([]);
            }
            let list = finalizers.as_array_mut().expect("a list");
            list.push(json!(FOREGROUND));
        }
        let lingers = id.resource == "pods" && self.graceful;
        if lingers || is_held(&new) {
            if is_deleting(&known) {
                return Ok(known);
            }
            new["metadata"]["deletionTimestamp"] = json!(self.seconds());
            return Ok(self.commit(id, Some(new)));
        }
        self.remove(id);
        Ok(Arc::new(json!({"kind": "Status", "status": "Success"})))
    }

    /// Removes an object for good, whatever holds it.
    pub(crate) fn remove(&mut self, id: &Id) {
        let Some(gone) = self.get(id).cloned() else {
            return;
        };
        self.commit(id, None);
        if !self.collects {
            return;
        }
        for orphan in self.owned_by(&gone["metadata"]["uid"]) {
            drop(self.delete(&orphan, &json!({})));
        }
    }

    /// The objects that name this UID as an owner.
    pub(crate) fn owned_by(&self, uid: &Value) -> Vec<Id> {
        self.all()
            .filter(|(_, object)| {
                let owners = object["metadata"]["ownerReferences"].as_array();
                owners.is_some_and(|list| list.iter().any(|owner| owner["uid"] == *uid))
            })
            .map(|(resource, object)| {
                let text = |member: &str| object["metadata"][member].as_str().unwrap_or_default();
                Id::new(resource, text("namespace"), text("name"))
            })
            .collect()
    }

    fn seconds(&self) -> String {
        self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

/// The finalizer of an object that waits for what it owns.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

/// Whether deletion has begun.
pub(crate) fn is_deleting(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

fn is_held(object: &Value) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|list| !list.is_empty())
}

/// An event of a watch.
fn line(kind: &str, object: &Value) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}

fn token(revision: u64, (namespace, name): &(String, String)) -> String {
    format!("{revision}:{namespace}:{name}")
}

fn read_token(token: &str) -> Option<(u64, (String, String))> {
    let mut parts = token.split(':');
    let revision = parts.next()?.parse().ok()?;
    Some((
        revision,
        (parts.next()?.to_owned(), parts.next()?.to_owned()),
    ))
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
    let labels = &object["metadata"]["labels"];
    let holds = |term: &str| match (term.strip_prefix('!'), term.split_once('=')) {
        (Some(key), _) => labels.get(key).is_none(),
        (None, Some((key, value))) => labels[key] == value,
        (None, None) => labels.get(term).is_some(),
    };
    selector.is_none_or(|selector| selector.split(',').all(holds))
}

/// Refuses a status whose conditions break the definitions' rules, as the API server does.
fn check_conditions(object: &Value) -> Result<(), Failure> {
    let conditions = object["status"]["conditions"].as_array();
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
