//! A model of the API server, small enough to be obviously right: one revision counter, objects as
//! JSON, watches that replay a log, merge patches, preconditions, generations and owner-reference
//! garbage collection. It can lag, lose answers and refuse calls on request, which the real thing does
//! too, but not on request.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

/// Plural, namespace, name.
pub(crate) type Id = (String, String, String);

/// A call that was answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Call {
    pub(crate) verb: &'static str,
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) status: bool,
}

/// What happens to a call instead of, or after, being served.
#[derive(Clone, Debug)]
pub(crate) enum Mischief {
    /// It is answered with this error and has no effect.
    Refuse(u16, &'static str, String),
    /// It takes effect, and then the answer is lost.
    LoseAnswer,
    /// Somebody else merge-patches this resource, by name, just before it takes effect, and the
    /// watches are held, so that the answer is the first to tell.
    Precede(&'static str, &'static str, Value),
}

type Rule = Box<dyn FnMut(&Call) -> Option<Mischief> + Send>;

/// The model. Clones share it.
#[derive(Clone)]
pub(crate) struct Model {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

struct State {
    revision: u64,
    uids: u64,
    now: Timestamp,
    objects: BTreeMap<Id, Value>,
    log: Vec<Entry>,
    calls: Vec<Call>,
    rules: Vec<Rule>,
    delivery: Delivery,
    held_kinds: BTreeSet<&'static str>,
    /// Watches begun so far.
    watches: usize,
    /// Pods become Ready as soon as they are created.
    pub(crate) kubelet: bool,
    /// Pods stay, deleting, until somebody finishes them.
    graceful: bool,
    addresses: u32,
}

/// What becomes of watch events.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Delivery {
    Prompt,
    /// They wait.
    Held,
    /// Watches end as soon as they have begun.
    Cut,
}

#[derive(Clone)]
struct Entry {
    revision: u64,
    id: Id,
    old: Option<Value>,
    new: Option<Value>,
}

impl Model {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
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
            })),
            changed: watch::Sender::new(0),
        }
    }

    pub(crate) fn client(&self) -> Client {
        let model = self.clone();
        let service = tower::service_fn(move |request| {
            let model = model.clone();
            async move { Ok::<_, Infallible>(model.serve(request).await) }
        });
        Client::new(service, "default")
    }

    /// Sets the server's clock.
    pub(crate) fn set_time(&self, now: Timestamp) {
        self.state.lock().now = now;
    }

    /// Whether pods become Ready by themselves.
    pub(crate) fn set_kubelet(&self, on: bool) {
        self.state.lock().kubelet = on;
    }

    /// Whether deleted pods stay until [`Self::remove`].
    pub(crate) fn set_graceful(&self, on: bool) {
        self.state.lock().graceful = on;
    }

    /// Stops delivering watch events until released.
    pub(crate) fn hold_watches(&self, held: bool) {
        self.deliver(if held {
            Delivery::Held
        } else {
            Delivery::Prompt
        });
    }

    /// Stops delivering watch events of one resource for good.
    pub(crate) fn hold_watches_of(&self, resource: &'static str) {
        self.state.lock().held_kinds.insert(resource);
    }

    /// Ends watches as soon as they have begun, as a proxy in between might.
    pub(crate) fn cut_watches(&self, cut: bool) {
        self.deliver(if cut { Delivery::Cut } else { Delivery::Prompt });
    }

    fn deliver(&self, delivery: Delivery) {
        self.state.lock().delivery = delivery;
        self.notify();
    }

    /// Watches begun so far.
    pub(crate) fn watches(&self) -> usize {
        self.state.lock().watches
    }

    /// Adds a rule that may do mischief to calls; earlier rules go first.
    pub(crate) fn disturb(&self, rule: impl FnMut(&Call) -> Option<Mischief> + Send + 'static) {
        self.state.lock().rules.push(Box::new(rule));
    }

    /// The successful writes since the last call of this function, oldest first.
    pub(crate) fn take_writes(&self) -> Vec<Call> {
        let mut state = self.state.lock();
        let calls = std::mem::take(&mut state.calls);
        calls
            .into_iter()
            .filter(|call| !matches!(call.verb, "get" | "list" | "watch"))
            .collect()
    }

    /// Creates an object as a user would.
    pub(crate) fn create(&self, resource: &str, object: Value) -> Value {
        let created = self.state.lock().create(resource, "n", object);
        self.notify();
        created.expect("the object can be created")
    }

    /// Merge-patches an object as a user would.
    pub(crate) fn patch(&self, resource: &str, name: &str, patch: Value) -> Value {
        let patched = self.state.lock().patch(&id(resource, name), &patch, false);
        self.notify();
        patched.expect("the object can be patched")
    }

    /// Merge-patches an object's status.
    pub(crate) fn patch_status(&self, resource: &str, name: &str, status: Value) {
        let patch = json!({"status": status});
        let patched = self.state.lock().patch(&id(resource, name), &patch, true);
        self.notify();
        patched.expect("the status can be patched");
    }

    /// Deletes an object as a user would.
    pub(crate) fn delete(&self, resource: &str, name: &str) {
        let deleted = self.state.lock().delete(&id(resource, name), &json!({}));
        self.notify();
        deleted.expect("the object can be deleted");
    }

    /// Removes an object for good, whatever holds it.
    pub(crate) fn remove(&self, resource: &str, name: &str) {
        self.state.lock().remove(&id(resource, name));
        self.notify();
    }

    pub(crate) fn get(&self, resource: &str, name: &str) -> Option<Value> {
        self.state.lock().objects.get(&id(resource, name)).cloned()
    }

    pub(crate) fn list(&self, resource: &str) -> Vec<Value> {
        let state = self.state.lock();
        state
            .objects
            .iter()
            .filter(|((plural, _, _), _)| plural == resource)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Waits until something changes, or a little time passes.
    pub(crate) async fn tick(&self) {
        let mut changed = self.changed.subscribe();
        let pause = std::time::Duration::from_millis(25);
        drop(tokio::time::timeout(pause, changed.changed()).await);
    }

    fn notify(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    async fn serve(&self, request: Request<Body>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.expect("the body is whole").to_bytes();
        let path = Path::parse(parts.uri.path());
        let query: BTreeMap<String, String> =
            form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        if query.contains_key("watch") {
            return self.watch(path, &query);
        }
        let call = Call {
            verb: match (&parts.method, path.name.is_empty()) {
                (&Method::GET, true) => "list",
                (&Method::GET, false) => "get",
                (&Method::POST, _) => "create",
                (&Method::PUT, _) => "update",
                (&Method::PATCH, _) => "patch",
                _ => "delete",
            },
            resource: path.resource.clone(),
            name: path.name.clone(),
            status: path.status,
        };
        let mischief = {
            let mut state = self.state.lock();
            state.rules.iter_mut().find_map(|rule| rule(&call))
        };
        if let Some(Mischief::Refuse(code, reason, message)) = &mischief {
            return failure(&Failure(*code, reason, message.clone()));
        }
        if let Some(Mischief::Precede(resource, name, patch)) = &mischief {
            self.hold_watches(true);
            self.patch(resource, name, patch.clone());
        }
        let answer = self.state.lock().answer(&path, &call, &query, &body);
        self.notify();
        if matches!(mischief, Some(Mischief::LoseAnswer)) {
            return failure(&Failure(504, "Timeout", "the answer was lost".to_owned()));
        }
        match answer {
            Ok(value) => {
                let name = value
                    .pointer("/metadata/name")
                    .and_then(Value::as_str)
                    .unwrap_or(&call.name)
                    .to_owned();
                self.state.lock().calls.push(Call { name, ..call });
                respond(StatusCode::OK, &value)
            }
            Err(error) => failure(&error),
        }
    }

    fn watch(
        &self,
        path: Path,
        query: &BTreeMap<String, String>,
    ) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let since: u64 = query
            .get("resourceVersion")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let selector = query.get("labelSelector").cloned();
        self.state.lock().watches += 1;
        let events = self.events(path, selector, since);
        let frames = events.map(|line| {
            let mut text = line.to_string();
            text.push('\n');
            Ok(Frame::data(Bytes::from(text)))
        });
        let body: UnsyncBoxBody<Bytes, Infallible> = BodyExt::boxed_unsync(StreamBody::new(frames));
        Response::new(body)
    }

    fn events(
        &self,
        path: Path,
        selector: Option<String>,
        since: u64,
    ) -> impl Stream<Item = Value> + use<> {
        let model = self.clone();
        let changed = self.changed.subscribe();
        futures::stream::unfold(
            (model, changed, since),
            move |(model, mut changed, mut at)| {
                let path = path.clone();
                let selector = selector.clone();
                async move {
                    loop {
                        let next = {
                            let state = model.state.lock();
                            if state.delivery == Delivery::Cut {
                                return None;
                            }
                            if state.delivery == Delivery::Held
                                || state.held_kinds.contains(&*path.resource)
                            {
                                None
                            } else {
                                state.next_event(&path, selector.as_deref(), &mut at)
                            }
                        };
                        if let Some(event) = next {
                            return Some((event, (model, changed, at)));
                        }
                        changed.changed().await.ok()?;
                    }
                }
            },
        )
    }
}

fn id(resource: &str, name: &str) -> Id {
    (resource.to_owned(), "n".to_owned(), name.to_owned())
}

#[derive(Clone, Debug)]
struct Path {
    resource: String,
    namespace: String,
    name: String,
    status: bool,
}

impl Path {
    fn parse(path: &str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let rest = match parts.first() {
            Some(&"api") => &parts[2..],
            _ => &parts[3..],
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        Self {
            resource: rest[0].to_owned(),
            namespace: namespace.to_owned(),
            name: rest.get(1).map(ToString::to_string).unwrap_or_default(),
            status: rest.get(2) == Some(&"status"),
        }
    }

    fn id(&self) -> Id {
        (
            self.resource.clone(),
            self.namespace.clone(),
            self.name.clone(),
        )
    }
}

#[derive(Debug)]
struct Failure(u16, &'static str, String);

type Answer = Result<Value, Failure>;

impl State {
    fn answer(
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

    fn next_event(&self, path: &Path, selector: Option<&str>, at: &mut u64) -> Option<Value> {
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

    fn create(&mut self, resource: &str, namespace: &str, mut object: Value) -> Answer {
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

    fn patch(&mut self, id: &Id, patch: &Value, status: bool) -> Answer {
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

    fn delete(&mut self, id: &Id, options: &Value) -> Answer {
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

    fn remove(&mut self, id: &Id) {
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

fn selects(selector: Option<&str>, object: &Value) -> bool {
    selector.is_none_or(|key| object["metadata"]["labels"].get(key).is_some())
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

fn respond(status: StatusCode, value: &Value) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let body = Full::new(Bytes::from(value.to_string())).boxed_unsync();
    Response::builder()
        .status(status)
        .body(body)
        .expect("a valid response")
}

fn failure(failure: &Failure) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let Failure(code, reason, message) = failure;
    let status = json!({
        "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message,
    });
    respond(StatusCode::from_u16(*code).expect("a status"), &status)
}
