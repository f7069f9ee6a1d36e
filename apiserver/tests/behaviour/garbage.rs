//! Garbage collection by owner references.

use serde_json::{Value, json};

use crate::harness::*;

fn owned(name: &str, owners: &[&Value], block: bool) -> Value {
    let references: Vec<Value> = owners
        .iter()
        .map(|owner| {
            json!({"apiVersion": owner["apiVersion"], "kind": owner["kind"],
                "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
                "blockOwnerDeletion": block})
        })
        .collect();
    let mut object = config_map(name);
    object["metadata"]["ownerReferences"] = references.into();
    object
}

async fn create(api: &Api, object: &Value) -> Value {
    api.post(CONFIG_MAPS, object).await.ok()
}

fn path(name: &str) -> String {
    format!("{CONFIG_MAPS}/{name}")
}

#[tokio::test]
async fn dependents_follow_their_owner_through_generations() {
    let api = Api::start();
    let root = create(&api, &config_map("root")).await;
    let child = create(&api, &owned("child", &[&root], false)).await;
    create(&api, &owned("grandchild", &[&child], false)).await;
    create(&api, &config_map("bystander")).await;
    api.delete(&path("root")).await.ok();
    api.gone(&path("child")).await;
    api.gone(&path("grandchild")).await;
    assert!(api.exists(&path("bystander")).await);
}

#[tokio::test]
async fn one_living_owner_is_enough() {
    let api = Api::start();
    let a = create(&api, &config_map("a")).await;
    let b = create(&api, &config_map("b")).await;
    create(&api, &owned("child", &[&a, &b], false)).await;
    api.delete(&path("a")).await.ok();
    eventually("the lost reference is dropped", || async {
        let references = api.get(&path("child")).await.ok()["metadata"]["ownerReferences"].clone();
        references.as_array().unwrap().len() == 1 && references[0]["name"] == "b"
    })
    .await;
    api.delete(&path("b")).await.ok();
    api.gone(&path("child")).await;
}

#[tokio::test]
async fn owners_are_known_by_uid_not_by_name() {
    let api = Api::start();
    let first = create(&api, &config_map("owner")).await;
    api.delete(&path("owner")).await.ok();
    let second = create(&api, &config_map("owner")).await;
    create(&api, &owned("stray", &[&first], false)).await;
    create(&api, &owned("kept", &[&second], false)).await;
    api.gone(&path("stray")).await;
    let mut renamed = second.clone();
    renamed["metadata"]["name"] = "somebody-else".into();
    create(&api, &owned("forged", &[&renamed], false)).await;
    api.gone(&path("forged")).await;
    assert!(api.exists(&path("kept")).await);
}

#[tokio::test]
async fn an_owner_of_an_unknown_kind_keeps_its_dependents() {
    let api = Api::start();
    let owner = json!({"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {
        "name": "t", "uid": "0b6ff3ac-3b53-4a37-9ea4-5f2f8d4c7a11"}});
    create(&api, &owned("child", &[&owner], false)).await;
    // A whole collection elsewhere shows that the collector has passed this object by.
    let root = create(&api, &config_map("root")).await;
    create(&api, &owned("other", &[&root], false)).await;
    api.delete(&path("root")).await.ok();
    api.gone(&path("other")).await;
    assert!(api.exists(&path("child")).await);
    api.define(&definition()).await;
    api.gone(&path("child")).await;
}

#[tokio::test]
async fn an_owner_in_another_namespace_does_not_count() {
    let api = Api::start();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    api.post("/api/v1/namespaces", &namespace).await.ok();
    let owner = api
        .post("/api/v1/namespaces/other/configmaps", &config_map("owner"))
        .await
        .ok();
    create(&api, &owned("child", &[&owner], false)).await;
    api.gone(&path("child")).await;
    let namespace = api.get("/api/v1/namespaces/other").await.ok();
    create(&api, &owned("of-cluster", &[&namespace], false)).await;
    let root = create(&api, &config_map("root")).await;
    create(&api, &owned("last", &[&root], false)).await;
    api.delete(&path("root")).await.ok();
    api.gone(&path("last")).await;
    assert!(
        api.exists(&path("of-cluster")).await,
        "cluster-scoped owners do"
    );
}

#[tokio::test]
async fn in_the_foreground_blocking_dependents_go_first() {
    let api = Api::start();
    let root = create(&api, &config_map("root")).await;
    let mut child = owned("child", &[&root], true);
    child["metadata"]["finalizers"] = json!(["example.org/hold"]);
    create(&api, &child).await;
    create(&api, &owned("loose", &[&root], false)).await;
    let marked = api
        .delete_with(&path("root"), &json!({"propagationPolicy": "Foreground"}))
        .await
        .ok();
    assert_eq!(
        marked["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    eventually("the dependent is being deleted", || async {
        api.get(&path("child")).await.ok()["metadata"]["deletionTimestamp"].is_string()
    })
    .await;
    api.gone(&path("loose")).await;
    assert!(api.exists(&path("root")).await);
    api.merge(&path("child"), &json!({"metadata": {"finalizers": null}}))
        .await
        .ok();
    api.gone(&path("child")).await;
    api.gone(&path("root")).await;
}

#[tokio::test]
async fn orphans_lose_their_reference_and_stay() {
    let api = Api::start();
    let root = create(&api, &config_map("root")).await;
    let other = create(&api, &config_map("other")).await;
    create(&api, &owned("single", &[&root], true)).await;
    create(&api, &owned("double", &[&root, &other], true)).await;
    api.delete_with(&path("root"), &json!({"propagationPolicy": "Orphan"}))
        .await
        .ok();
    api.gone(&path("root")).await;
    let single = api.get(&path("single")).await.ok();
    assert!(single["metadata"].get("ownerReferences").is_none());
    let double = api.get(&path("double")).await.ok();
    assert_eq!(
        double["metadata"]["ownerReferences"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn dependents_created_after_the_owner_went_are_collected() {
    let api = Api::start();
    let root = create(&api, &config_map("root")).await;
    api.delete(&path("root")).await.ok();
    create(&api, &owned("late", &[&root], false)).await;
    api.gone(&path("late")).await;
}

#[tokio::test]
async fn a_large_family_is_collected_completely() {
    let api = Api::start();
    let root = create(&api, &config_map("root")).await;
    for n in 0..100 {
        let mut child = owned(&format!("child-{n}"), &[&root], n % 2 == 0);
        child["metadata"]["labels"] = json!({"family": "1"});
        create(&api, &child).await;
    }
    api.delete_with(&path("root"), &json!({"propagationPolicy": "Foreground"}))
        .await
        .ok();
    api.gone(&path("root")).await;
    eventually("no child is left", || async {
        let list = api
            .get(&format!("{CONFIG_MAPS}?labelSelector=family"))
            .await
            .ok();
        names(&list).is_empty()
    })
    .await;
}
