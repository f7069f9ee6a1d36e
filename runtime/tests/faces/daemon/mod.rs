//! The daemon API.

mod archive;
mod conditions;
mod content;
mod files;
mod processes;
mod service;
mod tree;
mod watch;

use serde_json::Value;

use crate::harness::{Answer, Server};

/// Sends a request to `/v1/fs/{operation}`.
async fn ask(server: &Server, operation: &str, request: &Value) -> Answer {
    let path = format!("/v1/fs/{operation}");
    server
        .post(&path, "application/json", request.to_string())
        .await
}

/// What an operation that succeeds answers.
async fn done(server: &Server, operation: &str, request: &Value) -> Value {
    let answer = ask(server, operation, request).await;
    assert_eq!(answer.status, 200, "{operation} {request}: {answer:?}");
    answer.json()
}

/// Checks how an operation is refused.
async fn refused(server: &Server, operation: &str, request: &Value, status: u16, code: &str) {
    let answer = ask(server, operation, request).await;
    assert_eq!(answer.status, status, "{operation} {request}: {answer:?}");
    assert_eq!(
        answer.json()["code"],
        code,
        "{operation} {request}: {answer:?}"
    );
}

fn fifo(server: &Server, name: &str) {
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, server.root().join(name), kind, mode, 0).unwrap();
}
