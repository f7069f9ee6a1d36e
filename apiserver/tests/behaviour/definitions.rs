//! The life of a CustomResourceDefinition.

use serde_json::{Value, json};

use crate::harness::*;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn path() -> String {
    format!("{DEFINITIONS}/things.example.org")
}

#[tokio::test]
async fn an_established_definition_is_served_and_discovered() {
    let api = Api::start();
    api.get(THINGS).await.refused(404, "NotFound");
    api.define(&definition()).await;
    let resources = api.get("/apis/example.org/v1").await.ok();
    let names: Vec<_> = resources["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| resource["name"].as_str().unwrap().to_owned())
        .collect();
    assert!(
        names.contains(&"things".to_owned()) && names.contains(&"things/status".to_owned()),
        "{names:?}"
    );
    let index = api.get("/openapi/v3").await.ok();
    assert!(index["paths"].get("apis/example.org/v1").is_some());
    assert_eq!(api.get(THINGS).await.ok()["items"], json!([]));
    let stored = api.get(&path()).await.ok();
    assert_eq!(stored["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(
        stored["status"]["acceptedNames"]["shortNames"],
        json!(["th"])
    );
    assert_eq!(stored["spec"]["names"]["listKind"], "ThingList");
}

/// Makes a definition bad.
type Spoil = fn(&mut Value);

#[tokio::test]
async fn a_bad_definition_is_refused_by_field() {
    let api = Api::start();
    let unstored: Spoil = |d| d["spec"]["versions"][0]["storage"] = false.into();
    let unschemed: Spoil = |d| d["spec"]["versions"][0]["schema"] = json!({});
    let converted: Spoil = |d| {
        d["spec"]["conversion"] = json!({"strategy": "Webhook",
            "webhook": {"conversionReviewVersions": ["v1"]}});
    };
    let cases = [
        ("spec.versions", unstored),
        ("spec.versions[0].schema.openAPIV3Schema", unschemed),
        ("spec.conversion.strategy", converted),
    ];
    for (field, spoil) in cases {
        let mut definition = definition();
        spoil(&mut definition);
        let answer = api.post(DEFINITIONS, &definition).await;
        let causes = answer.body["details"]["causes"].clone();
        answer.refused(422, "Invalid");
        let hit = causes
            .as_array()
            .unwrap()
            .iter()
            .any(|cause| cause["field"].as_str().unwrap().starts_with(field));
        assert!(hit, "{field}: {causes}");
    }
}

#[tokio::test]
async fn taken_names_are_not_accepted() {
    let api = Api::with_things().await;
    let mut second = definition();
    second["metadata"]["name"] = "items.example.org".into();
    second["spec"]["names"] = json!({"plural": "items", "singular": "item", "kind": "Thing"});
    api.post(DEFINITIONS, &second).await.ok();
    let path = format!("{DEFINITIONS}/items.example.org");
    eventually("the verdict is written", || async {
        let conditions = api.get(&path).await.ok()["status"]["conditions"].clone();
        condition(&conditions, "NamesAccepted") == Some("False".to_owned())
            && condition(&conditions, "Established") == Some("False".to_owned())
    })
    .await;
    api.get("/apis/example.org/v1/items")
        .await
        .refused(404, "NotFound");
    api.delete(&crate::definitions::path()).await.ok();
    eventually("the names are free", || async {
        let conditions = api.get(&path).await.ok()["status"]["conditions"].clone();
        condition(&conditions, "Established") == Some("True".to_owned())
    })
    .await;
    api.get("/apis/example.org/v1/items").await.ok();
}

#[tokio::test]
async fn a_new_schema_applies_to_old_objects() {
    let api = Api::with_things().await;
    let before = api.post(THINGS, &thing("a", 1)).await.ok();
    let mut watch = api
        .watch(&format!("{THINGS}?resourceVersion={}", api.revision()))
        .await;
    let mut definition = api.get(&path()).await.ok();
    for version in definition["spec"]["versions"].as_array_mut().unwrap() {
        let spec = &mut version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        spec["shape"] = json!({"type": "string", "default": "round"});
        spec.as_object_mut().unwrap().remove("color");
        version.as_object_mut().unwrap().remove("selectableFields");
    }
    api.put(&path(), &definition).await.ok();
    assert!(
        watch.next().await.is_none(),
        "watches of the old schema end"
    );
    let after = api.get(&format!("{THINGS}/a")).await.ok();
    assert_eq!(after["spec"], json!({"size": 1, "shape": "round"}));
    assert_eq!(
        after["metadata"]["resourceVersion"],
        before["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn changes_of_one_definition_leave_watches_of_others_alone() {
    let api = Api::with_things().await;
    let mut watch = api
        .watch(&format!("{THINGS}?resourceVersion={}", api.revision()))
        .await;
    let mut second = definition();
    second["metadata"]["name"] = "items.example.org".into();
    second["spec"]["names"] = json!({"plural": "items", "singular": "item", "kind": "Item"});
    api.define(&second).await;
    api.merge(&path(), &json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .ok();
    api.post(THINGS, &thing("a", 1)).await.ok();
    assert_eq!(watch.step().await, step("ADDED", "a"));
}

#[tokio::test]
async fn deleting_a_definition_deletes_its_objects() {
    let api = Api::with_things().await;
    api.post(THINGS, &thing("a", 1)).await.ok();
    let mut held = thing("held", 1);
    held["metadata"]["finalizers"] = json!(["example.org/hold"]);
    api.post(THINGS, &held).await.ok();
    let mut watch = api
        .watch(&format!("{THINGS}?resourceVersion={}", api.revision()))
        .await;
    api.delete(&path()).await.ok();
    api.gone(&format!("{THINGS}/a")).await;
    assert_eq!(watch.step().await, step("DELETED", "a"));
    api.post(THINGS, &thing("b", 1))
        .await
        .refused(405, "MethodNotAllowed");
    let conditions = api.get(&path()).await.ok()["status"]["conditions"].clone();
    assert_eq!(
        condition(&conditions, "Terminating").as_deref(),
        Some("True")
    );
    api.merge(
        &format!("{THINGS}/held"),
        &json!({"metadata": {"finalizers": null}}),
    )
    .await
    .ok();
    api.gone(&path()).await;
    let mut rest = Vec::new();
    while let Some(event) = watch.next().await {
        rest.push(event["type"].as_str().unwrap_or("").to_owned());
    }
    assert_eq!(
        rest.last().map(String::as_str),
        Some("DELETED"),
        "watches see it to the end"
    );
    eventually("the resource is unknown", || async {
        !api.exists(THINGS).await
    })
    .await;
    api.define(&definition()).await;
    assert_eq!(names(&api.get(THINGS).await.ok()), Vec::<&str>::new());
}

#[tokio::test]
async fn deprecated_versions_warn() {
    let api = Api::start();
    let mut definition = definition();
    definition["spec"]["versions"][1]["deprecated"] = true.into();
    api.define(&definition).await;
    assert!(api.get(THINGS).await.warnings().is_empty());
    let old = api.get("/apis/example.org/v1alpha1/things").await;
    assert_eq!(
        old.warnings(),
        ["299 - \"example.org/v1alpha1 Thing is deprecated\""]
    );
}
