//! The model of the API server as the operator's tests use it: it serves at once, and lags, loses
//! answers and refuses calls on request, which the real thing does too, but not on request.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::tasks::Tasks;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use jiff::Timestamp;
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use crate::kube_model::{Body, Failure, Id, Request, State, failure, respond};

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
    /// It takes effect after this long.
    Delay(Duration),
    /// It takes effect without this member of the status, which the server's schema does not have.
    Prune(&'static str),
    /// Somebody else merge-patches this resource, by name, just before it takes effect, and the
    /// watches are held, so that the answer is the first to tell.
    Precede(&'static str, String, Value),
}

/// An object before and after a change.
pub(crate) type Change = (Option<Arc<Value>>, Option<Arc<Value>>);

type Rule = Box<dyn FnMut(&Call) -> Option<Mischief> + Send>;

/// What one operator's calls go through. While it is held, calls wait before they reach the server,
/// and answers before they reach the operator: as with a stopped process, whatever it had sent is
/// still carried out when it goes on, even if nobody waits for the answer any more.
#[derive(Clone)]
pub(crate) struct Link {
    open: watch::Sender<bool>,
    tasks: Tasks,
    verbs: Arc<Mutex<Vec<&'static str>>>,
}

impl Link {
    pub(crate) fn new() -> Self {
        Self {
            open: watch::Sender::new(true),
            tasks: Tasks::new("link"),
            verbs: Arc::default(),
        }
    }

    /// What went through since the last call of this function.
    pub(crate) fn take_verbs(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.verbs.lock())
    }

    pub(crate) fn hold(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn release(&self) {
        self.open.send_replace(true);
    }

    /// Calls that wait, for the server or for their answer to be let through.
    pub(crate) fn held(&self) -> usize {
        self.tasks.len()
    }

    async fn passed(&self) {
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open)
            .await
            .expect("the link is there");
    }
}

/// How a watch learns that it has to begin anew.
const TOO_OLD: &str = concat!(
    r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","#,
    r#""code":410,"reason":"Expired","message":"too old"}}"#,
    "\n"
);

/// The revision of a watch that has ended.
const OVER: u64 = u64::MAX;

/// What becomes of watch events.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Delivery {
    Prompt,
    /// They wait.
    Held,
    /// Watches end as soon as they have begun.
    Cut,
    /// New watches do not even get a status line.
    Mute,
}

/// What is done to calls and watches, and which calls there were.
struct Front {
    calls: Vec<Call>,
    rules: Vec<Rule>,
    delivery: Delivery,
    held_kinds: BTreeSet<&'static str>,
    /// Watches of these resources from before these revisions are refused.
    expired: BTreeMap<&'static str, u64>,
    /// Watches begun so far.
    watches: usize,
    /// What lists and watches selected, by verb and resource.
    selected: BTreeSet<(&'static str, String, Option<String>)>,
}

/// The model. Clones share it.
#[derive(Clone)]
pub(crate) struct Model {
    state: Arc<Mutex<State>>,
    front: Arc<Mutex<Front>>,
    changed: watch::Sender<u64>,
}

impl Model {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            state: Arc::new(Mutex::new(State::new(now))),
            front: Arc::new(Mutex::new(Front {
                calls: Vec::new(),
                rules: Vec::new(),
                delivery: Delivery::Prompt,
                held_kinds: BTreeSet::new(),
                expired: BTreeMap::new(),
                watches: 0,
                selected: BTreeSet::new(),
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

    /// A client whose calls go through `link`.
    pub(crate) fn client_through(&self, link: &Link) -> Client {
        let (model, link) = (self.clone(), link.clone());
        let service = tower::service_fn(move |request| {
            let (model, link) = (model.clone(), link.clone());
            async move {
                let (sender, answer) = oneshot::channel();
                let tasks = link.tasks.clone();
                tasks.spawn("call", async move {
                    link.passed().await;
                    let response = model.serve_noting(request, &link.verbs).await;
                    link.passed().await;
                    // The caller may have given up.
                    drop(sender.send(response));
                });
                answer.await
            }
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

    /// Whether what is owned goes with its owner.
    pub(crate) fn set_collects(&self, on: bool) {
        self.state.lock().collects = on;
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
        self.front.lock().held_kinds.insert(resource);
    }

    /// Delivers those of one resource again.
    pub(crate) fn release_watches_of(&self, resource: &'static str) {
        self.front.lock().held_kinds.remove(resource);
        self.notify();
    }

    /// Delivers the watch events of all resources again.
    pub(crate) fn release_watches(&self) {
        self.front.lock().held_kinds.clear();
        self.hold_watches(false);
    }

    /// Ends the watches of one resource, held or not, so that whoever watches has to list it again.
    pub(crate) fn expire_watches_of(&self, resource: &'static str) {
        let revision = self.state.lock().revision();
        self.front.lock().expired.insert(resource, revision);
        self.notify();
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
        self.front.lock().delivery = delivery;
        self.notify();
    }

    /// Watches begun so far.
    pub(crate) fn watches(&self) -> usize {
        self.front.lock().watches
    }

    /// What the lists or watches of a resource selected so far.
    pub(crate) fn selected(&self, verb: &str, resource: &str) -> Vec<Option<String>> {
        let front = self.front.lock();
        let selected = front.selected.iter();
        let these = selected.filter(|(by, what, _)| *by == verb && what == resource);
        these.map(|(_, _, selector)| selector.clone()).collect()
    }

    /// Adds a rule that may do mischief to calls; earlier rules go first.
    pub(crate) fn disturb(&self, rule: impl FnMut(&Call) -> Option<Mischief> + Send + 'static) {
        self.front.lock().rules.push(Box::new(rule));
    }

    /// Drops all rules.
    pub(crate) fn calm(&self) {
        self.front.lock().rules.clear();
    }

    /// The successful writes since the last call of this function, oldest first.
    pub(crate) fn take_writes(&self) -> Vec<Call> {
        let calls = std::mem::take(&mut self.front.lock().calls);
        calls
            .into_iter()
            .filter(|call| !matches!(call.verb, "get" | "list" | "watch"))
            .collect()
    }

    /// Creates an object as a user would.
    pub(crate) fn create(&self, resource: &str, object: Value) -> Value {
        let created = self
            .state
            .lock()
            .create(resource, namespace_of(resource), object);
        self.notify();
        (*created.expect("the object can be created")).clone()
    }

    /// Merge-patches an object as a user would.
    pub(crate) fn patch(&self, resource: &str, name: &str, patch: Value) -> Value {
        let patched = self.state.lock().patch(&id(resource, name), &patch, false);
        self.notify();
        (*patched.expect("the object can be patched")).clone()
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
        let state = self.state.lock();
        state
            .get(&id(resource, name))
            .map(|object| (**object).clone())
    }

    pub(crate) fn list(&self, resource: &str) -> Vec<Value> {
        let state = self.state.lock();
        state
            .list(resource)
            .map(|object| (**object).clone())
            .collect()
    }

    /// What every change of a kind made of what was there before, oldest first.
    pub(crate) fn history(&self, resource: &str) -> Vec<Change> {
        let state = self.state.lock();
        let log = state.log_after(resource, 0).iter();
        log.map(|entry| (entry.old.clone(), entry.new.clone()))
            .collect()
    }

    /// Waits until something changes, or a little time passes.
    pub(crate) async fn tick(&self) {
        let mut changed = self.changed.subscribe();
        let pause = Duration::from_millis(25);
        drop(tokio::time::timeout(pause, changed.changed()).await);
    }

    fn notify(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    async fn serve(&self, request: http::Request<kube::client::Body>) -> Response<Body> {
        self.serve_noting(request, &Mutex::default()).await
    }

    async fn serve_noting(
        &self,
        request: http::Request<kube::client::Body>,
        verbs: &Mutex<Vec<&'static str>>,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.expect("the body is whole").to_bytes();
        let mut request = Request::read(&parts, &body);
        verbs.lock().push(request.verb);
        if matches!(request.verb, "list" | "watch") {
            let selector = request.selector().map(ToOwned::to_owned);
            let selected = (request.verb, request.resource.clone(), selector);
            self.front.lock().selected.insert(selected);
        }
        if request.verb == "watch" {
            if self.front.lock().delivery == Delivery::Mute {
                return std::future::pending().await;
            }
            return self.watch(request);
        }
        let call = Call {
            verb: request.verb,
            resource: request.resource.clone(),
            name: request.name.clone(),
            status: request.status,
            propagation: request.body["propagationPolicy"]
                .as_str()
                .map(str::to_owned),
        };
        let mischief = {
            let mut front = self.front.lock();
            front.rules.iter_mut().find_map(|rule| rule(&call))
        };
        if let Some(Mischief::Refuse(code, reason, message)) = &mischief {
            return failure(&Failure(*code, reason, message.clone()));
        }
        if let Some(Mischief::Precede(resource, name, patch)) = &mischief {
            self.hold_watches(true);
            self.patch(resource, name, patch.clone());
        }
        if let Some(Mischief::Delay(time)) = &mischief {
            tokio::time::sleep(*time).await;
        }
        if let Some(Mischief::Prune(member)) = &mischief
            && let Some(Value::Object(status)) = request.body.get_mut("status")
        {
            status.remove(*member);
        }
        let answer = self.state.lock().answer(&request);
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
                self.front.lock().calls.push(Call { name, ..call });
                respond(StatusCode::OK, &value)
            }
            Err(error) => failure(&error),
        }
    }

    fn watch(&self, request: Request) -> Response<Body> {
        self.front.lock().watches += 1;
        let lines = self.events(request);
        let frames = lines.map(|line| Ok(Frame::data(Bytes::from(line))));
        let body: Body = BodyExt::boxed_unsync(StreamBody::new(frames));
        Response::new(body)
    }

    fn events(&self, request: Request) -> impl Stream<Item = String> + use<> {
        let model = self.clone();
        let changed = self.changed.subscribe();
        let since = request.number("resourceVersion").unwrap_or(0);
        futures::stream::unfold(
            (model, changed, since),
            move |(model, mut changed, mut at)| {
                let request = request.clone();
                async move {
                    loop {
                        let delivers = {
                            let front = model.front.lock();
                            if front.delivery == Delivery::Cut || at == OVER {
                                return None;
                            }
                            let expired = front.expired.get(&*request.resource);
                            if expired.is_some_and(|revision| at < *revision) {
                                drop(front);
                                return Some((TOO_OLD.to_owned(), (model, changed, OVER)));
                            }
                            front.delivery != Delivery::Held
                                && !front.held_kinds.contains(&*request.resource)
                        };
                        let next = delivers
                            .then(|| model.state.lock().next_event(&request, &mut at))
                            .flatten();
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
    Id::new(resource, namespace_of(resource), name)
}

/// Everything lives in one namespace, or in none.
fn namespace_of(resource: &str) -> &'static str {
    if resource == "nodes" { "" } else { "n" }
}
