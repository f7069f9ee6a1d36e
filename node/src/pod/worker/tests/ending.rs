//! Deletion, deadlines and the end of the node: pods once they are not wanted any more.

use super::*;

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
    eventually("no directory of the pod", async || {
        (std::fs::read_dir(&pods).unwrap().count() == 0).then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_active_deadline_ends_a_pod() {
    let cluster = Cluster::start().await;
    cluster.pod("p", shell("exec sleep 1000"));
    // Set once the program runs, however long its start took.
    let mut pod = cluster.until_ready("p").await;
    pod["spec"]["activeDeadlineSeconds"] = json!(1);
    cluster.api.put(&format!("{PODS}/p"), pod);
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
async fn a_shorter_grace_hastens_an_end_that_a_probe_began() {
    let cluster = Cluster::start().await;
    let mut spec = shell("trap '' TERM; while :; do sleep 0.02; done");
    spec["containers"][0]["livenessProbe"] = json!({
        "exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1,
        "terminationGracePeriodSeconds": 1000,
    });
    cluster.pod("p", spec);
    cluster.until_event("Killing").await;
    cluster.delete("p", 1);
    cluster.until_gone("p").await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_end_that_is_hastened_keeps_its_signal() {
    let cluster = Cluster::start().await;
    // Ends only when told a second time, and says by which signal.
    let script = "told() { n=$((n + 1)); if [ $n = 2 ]; then exit $1; fi; touch /tmp/told; }; \
                  trap 'told 5' USR1; trap 'told 6' TERM; touch /tmp/up; while :; do sleep 0.02; done";
    let mut spec = shell(script);
    spec["containers"][0]["lifecycle"] = json!({"stopSignal": "SIGUSR1"});
    spec["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["sh", "-c", "test -f /tmp/up"]}});
    spec["containers"][0]["volumeMounts"] = json!([{"name": "tmp", "mountPath": "/tmp"}]);
    spec["volumes"] = json!([{"name": "tmp", "emptyDir": {}}]);
    cluster.pod("p", spec);
    cluster.until_ready("p").await;
    cluster.delete("p", 1000);
    let told = cluster.directory.path().join("state/pods/uid-of-p/volumes");
    eventually("the first signal", async || {
        found_below(&told, "told").then_some(())
    })
    .await;
    cluster.delete("p", 500);
    cluster.until_gone("p").await;
    let last = cluster.status_writes("p").pop().unwrap();
    let ended = &last["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(ended["exitCode"], 5);
    cluster.stop().await;
}

#[tokio::test]
async fn a_sidecar_keeps_its_moment_after_others_used_up_the_grace() {
    let cluster = Cluster::start().await;
    let mut spec = shell("trap '' TERM; touch /tmp/up; while :; do sleep 0.02; done");
    spec["containers"][0]["readinessProbe"] =
        json!({"exec": {"command": ["test", "-f", "/tmp/up"]}});
    let script = "trap 'exit 0' TERM; touch /tmp/up; while :; do sleep 0.02; done";
    spec["initContainers"] = json!([{
        "name": "side", "command": ["sh", "-c", script], "restartPolicy": "Always",
        "startupProbe": {"exec": {"command": ["test", "-f", "/tmp/up"]}},
    }]);
    cluster.pod("p", spec);
    cluster.until_ready("p").await;
    cluster.delete("p", 1);
    cluster.until_gone("p").await;
    let writes = cluster.status_writes("p");
    let code = |list: &str| {
        writes
            .iter()
            .rev()
            .find_map(|write| write["status"][list][0]["state"]["terminated"]["exitCode"].as_i64())
    };
    assert_eq!(code("containerStatuses"), Some(137));
    assert_eq!(code("initContainerStatuses"), Some(0));
    cluster.stop().await;
}

/// Whether a directory holds a file of this name, however deep.
fn found_below(directory: &std::path::Path, name: &str) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        entry.file_name() == name || entry.path().is_dir() && found_below(&entry.path(), name)
    })
}
