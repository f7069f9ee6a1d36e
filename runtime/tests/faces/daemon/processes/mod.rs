//! `/v1/processes`: commands that outlive the request that started them.

mod attach;
mod control;
mod start;

use serde_json::{Value, json};

use crate::harness::{Answer, Server};

impl Server {
    pub(crate) async fn ask(&self, path: &str, body: &Value) -> Answer {
        self.post(path, "application/json", body.to_string()).await
    }

    /// Starts a command, which must succeed, and returns its number.
    pub(crate) async fn detach(&self, request: &Value) -> u64 {
        let answer = self.ask("/v1/processes", request).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let id = answer.json()["id"].as_u64().unwrap();
        assert_eq!(answer.header("location"), format!("/v1/processes/{id}"));
        id
    }

    pub(crate) async fn shell(&self, line: &str) -> u64 {
        self.detach(&json!({"shell": line})).await
    }

    pub(crate) async fn process(&self, id: u64) -> Value {
        let answer = self.get(&format!("/v1/processes/{id}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The lines of its output from `from` to the end.
    pub(crate) async fn lines(&self, id: u64, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/processes/{id}/output{query}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), "application/x-ndjson");
        let text = std::str::from_utf8(&answer.body).unwrap();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// What a stream had, of lines.
pub(crate) fn text(lines: &[Value], stream: &str) -> String {
    let of_stream = lines.iter().filter(|line| line["stream"] == stream);
    of_stream
        .map(|line| line["text"].as_str().unwrap())
        .collect()
}
