//! A workspace on a volume keeps its data for as long as its sandbox is there.

use agent_sandbox_tests::cluster::IMAGE;
use agent_sandbox_tests::{Cluster, eventually};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::shell;
use crate::objects::*;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with real nodes: cargo xtask e2e nodes"]
async fn a_workspace_survives_suspension_resumption_and_a_deleted_pod() {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.client();
    let namespace = cluster.namespace();
    template(
        &client,
        "workspace",
        json!({
            "podTemplate": {"spec": {
                // The class's volumes belong to root.
                "securityContext": {"runAsUser": 0},
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "main",
                    "image": IMAGE,
                    "volumeMounts": [{"name": "workspace", "mountPath": "/workspace"}],
                }],
            }},
            "volumeClaimTemplates": [{
                "metadata": {"name": "workspace"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "16Mi"}},
                },
            }],
        }),
    )
    .await;
    let spec = json!({"warmPoolRef": null, "sandboxTemplateRef": {"name": "workspace"}});
    create_claim(&client, "claim", "none", spec).await;
    let sandbox = bound(&client, "claim").await;
    let volumes: Api<PersistentVolumeClaim> = Api::default_namespaced(client.clone());
    let volume = volumes.get(&format!("workspace-{sandbox}")).await.unwrap();
    let (worked, output) = shell(namespace, &sandbox, "echo kept > /workspace/file; sync").await;
    assert!(worked, "{output}");

    set_mode(&client, &sandbox, "Suspended").await;
    gone(&pods(&client), &sandbox).await;
    set_mode(&client, &sandbox, "Running").await;
    assert_eq!(bound(&client, "claim").await, sandbox);
    let (_, output) = shell(namespace, &sandbox, "cat /workspace/file").await;
    assert_eq!(output, "kept\n", "after suspension and resumption");

    let before = pods(&client).get(&sandbox).await.unwrap().uid();
    delete(&pods(&client), &sandbox).await;
    eventually("another pod is ready", || async {
        let pod = pods(&client).get_opt(&sandbox).await.ok()??;
        (pod.uid() != before).then_some(())
    })
    .await;
    super::address(&pods(&client), &sandbox).await;
    let (_, output) = shell(namespace, &sandbox, "cat /workspace/file").await;
    assert_eq!(output, "kept\n", "after the pod was deleted");
    let after = volumes.get(&volume.name_any()).await.unwrap();
    assert_eq!(after.uid(), volume.uid(), "the same volume all along");

    delete(&claims(&client), "claim").await;
    nothing_left(&client).await;
    // It goes with its sandbox.
    gone(&volumes, &volume.name_any()).await;
    cluster.stop().await;
}
