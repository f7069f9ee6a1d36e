//! Server-side apply: ownership, conflicts, force, and what happens to fields nobody wants any more.

use anyhow::Result;
use serde_json::{Value, json};

use crate::target::{Answer, Patch, Target, config_map, only_v1, text};

/// The fields of each manager, as `manager operation -> fieldsV1`.
fn managers(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten();
    let mut managers: Vec<_> = entries
        .map(|entry| {
            let who = format!("{} {}", text(entry, "/manager"), text(entry, "/operation"));
            (who, entry["fieldsV1"].clone())
        })
        .collect();
    managers.sort_by(|(a, _), (b, _)| a.cmp(b));
    managers
}

async fn apply(target: &Target, name: &str, manager: &str, data: Value) -> Result<Answer> {
    let path = format!("{}?fieldManager={manager}", target.config_maps(name));
    target
        .patch(Patch::Apply, &path, &config_map(name, data))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn applying_creates_owns_and_lets_go() -> Result<()> {
    let target = Target::new().await?;
    let created = apply(&target, "a", "one", json!({"k": "1", "l": "2"}))
        .await?
        .created()?;
    assert_eq!(
        managers(&created),
        [(
            "one Apply".to_owned(),
            json!({"f:data": {"f:k": {}, "f:l": {}}})
        )]
    );
    let entry = &created["metadata"]["managedFields"][0];
    assert_eq!(
        (text(entry, "/apiVersion"), text(entry, "/fieldsType")),
        ("v1", "FieldsV1")
    );
    assert!(!text(entry, "/time").is_empty());

    // What a manager no longer applies goes, unless somebody else wants it.
    apply(&target, "a", "two", json!({"l": "2", "m": "3"}))
        .await?
        .ok()?;
    let shrunk = apply(&target, "a", "one", json!({})).await?.ok()?;
    assert_eq!(shrunk["data"], json!({"l": "2", "m": "3"}));
    assert_eq!(
        managers(&shrunk),
        [
            ("one Apply".to_owned(), json!({"f:data": {}})),
            (
                "two Apply".to_owned(),
                json!({"f:data": {"f:l": {}, "f:m": {}}})
            ),
        ]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_name_manager_and_field() -> Result<()> {
    let target = Target::new().await?;
    apply(&target, "a", "one", json!({"k": "1"}))
        .await?
        .created()?;
    let status = apply(&target, "a", "two", json!({"k": "2"}))
        .await?
        .error_saying(
            409,
            "Conflict",
            "Apply failed with 1 conflict: conflict with \"one\": .data.k",
        );
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.k"}])
    );
    // Wanting the same is no conflict.
    apply(&target, "a", "two", json!({"k": "1"})).await?.ok()?;
    let status = apply(&target, "a", "two", json!({"k": "3"}))
        .await?
        .error(409, "Conflict");
    assert!(text(&status, "/message").contains("\"one\""), "{status}");

    let path = format!("{}?fieldManager=two&force=true", target.config_maps("a"));
    let forced = target
        .patch(Patch::Apply, &path, &config_map("a", json!({"k": "3"})))
        .await?
        .ok()?;
    assert_eq!(text(&forced, "/data/k"), "3");
    assert_eq!(
        managers(&forced),
        [("two Apply".to_owned(), json!({"f:data": {"f:k": {}}}))]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn other_writers_take_over_what_they_change() -> Result<()> {
    let target = Target::new().await?;
    apply(&target, "a", "one", json!({"k": "1", "l": "2"}))
        .await?
        .created()?;
    let path = format!("{}?fieldManager=editor", target.config_maps("a"));
    let edited = target
        .patch(Patch::Merge, &path, &json!({"data": {"k": "9"}}))
        .await?
        .ok()?;
    assert_eq!(
        managers(&edited),
        [
            ("editor Update".to_owned(), json!({"f:data": {"f:k": {}}})),
            ("one Apply".to_owned(), json!({"f:data": {"f:l": {}}})),
        ]
    );
    apply(&target, "a", "one", json!({"k": "1", "l": "2"}))
        .await?
        .error_saying(
            409,
            "Conflict",
            "Apply failed with 1 conflict: conflict with \"editor\" using v1: .data.k",
        );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_owned_item_by_item() -> Result<()> {
    let target = Target::new().await?;
    let services = target.path("/api/v1", "services");
    let service = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports}});
    let apply = async |manager: &str, ports: Value| {
        let path = format!("{services}/s?fieldManager={manager}");
        target.patch(Patch::Apply, &path, &service(ports)).await
    };
    apply("one", json!([{"name": "a", "port": 80, "protocol": "TCP"}]))
        .await?
        .created()?;
    let both = apply("two", json!([{"name": "b", "port": 81}]))
        .await?
        .ok()?;
    let ports = |object: &Value| -> Vec<Value> {
        let ports = object["spec"]["ports"].as_array().expect("ports").iter();
        ports.map(|port| port["name"].clone()).collect()
    };
    assert_eq!(ports(&both), ["a", "b"]);
    // The default of the key counts: both mean the same port.
    let status = apply(
        "two",
        json!([{"name": "c", "port": 80}, {"name": "b", "port": 81}]),
    )
    .await?;
    let status = status.error(409, "Conflict");
    assert!(
        text(&status, "/message").contains(".spec.ports[port=80,protocol=\"TCP\"].name"),
        "{status}"
    );
    let left = apply("one", json!([])).await?.ok()?;
    assert_eq!(ports(&left), ["b"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_has_managers_of_its_own() -> Result<()> {
    let target = Target::new().await?;
    let namespace = format!("/api/v1/namespaces/{}", target.namespace());
    let custom = target
        .define(
            "Owned",
            only_v1(json!({"subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"a": {"type": "string"}}},
                "status": {"type": "object", "properties": {"b": {"type": "string"}}}}}}})),
        )
        .await?;
    let path = custom.path(&target, "v1", "o");
    let spec = custom.object("o", json!({"spec": {"a": "1"}}));
    target
        .patch(Patch::Apply, &format!("{path}?fieldManager=m"), &spec)
        .await?
        .created()?;
    let status = custom.object("o", json!({"status": {"b": "2"}}));
    let applied = target
        .patch(
            Patch::Apply,
            &format!("{path}/status?fieldManager=m"),
            &status,
        )
        .await?
        .ok()?;
    let entries: Vec<(&str, &Value)> = applied["metadata"]["managedFields"]
        .as_array()
        .expect("managers")
        .iter()
        .map(|entry| (text(entry, "/subresource"), &entry["fieldsV1"]))
        .collect();
    assert_eq!(
        entries,
        [
            ("", &json!({"f:spec": {"f:a": {}}})),
            ("status", &json!({"f:status": {"f:b": {}}})),
        ]
    );
    target.get(&namespace).await?.ok()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_apply_must_say() -> Result<()> {
    let target = Target::new().await?;
    let path = target.config_maps("a");
    let status = target
        .patch(Patch::Apply, &path, &config_map("a", json!({})))
        .await?;
    status.error_saying(
        422,
        "Invalid",
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for \
         apply patch",
    );
    let named = format!("{path}?fieldManager=m");
    for (api_version, kind, shown) in [
        ("", "", "/, Kind="),
        ("v1", "", "/v1, Kind="),
        ("v1", "Secret", "/v1, Kind=Secret"),
        ("v2", "ConfigMap", "/v2, Kind=ConfigMap"),
    ] {
        let other = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}});
        target
            .patch(Patch::Apply, &named, &other)
            .await?
            .error_saying(400, "BadRequest", &format!("invalid object type: {shown}"));
    }
    let mut managed = config_map("a", json!({}));
    managed["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    target
        .patch(Patch::Apply, &named, &managed)
        .await?
        .error_saying(400, "BadRequest", "metadata.managedFields must be nil");
    let forced = format!("{path}?force=true");
    target
        .patch(Patch::Merge, &forced, &json!({}))
        .await?
        .error_saying(
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for \
             non-apply patch",
        );
    let unknown =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "dta": {}});
    // The real server blames itself for what the client did.
    let answer = target.patch(Patch::Apply, &named, &unknown).await?;
    assert_eq!(answer.status.as_u16(), 500, "{}", answer.body);
    assert_eq!(
        text(&answer.body, "/message"),
        "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .dta: field not declared in \
         schema"
    );
    // The path names the object; only to create it the configuration has to.
    let nameless = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "v"}});
    target
        .patch(Patch::Apply, &named, &nameless)
        .await?
        .error_saying(
            400,
            "BadRequest",
            "the name of the object (a based on URL) was undeterminable: name must be provided",
        );
    target
        .create(&target.config_maps(""), &config_map("a", json!({})))
        .await?;
    let applied = target.patch(Patch::Apply, &named, &nameless).await?.ok()?;
    assert_eq!(
        (text(&applied, "/metadata/name"), &applied["data"]["k"]),
        ("a", &json!("v"))
    );
    Ok(())
}
