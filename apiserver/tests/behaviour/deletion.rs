//! DELETE: preconditions, finalizers, collections.

use serde_json::json;

use crate::harness::*;

#[tokio::test]
async fn an_unheld_object_goes_at_once() {
    let api = Api::with_things().await;
    let object = api.post(THINGS, &thing("a", 1)).await.ok();
    let status = api.delete(&format!("{THINGS}/a")).await.ok();
    assert_eq!(
        (&status["kind"], &status["status"]),
        (&json!("Status"), &json!("Success"))
    );
    assert_eq!(
        status["details"],
        json!({"name": "a", "group": "example.org", "kind": "things", "uid": object["metadata"]["uid"]})
    );
    api.delete(&format!("{THINGS}/a"))
        .await
        .refused(404, "NotFound");
}

#[tokio::test]
async fn preconditions_protect_against_the_wrong_object() {
    let api = Api::start();
    let object = api.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let wrong = json!({"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}});
    let message = api
        .delete_with(&path, &wrong)
        .await
        .refused(409, "Conflict");
    assert!(message.contains("the UID in the precondition"), "{message}");
    api.delete_with(&path, &json!({"preconditions": {"resourceVersion": "1"}}))
        .await
        .refused(409, "Conflict");
    let metadata = &object["metadata"];
    let right = json!({"preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}});
    api.delete_with(&path, &right).await.ok();
    assert!(!api.exists(&path).await);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let api = Api::with_things().await;
    let path = format!("{THINGS}/a");
    let mut object = thing("a", 1);
    object["metadata"]["finalizers"] = json!(["example.org/one", "example.org/two"]);
    api.post(THINGS, &object).await.ok();
    let marked = api.delete(&path).await.ok();
    assert_eq!(marked["kind"], "Thing");
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(marked["metadata"]["generation"], 2);
    let revision = api.revision();
    assert_eq!(api.delete(&path).await.ok(), marked);
    assert_eq!(api.revision(), revision, "deleting again changes nothing");
    let message = api
        .merge(
            &path,
            &json!({"metadata": {"finalizers": ["example.org/one", "example.org/new"]}}),
        )
        .await
        .refused(422, "Invalid");
    assert!(
        message.contains("no new finalizers can be added"),
        "{message}"
    );
    let undelete = json!({"metadata": {"deletionTimestamp": null}});
    let still = api.merge(&path, &undelete).await.ok();
    assert!(still["metadata"]["deletionTimestamp"].is_string());
    api.merge(
        &path,
        &json!({"metadata": {"finalizers": ["example.org/two"]}}),
    )
    .await
    .ok();
    assert!(api.exists(&path).await);
    let mut watch = api
        .watch(&format!("{THINGS}?resourceVersion={}", api.revision()))
        .await;
    api.merge(&path, &json!({"metadata": {"finalizers": null}}))
        .await
        .ok();
    assert!(!api.exists(&path).await);
    assert_eq!(watch.step().await, step("DELETED", "a"));
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let api = Api::start();
    for (name, on) in [("a", "1"), ("b", "1"), ("c", "0")] {
        api.post(CONFIG_MAPS, &labelled(name, json!({"on": on})))
            .await
            .ok();
    }
    let deleted = api
        .delete(&format!("{CONFIG_MAPS}?labelSelector=on%3D1"))
        .await
        .ok();
    assert_eq!(names(&deleted), ["a", "b"]);
    assert!(!api.exists(&format!("{CONFIG_MAPS}/a")).await);
    assert!(api.exists(&format!("{CONFIG_MAPS}/c")).await);
    api.delete("/api/v1/configmaps")
        .await
        .refused(405, "MethodNotAllowed");
}
