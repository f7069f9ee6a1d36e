//! What a client or a command may use at most.

use hyper::StatusCode;
use serde_json::json;

use crate::harness::{FORM, PATIENCE, eventually, form, post, sh, start_with};

#[tokio::test]
async fn endless_output_is_bounded_and_its_ends_are_kept() {
    let server = start_with(|config| config.max_output_bytes = 1000).await;
    let answer = server
        .execute(&sh(
            "echo begin; head -c 5000000 /dev/zero | tr \\\\0 x; echo end",
        ))
        .await;
    assert_eq!(answer["exit_code"], 0, "{answer}");
    let stdout = answer["stdout"].as_str().unwrap();
    assert!(
        stdout.starts_with("begin\nxxx") && stdout.ends_with("xxxend\n"),
        "{stdout}"
    );
    let omitted = answer["stdout_omitted_bytes"].as_u64().unwrap();
    assert_eq!(omitted, 6 + 5_000_000 + 4 - 1000);
    assert!(
        stdout.contains(&format!("\n[... {omitted} bytes omitted ...]\n")),
        "{stdout}"
    );
    assert!(answer.get("stderr_omitted_bytes").is_none());
    let answer = server.execute_within("yes", 0.5).await;
    assert_eq!(answer["timed_out"], true);
    assert!(answer["stdout"].as_str().unwrap().len() < 1100);
}

/// Whoever does not take an answer holds its output, so that others get less.
#[tokio::test]
async fn an_output_counts_as_collected_until_it_has_been_sent() {
    let server = start_with(|config| {
        config.max_output_bytes = 16 << 20;
        config.max_collected_bytes = 12 << 20;
    })
    .await;
    let output = |bytes| sh(&format!("head -c {bytes} /dev/zero | tr \\\\0 x"));
    let body = json!({"command": output(12 << 20)}).to_string();
    let request = post("/execute", "application/json", body);
    let untaken = server.open(request).await;
    assert_eq!(untaken.status(), StatusCode::OK);
    let small = output(1 << 20);
    let answer = server.execute(&small).await;
    assert!(answer.get("stdout_omitted_bytes").is_some());
    drop(untaken);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while server
        .execute(&small)
        .await
        .get("stdout_omitted_bytes")
        .is_some()
    {
        assert!(tokio::time::Instant::now() < deadline);
    }
}

/// What is long is written piece by piece, and the same as it would be in one.
#[tokio::test]
async fn a_long_output_arrives_as_it_was_written() {
    let server = start_with(|_| {}).await;
    let script =
        "i=0; while [ $i -lt 3000 ]; do printf '%s é \\001\"x\\n%080d' $i 0; i=$((i+1)); done";
    let answer = server.execute(&sh(script)).await;
    let lines = (0..3000).map(|i| format!("{i} é \u{1}\"x\n{:080}", 0));
    assert_eq!(answer["stdout"], lines.collect::<Vec<_>>().concat());
    let answer = server
        .execute(&sh("head -c 1000000 /dev/zero | tr \\\\0 \\\\377"))
        .await;
    assert_eq!(
        answer["stdout"].as_str().unwrap().chars().count(),
        1_000_000
    );
    let exact = answer["stdout_base64"].as_str().unwrap();
    assert_eq!(exact.len(), 1_000_000usize.div_ceil(3) * 4);
}

#[tokio::test]
async fn more_commands_than_allowed_are_refused_at_once() {
    let server = start_with(|config| config.max_processes = 1).await;
    let mut sender = server.connect().await;
    let body = json!({"command": "sleep 1000"}).to_string();
    let running = tokio::spawn(sender.send_request(post("/execute", "application/json", body)));
    eventually("the first runs", || {
        server.runtime.processes().running() == 1
    })
    .await;
    let body = json!({"command": "true"}).to_string();
    let answer = server.post("/execute", "application/json", body).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), "1");
    let text = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(
        text.contains("1 commands are running, which is the limit"),
        "{text}"
    );
    running.abort();
    drop(sender);
    eventually("the first is gone", || {
        server.runtime.processes().running() == 0
    })
    .await;
    assert_eq!(server.execute("true").await["exit_code"], 0);
}

#[tokio::test]
async fn requests_and_uploads_have_a_largest_size() {
    let server = start_with(|config| {
        config.max_request_bytes = 100;
        config.max_upload_bytes = Some(1000);
    })
    .await;
    let body = json!({"command": "x".repeat(100)}).to_string();
    let answer = server.post("/execute", "application/json", body).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let text = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(text.contains("100 bytes"), "{text}");
    let answer = server.upload("fits", &[b'x'; 1000]).await;
    assert_eq!(answer.status, StatusCode::OK);
    let answer = server.upload("large", &[b'x'; 1001]).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let text = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(text.contains("1000 bytes"), "{text}");
    let names: Vec<_> = std::fs::read_dir(server.root()).unwrap().collect();
    assert_eq!(
        names.len(),
        1,
        "nothing of the large file is left: {names:?}"
    );
}

#[tokio::test]
async fn with_a_token_every_request_but_probes_needs_it() {
    let outside = tempfile::tempdir().unwrap();
    let file = outside.path().join("token");
    std::fs::write(&file, "one\n").unwrap();
    let source = agent_sandbox_runtime::config::TokenSource::File(file.clone());
    let server = start_with(|config| config.token = Some(source)).await;
    for path in ["/", "/healthz"] {
        assert_eq!(server.get(path).await.status, StatusCode::OK, "{path}");
    }
    let wrong = [("authorization", "Bearer two")];
    for path in [
        "/list/",
        "/exists/x",
        "/download/x",
        "/metrics",
        "/docs",
        "/unknown",
    ] {
        for headers in [&[][..], &wrong[..]] {
            let answer = server.call("GET", path, headers).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    let answer = server.upload("x", b"data").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let body = json!({"command": "true"}).to_string();
    let answer = server.post("/execute", "application/json", body).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(std::fs::read_dir(server.root()).unwrap().count(), 0);
    let right = [("authorization", "Bearer one")];
    assert_eq!(
        server.call("GET", "/list/", &right).await.status,
        StatusCode::OK
    );
    // Rotated without a restart, and closed when the token is gone.
    std::fs::write(&file, "second").unwrap();
    assert_eq!(
        server.call("GET", "/list/", &right).await.status,
        StatusCode::UNAUTHORIZED
    );
    let rotated = [("authorization", "Bearer second")];
    assert_eq!(
        server.call("GET", "/list/", &rotated).await.status,
        StatusCode::OK
    );
    std::fs::remove_file(&file).unwrap();
    let answer = server.call("GET", "/list/", &rotated).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_thousand_commands_at_once_all_answer() {
    let server = start_with(|config| config.max_connections = 2000).await;
    let server = &server;
    let calls = (0..1000).map(|_| async move { server.execute("true").await["exit_code"].clone() });
    let codes = tokio::time::timeout(PATIENCE * 3, futures::future::join_all(calls))
        .await
        .unwrap();
    assert!(codes.iter().all(|code| *code == 0));
    eventually("the table is empty", || {
        server.runtime.processes().running() == 0
    })
    .await;
}

#[tokio::test]
async fn a_form_with_endless_headers_is_refused() {
    let server = start_with(|_| {}).await;
    let mut body = form("x", b"");
    body.splice(
        4..4,
        b"\r\nX-Fill: "
            .iter()
            .copied()
            .chain(std::iter::repeat_n(b'x', 100_000)),
    );
    let answer = server.post("/upload", FORM, body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
    let text = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(text.contains("16384 bytes"), "{text}");
}

#[tokio::test]
async fn a_connection_too_many_waits_for_another_to_go() {
    let server = start_with(|config| config.max_connections = 1).await;
    let mut first = server.connect().await;
    let ask = || {
        let request = hyper::Request::get("/healthz").header("host", "x");
        request.body(http_body_util::Full::default()).unwrap()
    };
    assert_eq!(first.send_request(ask()).await.unwrap().status(), 200);
    let mut second = server.connect().await;
    let mut waiting = std::pin::pin!(second.send_request(ask()));
    for _ in 0..20 {
        first.ready().await.unwrap();
        let answer = tokio::select! {
            biased;
            _ = &mut waiting => panic!("served beside the first"),
            answer = first.send_request(ask()) => answer,
        };
        assert_eq!(answer.unwrap().status(), 200);
    }
    drop(first);
    let answer = tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    assert_eq!(answer.unwrap().status(), 200);
}
