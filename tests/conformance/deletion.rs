//! Deletion: preconditions, finalizers, grace, collections, owners and namespaces.

use anyhow::Result;
use http::StatusCode;
use serde_json::{Value, json};

use crate::target::{Patch, Target, config_map, names, pod, text};

#[tokio::test(flavor = "multi_thread")]
async fn deleting_answers_with_what_became_of_the_object() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let created = target.create(&maps, &config_map("a", json!({}))).await?;
    let path = target.config_maps("a");
    let answer = target.delete(&path).await?.ok()?;
    assert_eq!(
        (text(&answer, "/kind"), text(&answer, "/status")),
        ("Status", "Success")
    );
    assert_eq!(
        answer["details"],
        json!({"name": "a", "kind": "configmaps", "uid": created["metadata"]["uid"]})
    );
    target
        .delete(&path)
        .await?
        .error_saying(404, "NotFound", "configmaps \"a\" not found");

    // Some kinds answer with the object.
    let accounts = target.path("/api/v1", "serviceaccounts");
    target
        .create(&accounts, &json!({"metadata": {"name": "robot"}}))
        .await?;
    let answer = target.delete(&format!("{accounts}/robot")).await?.ok()?;
    assert_eq!(text(&answer, "/kind"), "ServiceAccount");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn preconditions_protect_what_was_not_meant() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let created = target.create(&maps, &config_map("a", json!({}))).await?;
    let path = target.config_maps("a");
    let uid = text(&created, "/metadata/uid");
    let other = target
        .delete_with(&path, json!({"preconditions": {"uid": "other"}}))
        .await?;
    other.error_saying(
        409,
        "Conflict",
        &format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (other) \
             does not match the UID in record ({uid}). The object might have been deleted and then \
             recreated"
        ),
    );
    let old = created["metadata"]["resourceVersion"].clone();
    let changed = target
        .patch(Patch::Merge, &path, &json!({"data": {"k": "v"}}))
        .await?
        .ok()?;
    let stale = target
        .delete_with(&path, json!({"preconditions": {"resourceVersion": old}}))
        .await?;
    stale.error(409, "Conflict");
    let now = &changed["metadata"]["resourceVersion"];
    let exact = json!({"preconditions": {"uid": uid, "resourceVersion": now}});
    target.delete_with(&path, exact).await?.ok()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn finalizers_hold_an_object_until_the_last_is_gone() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let mut map = config_map("a", json!({}));
    map["metadata"]["finalizers"] = json!(["example.com/one", "example.com/two"]);
    target.create(&maps, &map).await?;
    let path = target.config_maps("a");
    let answer = target.delete(&path).await?;
    assert_eq!(answer.status, StatusCode::OK);
    let held = target.get(&path).await?.ok()?;
    assert!(!text(&held, "/metadata/deletionTimestamp").is_empty());
    assert_eq!(held["metadata"]["deletionGracePeriodSeconds"], 0);

    // No finalizer can be added to an object on its way out.
    let more = json!({"metadata": {"finalizers": ["example.com/one", "example.com/two", "example.com/three"]}});
    let status = target
        .patch(Patch::Merge, &path, &more)
        .await?
        .error(422, "Invalid");
    assert!(
        text(&status, "/message").contains("metadata.finalizers: Forbidden"),
        "{status}"
    );
    let one = json!({"metadata": {"finalizers": ["example.com/two"]}});
    target.patch(Patch::Merge, &path, &one).await?.ok()?;
    target.get(&path).await?.ok()?;
    let none = json!({"metadata": {"finalizers": null}});
    target.patch(Patch::Merge, &path, &none).await?.ok()?;
    target.get(&path).await?.error(404, "NotFound");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_end_gracefully_once_somebody_runs_them() -> Result<()> {
    let target = Target::new().await?;
    let pods = target.path("/api/v1", "pods");
    target.create(&pods, &pod("idle")).await?;
    target.delete(&format!("{pods}/idle")).await?.ok()?;
    target
        .get(&format!("{pods}/idle"))
        .await?
        .error(404, "NotFound");

    let mut busy = pod("busy");
    busy["spec"]["nodeName"] = "somewhere".into();
    busy["spec"]["terminationGracePeriodSeconds"] = 600.into();
    target.create(&pods, &busy).await?;
    let path = format!("{pods}/busy");
    let answer = target.delete(&path).await?.ok()?;
    assert_eq!(text(&answer, "/kind"), "Pod");
    assert_eq!(answer["metadata"]["deletionGracePeriodSeconds"], 600);
    // Again, but sooner.
    let answer = target
        .delete_with(&path, json!({"gracePeriodSeconds": 5}))
        .await?
        .ok()?;
    assert_eq!(answer["metadata"]["deletionGracePeriodSeconds"], 5);
    target
        .delete_with(&path, json!({"gracePeriodSeconds": 0}))
        .await?
        .ok()?;
    target.get(&path).await?.error(404, "NotFound");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_can_be_deleted_by_selector() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    for (name, group) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let mut map = config_map(name, json!({}));
        map["metadata"]["labels"] = json!({"group": group});
        target.create(&maps, &map).await?;
    }
    let deleted = target
        .delete(&format!("{maps}?labelSelector=group%3Dx"))
        .await?
        .ok()?;
    assert_eq!(text(&deleted, "/kind"), "ConfigMapList");
    assert_eq!(names(&deleted), ["a", "b"]);
    let left = names(&target.get(&maps).await?.ok()?);
    assert!(
        left.contains(&"c".to_owned()) && !left.contains(&"a".to_owned()),
        "{left:?}"
    );
    Ok(())
}

/// A ConfigMap owned by another object.
fn owned(name: &str, owner: &Value, blocking: bool) -> Value {
    let mut map = config_map(name, json!({}));
    map["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "blockOwnerDeletion": blocking, "controller": true,
    }]);
    map
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_owned_goes_with_its_owner() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let owner = target
        .create(&maps, &config_map("owner", json!({})))
        .await?;
    target.create(&maps, &owned("child", &owner, false)).await?;
    let background = json!({"propagationPolicy": "Background"});
    target
        .delete_with(&target.config_maps("owner"), background)
        .await?
        .ok()?;
    target
        .answers(&target.config_maps("child"), StatusCode::NOT_FOUND)
        .await?;

    // An owner that never was, or was another, owns nothing.
    let mut stranger = owner.clone();
    stranger["metadata"]["uid"] = "11111111-1111-1111-1111-111111111111".into();
    target
        .create(&maps, &owned("orphan", &stranger, false))
        .await?;
    target
        .answers(&target.config_maps("orphan"), StatusCode::NOT_FOUND)
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn foreground_deletion_ends_with_the_owner() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let owner = target
        .create(&maps, &config_map("owner", json!({})))
        .await?;
    let mut child = owned("child", &owner, true);
    child["metadata"]["finalizers"] = json!(["example.com/hold"]);
    target.create(&maps, &child).await?;
    let path = target.config_maps("owner");
    target
        .delete_with(&path, json!({"propagationPolicy": "Foreground"}))
        .await?
        .ok()?;
    let held = target.get(&path).await?.ok()?;
    assert_eq!(
        held["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );

    let child = target.config_maps("child");
    target.terminating(&child).await?;
    target.get(&path).await?.ok()?;
    let release = json!({"metadata": {"finalizers": null}});
    target.patch(Patch::Merge, &child, &release).await?.ok()?;
    target.answers(&path, StatusCode::NOT_FOUND).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_stay_and_forget_their_owner() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let owner = target
        .create(&maps, &config_map("owner", json!({})))
        .await?;
    target.create(&maps, &owned("child", &owner, false)).await?;
    let path = target.config_maps("owner");
    target
        .delete_with(&path, json!({"propagationPolicy": "Orphan"}))
        .await?
        .ok()?;
    target.answers(&path, StatusCode::NOT_FOUND).await?;
    let child = target.get(&target.config_maps("child")).await?.ok()?;
    assert!(
        child["metadata"].get("ownerReferences").is_none(),
        "{child}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_takes_its_content_with_it() -> Result<()> {
    let target = Target::new().await?;
    let name = target.unique("doomed");
    let namespace = json!({"metadata": {"name": name}});
    let created = target.create("/api/v1/namespaces", &namespace).await?;
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(created["status"]["phase"], "Active");
    assert_eq!(
        created["metadata"]["labels"]["kubernetes.io/metadata.name"],
        name
    );
    let maps = format!("/api/v1/namespaces/{name}/configmaps");
    let mut held = config_map("held", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    target.create(&maps, &held).await?;

    let path = format!("/api/v1/namespaces/{name}");
    target.delete(&path).await?.ok()?;
    let namespace = target.get(&path).await?.ok()?;
    assert_eq!(namespace["status"]["phase"], "Terminating");
    let status = target
        .post(&maps, &config_map("late", json!({})))
        .await?
        .error_saying(
            403,
            "Forbidden",
            &format!(
                "configmaps \"late\" is forbidden: unable to create new content in namespace {name} \
                 because it is being terminated"
            ),
        );
    assert_eq!(
        status["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );

    let held = format!("{maps}/held");
    target.terminating(&held).await?;
    target
        .patch(
            Patch::Merge,
            &held,
            &json!({"metadata": {"finalizers": null}}),
        )
        .await?
        .ok()?;
    target.answers(&path, StatusCode::NOT_FOUND).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_created_where_there_is_no_namespace() -> Result<()> {
    let target = Target::new().await?;
    let maps = "/api/v1/namespaces/no-such-namespace/configmaps";
    target
        .post(maps, &config_map("a", json!({})))
        .await?
        .error_saying(
            404,
            "NotFound",
            "namespaces \"no-such-namespace\" not found",
        );
    assert_eq!(names(&target.get(maps).await?.ok()?), Vec::<String>::new());
    Ok(())
}
