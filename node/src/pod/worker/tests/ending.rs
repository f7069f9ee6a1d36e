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
