//! Lists, their revisions and their pages, and what selectors select.

use anyhow::Result;
use serde_json::json;

use crate::target::{Target, config_map, names, only_v1, pod, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_list_carries_the_revision_of_what_it_shows() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let first = target.create(&maps, &config_map("a", json!({}))).await?;
    let before = target.get(&maps).await?.ok()?;
    assert_eq!(text(&before, "/kind"), "ConfigMapList");
    assert_eq!(text(&before, "/apiVersion"), "v1");
    let second = target.create(&maps, &config_map("b", json!({}))).await?;
    let after = target.get(&maps).await?.ok()?;

    let revision = |object| text(object, "/metadata/resourceVersion").parse::<u64>();
    assert!(revision(&first)? < revision(&second)?);
    assert!(revision(&before)? < revision(&second)? && revision(&second)? <= revision(&after)?);
    let listed = |list, name: &str| names(list).iter().any(|listed| listed == name);
    assert!(listed(&before, "a") && !listed(&before, "b") && listed(&after, "b"));
    assert!(
        after["items"][0].get("kind").is_none(),
        "items of a built-in list have no type"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_one_moment() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    for name in ["a", "b", "c", "d", "e"] {
        let mut map = config_map(name, json!({}));
        map["metadata"]["labels"] = json!({"paged": "yes"});
        target.create(&maps, &map).await?;
    }
    let query = "labelSelector=paged%3Dyes&limit=2";
    let first = target.get(&format!("{maps}?{query}")).await?.ok()?;
    assert_eq!(names(&first), ["a", "b"]);
    let token = text(&first, "/metadata/continue").to_owned();
    assert!(!token.is_empty());

    // What happens between two pages is not seen by the second.
    target.delete(&target.config_maps("d")).await?.ok()?;
    let escaped = token
        .replace('=', "%3D")
        .replace('+', "%2B")
        .replace('/', "%2F");
    let second = target
        .get(&format!("{maps}?{query}&continue={escaped}"))
        .await?
        .ok()?;
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(
        text(&second, "/metadata/resourceVersion"),
        text(&first, "/metadata/resourceVersion")
    );
    let escaped = text(&second, "/metadata/continue").replace('=', "%3D");
    let third = target
        .get(&format!("{maps}?{query}&continue={escaped}"))
        .await?
        .ok()?;
    assert_eq!(names(&third), ["e"]);
    assert_eq!(text(&third, "/metadata/continue"), "");

    target
        .get(&format!("{maps}?limit=2&continue=nonsense"))
        .await?
        .error(400, "BadRequest");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_selector_the_first_page_counts_the_rest() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    for name in ["a", "b", "c"] {
        target.create(&maps, &config_map(name, json!({}))).await?;
    }
    let all = names(&target.get(&maps).await?.ok()?).len();
    let page = target.get(&format!("{maps}?limit=1")).await?.ok()?;
    assert_eq!(page["metadata"]["remainingItemCount"], all - 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_can_be_asked_for() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let created = target.create(&maps, &config_map("a", json!({}))).await?;
    let revision = text(&created, "/metadata/resourceVersion").to_owned();
    target.create(&maps, &config_map("b", json!({}))).await?;

    let any = target
        .get(&format!("{maps}?resourceVersion=0"))
        .await?
        .ok()?;
    assert!(names(&any).contains(&"a".to_owned()) || names(&any).is_empty());
    let exact = format!("{maps}?resourceVersion={revision}&resourceVersionMatch=Exact");
    let exact = target.get(&exact).await?.ok()?;
    assert_eq!(text(&exact, "/metadata/resourceVersion"), revision);
    assert!(
        !names(&exact).contains(&"b".to_owned()),
        "the past does not know the future"
    );
    let fresh = format!("{maps}?resourceVersion={revision}&resourceVersionMatch=NotOlderThan");
    assert!(names(&target.get(&fresh).await?.ok()?).contains(&"a".to_owned()));

    target
        .get(&format!("{maps}?resourceVersion=x"))
        .await?
        .error(400, "BadRequest");
    let pointless = format!("{maps}?resourceVersionMatch=Exact");
    target.get(&pointless).await?.error(422, "Invalid");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn label_selectors() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    for (name, labels) in [
        ("a", json!({"app": "web", "tier": "front", "n": "5"})),
        ("b", json!({"app": "web", "tier": "back", "n": "7"})),
        ("c", json!({"app": "db", "empty": ""})),
    ] {
        let mut map = config_map(name, json!({}));
        map["metadata"]["labels"] = labels;
        target.create(&maps, &map).await?;
    }
    for (selector, expected) in [
        ("app%3Dweb", vec!["a", "b"]),
        ("app%3D%3Dweb,tier!%3Dback", vec!["a"]),
        ("app%20in%20(web,db),!tier", vec!["c"]),
        ("app,tier%20notin%20(front)", vec!["b", "c"]),
        ("empty%3D", vec!["c"]),
        ("n%3E5", vec!["b"]),
        ("app%3Dnone", vec![]),
    ] {
        let list = target
            .get(&format!("{maps}?labelSelector={selector}"))
            .await?
            .ok()?;
        assert_eq!(names(&list), expected, "{selector}");
    }
    for (selector, message) in [
        (
            "a%20b",
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
        ),
        (
            "%3Da",
            "found '=', expected: !, identifier, or 'end of string'",
        ),
        ("a,", "found '', expected: identifier after ','"),
        (
            "a%20in%20b",
            "unable to parse requirement: found 'b' expected: '('",
        ),
        (
            "-a%3Db",
            "unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist of \
             alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
             character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
             '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ),
    ] {
        let status = target
            .get(&format!("{maps}?labelSelector={selector}"))
            .await?;
        let status = status.error(400, "BadRequest");
        assert_eq!(text(&status, "/message"), message, "{selector}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn field_selectors() -> Result<()> {
    let target = Target::new().await?;
    let pods = target.path("/api/v1", "pods");
    for name in ["a", "b"] {
        target.create(&pods, &pod(name)).await?;
    }
    for (selector, expected) in [
        ("metadata.name%3Da", vec!["a"]),
        ("metadata.name!%3Da", vec!["b"]),
        ("spec.nodeName%3D", vec!["a", "b"]),
        ("status.phase%3DPending,metadata.name%3D%3Db", vec!["b"]),
        (
            "spec.restartPolicy%3DAlways,spec.schedulerName%3Dnone",
            vec!["a", "b"],
        ),
        ("spec.hostNetwork%3Dfalse", vec!["a", "b"]),
        ("status.phase%3DRunning", vec![]),
    ] {
        let list = target
            .get(&format!("{pods}?fieldSelector={selector}"))
            .await?
            .ok()?;
        assert_eq!(names(&list), expected, "{selector}");
    }
    for (path, selector, message) in [
        (&pods, "spec.x%3D1", "field label not supported: spec.x"),
        (
            &pods,
            "metadata.name",
            "invalid selector: 'metadata.name'; can't understand 'metadata.name'",
        ),
        (
            &target.config_maps(""),
            "data.a%3D1",
            "\"data.a\" is not a known field selector: only \"metadata.name\", \
             \"metadata.namespace\"",
        ),
    ] {
        let status = target
            .get(&format!("{path}?fieldSelector={selector}"))
            .await?;
        assert_eq!(text(&status.error(400, "BadRequest"), "/message"), message);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_belong_to_a_kind() -> Result<()> {
    let target = Target::new().await?;
    let secret = json!({"metadata": {"name": "s"}, "type": "example.com/x"});
    target
        .create(&target.path("/api/v1", "secrets"), &secret)
        .await?;
    let secrets = target.path("/api/v1", "secrets?fieldSelector=type%3Dexample.com%2Fx");
    assert_eq!(names(&target.get(&secrets).await?.ok()?), ["s"]);

    let event = json!({
        "metadata": {"name": "e"}, "reason": "Because", "type": "Normal",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": target.namespace()},
        "source": {"component": "tester"},
    });
    target
        .create(&target.path("/api/v1", "events"), &event)
        .await?;
    for selector in [
        "involvedObject.name%3Dp,involvedObject.kind%3DPod",
        "reason%3DBecause,type%3DNormal",
        "source%3Dtester",
    ] {
        let events = target.path("/api/v1", &format!("events?fieldSelector={selector}"));
        assert_eq!(
            names(&target.get(&events).await?.ok()?),
            ["e"],
            "{selector}"
        );
    }
    let events = target.path(
        "/apis/events.k8s.io/v1",
        "events?fieldSelector=regarding.name%3Dp",
    );
    let list = target.get(&events).await?.ok()?;
    assert_eq!(names(&list), ["e"]);
    assert_eq!(text(&list["items"][0], "/regarding/name"), "p");

    let services = target.path("/api/v1", "services");
    let service = json!({"metadata": {"name": "svc"}, "spec": {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 1}]}});
    target.create(&services, &service).await?;
    let headless = format!("{services}?fieldSelector=spec.clusterIP%3DNone,spec.type%3DClusterIP");
    assert_eq!(names(&target.get(&headless).await?.ok()?), ["svc"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn selectable_fields_of_custom_resources() -> Result<()> {
    let target = Target::new().await?;
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"color": {"type": "string"}, "size": {"type": "integer"}}}}}});
    let custom = target
        .define("Shirt", only_v1(json!({"schema": schema, "selectableFields": [{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.size"}]})))
        .await?;
    for (name, color, size) in [("a", "red", 1), ("b", "blue", 1)] {
        let fields = json!({"spec": {"color": color, "size": size}});
        custom.create(&target, name, fields).await?;
    }
    let list = async |selector: &str| {
        let path = format!(
            "{}?fieldSelector={selector}",
            custom.path(&target, "v1", "")
        );
        target.get(&path).await
    };
    assert_eq!(names(&list("spec.color%3Dred").await?.ok()?), ["a"]);
    assert_eq!(
        names(&list("spec.size%3D1,spec.color!%3Dred").await?.ok()?),
        ["b"]
    );
    list("spec.shape%3Dx").await?.error_saying(
        400,
        "BadRequest",
        "field label not supported: spec.shape",
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_across_namespaces_and_of_metadata_alone() -> Result<()> {
    let target = Target::new().await?;
    let mut map = config_map("a", json!({"k": "v"}));
    map["metadata"]["labels"] = json!({"of": target.namespace()});
    target.create(&target.config_maps(""), &map).await?;
    let everywhere = format!(
        "/api/v1/configmaps?labelSelector=of%3D{}",
        target.namespace()
    );
    assert_eq!(names(&target.get(&everywhere).await?.ok()?), ["a"]);

    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = target.get_as(&everywhere, accept).await?.ok()?;
    assert_eq!(text(&list, "/kind"), "PartialObjectMetadataList");
    assert_eq!(text(&list["items"][0], "/metadata/name"), "a");
    assert!(list["items"][0].get("data").is_none());
    let accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let one = target
        .get_as(&target.config_maps("a"), accept)
        .await?
        .ok()?;
    assert_eq!(
        (text(&one, "/kind"), text(&one, "/apiVersion")),
        ("PartialObjectMetadata", "meta.k8s.io/v1")
    );
    assert!(one.get("data").is_none());
    Ok(())
}
