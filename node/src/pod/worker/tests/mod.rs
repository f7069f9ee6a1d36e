//! Pods from beginning to end: a real node with real processes in front of a test API.

use std::time::Duration;

use agent_sandbox_service::shutdown::Shutdown;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

mod ending;
mod node;
mod running;
mod volumes;

use crate::test_api::TestApi;
use crate::test_wait::eventually;
use crate::{ClaimData, Node, NodeBuilder, StateDirError};

const PODS: &str = "/api/v1/namespaces/ns/pods";

struct Cluster {
    api: TestApi,
    router: axum::Router,
    shutdown: Shutdown,
    node: tokio::task::JoinHandle<Result<(), StateDirError>>,
    directory: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        Self::start_with(TestApi::new(), tempfile::tempdir().unwrap(), |node| node).await
    }

    async fn start_with(
        api: TestApi,
        directory: TempDir,
        adjust: impl FnOnce(NodeBuilder) -> NodeBuilder,
    ) -> Self {
        let node = Node::builder(api.client(), directory.path().join("state"))
            .stop_grace(Duration::from_millis(200))
            .claim_data(ClaimData::Remove);
        let node = adjust(node).build().await.unwrap();
        let shutdown = Shutdown::new();
        let router = node.router();
        #[allow(clippy::disallowed_methods, reason = "joined by stop")]
        let node = tokio::spawn(Box::pin(node.run(shutdown.clone())));
        Self {
            api,
            router,
            shutdown,
            node,
            directory,
        }
    }

    async fn stop(self) -> (TestApi, TempDir) {
        self.shutdown.trigger();
        self.node.await.unwrap().unwrap();
        (self.api, self.directory)
    }

    /// Creates a pod that is already bound, as one container with a shell script or as given.
    fn pod(&self, name: &str, mut spec: Value) {
        spec["nodeName"] = json!("local");
        self.unbound_pod(name, spec);
    }

    /// Creates a pod for the scheduler.
    fn unbound_pod(&self, name: &str, mut spec: Value) {
        for list in ["containers", "initContainers"] {
            let containers = spec[list].as_array_mut().into_iter().flatten();
            for container in containers {
                if container["image"].is_null() {
                    container["image"] = json!("busybox:1.36");
                }
            }
        }
        let pod = json!({"metadata": {"generation": 1}, "spec": spec});
        self.api.put(&format!("{PODS}/{name}"), pod);
    }

    async fn until(&self, name: &str, check: impl Fn(&Value) -> bool) -> Value {
        let path = format!("{PODS}/{name}");
        let found = self.api.until(&path, |pod| pod.is_some_and(&check));
        found.await.unwrap()
    }

    async fn until_phase(&self, name: &str, phase: &str) -> Value {
        self.until(name, |pod| pod["status"]["phase"] == phase)
            .await
    }

    async fn until_ready(&self, name: &str) -> Value {
        self.until(name, |pod| condition(pod, "Ready") == "True")
            .await
    }

    async fn until_gone(&self, name: &str) {
        let path = format!("{PODS}/{name}");
        self.api.until(&path, |pod| pod.is_none()).await;
    }

    /// Deletes a pod as `kubectl delete --grace-period` does.
    fn delete(&self, name: &str, grace: u64) {
        let path = format!("{PODS}/{name}");
        let mut pod = self.api.get(&path).unwrap();
        pod["metadata"]["deletionTimestamp"] = json!(jiff::Timestamp::now().to_string());
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.api.put(&path, pod);
    }

    async fn logs(&self, name: &str, container: &str) -> String {
        let uri = format!("/containerLogs/ns/{name}/{container}");
        let request = Request::get(uri).body(axum::body::Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    async fn until_logs(&self, name: &str, check: impl Fn(&str) -> bool) -> String {
        eventually(&format!("logs of {name}"), async || {
            let logs = self.logs(name, "main").await;
            check(&logs).then_some(logs)
        })
        .await
    }

    /// Waits for the first event with a reason; its message.
    async fn until_event(&self, reason: &str) -> String {
        eventually(&format!("an event {reason}"), async || {
            let events = self.api.list("/api/v1/namespaces/ns/events/");
            let event = events.iter().find(|event| event["reason"] == reason)?;
            Some(event["message"].as_str().unwrap().to_owned())
        })
        .await
    }

    fn status_writes(&self, name: &str) -> Vec<Value> {
        let path = format!("{PODS}/{name}/status");
        let writes = self.api.writes().into_iter();
        writes
            .filter(|write| write.1 == path)
            .map(|write| write.2)
            .collect()
    }
}

fn shell(script: &str) -> Value {
    json!({"containers": [{"name": "main", "command": ["sh", "-c", script]}]})
}

fn once(script: &str) -> Value {
    let mut spec = shell(script);
    spec["restartPolicy"] = json!("Never");
    spec
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let conditions = pod["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|c| c["type"] == kind);
    found
        .and_then(|condition| condition["status"].as_str())
        .unwrap_or("")
}

fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}
