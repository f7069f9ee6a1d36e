//! Creating and replacing: conflicts, writes that change nothing, and dry runs.

use anyhow::Result;
use serde_json::json;

use crate::target::{Patch, Target, config_map, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_replacement_conflicts() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let first = target
        .create(&maps, &config_map("a", json!({"k": "1"})))
        .await?;
    let path = target.config_maps("a");
    let mut second = first.clone();
    second["data"]["k"] = "2".into();
    let second = target.put(&path, &second).await?.ok()?;
    assert_ne!(
        second["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );

    let mut stale = first.clone();
    stale["data"]["k"] = "3".into();
    let status = target.put(&path, &stale).await?.error_saying(
        409,
        "Conflict",
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please \
         apply your changes to the latest version and try again",
    );
    assert_eq!(
        status["details"],
        json!({"name": "a", "kind": "configmaps"})
    );

    // Without a version the last writer wins.
    let unversioned = config_map("a", json!({"k": "4"}));
    assert_eq!(
        text(&target.put(&path, &unversioned).await?.ok()?, "/data/k"),
        "4"
    );
    // A patch can insist on a version too.
    let stale = json!({"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "data": {"k": "5"}});
    target
        .patch(Patch::Merge, &path, &stale)
        .await?
        .error(409, "Conflict");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_that_insist_on_a_version() -> Result<()> {
    let target = Target::new().await?;
    let leases = target.path("/apis/coordination.k8s.io/v1", "leases");
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}});
    target.create(&leases, &lease).await?;
    target
        .put(&format!("{leases}/l"), &lease)
        .await?
        .error_saying(
            422,
            "Invalid",
            "leases.coordination.k8s.io \"l\" is invalid: metadata.resourceVersion: Invalid \
             value: 0: must be specified for an update",
        );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_what_does_not_exist() -> Result<()> {
    let target = Target::new().await?;
    let missing = target.config_maps("none");
    target
        .put(&missing, &config_map("none", json!({})))
        .await?
        .error(404, "NotFound");
    // Some kinds are created by a replacement.
    let lease = target.path("/apis/coordination.k8s.io/v1", "leases/new");
    target
        .put(&lease, &json!({"metadata": {"name": "new"}}))
        .await?
        .created()?;
    let named = config_map("other", json!({}));
    target
        .put(&target.config_maps("one"), &named)
        .await?
        .error_saying(
            400,
            "BadRequest",
            "the name of the object (other) does not match the name on the URL (one)",
        );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_nothing_leaves_no_trace() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let created = target
        .create(&maps, &config_map("a", json!({"k": "v"})))
        .await?;
    let path = target.config_maps("a");
    let revision = text(&created, "/metadata/resourceVersion").to_owned();
    let mut watch = target
        .watch(&maps, &format!("resourceVersion={revision}"))
        .await?;

    let same = |answer: &serde_json::Value| {
        assert_eq!(
            text(answer, "/metadata/resourceVersion"),
            revision,
            "{answer}"
        );
    };
    same(&target.put(&path, &created).await?.ok()?);
    same(
        &target
            .put(&path, &config_map("a", json!({"k": "v"})))
            .await?
            .ok()?,
    );
    same(
        &target
            .patch(Patch::Merge, &path, &json!({"data": {"k": "v"}}))
            .await?
            .ok()?,
    );
    same(
        &target
            .patch(Patch::Strategic, &path, &json!({}))
            .await?
            .ok()?,
    );
    let test = json!([{"op": "test", "path": "/data/k", "value": "v"}]);
    same(&target.patch(Patch::Json, &path, &test).await?.ok()?);

    let applied = config_map("a", json!({"k": "v"}));
    let apply = format!("{path}?fieldManager=again");
    let first = target.patch(Patch::Apply, &apply, &applied).await?.ok()?;
    let again = target.patch(Patch::Apply, &apply, &applied).await?.ok()?;
    assert_eq!(
        first["metadata"]["resourceVersion"],
        again["metadata"]["resourceVersion"]
    );

    // The next event is the next real change.
    target
        .patch(Patch::Merge, &path, &json!({"data": {"k": "w"}}))
        .await?
        .ok()?;
    let changes = loop {
        let (_, object) = watch.change().await?;
        if text(&object, "/data/k") == "w" {
            break object;
        }
        let managers = object["metadata"]["managedFields"].as_array().map(Vec::len);
        assert_eq!(
            managers,
            Some(2),
            "only the new manager was worth an event: {object}"
        );
    };
    assert_ne!(text(&changes, "/metadata/resourceVersion"), revision);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_runs_do_everything_but_the_deed() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let dry = format!("{maps}?dryRun=All");
    let created = target
        .create(&dry, &config_map("a", json!({"k": "v"})))
        .await?;
    assert!(!text(&created, "/metadata/uid").is_empty());
    target
        .get(&target.config_maps("a"))
        .await?
        .error(404, "NotFound");
    target
        .post(&dry, &config_map("A", json!({})))
        .await?
        .error(422, "Invalid");

    target
        .create(&maps, &config_map("a", json!({"k": "v"})))
        .await?;
    target
        .post(&dry, &config_map("a", json!({})))
        .await?
        .error(409, "AlreadyExists");
    let one = target.config_maps("a");
    let path = format!("{one}?dryRun=All");
    let changed = target
        .patch(Patch::Merge, &path, &json!({"data": {"k": "w"}}))
        .await?
        .ok()?;
    assert_eq!(text(&changed, "/data/k"), "w");
    target.delete(&path).await?.ok()?;
    assert_eq!(text(&target.get(&one).await?.ok()?, "/data/k"), "v");

    let status = target
        .post(&format!("{maps}?dryRun=Some"), &config_map("b", json!({})))
        .await?;
    let status = status.error(422, "Invalid");
    assert!(text(&status, "/message").contains("dryRun"), "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_generated_and_taken_once() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let generated = json!({"metadata": {"generateName": "gen-"}});
    let first = target.create(&maps, &generated).await?;
    let second = target.create(&maps, &generated).await?;
    let (first, second) = (
        text(&first, "/metadata/name"),
        text(&second, "/metadata/name"),
    );
    assert!(first.starts_with("gen-") && first.len() == 9, "{first}");
    assert_ne!(first, second);

    target
        .post(&maps, &config_map(first, json!({})))
        .await?
        .error_saying(
            409,
            "AlreadyExists",
            &format!("configmaps \"{first}\" already exists"),
        );
    target
        .post(&maps, &json!({"metadata": {}}))
        .await?
        .error_saying(
            422,
            "Invalid",
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is \
             required",
        );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_come_as_json_yaml_or_without_a_name_for_it() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let post = async |headers: &[(&str, &str)], body: &str| {
        target
            .call_raw(http::Method::POST, &maps, headers, body.as_bytes().to_vec())
            .await
    };
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yaml\ndata:\n  k: \"v\"\n";
    post(&[("content-type", "application/yaml")], yaml)
        .await?
        .created()?;
    post(&[], r#"{"metadata": {"name": "bare"}}"#)
        .await?
        .created()?;
    let status = post(&[("content-type", "text/plain")], "x").await?;
    status.error(415, "UnsupportedMediaType");
    let status = post(&[("content-type", "application/json")], "{").await?;
    status.error(400, "BadRequest");

    // What typed clients encode: a ConfigMap `c` with `a: b`.
    let framed = b"k8s\x00\n\x0f\n\x02v1\x12\tConfigMap\x12\x1a\n\x0f\n\x05proto\"\x00*\x002\x008\x00\x12\x07\n\x01k\x12\x02vv\x1a\x00\"\x00";
    let media = [("content-type", "application/vnd.kubernetes.protobuf")];
    let answer = target
        .call_raw(http::Method::POST, &maps, &media, framed.to_vec())
        .await?;
    let created = answer.created()?;
    assert_eq!(
        (text(&created, "/metadata/name"), text(&created, "/data/k")),
        ("proto", "vv")
    );
    Ok(())
}
