//! A model of the API server, small enough to be obviously right: one revision counter, objects as
//! JSON, watches that replay a log, merge patches, preconditions, generations and owner-reference
//! garbage collection. It can lag, lose answers and refuse calls on request, which the real thing does
//! too, but not on request.

use std::collections::BTreeMap;
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
use serde_json::{Value, json};
use tokio::sync::watch;

use self::state::{Delivery, Failure, State};

mod state;

/// Plural, namespace, name.
pub(crate) type Id = (String, String, String);

/// A call that was answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Call {
    pub(crate) verb: &'static str,
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) status: bool,
    /// How a deletion is to reach what the object owns.
    pub(crate) propagation: Option<String>,
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
    Precede(&'static str, String, Value),
}

type Rule = Box<dyn FnMut(&Call) -> Option<Mischief> + Send>;

/// The model. Clones share it.
#[derive(Clone)]
pub(crate) struct Model {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

impl Model {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            state: Arc::new(Mutex::new(State::new(now))),
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

    /// Stops delivering watch events of one resource until released.
    pub(crate) fn hold_watches_of(&self, resource: &'static str) {
        self.state.lock().held_kinds.insert(resource);
    }

    /// Delivers the watch events of all resources again.
    pub(crate) fn release_watches(&self) {
        self.state.lock().held_kinds.clear();
        self.hold_watches(false);
    }

    /// Ends watches as soon as they have begun, as a proxy in between might.
    pub(crate) fn cut_watches(&self, cut: bool) {
        self.deliver(if cut { Delivery::Cut } else { Delivery::Prompt });
    }

    /// Leaves new watches without any answer, as a connection that nobody serves would.
    pub(crate) fn mute_watches(&self, mute: bool) {
        self.deliver(if mute {
            Delivery::Mute
        } else {
            Delivery::Prompt
        });
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
            if self.state.lock().delivery == Delivery::Mute {
                return std::future::pending().await;
            }
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
            propagation: serde_json::from_slice::<Value>(&body)
                .ok()
                .and_then(|body| body["propagationPolicy"].as_str().map(str::to_owned)),
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
