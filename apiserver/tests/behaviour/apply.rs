//! Server-side apply through HTTP.

use serde_json::{Value, json};

use crate::harness::*;

fn path() -> String {
    format!("{THINGS}/a")
}

fn applied(spec: Value) -> Value {
    json!({"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec})
}

#[tokio::test]
async fn apply_creates_then_updates_and_twice_is_once() {
    let api = Api::with_things().await;
    let answer = api
        .apply(&path(), "one", &applied(json!({"size": 1})))
        .await;
    assert_eq!(answer.status, 201);
    let first = answer.ok();
    assert_eq!(first["spec"], json!({"size": 1, "color": "red"}));
    let entry = &first["metadata"]["managedFields"][0];
    assert_eq!(
        (&entry["manager"], &entry["operation"]),
        (&json!("one"), &json!("Apply"))
    );
    let before = api.revision();
    let again = api
        .apply(&path(), "one", &applied(json!({"size": 1})))
        .await;
    assert_eq!(again.status, 200);
    assert_eq!(again.ok(), first);
    assert_eq!(api.revision(), before);
}

#[tokio::test]
async fn conflicts_name_managers_and_force_takes_over() {
    let api = Api::with_things().await;
    api.apply(&path(), "one", &applied(json!({"size": 1})))
        .await
        .ok();
    let answer = api
        .apply(&path(), "two", &applied(json!({"size": 2})))
        .await;
    assert_eq!(
        answer.body["details"]["causes"][0]["reason"],
        "FieldManagerConflict"
    );
    assert_eq!(answer.body["details"]["causes"][0]["field"], ".spec.size");
    let message = answer.refused(409, "Conflict");
    assert!(message.contains("conflict with \"one\""), "{message}");
    let taken = api
        .apply(&path(), "two&force=true", &applied(json!({"size": 2})))
        .await
        .ok();
    assert_eq!(taken["spec"]["size"], 2);
    api.apply(&path(), "two", &applied(json!({"size": 3})))
        .await
        .ok();
}

#[tokio::test]
async fn fields_a_manager_stops_applying_go_unless_shared() {
    let api = Api::with_things().await;
    let list = |names: &[&str]| {
        let items: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"size": 1, "list": items})
    };
    api.apply(&path(), "one", &applied(list(&["a", "b"])))
        .await
        .ok();
    api.apply(&path(), "two", &applied(list(&["b", "c"])))
        .await
        .ok();
    let left = api
        .apply(&path(), "one", &applied(json!({"size": 1})))
        .await
        .ok();
    let names: Vec<_> = left["spec"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].clone())
        .collect();
    assert_eq!(names, [json!("b"), json!("c")]);
}

#[tokio::test]
async fn status_is_applied_through_its_subresource() {
    let api = Api::with_things().await;
    let mut object = applied(json!({"size": 1}));
    object["status"] = json!({"phase": "x"});
    let created = api.apply(&path(), "one", &object).await.ok();
    assert!(created.get("status").is_none());
    object["spec"]["size"] = 9.into();
    let status = api
        .apply(&format!("{}/status", path()), "one", &object)
        .await
        .ok();
    assert_eq!(
        (&status["status"]["phase"], &status["spec"]["size"]),
        (&json!("x"), &json!(1))
    );
    let fields = status["metadata"]["managedFields"].as_array().unwrap();
    assert!(
        fields.iter().any(|entry| entry["subresource"] == "status"),
        "{fields:?}"
    );
    let before = api.revision();
    api.apply(&format!("{}/status", path()), "one", &object)
        .await
        .ok();
    assert_eq!(api.revision(), before);
}

#[tokio::test]
async fn replicas_applied_through_the_scale_are_owned() {
    let api = Api::with_things().await;
    api.apply(&path(), "one", &applied(json!({"size": 1})))
        .await
        .ok();
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"},
        "spec": {"replicas": 3}});
    let scaled = api
        .apply(&format!("{}/scale", path()), "scaler", &scale)
        .await
        .ok();
    assert_eq!(scaled["spec"]["replicas"], 3);
    let message = api
        .apply(&path(), "one", &applied(json!({"size": 1, "replicas": 5})))
        .await
        .refused(409, "Conflict");
    assert!(
        message.contains("conflict with \"scaler\" with subresource \"scale\""),
        "{message}"
    );
}

#[tokio::test]
async fn apply_says_what_it_needs() {
    let api = Api::with_things().await;
    let media = "application/apply-patch+yaml";
    let message = api
        .patch(&path(), media, &applied(json!({"size": 1})))
        .await
        .refused(422, "Invalid");
    assert!(
        message.contains("fieldManager: Required value"),
        "{message}"
    );
    api.merge(&format!("{}?force=true", path()), &json!({}))
        .await
        .refused(422, "Invalid");
    let mut object = applied(json!({"size": 1}));
    object["metadata"]["managedFields"] = json!([]);
    api.apply(&path(), "one", &object)
        .await
        .refused(400, "BadRequest");
    let mut object = applied(json!({"size": 1}));
    object["metadata"]["uid"] = "0b6ff3ac-3b53-4a37-9ea4-5f2f8d4c7a11".into();
    api.apply(&path(), "one", &object)
        .await
        .refused(409, "Conflict");
    let mut object = applied(json!({"size": 1}));
    object["metadata"] = json!({});
    api.apply(&path(), "one", &object)
        .await
        .refused(400, "BadRequest");
    let wrong = applied(json!({"size": 1, "sise": 1}));
    // The published answer, although the fault is the client's.
    let answer = api.apply(&path(), "one", &wrong).await;
    assert_eq!(answer.status.as_u16(), 500, "{}", answer.body);
    let message = answer.body["message"].as_str().unwrap();
    assert!(
        message.ends_with(".spec.sise: field not declared in schema"),
        "{message}"
    );
}

#[tokio::test]
async fn records_and_other_versions_are_refused_on_every_part() {
    let api = Api::with_things().await;
    api.post(THINGS, &thing("a", 1)).await.ok();
    let mut recorded = applied(json!({"size": 1}));
    recorded["metadata"]["managedFields"] = json!([]);
    let mut other = applied(json!({"size": 1}));
    other["apiVersion"] = "example.org/v1alpha1".into();
    for part in [path(), format!("{}/status", path())] {
        for (object, expected) in [
            (&recorded, "metadata.managedFields must be nil"),
            (
                &other,
                "Incorrect version specified in apply patch. Specified patch version: \
                 example.org/v1alpha1, expected: example.org/v1",
            ),
        ] {
            let answer = api.apply(&part, "one", object).await;
            assert_eq!(answer.refused(400, "BadRequest"), expected, "{part}");
        }
    }
}

#[tokio::test]
async fn ordinary_writes_own_what_they_change() {
    let api = Api::with_things().await;
    api.post(THINGS, &thing("a", 1)).await.ok();
    let object = api
        .merge(&path(), &json!({"spec": {"color": "blue"}}))
        .await
        .ok();
    let managers: Vec<_> = object["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["manager"].clone(), entry["operation"].clone()))
        .collect();
    assert_eq!(managers, [(json!("tester"), json!("Update"))]);
    api.apply(&path(), "one", &applied(json!({"color": "green"})))
        .await
        .refused(409, "Conflict");
    // Emptied, the record starts anew, and what is there belongs to nobody in particular.
    let reset = json!({"metadata": {"managedFields": [{}]}});
    let object = api.merge(&path(), &reset).await.ok();
    assert!(object["metadata"].get("managedFields").is_none());
    let answer = api
        .apply(
            &path(),
            "one",
            &applied(json!({"size": 1, "color": "green"})),
        )
        .await;
    let message = answer.refused(409, "Conflict");
    assert!(message.contains("before-first-apply"), "{message}");
}
