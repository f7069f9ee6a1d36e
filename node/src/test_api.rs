//! A few hundred lines of API server for unit tests: enough of list, watch, create, merge patch and
//! delete for the node's own requests, with every request recorded. The suites in `tests/` run the
//! node against the real thing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::test_wait::DEADLINE;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The server. Clones share the objects.
#[derive(Clone)]
pub(crate) struct TestApi {
    state: Arc<Mutex<State>>,
    revision: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    history: Vec<(u64, &'static str, String, Value)>,
    requests: Vec<(Method, String, Value)>,
    /// Paths under which the next POST fails.
    refusals: Vec<String>,
    /// Where in the history the last wait for a path ended.
    seen: BTreeMap<String, usize>,
    revision: u64,
}

impl State {
    /// The first version of an object that passes the check, from the one that was found last.
    fn find(
        &mut self,
        path: &str,
        check: impl Fn(Option<&Value>) -> bool,
    ) -> ControlFlow<Option<Value>> {
        let mut versions = self
            .history
            .iter()
            .enumerate()
            .filter(|(_, (_, _, changed, _))| changed == path)
            .map(|(at, (_, kind, _, object))| (at, (*kind != "DELETED").then_some(object)))
            .peekable();
        if versions.peek().is_none() {
            return if check(None) {
                ControlFlow::Break(None)
            } else {
                ControlFlow::Continue(())
            };
        }
        let from = self.seen.get(path).copied().unwrap_or_default();
        let found = versions.find(|(at, version)| *at >= from && check(*version));
        let Some((at, version)) = found else {
            return ControlFlow::Continue(());
        };
        let version = version.cloned();
        self.seen.insert(path.to_owned(), at);
        ControlFlow::Break(version)
    }
}

impl TestApi {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::default(),
            revision: watch::Sender::new(0),
        }
    }

    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// Stores an object at `path`, such as `/api/v1/namespaces/ns/pods/p`, as if somebody else had.
    pub(crate) fn put(&self, path: &str, mut object: Value) -> Value {
        let mut state = self.state.lock();
        let kind = if state.objects.contains_key(path) {
            "MODIFIED"
        } else {
            "ADDED"
        };
        let (collection, name) = path.rsplit_once('/').unwrap();
        let meta = &mut object["metadata"];
        meta["name"] = json!(name);
        if let Some((_, rest)) = collection.split_once("/namespaces/") {
            meta["namespace"] = json!(rest.split('/').next());
        }
        if meta["uid"].is_null() {
            meta["uid"] = json!(format!("uid-of-{name}"));
        }
        self.commit(&mut state, kind, path, object)
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().objects.get(path).cloned()
    }

    pub(crate) fn remove(&self, path: &str) {
        let mut state = self.state.lock();
        if let Some(object) = state.objects.remove(path) {
            self.commit(&mut state, "DELETED", path, object);
        }
    }

    /// Lets the next POST to `path` fail as a server in trouble would.
    pub(crate) fn refuse_once(&self, path: &str) {
        self.state.lock().refusals.push(path.to_owned());
    }

    /// Objects whose path begins with `prefix`.
    pub(crate) fn list(&self, prefix: &str) -> Vec<Value> {
        let state = self.state.lock();
        let found = state
            .objects
            .iter()
            .filter(|(path, _)| path.starts_with(prefix));
        found.map(|(_, object)| object.clone()).collect()
    }

    /// Requests that changed something, as method, path and body.
    pub(crate) fn writes(&self) -> Vec<(Method, String, Value)> {
        let state = self.state.lock();
        let writes = state
            .requests
            .iter()
            .filter(|(method, ..)| method != Method::GET);
        writes.cloned().collect()
    }

    /// Waits until `check` holds for the object at `path`, `None` when it is absent, and returns the
    /// first version for which it does, from the one on that the last such wait returned. So what was
    /// true only for a moment is not missed.
    pub(crate) async fn until(
        &self,
        path: &str,
        check: impl Fn(Option<&Value>) -> bool,
    ) -> Option<Value> {
        let mut revision = self.revision.subscribe();
        let wait = async {
            loop {
                revision.mark_unchanged();
                if let ControlFlow::Break(found) = self.state.lock().find(path, &check) {
                    return found;
                }
                revision.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(DEADLINE, wait).await;
        waited.unwrap_or_else(|_| panic!("{path} did not get there: {:#?}", self.get(path)))
    }

    fn commit(
        &self,
        state: &mut State,
        kind: &'static str,
        path: &str,
        mut object: Value,
    ) -> Value {
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        if kind != "DELETED" {
            state.objects.insert(path.to_owned(), object.clone());
        }
        let event = (state.revision, kind, path.to_owned(), object.clone());
        state.history.push(event);
        self.revision.send_replace(state.revision);
        object
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let path = parts.uri.path().to_owned();
        let query: BTreeMap<String, String> =
            form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let record = (parts.method.clone(), path.clone(), body.clone());
        let refused = {
            let mut state = self.state.lock();
            state.requests.push(record);
            let posted = parts.method == Method::POST;
            let refusal = state.refusals.iter().position(|refused| *refused == path);
            let refusal = refusal.filter(|_| posted);
            refusal.map(|at| state.refusals.swap_remove(at)).is_some()
        };
        if refused {
            return failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        }
        match parts.method {
            Method::GET if query.get("watch").is_some_and(|watch| watch != "false") => {
                self.watch(path, query)
            }
            Method::GET => self.read(&path, &query),
            Method::POST => self.create(&path, body),
            Method::PATCH => self.patch(&path, &body),
            Method::PUT => reply(StatusCode::OK, &self.put(&path, body)),
            Method::DELETE => self.delete(&path, &body),
            _ => failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn read(&self, path: &str, query: &BTreeMap<String, String>) -> Answer {
        let state = self.state.lock();
        if let Some(object) = state.objects.get(path) {
            return reply(StatusCode::OK, object);
        }
        let known = [
            "pods",
            "configmaps",
            "secrets",
            "persistentvolumeclaims",
            "persistentvolumes",
            "nodes",
            "leases",
        ];
        if !known
            .iter()
            .any(|plural| path.ends_with(&format!("/{plural}")))
        {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        }
        let items: Vec<_> = state
            .objects
            .iter()
            .filter(|(key, object)| covers(path, key) && selected(object, query))
            .map(|(_, object)| object.clone())
            .collect();
        let revision = state.revision.to_string();
        reply(
            StatusCode::OK,
            &json!({"metadata": {"resourceVersion": revision}, "items": items}),
        )
    }

    fn watch(&self, path: String, query: BTreeMap<String, String>) -> Answer {
        let seen: u64 = query
            .get("resourceVersion")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let api = self.clone();
        let revisions = self.revision.subscribe();
        let lines = futures::stream::unfold((seen, revisions), move |(mut seen, mut revisions)| {
            let (api, path, query) = (api.clone(), path.clone(), query.clone());
            async move {
                loop {
                    revisions.mark_unchanged();
                    let mut lines = String::new();
                    for (revision, kind, key, object) in &api.state.lock().history {
                        if *revision > seen && covers(&path, key) && selected(object, &query) {
                            lines += &json!({"type": kind, "object": object}).to_string();
                            lines.push('\n');
                        }
                        seen = seen.max(*revision);
                    }
                    if !lines.is_empty() {
                        let frame = http_body::Frame::data(Bytes::from(lines));
                        return Some((Ok(frame), (seen, revisions)));
                    }
                    revisions.changed().await.ok()?;
                }
            }
        });
        Response::new(BodyExt::boxed_unsync(StreamBody::new(lines.boxed())))
    }

    fn create(&self, path: &str, body: Value) -> Answer {
        if let Some(owner) = path.strip_suffix("/token") {
            let expiry = "2999-01-01T00:00:00Z";
            let token = format!("token-for-{}", owner.rsplit('/').next().unwrap());
            let mut answer = body;
            answer["status"] = json!({"token": token, "expirationTimestamp": expiry});
            return reply(StatusCode::CREATED, &answer);
        }
        if let Some(pod) = path.strip_suffix("/binding") {
            let Some(mut object) = self.get(pod) else {
                return failure(StatusCode::NOT_FOUND, "NotFound");
            };
            object["spec"]["nodeName"] = body["target"]["name"].clone();
            self.put(pod, object);
            return reply(StatusCode::CREATED, &json!({"status": "Success"}));
        }
        let name = if let Some(name) = body["metadata"]["name"].as_str() {
            name.to_owned()
        } else {
            {
                let prefix = body["metadata"]["generateName"]
                    .as_str()
                    .unwrap_or_default();
                format!("{prefix}{}", self.state.lock().revision)
            }
        };
        let path = format!("{path}/{name}");
        if self.get(&path).is_some() {
            return failure(StatusCode::CONFLICT, "AlreadyExists");
        }
        reply(StatusCode::CREATED, &self.put(&path, body))
    }

    fn patch(&self, path: &str, body: &Value) -> Answer {
        let target = path.strip_suffix("/status").unwrap_or(path);
        let Some(mut object) = self.get(target) else {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        };
        let uid = &body["metadata"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        merge(&mut object, body);
        reply(StatusCode::OK, &self.put(target, object))
    }

    fn delete(&self, path: &str, options: &Value) -> Answer {
        let Some(mut object) = self.get(path) else {
            return failure(StatusCode::NOT_FOUND, "NotFound");
        };
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        if options["gracePeriodSeconds"] == 0 || !path.contains("/pods/") {
            self.remove(path);
        } else {
            object["metadata"]["deletionTimestamp"] = json!(jiff::Timestamp::now().to_string());
            let grace = options["gracePeriodSeconds"].as_i64().unwrap_or(30);
            object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
            self.put(path, object.clone());
        }
        reply(StatusCode::OK, &object)
    }
}

/// Whether an object belongs to a collection, of one namespace or of all.
fn covers(collection: &str, key: &str) -> bool {
    let Some((parent, _)) = key.rsplit_once('/') else {
        return false;
    };
    let (prefix, plural) = collection.rsplit_once('/').unwrap();
    parent == collection
        || (parent.starts_with(&format!("{prefix}/namespaces/"))
            && parent.ends_with(&format!("/{plural}")))
}

/// Field selectors with `=`, joined by commas.
fn selected(object: &Value, query: &BTreeMap<String, String>) -> bool {
    let selector = query.get("fieldSelector").map_or("", String::as_str);
    selector
        .split(',')
        .filter(|term| !term.is_empty())
        .all(|term| {
            let (path, value) = term.split_once('=').unwrap();
            let found = path.split('.').fold(object, |at, key| &at[key]);
            found.as_str().unwrap_or_default() == value
        })
}

/// Merge patch, with conditions merged by type as a strategic merge would.
fn merge(target: &mut Value, patch: &Value) {
    match patch {
        Value::Object(entries) => {
            if !target.is_object() {
                *target = json!({});
            }
            for (key, value) in entries {
                match (key.as_str(), value) {
                    (_, Value::Null) => {
                        target.as_object_mut().unwrap().remove(key);
                    }
                    ("conditions", Value::Array(conditions)) => {
                        let mut list = target[key].as_array().cloned().unwrap_or_default();
                        for condition in conditions {
                            match list.iter_mut().find(|old| old["type"] == condition["type"]) {
                                Some(old) => merge(old, condition),
                                None => list.push(condition.clone()),
                            }
                        }
                        target[key] = Value::Array(list);
                    }
                    _ => merge(&mut target[key], value),
                }
            }
        }
        other => *target = other.clone(),
    }
}

fn reply(status: StatusCode, body: &Value) -> Answer {
    let bytes = Bytes::from(body.to_string());
    let mut response = Response::new(BodyExt::boxed_unsync(Full::new(bytes)));
    *response.status_mut() = status;
    response
}

fn failure(status: StatusCode, reason: &str) -> Answer {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason,
        "reason": reason, "code": status.as_u16(), "metadata": {},
    });
    reply(status, &body)
}
