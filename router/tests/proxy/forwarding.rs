//! What of a request and a response passes, and what does not.

use crate::rig::{self, Rig};
use crate::sandbox::{Sandbox, ok};

/// What the sandbox saw of a request.
async fn seen(request_line: &str, headers: &str) -> String {
    let stub = Sandbox::mirror();
    let rig = Rig::start(rig::config());
    let request = format!("{request_line}\r\n{}{headers}\r\n", stub.route());
    let reply = rig.send(&request).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let text = reply.text().replace(&stub.port().to_string(), "PORT");
    rig.stop().await;
    text
}

#[tokio::test]
async fn a_request_arrives_as_it_was_sent() {
    let text = seen(
        "GET /a/b?x=1&y=%20 HTTP/1.1",
        "X-Custom: One\r\nX-Custom: Two\r\nCookie: a=1\r\n",
    )
    .await;
    assert_eq!(
        text,
        "GET /a/b?x=1&y=%20 HTTP/1.1\n\
         host: 127.0.0.1:PORT\n\
         x-sandbox-id: box\n\
         x-sandbox-namespace: ns\n\
         x-sandbox-port: PORT\n\
         x-custom: One\n\
         x-custom: Two\n\
         cookie: a=1\n\
         x-forwarded-for: 127.0.0.1\n\
         x-forwarded-host: router\n\
         x-forwarded-proto: http\n\n"
    );
}

#[tokio::test]
async fn every_method_passes() {
    for method in [
        "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND",
    ] {
        let (report, mut methods) = tokio::sync::mpsc::unbounded_channel();
        let stub = Sandbox::start(move |mut wire| {
            let report = report.clone();
            async move {
                let head = wire.head().await.unwrap();
                report.send(head.line).unwrap();
                wire.write("HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        });
        let rig = Rig::start(rig::config());
        let mut wire = rig.connect().await;
        wire.write(stub.get("/m").replace("GET", method)).await;
        let head = wire.head().await.unwrap();
        assert!(
            head.line.starts_with("HTTP/1.1 204"),
            "{method}: {}",
            head.line
        );
        assert_eq!(head.get("content-length"), None, "{method}");
        assert_eq!(
            methods.recv().await.unwrap(),
            format!("{method} /m HTTP/1.1")
        );
        rig.stop().await;
    }
}

#[tokio::test]
async fn paths_and_queries_arrive_byte_for_byte() {
    for path in [
        "/v1/files/%2E%2E%2Fetc",
        "/a%2Fb/%20/%25/%3F/%C3%A4",
        "//double//slash/",
        "/./dot/../segments",
        "/q?a=%zz&x=1;y=2&&=",
        "/q?",
        "/semi;colon=1/~tilde/'quote'/(paren)/*",
        "/%E2%82%AC?%E2%82%AC",
    ] {
        let text = seen(&format!("GET {path} HTTP/1.1"), "").await;
        assert_eq!(
            text.lines().next(),
            Some(format!("GET {path} HTTP/1.1").as_str())
        );
    }
}

#[tokio::test]
async fn connection_fields_and_credentials_do_not_reach_the_sandbox() {
    let text = seen(
        "GET / HTTP/1.1",
        "Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n\
         Proxy-Authorization: x\r\nTE: trailers, gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\
         Authorization: Bearer secret\r\nX-Passes: yes\r\nOrigin: http://here\r\n",
    )
    .await;
    for gone in [
        "x-hop",
        "keep-alive",
        "proxy-",
        "upgrade",
        "authorization",
        "connection",
    ] {
        assert!(!text.contains(gone), "{gone}: {text}");
    }
    assert!(text.contains("te: trailers\n"), "{text}");
    assert!(text.contains("x-passes: yes\n") && text.contains("origin: http://here\n"));
}

#[tokio::test]
async fn forwarded_fields_of_a_stranger_are_replaced() {
    let text = seen(
        "GET / HTTP/1.1",
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\nForwarded: for=evil\r\n",
    )
    .await;
    assert!(
        !text.contains("6.6.6.6") && !text.contains("evil"),
        "{text}"
    );
    assert!(text.contains("x-forwarded-for: 127.0.0.1\n"));
    assert!(text.contains("x-forwarded-proto: http\n"));
}

#[tokio::test]
async fn an_absolute_form_request_goes_to_the_sandbox_not_to_its_authority() {
    let text = seen("GET http://evil.example/x?y HTTP/1.1", "").await;
    assert!(text.starts_with("GET /x?y HTTP/1.1\n"), "{text}");
    assert!(text.contains("x-forwarded-host: evil.example\n"));
    assert!(text.contains("host: 127.0.0.1:PORT\n"));
}

#[tokio::test]
async fn an_http_1_0_client_is_served() {
    let stub = Sandbox::start(|mut wire| async move {
        let head = wire.head().await.unwrap();
        assert_eq!(head.line, "GET / HTTP/1.1");
        wire.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
            .await;
    });
    let rig = Rig::start(rig::config());
    let mut wire = rig.connect().await;
    wire.write(stub.get("/").replace("HTTP/1.1", "HTTP/1.0"))
        .await;
    let text = String::from_utf8(wire.rest().await).unwrap();
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n"), "{text}");
    assert!(
        text.ends_with("\r\n\r\nabc") && !text.contains("chunked"),
        "{text}"
    );
    rig.stop().await;
}

#[tokio::test]
async fn response_fields_pass_except_those_of_the_connection() {
    let stub = Sandbox::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
         Keep-Alive: timeout=5\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Encoding: gzip\r\n\
         Server: mine\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n",
    );
    let rig = Rig::start(rig::config());
    let reply = rig.send(&stub.get("/")).await;
    let cookies: Vec<&str> = reply.head.all("set-cookie").collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(reply.head.get("content-encoding"), Some("gzip"));
    assert_eq!(reply.head.get("server"), Some("mine"));
    assert_eq!(
        reply.head.get("date"),
        Some("Thu, 01 Jan 1970 00:00:00 GMT")
    );
    for gone in ["x-hop", "keep-alive"] {
        assert_eq!(reply.head.get(gone), None, "{gone}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn nothing_is_added_about_compression() {
    let text = seen("GET / HTTP/1.1", "").await;
    assert!(
        !text.contains("accept-encoding") && !text.contains("user-agent"),
        "{text}"
    );
    let text = seen(
        "GET / HTTP/1.1",
        "Range: bytes=0-1\r\nAccept-Encoding: br\r\n",
    )
    .await;
    assert!(text.contains("accept-encoding: br\n") && text.contains("range: bytes=0-1\n"));
}

#[tokio::test]
async fn head_keeps_the_length_it_was_told() {
    let stub = Sandbox::start(|mut wire| async move {
        while wire.head().await.is_some() {
            wire.write("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")
                .await;
        }
    });
    let rig = Rig::start(rig::config());
    let mut wire = rig.connect().await;
    for _ in 0..2 {
        wire.write(stub.get("/").replace("GET", "HEAD")).await;
        let head = wire.head().await.unwrap();
        assert_eq!(head.get("content-length"), Some("1234"));
    }
    assert_eq!(stub.connections(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn responses_without_a_body_gain_no_length() {
    let rig = Rig::start(rig::config());
    for status in ["204 No Content", "304 Not Modified"] {
        let stub = Sandbox::answering(format!("HTTP/1.1 {status}\r\nETag: x\r\n\r\n"));
        let reply = rig.send(&stub.get("/")).await;
        assert_eq!(reply.head.get("content-length"), None, "{status}");
        assert_eq!(reply.head.get("etag"), Some("x"));
    }
    rig.stop().await;
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let stub = Sandbox::answering(ok(b"again"));
    let rig = Rig::start(rig::config());
    let mut wire = rig.connect().await;
    for _ in 0..5 {
        wire.write(stub.get("/")).await;
        assert_eq!(wire.reply().await.text(), "again");
    }
    assert_eq!(stub.connections(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let stub = Sandbox::mirror();
    let rig = Rig::start(rig::config());
    let mut wire = rig.connect().await;
    wire.write([stub.get("/1"), stub.post("/2", "two"), stub.get("/3")].concat())
        .await;
    for path in ["/1", "/2", "/3"] {
        let reply = wire.reply().await;
        assert_eq!(reply.text().split(' ').nth(1), Some(path));
    }
    rig.stop().await;
}
