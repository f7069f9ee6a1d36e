//! Feeds the table from watches over sandbox pods and Sandboxes.
//!
//! Each watch runs for the life of the router, relists by itself when its history is lost, and backs
//! off while the API server refuses. The table keeps answering from what it last saw.

use std::fmt::Debug;
use std::sync::Arc;

use agent_sandbox_crds::labels;
use agent_sandbox_service::readiness::Gate;
use futures::{Stream, StreamExt, TryStreamExt};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher::watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::object::{Pod, Pool, Sandbox};
use super::table::{Index, Kind, Table, Uid};

/// Events that are applied and published together at most.
const BATCH: usize = 512;
/// Objects asked for in one page of a list.
const PAGE: u32 = 500;
/// The router's account lacks a right.
const FORBIDDEN: u16 = 403;
/// The kind is not there.
const NOT_FOUND: u16 = 404;

/// Watches pods for ever. `gate` opens when the first list has been applied.
pub(crate) async fn watch_pods(
    client: Client,
    namespace: Option<String>,
    table: Arc<Table>,
    gate: Gate,
) {
    let api: Api<Pod> = scoped(client, namespace.as_deref());
    let config = watcher::Config::default()
        .labels(labels::SANDBOX_NAME_HASH)
        .page_size(PAGE);
    let apply = |index: &mut Index, pod: &Pod| match pod.facts(index) {
        Some(facts) => index.apply_pod(facts),
        // The pod may have been ours before its owner changed.
        None => {
            if let Some(uid) = pod.uid() {
                index.delete_pod(&uid);
            }
        }
    };
    let delete = |index: &mut Index, uid: &Uid| index.delete_pod(uid);
    let feed = Feed {
        kind: Kind::Pods,
        what: "pods",
        table,
        gate: Some(gate),
    };
    feed.run(watcher(api, config), apply, delete, Pod::uid)
        .await;
}

/// Watches Sandboxes for ever. `gate` opens when the first list has been applied.
pub(crate) async fn watch_sandboxes(
    client: Client,
    namespace: Option<String>,
    table: Arc<Table>,
    gate: Gate,
) {
    let api: Api<Sandbox> = scoped(client, namespace.as_deref());
    let config = watcher::Config::default().page_size(PAGE);
    let apply = |index: &mut Index, sandbox: &Sandbox| {
        if let Some(facts) = sandbox.facts(index) {
            index.apply_sandbox(facts);
        }
    };
    let delete = |index: &mut Index, uid: &Uid| index.delete_sandbox(uid);
    let feed = Feed {
        kind: Kind::Sandboxes,
        what: "sandboxes.agents.x-k8s.io",
        table,
        gate: Some(gate),
    };
    feed.run(watcher(api, config), apply, delete, Sandbox::uid)
        .await;
}

/// Watches pools for ever, for what they have given to claims: the operator says so there before it brings
/// Sandbox and pod in line, which in a burst takes it seconds. The router can do without.
pub(crate) async fn watch_pools(client: Client, namespace: Option<String>, table: Arc<Table>) {
    let api: Api<Pool> = scoped(client, namespace.as_deref());
    let config = watcher::Config::default().page_size(PAGE);
    let apply = |index: &mut Index, pool: &Pool| {
        if let Some(facts) = pool.facts(index) {
            index.apply_pool(facts);
        }
    };
    let delete = |index: &mut Index, uid: &Uid| index.delete_pool(uid);
    let feed = Feed {
        kind: Kind::Pools,
        what: "sandboxwarmpools.extensions.agents.x-k8s.io",
        table,
        gate: None,
    };
    feed.run(watcher(api, config), apply, delete, Pool::uid)
        .await;
}

fn scoped<K>(client: Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

/// One watch and where its events go.
struct Feed {
    kind: Kind,
    what: &'static str,
    table: Arc<Table>,
    /// What stays closed until the first list has been applied.
    gate: Option<Gate>,
}

impl Feed {
    async fn run<K>(
        self,
        events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
        apply: impl Fn(&mut Index, &K) + Send,
        delete: impl Fn(&mut Index, &Uid) + Send,
        uid: impl Fn(&K) -> Option<Uid> + Send,
    ) where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        if let Some(gate) = &self.gate {
            gate.set_not_ready(format!("waiting for the first list of {}", self.what));
        }
        let mut first = true;
        let events = events
            .default_backoff()
            .inspect_err(|error| self.report(error))
            .filter_map(|event| std::future::ready(event.ok()))
            .ready_chunks(BATCH);
        let mut events = std::pin::pin!(events);
        while let Some(batch) = events.next().await {
            let mut complete = false;
            self.table.update(|index| {
                for event in &batch {
                    match event {
                        Event::Init => index.begin_list(self.kind),
                        Event::InitApply(object) | Event::Apply(object) => apply(index, object),
                        Event::InitDone => {
                            index.end_list(self.kind);
                            complete = true;
                        }
                        Event::Delete(object) => {
                            if let Some(uid) = uid(object) {
                                delete(index, &uid);
                            }
                        }
                    }
                }
            });
            if complete && first {
                first = false;
                self.table.set_loaded(self.kind);
                if let Some(gate) = &self.gate {
                    gate.set_ready();
                }
                tracing::info!(
                    what = self.what,
                    known = self.table.len(),
                    "first list applied"
                );
            }
        }
    }

    /// Says what goes wrong, with the remedy for the usual cause.
    fn report(&self, error: &watcher::Error) {
        let what = self.what;
        match code(error) {
            Some(FORBIDDEN) => {
                let remedy =
                    format!("grant get, list and watch on {what} to the router's service account");
                self.gate_note(&remedy);
                if self.gate.is_some() {
                    tracing::error!(what, %error, remedy, "the API server forbids the watch");
                } else {
                    tracing::warn!(what, %error, remedy, "the API server forbids the watch; going on without");
                }
            }
            // A cluster may do without the kind.
            Some(NOT_FOUND) if self.gate.is_none() => {
                tracing::debug!(what, %error, "the API server does not know the kind; going on without");
            }
            _ => {
                self.gate_note(&error.to_string());
                tracing::warn!(what, %error, "watch interrupted; it is resumed");
            }
        }
    }

    /// While the first list is missing, readiness says why. Afterwards the table stays usable.
    fn gate_note(&self, why: &str) {
        if let Some(gate) = &self.gate
            && !self.table.has_loaded(self.kind)
        {
            gate.set_not_ready(format!("{}: {why}", self.what));
        }
    }
}

/// The status code of an answer of the API server.
fn code(error: &watcher::Error) -> Option<u16> {
    use watcher::Error;
    let status = match error {
        Error::InitialListFailed(source)
        | Error::WatchStartFailed(source)
        | Error::WatchFailed(source) => match source {
            kube::Error::Api(status) => status,
            _ => return None,
        },
        Error::WatchError(status) => status,
        Error::NoResourceVersion => return None,
    };
    Some(status.code)
}
