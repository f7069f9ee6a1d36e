//! Status, scale, bindings, evictions and questions.

use anyhow::Result;
use http::StatusCode;
use serde_json::json;

use crate::target::{Patch, Target, only_v1, pod, text};

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_pod_is_written_apart() -> Result<()> {
    let target = Target::new().await?;
    let pods = target.path("/api/v1", "pods");
    let mut wanted = pod("p");
    wanted["status"] = json!({"phase": "Running"});
    let created = target.create(&pods, &wanted).await?;
    assert_eq!(created["status"]["phase"], "Pending");
    let path = format!("{pods}/p");
    let change = json!({"metadata": {"labels": {"a": "b"}}, "status": {"phase": "Running", "podIP": "10.9.8.7"}});
    let changed = target
        .patch(Patch::Strategic, &format!("{path}/status"), &change)
        .await?
        .ok()?;
    assert_eq!(changed["status"]["phase"], "Running");
    let read = target.get(&format!("{path}/status")).await?.ok()?;
    assert_eq!(read["status"]["podIP"], "10.9.8.7");
    let ignored = target
        .patch(Patch::Merge, &path, &json!({"status": {"phase": "Failed"}}))
        .await?
        .ok()?;
    assert_eq!(ignored["status"]["phase"], "Running");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_of_a_workload() -> Result<()> {
    let target = Target::new().await?;
    let sets = target.path("/apis/apps/v1", "replicasets");
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"schedulerName": "none", "containers": [{"name": "c", "image": "local.test/none:1"}]}});
    let set = json!({"metadata": {"name": "s"}, "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let created = target.create(&sets, &set).await?;
    let path = format!("{sets}/s/scale");
    let scale = target.get(&path).await?.ok()?;
    assert_eq!(
        (text(&scale, "/kind"), text(&scale, "/apiVersion")),
        ("Scale", "autoscaling/v1")
    );
    assert_eq!(scale["metadata"]["uid"], created["metadata"]["uid"]);
    assert_eq!(scale["spec"], json!({}));
    assert_eq!(scale["status"], json!({"replicas": 0, "selector": "a=b"}));

    let scaled = target
        .patch(Patch::Merge, &path, &json!({"spec": {"replicas": 1}}))
        .await?
        .ok()?;
    assert_eq!(text(&scaled, "/kind"), "Scale");
    assert_eq!(scaled["spec"]["replicas"], 1);
    let set = target.get(&format!("{sets}/s")).await?.ok()?;
    assert_eq!(
        (&set["spec"]["replicas"], &set["metadata"]["generation"]),
        (&json!(1), &json!(2))
    );

    let mut replacement = scaled.clone();
    replacement["spec"]["replicas"] = 0.into();
    let replaced = loop {
        let current = target.get(&path).await?.ok()?;
        replacement["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
        let answer = target.put(&path, &replacement).await?;
        // A cluster with controllers writes the status of the set meanwhile.
        if answer.status != StatusCode::CONFLICT {
            break answer;
        }
    };
    replaced.ok()?;
    let negative = json!({"spec": {"replicas": -1}});
    target
        .patch(Patch::Merge, &path, &negative)
        .await?
        .error(422, "Invalid");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_of_a_custom_resource() -> Result<()> {
    let target = Target::new().await?;
    let custom = target
        .define("Fleet", only_v1(json!({"subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size",
                "labelSelectorPath": ".status.selector"}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"size": {"type": "integer"}}},
                "status": {"type": "object", "properties": {"size": {"type": "integer"}, "selector": {"type": "string"}}}}}}})))
        .await?;
    let fields = json!({"spec": {"size": 2}});
    custom.create(&target, "f", fields).await?;
    let path = custom.path(&target, "v1", "f");
    let status = json!({"status": {"size": 1, "selector": "a=b"}});
    target
        .patch(Patch::Merge, &format!("{path}/status"), &status)
        .await?
        .ok()?;
    let scale = target.get(&format!("{path}/scale")).await?.ok()?;
    assert_eq!(scale["spec"], json!({"replicas": 2}));
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "a=b"}));
    let scaled = json!({"spec": {"replicas": 5}});
    target
        .patch(Patch::Merge, &format!("{path}/scale"), &scaled)
        .await?
        .ok()?;
    assert_eq!(target.get(&path).await?.ok()?["spec"]["size"], 5);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_places_a_pod_once() -> Result<()> {
    let target = Target::new().await?;
    let pods = target.path("/api/v1", "pods");
    target.create(&pods, &pod("p")).await?;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let path = format!("{pods}/p/binding");
    let answer = target.create(&path, &binding).await?;
    assert_eq!(
        (text(&answer, "/kind"), text(&answer, "/status")),
        ("Status", "Success")
    );
    let placed = target.get(&format!("{pods}/p")).await?.ok()?;
    assert_eq!(placed["spec"]["nodeName"], "n1");
    let scheduled = placed["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    let scheduled = scheduled
        .filter(|c| c["type"] == "PodScheduled" && c["status"] == "True")
        .count();
    assert_eq!(scheduled, 1, "{placed}");
    let status = target.post(&path, &binding).await?.error(409, "Conflict");
    assert!(
        text(&status, "/message").contains("pod p is already assigned to node \"n1\""),
        "{status}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_deletes_a_pod() -> Result<()> {
    let target = Target::new().await?;
    let pods = target.path("/api/v1", "pods");
    target.create(&pods, &pod("p")).await?;
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let answer = target
        .create(&format!("{pods}/p/eviction"), &eviction)
        .await?;
    assert_eq!(
        answer,
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
    );
    target
        .get(&format!("{pods}/p"))
        .await?
        .error(404, "NotFound");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered() -> Result<()> {
    let target = Target::new().await?;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"namespace": target.namespace(), "verb": "get", "resource": "pods"}},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = target.create(path, &review).await?;
    assert_eq!(answer["status"]["allowed"], true);

    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = target.create(path, &review).await?;
    assert!(
        !text(&answer, "/status/userInfo/username").is_empty(),
        "{answer}"
    );

    let path = target.path("/api/v1", "serviceaccounts/default/token");
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}});
    let token = target.create(&path, &request).await?;
    assert!(!text(&token, "/status/token").is_empty());
    assert!(!text(&token, "/status/expirationTimestamp").is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_namespace_gets_an_account_and_the_authority() -> Result<()> {
    let target = Target::new().await?;
    target
        .get(&target.path("/api/v1", "serviceaccounts/default"))
        .await?
        .ok()?;
    let path = target.config_maps("kube-root-ca.crt");
    let published = target.answers(&path, StatusCode::OK).await?;
    assert!(text(&published["data"], "/ca.crt").starts_with("-----BEGIN CERTIFICATE-----"));
    Ok(())
}
