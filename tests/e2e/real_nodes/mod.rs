//! What only real nodes show: isolation by network policy, volumes that keep data, runtime classes,
//! autoscaling, and a claim's life with a real pod. Run by `cargo xtask e2e nodes`.

mod isolation;
mod life;
mod volumes;

use std::process::Stdio;

use agent_sandbox_tests::cluster::{IMAGE, kubeconfig};
use agent_sandbox_tests::eventually;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use tokio::process::Command;

/// Runs a shell script in a container, through `kubectl exec`: what it printed, and whether it
/// succeeded.
async fn shell(namespace: &str, pod: &str, script: &str) -> (bool, String) {
    let arguments = [
        "exec",
        "--namespace",
        namespace,
        pod,
        "--",
        "sh",
        "-c",
        script,
    ];
    kubectl(&arguments).await
}

/// Runs `kubectl`: whether it succeeded, and what it printed.
async fn kubectl(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("kubectl")
        .args(arguments)
        .env("KUBECONFIG", kubeconfig().unwrap())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    text.push_str(&String::from_utf8(output.stderr).unwrap());
    (output.status.success(), text)
}

/// A pod of our own making, which runs the image's own program; returns its address.
async fn plain_pod(pods: &Api<Pod>, name: &str, labels: Value) -> String {
    let object = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "containers": [{"name": "main", "image": IMAGE}],
            "terminationGracePeriodSeconds": 1,
        },
    });
    pods.create(
        &PostParams::default(),
        &serde_json::from_value(object).unwrap(),
    )
    .await
    .unwrap();
    address(pods, name).await
}

/// The address of a pod, once it is Ready.
async fn address(pods: &Api<Pod>, name: &str) -> String {
    eventually(&format!("pod {name} is ready"), || async {
        let status = pods.get(name).await.ok()?.status?;
        let ready = status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        status.pod_ip.filter(|_| ready)
    })
    .await
}
