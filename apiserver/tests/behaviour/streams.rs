//! Logs and streams, handed to the node of a pod.

use std::convert::Infallible;
use std::sync::Arc;

use agent_sandbox_apiserver::Server;
use agent_sandbox_apiserver::stream::{NodeConnector, NodeService};
use axum::body::Body;
use axum::extract::Request;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tower::{service_fn, util::BoxCloneSyncService};

use crate::harness::*;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// Knows one node, which answers with the request it got.
#[derive(Debug)]
struct Echo;

impl NodeConnector for Echo {
    fn connect(&self, node: &str) -> Option<NodeService> {
        let answer = |request: Request| async move {
            let mut response = Response::new(Body::from(request.uri().to_string()));
            if request.uri().path().ends_with("/starting") {
                *response.status_mut() = StatusCode::BAD_REQUEST;
                *response.body_mut() = Body::from("container is waiting to start");
            }
            Ok::<_, Infallible>(response)
        };
        (node == "node1").then(|| BoxCloneSyncService::new(service_fn(answer)))
    }
}

async fn api() -> Api {
    let api = Api::with(Server::builder().nodes(Arc::new(Echo)));
    let mut two = pod("two");
    two["spec"]["containers"] = json!([
        {"name": "a", "image": "i"}, {"name": "starting", "image": "i"}]);
    two["spec"]["initContainers"] = json!([{"name": "init", "image": "i"}]);
    for (object, node) in [(pod("one"), "node1"), (two, "node1"), (pod("far"), "node2")] {
        let mut object: Value = object;
        object["spec"]["nodeName"] = node.into();
        api.post(PODS, &object).await.ok();
    }
    api.post(PODS, &pod("nowhere")).await.ok();
    api
}

#[tokio::test]
async fn requests_reach_the_node_in_its_words() {
    let api = api().await;
    let cases = [
        ("one/log", "/containerLogs/default/one/main"),
        (
            "two/log?container=init&follow=true&tailLines=5&sinceTime=2026-01-01T00:00:00Z",
            "/containerLogs/default/two/init?follow=true&tailLines=5&sinceTime=2026-01-01T00%3A00%3A00Z",
        ),
        (
            "one/exec?command=sh&command=-c&command=a%20b&stdin=true&stdout=true&tty=false",
            "/exec/default/one/main?input=1&output=1&command=sh&command=-c&command=a+b",
        ),
        (
            "two/attach?container=a&stderr=1",
            "/attach/default/two/a?error=1",
        ),
        (
            "one/portforward?ports=80",
            "/portForward/default/one?port=80",
        ),
    ];
    for (path, expected) in cases {
        assert_eq!(
            api.get(&format!("{PODS}/{path}")).await.ok(),
            expected,
            "{path}"
        );
    }
    let posted = api
        .post(&format!("{PODS}/one/exec?command=ls"), &json!({}))
        .await
        .ok();
    assert_eq!(posted, "/exec/default/one/main?command=ls");
}

#[tokio::test]
async fn what_cannot_be_streamed_says_why() {
    let api = api().await;
    let cases = [
        ("two/log", 400, "choose one of: [a starting init]"),
        ("two/exec?command=ls", 400, "choose one of: [a starting]"),
        (
            "one/log?container=x",
            400,
            "container x is not valid for pod one",
        ),
        (
            "one/log?tailLines=many",
            400,
            "tailLines: expected a non-negative integer",
        ),
        ("one/exec", 400, "you must specify at least one command"),
        (
            "nowhere/log",
            400,
            "pod nowhere does not have a host assigned",
        ),
        (
            "two/log?container=starting",
            400,
            "container is waiting to start",
        ),
        ("far/log", 503, "node node2 is not connected"),
        ("none/log", 404, "pods \"none\" not found"),
    ];
    for (path, code, text) in cases {
        let answer = api.get(&format!("{PODS}/{path}")).await;
        assert_eq!(answer.status, code, "{path}: {}", answer.body);
        let message = answer.body["message"].as_str().unwrap();
        assert!(message.contains(text), "{path}: {message}");
    }
    let bare = Api::start();
    let mut object = pod("p");
    object["spec"]["nodeName"] = "node1".into();
    bare.post(PODS, &object).await.ok();
    bare.get(&format!("{PODS}/p/log"))
        .await
        .refused(503, "ServiceUnavailable");
    bare.delete(&format!("{PODS}/p/log"))
        .await
        .refused(405, "MethodNotAllowed");
}
