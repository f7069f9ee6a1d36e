//! What the router answers itself.

use crate::rig::{self, Rig};
use crate::sandbox::{Sandbox, ok};

#[tokio::test]
async fn routing_headers_are_checked_with_the_known_texts() {
    let rig = Rig::start(rig::config());
    let id = "X-Sandbox-ID: box\r\n";
    let cases = [
        (String::new(), "X-Sandbox-ID header is required."),
        (
            "X-Sandbox-ID:\r\n".to_owned(),
            "X-Sandbox-ID header is required.",
        ),
        (
            "X-Sandbox-ID: foo/bar\r\n".to_owned(),
            "Invalid sandbox ID format.",
        ),
        (
            "X-Sandbox-ID: FooBar\r\n".to_owned(),
            "Invalid sandbox ID format.",
        ),
        (
            "X-Sandbox-ID: b\u{e4}r\r\n".to_owned(),
            "Invalid sandbox ID format.",
        ),
        (
            format!("{id}X-Sandbox-Namespace: a.b\r\n"),
            "Invalid namespace format.",
        ),
        (
            format!("{id}X-Sandbox-Port: 65536\r\n"),
            "Invalid port format.",
        ),
        (
            format!("{id}X-Sandbox-Pod-IP: 169.254.169.254\r\n"),
            "Invalid target IP address.",
        ),
        (
            format!("{id}X-Sandbox-Pod-IP: 10.0.0.1:80\r\n"),
            "Invalid target IP address.",
        ),
        (
            format!("{id}{id}"),
            "X-Sandbox-ID header must not be repeated.",
        ),
        (
            format!("{id}X-Sandbox-Port: 1\r\nX-Sandbox-Port: 1\r\n"),
            "X-Sandbox-Port header must not be repeated.",
        ),
    ];
    for (headers, detail) in cases {
        let reply = rig
            .send(&format!("GET / HTTP/1.1\r\nHost: r\r\n{headers}\r\n"))
            .await;
        assert_eq!(
            (reply.status, reply.detail().as_str()),
            (400, detail),
            "{headers}"
        );
    }
    // A body that nobody reads does not get in the way of the answer.
    let reply = rig
        .send("POST / HTTP/1.1\r\nHost: r\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    assert_eq!(reply.status, 400);
    rig.stop().await;
}

#[tokio::test]
async fn connect_is_refused() {
    let rig = Rig::start(rig::config());
    let reply = rig
        .send("CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n")
        .await;
    assert_eq!((reply.status, reply.reason()), (405, "method-not-allowed"));
    rig.stop().await;
}

#[tokio::test]
async fn healthz_is_the_routers_unless_a_sandbox_is_named() {
    let stub = Sandbox::answering(ok(b"the sandbox is well"));
    let rig = Rig::start(rig::config());
    for method in ["GET", "POST", "PROPFIND"] {
        let reply = rig
            .send(&format!("{method} /healthz HTTP/1.1\r\nHost: r\r\n\r\n"))
            .await;
        assert_eq!((reply.status, reply.text()), (200, r#"{"status":"ok"}"#));
        assert_eq!(reply.head.get("content-type"), Some("application/json"));
    }
    let reply = rig.send(&stub.get("/healthz")).await;
    assert_eq!(reply.text(), "the sandbox is well");
    // What goes to the sandbox is logged, whatever its path.
    assert_eq!(rig.logged("/healthz").await["status"], 200);
    for path in ["/readyz", "/metrics"] {
        rig.send(&stub.get(path)).await;
        rig.logged(path).await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_sandbox_that_breaks_off_is_told_from_one_that_cannot_be_reached() {
    let rig = Rig::start(rig::config());
    let closing = Sandbox::start(|mut wire| async move {
        wire.head().await;
    });
    let reply = rig.send(&closing.get("/")).await;
    assert_eq!(
        (reply.status, reply.detail().as_str()),
        (502, "The backend sandbox broke off before it answered: box")
    );
    let babbling = Sandbox::answering("not HTTP at all\r\n\r\n");
    let reply = rig.send(&babbling.get("/")).await;
    assert_eq!((reply.status, reply.reason()), (502, "broken"));
    let eof = r#"sandbox_router_upstream_errors_total{reason="eof",sandbox_namespace="ns"}"#;
    assert!(rig.metric(eof) == 2.0);
    rig.stop().await;
}

#[tokio::test]
async fn errors_of_the_sandbox_pass_and_are_not_marked() {
    let rig = Rig::start(rig::config());
    for status in ["404 Not Found", "500 Oops", "502 Bad", "299 Odd"] {
        let stub = Sandbox::answering(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno"));
        let reply = rig.send(&stub.get("/")).await;
        assert_eq!(reply.status.to_string(), status[..3]);
        assert_eq!((reply.text(), reply.reason()), ("no", "none"));
    }
    let redirect = "HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n";
    let reply = rig.send(&Sandbox::answering(redirect).get("/")).await;
    assert_eq!(reply.head.get("location"), Some("http://elsewhere/"));
    rig.stop().await;
}

#[tokio::test]
async fn an_aborted_stream_is_counted_and_logged() {
    let rig = Rig::start(rig::config());
    let stub = Sandbox::start(|mut wire| async move {
        wire.head().await;
        wire.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            .await;
    });
    let mut wire = rig.connect().await;
    wire.write(stub.get("/aborted")).await;
    let head = wire.head().await.unwrap();
    assert_eq!(head.get("content-length"), Some("10"));
    assert_eq!(wire.rest().await, b"half");
    let line = rig.logged("/aborted").await;
    assert_eq!(line["outcome"], "sandbox-broke-off");
    assert_eq!(line["bytes_out"], 4);
    let counted =
        r#"sandbox_router_requests_total{code="200",method="GET",sandbox_namespace="ns"}"#;
    rig.metric_is(counted, 1.0).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_and_its_request_is_cancelled() {
    let rig = Rig::start(rig::config());
    let (left, mut noticed) = tokio::sync::mpsc::unbounded_channel();
    let stub = Sandbox::start(move |mut wire| {
        let left = left.clone();
        async move {
            wire.head().await;
            left.send("came").unwrap();
            assert!(wire.is_closed().await, "the router hangs up too");
            left.send("left").unwrap();
        }
    });
    let mut wire = rig.connect().await;
    wire.write(stub.get("/left")).await;
    assert_eq!(noticed.recv().await, Some("came"));
    drop(wire);
    assert_eq!(noticed.recv().await, Some("left"));
    let line = rig.logged("/left").await;
    assert_eq!(
        (&line["status"], &line["outcome"]),
        (&499.into(), &"client-gone".into())
    );
    rig.metric_is("sandbox_router_inflight_requests", 0.0).await;
    rig.stop().await;
}

#[tokio::test]
async fn the_access_log_has_every_field_and_no_secrets() {
    let rig = Rig::start(rig::config());
    let stub = Sandbox::answering(ok(b"12345"));
    let request = stub.post("/logged/path?token=secret-query", "abc").replace(
        "Host:",
        "Authorization: Bearer secret-token\r\nCookie: secret-cookie\r\nUser-Agent: tester\r\n\
         X-Request-ID: 0123456789abcdef\r\nHost:",
    );
    rig.send(&request).await;
    let line = rig.logged("/logged/path").await;
    for (field, value) in [
        ("logger", "sandbox-router.access".into()),
        ("msg", "request".into()),
        ("method", "POST".into()),
        ("status", 200.into()),
        ("client_ip", "127.0.0.1".into()),
        ("sandbox_id", "box".into()),
        ("sandbox_namespace", "ns".into()),
        ("bytes_in", 3.into()),
        ("bytes_out", 5.into()),
        ("user_agent", "tester".into()),
        ("request_id", "0123456789abcdef".into()),
        ("source", "cache-name".into()),
        ("upstream", format!("127.0.0.1:{}", stub.port()).into()),
        ("outcome", serde_json::Value::from("complete")),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    assert!(line["duration_ms"].is_u64());
    assert!(!line.to_string().contains("secret"), "{line}");
    rig.stop().await;
}

#[tokio::test]
async fn metrics_have_the_names_and_labels_of_earlier_routers_and_finer_ones() {
    let rig = Rig::start(rig::config());
    let stub = Sandbox::answering(ok(b"12345"));
    rig.send(&stub.post("/", "abc")).await;
    rig.send("GET / HTTP/1.1\r\nHost: r\r\n\r\n").await;
    rig.metric_is("sandbox_router_inflight_requests", 0.0).await;
    for (series, value) in [
        (
            r#"requests_total{code="200",method="POST",sandbox_namespace="ns"}"#,
            1.0,
        ),
        (
            r#"requests_total{code="400",method="GET",sandbox_namespace="-"}"#,
            1.0,
        ),
        (
            r#"request_duration_seconds_count{code="200",method="POST",sandbox_namespace="ns"}"#,
            1.0,
        ),
        (r#"bytes_total{direction="in"}"#, 3.0),
        (r#"bytes_total{direction="out"}"#, 5.0),
        ("upstream_connect_seconds_count", 1.0),
        ("waiting_requests", 0.0),
        ("upgraded_connections", 0.0),
    ] {
        let series = format!("sandbox_router_{series}");
        assert!(rig.metrics.encode().contains(&series), "{series}");
        assert!(rig.metric(&series) == value, "{series}");
    }
    let text = rig.metrics.encode();
    for (name, kind) in [
        ("build_info", "gauge"),
        ("inflight_requests", "gauge"),
        ("request_duration_seconds", "histogram"),
        ("authz_decisions_total", "counter"),
    ] {
        assert!(
            text.contains(&format!("# TYPE sandbox_router_{name} {kind}\n")),
            "{name}"
        );
    }
    rig.stop().await;
}
