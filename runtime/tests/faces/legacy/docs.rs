//! The description of the API.

use hyper::StatusCode;

use crate::harness::start;

#[tokio::test]
async fn every_described_route_exists_and_every_reference_resolves() {
    let server = start().await;
    let answer = server.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), "application/json");
    let document = answer.json();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let answer = server
                .call(&method.to_uppercase(), &path.replace("{path}", "x"), &[])
                .await;
            let status = answer.status;
            let unknown = answer.body == r#"{"detail":"Not Found"}"#;
            assert!(
                !unknown && status != StatusCode::METHOD_NOT_ALLOWED,
                "{method} {path}"
            );
        }
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[tokio::test]
async fn the_pages_are_served() {
    let server = start().await;
    for path in ["/docs", "/redoc"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.header("content-type").starts_with("text/html"));
        assert!(String::from_utf8_lossy(&answer.body).contains("/execute"));
    }
}

#[tokio::test]
async fn metrics_count_requests_commands_and_uploads() {
    let server = start().await;
    server.execute("true").await;
    server.execute("sh -c 'kill -9 $$'").await;
    server.execute("no-such-program").await;
    server.execute_within("sleep 1000", 0.1).await;
    server.upload("x", b"12345").await;
    server.get("/list/x").await;
    let text = String::from_utf8(server.get("/metrics").await.body.to_vec()).unwrap();
    for line in [
        "agent_sandbox_runtime_commands_total{outcome=\"exited\"} 1",
        "agent_sandbox_runtime_commands_total{outcome=\"signaled\"} 1",
        "agent_sandbox_runtime_commands_total{outcome=\"refused\"} 1",
        "agent_sandbox_runtime_commands_total{outcome=\"timed_out\"} 1",
        "agent_sandbox_runtime_commands_running 0",
        "agent_sandbox_runtime_uploaded_bytes_total 5",
        "agent_sandbox_runtime_requests_total{method=\"POST\",route=\"/execute\",status=\"200\"} 4",
        "agent_sandbox_runtime_requests_total{method=\"GET\",route=\"/list/{*path}\",status=\"404\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}
