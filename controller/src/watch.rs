//! Keeps one kind's table in step with the API server: a paged list, then a watch from the list's
//! revision, and again from the last revision seen when the watch ends. A revision that is too old
//! leads to a new list, which the table merges with what it knows. Knows nothing about what the rows
//! mean.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::api::{Api, ApiError, PAGE, Resource, WatchEvent};
use crate::ident::Revision;
use crate::metrics::Metrics;
use crate::store::{Seen, Store, Stored};

/// How long the server is asked to keep a watch open; spread, so that watches do not end together.
const WATCH_SECONDS: std::ops::Range<u64> = 240..300;
/// Silence beyond the server's own timeout that means a dead connection.
const DEAD_AFTER: Duration = Duration::from_secs(15);
/// Delay after the first failure; it doubles up to the longest one.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// The least delay while the server does not know the kind: somebody has to install it first.
const UNKNOWN_KIND_DELAY: Duration = Duration::from_secs(1);
/// A watch that ends sooner than this without an event is no progress: the next one waits as after a
/// failure, so that a server or proxy that cannot keep watches open is not called in a loop.
const SHORT_LIVED: Duration = Duration::from_secs(1);

/// What to watch.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// The resource.
    pub resource: &'static Resource,
    /// Which objects of it.
    pub selector: Option<&'static str>,
    /// Whether the operator can do without: a refusal is reported and then lived with.
    pub optional: bool,
}

/// A handle on a running watch.
#[derive(Clone, Debug)]
pub struct Handle {
    relist: Arc<Notify>,
    lists: watch::Receiver<Lists>,
    contact: Arc<Mutex<Contact>>,
}

/// Whether the server is heard of.
#[derive(Clone, Copy, Debug, Default)]
struct Contact {
    /// Since when nothing was brought by a list or watch.
    broken: Option<Instant>,
    /// When the present watch was opened.
    opened: Option<Instant>,
}

/// How many lists were begun and how many of them ended well. One that fails is begun again under the
/// same number.
#[derive(Clone, Copy, Debug, Default)]
struct Lists {
    begun: u64,
    done: u64,
}

impl Handle {
    /// Waits until everything has been listed once.
    pub async fn synced(&self) {
        self.listed(1).await;
    }

    /// Lists everything anew and waits until it is done: afterwards the table is at least as new as
    /// the moment of this call.
    pub async fn refresh(&self) {
        // A list that is under way may have read what is old by now; the one after it counts.
        let begun = self.lists.borrow().begun;
        self.relist.notify_one();
        self.listed(begun + 1).await;
    }

    /// For how long every attempt to list or watch has failed; `None` while news would come.
    pub fn silent_for(&self) -> Option<Duration> {
        let Contact { broken, opened } = *self.contact.lock();
        let lasts = opened.is_some_and(|at| at.elapsed() >= SHORT_LIVED);
        broken.filter(|_| !lasts).map(|since| since.elapsed())
    }

    async fn listed(&self, number: u64) {
        let mut lists = self.lists.clone();
        if lists.wait_for(|lists| lists.done >= number).await.is_err() {
            // The watch is gone, and whoever waits for it is about to go too.
            std::future::pending::<()>().await;
        }
    }
}

/// The watch of one kind.
#[derive(Debug)]
pub struct Watch<R> {
    api: Api,
    store: Store,
    metrics: Arc<Metrics>,
    scope: Scope,
    namespace: Option<String>,
    relist: Arc<Notify>,
    lists: watch::Sender<Lists>,
    contact: Arc<Mutex<Contact>>,
    kind: PhantomData<R>,
}

/// What a list or a watch came to.
enum Step {
    /// A list is complete; whether watches last is still to be seen.
    Listed,
    /// A watch brought news, or lasted.
    Watched,
    /// It ended at once without any.
    InVain,
}

/// Why a watch ended.
enum End {
    /// The server closed it, or the connection broke: go on from here.
    Closed,
    /// The revision is too old, or somebody asked for a new list.
    Relist,
}

impl<R: Stored> Watch<R> {
    /// A watch that has not begun, and its handle.
    pub fn new(
        api: Api,
        store: Store,
        metrics: Arc<Metrics>,
        scope: Scope,
        namespace: Option<String>,
    ) -> (Self, Handle) {
        let relist = Arc::new(Notify::new());
        let (sender, lists) = watch::channel(Lists::default());
        let contact = Arc::new(Mutex::default());
        let handle = Handle {
            relist: relist.clone(),
            lists,
            contact: contact.clone(),
        };
        let watch = Self {
            api,
            store,
            metrics,
            scope,
            namespace,
            relist,
            lists: sender,
            contact,
            kind: PhantomData,
        };
        (watch, handle)
    }

    /// Lists and watches until dropped.
    pub async fn run(self) {
        let mut delay = FIRST_DELAY;
        let mut since = None;
        loop {
            let step = self.step(&mut since).await;
            let in_vain = matches!(step, Ok(Step::InVain) | Err(_));
            self.note_contact(!in_vain);
            let pause = match step {
                Ok(Step::Listed) => continue,
                Ok(Step::Watched) => {
                    delay = FIRST_DELAY;
                    continue;
                }
                Ok(Step::InVain) => delay,
                Err(ApiError::Expired(_)) => {
                    self.restarted("expired");
                    since = None;
                    delay
                }
                Err(error) => {
                    self.report(&error);
                    match error {
                        ApiError::NotFound(_) => delay.max(UNKNOWN_KIND_DELAY),
                        error => error.retry_after().unwrap_or(delay),
                    }
                }
            };
            tokio::time::sleep(pause.mul_f64(1.0 + 0.2 * fastrand::f64())).await;
            delay = (delay * 2).min(LONGEST_DELAY);
        }
    }

    /// A list or watch has ended, or something was heard.
    fn note_contact(&self, heard: bool) {
        let mut contact = self.contact.lock();
        contact.opened = None;
        contact.broken = match (heard, contact.broken) {
            (true, _) => None,
            (false, since) => since.or_else(|| Some(Instant::now())),
        };
    }

    /// One list, or one watch from its begin to its end.
    async fn step(&self, since: &mut Option<Revision>) -> Result<Step, ApiError> {
        let Some(revision) = *since else {
            *since = Some(self.list().await?);
            return Ok(Step::Listed);
        };
        let began = Instant::now();
        let (end, reached) = self.follow(revision).await?;
        *since = Some(reached);
        Ok(match end {
            End::Relist => {
                *since = None;
                Step::Watched
            }
            End::Closed if reached == revision && began.elapsed() < SHORT_LIVED => Step::InVain,
            End::Closed => Step::Watched,
        })
    }

    fn report(&self, error: &ApiError) {
        self.restarted(error.class());
        let kind = R::KIND;
        match error {
            ApiError::NotFound(_) => tracing::warn!(
                kind,
                %error,
                "the API server does not know this kind; install the CustomResourceDefinitions"
            ),
            ApiError::Forbidden(_) if self.scope.optional => {
                tracing::info!(kind, %error, "not allowed to watch this kind; going on without");
            }
            ApiError::Forbidden(_) => {
                tracing::error!(kind, %error, "not allowed to watch this kind; grant list and watch");
            }
            _ => tracing::warn!(kind, %error, "list or watch failed; trying again"),
        }
    }

    fn restarted(&self, cause: &str) {
        self.metrics
            .watch_restarts
            .with_label_values(&[R::KIND, cause])
            .inc();
    }

    /// Lists everything and returns the list's revision.
    async fn list(&self) -> Result<Revision, ApiError> {
        self.lists.send_modify(|lists| lists.begun = lists.done + 1);
        let mut listed = BTreeSet::new();
        let mut token: Option<String> = None;
        loop {
            let page = self
                .api
                .list::<R::Wire>(
                    self.scope.resource,
                    self.namespace.as_deref(),
                    self.scope.selector,
                    PAGE,
                    token.as_deref(),
                )
                .await?;
            let revision = page.revision()?;
            let next = page.next().map(ToOwned::to_owned);
            for wire in page.items {
                match self.store.observe::<R>(wire, Seen::InList) {
                    Ok((key, _)) => {
                        listed.insert(key);
                    }
                    Err(error) => tracing::error!(%error, "an object was skipped"),
                }
            }
            if next.is_none() {
                self.store.finish_list::<R>(revision, &listed);
                self.lists.send_modify(|lists| lists.done += 1);
                tracing::debug!(kind = R::KIND, objects = listed.len(), %revision, "listed");
                return Ok(revision);
            }
            token = next;
        }
    }

    /// Watches from `revision` until the watch ends, and returns the revision reached.
    async fn follow(&self, mut revision: Revision) -> Result<(End, Revision), ApiError> {
        let timeout = Duration::from_secs(fastrand::u64(WATCH_SECONDS));
        let events = self
            .api
            .watch::<R::Wire>(
                self.scope.resource,
                self.namespace.as_deref(),
                self.scope.selector,
                revision,
                timeout,
            )
            .await?;
        tokio::pin!(events);
        self.contact.lock().opened = Some(Instant::now());
        loop {
            let event = tokio::select! {
                biased;
                () = self.relist.notified() => return Ok((End::Relist, revision)),
                event = tokio::time::timeout(timeout + DEAD_AFTER, events.next()) => event,
            };
            let event = match event {
                Ok(Some(Ok(event))) => event,
                Ok(None) => return Ok((End::Closed, revision)),
                Ok(Some(Err(ApiError::Unreadable(error)))) => {
                    // One object that does not decode must not stop all others.
                    tracing::error!(kind = R::KIND, error, "a watch event was skipped");
                    continue;
                }
                // What was seen so far counts: go on from there.
                Ok(Some(Err(error))) => {
                    tracing::debug!(kind = R::KIND, %error, "watch broke off");
                    self.restarted(error.class());
                    return Ok((End::Closed, revision));
                }
                Err(_) => {
                    self.restarted("silent");
                    return Ok((End::Closed, revision));
                }
            };
            let taken = match event {
                WatchEvent::Added(wire) | WatchEvent::Modified(wire) => self
                    .store
                    .observe::<R>(wire, Seen::InWatch)
                    .map(|(_, at)| at),
                WatchEvent::Deleted(wire) => self.store.observe_deleted::<R>(wire),
                WatchEvent::Bookmark(bookmark) => {
                    if let Some(at) = bookmark.revision() {
                        self.store.observe_progress::<R>(at);
                        revision = revision.max(at);
                    }
                    continue;
                }
                WatchEvent::Error(status) => return Err(watch_error(&status)),
            };
            match taken {
                Ok(at) => revision = revision.max(at),
                Err(error) => tracing::error!(%error, "a watch event was skipped"),
            }
        }
    }
}

fn watch_error(status: &Value) -> ApiError {
    let code = status
        .get("code")
        .and_then(Value::as_u64)
        .and_then(|code| u16::try_from(code).ok())
        .unwrap_or(500);
    ApiError::from_answer(code, None, status.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use agent_sandbox_service::tasks::Tasks;
    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use kube::Client;
    use kube::client::Body;
    use prometheus::Registry;
    use serde_json::json;

    use super::*;
    use crate::api::{self, SANDBOXES};
    use crate::expiry::Deadlines;
    use crate::fence::Fence;
    use crate::fixtures::uid;
    use crate::objects::SandboxRow;
    use crate::store::Queues;

    /// A server that answers calls one after the other as written down, and then never again.
    fn scripted(script: &[(u16, Value)]) -> (Client, Arc<Mutex<Vec<String>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(Mutex::new(VecDeque::from(script.to_vec())));
        let asked_too = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            asked_too
                .lock()
                .push(request.uri().query().unwrap_or_default().to_owned());
            let next = script.lock().pop_front();
            async move {
                let Some((code, answer)) = next else {
                    return std::future::pending().await;
                };
                // A watch is one line per event.
                let lines = match answer.as_array() {
                    Some(events) => events.iter().map(Value::to_string).collect::<Vec<_>>(),
                    None => vec![answer.to_string()],
                };
                let lines = lines.join("\n");
                let body = Full::new(Bytes::from(lines));
                Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
            }
        });
        (Client::new(service, "n"), asked)
    }

    fn sandbox(name: &str, revision: u64) -> Value {
        json!({"metadata": {
            "name": name, "namespace": "n", "uid": uid(revision),
            "resourceVersion": revision.to_string(),
        }, "spec": {}})
    }

    #[tokio::test(start_paused = true)]
    async fn pages_bookmarks_and_revisions_that_are_too_old() {
        let page = |items: &[Value], next: &str, revision: u64| {
            let metadata = json!({"resourceVersion": revision.to_string(), "continue": next});
            (200, json!({"metadata": metadata, "items": items}))
        };
        let gone =
            json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"});
        let bookmark = json!({"type": "BOOKMARK", "object": sandbox("", 50)});
        let (client, asked) = scripted(&[
            // The token of the second page is too old: everything anew.
            page(&[sandbox("a", 1)], "token=1", 10),
            (410, gone.clone()),
            page(&[sandbox("a", 1)], "token=2", 20),
            page(&[sandbox("b", 2)], "", 20),
            // A watch that brings a bookmark and ends goes on from there.
            (200, json!([bookmark])),
            (200, json!([{"type": "ADDED", "object": sandbox("c", 60)}])),
            // A revision that is too old, said in the watch.
            (200, json!([{"type": "ERROR", "object": gone}])),
            page(&[sandbox("b", 2), sandbox("c", 60)], "", 70),
        ]);
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let settings = api::Settings {
            fence: Fence::open(),
            limit: None,
            metrics: metrics.api.clone(),
            host: "test".to_owned(),
            timeout: Duration::from_secs(30),
        };
        let api = Api::new(vec![client.clone()], client, settings);
        let store = Store::new(Queues::default(), Deadlines::new());
        let scope = Scope {
            resource: &SANDBOXES,
            selector: None,
            optional: false,
        };
        let (watch, handle) =
            Watch::<SandboxRow>::new(api, store.clone(), metrics.clone(), scope, None);
        let tasks = Tasks::new("test");
        tasks.spawn("watch", watch.run());
        handle.synced().await;
        tokio::time::sleep(Duration::from_secs(5)).await;

        let asked: Vec<String> = asked
            .lock()
            .iter()
            .map(|query| {
                let (query, _) = query.split_once("&timeoutSeconds").unwrap_or((query, ""));
                query.to_owned()
            })
            .collect();
        let watch = "watch=true&allowWatchBookmarks=true&resourceVersion=";
        let expected = [
            "limit=500".to_owned(),
            "limit=500&continue=token%3D1".to_owned(),
            "limit=500".to_owned(),
            "limit=500&continue=token%3D2".to_owned(),
            format!("{watch}20"),
            format!("{watch}50"),
            format!("{watch}60"),
            "limit=500".to_owned(),
            format!("{watch}70"),
        ];
        assert_eq!(asked, expected);
        let names: Vec<String> = store.read(|state| {
            let rows = state.sandboxes();
            rows.map(|row| row.head.key.name.to_string()).collect()
        });
        assert_eq!(names, ["b", "c"]);
        let expired = metrics
            .watch_restarts
            .with_label_values(&["Sandbox", "expired"]);
        assert_eq!(expired.get(), 2);
    }

    #[tokio::test]
    async fn a_list_under_way_is_too_old_for_a_refresh() {
        let (lists, receiver) = watch::channel(Lists { begun: 2, done: 1 });
        let handle = Handle {
            relist: Arc::new(Notify::new()),
            lists: receiver,
            contact: Arc::default(),
        };
        let mut refresh = std::pin::pin!(handle.refresh());
        assert!(futures::poll!(&mut refresh).is_pending());
        lists.send_modify(|lists| lists.done = 2);
        assert!(futures::poll!(&mut refresh).is_pending());
        lists.send_modify(|lists| *lists = Lists { begun: 3, done: 3 });
        assert!(futures::poll!(&mut refresh).is_ready());
    }
}
