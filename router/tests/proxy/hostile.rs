//! Sandboxes that answer with what no server should, and what of it a client gets to see.

use crate::rig::{self, Rig};
use crate::sandbox::{Sandbox, ok};

/// Everything a client gets when a sandbox answers its request with these bytes, and whether the
/// sandbox's connection is used again.
async fn provoked(method: &str, response: &str) -> (String, usize) {
    let response = response.to_owned();
    let stub = Sandbox::start(move |mut wire| {
        let response = response.clone();
        async move {
            while wire.head().await.is_some() {
                wire.write(&response).await;
            }
        }
    });
    let rig = Rig::start(rig::config());
    let request = stub.get("/").replace("GET", method);
    let mut wire = rig.connect().await;
    wire.write(request.replace("Host:", "Connection: close\r\nHost:"))
        .await;
    let answer = String::from_utf8_lossy(&wire.rest().await).into_owned();
    // Another request, of somebody else.
    let mut other = rig.connect().await;
    other.write(stub.get("/next")).await;
    other.head().await;
    let connections = stub.connections();
    rig.stop().await;
    (answer, connections)
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("closed")
}

#[tokio::test]
async fn answers_that_are_no_http_are_a_502() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nokk",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX-Cr: a\rb\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX-Space : a\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "ICY 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "<html>no head at all</html>\r\n\r\n",
    ] {
        let (answer, connections) = provoked("GET", response).await;
        assert_eq!(status(&answer), "502", "{response:?}: {answer}");
        assert_eq!(
            connections, 2,
            "its connection is not used again: {response:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_with_both_length_fields_is_read_as_chunks_and_ends_its_connection() {
    for fields in [
        "Content-Length: 99\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
    ] {
        let response = format!("HTTP/1.1 200 OK\r\n{fields}\r\n2\r\nok\r\n0\r\n\r\n");
        let (answer, _) = provoked("GET", &response).await;
        match status(&answer) {
            "200" => {
                let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                let head = head.to_ascii_lowercase();
                assert!(!head.contains("content-length"), "{answer}");
                assert_eq!(body, "2\r\nok\r\n0\r\n\r\n", "{answer}");
            }
            other => assert_eq!(other, "502", "{answer}"),
        }
    }
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_whatever_the_sandbox_sends() {
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let (answer, connections) = provoked("HEAD", smuggled).await;
    assert_eq!(status(&answer), "200");
    assert!(
        answer.ends_with("\r\n\r\n") && !answer.contains("evil"),
        "{answer}"
    );
    assert_eq!(connections, 2, "the body is nobody's answer");
}

#[tokio::test]
async fn answers_that_have_no_body_have_none_whatever_the_sandbox_sends() {
    for head in ["204 No Content", "304 Not Modified"] {
        let response =
            format!("HTTP/1.1 {head}\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        let (answer, connections) = provoked("GET", &response).await;
        assert_eq!(status(&answer), &head[..3]);
        assert!(!answer.contains("evil"), "{answer}");
        assert_eq!(connections, 2);
    }
}

#[tokio::test]
async fn interim_answers_are_not_the_answer() {
    let response = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n\
                    HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (answer, _) = provoked("GET", response).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nok"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_sandbox_cannot_speak_for_the_router() {
    let response = "HTTP/1.1 401 Unauthorized\r\nX-Sandbox-Router-Error: unauthenticated\r\n\
                    Transfer-Encoding: chunked\r\nTrailer: X-Sandbox-Router-Error, X-Sum\r\n\r\n\
                    2\r\nno\r\n0\r\nX-Sandbox-Router-Error: forbidden\r\nX-Sum: 1\r\n\r\n";
    let stub = Sandbox::answering(response);
    let rig = Rig::start(rig::config());
    let request = stub.get("/").replace("Host:", "TE: trailers\r\nHost:");
    let reply = rig.send(&request).await;
    assert_eq!(
        (reply.status, reply.text(), reply.reason()),
        (401, "no", "none")
    );
    assert_eq!(reply.trailers, [("x-sum".to_owned(), "1".to_owned())]);
    rig.stop().await;
}

#[tokio::test]
async fn folded_fields_of_an_answer_do_not_become_fields_of_their_own() {
    let response =
        "HTTP/1.1 200 OK\r\nX-Folded: a\r\n Set-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nok";
    let (answer, _) = provoked("GET", response).await;
    for line in answer.lines() {
        assert!(!line.trim_start().starts_with("Set-Cookie"), "{answer}");
    }
}

#[tokio::test]
async fn what_follows_an_answer_reaches_no_other_client() {
    let stub = Sandbox::start(|mut wire| async move {
        while wire.head().await.is_some() {
            let both = [ok(b"good"), ok(b"evil")].concat();
            wire.write(both).await;
        }
    });
    let rig = Rig::start(rig::config());
    for _ in 0..20 {
        let reply = rig.send(&stub.get("/")).await;
        assert_eq!(reply.text(), "good");
    }
    rig.stop().await;
}
