//! The node's main loop: watch the pods that are bound to this node, one worker for each.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use agent_sandbox_service::tasks::Tasks;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;

use crate::context::Context;
use crate::pod::PodId;
use crate::pod::worker::{Update, Worker};

/// Hands pods to their workers until the order to stop.
pub(crate) async fn run(context: Arc<Context>, workers: Tasks) {
    let api: Api<Pod> = Api::all(context.client.clone());
    let fields = format!("spec.nodeName={}", context.node_name);
    let watch = watcher(api, watcher::Config::default().fields(&fields)).default_backoff();
    let stopping = context.stopping.clone();
    let mut events = std::pin::pin!(watch.take_until(async move { stopping.triggered().await }));
    let mut kubelet = Kubelet {
        context,
        workers,
        pods: HashMap::new(),
        listed: HashSet::new(),
    };
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => kubelet.observe(event),
            // The watch starts again after a pause of its own; pods go on meanwhile.
            Err(error) => tracing::warn!(%error, "watching pods failed"),
        }
    }
}

struct Kubelet {
    context: Arc<Context>,
    workers: Tasks,
    /// Where each worker hears of its pod, by the pod's uid.
    pods: HashMap<String, watch::Sender<Update>>,
    /// Pods seen in the list that is being read.
    listed: HashSet<String>,
}

impl Kubelet {
    fn observe(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(pod) => {
                self.listed.extend(pod.metadata.uid.clone());
                self.apply(pod);
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                self.pods.retain(|uid, updates| {
                    let exists = listed.contains(uid);
                    if !exists {
                        updates.send_replace(Update::Gone);
                    }
                    exists
                });
            }
            watcher::Event::Apply(pod) => self.apply(pod),
            watcher::Event::Delete(pod) => {
                let uid = pod.metadata.uid.unwrap_or_default();
                if let Some(updates) = self.pods.remove(&uid) {
                    updates.send_replace(Update::Gone);
                }
            }
        }
    }

    fn apply(&mut self, mut pod: Pod) {
        // Nobody here asks who wrote which field, and it is the larger half of many objects.
        pod.metadata.managed_fields = None;
        let Some(id) = PodId::of(&pod) else { return };
        let pod = Arc::new(pod);
        if let Some(updates) = self.pods.get(&id.uid) {
            updates.send_replace(Update::Present(pod));
            return;
        }
        tracing::debug!(pod = %id, "a pod was assigned");
        let (updates, receiver) = watch::channel(Update::Present(pod.clone()));
        self.pods.insert(id.uid.clone(), updates);
        let worker = Worker::new(self.context.clone(), id, pod, receiver);
        self.workers.spawn("pod", worker.run());
    }
}
