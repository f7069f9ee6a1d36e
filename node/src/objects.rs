//! Config maps and secrets that pods refer to, followed while somebody needs them.
//!
//! Each object is watched by itself, once, however many pods use it: nothing else of the cluster is
//! held in memory, a missing object is noticed the moment it appears, and a change reaches volumes
//! without polling. The watch ends with its last [`Subscription`].

use std::collections::{BTreeMap, HashMap};
use std::str::Utf8Error;
use std::sync::{Arc, Weak};

use agent_sandbox_service::tasks::Tasks;
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The data of a config map or secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Payload {
    /// What environments and volumes can use.
    data: BTreeMap<String, Vec<u8>>,
    /// What only volumes can use (`binaryData`).
    binary: BTreeMap<String, Vec<u8>>,
}

impl Payload {
    /// A payload of these pairs.
    #[cfg(test)]
    pub(crate) fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Self {
        Self {
            data: pairs
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            binary: BTreeMap::new(),
        }
    }

    /// The value of a key as text; `None` when there is no such key.
    pub(crate) fn text(&self, key: &str) -> Option<Result<&str, Utf8Error>> {
        self.data.get(key).map(|value| std::str::from_utf8(value))
    }

    /// Every key with its value as text.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, Result<&str, Utf8Error>)> {
        let text = |value| std::str::from_utf8(value);
        self.data
            .iter()
            .map(move |(key, value)| (key.as_str(), text(value)))
    }

    /// The value of a key as a file's content.
    pub(crate) fn file(&self, key: &str) -> Option<&[u8]> {
        let value = self.data.get(key).or_else(|| self.binary.get(key))?;
        Some(value)
    }

    /// Every key with its value as a file's content.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.data
            .iter()
            .chain(&self.binary)
            .map(|(key, value)| (key.as_str(), value.as_slice()))
    }
}

impl From<ConfigMap> for Payload {
    fn from(object: ConfigMap) -> Self {
        let text = object.data.unwrap_or_default().into_iter();
        Self {
            data: text.map(|(key, value)| (key, value.into_bytes())).collect(),
            binary: bytes(object.binary_data),
        }
    }
}

impl From<Secret> for Payload {
    fn from(object: Secret) -> Self {
        Self {
            data: bytes(object.data),
            binary: BTreeMap::new(),
        }
    }
}

fn bytes(map: Option<BTreeMap<String, ByteString>>) -> BTreeMap<String, Vec<u8>> {
    let map = map.unwrap_or_default().into_iter();
    map.map(|(key, value)| (key, value.0)).collect()
}

/// Which kind an object is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    /// The kind in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// What is known about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// Not read yet.
    Pending,
    /// It does not exist.
    Absent,
    /// Its data.
    Present(Arc<Payload>),
}

type Key = (Kind, String, String);

/// Hands out subscriptions. Clones share the watches.
#[derive(Clone)]
pub(crate) struct ObjectWatches {
    client: Client,
    tasks: Tasks,
    watches: Arc<Mutex<HashMap<Key, Weak<Watch>>>>,
}

impl std::fmt::Debug for ObjectWatches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectWatches")
            .field("watches", &self.watches.lock().len())
            .finish_non_exhaustive()
    }
}

/// One watched object; the watch ends when this is dropped.
#[derive(Debug)]
struct Watch {
    value: watch::Receiver<Known>,
    _stop: DropGuard,
}

/// A view of one object that stays current.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    value: watch::Receiver<Known>,
    _keep: Arc<Watch>,
}

impl Subscription {
    /// Waits until the object has been read once.
    pub(crate) async fn read(&mut self) -> Known {
        match self.value.wait_for(|known| *known != Known::Pending).await {
            Ok(known) => known.clone(),
            // The watch ends only with the node.
            Err(_) => Known::Absent,
        }
    }

    /// Waits until something newer than the last value seen by [`Self::read`] or this is known.
    /// Cancel safe.
    pub(crate) async fn changed(&mut self) {
        if self.value.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl ObjectWatches {
    /// No watches yet.
    pub(crate) fn new(client: Client, tasks: Tasks) -> Self {
        Self {
            client,
            tasks,
            watches: Arc::default(),
        }
    }

    /// Follows one object, sharing the watch with everybody who does already.
    pub(crate) fn subscribe(&self, kind: Kind, namespace: &str, name: &str) -> Subscription {
        let key = (kind, namespace.to_owned(), name.to_owned());
        let mut watches = self.watches.lock();
        if let Some(watch) = watches.get(&key).and_then(Weak::upgrade) {
            return Subscription {
                value: watch.value.clone(),
                _keep: watch,
            };
        }
        watches.retain(|_, watch| watch.strong_count() > 0);
        let (sender, value) = watch::channel(Known::Pending);
        let stop = CancellationToken::new();
        match kind {
            Kind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
                let stream = watcher::watch_object(api, name).map_ok(|o| o.map(Payload::from));
                self.follow(stream, sender, stop.clone());
            }
            Kind::Secret => {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
                let stream = watcher::watch_object(api, name).map_ok(|o| o.map(Payload::from));
                self.follow(stream, sender, stop.clone());
            }
        }
        let watch = Arc::new(Watch {
            value: value.clone(),
            _stop: stop.drop_guard(),
        });
        watches.insert(key, Arc::downgrade(&watch));
        Subscription {
            value,
            _keep: watch,
        }
    }

    fn follow<S>(&self, stream: S, sender: watch::Sender<Known>, stop: CancellationToken)
    where
        S: Stream<Item = watcher::Result<Option<Payload>>> + Send + 'static,
    {
        self.tasks.spawn("object-watch", async move {
            let stream = stream.default_backoff().take_until(stop.cancelled_owned());
            let mut stream = std::pin::pin!(stream);
            while let Some(next) = stream.next().await {
                let known = match next {
                    Ok(Some(payload)) => Known::Present(Arc::new(payload)),
                    Ok(None) => Known::Absent,
                    Err(error) => {
                        // What was known stays valid; the watch starts again after a pause.
                        tracing::debug!(%error, "watching a referenced object failed");
                        continue;
                    }
                };
                sender.send_if_modified(|old| {
                    let changed = *old != known;
                    if changed {
                        *old = known;
                    }
                    changed
                });
            }
        });
    }
}
