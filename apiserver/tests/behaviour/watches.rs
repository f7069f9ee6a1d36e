//! Watches over HTTP.

use std::time::Duration;

use agent_sandbox_apiserver::Server;
use agent_sandbox_apiserver::http::Limits;
use agent_sandbox_apiserver::store::WindowLimits;
use serde_json::json;

use crate::harness::*;

#[tokio::test]
async fn events_after_a_revision_come_once_and_in_order() {
    let api = Api::with_things().await;
    api.post(THINGS, &thing("a", 1)).await.ok();
    let from = api.revision();
    api.merge(&format!("{THINGS}/a"), &json!({"spec": {"size": 2}}))
        .await
        .ok();
    let mut watch = api.watch(&format!("{THINGS}?resourceVersion={from}")).await;
    api.post(THINGS, &thing("b", 1)).await.ok();
    api.delete(&format!("{THINGS}/a")).await.ok();
    let mut revisions = Vec::new();
    for expected in [
        step("MODIFIED", "a"),
        step("ADDED", "b"),
        step("DELETED", "a"),
    ] {
        let event = watch.next().await.unwrap();
        let object = &event["object"];
        assert_eq!(event["type"], expected.0);
        assert_eq!(object["metadata"]["name"], expected.1);
        assert_eq!(object["kind"], "Thing");
        revisions.push(
            object["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .parse::<u64>()
                .unwrap(),
        );
    }
    assert_eq!(revisions, [from + 1, from + 2, from + 3]);
}

#[tokio::test]
async fn without_a_revision_a_watch_begins_with_what_is_there() {
    let api = Api::with_things().await;
    for name in ["a", "b"] {
        api.post(THINGS, &thing(name, 1)).await.ok();
    }
    for query in ["resourceVersion=", "resourceVersion=0"] {
        let mut watch = api.watch(&format!("{THINGS}?{query}")).await;
        assert_eq!(watch.step().await, step("ADDED", "a"));
        assert_eq!(watch.step().await, step("ADDED", "b"));
    }
}

#[tokio::test]
async fn initial_events_end_with_a_marked_bookmark() {
    let api = Api::with_things().await;
    api.post(THINGS, &thing("a", 1)).await.ok();
    let revision = api.revision();
    let path = format!(
        "{THINGS}?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut watch = api.watch(&path).await;
    assert_eq!(watch.step().await, step("ADDED", "a"));
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    let metadata = &bookmark["object"]["metadata"];
    assert_eq!(metadata["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(metadata["resourceVersion"], revision.to_string());
    assert_eq!(bookmark["object"]["kind"], "Thing");
    api.post(THINGS, &thing("b", 1)).await.ok();
    assert_eq!(watch.step().await, step("ADDED", "b"));
}

#[tokio::test]
async fn selectors_turn_changes_into_comings_and_goings() {
    let api = Api::start();
    api.post(CONFIG_MAPS, &labelled("a", json!({"on": "1"})))
        .await
        .ok();
    let from = api.revision();
    let mut watch = api
        .watch(&format!(
            "{CONFIG_MAPS}?labelSelector=on%3D1&resourceVersion={from}"
        ))
        .await;
    let path = format!("{CONFIG_MAPS}/a");
    let set = |value: &str, n: i64| json!({"metadata": {"labels": {"on": value}}, "data": {"n": n.to_string()}});
    api.merge(&path, &set("0", 1)).await.ok();
    let left = watch.next().await.unwrap();
    assert_eq!(left["type"], "DELETED");
    assert_eq!(
        left["object"]["metadata"]["labels"]["on"], "1",
        "the last state the watcher knew"
    );
    assert_eq!(
        left["object"]["metadata"]["resourceVersion"],
        api.revision().to_string()
    );
    api.merge(&path, &set("0", 2)).await.ok();
    api.merge(&path, &set("1", 3)).await.ok();
    let joined = watch.next().await.unwrap();
    assert_eq!(
        (joined["type"].as_str(), &joined["object"]["data"]["n"]),
        (Some("ADDED"), &json!("3"))
    );
    api.merge(&path, &set("1", 4)).await.ok();
    assert_eq!(watch.step().await, step("MODIFIED", "a"));
    api.delete(&path).await.ok();
    assert_eq!(watch.step().await, step("DELETED", "a"));
}

#[tokio::test]
async fn a_watch_of_one_name_sees_only_that() {
    let api = Api::start();
    let from = api.revision();
    let mut watch = api
        .watch(&format!(
            "{CONFIG_MAPS}?fieldSelector=metadata.name%3Db&resourceVersion={from}"
        ))
        .await;
    for name in ["a", "b", "c"] {
        api.post(CONFIG_MAPS, &config_map(name)).await.ok();
    }
    api.delete(&format!("{CONFIG_MAPS}/b")).await.ok();
    assert_eq!(watch.step().await, step("ADDED", "b"));
    assert_eq!(watch.step().await, step("DELETED", "b"));
    let mut single = api
        .watch(&format!("{CONFIG_MAPS}/c?resourceVersion={from}"))
        .await;
    assert_eq!(single.step().await, step("ADDED", "c"));
    let mut legacy = api
        .watch(&format!(
            "/api/v1/watch/namespaces/default/configmaps/a?resourceVersion={from}"
        ))
        .await;
    assert_eq!(legacy.step().await, step("ADDED", "a"));
}

#[tokio::test]
async fn a_revision_that_is_gone_is_an_error_event() {
    let window = WindowLimits {
        events: 2,
        ..WindowLimits::default()
    };
    let api = Api::with(Server::builder().window(window));
    for n in 0..4 {
        api.post(CONFIG_MAPS, &config_map(&format!("c{n}")))
            .await
            .ok();
    }
    let mut watch = api.watch(&format!("{CONFIG_MAPS}?resourceVersion=1")).await;
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!(
        (&event["object"]["code"], &event["object"]["reason"]),
        (&json!(410), &json!("Expired"))
    );
    assert!(watch.next().await.is_none());
    api.get(&format!("{CONFIG_MAPS}?watch=true&resourceVersion=999999"))
        .await
        .refused(504, "Timeout");
}

#[tokio::test(start_paused = true)]
async fn bookmarks_follow_the_store_and_announce_the_end() {
    let limits = Limits {
        bookmarks: Duration::from_secs(60),
        ..Limits::default()
    };
    let api = Api::with(Server::builder().limits(limits));
    let from = api.revision();
    let mut watch = api
        .watch(&format!(
            "{CONFIG_MAPS}?resourceVersion={from}&allowWatchBookmarks=true&timeoutSeconds=90&labelSelector=never"
        ))
        .await.patient();
    // What the selector hides still moves the bookmark.
    api.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let started = tokio::time::Instant::now();
    for expected in [60, 88] {
        let event = watch.next().await.unwrap();
        assert_eq!(event["type"], "BOOKMARK");
        let revision: u64 = event["object"]["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!(revision > from);
        assert_eq!(started.elapsed().as_secs(), expected);
    }
    assert!(
        watch.next().await.is_none(),
        "the watch ends at its timeout"
    );
    assert_eq!(started.elapsed().as_secs(), 90);
}

#[tokio::test(start_paused = true)]
async fn without_asking_there_are_no_bookmarks() {
    let api = Api::start();
    let query = "timeoutSeconds=600&labelSelector=never";
    let mut watch = api.watch(&format!("{CONFIG_MAPS}?{query}")).await.patient();
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn shutdown_ends_watches() {
    let api = Api::start();
    let mut watch = api
        .watch(&format!("{CONFIG_MAPS}?labelSelector=never"))
        .await;
    api.trigger_shutdown();
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn tables_and_metadata_can_be_watched() {
    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    let api = Api::with_things().await;
    api.post(THINGS, &thing("a", 7)).await.ok();
    let read = |accept: &'static str| {
        let request = Request::get(format!("{THINGS}?watch=true&timeoutSeconds=600"))
            .header("accept", accept)
            .body(axum::body::Body::empty())
            .unwrap();
        let router = api.server.router();
        async move {
            let response = router.oneshot(request).await.unwrap();
            let mut body = response.into_body();
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            serde_json::from_slice::<serde_json::Value>(&frame).unwrap()
        }
    };
    let event = read("application/json;as=Table;v=v1;g=meta.k8s.io").await;
    assert_eq!(event["object"]["kind"], "Table");
    let event = read("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await;
    assert_eq!(event["object"]["kind"], "PartialObjectMetadata");
    assert!(event["object"].get("spec").is_none());
}

#[tokio::test]
async fn every_watcher_sees_a_burst_whole() {
    let api = Api::with_things().await;
    let from = api.revision();
    let mut watches = Vec::new();
    for _ in 0..10 {
        watches.push(api.watch(&format!("{THINGS}?resourceVersion={from}")).await);
    }
    for n in 0..200 {
        api.post(THINGS, &thing(&format!("t{n:03}"), 1)).await.ok();
    }
    for watch in &mut watches {
        for n in 0..200 {
            assert_eq!(watch.step().await, step("ADDED", &format!("t{n:03}")));
        }
    }
}
