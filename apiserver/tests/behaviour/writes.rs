//! Create, update and patch.

use agent_sandbox_apiserver::Server;
use serde_json::{Value, json};

use crate::harness::*;

#[tokio::test]
async fn the_server_stamps_what_is_its_own() {
    let api = Api::with_things().await;
    let mut object = thing("a", 1);
    object["metadata"]["uid"] = "mine".into();
    object["metadata"]["generation"] = 7.into();
    object["metadata"]["creationTimestamp"] = "2000-01-01T00:00:00Z".into();
    object["metadata"]["deletionTimestamp"] = "2000-01-01T00:00:00Z".into();
    object["status"] = json!({"phase": "Great"});
    let answer = api.post(THINGS, &object).await;
    assert_eq!(answer.status, 201);
    let created = answer.ok();
    let metadata = &created["metadata"];
    assert_eq!(metadata["generation"], 1);
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert_ne!(metadata["creationTimestamp"], "2000-01-01T00:00:00Z");
    assert!(metadata.get("deletionTimestamp").is_none());
    assert!(
        created.get("status").is_none(),
        "status is written through its subresource"
    );
    assert_eq!(created["spec"]["color"], "red", "defaults are applied");
}

#[tokio::test]
async fn names_are_generated_or_taken_once() {
    let api = Api::start();
    let mut object = config_map("");
    object["metadata"] = json!({"generateName": "web-"});
    let first = api.post(CONFIG_MAPS, &object).await.ok();
    let second = api.post(CONFIG_MAPS, &object).await.ok();
    let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name(&first).starts_with("web-") && name(&first) != name(&second));
    api.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let message = api
        .post(CONFIG_MAPS, &config_map("a"))
        .await
        .refused(409, "AlreadyExists");
    assert_eq!(message, "configmaps \"a\" already exists");
    let none = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}});
    let message = api.post(CONFIG_MAPS, &none).await.refused(422, "Invalid");
    assert!(
        message.contains("metadata.name: Required value"),
        "{message}"
    );
}

#[tokio::test]
async fn contradictions_with_the_path_are_refused() {
    let api = Api::start();
    let mut object = config_map("a");
    object["metadata"]["namespace"] = "other".into();
    api.post(CONFIG_MAPS, &object)
        .await
        .refused(400, "BadRequest");
    let wrong = json!({"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "a"}});
    api.post(CONFIG_MAPS, &wrong)
        .await
        .refused(400, "BadRequest");
    let wrong = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}});
    api.post(CONFIG_MAPS, &wrong)
        .await
        .refused(400, "BadRequest");
    api.post(CONFIG_MAPS, &json!([]))
        .await
        .refused(400, "BadRequest");
    let things = Api::with_things().await;
    let untyped = json!({"metadata": {"name": "a"}, "spec": {"size": 1}});
    let message = things
        .post(THINGS, &untyped)
        .await
        .refused(400, "BadRequest");
    assert!(message.contains("Object 'Kind' is missing"), "{message}");
    let other = json!({"apiVersion": "example.org/v1", "kind": "Other", "metadata": {"name": "a"}});
    let message = things.post(THINGS, &other).await.refused(422, "Invalid");
    assert!(
        message.contains("kind: Invalid value: \"Other\": must be Thing"),
        "{message}"
    );
    things.post(THINGS, &thing("a", 1)).await.ok();
    let path = format!("{THINGS}/a");
    let message = things
        .merge(&path, &json!({"apiVersion": "x/v1"}))
        .await
        .refused(422, "Invalid");
    assert!(
        message.contains("apiVersion: Invalid value: \"x/v1\""),
        "{message}"
    );
    let message = things
        .merge(&path, &json!({"metadata": {"uid": "x"}}))
        .await
        .refused(422, "Invalid");
    assert!(
        message.contains("metadata.uid: Invalid value: \"x\": field is immutable"),
        "{message}"
    );
    api.post(CONFIG_MAPS, &config_map("a")).await.ok();
    api.put(&format!("{CONFIG_MAPS}/a"), &config_map("b"))
        .await
        .refused(400, "BadRequest");
    let path = "/api/v1/namespaces/missing/configmaps";
    let message = api
        .post(path, &config_map("a"))
        .await
        .refused(404, "NotFound");
    assert_eq!(message, "namespaces \"missing\" not found");
}

#[tokio::test]
async fn bad_metadata_is_named_by_field() {
    let api = Api::start();
    let cases = [
        (json!({"name": "Upper"}), "metadata.name"),
        (
            json!({"name": "a", "labels": {"a b": "c"}}),
            "metadata.labels",
        ),
        (
            json!({"name": "a", "labels": {"a": "b c"}}),
            "metadata.labels",
        ),
        (
            json!({"name": "a", "annotations": {"/x": ""}}),
            "metadata.annotations",
        ),
        (
            json!({"name": "a", "annotations": {"big": "x".repeat(300_000)}}),
            "metadata.annotations",
        ),
        (
            json!({"name": "a", "finalizers": ["plain"]}),
            "metadata.finalizers[0]",
        ),
        (
            json!({"name": "a", "finalizers": ["a b"]}),
            "metadata.finalizers",
        ),
        (
            json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "", "uid": "u"}]}),
            "metadata.ownerReferences.name",
        ),
    ];
    for (metadata, field) in cases {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        let answer = api.post(CONFIG_MAPS, &object).await;
        let causes = answer.body["details"]["causes"].clone();
        let message = answer.refused(422, "Invalid");
        let fields: Vec<_> = causes
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["field"].as_str().unwrap())
            .collect();
        assert!(fields.contains(&field), "{field}: {fields:?} {message}");
    }
    let twice = json!([
        {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u1", "controller": true},
        {"apiVersion": "v1", "kind": "Pod", "name": "b", "uid": "u2", "controller": true}]);
    let mut object = config_map("a");
    object["metadata"]["ownerReferences"] = twice;
    let message = api.post(CONFIG_MAPS, &object).await.refused(422, "Invalid");
    assert!(
        message.contains("Only one reference can have Controller set to true"),
        "{message}"
    );
}

#[tokio::test]
async fn the_schema_refuses_with_causes() {
    let api = Api::with_things().await;
    let answer = api.post(THINGS, &thing("a", -1)).await;
    let details = answer.body["details"].clone();
    let message = answer.refused(422, "Invalid");
    assert_eq!(details["kind"], "Thing");
    assert_eq!(details["group"], "example.org");
    assert_eq!(details["causes"][0]["field"], "spec.size");
    assert!(
        message.starts_with("Thing.example.org \"a\" is invalid: spec.size: Invalid value"),
        "{message}"
    );
}

#[tokio::test]
async fn generation_counts_changes_of_the_spec_only() {
    let api = Api::with_things().await;
    let path = format!("{THINGS}/a");
    api.post(THINGS, &thing("a", 1)).await.ok();
    let generation = |object: Value| object["metadata"]["generation"].as_i64().unwrap();
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(generation(api.merge(&path, &labels).await.ok()), 1);
    assert_eq!(
        generation(api.merge(&path, &json!({"spec": {"size": 2}})).await.ok()),
        2
    );
    let status = format!("{path}/status");
    assert_eq!(
        generation(
            api.merge(&status, &json!({"status": {"phase": "x"}}))
                .await
                .ok()
        ),
        2
    );
    let mut object = api.get(&path).await.ok();
    object["metadata"]["generation"] = 40.into();
    assert_eq!(generation(api.put(&path, &object).await.ok()), 2);
}

#[tokio::test]
async fn status_and_spec_do_not_touch_each_other() {
    let api = Api::with_things().await;
    let path = format!("{THINGS}/a");
    api.post(THINGS, &thing("a", 1)).await.ok();
    let both =
        json!({"spec": {"size": 5}, "status": {"phase": "x"}, "metadata": {"labels": {"l": "1"}}});
    let object = api.merge(&format!("{path}/status"), &both).await.ok();
    assert_eq!(
        (&object["spec"]["size"], &object["status"]["phase"]),
        (&json!(1), &json!("x"))
    );
    assert!(object["metadata"].get("labels").is_none());
    let object = api
        .merge(
            &path,
            &json!({"spec": {"size": 6}, "status": {"phase": "y"}}),
        )
        .await
        .ok();
    assert_eq!(
        (&object["spec"]["size"], &object["status"]["phase"]),
        (&json!(6), &json!("x"))
    );
    let mut replacement = object.clone();
    replacement["status"] = Value::Null;
    let object = api.put(&path, &replacement).await.ok();
    assert_eq!(object["status"]["phase"], "x");
    assert_eq!(api.get(&format!("{path}/status")).await.ok(), object);
    api.get(&format!("{path}/nothing"))
        .await
        .refused(404, "NotFound");
    api.delete(&format!("{path}/status"))
        .await
        .refused(405, "MethodNotAllowed");
}

#[tokio::test]
async fn stale_writes_conflict() {
    let api = Api::with_things().await;
    let path = format!("{THINGS}/a");
    let old = api.post(THINGS, &thing("a", 1)).await.ok();
    api.merge(&path, &json!({"spec": {"size": 2}})).await.ok();
    let message = api.put(&path, &old).await.refused(409, "Conflict");
    assert_eq!(
        message,
        "Operation cannot be fulfilled on things.example.org \"a\": the object has been modified; \
         please apply your changes to the latest version and try again"
    );
    let version = old["metadata"]["resourceVersion"].clone();
    let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"size": 3}});
    api.merge(&path, &patch).await.refused(409, "Conflict");
    let test = json!([{"op": "test", "path": "/spec/size", "value": 1}]);
    api.patch(&path, "application/json-patch+json", &test)
        .await
        .refused(422, "Invalid");
    let mut unversioned = old.clone();
    unversioned["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    let message = api.put(&path, &unversioned).await.refused(422, "Invalid");
    assert!(message.contains("metadata.resourceVersion"), "{message}");
    let mut foreign = api.get(&path).await.ok();
    foreign["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
    api.put(&path, &foreign).await.refused(409, "Conflict");
    // Built-in kinds may be replaced without saying which version was read.
    api.post(CONFIG_MAPS, &config_map("c")).await.ok();
    let mut next = config_map("c");
    next["data"] = json!({"k": "v"});
    api.put(&format!("{CONFIG_MAPS}/c"), &next).await.ok();
    api.put(&format!("{CONFIG_MAPS}/none"), &config_map("none"))
        .await
        .refused(404, "NotFound");
}

#[tokio::test]
async fn writes_that_change_nothing_are_not_written() {
    let api = Api::with_things().await;
    let path = format!("{THINGS}/a");
    api.post(THINGS, &thing("a", 1)).await.ok();
    let object = api
        .merge(
            &format!("{path}/status"),
            &json!({"status": {"phase": "x"}}),
        )
        .await
        .ok();
    let before = api.revision();
    assert_eq!(api.put(&path, &object).await.ok(), object);
    assert_eq!(
        api.merge(&path, &json!({"spec": {"size": 1}})).await.ok(),
        object
    );
    assert_eq!(api.merge(&path, &json!({})).await.ok(), object);
    let json_patch = json!([{"op": "replace", "path": "/spec/size", "value": 1}]);
    assert_eq!(
        api.patch(&path, "application/json-patch+json", &json_patch)
            .await
            .ok(),
        object
    );
    let status = format!("{path}/status");
    assert_eq!(api.put(&status, &object).await.ok(), object);
    assert_eq!(
        api.merge(&status, &json!({"status": {"phase": "x"}}))
            .await
            .ok(),
        object
    );
    assert_eq!(api.revision(), before);
    api.merge(&path, &json!({"spec": {"size": 2}})).await.ok();
    assert_eq!(api.revision(), before + 1);
}

#[tokio::test]
async fn a_dry_run_does_everything_but_write() {
    let api = Api::with_things().await;
    let before = api.revision();
    let object = api
        .post(&format!("{THINGS}?dryRun=All"), &thing("a", 1))
        .await
        .ok();
    assert_eq!(object["spec"]["color"], "red");
    assert!(object["metadata"].get("resourceVersion").is_none());
    api.post(&format!("{THINGS}?dryRun=All"), &thing("a", -1))
        .await
        .refused(422, "Invalid");
    api.post(&format!("{THINGS}?dryRun=Some"), &thing("a", 1))
        .await
        .refused(422, "Invalid");
    assert_eq!(api.revision(), before);
    let stored = api.post(THINGS, &thing("a", 1)).await.ok();
    api.post(&format!("{THINGS}?dryRun=All"), &thing("a", 1))
        .await
        .refused(409, "AlreadyExists");
    let path = format!("{THINGS}/a");
    let patched = api
        .merge(&format!("{path}?dryRun=All"), &json!({"spec": {"size": 9}}))
        .await
        .ok();
    assert_eq!(patched["spec"]["size"], 9);
    api.delete(&format!("{path}?dryRun=All")).await.ok();
    assert_eq!(api.get(&path).await.ok(), stored);
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_refused_reported_or_ignored() {
    let api = Api::with_things().await;
    let mut object = thing("a", 1);
    object["spec"]["sise"] = 2.into();
    // What was dropped is said even when the rest is refused.
    let mut worse = object.clone();
    worse["spec"]["size"] = (-1).into();
    assert_eq!(api.post(THINGS, &worse).await.warnings().len(), 1);
    let message = api
        .post(&format!("{THINGS}?fieldValidation=Strict"), &object)
        .await
        .refused(400, "BadRequest");
    assert!(
        message.contains("strict decoding error: unknown field \"spec.sise\""),
        "{message}"
    );
    let answer = api.post(THINGS, &object).await;
    assert_eq!(
        answer.warnings(),
        ["299 - \"unknown field \\\"spec.sise\\\"\""]
    );
    assert!(
        answer.ok()["spec"].get("sise").is_none(),
        "unknown fields are pruned"
    );
    let path = format!("{THINGS}/a");
    let patch = json!({"spec": {"sise": 3}});
    let answer = api
        .merge(&format!("{path}?fieldValidation=Ignore"), &patch)
        .await;
    assert!(answer.warnings().is_empty());
    api.merge(&format!("{path}?fieldValidation=Strict"), &patch)
        .await
        .refused(422, "Invalid");
    api.merge(&format!("{path}?fieldValidation=Odd"), &patch)
        .await
        .refused(422, "Invalid");
    let mut pod = pod("p");
    pod["spec"]["containers"][0]["imagee"] = "x".into();
    let path = "/api/v1/namespaces/default/pods?fieldValidation=Strict";
    let message = api.post(path, &pod).await.refused(400, "BadRequest");
    assert!(
        message.contains("unknown field \"spec.containers[0].imagee\""),
        "{message}"
    );
    let request = http::Request::post(format!("{THINGS}?fieldValidation=Strict"))
        .header("content-type", "application/json")
        .body(
            r#"{"apiVersion":"example.org/v1","kind":"Thing","metadata":{"name":"d"},
            "spec":{"size":1,"size":2}}"#
                .into(),
        )
        .unwrap();
    let message = api.send(request).await.refused(400, "BadRequest");
    assert!(
        message.contains("duplicate field \"spec.size\""),
        "{message}"
    );
}

#[tokio::test]
async fn scale_reads_and_writes_replicas() {
    let api = Api::with_things().await;
    let mut object = thing("a", 1);
    object["spec"]["replicas"] = 2.into();
    api.post(THINGS, &object).await.ok();
    let status = json!({"status": {"replicas": 1, "selector": "a=b"}});
    api.merge(&format!("{THINGS}/a/status"), &status).await.ok();
    let path = format!("{THINGS}/a/scale");
    let scale = api.get(&path).await.ok();
    assert_eq!(
        (&scale["kind"], &scale["apiVersion"]),
        (&json!("Scale"), &json!("autoscaling/v1"))
    );
    assert_eq!(scale["spec"], json!({"replicas": 2}));
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "a=b"}));
    let scaled = api
        .merge(&path, &json!({"spec": {"replicas": 5}}))
        .await
        .ok();
    assert_eq!(scaled["spec"]["replicas"], 5);
    let object = api.get(&format!("{THINGS}/a")).await.ok();
    assert_eq!(
        (
            &object["spec"]["replicas"],
            &object["metadata"]["generation"]
        ),
        (&json!(5), &json!(2))
    );
    api.put(&path, &scale).await.refused(409, "Conflict");
    api.merge(&path, &json!({"spec": {"replicas": -1}}))
        .await
        .refused(422, "Invalid");
    api.get(&format!("{CONFIG_MAPS}/a/scale"))
        .await
        .refused(404, "NotFound");
}

#[tokio::test]
async fn secrets_and_services_are_completed() {
    let api = Api::start();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
        "stringData": {"a": "b"}});
    let secret = api
        .post("/api/v1/namespaces/default/secrets", &secret)
        .await
        .ok();
    assert_eq!(
        (&secret["type"], &secret["data"]),
        (&json!("Opaque"), &json!({"a": "Yg=="}))
    );
    let service = |name: &str, spec: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    let path = "/api/v1/namespaces/default/services";
    let one = api
        .post(path, &service("a", json!({"ports": [{"port": 80}]})))
        .await
        .ok();
    let two = api
        .post(path, &service("b", json!({"ports": [{"port": 80}]})))
        .await
        .ok();
    assert_ne!(one["spec"]["clusterIP"], two["spec"]["clusterIP"]);
    let taken = json!({"clusterIP": one["spec"]["clusterIP"], "ports": [{"port": 80}]});
    api.post(path, &service("c", taken))
        .await
        .refused(422, "Invalid");
    let headless = api
        .post(path, &service("d", json!({"clusterIP": "None"})))
        .await
        .ok();
    assert_eq!(headless["spec"]["clusterIP"], "None");
    api.merge(
        &format!("{path}/a"),
        &json!({"spec": {"clusterIP": "10.96.9.9"}}),
    )
    .await
    .refused(422, "Invalid");
}

#[tokio::test]
async fn concurrent_patches_all_land() {
    let api = Api::start();
    api.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let patches = (0..50).map(|n| {
        let (api, path) = (&api, &path);
        async move {
            api.merge(path, &json!({"data": {n.to_string(): "x"}}))
                .await
                .ok();
        }
    });
    futures::future::join_all(patches).await;
    assert_eq!(
        api.get(&path).await.ok()["data"].as_object().unwrap().len(),
        50
    );
}

#[tokio::test]
async fn who_creates_what_nobody_acts_on_is_warned() {
    let api = Api::with(Server::builder().unattended("", "ConfigMap"));
    let warning =
        ["299 - \"this cluster stores ConfigMap objects, but nothing in it acts on them\""];
    assert_eq!(
        api.post(CONFIG_MAPS, &config_map("a")).await.warnings(),
        warning
    );
    let path = format!("{CONFIG_MAPS}/b");
    assert_eq!(
        api.apply(&path, "me", &config_map("b")).await.warnings(),
        warning
    );
    // Told once is enough.
    assert_eq!(
        api.apply(&path, "me", &config_map("b")).await.warnings(),
        [""; 0]
    );
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}});
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(api.post(secrets, &secret).await.warnings(), [""; 0]);
}
