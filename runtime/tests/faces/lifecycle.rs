//! Starting, several ports, stopping.

use agent_sandbox_runtime::{Config, Runtime};
use hyper::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{PATIENCE, eventually, post, runs, sh, start, start_with, written_pid};

#[tokio::test]
async fn every_port_answers_and_shares_one_table() {
    let server = start_with(|config| config.ports = vec![0, 0]).await;
    assert_eq!(server.addresses.len(), 2);
    for address in &server.addresses {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let body = json!({"command": "true"}).to_string();
        let answer = sender
            .send_request(post("/execute", "application/json", body))
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_pod_address_of_its_own_is_the_only_one_listened_on() {
    let server = start_with(|config| config.address = [127, 3, 0, 7].into()).await;
    assert_eq!(server.execute("true").await["exit_code"], 0);
    // On which no other test listens.
    let elsewhere = format!("127.3.0.8:{}", server.address.port());
    assert!(tokio::net::TcpStream::connect(elsewhere).await.is_err());
}

#[tokio::test]
async fn a_stop_ends_commands_answers_their_requests_and_returns() {
    let server = start().await;
    let root = server.root();
    let script = "trap '' TERM; setsid sleep 1000 & echo $! > child.pid; echo $$ > leader.pid; wait; sleep 1000";
    let mut sender = server.connect().await;
    let body = json!({"command": sh(script)}).to_string();
    let request = tokio::spawn(sender.send_request(post("/execute", "application/json", body)));
    let leader = written_pid(&root.join("leader.pid")).await;
    let child = written_pid(&root.join("child.pid")).await;
    let processes = server.runtime.processes().clone();
    // It may have come so far before its start is over; a stop then refuses it.
    eventually("it is known", || processes.running() == 1).await;
    server.shutdown.trigger();
    let answer = tokio::time::timeout(PATIENCE, request)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let body = http_body_util::BodyExt::collect(answer.into_body())
        .await
        .unwrap()
        .to_bytes();
    let outcome: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(outcome["exit_code"], -9, "{outcome}");
    tokio::time::timeout(PATIENCE, server.serving)
        .await
        .unwrap()
        .unwrap();
    assert!(!runs(leader) && !runs(child));
    assert_eq!(processes.running(), 0);
}

#[tokio::test]
async fn two_runtimes_in_one_process_do_not_touch_each_others_commands() {
    let (one, other) = (start().await, start().await);
    let pid_file = other.root().join("pid");
    let mut sender = other.connect().await;
    let body = json!({"command": sh("echo $$ > pid; exec sleep 1000")}).to_string();
    let _request = tokio::spawn(sender.send_request(post("/execute", "application/json", body)));
    let pid = written_pid(&pid_file).await;
    one.stop().await;
    assert!(runs(pid));
    other.stop().await;
    assert!(!runs(pid));
}

#[tokio::test]
async fn what_cannot_start_says_how_to_mend_it() {
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("file");
    std::fs::write(&file, "").unwrap();
    let build = |config: Config| Runtime::builder(config).build().unwrap_err().to_string();
    let error = build(Config::new(&file));
    assert!(
        error.contains("is not a directory") && error.contains("file"),
        "{error}"
    );
    let error = build(Config::new(""));
    assert!(error.contains("the root directory is empty"), "{error}");
    let error = build(Config::new(file.join("below")));
    assert!(
        error.contains("root directory") && error.contains("below"),
        "{error}"
    );
    let mut config = Config::new(outside.path());
    config.token = Some(agent_sandbox_runtime::config::TokenSource::File(
        "/missing".into(),
    ));
    let error = build(config);
    assert!(error.contains("token file /missing"), "{error}");
    let taken = start().await;
    let mut config = Config::new(outside.path());
    config.address = taken.address.ip();
    config.ports = vec![taken.address.port()];
    let error = Runtime::builder(config)
        .build()
        .unwrap()
        .bind()
        .unwrap_err()
        .to_string();
    assert!(error.contains("is in use by another program"), "{error}");
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let server =
        start_with(|config| config.idle_timeout = std::time::Duration::from_millis(200)).await;
    // The last one is all that a client of HTTP/2 has to say before its first request.
    for request in [
        "",
        "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0",
    ] {
        let mut client = tokio::net::TcpStream::connect(server.address)
            .await
            .unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, client.read_to_end(&mut answer));
        drop(ended.await.expect("the end in time"));
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(
            answer.contains("200 OK"),
            request.starts_with("GET"),
            "{answer}"
        );
    }
}

#[test]
fn help_is_also_there_for_the_installation() {
    let empty = tempfile::tempdir().unwrap();
    for flag in ["--help", "-h"] {
        let mut command = std::process::Command::new(crate::program::PROGRAM);
        let command = command.args(["install", flag]).current_dir(empty.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("agent-sandbox-runtime install DIR"), "{text}");
    }
    assert_eq!(std::fs::read_dir(empty.path()).unwrap().count(), 0);
}
