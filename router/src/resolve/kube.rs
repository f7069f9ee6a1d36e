//! Feeds the table from watches over sandbox pods, Sandboxes and pools.
//!
//! Each watch runs for the life of the router, relists by itself when its history is lost, and backs
//! off while the API server refuses. The table keeps answering from what it last saw. A fault that
//! lasts is said when it begins and then rarely, and its end is said too.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::readiness::Gate;
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use kube::runtime::{WatchStreamExt, watcher::watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

pub(crate) use super::object::{Pod, Pool, Sandbox};
use super::table::{Index, Kind, Table, Uid};

/// Events that are applied and published together at most.
const BATCH: usize = 512;
/// Objects asked for in one page of a list.
const PAGE: u32 = 500;
/// The router's account lacks a right.
const FORBIDDEN: u16 = 403;
/// The history since a version is lost.
const GONE: u16 = 410;
/// The kind is not there.
const NOT_FOUND: u16 = 404;
/// How often a fault that lasts is said again.
const REMINDER: Duration = Duration::from_secs(300);

/// A kind that is watched, and what its objects do to the table.
pub(crate) trait Watched:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + 'static
{
    /// Whose first list it is.
    const KIND: Kind;
    /// The label that objects must have to be of interest.
    const LABEL: Option<&'static str> = None;

    /// Brings the table up to date with an object that was added or changed.
    fn apply(&self, index: &mut Index);

    /// The same for one that is gone.
    fn delete(index: &mut Index, uid: &Uid);

    /// Its UID, if it has one that can be one.
    fn uid(&self) -> Option<Uid> {
        self.meta().uid.as_deref().and_then(Uid::parse)
    }
}

/// Watches one kind for ever. `gate` opens when the first list has been applied; a kind without one
/// is one that the router can do without.
pub(crate) async fn watch<K: Watched>(
    client: Client,
    namespace: Option<String>,
    table: Arc<Table>,
    gate: Option<Gate>,
) {
    let api: Api<K> = match namespace {
        Some(namespace) => Api::namespaced(client, &namespace),
        None => Api::all(client),
    };
    let mut config = watcher::Config::default().page_size(PAGE);
    if let Some(label) = K::LABEL {
        config = config.labels(label);
    }
    let feed = Feed {
        kind: K::KIND,
        what: match &*K::group(&()) {
            "" => K::plural(&()).into_owned(),
            group => format!("{}.{group}", K::plural(&())),
        },
        table,
        gate,
        trouble: None,
    };
    let events = listed_again(move || watcher(api.clone(), config.clone()).boxed());
    let events = events.backoff(Patience::default());
    feed.run(events.ready_chunks(BATCH)).await;
}

/// The events of one watch after the other: a new one, which begins with a list, replaces one whose history
/// is lost. A watch sees that by itself when it is told as an event, but not when it is told as the
/// answer to its request.
fn listed_again<K: Watched>(
    watch: impl Fn() -> BoxStream<'static, watcher::Result<Event<K>>>,
) -> impl futures::Stream<Item = watcher::Result<Event<K>>> {
    futures::stream::unfold((None, watch), async |(events, watch)| {
        let mut events = events.unwrap_or_else(&watch);
        let event = events.next().await?;
        let is_lost = matches!(&event, Err(error) if code(error) == Some(GONE));
        Some((event, ((!is_lost).then_some(events), watch)))
    })
}

/// One watch and where its events go.
struct Feed {
    kind: Kind,
    what: String,
    table: Arc<Table>,
    /// What stays closed until the first list has been applied.
    gate: Option<Gate>,
    trouble: Option<Trouble>,
}

/// A fault that lasts, and when it was last said.
struct Trouble {
    fault: Fault,
    said: Instant,
}

/// What keeps a watch from working.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    Forbidden,
    UnknownKind,
    Interrupted,
}

impl Feed {
    async fn run<K: Watched>(
        mut self,
        events: impl futures::Stream<Item = Vec<watcher::Result<Event<K>>>> + Send,
    ) {
        if let Some(gate) = &self.gate {
            gate.set_not_ready(format!("waiting for the first list of {}", self.what));
        }
        let mut first = true;
        let mut events = std::pin::pin!(events);
        while let Some(batch) = events.next().await {
            let mut complete = false;
            self.table.update(|index| {
                for event in batch.iter().flatten() {
                    match event {
                        Event::Init => index.begin_list(self.kind),
                        Event::InitApply(object) | Event::Apply(object) => object.apply(index),
                        Event::InitDone => {
                            index.end_list(self.kind);
                            complete = true;
                        }
                        Event::Delete(object) => {
                            if let Some(uid) = object.uid() {
                                K::delete(index, &uid);
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
            for event in &batch {
                match event {
                    // A list that begins may still be refused.
                    Ok(Event::Init) => {}
                    Ok(_) => self.recovered(),
                    Err(error) => self.failed(error),
                }
            }
        }
    }

    fn recovered(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!(what = self.what, "the watch works again");
        }
    }

    /// Says what goes wrong, with the remedy for the usual cause.
    fn failed(&mut self, error: &watcher::Error) {
        let what = self.what.as_str();
        let fault = Fault::of(error);
        let remedy =
            || format!("grant get, list and watch on {what} to the router's service account");
        self.gate_note(&match fault {
            Fault::Forbidden => remedy(),
            Fault::UnknownKind | Fault::Interrupted => error.to_string(),
        });
        let now = Instant::now();
        if let Some(trouble) = &self.trouble
            && trouble.fault == fault
            && now.duration_since(trouble.said) < REMINDER
        {
            return;
        }
        match (fault, &self.gate) {
            (Fault::Forbidden, Some(_)) => {
                let remedy = remedy();
                tracing::error!(what, %error, remedy, "the API server forbids the watch");
            }
            (Fault::Forbidden, None) => {
                let remedy = remedy();
                tracing::warn!(what, %error, remedy, "the API server forbids the watch; going on without");
            }
            // A cluster may do without the kind.
            (Fault::UnknownKind, None) => {
                tracing::info!(what, %error, "the API server does not know the kind; going on without");
            }
            (Fault::UnknownKind, Some(_)) | (Fault::Interrupted, _) => {
                tracing::warn!(what, %error, "watch interrupted; it is resumed");
            }
        }
        self.trouble = Some(Trouble { fault, said: now });
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

impl Fault {
    fn of(error: &watcher::Error) -> Self {
        match code(error) {
            Some(FORBIDDEN) => Self::Forbidden,
            Some(NOT_FOUND) => Self::UnknownKind,
            _ => Self::Interrupted,
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

/// Waits ever longer between attempts that fail, up to half a minute, and starts anew when there was no
/// failure for some minutes.
///
/// The default of the library starts anew at every event too, and a list that is about to be refused
/// begins with one: the API server would be asked once a second for ever.
#[derive(Default)]
struct Patience(DefaultBackoff);

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next()
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        // Only time does.
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use kube::runtime::watcher::Error;

    use super::super::table::Trust;
    use super::*;

    fn feed() -> Feed {
        Feed {
            kind: Kind::Pools,
            what: "pools".to_owned(),
            table: Arc::new(Table::new(Trust::Sandboxes, None)),
            gate: None,
            trouble: None,
        }
    }

    fn refusal(code: u16) -> Error {
        Error::WatchError(Box::new(Status::failure("no", "Refused").with_code(code)))
    }

    /// When what was last said was said.
    fn said(feed: &Feed) -> Option<Instant> {
        feed.trouble.as_ref().map(|trouble| trouble.said)
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_that_lasts_is_said_once_and_then_rarely() {
        let mut feed = feed();
        let begin = Instant::now();
        for _ in 0..100 {
            feed.failed(&refusal(FORBIDDEN));
            assert_eq!(said(&feed), Some(begin));
            tokio::time::advance(Duration::from_secs(2)).await;
        }
        // Another fault is news, and so is the same one after a good while.
        feed.failed(&refusal(500));
        assert_eq!(said(&feed), Some(Instant::now()));
        tokio::time::advance(REMINDER).await;
        feed.failed(&refusal(500));
        assert_eq!(said(&feed), Some(Instant::now()));
        // And so is one that had ended.
        feed.recovered();
        assert_eq!(said(&feed), None);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_fail_become_rare_though_each_begins_a_list() {
        let mut patience = Patience::default();
        for _ in 0..10 {
            assert!(patience.next().unwrap() <= Duration::from_secs(60));
            patience.reset();
        }
        assert!(patience.next().unwrap() >= Duration::from_secs(15));
        tokio::time::advance(Duration::from_secs(300)).await;
        assert!(patience.next().unwrap() < Duration::from_secs(2));
    }
}
