//! The description of the API is that of what is served, no more and no less.

use std::collections::{BTreeMap, BTreeSet};

use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use serde_json::Value;

use crate::harness::{Server, start};

/// Served and deliberately not described: what gRPC describes itself, and what is a 404 in any case.
const OTHERS: [&str; 1] = ["/v1/{*rest}"];

async fn described(server: &Server) -> Value {
    let answer = server.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    answer.json()
}

/// The paths of the router, which shows them only to people.
fn served(server: &Server) -> BTreeSet<String> {
    let shown = format!("{:?}", server.runtime.router());
    let paths = shown.split("RouteId(").skip(1);
    paths
        .filter_map(|text| text.split_once("): \"")?.1.split_once('"'))
        .map(|(path, _)| path.to_owned())
        .filter(|path| path.starts_with('/') && !path.contains("__private__"))
        .collect()
}

/// As the description has it: the path below a prefix may be empty, also without the last slash.
fn spelled(path: &str, described: &BTreeMap<String, Value>) -> Option<String> {
    let plain = path.replace("{*path}", "{path}");
    let below = format!("{}/{{path}}", path.trim_end_matches('/'));
    [plain, below]
        .into_iter()
        .find(|path| described.contains_key(path))
}

#[tokio::test]
async fn every_route_is_described_and_every_description_served() {
    let server = start().await;
    let document = described(&server).await;
    let described: BTreeMap<String, Value> =
        serde_json::from_value(document["paths"].clone()).unwrap();
    let routes = served(&server);
    assert!(routes.contains("/v1/processes/{id}/output"), "{routes:?}");
    let mut known = BTreeSet::new();
    for path in &routes {
        if OTHERS.contains(&path.as_str())
            || path.starts_with("/grpc.")
            || path.starts_with("/process.v1.")
        {
            continue;
        }
        if path == "/v1/fs/{operation}" {
            known.extend(
                described
                    .keys()
                    .filter(|path| path.starts_with("/v1/fs/"))
                    .cloned(),
            );
            continue;
        }
        let spelled = spelled(path, &described);
        known.insert(spelled.unwrap_or_else(|| panic!("{path} is not described")));
    }
    let described: BTreeSet<String> = described.into_keys().collect();
    assert_eq!(described, known);
}

#[tokio::test]
async fn exactly_the_described_methods_are_taken() {
    let server = start().await;
    let document = described(&server).await;
    for (path, operations) in document["paths"].as_object().unwrap() {
        // Nothing of this name and number exists.
        let place = path.replace("{path}", "x").replace("{id}", "4000000000");
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            let request = Request::builder().method(method).uri(&place);
            let request = request.header("host", "sandbox").body(Full::default());
            // Some answers have no end.
            let answer = server.open(request.unwrap()).await;
            let status = answer.status();
            // What is asked of a process that is none is a 404 before the method counts.
            let mut nobody = false;
            if status == StatusCode::NOT_FOUND {
                let text = answer.into_body().collect().await.unwrap().to_bytes();
                assert!(
                    !text.starts_with(b"404 page") && text != r#"{"detail":"Not Found"}"#,
                    "{method} {path}: {text:?}"
                );
                nobody = path.contains("{id}");
            }
            let taken = status != StatusCode::METHOD_NOT_ALLOWED;
            let known = operations.get(method.to_lowercase()).is_some();
            assert!(taken == known || nobody, "{method} {path}: {status}");
        }
    }
}

/// Everything below a value, with it.
fn all<'a>(value: &'a Value, visit: &mut impl FnMut(&'a serde_json::Map<String, Value>)) {
    match value {
        Value::Object(members) => {
            visit(members);
            members.values().for_each(|value| all(value, visit));
        }
        Value::Array(values) => values.iter().for_each(|value| all(value, visit)),
        _ => {}
    }
}

#[tokio::test]
async fn the_description_is_complete_in_itself() {
    let server = start().await;
    let document = described(&server).await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut used = BTreeSet::new();
    all(&document, &mut |members| {
        if let Some(reference) = members.get("$ref") {
            let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
            used.insert(pointer.to_owned());
        }
    });
    for kind in ["parameters", "responses", "schemas"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            let pointer = format!("/components/{kind}/{name}");
            assert!(used.contains(&pointer), "{pointer} is not used");
        }
    }
    let resolve = |value: &Value| match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => document
            .pointer(reference.trim_start_matches('#'))
            .unwrap()
            .clone(),
        None => value.clone(),
    };
    let mut ids = BTreeSet::new();
    let tags: BTreeSet<&str> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| tag["name"].as_str().unwrap())
        .collect();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let what = format!("{method} {path}");
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap()),
                "{what}"
            );
            assert!(
                tags.contains(operation["tags"][0].as_str().unwrap()),
                "{what}"
            );
            let none = Vec::new();
            let parameters = operation["parameters"].as_array().unwrap_or(&none);
            let parameters: Vec<Value> = parameters.iter().map(resolve).collect();
            let in_path = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "path");
            let in_path: BTreeSet<&str> = in_path
                .map(|found| found["name"].as_str().unwrap())
                .collect();
            let wanted = path
                .split('{')
                .skip(1)
                .map(|rest| rest.split('}').next().unwrap());
            assert_eq!(in_path, wanted.collect(), "{what}");
            let answers = operation["responses"].as_object().unwrap();
            assert!(!answers.is_empty(), "{what}");
            for (status, answer) in answers {
                assert!(status.parse::<u16>().is_ok(), "{what}");
                assert!(
                    resolve(answer)["description"].is_string(),
                    "{what} {status}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_pages_are_served() {
    let server = start().await;
    for path in ["/docs", "/redoc"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.header("content-type").starts_with("text/html"));
        let text = String::from_utf8_lossy(&answer.body);
        for part in ["/execute", "/v1/files", "/v1/processes", "openapi.json"] {
            assert!(text.contains(part), "{part}");
        }
    }
}
