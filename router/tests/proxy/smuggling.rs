//! Requests built to be read differently by the router and by a sandbox.

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

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("closed")
}

#[tokio::test]
async fn both_length_fields_never_hide_a_second_request() {
    // Read by `Content-Length` there is one request, read as chunks there are two.
    for fields in [
        "Content-Length: 44\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 44\r\n",
    ] {
        let (answer, seen) = provoke(|route| {
            format!("POST /first HTTP/1.1\r\n{route}{fields}\r\n0\r\n\r\nGET /second HTTP/1.1\r\nHost: evil\r\n\r\n")
        })
        .await;
        assert!(seen.len() <= 1, "{seen:?}");
        assert!(
            seen.iter().all(|line| line == "POST /first HTTP/1.1 "),
            "{seen:?}"
        );
        assert!(!answer.contains("evil"), "{answer}");
    }
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
    ] {
        let (answer, seen) = provoke(|route| {
            format!("POST / HTTP/1.1\r\n{route}Transfer-Encoding: chunked\r\n\r\n{chunks}")
        })
        .await;
        assert!(seen.is_empty(), "{chunks:?}: {seen:?}");
        assert!(
            ["400", "closed"].contains(&status(&answer)),
            "{chunks:?}: {answer}"
        );
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

#[tokio::test]
async fn a_response_with_two_lengths_is_not_passed_on() {
    let stub = Sandbox::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nokHTT",
    );
    let rig = Rig::start(rig::config());
    let reply = rig.send(&stub.get("/")).await;
    assert_eq!((reply.status, reply.reason()), (502, "broken"));
    rig.stop().await;
}

#[tokio::test]
async fn bytes_after_a_response_are_never_the_next_response() {
    let stub = Sandbox::start(|mut wire| async move {
        while wire.head().await.is_some() {
            wire.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
                .await;
            wire.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
                .await;
        }
    });
    let rig = Rig::start(rig::config());
    let mut wire = rig.connect().await;
    for _ in 0..10 {
        wire.write(stub.get("/")).await;
        let reply = wire.reply().await;
        assert!(reply.status == 502 || reply.text() == "good", "{reply:?}");
    }
    rig.stop().await;
}
