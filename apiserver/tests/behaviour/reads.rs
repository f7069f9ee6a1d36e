//! GET and LIST: consistency, paging, versions, selectors.

use agent_sandbox_apiserver::Server;
use agent_sandbox_apiserver::store::WindowLimits;
use serde_json::json;

use crate::harness::*;

#[tokio::test]
async fn a_list_carries_the_revision_of_its_snapshot() {
    let api = Api::start();
    api.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let list = api
        .get(&format!("{CONFIG_MAPS}?labelSelector=!x"))
        .await
        .ok();
    assert_eq!(
        (list["kind"].as_str(), list["apiVersion"].as_str()),
        (Some("ConfigMapList"), Some("v1"))
    );
    assert_eq!(
        list["metadata"]["resourceVersion"],
        api.revision().to_string()
    );
    let mut one = api.get(&format!("{CONFIG_MAPS}/a")).await.ok();
    // A list names the type of its items once.
    one.as_object_mut()
        .unwrap()
        .retain(|field, _| !matches!(field.as_str(), "apiVersion" | "kind"));
    assert!(list["items"].as_array().unwrap().contains(&one));
    api.get(&format!("{CONFIG_MAPS}/none"))
        .await
        .refused(404, "NotFound");
}

#[tokio::test]
async fn pages_show_one_snapshot_while_the_world_moves_on() {
    let api = Api::with_things().await;
    for n in 0..7 {
        api.post(THINGS, &thing(&format!("t{n}"), n)).await.ok();
    }
    let mut seen = Vec::new();
    let mut query = "limit=3".to_owned();
    let mut revision = None;
    loop {
        let page = api.get(&format!("{THINGS}?{query}")).await.ok();
        let at = page["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            *revision.get_or_insert_with(|| at.clone()),
            at,
            "every page has the first one's revision"
        );
        seen.extend(names(&page).into_iter().map(ToOwned::to_owned));
        let Some(token) = page["metadata"]["continue"].as_str() else {
            break;
        };
        assert_eq!(page["metadata"]["remainingItemCount"], 7 - seen.len());
        query = format!("limit=3&continue={token}");
        let last = seen.last().unwrap().clone();
        api.delete(&format!("{THINGS}/{last}")).await.ok();
        api.delete(&format!("{THINGS}/t6")).await;
        api.post(THINGS, &thing(&format!("{last}x"), 1)).await.ok();
    }
    assert_eq!(seen, ["t0", "t1", "t2", "t3", "t4", "t5", "t6"]);
}

#[tokio::test]
async fn an_old_page_expires_with_a_token_that_goes_on() {
    let window = WindowLimits {
        events: 4,
        ..WindowLimits::default()
    };
    let api = Api::with(Server::builder().window(window));
    for n in 0..4 {
        api.post(CONFIG_MAPS, &labelled(&format!("c{n}"), json!({"t": "1"})))
            .await
            .ok();
    }
    let list = format!("{CONFIG_MAPS}?labelSelector=t");
    let page = api.get(&format!("{list}&limit=2")).await.ok();
    assert!(
        page["metadata"].get("remainingItemCount").is_none(),
        "not exact under a selector"
    );
    let token = page["metadata"]["continue"].as_str().unwrap();
    for n in 0..6 {
        api.merge(
            &format!("{CONFIG_MAPS}/c0"),
            &json!({"data": {"n": n.to_string()}}),
        )
        .await
        .ok();
    }
    let answer = api.get(&format!("{list}&limit=2&continue={token}")).await;
    let fresh = answer.body["metadata"]["continue"]
        .as_str()
        .unwrap()
        .to_owned();
    answer.refused(410, "Expired");
    let rest = api
        .get(&format!("{list}&limit=2&continue={fresh}"))
        .await
        .ok();
    assert_eq!(names(&rest), ["c2", "c3"]);
}

#[tokio::test]
async fn resource_versions_pin_or_bound_a_list() {
    let api = Api::start();
    let a = api
        .post(CONFIG_MAPS, &labelled("a", json!({"t": "1"})))
        .await
        .ok();
    let then = a["metadata"]["resourceVersion"].as_str().unwrap();
    api.post(CONFIG_MAPS, &labelled("b", json!({"t": "1"})))
        .await
        .ok();
    let list = |query: String| {
        let path = format!("{CONFIG_MAPS}?labelSelector=t&{query}");
        let api = &api;
        async move { api.get(&path).await }
    };
    let exact = list(format!("resourceVersion={then}&resourceVersionMatch=Exact"))
        .await
        .ok();
    assert_eq!(names(&exact), ["a"]);
    assert_eq!(exact["metadata"]["resourceVersion"], then);
    for query in [
        "resourceVersion=0".to_owned(),
        format!("resourceVersion={then}"),
        String::new(),
    ] {
        assert_eq!(names(&list(query).await.ok()), ["a", "b"]);
    }
    let future = list("resourceVersion=999999".to_owned()).await;
    assert_eq!(
        future.body["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
    future.refused(504, "Timeout");
    list("resourceVersion=abc".to_owned())
        .await
        .refused(400, "BadRequest");
    list("resourceVersionMatch=Exact".to_owned())
        .await
        .refused(422, "Invalid");
    api.get(&format!("{CONFIG_MAPS}/a?resourceVersion=999999"))
        .await
        .refused(504, "Timeout");
}

#[tokio::test]
async fn selectors_select() {
    let api = Api::with_things().await;
    for (name, color, tier) in [("a", "red", "x"), ("b", "blue", "x"), ("c", "blue", "y")] {
        let mut object = thing(name, 1);
        object["spec"]["color"] = color.into();
        object["metadata"]["labels"] = json!({"tier": tier});
        api.post(THINGS, &object).await.ok();
    }
    let cases = [
        ("labelSelector=tier%3Dx", vec!["a", "b"]),
        ("labelSelector=tier%20in%20(y,z)", vec!["c"]),
        ("fieldSelector=spec.color%3Dblue", vec!["b", "c"]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        ("fieldSelector=metadata.name!%3Db", vec!["a", "c"]),
        (
            "fieldSelector=spec.color%3Dblue&labelSelector=tier%3Dx",
            vec!["b"],
        ),
        (
            "fieldSelector=metadata.namespace%3Ddefault",
            vec!["a", "b", "c"],
        ),
    ];
    for (query, expected) in cases {
        let list = api.get(&format!("{THINGS}?{query}")).await.ok();
        assert_eq!(names(&list), expected, "{query}");
    }
    api.get(&format!("{THINGS}?fieldSelector=spec.size%3D1"))
        .await
        .refused(400, "BadRequest");
    api.get(&format!("{THINGS}?labelSelector=%3D"))
        .await
        .refused(400, "BadRequest");
    let everywhere = api.get("/apis/example.org/v1/things").await.ok();
    assert_eq!(names(&everywhere).len(), 3);
}

#[tokio::test]
async fn large_lists_are_streamed_whole() {
    let api = Api::start();
    let text = "x".repeat(20_000);
    for n in 0..20 {
        let mut object = labelled(&format!("c{n:02}"), json!({"big": "1"}));
        object["data"] = json!({"text": text});
        api.post(CONFIG_MAPS, &object).await.ok();
    }
    let list = api
        .get(&format!("{CONFIG_MAPS}?labelSelector=big"))
        .await
        .ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 20);
    assert_eq!(list["items"][19]["data"]["text"], text);
}

#[tokio::test]
async fn every_served_version_shows_the_same_object() {
    let api = Api::with_things().await;
    let old = "/apis/example.org/v1alpha1/namespaces/default/things";
    let mut object = thing("a", 1);
    object["apiVersion"] = "example.org/v1alpha1".into();
    let created = api.post(old, &object).await.ok();
    assert_eq!(created["apiVersion"], "example.org/v1alpha1");
    let mut seen = api.get(&format!("{THINGS}/a")).await.ok();
    assert_eq!(seen["apiVersion"], "example.org/v1");
    seen["apiVersion"] = created["apiVersion"].clone();
    assert_eq!(seen, created);
}
