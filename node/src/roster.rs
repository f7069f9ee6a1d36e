//! The pods that this node runs, as its HTTP routes see them: objects and logs.
//!
//! Workers keep their own entry current; the routes only read.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::process::logs::Log;

/// The logs of one container.
#[derive(Debug, Clone, Default)]
pub(crate) struct ContainerLogs {
    /// Of the run that is going on or came last.
    pub(crate) current: Option<Log>,
    /// Of the run before.
    pub(crate) previous: Option<Log>,
}

/// One pod.
#[derive(Debug)]
pub(crate) struct Entry {
    pod: RwLock<Arc<Pod>>,
    logs: RwLock<BTreeMap<String, ContainerLogs>>,
}

impl Entry {
    /// The object as last seen.
    pub(crate) fn pod(&self) -> Arc<Pod> {
        self.pod.read().clone()
    }

    /// Replaces the object.
    pub(crate) fn set_pod(&self, pod: Arc<Pod>) {
        *self.pod.write() = pod;
    }

    /// The logs of a container.
    pub(crate) fn logs(&self, container: &str) -> Option<ContainerLogs> {
        self.logs.read().get(container).cloned()
    }

    /// A new run of a container begins: its log becomes the current one, the one before the
    /// previous one is removed.
    pub(crate) fn begin_log(&self, container: &str, log: Log) {
        let mut logs = self.logs.write();
        let entry = logs.entry(container.to_owned()).or_default();
        let older = entry.current.replace(log);
        if let Some(forgotten) = std::mem::replace(&mut entry.previous, older) {
            forgotten.remove();
        }
    }
}

/// Pods by namespace and name.
type Entries = BTreeMap<(String, String), Arc<Entry>>;

/// All pods. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster {
    entries: Arc<RwLock<Entries>>,
    /// Told when a pod has left; the scheduler listens.
    left: Arc<Notify>,
}

impl Roster {
    /// Adds a pod, replacing one of the same name.
    pub(crate) fn add(&self, pod: Arc<Pod>) -> Arc<Entry> {
        let key = key(&pod);
        let entry = Arc::new(Entry {
            pod: RwLock::new(pod),
            logs: RwLock::default(),
        });
        self.entries.write().insert(key, entry.clone());
        entry
    }

    /// Removes a pod, unless another one has taken its name.
    pub(crate) fn remove(&self, entry: &Arc<Entry>) {
        let key = key(&entry.pod());
        let mut entries = self.entries.write();
        if entries
            .get(&key)
            .is_some_and(|found| Arc::ptr_eq(found, entry))
        {
            entries.remove(&key);
            drop(entries);
            self.left.notify_one();
        }
    }

    /// Waits until a pod has left since this was waited for last. For one listener.
    pub(crate) async fn left(&self) {
        self.left.notified().await;
    }

    /// Finds a pod.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.entries.read().get(&key).cloned()
    }

    /// How many pods there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.read().len()
    }

    /// Every pod, by namespace and name.
    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        self.entries
            .read()
            .values()
            .map(|entry| entry.pod())
            .collect()
    }
}

fn key(pod: &Pod) -> (String, String) {
    let meta = &pod.metadata;
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}
