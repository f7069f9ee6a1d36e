//! Pods from beginning to end: a real node with real processes in front of a test API.

use std::time::Duration;

use agent_sandbox_service::shutdown::Shutdown;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;

use crate::test_api::TestApi;
use crate::{ClaimData, Node, StateDirError};

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
        Self::start_with(TestApi::new(), tempfile::tempdir().unwrap()).await
    }

    async fn start_with(api: TestApi, directory: TempDir) -> Self {
        let node = Node::builder(api.client(), directory.path().join("state"))
            .stop_grace(Duration::from_millis(200))
            .claim_data(ClaimData::Remove)
            .build()
            .await
            .unwrap();
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
    fn pod(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("local");
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
        let wait = async {
            loop {
                let logs = self.logs(name, "main").await;
                if check(&logs) {
                    return logs;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .unwrap()
    }

    async fn until_event(&self, reason: &str) -> String {
        let wait = async {
            loop {
                let events = self.api.list("/api/v1/namespaces/ns/events/");
                let found = events.iter().find(|event| event["reason"] == reason);
                if let Some(event) = found {
                    return event["message"].as_str().unwrap().to_owned();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait)
            .await
            .unwrap()
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

#[tokio::test]
async fn a_pod_runs_is_ready_with_one_write_and_logs() {
    let cluster = Cluster::start().await;
    cluster.pod(
        "p",
        shell("echo \"$0 in $HOSTNAME\"; echo err >&2; exec sleep 1000"),
    );
    let pod = cluster.until_ready("p").await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert!(
        pod["status"]["podIP"]
            .as_str()
            .unwrap()
            .starts_with("127.100.")
    );
    assert_eq!(container(&pod)["restartCount"], 0);
    assert_eq!(
        cluster.status_writes("p").len(),
        1,
        "{:#?}",
        cluster.status_writes("p")
    );
    assert_eq!(cluster.status_writes("p")[0]["metadata"]["uid"], "uid-of-p");
    let logs = cluster
        .until_logs("p", |logs| logs.lines().count() == 2)
        .await;
    let mut lines: Vec<_> = logs.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "sh in p"]);
    assert_eq!(
        cluster.until_event("Started").await,
        "Started container main"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_job_succeeds_or_fails_with_its_message() {
    let cluster = Cluster::start().await;
    cluster.pod("good", once("echo -n all well > /dev/termination-log"));
    cluster.pod("bad", once("echo broken; exit 3"));
    let mut spec = once("echo last words; exit 4");
    spec["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    cluster.pod("fallback", spec);
    let good = cluster.until_phase("good", "Succeeded").await;
    let ended = &container(&good)["state"]["terminated"];
    assert_eq!(
        (&ended["exitCode"], &ended["reason"]),
        (&json!(0), &json!("Completed"))
    );
    assert_eq!(ended["message"], "all well");
    assert_eq!(condition(&good, "Ready"), "False");
    let bad = cluster.until_phase("bad", "Failed").await;
    let ended = &container(&bad)["state"]["terminated"];
    assert_eq!(
        (&ended["exitCode"], &ended["reason"]),
        (&json!(3), &json!("Error"))
    );
    assert_eq!(ended["message"], Value::Null);
    assert_eq!(cluster.logs("bad", "main").await, "broken\n");
    let fallback = cluster.until_phase("fallback", "Failed").await;
    assert_eq!(
        container(&fallback)["state"]["terminated"]["message"],
        "last words\n"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn init_containers_and_sidecars_keep_their_order() {
    let cluster = Cluster::start().await;
    let mounts = json!([{"name": "shared", "mountPath": "/shared"}]);
    let step = |name: &str, script: &str| json!({"name": name, "command": ["sh", "-c", script], "volumeMounts": mounts});
    let mut sidecar = step(
        "side",
        "trap 'echo side-end >> /shared/log; exit 0' TERM; echo side >> /shared/log; \
         touch /tmp/up; while :; do sleep 0.02; done",
    );
    sidecar["restartPolicy"] = json!("Always");
    sidecar["startupProbe"] = json!({"exec": {"command": ["test", "-f", "/tmp/up"]}});
    cluster.pod(
        "p",
        json!({
            "restartPolicy": "Never",
            "volumes": [{"name": "shared", "emptyDir": {}}],
            "initContainers": [
                step("one", "echo one >> /shared/log"),
                sidecar,
                step("two", "echo two >> /shared/log"),
            ],
            "containers": [
                step("main", "echo main >> /shared/log; cat /shared/log; sleep 0.1"),
            ],
        }),
    );
    let pod = cluster.until_phase("p", "Succeeded").await;
    assert_eq!(cluster.logs("p", "main").await, "one\nside\ntwo\nmain\n");
    let init = pod["status"]["initContainerStatuses"].as_array().unwrap();
    let codes: Vec<_> = init
        .iter()
        .map(|c| &c["state"]["terminated"]["exitCode"])
        .collect();
    assert_eq!(codes, [0, 0, 0]);
    assert_eq!(condition(&pod, "Initialized"), "True");
    cluster.stop().await;
}

#[tokio::test]
async fn a_failing_init_container_fails_the_pod_or_is_repeated() {
    let cluster = Cluster::start().await;
    let mut spec = once("echo never");
    spec["initContainers"] = json!([{"name": "setup", "command": ["sh", "-c", "exit 9"]}]);
    cluster.pod("never", spec.clone());
    let pod = cluster.until_phase("never", "Failed").await;
    assert_eq!(
        pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"],
        9
    );
    assert!(!container(&pod)["state"]["waiting"].is_null());
    spec["restartPolicy"] = json!("OnFailure");
    cluster.pod("again", spec);
    let pod = cluster
        .until("again", |pod| {
            let init = &pod["status"]["initContainerStatuses"][0];
            init["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(pod["status"]["initContainerStatuses"][0]["restartCount"], 2);
    cluster.stop().await;
}

#[tokio::test]
async fn a_crashing_container_backs_off_and_shows_its_last_state() {
    let cluster = Cluster::start().await;
    cluster.pod("p", shell("echo run; exit 2"));
    let pod = cluster
        .until("p", |pod| {
            container(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    let status = container(&pod);
    assert_eq!(status["restartCount"], 2);
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 2);
    let message = status["state"]["waiting"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("back-off 10s restarting failed container=main"),
        "{message}"
    );
    assert_eq!(pod["status"]["phase"], "Running");
    let event = cluster.until_event("BackOff").await;
    assert!(
        event.contains("container main in pod p_ns(uid-of-p)"),
        "{event}"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn what_cannot_be_executed_is_a_start_error() {
    let cluster = Cluster::start().await;
    let mut spec = once("");
    spec["containers"][0]["command"] = json!(["no-such-program"]);
    cluster.pod("p", spec);
    let pod = cluster.until_phase("p", "Failed").await;
    let ended = &container(&pod)["state"]["terminated"];
    assert_eq!(
        (&ended["exitCode"], &ended["reason"]),
        (&json!(128), &json!("StartError"))
    );
    let message = ended["message"].as_str().unwrap();
    assert!(
        message.contains("no-such-program") && message.contains("$PATH"),
        "{message}"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn an_unknown_image_and_a_refused_volume_say_what_to_do() {
    let cluster = Cluster::start().await;
    let mut spec = shell("true");
    spec["containers"][0]["image"] = json!("registry.example/nginx:1");
    cluster.pod("image", spec);
    let pod = cluster
        .until("image", |pod| {
            container(pod)["state"]["waiting"]["reason"] == "ErrImagePull"
        })
        .await;
    let message = container(&pod)["state"]["waiting"]["message"]
        .as_str()
        .unwrap();
    assert!(
        message.contains("nginx") && message.contains("image table"),
        "{message}"
    );
    // A new image is tried at once.
    let path = format!("{PODS}/image");
    let mut fixed = pod.clone();
    fixed["spec"]["containers"][0]["image"] = json!("busybox");
    fixed["spec"]["containers"][0]["command"] = json!(["sleep", "1000"]);
    cluster.api.put(&path, fixed);
    cluster.until_ready("image").await;
    let mut spec = shell("true");
    spec["volumes"] = json!([{"name": "root", "hostPath": {"path": "/"}}]);
    cluster.pod("volume", spec);
    let pod = cluster
        .until("volume", |pod| {
            container(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        })
        .await;
    let message = container(&pod)["state"]["waiting"]["message"]
        .as_str()
        .unwrap();
    assert!(
        message.contains("hostPath") && message.contains("emptyDir"),
        "{message}"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_pod_waits_for_its_configuration_and_follows_it() {
    let cluster = Cluster::start().await;
    let config = "/api/v1/namespaces/ns/configmaps/config";
    let mut spec = shell(
        "key=/etc/config/key; echo $GREETING; echo $(cat $key); \
         while [ $(cat $key) = old ]; do sleep 0.02; done; echo $(cat $key); exec sleep 1000",
    );
    let main = &mut spec["containers"][0];
    main["env"] = json!([{"name": "GREETING", "valueFrom": {
        "configMapKeyRef": {"name": "config", "key": "greeting"}}}]);
    main["volumeMounts"] = json!([{"name": "config", "mountPath": "/etc/config"}]);
    spec["volumes"] = json!([{"name": "config", "configMap": {"name": "config"}}]);
    cluster.pod("p", spec);
    let event = cluster.until_event("FailedMount").await;
    assert!(event.contains("configmap \"config\" not found"), "{event}");
    cluster
        .api
        .put(config, json!({"data": {"key": "old", "greeting": "hello"}}));
    cluster.until_logs("p", |logs| logs == "hello\nold\n").await;
    let changed = json!({"data": {"key": "new", "greeting": "unused"}});
    cluster.api.put(config, changed);
    let logs = cluster.until_logs("p", |logs| logs.contains("new")).await;
    assert_eq!(logs, "hello\nold\nnew\n");
    cluster.stop().await;
}

#[tokio::test]
async fn readiness_follows_its_probe() {
    let cluster = Cluster::start().await;
    let mut spec = shell("exec sleep 1000");
    // Succeeds twice, fails once, and succeeds from then on.
    let script = "echo x >> /tmp/asked; test $(wc -l < /tmp/asked) -ne 3";
    spec["containers"][0]["readinessProbe"] = json!({
        "exec": {"command": ["sh", "-c", script]}, "periodSeconds": 1, "failureThreshold": 1,
    });
    cluster.pod("p", spec);
    let pod = cluster.until_ready("p").await;
    assert_eq!(container(&pod)["started"], true);
    let pod = cluster
        .until("p", |pod| condition(pod, "Ready") == "False")
        .await;
    assert_eq!(container(&pod)["ready"], false);
    assert_eq!(pod["status"]["phase"], "Running");
    cluster.until_ready("p").await;
    let mut never = shell("exec sleep 1000");
    never["containers"][0]["readinessProbe"] = json!({"tcpSocket": {"port": 1}});
    cluster.pod("never", never);
    let pod = cluster.until_phase("never", "Running").await;
    assert_eq!(condition(&pod, "Ready"), "False");
    assert_eq!(container(&pod)["started"], true);
    cluster.stop().await;
}

#[tokio::test]
async fn liveness_and_startup_probes_restart_what_fails_them() {
    let cluster = Cluster::start().await;
    let probe = json!({"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1});
    for kind in ["livenessProbe", "startupProbe"] {
        let name = kind.to_lowercase();
        let mut spec = shell("trap 'exit 0' TERM; while :; do sleep 0.02; done");
        spec["containers"][0][kind] = probe.clone();
        cluster.pod(&name, spec);
        let pod = cluster
            .until(&name, |pod| {
                container(pod)["restartCount"].as_u64() >= Some(1)
            })
            .await;
        assert_eq!(container(&pod)["lastState"]["terminated"]["exitCode"], 0);
    }
    let event = cluster.until_event("Killing").await;
    assert!(event.contains("probe, will be restarted"), "{event}");
    cluster.stop().await;
}

#[tokio::test]
async fn deletion_is_graceful_and_final() {
    let cluster = Cluster::start().await;
    let mut spec = shell(
        "trap 'cat /tmp/hook > /dev/termination-log; exit 7' TERM; touch /tmp/up; while :; do sleep 0.02; done",
    );
    spec["containers"][0]["lifecycle"] = json!({
        "postStart": {"exec": {"command": ["sh", "-c", "until [ -f /tmp/up ]; do sleep 0.02; done"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo -n hook ran > /tmp/hook"]}},
    });
    cluster.pod("p", spec);
    cluster.until_ready("p").await;
    cluster.delete("p", 30);
    cluster.until_gone("p").await;
    let last = cluster.status_writes("p").pop().unwrap();
    let ended = &last["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&ended["exitCode"], &ended["message"]),
        (&json!(7), &json!("hook ran"))
    );
    assert_eq!(last["status"]["phase"], "Failed");
    let deletion = cluster
        .api
        .writes()
        .into_iter()
        .find(|write| write.0 == http::Method::DELETE);
    let options = deletion.unwrap().2;
    assert_eq!(options["gracePeriodSeconds"], 0);
    assert_eq!(options["preconditions"]["uid"], "uid-of-p");
    cluster.stop().await;
}

#[tokio::test]
async fn a_stubborn_container_is_killed_and_a_shorter_grace_wins() {
    let cluster = Cluster::start().await;
    let stubborn = "trap '' TERM; touch /tmp/up; while :; do sleep 0.02; done";
    let mut spec = shell(stubborn);
    spec["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["test", "-f", "/tmp/up"]}});
    for (name, graces) in [
        ("short", &[1][..]),
        ("shortened", &[1000, 1][..]),
        ("now", &[0][..]),
    ] {
        cluster.pod(name, spec.clone());
        cluster.until_ready(name).await;
        for grace in graces {
            cluster.delete(name, *grace);
        }
        cluster.until_gone(name).await;
        let last = cluster.status_writes(name).pop().unwrap();
        let ended = &last["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(ended["exitCode"], 137, "{name}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_pod_that_vanishes_is_ended_at_once() {
    let cluster = Cluster::start().await;
    cluster.pod("p", shell("trap '' TERM; while :; do sleep 0.02; done"));
    cluster.until_ready("p").await;
    let pods = cluster.directory.path().join("state/pods");
    assert_eq!(std::fs::read_dir(&pods).unwrap().count(), 1);
    cluster.api.remove(&format!("{PODS}/p"));
    let wait = async {
        while std::fs::read_dir(&pods).unwrap().count() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn an_active_deadline_ends_a_pod() {
    let cluster = Cluster::start().await;
    let mut spec = shell("exec sleep 1000");
    spec["activeDeadlineSeconds"] = json!(1);
    cluster.pod("p", spec);
    let pod = cluster.until_phase("p", "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    assert_eq!(container(&pod)["state"]["terminated"]["exitCode"], 143);
    cluster.stop().await;
}

#[tokio::test]
async fn stopping_the_node_leaves_nothing() {
    let cluster = Cluster::start().await;
    let sleep = 1_000_000_000 + fastrand::u64(0..1_000_000_000);
    cluster.pod(
        "p",
        shell(&format!(
            "trap '' TERM; setsid sleep {sleep} & sleep {sleep}"
        )),
    );
    cluster.until_ready("p").await;
    let (_, directory) = cluster.stop().await;
    assert!(!directory.path().join("state").exists());
    let left = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&format!("sleep\0{sleep}"))
    });
    assert!(!left);
}

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
    let cluster = Cluster::start_with(api, directory).await;
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
    spec["containers"][0]["image"] = json!("busybox");
    let create = |name: &str, spec: &Value| {
        let pod = json!({"metadata": {"generation": 1}, "spec": spec});
        cluster.api.put(&format!("{PODS}/{name}"), pod);
    };
    create("fits", &spec);
    cluster.until_ready("fits").await;
    let message = cluster.until_event("Scheduled").await;
    assert_eq!(message, "Successfully assigned ns/fits to local");
    spec["nodeSelector"] = json!({"disk": "ssd"});
    create("picky", &spec);
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
async fn a_claim_outlives_its_pods_and_goes_with_its_data() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/ns/persistentvolumeclaims/data";
    let claim = json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}});
    cluster.api.put(path, claim);
    let claim = cluster.api.until(path, |claim| {
        claim.is_some_and(|claim| claim["status"]["phase"] == "Bound")
    });
    let claim = claim.await.unwrap();
    assert_eq!(claim["spec"]["volumeName"], "pvc-uid-of-data");
    assert_eq!(claim["status"]["capacity"]["storage"], "1Gi");
    let pod = |script: &str| {
        let mut spec = once(script);
        spec["containers"][0]["volumeMounts"] = json!([{"name": "d", "mountPath": "/data"}]);
        spec["volumes"] = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]);
        spec
    };
    cluster.pod("writer", pod("echo kept > /data/file"));
    cluster.until_phase("writer", "Succeeded").await;
    cluster.delete("writer", 0);
    cluster.until_gone("writer").await;
    cluster.pod("reader", pod("cat /data/file"));
    cluster.until_phase("reader", "Succeeded").await;
    assert_eq!(cluster.logs("reader", "main").await, "kept\n");
    let data = cluster.directory.path().join("state/claims/uid-of-data");
    assert!(data.join("file").exists());
    cluster.delete("reader", 0);
    cluster.until_gone("reader").await;
    cluster.api.remove(path);
    let wait = async {
        while data.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .unwrap();
    let volume = "/api/v1/persistentvolumes/pvc-uid-of-data";
    cluster.api.until(volume, |volume| volume.is_none()).await;
    cluster.stop().await;
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
