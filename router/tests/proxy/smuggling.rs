//! Requests built to be read differently by the router and by a sandbox.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use crate::rig::{self, Rig};
use crate::sandbox::Sandbox;

/// Sends bytes and returns everything that comes back, and how many requests a sandbox saw.
async fn provoke(build: impl Fn(&str) -> String) -> (String, Vec<String>) {
    let (heard, mut heads) = tokio::sync::mpsc::unbounded_channel();
    let stub = Sandbox::start(move |mut wire| {
        let heard = heard.clone();
        async move {
            while let Some(head) = wire.head().await {
                let (body, _) = wire.body(&head).await;
                heard
                    .send(format!("{} {}", head.line, String::from_utf8_lossy(&body)))
                    .unwrap();
                wire.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
            }
        }
    });
    let mut config = rig::config();
    // Only what follows an answer is cut short: how long an answer may take must not decide.
    config.time.keep_alive = std::time::Duration::from_millis(300);
    let rig = Rig::start(config);
    let mut wire = rig.connect().await;
    wire.write(build(&stub.route())).await;
    let answer = String::from_utf8_lossy(&wire.rest().await).into_owned();
    rig.stop().await;
    let mut seen = Vec::new();
    while let Ok(head) = heads.try_recv() {
        seen.push(head);
    }
    (answer, seen)
}

/// The same, with every byte that reached the sandbox, by connection. The port is written `PORT`.
async fn arrival(build: impl Fn(&str) -> String) -> (String, Vec<String>) {
    let stub = Sandbox::recording();
    let mut config = rig::config();
    config.time.keep_alive = std::time::Duration::from_millis(300);
    let rig = Rig::start(config);
    let mut wire = rig.connect().await;
    wire.write(build(&stub.sandbox.route())).await;
    let answer = String::from_utf8_lossy(&wire.rest().await).into_owned();
    rig.stop().await;
    let port = stub.sandbox.port().to_string();
    let heard = stub
        .heard()
        .into_iter()
        .map(|text| text.replace(&port, "PORT"));
    (answer, heard.collect())
}

/// What the sandbox hears of a request with nothing but its route, up to `more` fields and a body.
fn heard(line: &str, more: &str, body: &str) -> String {
    format!(
        "{line}\r\nhost: 127.0.0.1:PORT\r\nx-sandbox-id: box\r\nx-sandbox-namespace: ns\r\nx-sandbox-port: PORT\r\n\
         {more}x-forwarded-for: 127.0.0.1\r\nx-forwarded-host: router\r\nx-forwarded-proto: http\r\n{body}"
    )
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("closed")
}

#[tokio::test]
async fn both_length_fields_never_hide_a_second_request() {
    // Read by `Content-Length` there is one request, read as chunks there are two.
    for fields in [
        "Content-Length: 44\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 44\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
    ] {
        let (answer, bytes) = arrival(|route| {
            format!("POST /first HTTP/1.1\r\n{route}{fields}\r\n0\r\n\r\nGET /second HTTP/1.1\r\nHost: evil\r\n\r\n")
        })
        .await;
        // Read as chunks, said as chunks, and nothing after it is listened to.
        let body = "transfer-encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!(bytes, [heard("POST /first HTTP/1.1", "", body)], "{fields}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn equal_lengths_said_twice_are_one() {
    for fields in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
    ] {
        let (answer, bytes) =
            arrival(|route| format!("POST / HTTP/1.1\r\n{route}{fields}\r\nhello")).await;
        match status(&answer) {
            "200" => {
                assert_eq!(bytes.len(), 1);
                let length = bytes[0].matches("content-length: 5\r\n").count();
                assert_eq!(
                    (length, bytes[0].matches("content-length").count()),
                    (1, 1),
                    "{bytes:?}"
                );
                assert!(bytes[0].ends_with("\r\n\r\nhello"));
            }
            other => assert_eq!((other, bytes.len()), ("400", 0), "{fields}: {answer}"),
        }
    }
}

#[tokio::test]
async fn chunks_are_said_anew_without_their_extensions() {
    let (answer, bytes) = arrival(|route| {
        format!(
            "POST / HTTP/1.1\r\n{route}Transfer-Encoding: Chunked\r\n\r\n\
             5;name=value;\"quoted\"\r\nhello\r\n0005\r\nworld\r\n00;last\r\n\r\n"
        )
    })
    .await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert_eq!(bytes.len(), 1);
    let (head, body) = bytes[0].split_once("\r\n\r\n").unwrap();
    assert!(head.ends_with("transfer-encoding: chunked"), "{head}");
    let sizes_and_data: String = body.split("\r\n").collect();
    assert!(
        ["5hello5world0", "Ahelloworld0", "ahelloworld0"].contains(&sizes_and_data.as_str()),
        "{body:?}"
    );
}

#[tokio::test]
async fn contradicting_lengths_are_refused() {
    let (answer, seen) = provoke(|route| {
        format!("POST / HTTP/1.1\r\n{route}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd")
    })
    .await;
    assert_eq!((status(&answer), seen.len()), ("400", 0));
}

#[tokio::test]
async fn odd_encodings_and_lengths_are_refused() {
    for field in [
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding:",
        "Transfer-Encoding : chunked",
        "Content-Length : 3",
        "Content-Length: 18446744073709551619",
        "Content-Length: 3 ,4",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: gzip",
        "Content-Length: +3",
        "Content-Length: 0x3",
        "Content-Length: 3, 4",
        "Content-Length: -1",
        "Content-Length:",
    ] {
        let (answer, seen) =
            provoke(|route| format!("POST / HTTP/1.1\r\n{route}{field}\r\n\r\nabc")).await;
        assert_eq!(
            (status(&answer), seen.len()),
            ("400", 0),
            "{field}: {answer}"
        );
    }
}

#[tokio::test]
async fn odd_chunks_are_refused() {
    for chunks in [
        "-1\r\nx\r\n0\r\n\r\n",
        "xyz\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3 3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3;ext\nabc\r\n0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nX: a\r\n b\r\n\r\n",
        "3\r\nabc\r\n0\r\nX : a\r\n\r\n",
    ] {
        let (answer, seen) = provoke(|route| {
            format!("POST / HTTP/1.1\r\n{route}Transfer-Encoding: chunked\r\n\r\n{chunks}")
        })
        .await;
        assert!(seen.is_empty(), "{chunks:?}: {seen:?}");
        assert_eq!(status(&answer), "400", "{chunks:?}: {answer}");
    }
}

#[tokio::test]
async fn malformed_heads_are_refused() {
    for head in [
        "GET / HTTP/1.1\r\n{route}X-Folded: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\n{route}X-Space : a\r\n\r\n",
        "GET / HTTP/1.1\r\n{route}: empty\r\n\r\n",
        "GET / HTTP/1.1\r\n{route}X-Nul: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\n{route}X-CR: a\rb\r\n\r\n",
        "GET /a b HTTP/1.1\r\n{route}\r\n",
        "GET / HTTP/3.7\r\n{route}\r\n",
        "GET\t/ HTTP/1.1\r\n{route}\r\n",
        "G@T / HTTP/1.1\r\n{route}\r\n",
        "GET /\u{1} HTTP/1.1\r\n{route}\r\n",
        "GET /\u{7f} HTTP/1.1\r\n{route}\r\n",
        "GET router:80 HTTP/1.1\r\n{route}\r\n",
        "GET / HTTP/1.10\r\n{route}\r\n",
        "GET / HTTP/1.1 x\r\n{route}\r\n",
        "GET / http/1.1\r\n{route}\r\n",
        "GET / HTTP/2.0\r\n{route}\r\n",
        "GET /\r\n{route}\r\n",
        "GET\r\n{route}\r\n",
        " GET / HTTP/1.1\r\n{route}\r\n",
        "GET / HTTP/1.1\r\n X-First: folded\r\n{route}\r\n",
        "GET / HTTP/1.1\r\n{route}X-Folded:\r\n\ta\r\n\r\n",
        "GET / HTTP/1.1\r\n{route}X-Sandbox-Port\t: 1\r\n\r\n",
        "GET / HTTP/1.1\r\n{route}X(Odd): a\r\n\r\n",
        "GET / HTTP/1.1\r\n{route}no colon\r\n\r\n",
    ] {
        let (answer, seen) = provoke(|route| head.replace("{route}", route)).await;
        assert_eq!(
            (status(&answer), seen.len()),
            ("400", 0),
            "{head:?}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_host_is_needed_once() {
    for (host, expected) in [
        (
            "Host: a\r\nHost: b\r\n",
            "Host header must not be repeated.",
        ),
        ("", "Host header is required."),
    ] {
        let (answer, seen) = provoke(|route| {
            let route = route.replace("Host: router\r\n", host);
            format!("GET / HTTP/1.1\r\n{route}\r\n")
        })
        .await;
        assert_eq!((status(&answer), seen.len()), ("400", 0));
        assert!(answer.contains(expected), "{answer}");
    }
}

#[tokio::test]
async fn a_get_with_a_body_keeps_the_connection_in_step() {
    let (answer, seen) = provoke(|route| {
        format!("GET /one HTTP/1.1\r\n{route}Content-Length: 5\r\n\r\nhelloGET /two HTTP/1.1\r\n{route}\r\n")
    })
    .await;
    assert_eq!(seen, ["GET /one HTTP/1.1 hello", "GET /two HTTP/1.1 "]);
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2);
}

#[tokio::test]
async fn control_characters_are_refused_wherever_they_stand() {
    let stub = Sandbox::recording();
    let rig = Rig::start(rig::config());
    let route = stub.sandbox.route();
    for code in (0..=8).chain(11..=12).chain(14..=31).chain([127]) {
        let odd = char::from(code);
        for request in [
            format!("GET / HTTP/1.1\r\n{route}X-Value: a{odd}b\r\n\r\n"),
            format!("GET / HTTP/1.1\r\n{route}X{odd}Name: a\r\n\r\n"),
            format!("GET /{odd} HTTP/1.1\r\n{route}\r\n"),
            format!("G{odd}ET / HTTP/1.1\r\n{route}\r\n"),
            format!("GET / HTTP/1.1\r\n{route}X-Sandbox-UID: a{odd}\r\n\r\n"),
        ] {
            let mut wire = rig.connect().await;
            wire.write(&request).await;
            let answer = String::from_utf8_lossy(&wire.rest().await).into_owned();
            assert_eq!(status(&answer), "400", "{request:?}");
        }
    }
    rig.stop().await;
    assert!(stub.heard().is_empty());
}

#[tokio::test]
async fn bare_line_feeds_end_lines_and_are_said_as_full_line_ends() {
    let (answer, bytes) = arrival(|route| {
        let route = route.replace("\r\n", "\n");
        format!("GET /lf HTTP/1.1\n{route}\n")
    })
    .await;
    assert_eq!(status(&answer), "200");
    assert_eq!(bytes, [heard("GET /lf HTTP/1.1", "", "\r\n")]);
}

#[tokio::test]
async fn routing_values_that_would_break_out_of_a_line_are_refused() {
    for field in [
        "X-Sandbox-ID: box%0d%0aX-Evil: 1",
        "X-Sandbox-ID: box.ns.svc.evil.example:80/",
        "X-Sandbox-ID: ../box",
        "X-Sandbox-ID: box@evil",
        "X-Sandbox-ID: box other",
        "X-Sandbox-ID: box,other",
    ] {
        let (answer, bytes) = arrival(|route| {
            let route = route.replace("X-Sandbox-ID: box", field);
            format!("GET / HTTP/1.1\r\n{route}\r\n")
        })
        .await;
        assert_eq!((status(&answer), bytes.len()), ("400", 0), "{field}");
    }
}

#[tokio::test]
async fn a_whole_url_keeps_its_path_and_hides_its_password() {
    for (target, path, host) in [
        ("http://evil.example", "/", "evil.example"),
        ("http://evil.example?a=b", "/?a=b", "evil.example"),
        (
            "http://u:secret@evil.example:99/x//y?z",
            "/x//y?z",
            "evil.example:99",
        ),
    ] {
        let (answer, bytes) =
            arrival(|route| format!("GET {target} HTTP/1.1\r\n{route}\r\n")).await;
        assert_eq!(status(&answer), "200", "{target}");
        let expected = heard(&format!("GET {path} HTTP/1.1"), "", "\r\n").replace(
            "x-forwarded-host: router",
            &format!("x-forwarded-host: {host}"),
        );
        assert_eq!(bytes, [expected]);
    }
}

#[tokio::test]
async fn the_target_that_means_the_whole_server_passes() {
    let (answer, bytes) = arrival(|route| format!("OPTIONS * HTTP/1.1\r\n{route}\r\n")).await;
    assert_eq!(status(&answer), "200");
    assert_eq!(bytes, [heard("OPTIONS * HTTP/1.1", "", "\r\n")]);
}

#[tokio::test]
async fn naming_a_field_in_connection_takes_nothing_that_matters_away() {
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    let (answer, bytes) = arrival(|route| {
        format!(
            "POST /kept HTTP/1.1\r\n{route}Connection: X-Sandbox-ID, x-sandbox-namespace, X-Sandbox-Port, Host,\
             Content-Length, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, Forwarded, traceparent, tracestate,\
             X-Request-ID, Content-Type, Authorization, X-Hop\r\n\
             {trace}tracestate: a=1\r\nX-Request-ID: 1\r\nContent-Type: text/plain\r\nAuthorization: Bearer secret\r\n\
             Proxy-Authorization: Basic secret\r\nX-Hop: gone\r\nContent-Length: 5\r\n\r\nhello"
        )
    })
    .await;
    assert_eq!(status(&answer), "200", "{answer}");
    let kept = format!(
        "{trace}tracestate: a=1\r\nx-request-id: 1\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n"
    );
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let expected = heard("POST /kept HTTP/1.1", &kept, "\r\nhello");
    assert_eq!(sorted(&bytes.concat()), sorted(&expected));
}

#[tokio::test]
async fn trailers_cannot_route_authenticate_or_frame() {
    let (answer, bytes) = arrival(|route| {
        format!(
            "POST / HTTP/1.1\r\n{route}Transfer-Encoding: chunked\r\nTrailer: X-Sum, Authorization, X-Sandbox-ID, Content-Length\r\n\r\n\
             0\r\nX-Sum: 1\r\nAuthorization: Bearer secret\r\nX-Sandbox-ID: other\r\nX-Forwarded-For: 6.6.6.6\r\n\
             Content-Length: 99\r\nTransfer-Encoding: gzip\r\nConnection: close\r\nHost: evil\r\nCookie: secret\r\n\r\n"
        )
    })
    .await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert_eq!(bytes.len(), 1);
    let (_, body) = bytes[0].split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "0\r\nx-sum: 1\r\n\r\n");
}

/// Answers at once, without a look at the body, and keeps every byte.
fn hasty(answer: &'static str) -> (Sandbox, Arc<parking_lot::Mutex<Vec<Vec<u8>>>>) {
    let all = Arc::<parking_lot::Mutex<Vec<Vec<u8>>>>::default();
    let kept = all.clone();
    let sandbox = Sandbox::start(move |mut wire| {
        let kept = kept.clone();
        async move {
            let Some(head) = wire.head().await else {
                return;
            };
            wire.write(answer).await;
            let mut bytes = crate::sandbox::show(&head).into_bytes();
            bytes.extend(wire.rest().await);
            kept.lock().push(bytes);
        }
    });
    (sandbox, all)
}

#[tokio::test]
async fn a_body_that_nobody_read_is_not_the_next_request() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: r\r\n\r\n";
    for (expect, answer) in [
        ("", "HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno"),
        (
            "Expect: 100-continue\r\n",
            "HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno",
        ),
    ] {
        let (stub, heard) = hasty(answer);
        let mut config = rig::config();
        config.time.keep_alive = std::time::Duration::from_millis(300);
        let rig = Rig::start(config);
        let mut wire = rig.connect().await;
        let length = smuggled.len() + 1000;
        let route = stub.route();
        wire.write(format!(
            "POST /early HTTP/1.1\r\n{route}{expect}Content-Length: {length}\r\n\r\n"
        ))
        .await;
        let reply = wire.reply().await;
        assert_eq!(reply.text(), "no");
        // The rest of the body comes after the answer, and looks like a request. The router may have
        // closed by now.
        drop(wire.stream.write_all(smuggled.as_bytes()).await);
        drop(wire.stream.write_all(&[b' '; 1000]).await);
        drop(wire.stream.write_all(stub.get("/after").as_bytes()).await);
        wire.rest().await;
        rig.send(&stub.get("/other")).await;
        rig.stop().await;
        rig::eventually("every connection has ended", async || {
            heard.lock().len() == stub.connections()
        })
        .await;
        for bytes in heard.lock().iter() {
            let text = String::from_utf8_lossy(bytes).into_owned();
            assert!(!text.starts_with("GET /smuggled"), "{text}");
            let requests = text.matches("x-sandbox-id: box").count();
            assert_eq!(
                requests, 1,
                "one request on the connection of an unread body: {text}"
            );
        }
    }
}

#[tokio::test]
async fn a_body_before_an_upgrade_is_a_body_and_what_follows_is_not_a_request() {
    let (report, mut reports) = tokio::sync::mpsc::unbounded_channel();
    let stub = Sandbox::start(move |mut wire| {
        let report = report.clone();
        async move {
            let head = wire.head().await.unwrap();
            let (body, _) = wire.body(&head).await;
            wire.write("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
                .await;
            report.send((body, wire.rest().await)).unwrap();
        }
    });
    let rig = Rig::start(rig::config());
    let mut wire = rig.connect().await;
    let route = stub.route();
    wire.write(format!(
        "POST /exec HTTP/1.1\r\n{route}Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 5\r\n\r\nhello"
    ))
    .await;
    assert!(wire.head().await.unwrap().line.contains("101"));
    let tunnelled = stub.get("/not-a-request");
    wire.write(&tunnelled).await;
    drop(wire);
    let (body, rest) = reports.recv().await.unwrap();
    assert_eq!(body, b"hello");
    assert_eq!(String::from_utf8_lossy(&rest), tunnelled);
    rig.stop().await;
}

#[tokio::test]
async fn after_an_upgrade_in_the_middle_of_a_body_nothing_is_a_request_any_more() {
    let stub = Sandbox::start(|mut wire| async move {
        wire.head().await.unwrap();
        wire.write("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            .await;
        wire.rest().await;
    });
    let rig = Rig::start(rig::config());
    let mut wire = rig.connect().await;
    let route = stub.route();
    wire.write(format!(
        "POST /early HTTP/1.1\r\n{route}Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 50\r\n\r\nhello"
    ))
    .await;
    if wire.head().await.is_some() {
        drop(wire.stream.write_all(&[b'x'; 45]).await);
        drop(
            wire.stream
                .write_all(stub.get("/smuggled").as_bytes())
                .await,
        );
    }
    drop(wire);
    // Its own line in the log is the only one, and its connection the only one.
    rig.logged("/early").await;
    rig.send("GET /unrouted HTTP/1.1\r\nHost: r\r\n\r\n").await;
    rig.logged("/unrouted").await;
    assert_eq!(stub.connections(), 1);
    assert_eq!(rig.log_lines(), 2);
    rig.stop().await;
}

#[tokio::test]
async fn fields_named_by_connection_cannot_disarm_the_router() {
    let (answer, seen) = provoke(|route| {
        format!(
            "POST / HTTP/1.1\r\n{route}Connection: Content-Length, Host, X-Forwarded-For, Transfer-Encoding\r\n\
             Content-Length: 5\r\n\r\nhello"
        )
    })
    .await;
    assert_eq!(status(&answer), "200");
    assert_eq!(seen, ["POST / HTTP/1.1 hello"]);
}
