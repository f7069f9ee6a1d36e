//! Configuration and claims, as the programs in pods find them.

use super::*;

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
    eventually("no data of the claim", async || {
        (!data.exists()).then_some(())
    })
    .await;
    let volume = "/api/v1/persistentvolumes/pvc-uid-of-data";
    cluster.api.until(volume, |volume| volume.is_none()).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_claim_whose_volume_could_not_be_made_is_tried_again() {
    let cluster = Cluster::start().await;
    cluster.api.refuse_once("/api/v1/persistentvolumes");
    let path = "/api/v1/namespaces/ns/persistentvolumeclaims/data";
    cluster.api.put(path, json!({"spec": {}}));
    let message = cluster.until_event("ProvisioningFailed").await;
    assert!(message.contains("InternalError"), "{message}");
    let bound = cluster.api.until(path, |claim| {
        claim.is_some_and(|claim| claim["status"]["phase"] == "Bound")
    });
    bound.await.unwrap();
    cluster.stop().await;
}
