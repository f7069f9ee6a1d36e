//! Starting, probing and starting again: pods while they are wanted.

use super::*;

#[tokio::test]
async fn a_pod_runs_is_ready_with_one_write_and_logs() {
    // A start that takes longer than it may settle is told in between, so a slow machine gets time.
    let (api, directory) = (TestApi::new(), tempfile::tempdir().unwrap());
    let patient = |node: NodeBuilder| node.settle(Duration::from_secs(60));
    let cluster = Cluster::start_with(api, directory, patient).await;
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
async fn readiness_follows_its_probe() {
    let cluster = Cluster::start().await;
    let mut spec = shell("exec sleep 1000");
    // Succeeds twice, fails once, and succeeds from then on.
    let script = "echo x >> /tmp/asked; test $(wc -l < /tmp/asked) -ne 3";
    spec["containers"][0]["readinessProbe"] = json!({
        "exec": {"command": ["sh", "-c", script]}, "periodSeconds": 1, "failureThreshold": 1,
        "timeoutSeconds": 60,
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
    // Probing begins after this, so no signal comes before the program expects it.
    let started = json!({"postStart": {"exec": {
        "command": ["sh", "-c", "until [ -f /tmp/up ]; do sleep 0.02; done"]}}});
    for kind in ["livenessProbe", "startupProbe"] {
        let name = kind.to_lowercase();
        let mut spec = shell("trap 'exit 0' TERM; touch /tmp/up; while :; do sleep 0.02; done");
        spec["containers"][0][kind] = probe.clone();
        spec["containers"][0]["lifecycle"] = started.clone();
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
