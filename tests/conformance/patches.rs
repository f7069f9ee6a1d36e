//! JSON, merge and strategic merge patches.

use anyhow::Result;
use serde_json::{Value, json};

use crate::target::{Patch, Target, any_fields, config_map, only_v1, text};

#[tokio::test(flavor = "multi_thread")]
async fn json_patches() -> Result<()> {
    let target = Target::new().await?;
    let mut map = config_map("a", json!({"one": "1", "two": "2"}));
    map["metadata"]["annotations"] = json!({"example.com/k": "v"});
    target.create(&target.config_maps(""), &map).await?;
    let path = target.config_maps("a");
    let patch = json!([
        {"op": "test", "path": "/data/one", "value": "1"},
        {"op": "replace", "path": "/data/one", "value": "x"},
        {"op": "add", "path": "/data/four", "value": "4"},
        {"op": "move", "from": "/metadata/annotations/example.com~1k", "path": "/data/moved"},
        {"op": "copy", "from": "/data/four", "path": "/data/five"},
        {"op": "remove", "path": "/data/four"},
    ]);
    let patched = target.patch(Patch::Json, &path, &patch).await?.ok()?;
    assert_eq!(
        patched["data"],
        json!({"one": "x", "two": "2", "moved": "v", "five": "4"})
    );

    for (patch, code, reason) in [
        (
            json!([{"op": "test", "path": "/data/one", "value": "y"}]),
            422,
            "Invalid",
        ),
        (
            json!([{"op": "remove", "path": "/data/none"}]),
            422,
            "Invalid",
        ),
        (
            json!([{"op": "replace", "path": "/binaryData/none", "value": "eA=="}]),
            422,
            "Invalid",
        ),
        (json!({"data": {}}), 400, "BadRequest"),
    ] {
        target
            .patch(Patch::Json, &path, &patch)
            .await?
            .error(code, reason);
    }
    assert_eq!(
        target.get(&path).await?.ok()?["data"],
        patched["data"],
        "a refused patch changes nothing"
    );

    for change in [json!({"kind": "Secret"}), json!({"apiVersion": "v2"})] {
        let status = target
            .patch(Patch::Merge, &path, &change)
            .await?
            .error(422, "Invalid");
        assert!(
            text(&status, "/message").starts_with(" \"\" is invalid: patch: Invalid value: "),
            "{status}"
        );
    }

    // Laxer than the standard: a missing member counts as null.
    let patch = json!([
        {"op": "test", "path": "/data/none", "value": null},
        {"op": "replace", "path": "/data/none", "value": "z"},
    ]);
    let patched = target.patch(Patch::Json, &path, &patch).await?.ok()?;
    assert_eq!(patched["data"]["none"], "z");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn merge_patches() -> Result<()> {
    let target = Target::new().await?;
    let mut map = config_map("a", json!({"one": "1", "two": "2"}));
    map["metadata"]["labels"] = json!({"l": "1", "m": "2"});
    target.create(&target.config_maps(""), &map).await?;
    let path = target.config_maps("a");
    let patch = json!({"metadata": {"labels": {"l": null}}, "data": {"one": null, "three": "3"}});
    let patched = target.patch(Patch::Merge, &path, &patch).await?.ok()?;
    assert_eq!(patched["data"], json!({"two": "2", "three": "3"}));
    assert_eq!(patched["metadata"]["labels"], json!({"m": "2"}));
    target
        .patch(Patch::Merge, &path, &json!([]))
        .await?
        .error(400, "BadRequest");
    let status = target
        .patch(Patch::Merge, &path, &json!({"data": {"a": 1}}))
        .await?;
    let status = status.error(422, "Invalid");
    assert!(
        text(&status, "/message").ends_with(
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string"
        ),
        "{status}"
    );
    target
        .patch(Patch::Merge, &target.config_maps("none"), &json!({}))
        .await?
        .error(404, "NotFound");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn strategic_patches_merge_lists_by_key() -> Result<()> {
    let target = Target::new().await?;
    let sets = target.path("/apis/apps/v1", "replicasets");
    let set = json!({
        "metadata": {"name": "s"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [
                {"name": "one", "image": "x", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                 "args": ["p", "q"]},
                {"name": "two", "image": "y"},
            ]},
        }},
    });
    target.create(&sets, &set).await?;
    let path = format!("{sets}/s");
    let patch = async |containers: Value| {
        let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        let patched = target.patch(Patch::Strategic, &path, &patch).await?.ok()?;
        anyhow::Ok(patched["spec"]["template"]["spec"]["containers"].clone())
    };
    let containers = patch(json!([
        {"name": "two", "image": "z"},
        {"name": "one", "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}], "args": ["r"]},
        {"name": "three", "image": "w"},
    ]))
    .await?;
    let one = containers
        .as_array()
        .and_then(|list| list.iter().find(|c| c["name"] == "one"));
    let one = one.expect("a container called one");
    let env = |name: &str| {
        let variables = one["env"].as_array().expect("variables").iter();
        variables
            .filter(|v| v["name"] == name)
            .map(|v| v["value"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (env("A"), env("B"), env("C")),
        (vec![json!("1")], vec![json!("3")], vec![json!("4")])
    );
    assert_eq!(one["args"], json!(["r"]), "a list of scalars is replaced");
    assert_eq!(containers.as_array().map(Vec::len), Some(3));

    let containers =
        patch(json!([{"name": "three", "$patch": "delete"}, {"$patch": "delete", "name": "two"}]))
            .await?;
    assert_eq!(containers.as_array().map(Vec::len), Some(1));
    let containers = patch(json!([{"$patch": "replace"}, {"name": "only", "image": "v"}])).await?;
    assert_eq!(containers[0]["name"], "only");
    assert_eq!(containers.as_array().map(Vec::len), Some(1));

    let retain = json!({"spec": {"template": {"metadata": {"annotations": {"k": "v", "l": "w"}}}}});
    target.patch(Patch::Strategic, &path, &retain).await?.ok()?;
    let replace = json!({"spec": {"template": {"metadata": {"annotations": {"$patch": "replace", "m": "x"}}}}});
    let patched = target
        .patch(Patch::Strategic, &path, &replace)
        .await?
        .ok()?;
    assert_eq!(
        patched["spec"]["template"]["metadata"]["annotations"],
        json!({"m": "x"})
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn strategic_patches_are_for_built_in_kinds() -> Result<()> {
    let target = Target::new().await?;
    let custom = target
        .define("Free", only_v1(json!({"schema": any_fields()})))
        .await?;
    custom.create(&target, "f", json!({})).await?;
    let path = custom.path(&target, "v1", "f");
    let status = target
        .patch(Patch::Strategic, &path, &json!({"spec": {}}))
        .await?;
    status.error_saying(
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: \
         application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_cannot_rename_or_retype() -> Result<()> {
    let target = Target::new().await?;
    target
        .create(&target.config_maps(""), &config_map("a", json!({})))
        .await?;
    let path = target.config_maps("a");
    let status = target
        .patch(Patch::Merge, &path, &json!({"metadata": {"name": "b"}}))
        .await?;
    status.error_saying(
        400,
        "BadRequest",
        "the name of the object (b) does not match the name on the URL (a)",
    );
    let status = target
        .patch(
            Patch::Merge,
            &path,
            &json!({"metadata": {"namespace": "b"}}),
        )
        .await?;
    status.error(400, "BadRequest");
    Ok(())
}
