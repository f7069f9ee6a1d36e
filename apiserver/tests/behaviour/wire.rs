//! What travels: media types, methods, limits, forms, discovery, authentication.

use agent_sandbox_apiserver::auth::{Authenticator, User};
use axum::body::Body;
use http::{Method, Request};
use serde_json::json;
use tower::ServiceExt;

use crate::harness::*;

fn request(
    method: Method,
    path: &str,
    content_type: Option<&str>,
    body: impl Into<Body>,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    request.body(body.into()).unwrap()
}

#[tokio::test]
async fn bodies_are_json_by_default_and_may_be_yaml() {
    let api = Api::start();
    let post = |content_type, body: &'static str| {
        api.send(request(Method::POST, CONFIG_MAPS, content_type, body))
    };
    post(None, r#"{"metadata":{"name":"a"}}"#).await.ok();
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\ndata:\n  on: \"yes\"\n";
    assert_eq!(
        post(Some("application/yaml"), yaml).await.ok()["data"]["on"],
        "yes"
    );
    post(Some("text/plain"), "{}")
        .await
        .refused(415, "UnsupportedMediaType");
    post(Some("application/json"), "{")
        .await
        .refused(400, "BadRequest");
    post(Some("application/vnd.kubernetes.protobuf"), "{}")
        .await
        .refused(400, "BadRequest");
    let strategic = "application/strategic-merge-patch+json";
    let path = format!("{CONFIG_MAPS}/a");
    let patch = |content_type| api.send(request(Method::PATCH, &path, Some(content_type), "{}"));
    patch(strategic).await.ok();
    patch("application/json")
        .await
        .refused(415, "UnsupportedMediaType");
    let api = Api::with_things().await;
    api.post(THINGS, &thing("a", 1)).await.ok();
    api.patch(&format!("{THINGS}/a"), strategic, &json!({}))
        .await
        .refused(415, "UnsupportedMediaType");
}

#[tokio::test]
async fn large_bodies_are_refused() {
    let api = Api::start();
    let mut object = config_map("a");
    object["data"] = json!({"x": "x".repeat(4 << 20)});
    api.post(CONFIG_MAPS, &object)
        .await
        .refused(413, "RequestEntityTooLarge");
}

#[tokio::test]
async fn wrong_methods_and_paths_get_a_status() {
    let api = Api::start();
    api.send(request(Method::PUT, CONFIG_MAPS, None, "{}"))
        .await
        .refused(405, "MethodNotAllowed");
    api.send(request(
        Method::POST,
        &format!("{CONFIG_MAPS}/a"),
        None,
        "{}",
    ))
    .await
    .refused(405, "MethodNotAllowed");
    api.send(request(Method::OPTIONS, CONFIG_MAPS, None, ""))
        .await
        .refused(405, "MethodNotAllowed");
    api.post("/api/v1/configmaps", &config_map("a"))
        .await
        .refused(405, "MethodNotAllowed");
    api.post("/version", &json!({}))
        .await
        .refused(405, "MethodNotAllowed");
    for path in [
        "/",
        "/nothing",
        "/api/v9",
        "/api/v1/nothings",
        "/api/v1/namespaces/x/nodes",
        "/apis/none/v1/x",
    ] {
        api.get(path).await.refused(404, "NotFound");
    }
}

#[tokio::test]
async fn answers_take_the_accepted_form() {
    let api = Api::with_things().await;
    api.post(THINGS, &thing("a", 7)).await.ok();
    let get = |path: String, accept: &'static str| {
        api.send(
            Request::get(path)
                .header("accept", accept)
                .body(Body::empty())
                .unwrap(),
        )
    };
    let one = format!("{THINGS}/a");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    assert_eq!(get(one.clone(), table).await.ok()["kind"], "Table");
    assert_eq!(get(THINGS.to_owned(), table).await.ok()["kind"], "Table");
    let partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let metadata = get(one.clone(), partial).await.ok();
    assert_eq!(metadata["kind"], "PartialObjectMetadata");
    assert!(metadata.get("spec").is_none() && metadata["metadata"]["name"] == "a");
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = get(THINGS.to_owned(), partial).await.ok();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["kind"], "PartialObjectMetadata");
    let yaml = get(one.clone(), "application/yaml").await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    assert!(yaml.body.as_str().unwrap().contains("kind: Thing"));
    let protobuf = "application/vnd.kubernetes.protobuf";
    get(one, protobuf).await.refused(406, "NotAcceptable");
}

#[tokio::test]
async fn discovery_comes_whole_or_in_parts() {
    let api = Api::start();
    let accept =
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    for path in ["/api", "/apis"] {
        let request = Request::get(path)
            .header("accept", accept)
            .body(Body::empty())
            .unwrap();
        let answer = api.send(request).await;
        assert_eq!(
            answer.headers["content-type"],
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        );
        let tag = answer.headers["etag"].clone();
        assert_eq!(answer.ok()["kind"], "APIGroupDiscoveryList");
        let request = Request::get(path)
            .header("accept", accept)
            .header("if-none-match", tag);
        assert_eq!(
            api.send(request.body(Body::empty()).unwrap()).await.status,
            304
        );
    }
    assert_eq!(api.get("/api").await.ok()["kind"], "APIVersions");
    assert_eq!(api.get("/apis").await.ok()["kind"], "APIGroupList");
    assert_eq!(api.get("/apis/apps").await.ok()["kind"], "APIGroup");
    assert_eq!(api.get("/api/v1").await.ok()["kind"], "APIResourceList");
    assert_eq!(api.get("/version").await.ok()["major"], "1");
    assert_eq!(api.get("/readyz").await.ok(), "ok");
    api.trigger_shutdown();
    assert_eq!(api.get("/readyz").await.status, 503);
}

#[tokio::test]
async fn the_in_process_client_is_an_ordinary_one() {
    use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
    use kube::api::{Api as Resources, DeleteParams, ListParams, PostParams};

    let api = Api::start();
    let client = api.server.client();
    let version = client.apiserver_version().await.unwrap();
    assert_eq!(version.minor, "36");
    let namespaces: Resources<Namespace> = Resources::all(client.clone());
    assert_eq!(
        namespaces
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        4
    );
    let maps: Resources<ConfigMap> = Resources::default_namespaced(client);
    let object: ConfigMap = serde_json::from_value(config_map("a")).unwrap();
    maps.create(&PostParams::default(), &object).await.unwrap();
    let error = maps
        .create(&PostParams::default(), &object)
        .await
        .unwrap_err();
    assert!(matches!(error, kube::Error::Api(status) if status.is_already_exists()));
    let list = maps
        .list(&ListParams::default().fields("metadata.name=a"))
        .await
        .unwrap();
    assert_eq!(list.items.len(), 1);
    assert!(
        maps.delete("a", &DeleteParams::default())
            .await
            .unwrap()
            .is_right()
    );
}

#[tokio::test]
async fn behind_the_authenticator_tokens_are_required() {
    let api = Api::start();
    let router = Authenticator::new([("secret", User::admin())]).layer(api.server.router());
    let ask = |path: &'static str, token: Option<&'static str>| {
        let mut request = Request::get(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        router.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    assert_eq!(
        ask("/api/v1/pods", Some("secret")).await.unwrap().status(),
        200
    );
    assert_eq!(
        ask("/api/v1/pods", Some("wrong")).await.unwrap().status(),
        401
    );
    assert_eq!(ask("/api/v1/pods", None).await.unwrap().status(), 403);
    assert_eq!(ask("/healthz", None).await.unwrap().status(), 200);
}

#[tokio::test]
async fn service_accounts_are_users_too() {
    let api = Api::start();
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    eventually("the account exists", || api.exists(account)).await;
    let request = json!({"spec": {}});
    let answer = api.post(&format!("{account}/token"), &request).await.ok();
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    let engine = api.server.engine();
    let router = Authenticator::new([])
        .with_service_accounts(engine.tokens.clone(), engine.clock.clone())
        .layer(api.server.router());
    let request = Request::get("/api/v1/pods")
        .header("authorization", format!("Bearer {token}"))
        .body(Body::empty())
        .unwrap();
    assert_eq!(router.oneshot(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn requests_are_counted_by_what_they_did() {
    use agent_sandbox_apiserver::Server;
    use agent_sandbox_service::metrics::Metrics;

    let metrics = Metrics::new();
    let api = Api::with(Server::builder().metrics(&metrics));
    api.post(CONFIG_MAPS, &config_map("a")).await.ok();
    api.post(CONFIG_MAPS, &config_map("a"))
        .await
        .refused(409, "AlreadyExists");
    api.get(CONFIG_MAPS).await.ok();
    let watch = api.watch(&format!("{CONFIG_MAPS}?x=")).await;
    let line = |verb: &str, code: &str, count: u64| {
        format!(
            "apiserver_request_total{{code=\"{code}\",group=\"\",resource=\"configmaps\",\
             subresource=\"\",verb=\"{verb}\",version=\"v1\"}} {count}"
        )
    };
    let open = "apiserver_longrunning_requests{group=\"\",resource=\"configmaps\"}";
    let text = metrics.encode();
    let expected = [
        line("POST", "201", 1),
        line("POST", "409", 1),
        line("LIST", "200", 1),
        line("WATCH", "200", 1),
        format!("{open} 1"),
    ];
    for line in expected {
        assert!(text.contains(&line), "{line}: {text}");
    }
    drop(watch);
    assert!(metrics.encode().contains(&format!("{open} 0")));
}

#[tokio::test]
async fn the_older_binding_names_its_pod() {
    let api = Api::start();
    let pods = "/api/v1/namespaces/default/pods";
    api.post(pods, &pod("p")).await.ok();
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "n"}});
    api.post("/api/v1/namespaces/default/bindings", &binding)
        .await
        .ok();
    assert_eq!(
        api.get(&format!("{pods}/p")).await.ok()["spec"]["nodeName"],
        "n"
    );
}
