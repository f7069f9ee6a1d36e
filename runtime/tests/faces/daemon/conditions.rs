//! `PUT /v1/files` with conditions, owners and sync policies.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;

use crate::harness::{Answer, Server, start};

async fn put(server: &Server, path: &str, headers: &[(&str, &str)], data: &str) -> Answer {
    let mut request = Request::put(format!("/v1/files/{path}")).header("host", "sandbox");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Full::new(Bytes::copy_from_slice(data.as_bytes()));
    server.send(request.body(body).unwrap()).await
}

fn text(server: &Server, name: &str) -> String {
    fs::read_to_string(server.root().join(name)).unwrap()
}

#[tokio::test]
async fn a_write_takes_place_only_while_its_condition_holds() {
    let server = start().await;
    let first = put(&server, "f", &[("if-none-match", "*")], "1").await;
    assert_eq!(first.status, 204);
    let one = first.header("etag").to_owned();
    assert_eq!(server.get("/v1/files/f").await.header("etag"), one);
    let head = server.call("HEAD", "/v1/files/f", &[]).await;
    assert_eq!(head.header("etag"), one);
    let fresh = server
        .call("GET", "/v1/files/f", &[("if-none-match", &one)])
        .await;
    assert_eq!(fresh.status, 304);
    let second = put(&server, "f", &[("if-match", &one)], "22").await;
    let two = second.header("etag").to_owned();
    assert!(second.status == 204 && one != two);
    let weak = format!("W/{two}");
    for (path, headers) in [
        ("f", vec![("if-none-match", "*")]),
        ("f", vec![("if-match", one.as_str())]),
        ("f", vec![("if-match", weak.as_str())]),
        ("f", vec![("if-none-match", weak.as_str())]),
        (
            "f",
            vec![("if-match", "*"), ("if-none-match", two.as_str())],
        ),
        ("new", vec![("if-match", "*")]),
        ("new", vec![("if-match", two.as_str())]),
    ] {
        let answer = put(&server, path, &headers, "x").await;
        assert_eq!(answer.status, 412, "{headers:?}: {answer:?}");
        assert_eq!(answer.json()["code"], "CONDITION_FAILED");
    }
    let answer = put(&server, "f", &[("if-match", "v1")], "x").await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(text(&server, "f"), "22");
    assert_eq!(fs::read_dir(server.root()).unwrap().count(), 1);
    let both = format!("{one}, {two}");
    let third = put(
        &server,
        "f",
        &[("if-match", &both), ("if-none-match", &one)],
        "333",
    )
    .await;
    assert_eq!(third.status, 204);
    assert_eq!(text(&server, "f"), "333");
}

#[tokio::test]
async fn of_many_writers_with_one_condition_one_succeeds() {
    const WRITERS: usize = 8;
    let server = start().await;
    put(&server, "counter", &[], "x").await;
    let count = async |_| {
        let mut wins = 0;
        while wins < 5 {
            let read = server.get("/v1/files/counter").await;
            let more = "x".repeat(read.body.len() + 1);
            let tag = read.header("etag").to_owned();
            let answer = put(&server, "counter", &[("if-match", &tag)], &more).await;
            match answer.status.as_u16() {
                204 => wins += 1,
                412 => {}
                _ => panic!("{answer:?}"),
            }
        }
    };
    futures::future::join_all((0..WRITERS).map(count)).await;
    assert_eq!(text(&server, "counter").len(), 1 + WRITERS * 5);
    let create = async |writer: usize| {
        let answer = put(
            &server,
            "lock",
            &[("if-none-match", "*")],
            &writer.to_string(),
        )
        .await;
        (answer.status == 204).then_some(writer)
    };
    let created = futures::future::join_all((0..WRITERS).map(create)).await;
    let winners: Vec<usize> = created.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(text(&server, "lock"), winners[0].to_string());
}

#[tokio::test]
async fn owners_and_sync_are_read_from_the_query() {
    let server = start().await;
    let own = fs::metadata(server.root()).unwrap();
    let (uid, gid) = (own.uid(), own.gid());
    let path = format!("f?owner={uid}&group={gid}&mode=0640&sync=none");
    assert_eq!(put(&server, &path, &[], "x").await.status, 204);
    assert_eq!(put(&server, "g?sync=data", &[], "x").await.status, 204);
    let stored = fs::metadata(server.root().join("f")).unwrap();
    assert_eq!((stored.uid(), stored.gid()), (uid, gid));
    assert_eq!(stored.permissions().mode() & 0o7777, 0o640);
    // Only who may do anything may give files away.
    let answer = put(&server, "given?owner=12345&group=54321", &[], "x").await;
    if uid == 0 {
        let given = fs::metadata(server.root().join("given")).unwrap();
        assert_eq!((given.uid(), given.gid()), (12345, 54321));
    } else {
        assert_eq!(answer.status, 403, "{answer:?}");
    }
    for query in [
        "owner=root",
        "owner=-1",
        "owner=4294967295",
        "group=",
        "sync=all",
    ] {
        let answer = put(&server, &format!("bad?{query}"), &[], "x").await;
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        let name = query.split('=').next().unwrap();
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(
            message.starts_with(name) && message.contains("expected"),
            "{message}"
        );
    }
    assert!(!server.root().join("bad").exists());
}
