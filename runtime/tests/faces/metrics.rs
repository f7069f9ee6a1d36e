//! What is counted.

use crate::harness::start;

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
