//! What the server keeps about objects: identity, generation, and what clients may not touch.

use anyhow::Result;
use serde_json::{Value, json};

use crate::target::{Patch, Target, any_fields, config_map, only_v1, text};

fn definition(subresources: Value) -> Value {
    only_v1(json!({"subresources": subresources, "schema": any_fields()}))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_fills_in_identity_and_ignores_what_clients_say() -> Result<()> {
    let target = Target::new().await?;
    let mut map = config_map("a", json!({}));
    map["metadata"]["uid"] = "mine".into();
    map["metadata"]["creationTimestamp"] = "2001-01-01T00:00:00Z".into();
    map["metadata"]["deletionTimestamp"] = "2001-01-01T00:00:00Z".into();
    map["metadata"]["selfLink"] = "/x".into();
    let created = target.create(&target.config_maps(""), &map).await?;
    let metadata = &created["metadata"];
    assert_ne!(metadata["uid"], "mine");
    assert_ne!(metadata["creationTimestamp"], "2001-01-01T00:00:00Z");
    assert_eq!(metadata["namespace"], target.namespace());
    assert!(metadata.get("deletionTimestamp").is_none() && metadata.get("generation").is_none());
    assert!(!text(&created, "/metadata/resourceVersion").is_empty());

    let path = target.config_maps("a");
    let change =
        json!({"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z", "generation": 7}});
    let patched = target.patch(Patch::Merge, &path, &change).await?.ok()?;
    assert_eq!(
        patched["metadata"]["creationTimestamp"],
        metadata["creationTimestamp"]
    );
    let change = json!({"metadata": {"uid": "other"}});
    target
        .patch(Patch::Merge, &path, &change)
        .await?
        .error_saying(
            422,
            "Invalid",
            "ConfigMap \"a\" is invalid: metadata.uid: Invalid value: \"other\": field is \
             immutable",
        );
    let mut other = created.clone();
    other["metadata"]["uid"] = "other".into();
    let status = target.put(&path, &other).await?.error(409, "Conflict");
    let message = text(&status, "/message");
    let end = format!(
        "Precondition failed: UID in precondition: other, UID in object meta: {}",
        text(&created, "/metadata/uid")
    );
    assert!(
        message.starts_with("Operation cannot be fulfilled on configmaps \"a\": ")
            && message.ends_with(&end),
        "{message}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_generation_counts_changes_of_the_spec() -> Result<()> {
    let target = Target::new().await?;
    let custom = target
        .define("Counter", definition(json!({"status": {}})))
        .await?;
    let path = custom.path(&target, "v1", "c");
    let fields = json!({"spec": {"n": 1}, "status": {"seen": 1}});
    let created = custom.create(&target, "c", fields).await?;
    assert_eq!(created["metadata"]["generation"], 1);
    assert!(
        created.get("status").is_none(),
        "a status is not created with the object"
    );

    let patch =
        async |path: &str, change: Value| target.patch(Patch::Merge, path, &change).await?.ok();
    let labelled = patch(&path, json!({"metadata": {"labels": {"a": "b"}}})).await?;
    assert_eq!(labelled["metadata"]["generation"], 1);
    let changed = patch(&path, json!({"spec": {"n": 2}, "status": {"seen": 2}})).await?;
    assert_eq!(changed["metadata"]["generation"], 2);
    assert!(
        changed.get("status").is_none(),
        "the main resource does not write the status"
    );

    let status = format!("{path}/status");
    let reported = patch(&status, json!({"spec": {"n": 3}, "status": {"seen": 2}})).await?;
    assert_eq!(reported["metadata"]["generation"], 2);
    assert_eq!(
        (&reported["spec"]["n"], &reported["status"]["seen"]),
        (&json!(2), &json!(2))
    );
    let same = patch(&path, json!({"spec": {"n": 2}})).await?;
    assert_eq!(same["metadata"]["generation"], 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_status_subresource_everything_counts() -> Result<()> {
    let target = Target::new().await?;
    let custom = target.define("Plain", definition(json!({}))).await?;
    let path = custom.path(&target, "v1", "p");
    let fields = json!({"status": {"n": 1}});
    let created = custom.create(&target, "p", fields).await?;
    assert_eq!(
        (&created["metadata"]["generation"], &created["status"]["n"]),
        (&json!(1), &json!(1))
    );
    let finalizer = json!({"metadata": {"finalizers": ["plain", "example.com/own"]}});
    let answer = target.patch(Patch::Merge, &path, &finalizer).await?;
    assert_eq!(
        answer.warnings(),
        [
            "metadata.finalizers: \"plain\": prefer a domain-qualified finalizer name to avoid \
             accidental conflicts with other finalizer writers"
        ]
    );
    let released = json!({"metadata": {"finalizers": null}});
    target.patch(Patch::Merge, &path, &released).await?.ok()?;
    let changed = target
        .patch(Patch::Merge, &path, &json!({"status": {"n": 2}}))
        .await?
        .ok()?;
    assert_eq!(changed["metadata"]["generation"], 2);
    target
        .get(&format!("{path}/status"))
        .await?
        .error(404, "NotFound");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_validated() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let post = async |metadata: Value| {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        target.post(&maps, &map).await
    };
    for (metadata, message) in [
        (
            json!({"name": "Upper"}),
            "ConfigMap \"Upper\" is invalid: metadata.name: Invalid value: \"Upper\": a lowercase \
             RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
             must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
             validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
        (
            json!({"name": "a", "labels": {"k": "a b"}}),
            "ConfigMap \"a\" is invalid: metadata.labels: Invalid value: \"a b\": a valid label must \
             be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or \
             '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
        (
            json!({"name": "a", "labels": {"a/b/c": "d"}}),
            "ConfigMap \"a\" is invalid: metadata.labels: Invalid value: \"a/b/c\": a valid label key \
             must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
             validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain \
             prefix and '/' (e.g. 'example.com/MyName')",
        ),
        (
            json!({"name": "a", "annotations": {"k!": "d"}}),
            "ConfigMap \"a\" is invalid: metadata.annotations: Invalid value: \"k!\": name part must \
             consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
             validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ),
        (
            json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": ""}]}),
            "ConfigMap \"a\" is invalid: metadata.ownerReferences.uid: Invalid value: \"\": must not \
             be empty",
        ),
    ] {
        post(metadata).await?.error_saying(422, "Invalid", message);
    }
    let owned = json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Event", "name": "e", "uid": "u"}]});
    let status = post(owned).await?.error(422, "Invalid");
    assert!(
        text(&status, "/message").contains("/v1, Kind=Event is disallowed from being an owner"),
        "{status}"
    );
    let status = post(json!({"generateName": "Up-"}))
        .await?
        .error(422, "Invalid");
    let fields = status["details"]["causes"].as_array().into_iter().flatten();
    let fields: Vec<&str> = fields.map(|cause| text(cause, "/field")).collect();
    assert_eq!(fields, ["metadata.generateName", "metadata.name"]);
    post(json!({"name": "a", "namespace": "elsewhere"}))
        .await?
        .error_saying(
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_and_services_have_names_of_their_own_rules() -> Result<()> {
    let target = Target::new().await?;
    let status = target
        .post("/api/v1/namespaces", &json!({"metadata": {"name": "a.b"}}))
        .await?;
    status.error_saying(
        422,
        "Invalid",
        "Namespace \"a.b\" is invalid: metadata.name: Invalid value: \"a.b\": must not contain \
         dots",
    );
    let service =
        |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 1}]}});
    let services = target.path("/api/v1", "services");
    target.create(&services, &service("1a")).await?;
    let status = target
        .post(&services, &service("a.b"))
        .await?
        .error(422, "Invalid");
    assert!(
        text(&status, "/message").contains("metadata.name: Invalid value: \"a.b\""),
        "{status}"
    );
    let role = json!({"metadata": {"name": "system:thing"}, "rules": []});
    let roles = target.path("/apis/rbac.authorization.k8s.io/v1", "roles");
    target.create(&roles, &role).await?;
    Ok(())
}
