//! `POST /upload`: names, atomicity, streaming, refusals.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use hyper::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{FORM, PATIENCE, Server, eventually, form, start};

fn denied() -> serde_json::Value {
    json!({"message": "Access denied"})
}

fn names(server: &Server) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(server.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn bytes_are_stored_exactly_and_come_back() {
    let server = start().await;
    let data: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    let answer = server.upload("data.bin", &data).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        answer.json(),
        json!({"message": "File 'data.bin' uploaded successfully."})
    );
    assert!(fs::read(server.root().join("data.bin")).unwrap() == data);
    assert!(server.get("/download/data.bin").await.body == data);
    assert_eq!(server.upload("empty", b"").await.status, StatusCode::OK);
    assert_eq!(fs::read(server.root().join("empty")).unwrap(), b"");
}

#[tokio::test]
async fn the_file_name_is_the_destination_as_received() {
    let server = start().await;
    for (name, file) in [
        ("plain.txt", "plain.txt"),
        ("a/b/c.txt", "a/b/c.txt"),
        ("/absolute/x", "absolute/x"),
        ("///y", "y"),
        ("d/../e", "e"),
        ("with space é漢", "with space é漢"),
        ("a%2Fb%22.txt", "a%2Fb%22.txt"),
        ("say \\\"hi\\\"", "say \"hi\""),
        ("back\\slash", "back\\slash"),
    ] {
        let answer = server.upload(name, name.as_bytes()).await;
        assert_eq!(answer.status, StatusCode::OK, "{name}: {answer:?}");
        let stored = fs::read(server.root().join(file));
        assert_eq!(stored.unwrap(), name.as_bytes(), "{name}");
    }
}

#[tokio::test]
async fn names_that_leave_the_root_are_refused_and_write_nothing() {
    let server = start().await;
    symlink("/tmp", server.root().join("tmp")).unwrap();
    symlink("..", server.root().join("up")).unwrap();
    symlink("../new", server.root().join("dangling")).unwrap();
    let before = names(&server);
    for name in [
        "../evil",
        "../../etc/evil",
        "a/../../evil",
        "/../evil",
        "tmp/evil",
        "up/evil",
        "up/a/b/evil",
        "dangling",
        "nul\0byte",
    ] {
        let answer = server.upload(name, b"evil").await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name:?}");
        assert_eq!(answer.json(), denied(), "{name:?}");
    }
    assert_eq!(names(&server), before);
    assert_eq!(
        fs::read_dir(server.outside()).unwrap().count(),
        1,
        "only the root"
    );
}

#[tokio::test]
async fn links_inside_are_written_through() {
    let server = start().await;
    let root = server.root();
    fs::create_dir(root.join("folder")).unwrap();
    fs::write(root.join("target"), "old").unwrap();
    symlink("target", root.join("link")).unwrap();
    symlink(root.join("folder"), root.join("absolute")).unwrap();
    symlink("fresh", root.join("dangling")).unwrap();
    for (name, file) in [
        ("link", "target"),
        ("absolute/x", "folder/x"),
        ("dangling", "fresh"),
    ] {
        assert_eq!(
            server.upload(name, b"new").await.status,
            StatusCode::OK,
            "{name}"
        );
        assert_eq!(fs::read(root.join(file)).unwrap(), b"new", "{name}");
    }
    assert!(
        fs::symlink_metadata(root.join("link"))
            .unwrap()
            .is_symlink()
    );
}

#[tokio::test]
async fn what_cannot_be_replaced_fails_in_the_old_words() {
    let server = start().await;
    let root = server.root();
    fs::create_dir(root.join("folder")).unwrap();
    fs::write(root.join("file"), "").unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .unwrap();
    let long = "n".repeat(300);
    let shown = |name: &str| root.join(name).display().to_string();
    for (name, why) in [
        (
            "folder",
            format!("[Errno 21] Is a directory: '{}'", shown("folder")),
        ),
        (
            "",
            format!("[Errno 21] Is a directory: '{}'", root.display()),
        ),
        (
            "file/below",
            format!("[Errno 20] Not a directory: '{}'", shown("file/below")),
        ),
        (
            long.as_str(),
            format!("[Errno 36] File name too long: '{}'", shown(&long)),
        ),
        ("fifo", format!("not a regular file: '{}'", shown("fifo"))),
    ] {
        let answer = server.upload(name, b"data").await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{name:?}");
        let expected = json!({"message": format!("File upload failed: {why}")});
        assert_eq!(answer.json(), expected, "{name:?}");
    }
    assert_eq!(names(&server), ["fifo", "file", "folder"]);
}

#[tokio::test]
async fn a_replaced_file_keeps_its_mode_and_a_new_one_gets_the_umasks() {
    let server = start().await;
    let script = server.root().join("script.sh");
    fs::write(&script, "old").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o750)).unwrap();
    server.upload("script.sh", b"new").await;
    assert_eq!(
        fs::metadata(&script).unwrap().permissions().mode() & 0o7777,
        0o750
    );
    server.upload("fresh", b"new").await;
    fs::write(server.root().join("reference"), "").unwrap();
    let mode = |name: &str| {
        fs::metadata(server.root().join(name))
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!(mode("fresh"), mode("reference"));
}

#[tokio::test]
async fn forms_without_a_file_are_described_as_the_framework_does() {
    let server = start().await;
    let missing = json!({"detail": [{"type": "missing", "loc": ["body", "file"],
        "msg": "Field required", "input": null}]});
    let other = "--BB\r\nContent-Disposition: form-data; name=\"other\"; filename=\"x\"\r\n\r\nx\r\n--BB--\r\n";
    let text = "--BB\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\ndata\r\n--BB--\r\n";
    for (kind, body) in [
        ("application/json", "{}"),
        (FORM, ""),
        (FORM, "--BB--\r\n"),
        (FORM, other),
    ] {
        let answer = server.post("/upload", kind, body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_eq!(answer.json(), missing, "{body}");
    }
    let answer = server.post("/upload", FORM, text).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let expected = json!({"detail": [{"type": "value_error", "loc": ["body", "file"],
        "msg": "Value error, Expected UploadFile, received: <class 'str'>",
        "input": "data", "ctx": {"error": {}}}]});
    assert_eq!(answer.json(), expected);
    for (kind, body, detail) in [
        ("multipart/form-data", "x", "Missing boundary in multipart."),
        (FORM, "garbage", "Invalid multipart data."),
    ] {
        let answer = server.post("/upload", kind, body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer.json(), json!({"detail": detail}), "{body}");
    }
}

#[tokio::test]
async fn an_incomplete_form_changes_nothing() {
    let server = start().await;
    fs::write(server.root().join("kept"), "old").unwrap();
    let mut body = form("kept", &vec![b'x'; 2_000_000]);
    body.truncate(body.len() - 8);
    let answer = server.post("/upload", FORM, body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(fs::read(server.root().join("kept")).unwrap(), b"old");
    assert_eq!(names(&server), ["kept"]);
}

/// Sends the head of an upload and a part of its data, and waits until the data has arrived.
async fn half_an_upload(server: &Server, name: &str) -> TcpStream {
    let data = vec![b'x'; 1 << 20];
    let body = form(name, &data);
    let head = format!(
        "POST /upload HTTP/1.1\r\nhost: x\r\ncontent-type: {FORM}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(&body[..700_000]).await.unwrap();
    let root = server.root();
    eventually("data on the disk", || {
        fs::read_dir(&root).unwrap().any(|entry| {
            let entry = entry.unwrap();
            let temporary = entry
                .file_name()
                .to_string_lossy()
                .starts_with(".agent-sandbox-upload-");
            temporary && entry.metadata().is_ok_and(|found| found.len() > 0)
        })
    })
    .await;
    client
}

#[tokio::test]
async fn an_upload_in_progress_is_invisible_and_an_aborted_one_leaves_nothing() {
    let server = start().await;
    fs::write(server.root().join("file"), "old").unwrap();
    let client = half_an_upload(&server, "file").await;
    let listed = server.get("/list/").await.json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(server.get("/download/file").await.body, "old");
    drop(client);
    eventually("the temporary file is gone", || names(&server) == ["file"]).await;
    assert_eq!(fs::read(server.root().join("file")).unwrap(), b"old");
}

#[tokio::test]
async fn readers_see_the_old_or_the_new_file_whole() {
    let server = start().await;
    let server = &server;
    server.upload("shared", &vec![0; 300_000]).await;
    let write = |byte: u8| async move {
        for _ in 0..20 {
            let data = vec![byte; 300_000];
            assert_eq!(server.upload("shared", &data).await.status, StatusCode::OK);
        }
    };
    let read = || async move {
        for _ in 0..40 {
            let body = server.get("/download/shared").await.body;
            assert_eq!(body.len(), 300_000);
            assert!(body.iter().all(|byte| *byte == body[0]), "a mixture");
        }
    };
    tokio::join!(write(1), write(2), read(), read());
    assert_eq!(names(server), ["shared"]);
}

#[tokio::test]
async fn a_client_that_waits_for_permission_to_send_gets_it() {
    let server = start().await;
    let body = form("file", b"data");
    let head = format!(
        "POST /upload HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {FORM}\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 25];
    tokio::time::timeout(PATIENCE, client.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(&body).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[tokio::test]
async fn the_last_of_several_files_counts_and_chunked_bodies_work() {
    let server = start().await;
    let mut body = form("first", b"1");
    body.truncate(body.len() - 8);
    body.extend_from_slice(b"\r\n");
    body.extend_from_slice(&form("second", b"2"));
    let mut request = "POST /upload HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        content-type: multipart/form-data; boundary=BB\r\ntransfer-encoding: chunked\r\n\r\n"
        .as_bytes()
        .to_vec();
    for chunk in body.chunks(7) {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(&request).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, client.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(
        answer.contains("File 'second' uploaded successfully."),
        "{answer}"
    );
    assert_eq!(names(&server), ["second"]);
}
