//! The node around its pods: registration, scheduling, addresses, and a second life.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

#[tokio::test]
async fn pods_of_an_earlier_node_are_taken_up_again() {
    let cluster = Cluster::start().await;
    cluster.pod("service", shell("exec sleep 1000"));
    cluster.pod("done", once("true"));
    cluster.pod("job", once("exec sleep 1000"));
    cluster.until_ready("service").await;
    cluster.until_ready("job").await;
    let done = cluster.until_phase("done", "Succeeded").await;
    let (api, directory) = cluster.stop().await;
    let cluster = Cluster::start_with(api, directory, |node| node).await;
    let service = cluster
        .until("service", |pod| container(pod)["restartCount"] == 1)
        .await;
    let last = &container(&service)["lastState"]["terminated"];
    assert_eq!(
        (&last["exitCode"], &last["reason"]),
        (&json!(137), &json!("ContainerStatusUnknown"))
    );
    cluster.until_phase("job", "Failed").await;
    let path = format!("{PODS}/done");
    assert_eq!(cluster.api.get(&path).unwrap()["status"], done["status"]);
    // A finished pod can still be deleted.
    cluster.delete("done", 30);
    cluster.until_gone("done").await;
    cluster.stop().await;
}

#[tokio::test]
async fn unbound_pods_are_scheduled_or_told_why_not() {
    let cluster = Cluster::start().await;
    let mut spec = shell("exec sleep 1000");
    cluster.unbound_pod("fits", spec.clone());
    cluster.until_ready("fits").await;
    let message = cluster.until_event("Scheduled").await;
    assert_eq!(message, "Successfully assigned ns/fits to local");
    spec["nodeSelector"] = json!({"disk": "ssd"});
    cluster.unbound_pod("picky", spec);
    let pod = cluster
        .until("picky", |pod| condition(pod, "PodScheduled") == "False")
        .await;
    let message = pod["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("node affinity/selector"), "{message}");
    // The node changes, and the pod fits.
    let mut node = cluster.api.get("/api/v1/nodes/local").unwrap();
    node["metadata"]["labels"]["disk"] = json!("ssd");
    cluster.api.put("/api/v1/nodes/local", node);
    cluster.until_ready("picky").await;
    cluster.stop().await;
}

#[tokio::test]
async fn the_node_registers_itself_and_holds_a_lease() {
    let cluster = Cluster::start().await;
    let node = cluster.api.until("/api/v1/nodes/local", |node| {
        node.is_some_and(|node| !node["status"]["conditions"].is_null())
    });
    let node = node.await.unwrap();
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/os"], "linux");
    assert_eq!(condition(&node, "Ready"), "True");
    assert_eq!(condition(&node, "ProcessIsolation"), "True");
    assert_eq!(node["status"]["addresses"][0]["address"], "127.0.0.1");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/local";
    let lease = cluster
        .api
        .until(lease, |lease| lease.is_some())
        .await
        .unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "local");
    let (api, _directory) = cluster.stop().await;
    let node = api.get("/api/v1/nodes/local").unwrap();
    assert_eq!(condition(&node, "Ready"), "False");
}

#[tokio::test]
async fn two_pods_share_nothing_but_the_port() {
    let cluster = Cluster::start().await;
    let serve = "import http.server, os, sys\n\
        class H(http.server.BaseHTTPRequestHandler):\n    \
            def do_GET(self):\n        \
                self.send_response(200); self.end_headers(); self.wfile.write(os.environ['NAME'].encode())\n\
        http.server.HTTPServer((os.environ['IP'], 8888), H).serve_forever()\n";
    let spec = |name: &str| {
        json!({"containers": [{
            "name": "main", "image": "python:3",
            "command": ["python", "-c", serve],
            "ports": [{"name": "http", "containerPort": 8888}],
            "readinessProbe": {"httpGet": {"port": "http"}},
            "env": [
                {"name": "NAME", "value": name},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ],
        }]})
    };
    let mut addresses = Vec::new();
    for name in ["a", "b"] {
        cluster.pod(name, spec(name));
    }
    for name in ["a", "b"] {
        let pod = cluster.until_ready(name).await;
        addresses.push(pod["status"]["podIP"].as_str().unwrap().to_owned());
    }
    assert_ne!(addresses[0], addresses[1]);
    for (address, name) in addresses.iter().zip(["a", "b"]) {
        let mut stream = TcpStream::connect((address.as_str(), 8888)).await.unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(body, name);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_binding_that_fails_is_tried_again() {
    let cluster = Cluster::start().await;
    cluster.api.refuse_once(&format!("{PODS}/p/binding"));
    cluster.unbound_pod("p", shell("exec sleep 1000"));
    cluster.until_ready("p").await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_pod_that_found_no_room_is_bound_when_another_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = Cluster::start_with(TestApi::new(), directory, |node| node.max_pods(1)).await;
    cluster.unbound_pod("first", shell("exec sleep 1000"));
    cluster.until_ready("first").await;
    cluster.unbound_pod("second", shell("exec sleep 1000"));
    let pod = cluster
        .until("second", |pod| condition(pod, "PodScheduled") == "False")
        .await;
    let message = pod["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("Too many pods"), "{message}");
    cluster.delete("first", 0);
    cluster.until_ready("second").await;
    cluster.stop().await;
}
