//! `/v1/fs/{stat,mkdir,move,copy,chmod}`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use hyper::StatusCode;
use serde_json::{Value, json};

use super::{done, fifo, refused};
use crate::harness::{Server, start};

fn write(server: &Server, name: &str, content: &str) {
    let path = server.root().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn text(server: &Server, name: &str) -> String {
    fs::read_to_string(server.root().join(name)).unwrap()
}

#[tokio::test]
async fn stat_tells_what_there_is_without_opening_it() {
    let server = start().await;
    write(&server, "dir/f", "12345");
    fs::set_permissions(
        server.root().join("dir/f"),
        fs::Permissions::from_mode(0o640),
    )
    .unwrap();
    symlink("dir/f", server.root().join("link")).unwrap();
    symlink("nowhere", server.root().join("dangling")).unwrap();
    fifo(&server, "pipe");
    let found = done(&server, "stat", &json!({"path": "dir/f"})).await;
    let own = fs::metadata(server.root().join("dir/f")).unwrap();
    assert_eq!(found["type"], "file");
    assert_eq!(found["size"], 5);
    assert_eq!(found["mode"], "0640");
    assert_eq!(
        (&found["uid"], &found["gid"]),
        (&json!(own.uid()), &json!(own.gid()))
    );
    assert!(found["modified_at"].as_str().unwrap().ends_with('Z'));
    let read = server.get("/v1/files/dir/f").await;
    assert_eq!(found["etag"], read.header("etag"));
    for (request, kind) in [
        (json!({"path": ""}), "directory"),
        (json!({"path": "/dir"}), "directory"),
        (json!({"path": "dir/.."}), "directory"),
        (json!({"path": "link"}), "file"),
        (json!({"path": "link", "follow": false}), "link"),
        (json!({"path": "dangling", "follow": false}), "link"),
        (json!({"path": "pipe"}), "fifo"),
    ] {
        let found = done(&server, "stat", &request).await;
        assert_eq!(found["type"], kind, "{request}");
    }
    let found = done(&server, "stat", &json!({"path": "link", "follow": false})).await;
    assert_eq!(found["target"], "dir/f");
    for path in ["dangling", "missing", "dir/f/x"] {
        let request = json!({ "path": path });
        refused(&server, "stat", &request, 404, "NOT_FOUND").await;
    }
}

#[tokio::test]
async fn directories_are_made_with_parents_and_modes() {
    let server = start().await;
    let mkdir = async |request: Value| done(&server, "mkdir", &request).await;
    assert_eq!(mkdir(json!({"path": "a"})).await["created"], true);
    assert_eq!(mkdir(json!({"path": "a"})).await["created"], false);
    assert_eq!(mkdir(json!({"path": ""})).await["created"], false);
    let deep = json!({"path": "x/y/z", "parents": true, "mode": "1777"});
    assert_eq!(mkdir(deep).await["created"], true);
    let mode = |name: &str| {
        let metadata = fs::metadata(server.root().join(name)).unwrap();
        metadata.permissions().mode() & 0o7777
    };
    assert_eq!(mode("x/y/z"), 0o1777);
    assert_eq!(mode("x/y"), 0o755);
    write(&server, "f", "");
    for (path, status, code) in [
        ("no/parent", 404, "NOT_FOUND"),
        ("f", 409, "CONFLICT"),
        ("f/below", 404, "NOT_FOUND"),
        ("../a", 403, "PERMISSION_DENIED"),
    ] {
        refused(&server, "mkdir", &json!({ "path": path }), status, code).await;
    }
    assert!(!server.outside().join("a").exists());
}

#[tokio::test]
async fn moves_replace_only_when_told_to() {
    let server = start().await;
    write(&server, "one", "1");
    write(&server, "two", "2");
    write(&server, "dir/deep/f", "f");
    let both = json!({"from": "one", "to": "two"});
    refused(&server, "move", &both, 409, "CONFLICT").await;
    assert_eq!(
        (text(&server, "one"), text(&server, "two")),
        ("1".into(), "2".into())
    );
    done(
        &server,
        "move",
        &json!({"from": "one", "to": "two", "overwrite": true}),
    )
    .await;
    assert_eq!(text(&server, "two"), "1");
    assert!(!server.root().join("one").exists());
    done(&server, "move", &json!({"from": "dir", "to": "other"})).await;
    assert_eq!(text(&server, "other/deep/f"), "f");
    // The link moves, what it points to stays.
    symlink("two", server.root().join("link")).unwrap();
    done(
        &server,
        "move",
        &json!({"from": "link", "to": "other/link"}),
    )
    .await;
    assert!(server.root().join("other/link").is_symlink());
    assert_eq!(text(&server, "two"), "1");
    fs::create_dir(server.root().join("full")).unwrap();
    write(&server, "full/x", "");
    for (from, to, status, code) in [
        ("missing", "new", 404, "NOT_FOUND"),
        ("two", "no/parent", 404, "NOT_FOUND"),
        ("", "new", 409, "CONFLICT"),
        ("other", "", 409, "CONFLICT"),
        ("other", "other/deep/self", 400, "INVALID_ARGUMENT"),
        ("other", "full", 409, "CONFLICT"),
        ("other", "two", 409, "CONFLICT"),
        ("two", "full", 409, "CONFLICT"),
        ("../secret", "new", 403, "PERMISSION_DENIED"),
        ("two", "../out", 403, "PERMISSION_DENIED"),
    ] {
        let request = json!({"from": from, "to": to, "overwrite": true});
        refused(&server, "move", &request, status, code).await;
    }
    assert_eq!(text(&server, "two"), "1");
}

#[tokio::test]
async fn of_two_names_of_one_file_a_move_leaves_one() {
    let server = start().await;
    write(&server, "one", "1");
    fs::hard_link(server.root().join("one"), server.root().join("two")).unwrap();
    let both = json!({"from": "one", "to": "two", "overwrite": true});
    done(&server, "move", &both).await;
    assert!(!server.root().join("one").exists());
    let same = json!({"from": "two", "to": "./two", "overwrite": true});
    done(&server, "move", &same).await;
    assert_eq!(text(&server, "two"), "1");
}

#[tokio::test]
async fn copies_are_complete_and_keep_modes_and_links() {
    let server = start().await;
    write(&server, "src/run", "#!/bin/sh\n");
    write(&server, "src/deep/er/data", &"x".repeat(300_000));
    let executable = fs::Permissions::from_mode(0o751);
    fs::set_permissions(server.root().join("src/run"), executable).unwrap();
    let closed = fs::Permissions::from_mode(0o500);
    symlink("run", server.root().join("src/link")).unwrap();
    symlink("/etc/passwd", server.root().join("src/outside")).unwrap();
    fifo(&server, "src/deep/pipe");
    fs::set_permissions(server.root().join("src/deep/er"), closed).unwrap();
    let copied = done(&server, "copy", &json!({"from": "src", "to": "dst"})).await;
    assert_eq!(
        copied,
        json!({
            "files": 2, "directories": 3, "links": 2, "bytes": 300_010,
            "skipped": ["deep/pipe"], "skipped_total": 1,
        })
    );
    assert_eq!(text(&server, "dst/deep/er/data").len(), 300_000);
    let mode = |name: &str| fs::metadata(server.root().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("dst/run"), mode("dst/deep/er")), (0o751, 0o500));
    for (link, target) in [("link", "run"), ("outside", "/etc/passwd")] {
        let found = fs::read_link(server.root().join("dst").join(link)).unwrap();
        assert_eq!(found.to_str(), Some(target));
    }
    // Of a link that is named, what it points to is copied.
    let copied = done(&server, "copy", &json!({"from": "src/link", "to": "run2"})).await;
    assert_eq!(
        (&copied["files"], &copied["bytes"]),
        (&json!(1), &json!(10))
    );
    let writable = fs::Permissions::from_mode(0o700);
    for directory in ["src/deep/er", "dst/deep/er"] {
        fs::set_permissions(server.root().join(directory), writable.clone()).unwrap();
    }
    write(&server, "other", "other");
    for (from, to, overwrite, status, code) in [
        ("src/run", "other", false, 409, "CONFLICT"),
        ("src", "src/deep/self", false, 400, "INVALID_ARGUMENT"),
        ("src", "src/self", false, 400, "INVALID_ARGUMENT"),
        ("src", "dst", true, 409, "CONFLICT"),
        ("src/deep/pipe", "new", false, 400, "INVALID_ARGUMENT"),
        ("src/outside", "new", false, 403, "PERMISSION_DENIED"),
        ("missing", "new", false, 404, "NOT_FOUND"),
    ] {
        let request = json!({"from": from, "to": to, "overwrite": overwrite});
        refused(&server, "copy", &request, status, code).await;
    }
    done(
        &server,
        "copy",
        &json!({"from": "src/run", "to": "other", "overwrite": true}),
    )
    .await;
    assert_eq!(text(&server, "other"), "#!/bin/sh\n");
    let mut names: Vec<_> = fs::read_dir(server.root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["dst", "other", "run2", "src"]);
}

#[tokio::test]
async fn permissions_are_changed_through_links_that_stay_inside() {
    let server = start().await;
    write(&server, "f", "");
    symlink("f", server.root().join("link")).unwrap();
    fifo(&server, "pipe");
    let outside = server.outside().join("secret");
    fs::write(&outside, "").unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o600)).unwrap();
    symlink(&outside, server.root().join("out")).unwrap();
    let mode = |name: &str| fs::metadata(server.root().join(name)).unwrap().mode() & 0o7777;
    let own = fs::metadata(server.root().join("f")).unwrap();
    done(&server, "chmod", &json!({"path": "link", "mode": "0000"})).await;
    assert_eq!(mode("f"), 0);
    let request = json!({"path": "f", "mode": "4711", "uid": own.uid(), "gid": own.gid()});
    done(&server, "chmod", &request).await;
    assert_eq!(mode("f"), 0o4711);
    for (request, status, code) in [
        (
            json!({"path": "out", "mode": "0777"}),
            403,
            "PERMISSION_DENIED",
        ),
        (
            json!({"path": "pipe", "mode": "0777"}),
            400,
            "INVALID_ARGUMENT",
        ),
        (json!({"path": "missing", "mode": "0777"}), 404, "NOT_FOUND"),
        (json!({"path": "f"}), 400, "INVALID_ARGUMENT"),
        (json!({"path": "f", "mode": "777"}), 400, "INVALID_ARGUMENT"),
    ] {
        refused(&server, "chmod", &request, status, code).await;
    }
    assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o7777, 0o600);
}

#[tokio::test]
async fn requests_are_read_strictly() {
    let server = start().await;
    for (body, words) in [
        ("{", ["not JSON", "JSON object"]),
        (r#"{"path": 1}"#, ["\"path\"", "a string"]),
        (
            r#"{"path": "", "follow": 1}"#,
            ["\"follow\"", "true or false"],
        ),
        (r#"{"path": "", "folow": true}"#, ["\"folow\"", "not known"]),
    ] {
        let answer = server.post("/v1/fs/stat", "application/json", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{answer:?}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
    let answer = server.get("/v1/fs/stat").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.header("allow"), "POST");
    let answer = server.post("/v1/fs/format", "application/json", "{}").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}
