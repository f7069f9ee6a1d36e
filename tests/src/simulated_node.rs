//! A node that turns every pod Ready at once, with an address and no process.
//!
//! For suites about decisions, not processes: hundreds of pods cost nothing. Graceful deletions are
//! finished at once.

use std::pin::pin;

use agent_sandbox_service::shutdown::Shutdown;
use futures::TryStreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

/// Annotation with which a pod's template asks for another phase than `Running`.
pub const PHASE: &str = "tests.agents/phase";

/// Serves pods until `shutdown`.
pub async fn run(client: Client, shutdown: Shutdown) {
    let pods: Api<Pod> = Api::all(client.clone());
    let events = watcher(pods, watcher::Config::default())
        .default_backoff()
        .applied_objects();
    let mut events = pin!(events);
    let mut addresses = 0_u32;
    loop {
        let next = tokio::select! {
            () = shutdown.triggered() => return,
            next = events.try_next() => next,
        };
        match next {
            Ok(Some(pod)) => {
                if let Err(error) = serve(&client, &pod, &mut addresses).await {
                    tracing::debug!(pod = pod.name_any(), %error, "the pod changed meanwhile");
                }
            }
            Ok(None) => return,
            Err(error) => tracing::debug!(%error, "the watch of pods restarts"),
        }
    }
}

async fn serve(client: &Client, pod: &Pod, addresses: &mut u32) -> kube::Result<()> {
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let name = pod.name_any();
    if pod.metadata.deletion_timestamp.is_some() {
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: pod.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        return api.delete(&name, &parameters).await.map(|_| ());
    }
    let phase = pod
        .annotations()
        .get(PHASE)
        .map_or("Running", String::as_str);
    if pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        == Some(phase)
    {
        return Ok(());
    }
    *addresses += 1;
    let status = status(phase, *addresses, pod);
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .map(|_| ())
}

fn status(phase: &str, number: u32, pod: &Pod) -> Value {
    let [_, second, third, fourth] = number.to_be_bytes();
    // On loopback, so that a test can listen where its pods seem to be.
    let address = format!("127.{}.{third}.{fourth}", second + 100);
    let ready = if phase == "Running" { "True" } else { "False" };
    let now = Timestamp::now().to_string();
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": now});
    json!({
        "metadata": {"uid": pod.uid()},
        "status": {
            "phase": phase,
            "hostIP": "10.255.0.1",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": now,
            "conditions": [
                condition("PodScheduled", "True"),
                condition("Initialized", "True"),
                condition("ContainersReady", ready),
                condition("Ready", ready),
            ],
        },
    })
}
