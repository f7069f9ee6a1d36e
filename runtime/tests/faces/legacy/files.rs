//! `GET /download`, `/list` and `/exists`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Server, start};

fn write(server: &Server, name: &str, data: &str) {
    let file = server.root().join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, data).unwrap();
}

fn fifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
}

/// Links, above and beside the root, and a secret to reach through them.
fn traps(server: &Server) {
    fs::write(server.outside().join("secret"), "secret").unwrap();
    let root = server.root();
    symlink("../secret", root.join("relative")).unwrap();
    symlink(server.outside().join("secret"), root.join("absolute")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("/proc/self/root/etc", root.join("magic")).unwrap();
}

#[tokio::test]
async fn health_says_the_two_members() {
    let server = start().await;
    let answer = server.get("/").await;
    assert_eq!(answer.status, StatusCode::OK);
    let expected = json!({"status": "ok", "message": "Sandbox Runtime is active."});
    assert_eq!(answer.json(), expected);
    assert_eq!(server.get("/healthz").await.body, "ok");
}

#[tokio::test]
async fn downloads_carry_the_headers_clients_expect() {
    let server = start().await;
    write(&server, "dir/file.txt", "0123456789");
    let answer = server.get("/download/dir/file.txt").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body, "0123456789");
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("content-length", "10"),
        ("accept-ranges", "bytes"),
        (
            "content-disposition",
            "attachment; filename=\"dir/file.txt\"",
        ),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(answer.header("last-modified").ends_with("GMT"));
    assert!(answer.header("etag").starts_with('"'));
    let head = server.call("HEAD", "/download/dir/file.txt", &[]).await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (StatusCode::OK, "10")
    );
    assert!(head.body.is_empty());
}

#[tokio::test]
async fn ranges_and_conditions_are_honoured() {
    let server = start().await;
    write(&server, "file", "0123456789");
    let whole = server.get("/download/file").await;
    let (etag, date) = (whole.header("etag"), whole.header("last-modified"));
    let get = |headers: Vec<(&'static str, String)>| {
        let server = &server;
        async move {
            let headers: Vec<(&str, &str)> = headers
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            let answer = server.call("GET", "/download/file", &headers).await;
            let body = String::from_utf8(answer.body.to_vec()).unwrap();
            (
                answer.status.as_u16(),
                answer.header("content-range").to_owned(),
                body,
            )
        }
    };
    let range = |value: &str| ("range", value.to_owned());
    let all = || (200, String::new(), "0123456789".to_owned());
    assert_eq!(
        get(vec![range("bytes=2-4")]).await,
        (206, "bytes 2-4/10".into(), "234".into())
    );
    assert_eq!(
        get(vec![range("bytes=-3")]).await,
        (206, "bytes 7-9/10".into(), "789".into())
    );
    assert_eq!(
        get(vec![range("bytes=10-")]).await,
        (416, "bytes */10".into(), String::new())
    );
    assert_eq!(get(vec![range("bytes=x")]).await, all());
    for (name, value, status) in [
        ("if-none-match", etag, 304),
        ("if-none-match", "\"other\"", 200),
        ("if-modified-since", date, 304),
        ("if-match", "\"other\"", 412),
        ("if-match", etag, 200),
        ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT", 412),
    ] {
        assert_eq!(
            get(vec![(name, value.to_owned())]).await.0,
            status,
            "{name}: {value}"
        );
    }
    let unchanged = vec![range("bytes=0-1"), ("if-range", etag.to_owned())];
    assert_eq!(get(unchanged).await.0, 206);
    let changed = vec![range("bytes=0-1"), ("if-range", "\"other\"".to_owned())];
    assert_eq!(get(changed).await, all());
    fs::write(server.root().join("file"), "0123456780").unwrap();
    let later = server.get("/download/file").await;
    assert_ne!(later.header("etag"), etag, "new content, new tag");
}

#[tokio::test]
async fn several_ranges_come_as_parts() {
    let server = start().await;
    write(&server, "file", "0123456789");
    let answer = server
        .call("GET", "/download/file", &[("range", "bytes=0-1,8-")])
        .await;
    assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT);
    let kind = answer.header("content-type").to_owned();
    let boundary = kind
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let part = |range: &str, data: &str| {
        format!(
            "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes {range}/10\r\n\r\n{data}"
        )
    };
    let expected = part("0-1", "01") + &part("8-9", "89") + &format!("\r\n--{boundary}--\r\n");
    assert_eq!(answer.body, expected);
    assert_eq!(answer.header("content-length"), expected.len().to_string());
}

#[tokio::test]
async fn a_large_file_arrives_whole_and_in_ranges() {
    let server = start().await;
    let data: Vec<u8> = (0..5_000_000u32)
        .map(|n| n.to_le_bytes()[n as usize % 3])
        .collect();
    fs::write(server.root().join("large"), &data).unwrap();
    assert!(server.get("/download/large").await.body == data);
    let range = [("range", "bytes=131000-4000000")];
    let part = server.call("GET", "/download/large", &range).await;
    assert!(part.body == data[131_000..=4_000_000]);
}

#[tokio::test]
async fn a_download_survives_the_deletion_of_its_file() {
    let server = start().await;
    let data = vec![7; 20_000_000];
    fs::write(server.root().join("file"), &data).unwrap();
    let request = hyper::Request::get("/download/file").header("host", "x");
    let answer = server
        .open(request.body(http_body_util::Full::default()).unwrap())
        .await;
    fs::remove_file(server.root().join("file")).unwrap();
    let body = http_body_util::BodyExt::collect(answer.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert!(body == data);
}

#[tokio::test]
async fn what_is_no_regular_file_is_not_found_at_once() {
    let server = start().await;
    let root = server.root();
    fs::create_dir(root.join("folder")).unwrap();
    fs::write(root.join("file"), "").unwrap();
    fifo(&root.join("fifo"));
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    let long = "n".repeat(300);
    let deep = "d/".repeat(3000);
    for path in [
        "missing",
        "folder",
        "",
        "fifo",
        "socket",
        "dangling",
        "loop",
        "file/below",
        &long,
        &deep,
    ] {
        let answer = server.get(&format!("/download/{path}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path:.50}");
        assert_eq!(
            answer.json(),
            json!({"message": "File not found"}),
            "{path:.50}"
        );
    }
}

#[tokio::test]
async fn nothing_outside_is_reached_by_any_endpoint() {
    let server = start().await;
    traps(&server);
    for path in [
        "../secret",
        "%2E%2E/secret",
        "..%2Fsecret",
        "%252e%252e%252fsecret",
        "a/../../secret",
        "/../secret",
        "relative",
        "absolute",
        "up",
        "up/secret",
        "up/new/and/deep",
        "magic",
        "magic/passwd",
        "nul%00byte",
        "nul%2500byte",
    ] {
        for endpoint in ["download", "list", "exists"] {
            let answer = server.get(&format!("/{endpoint}/{path}")).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{endpoint} {path}");
            assert_eq!(
                answer.json(),
                json!({"message": "Access denied"}),
                "{endpoint} {path}"
            );
        }
    }
}

#[tokio::test]
async fn links_that_stay_inside_are_followed() {
    let server = start().await;
    write(&server, "a/file", "inside");
    let root = server.root();
    symlink("a", root.join("relative")).unwrap();
    symlink(root.join("a/file"), root.join("absolute")).unwrap();
    symlink("../root/a", root.join("back")).unwrap();
    for path in [
        "relative/file",
        "absolute",
        "back/file",
        "missing/../a/file",
        "//a//./file",
    ] {
        assert_eq!(
            server.get(&format!("/download/{path}")).await.body,
            "inside",
            "{path}"
        );
    }
}

#[tokio::test]
async fn listings_name_everything_and_leak_nothing() {
    let server = start().await;
    traps(&server);
    write(&server, "dir/inner", "");
    write(&server, "b.txt", "four");
    write(&server, "a.txt", "");
    let root = server.root();
    fifo(&root.join("fifo"));
    symlink("nowhere", root.join("dangling")).unwrap();
    symlink("b.txt", root.join("to-file")).unwrap();
    symlink(root.join("dir"), root.join("to-dir")).unwrap();
    let listed = server.get("/list/").await;
    assert_eq!(listed.status, StatusCode::OK);
    let listed = listed.json();
    let rows: Vec<(&str, &str)> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["name"].as_str().unwrap(), row["type"].as_str().unwrap()))
        .collect();
    let expected = [
        ("a.txt", "file"),
        ("absolute", "file"),
        ("b.txt", "file"),
        ("dangling", "file"),
        ("dir", "directory"),
        ("fifo", "file"),
        ("magic", "file"),
        ("relative", "file"),
        ("to-dir", "directory"),
        ("to-file", "file"),
        ("up", "file"),
    ];
    assert_eq!(rows, expected);
    let row = |name: &str| {
        let rows = listed.as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).unwrap().clone()
    };
    assert_eq!(row("b.txt")["size"], 4);
    assert_eq!(row("to-file")["size"], 4, "a link inside shows its target");
    assert_eq!(
        row("relative")["size"],
        "../secret".len(),
        "one to outside only itself"
    );
    let time = fs::metadata(root.join("b.txt"))
        .unwrap()
        .modified()
        .unwrap();
    let time = time
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    assert!((row("b.txt")["mod_time"].as_f64().unwrap() - time).abs() < 1e-3);
    let members: Vec<&String> = listed[0].as_object().unwrap().keys().collect();
    assert_eq!(members, ["name", "size", "type", "mod_time"]);
}

#[tokio::test]
async fn listing_what_is_no_directory_is_not_found() {
    let server = start().await;
    write(&server, "file", "");
    fifo(&server.root().join("fifo"));
    for path in ["file", "missing", "file/below", "fifo"] {
        let answer = server.get(&format!("/list/{path}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(
            answer.json(),
            json!({"message": "Path is not a directory"}),
            "{path}"
        );
    }
    fs::create_dir(server.root().join("empty")).unwrap();
    assert_eq!(server.get("/list/empty").await.json(), json!([]));
}

#[tokio::test]
async fn the_root_is_listed_under_every_spelling_without_a_redirect() {
    let server = start().await;
    write(&server, "file", "");
    for path in [
        "/list",
        "/list/",
        "/list/.",
        "/list/%2E",
        "/list//",
        "/list/./",
        "/list/%2F",
        "/list?x=1",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.json()[0]["name"], "file", "{path}");
    }
    for path in ["/exists", "/exists/", "/exists/."] {
        let answer = server.get(path).await;
        assert_eq!(answer.json()["exists"], true, "{path}");
    }
    for path in ["/download", "/download/"] {
        assert_eq!(
            server.get(path).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[tokio::test]
async fn existence_is_told_with_the_decoded_path() {
    let server = start().await;
    write(&server, "dir/a b", "");
    symlink("nowhere", server.root().join("dangling")).unwrap();
    for (sent, path, exists) in [
        ("dir%2Fa%20b", "dir/a b", true),
        ("dir/a%20b", "dir/a b", true),
        ("dir", "dir", true),
        ("%2Fdir", "/dir", true),
        ("missing%20x", "missing x", false),
        ("dir/a%20b/below", "dir/a b/below", false),
        ("dangling", "dangling", false),
    ] {
        let answer = server.get(&format!("/exists/{sent}")).await;
        assert_eq!(
            answer.json(),
            json!({"path": path, "exists": exists}),
            "{sent}"
        );
    }
    let answer = server.get("/exists/").await;
    assert_eq!(answer.json(), json!({"path": "", "exists": true}));
}

#[tokio::test]
async fn names_with_percent_signs_and_quotes_are_within_reach() {
    let server = start().await;
    for name in ["a%20b", "100%.txt", "q%22x", "twice%2520"] {
        write(&server, name, name);
    }
    for (sent, name) in [
        ("a%2520b", "a%20b"),   // as clients encode it
        ("a%252520b", "a%20b"), // as the original needed it
        ("100%25.txt", "100%.txt"),
        ("q%2522x", "q%22x"),
        ("q%22x", "q%22x"), // uploaded as `q"x` by a multipart encoder
        ("twice%252520", "twice%2520"),
    ] {
        let answer = server.get(&format!("/download/{sent}")).await;
        assert_eq!(answer.body, name, "{sent}");
    }
    // The literal reading comes first.
    write(&server, "a b", "blank");
    assert_eq!(server.get("/download/a%2520b").await.body, "a%20b");
    assert_eq!(server.get("/download/a%20b").await.body, "blank");
}

#[tokio::test]
async fn unknown_routes_and_methods_are_refused_as_the_framework_does() {
    let server = start().await;
    for path in ["/nope", "/v9/x", "/execute/x"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.json(), json!({"detail": "Not Found"}), "{path}");
    }
    for (method, path, allow) in [
        ("GET", "/execute", "POST"),
        ("GET", "/upload", "POST"),
        ("DELETE", "/list/x", "GET,HEAD"),
        ("POST", "/", "GET,HEAD"),
    ] {
        let answer = server.call(method, path, &[]).await;
        assert_eq!(
            answer.status,
            StatusCode::METHOD_NOT_ALLOWED,
            "{method} {path}"
        );
        assert_eq!(
            answer.json(),
            json!({"detail": "Method Not Allowed"}),
            "{method} {path}"
        );
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
    }
}

#[tokio::test]
async fn files_and_commands_share_one_tree() {
    let server = start().await;
    server.upload("in/data.txt", b"from upload\n").await;
    let answer = server.execute("cat in/data.txt").await;
    assert_eq!(answer["stdout"], "from upload\n");
    server
        .execute("sh -c 'mkdir -p out; printf made > out/file'")
        .await;
    assert_eq!(server.get("/download/out/file").await.body, "made");
    server.upload("tool", b"#!/bin/sh\necho \"ran $1\"\n").await;
    fs::set_permissions(
        server.root().join("tool"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    assert_eq!(server.execute("./tool well").await["stdout"], "ran well\n");
    let names: Value = server.get("/list/").await.json();
    assert_eq!(names.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_workspace_removed_and_made_anew_by_a_command_goes_on_working() {
    let server = start().await;
    let root = server.root();
    let answer = server
        .execute(&crate::harness::sh(&format!(
            "cd /; rm -rf {0}; mkdir {0}",
            root.display()
        )))
        .await;
    assert_eq!(answer["exit_code"], 0, "{answer}");
    assert_eq!(server.upload("x", b"new").await.status, StatusCode::OK);
    assert_eq!(server.execute("cat x").await["stdout"], "new");
}

#[tokio::test]
async fn a_missing_root_is_said_in_the_old_words() {
    let server = start().await;
    fs::remove_dir(server.root()).unwrap();
    let why = format!(
        "[Errno 2] No such file or directory: '{}'",
        server.root().display()
    );
    let answer = server.execute("true").await;
    assert_eq!(
        answer["stderr"],
        format!("Failed to execute command: {why}")
    );
    assert_eq!(server.get("/list/").await.status, StatusCode::NOT_FOUND);
    let answer = server.upload("x", b"").await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
}
