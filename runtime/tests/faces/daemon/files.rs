//! `/v1/files`: reading, listing, storing, removing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{Answer, FORM, Server, eventually, form, start};

fn mode(server: &Server, name: &str) -> u32 {
    fs::metadata(server.root().join(name))
        .unwrap()
        .permissions()
        .mode()
        & 0o7777
}

fn refused(answer: &Answer, status: StatusCode, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let body = answer.json();
    assert_eq!(body["code"], code, "{body}");
    assert!(!body["message"].as_str().unwrap().is_empty(), "{body}");
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
}

fn fifo(server: &Server, name: &str) {
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, server.root().join(name), kind, mode, 0).unwrap();
}

fn names(listing: &Value) -> Vec<String> {
    let entries = listing["entries"].as_array().unwrap();
    entries
        .iter()
        .map(|entry| entry["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn what_is_put_is_what_is_got() {
    let server = start().await;
    let data: Vec<u8> = (0..=255).cycle().take(2_000_000).collect();
    let answer = server
        .put(
            "/v1/files/a/b/c/data.bin",
            "application/octet-stream",
            &data,
        )
        .await;
    assert_eq!(
        (answer.status, answer.body.len()),
        (StatusCode::NO_CONTENT, 0)
    );
    assert!(fs::read(server.root().join("a/b/c/data.bin")).unwrap() == data);
    let answer = server.get("/v1/files/a/b/c/data.bin").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "application/octet-stream");
    assert_eq!(answer.header("content-length"), "2000000");
    assert_eq!(answer.header("accept-ranges"), "bytes");
    assert!(answer.header("last-modified").ends_with("GMT"));
    assert!(answer.body == data);
}

#[tokio::test]
async fn ranges_and_dates_are_honoured() {
    let server = start().await;
    server.put("/v1/files/f", "", b"0123456789").await;
    let date = server
        .get("/v1/files/f")
        .await
        .header("last-modified")
        .to_owned();
    for (headers, status, body) in [
        (vec![("range", "bytes=3-5")], 206, "345"),
        (vec![("range", "bytes=99-")], 416, ""),
        (vec![("if-modified-since", date.as_str())], 304, ""),
        (
            vec![("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT")],
            412,
            "",
        ),
        (
            vec![("range", "bytes=0-0"), ("if-range", date.as_str())],
            206,
            "0",
        ),
        (
            vec![
                ("range", "bytes=0-0"),
                ("if-range", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ],
            200,
            "0123456789",
        ),
    ] {
        let answer = server.call("GET", "/v1/files/f", &headers).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body[..]),
            (status, body.as_bytes()),
            "{headers:?}"
        );
    }
}

#[tokio::test]
async fn head_probes_files_directories_and_what_is_missing() {
    let server = start().await;
    server.put("/v1/files/dir/f", "", b"12345").await;
    for (path, status) in [
        ("dir/f", 200),
        ("dir", 200),
        ("", 200),
        ("missing", 404),
        ("dir/f/x", 404),
    ] {
        let answer = server.call("HEAD", &format!("/v1/files/{path}"), &[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.body.len()),
            (status, 0),
            "{path}"
        );
    }
    let answer = server.call("HEAD", "/v1/files/dir/f", &[]).await;
    assert_eq!(answer.header("content-length"), "5");
}

#[tokio::test]
async fn modes_are_applied_kept_and_checked() {
    let server = start().await;
    for (path, expected) in [
        ("run?mode=0755", 0o755),
        ("private?mode=0600", 0o600),
        ("plain", 0o644),
    ] {
        let answer = server.put(&format!("/v1/files/{path}"), "", b"x").await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{path}");
        assert_eq!(
            mode(&server, path.split('?').next().unwrap()),
            expected,
            "{path}"
        );
    }
    server.put("/v1/files/run", "", b"new").await;
    assert_eq!(mode(&server, "run"), 0o755, "an executable stays one");
    server.put("/v1/files/run?mode=0644", "", b"new").await;
    assert_eq!(mode(&server, "run"), 0o644);
    for bad in ["0999", "777", "abcd", "01777", ""] {
        let answer = server
            .put(&format!("/v1/files/never?mode={bad}"), "", b"x")
            .await;
        refused(&answer, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT");
        assert!(
            answer.json()["message"].as_str().unwrap().contains("mode"),
            "{bad}"
        );
    }
    assert!(!server.root().join("never").exists());
}

#[tokio::test]
async fn an_overwrite_leaves_one_entry_with_the_new_content() {
    let server = start().await;
    for content in ["old", "new"] {
        server.put("/v1/files/f", "", content.as_bytes()).await;
    }
    assert_eq!(fs::read_dir(server.root()).unwrap().count(), 1);
    assert_eq!(server.get("/v1/files/f").await.body, "new");
}

#[tokio::test]
async fn forms_store_their_first_part_named_file() {
    let server = start().await;
    let mut body =
        b"--BB\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nskipped\r\n".to_vec();
    body.extend_from_slice(
        b"--BB\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nfirst\r\n",
    );
    body.extend_from_slice(&form("ignored name", b"second"));
    let answer = server.put("/v1/files/stored", FORM, &body).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{answer:?}");
    assert_eq!(server.get("/v1/files/stored").await.body, "first");
    for (kind, body) in [
        (
            FORM,
            &b"--BB\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\nx\r\n--BB--"[..],
        ),
        (FORM, b""),
        (FORM, b"garbage"),
        ("multipart/form-data", b"x"),
    ] {
        let answer = server.put("/v1/files/never", kind, body).await;
        refused(&answer, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT");
    }
    assert_eq!(fs::read_dir(server.root()).unwrap().count(), 1);
}

#[tokio::test]
async fn what_cannot_hold_a_file_is_refused_with_its_own_status() {
    let server = start().await;
    server.put("/v1/files/dir/file", "", b"x").await;
    fifo(&server, "fifo");
    let long = "n".repeat(300);
    for (path, status, code) in [
        ("dir", 400, "INVALID_ARGUMENT"),
        ("", 400, "INVALID_ARGUMENT"),
        ("fifo", 400, "INVALID_ARGUMENT"),
        ("nul%00", 400, "INVALID_ARGUMENT"),
        (&long, 400, "INVALID_ARGUMENT"),
        ("dir/file/below", 409, "CONFLICT"),
        ("dir/file/deep/below", 409, "CONFLICT"),
    ] {
        let answer = server.put(&format!("/v1/files/{path}"), "", b"data").await;
        refused(&answer, StatusCode::from_u16(status).unwrap(), code);
    }
    for (path, status, code) in [
        ("missing", 404, "NOT_FOUND"),
        ("dir/file/below", 404, "NOT_FOUND"),
        ("fifo", 400, "INVALID_ARGUMENT"),
        ("nul%00", 400, "INVALID_ARGUMENT"),
        (&long, 400, "INVALID_ARGUMENT"),
    ] {
        let answer = server.get(&format!("/v1/files/{path}")).await;
        refused(&answer, StatusCode::from_u16(status).unwrap(), code);
    }
}

#[tokio::test]
async fn listings_are_sorted_complete_and_typed() {
    let server = start().await;
    server.put("/v1/files/dir/b?mode=0600", "", b"12345").await;
    server.put("/v1/files/dir/a", "", b"").await;
    server.put("/v1/files/dir/sub/x", "", b"").await;
    let dir = server.root().join("dir");
    symlink("b", dir.join("to-b")).unwrap();
    symlink("nowhere", dir.join("dangling")).unwrap();
    symlink("/etc/passwd", dir.join("outside")).unwrap();
    fifo(&server, "dir/fifo");
    let answer = server.get("/v1/files/dir").await;
    assert_eq!(answer.header("content-type"), "application/json");
    let listing = answer.json();
    assert_eq!(listing["path"], "/dir");
    assert_eq!(names(&listing), ["a", "b", "fifo", "sub", "to-b"]);
    let entry = &listing["entries"][1];
    assert_eq!(entry["size"], 5);
    assert_eq!(entry["type"], "file");
    assert_eq!(entry["mode"], "0600");
    let modified = entry["modified_at"].as_str().unwrap();
    assert_eq!(
        (modified.len(), modified.ends_with('Z')),
        (20, true),
        "{modified}"
    );
    assert_eq!(
        listing["entries"][2]["type"], "file",
        "other things are files"
    );
    assert_eq!(listing["entries"][3]["type"], "directory");
    assert_eq!(listing["entries"][4]["size"], 5, "links show their target");
    fs::create_dir(server.root().join("empty")).unwrap();
    assert_eq!(
        server.get("/v1/files/empty/").await.json(),
        json!({"path": "/empty/", "entries": []})
    );
}

#[tokio::test]
async fn the_root_answers_directly_under_every_spelling() {
    let server = start().await;
    server.put("/v1/files/f", "", b"").await;
    let absolute = server.root().display().to_string();
    let absolute = format!("/v1/files/{}", absolute.replace('/', "%2F"));
    for path in [
        "/v1/files",
        "/v1/files/",
        "/v1/files/.",
        "/v1/files/%2E",
        "/v1/files//",
        "/v1/files/./",
        "/v1/files/%2F",
        "/v1/files/x/..",
        &absolute,
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(names(&answer.json()), ["f"], "{path}");
    }
    assert_eq!(server.get("/v1/files/.").await.json()["path"], "/");
}

#[tokio::test]
async fn paths_are_decoded_once_and_absolute_ones_re_rooted() {
    let server = start().await;
    let root = server.root();
    let inside = root.join("nested/here").display().to_string();
    let sibling = format!("{}-evil/f", root.display());
    let encode = |text: &str| text.replace('/', "%2F");
    for (path, file) in [
        ("one%2Ftwo%2Fthree", "one/two/three".to_owned()),
        ("%2Flead", "lead".to_owned()),
        ("a%2520b", "a%20b".to_owned()),
        ("plus+sign", "plus+sign".to_owned()),
        ("d/./e//f", "d/e/f".to_owned()),
        ("d/g/../h", "d/h".to_owned()),
        (&encode(&inside), "nested/here".to_owned()),
        // Not a sibling of the root: a path below it.
        (
            &encode(&sibling),
            sibling.trim_start_matches('/').to_owned(),
        ),
    ] {
        let answer = server.put(&format!("/v1/files/{path}"), "", b"x").await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{path}");
        assert!(root.join(&file).is_file(), "{path} -> {file}");
    }
    assert_eq!(
        server.put("/v1/files/raw%FFname", "", b"x").await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        server.get("/v1/files/raw%FFname").await.body,
        "x",
        "names need not be UTF-8"
    );
}

#[tokio::test]
async fn nothing_outside_is_reached_by_any_method() {
    let server = start().await;
    fs::write(server.outside().join("secret"), "secret").unwrap();
    let root = server.root();
    symlink("../secret", root.join("relative")).unwrap();
    symlink(server.outside(), root.join("out")).unwrap();
    for path in [
        "%2E%2E/secret",
        "..%2Fsecret",
        "../secret",
        "a/../../secret",
        "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd",
        "out/secret",
        "out/new/deep/file",
    ] {
        let path = format!("/v1/files/{path}");
        for method in ["GET", "PUT", "DELETE"] {
            let answer = server.call(method, &path, &[]).await;
            refused(&answer, StatusCode::FORBIDDEN, "PERMISSION_DENIED");
        }
        assert_eq!(
            server.call("HEAD", &path, &[]).await.status,
            StatusCode::FORBIDDEN
        );
    }
    for method in ["GET", "PUT"] {
        let answer = server.call(method, "/v1/files/relative", &[]).await;
        refused(&answer, StatusCode::FORBIDDEN, "PERMISSION_DENIED");
    }
    let listing = server.get("/v1/files/").await.json();
    assert!(names(&listing).is_empty(), "{listing}");
    assert_eq!(
        fs::read(server.outside().join("secret")).unwrap(),
        b"secret"
    );
    assert_eq!(fs::read_dir(server.outside()).unwrap().count(), 2);
}

#[tokio::test]
async fn files_and_directories_are_removed() {
    let server = start().await;
    server.put("/v1/files/dir/sub/file", "", b"").await;
    let delete = |path: &'static str| {
        let server = &server;
        async move {
            server
                .call("DELETE", &format!("/v1/files/{path}"), &[])
                .await
        }
    };
    refused(&delete("dir").await, StatusCode::CONFLICT, "CONFLICT");
    refused(
        &delete("dir?recursive=false").await,
        StatusCode::CONFLICT,
        "CONFLICT",
    );
    assert_eq!(delete("dir/sub/file").await.status, StatusCode::NO_CONTENT);
    refused(
        &delete("dir/sub/file").await,
        StatusCode::NOT_FOUND,
        "NOT_FOUND",
    );
    assert_eq!(
        delete("dir/sub").await.status,
        StatusCode::NO_CONTENT,
        "it is empty"
    );
    server.put("/v1/files/dir/a/b/c", "", b"").await;
    assert_eq!(
        delete("dir?recursive=true").await.status,
        StatusCode::NO_CONTENT
    );
    assert!(!server.root().join("dir").exists());
    server.put("/v1/files/f/x", "", b"").await;
    for bad in ["banana", "yes", "2", "TrUe"] {
        let answer = server
            .call("DELETE", &format!("/v1/files/f?recursive={bad}"), &[])
            .await;
        refused(&answer, StatusCode::BAD_REQUEST, "INVALID_ARGUMENT");
    }
    for good in ["1", "t", "T", "TRUE", "true", "True"] {
        server.put("/v1/files/g/x", "", b"").await;
        let answer = server
            .call("DELETE", &format!("/v1/files/g?recursive={good}"), &[])
            .await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{good}");
    }
}

#[tokio::test]
async fn the_root_can_be_emptied_but_not_removed() {
    let server = start().await;
    server.put("/v1/files/a/b", "", b"").await;
    server.put("/v1/files/c", "", b"").await;
    symlink("/etc", server.root().join("etc")).unwrap();
    for path in ["", ".", "%2E", "a/.."] {
        let answer = server
            .call("DELETE", &format!("/v1/files/{path}"), &[])
            .await;
        refused(&answer, StatusCode::CONFLICT, "CONFLICT");
    }
    let answer = server
        .call("DELETE", "/v1/files/?recursive=true", &[])
        .await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert_eq!(fs::read_dir(server.root()).unwrap().count(), 0);
    assert_eq!(
        server.put("/v1/files/again", "", b"").await.status,
        StatusCode::NO_CONTENT
    );
}

#[tokio::test]
async fn removing_a_link_removes_only_the_link() {
    let server = start().await;
    server.put("/v1/files/dir/kept", "", b"").await;
    let root = server.root();
    fs::write(server.outside().join("secret"), "secret").unwrap();
    symlink("dir/kept", root.join("to-file")).unwrap();
    symlink("dir", root.join("to-dir")).unwrap();
    symlink(".", root.join("loop")).unwrap();
    symlink("../secret", root.join("outside")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    for name in ["to-file", "to-dir", "loop", "outside", "dangling"] {
        let path = format!("/v1/files/{name}?recursive=true");
        let answer = server.call("DELETE", &path, &[]).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{name}");
        assert!(fs::symlink_metadata(root.join(name)).is_err(), "{name}");
    }
    assert!(root.join("dir/kept").exists());
    assert!(server.outside().join("secret").exists());
}

#[tokio::test]
async fn links_inside_are_written_through_and_dangling_ones_replaced() {
    let server = start().await;
    let root = server.root();
    server.put("/v1/files/target", "", b"old").await;
    symlink("target", root.join("link")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    for name in ["link", "dangling"] {
        let answer = server.put(&format!("/v1/files/{name}"), "", b"new").await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{name}");
    }
    assert_eq!(fs::read(root.join("target")).unwrap(), b"new");
    assert!(
        fs::symlink_metadata(root.join("link"))
            .unwrap()
            .is_symlink()
    );
    assert!(
        fs::symlink_metadata(root.join("dangling"))
            .unwrap()
            .is_file()
    );
    assert!(!root.join("nowhere").exists());
}

#[tokio::test]
async fn an_aborted_put_leaves_nothing() {
    let server = start().await;
    let root = server.root();
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client
        .write_all(b"PUT /v1/files/f HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n")
        .await
        .unwrap();
    client.write_all(&vec![b'x'; 1_000_000]).await.unwrap();
    let count = || fs::read_dir(&root).unwrap().count();
    eventually("data arrives", || count() == 1).await;
    assert_eq!(
        server.get("/v1/files/").await.json()["entries"],
        json!([]),
        "invisible"
    );
    drop(client);
    eventually("it is cleaned up", || count() == 0).await;
}

#[tokio::test]
async fn a_reader_of_a_parallel_overwrite_sees_one_version() {
    let server = start().await;
    let server = &server;
    server.put("/v1/files/f", "", &vec![0; 300_000]).await;
    let write = |byte: u8| async move {
        let data = vec![byte; 300_000];
        for _ in 0..10 {
            assert_eq!(
                server.put("/v1/files/f", "", &data).await.status,
                StatusCode::NO_CONTENT
            );
        }
    };
    let read = || async move {
        for _ in 0..30 {
            let body = server.get("/v1/files/f").await.body;
            assert_eq!(body.len(), 300_000);
            assert!(body.iter().all(|byte| *byte == body[0]), "a mixture");
        }
    };
    tokio::join!(write(1), write(2), read());
}
