//! Tables, as `kubectl get` asks for them.

use anyhow::Result;
use serde_json::{Value, json};

use crate::target::{Target, any_fields, config_map, pod, text};

fn columns(table: &Value) -> Vec<&str> {
    let columns = table["columnDefinitions"].as_array().into_iter().flatten();
    columns.map(|column| text(column, "/name")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_and_an_object_as_tables() -> Result<()> {
    let target = Target::new().await?;
    target
        .create(
            &target.config_maps(""),
            &config_map("a", json!({"k": "v", "l": "w"})),
        )
        .await?;
    let list = target
        .table(&format!(
            "{}?fieldSelector=metadata.name%3Da",
            target.config_maps("")
        ))
        .await?
        .ok()?;
    assert_eq!(
        (text(&list, "/kind"), text(&list, "/apiVersion")),
        ("Table", "meta.k8s.io/v1")
    );
    assert_eq!(columns(&list), ["Name", "Data", "Age"]);
    let row = &list["rows"][0];
    assert_eq!(
        (&row["cells"][0], &row["cells"][1]),
        (&json!("a"), &json!(2))
    );
    assert_eq!(text(row, "/object/kind"), "PartialObjectMetadata");
    assert!(!text(&list, "/metadata/resourceVersion").is_empty());

    let one = target.table(&target.config_maps("a")).await?.ok()?;
    assert_eq!(one["rows"][0]["cells"][0], "a");
    let whole = target
        .table(&format!("{}?includeObject=Object", target.config_maps("a")))
        .await?
        .ok()?;
    assert_eq!(text(&whole["rows"][0], "/object/data/k"), "v");
    let none = target
        .table(&format!("{}?includeObject=None", target.config_maps("a")))
        .await?
        .ok()?;
    assert_eq!(none["rows"][0]["object"], Value::Null);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_show_their_state() -> Result<()> {
    let target = Target::new().await?;
    let pods = target.path("/api/v1", "pods");
    target.create(&pods, &pod("p")).await?;
    let table = target.table(&pods).await?.ok()?;
    assert_eq!(
        columns(&table),
        [
            "Name",
            "Ready",
            "Status",
            "Restarts",
            "Age",
            "IP",
            "Node",
            "Nominated Node",
            "Readiness Gates"
        ]
    );
    let cells = table["rows"][0]["cells"].as_array().expect("cells");
    assert_eq!(
        cells[..4],
        [json!("p"), json!("0/1"), json!("Pending"), json!("0")]
    );
    assert_eq!(
        cells[5..],
        [
            json!("<none>"),
            json!("<none>"),
            json!("<none>"),
            json!("<none>")
        ]
    );
    let priorities: Vec<_> = table["columnDefinitions"]
        .as_array()
        .expect("columns")
        .iter()
        .map(|c| c["priority"].clone())
        .collect();
    assert_eq!(priorities, [0, 0, 0, 0, 0, 1, 1, 1, 1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources_show_their_columns() -> Result<()> {
    let target = Target::new().await?;
    let custom = target
        .define("Gadget", json!({"scope": "Namespaced", "versions": [
            {"name": "v1", "served": true, "storage": true,
             "schema": any_fields(),
             "additionalPrinterColumns": [
                {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
                {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"},
                {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1, "description": "How many."},
                {"name": "On", "type": "boolean", "jsonPath": ".spec.on"},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]},
            {"name": "v1beta1", "served": true, "storage": false,
             "schema": any_fields()}]}))
        .await?;
    let fields = json!({"spec": {"replicas": 3, "on": true}, "status": {"phase": "Up", "conditions": [{"type": "Ready", "status": "True"}]}});
    custom.create(&target, "g", fields).await?;
    let shown = target.table(&custom.path(&target, "v1", "")).await?.ok()?;
    assert_eq!(
        columns(&shown),
        ["Name", "Phase", "Ready", "Replicas", "On", "Age"]
    );
    let cells = shown["rows"][0]["cells"].as_array().expect("cells");
    assert_eq!(
        cells[..5],
        [
            json!("g"),
            json!("Up"),
            json!("True"),
            json!(3),
            json!(true)
        ]
    );
    assert!(
        cells[5].as_str().is_some_and(|age| age.ends_with('s')),
        "{cells:?}"
    );
    assert_eq!(shown["columnDefinitions"][3]["description"], "How many.");
    assert_eq!(
        shown["columnDefinitions"][1]["description"],
        "Custom resource definition column (in JSONPath format): .status.phase"
    );
    let plain = target
        .table(&custom.path(&target, "v1beta1", ""))
        .await?
        .ok()?;
    assert_eq!(columns(&plain), ["Name", "Age"]);
    Ok(())
}
