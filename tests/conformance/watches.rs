//! Watches: every change once and in order, from any point that is still known.

use anyhow::Result;
use serde_json::{Value, json};

use crate::target::{Patch, TABLE, Target, config_map, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_a_list_sees_every_later_change() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    target
        .create(&maps, &config_map("before", json!({})))
        .await?;
    let list = target.get(&maps).await?.ok()?;
    let revision = text(&list, "/metadata/resourceVersion").to_owned();

    target.create(&maps, &config_map("a", json!({}))).await?;
    let path = target.config_maps("a");
    target
        .patch(Patch::Merge, &path, &json!({"data": {"k": "v"}}))
        .await?
        .ok()?;
    let mut watch = target
        .watch(&maps, &format!("resourceVersion={revision}"))
        .await?;
    let created = watch.change().await?;
    assert_eq!(
        (created.0.as_str(), text(&created.1, "/metadata/name")),
        ("ADDED", "a")
    );
    let changed = watch.change().await?;
    assert_eq!(
        (changed.0.as_str(), text(&changed.1, "/data/k")),
        ("MODIFIED", "v")
    );
    assert_eq!(
        text(&changed.1, "/kind"),
        "ConfigMap",
        "objects in events have a type"
    );

    target.delete(&path).await?.ok()?;
    let gone = watch.change().await?;
    assert_eq!(
        (gone.0.as_str(), text(&gone.1, "/metadata/name")),
        ("DELETED", "a")
    );
    let revision = |object: &Value| text(object, "/metadata/resourceVersion").parse::<u64>();
    assert!(
        revision(&gone.1)? > revision(&changed.1)?,
        "a deletion has a revision of its own"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_nowhere_starts_with_what_is_there() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    for name in ["a", "b"] {
        target.create(&maps, &config_map(name, json!({}))).await?;
    }
    for query in ["", "resourceVersion=0"] {
        let selector = "fieldSelector=metadata.name!%3Dkube-root-ca.crt";
        let query = if query.is_empty() {
            selector.to_owned()
        } else {
            format!("{query}&{selector}")
        };
        let mut watch = target.watch(&maps, &query).await?;
        let mut seen = watch.changes(2).await?;
        seen.sort();
        assert_eq!(seen, ["ADDED a", "ADDED b"]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn initial_events_end_with_a_bookmark() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    target.create(&maps, &config_map("a", json!({}))).await?;
    let query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan\
                 &fieldSelector=metadata.name%3Da";
    let mut watch = target.watch(&maps, query).await?;
    let first = watch.next().await?;
    assert_eq!(
        (text(&first, "/type"), text(&first, "/object/metadata/name")),
        ("ADDED", "a")
    );
    let bookmark = watch.next().await?;
    assert_eq!(text(&bookmark, "/type"), "BOOKMARK");
    assert_eq!(text(&bookmark, "/object/kind"), "ConfigMap");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert!(!text(&bookmark, "/object/metadata/resourceVersion").is_empty());

    target.delete(&target.config_maps("a")).await?.ok()?;
    assert_eq!(watch.changes(1).await?, ["DELETED a"]);

    let alone = format!("{maps}?watch=true&sendInitialEvents=true");
    target.get(&alone).await?.error(422, "Invalid");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_turn_changes_into_arrivals_and_departures() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let list = target.get(&maps).await?.ok()?;
    let revision = text(&list, "/metadata/resourceVersion");
    let query = format!("labelSelector=on%3Dyes&resourceVersion={revision}");
    let mut watch = target.watch(&maps, &query).await?;

    target.create(&maps, &config_map("a", json!({}))).await?;
    let path = target.config_maps("a");
    let label = |value: Value| json!({"metadata": {"labels": {"on": value}}});
    target
        .patch(Patch::Merge, &path, &label("yes".into()))
        .await?
        .ok()?;
    target
        .patch(Patch::Merge, &path, &json!({"data": {"k": "v"}}))
        .await?
        .ok()?;
    target
        .patch(Patch::Merge, &path, &label("no".into()))
        .await?
        .ok()?;
    target
        .patch(Patch::Merge, &path, &json!({"data": {"k": "w"}}))
        .await?
        .ok()?;
    target
        .patch(Patch::Merge, &path, &label("yes".into()))
        .await?
        .ok()?;
    target.delete(&path).await?.ok()?;
    assert_eq!(
        watch.changes(5).await?,
        ["ADDED a", "MODIFIED a", "DELETED a", "ADDED a", "DELETED a"]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_object_can_be_watched() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let list = target.get(&maps).await?.ok()?;
    let revision = text(&list, "/metadata/resourceVersion");
    let query = format!("fieldSelector=metadata.name%3Db&resourceVersion={revision}");
    let mut watch = target.watch(&maps, &query).await?;
    for name in ["a", "b"] {
        target.create(&maps, &config_map(name, json!({}))).await?;
    }
    assert_eq!(watch.changes(1).await?, ["ADDED b"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_is_a_number() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let start = "resourceVersion: Invalid value: \"abc\": ";
    let status = target
        .get(&format!("{maps}?resourceVersion=abc"))
        .await?
        .error(400, "BadRequest");
    let message = text(&status, "/message");
    assert!(
        message.starts_with(&format!("invalid resource version: {start}")),
        "{message}"
    );
    // The published answer to a watch, although the fault is the client's.
    let answer = target
        .get(&format!("{maps}?watch=true&resourceVersion=abc"))
        .await?;
    let message = text(&answer.body, "/message");
    assert!(
        answer.status.as_u16() == 500 && message.starts_with(start),
        "{}",
        answer.body
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_when_its_time_is_over() -> Result<()> {
    let target = Target::new().await?;
    let mut watch = target
        .watch(&target.config_maps(""), "timeoutSeconds=1")
        .await?;
    let end = loop {
        if let Err(error) = watch.next().await {
            break error;
        }
    };
    assert_eq!(end.to_string(), "the watch ended");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_can_carry_tables_and_metadata() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let query = "fieldSelector=metadata.name%3Da";
    let mut tables = target.watch_as(&maps, query, TABLE).await?;
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let mut partial = target.watch_as(&maps, query, partial).await?;
    target
        .create(&maps, &config_map("a", json!({"k": "v"})))
        .await?;
    target.delete(&target.config_maps("a")).await?.ok()?;

    let (kind, first) = tables.change().await?;
    assert_eq!((kind.as_str(), text(&first, "/kind")), ("ADDED", "Table"));
    assert_eq!(first["columnDefinitions"][0]["name"], "Name");
    assert_eq!(first["rows"][0]["cells"][0], "a");
    let (kind, second) = tables.change().await?;
    assert_eq!(kind, "DELETED");
    assert!(
        second["columnDefinitions"]
            .as_array()
            .is_none_or(Vec::is_empty),
        "only the first event describes the columns: {second}"
    );
    let (_, object) = partial.change().await?;
    assert_eq!(text(&object, "/kind"), "PartialObjectMetadata");
    assert!(object.get("data").is_none());
    Ok(())
}
