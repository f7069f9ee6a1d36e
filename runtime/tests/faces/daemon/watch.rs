//! `GET /v1/fs/watch`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{done, fifo};
use crate::harness::{PATIENCE, Server, eventually, start};

/// What a watch tells.
struct Lines {
    body: Incoming,
    open: Vec<u8>,
}

impl Lines {
    async fn begin(server: &Server, query: &str) -> Self {
        let path = format!("/v1/fs/watch?{query}");
        let request = Request::get(path).header("host", "sandbox");
        let answer = server.open(request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
        let mut lines = Self {
            body: answer.into_body(),
            open: Vec::new(),
        };
        assert_eq!(lines.next().await.unwrap()["event"], "ready");
        lines
    }

    /// The next line; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.open.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.open.drain(..=end).collect();
                // A quiet watch sends empty ones.
                if line == b"\n" {
                    continue;
                }
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
            let frame = frame.expect("a line in time")?.unwrap();
            self.open.extend(frame.into_data().unwrap());
        }
    }

    /// Reads until a line is as expected; fails if one of `never` comes before it.
    async fn until(&mut self, expected: &Value, never: &str) {
        loop {
            let line = self.next().await.expect("more lines");
            if line == *expected {
                return;
            }
            assert!(
                never.is_empty() || !line.to_string().contains(never),
                "{line} before {expected}"
            );
        }
    }
}

#[tokio::test]
async fn every_change_is_told() {
    let server = start().await;
    let root = server.root();
    fs::create_dir_all(root.join("dir/old")).unwrap();
    fs::write(root.join("dir/f"), "").unwrap();
    let mut lines = Lines::begin(&server, "path=/dir").await;
    fs::write(root.join("dir/f"), "x").unwrap();
    lines
        .until(&json!({"event": "modified", "path": "dir/f"}), "")
        .await;
    fs::set_permissions(root.join("dir/f"), fs::Permissions::from_mode(0o600)).unwrap();
    lines
        .until(&json!({"event": "attributes", "path": "dir/f"}), "")
        .await;
    fs::rename(root.join("dir/f"), root.join("dir/g")).unwrap();
    let moved = json!({"event": "moved", "from": "dir/f", "path": "dir/g"});
    lines.until(&moved, "").await;
    fs::write(root.join("dir/new"), "").unwrap();
    let created = json!({"event": "created", "path": "dir/new", "directory": false});
    lines.until(&created, "").await;
    fs::remove_file(root.join("dir/new")).unwrap();
    lines
        .until(&json!({"event": "removed", "path": "dir/new"}), "")
        .await;
    fs::rename(root.join("dir/g"), root.join("away")).unwrap();
    lines
        .until(&json!({"event": "removed", "path": "dir/g"}), "")
        .await;
    fs::rename(root.join("away"), root.join("dir/back")).unwrap();
    let back = json!({"event": "created", "path": "dir/back", "directory": false});
    lines.until(&back, "").await;
    // An upload is told when it takes its place, and not under the name it has on the way.
    server.put("/v1/files/dir/up", "", b"content").await;
    let up = json!({"event": "created", "path": "dir/up", "directory": false});
    lines.until(&up, "upload").await;
    // What is below is not watched.
    fs::write(root.join("dir/old/below"), "").unwrap();
    fs::write(root.join("dir/end"), "").unwrap();
    let end = json!({"event": "created", "path": "dir/end", "directory": false});
    lines.until(&end, "below").await;
    fs::rename(root.join("dir"), root.join("elsewhere")).unwrap();
    lines
        .until(&json!({"event": "removed", "path": "dir"}), "")
        .await;
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn new_and_moved_directories_are_followed() {
    let server = start().await;
    let root = server.root();
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::create_dir(server.outside().join("other")).unwrap();
    symlink(server.outside().join("other"), root.join("a/out")).unwrap();
    let mut lines = Lines::begin(&server, "path=&recursive=true").await;
    fs::write(root.join("a/b/f"), "").unwrap();
    let created = |path: &str, directory: bool| json!({"event": "created", "path": path, "directory": directory});
    lines.until(&created("a/b/f", false), "").await;
    fs::create_dir_all(root.join("x/y/z")).unwrap();
    fs::write(root.join("x/y/z/deep"), "").unwrap();
    lines.until(&created("x", true), "").await;
    lines.until(&created("x/y/z/deep", false), "").await;
    fs::write(root.join("x/y/later"), "").unwrap();
    lines.until(&created("x/y/later", false), "").await;
    fs::rename(root.join("x/y"), root.join("a/moved")).unwrap();
    lines
        .until(
            &json!({"event": "moved", "from": "x/y", "path": "a/moved"}),
            "",
        )
        .await;
    fs::write(root.join("a/moved/z/deep"), "x").unwrap();
    let modified = json!({"event": "modified", "path": "a/moved/z/deep"});
    lines.until(&modified, "").await;
    // A copied directory appears whole.
    done(&server, "copy", &json!({"from": "a/moved", "to": "copy"})).await;
    lines.until(&created("copy", true), "upload").await;
    lines.until(&created("copy/z/deep", false), "upload").await;
    // What moved away is not watched any more, and what is outside never was.
    fs::rename(root.join("a/moved"), server.outside().join("gone")).unwrap();
    lines
        .until(&json!({"event": "removed", "path": "a/moved"}), "")
        .await;
    fs::write(server.outside().join("gone/z/unseen"), "").unwrap();
    fs::write(server.outside().join("other/unseen"), "").unwrap();
    fs::write(root.join("end"), "").unwrap();
    lines.until(&created("end", false), "unseen").await;
}

#[tokio::test]
async fn lost_changes_are_told_and_new_directories_watched_all_the_same() {
    let server = start().await;
    let root = server.root();
    let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let mut lines = Lines::begin(&server, "path=&recursive=true").await;
    // Nothing is read while the client does not read: first the connection fills up, then the queue.
    let mut count = 0;
    while count < 4 * most {
        for _ in 0..most {
            let path = root.join(format!("{}-{count}", "long-name-".repeat(20)));
            fs::write(&path, "").unwrap();
            fs::remove_file(&path).unwrap();
            count += 1;
        }
    }
    fs::create_dir(root.join("late")).unwrap();
    let overflow = json!({
        "event": "overflow", "reason": "changes came faster than they were read",
    });
    lines.until(&overflow, "").await;
    let mut attempt = 0;
    // From some point on, changes in the new directory are told.
    loop {
        attempt += 1;
        let path = format!("late/{attempt}");
        fs::write(root.join(&path), "").unwrap();
        let line = lines.next().await.unwrap();
        if line["path"]
            .as_str()
            .is_some_and(|path| path.starts_with("late/"))
        {
            break;
        }
    }
}

/// Whether this process watches the directory.
fn watched(directory: &Path) -> bool {
    let inode = fs::metadata(directory).unwrap().ino();
    let needle = format!(" ino:{inode:x} ");
    fs::read_dir("/proc/self/fdinfo").unwrap().any(|entry| {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        text.lines()
            .any(|line| line.starts_with("inotify ") && line.contains(&needle))
    })
}

#[tokio::test]
async fn a_watch_ends_with_its_client_and_with_the_runtime() {
    let server = start().await;
    let root = server.root();
    let lines = Lines::begin(&server, "").await;
    assert!(watched(&root));
    drop(lines);
    eventually("the end of the watch", || !watched(&root)).await;
    let mut lines = Lines::begin(&server, "").await;
    server.shutdown.trigger();
    assert_eq!(lines.next().await, None);
    drop(lines);
    server.stop().await;
}

#[tokio::test]
async fn only_directories_inside_are_watched() {
    let server = start().await;
    fs::write(server.root().join("f"), "").unwrap();
    fifo(&server, "pipe");
    symlink(server.outside(), server.root().join("out")).unwrap();
    for (query, status) in [
        ("path=f", 400),
        ("path=pipe", 400),
        ("path=missing", 404),
        ("path=out", 403),
        ("path=..", 403),
        ("path=&recursive=maybe", 400),
    ] {
        let answer = server.get(&format!("/v1/fs/watch?{query}")).await;
        assert_eq!(answer.status, status, "{query}: {answer:?}");
    }
    let answer = server.call("POST", "/v1/fs/watch", &[]).await;
    assert_eq!(answer.header("allow"), "GET");
}

#[tokio::test]
async fn more_watches_than_allowed_are_refused_with_the_limit() {
    let server = start().await;
    let mut open = Vec::new();
    let refused = loop {
        assert!(open.len() <= 32, "there is no limit");
        let request = Request::get("/v1/fs/watch").header("host", "sandbox");
        let answer = server.open(request.body(Full::default()).unwrap()).await;
        if answer.status() != 200 {
            break answer;
        }
        open.push(answer);
    };
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    let text = refused.into_body().collect().await.unwrap().to_bytes();
    let refusal: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(refusal["code"], "UNAVAILABLE");
    assert!(refusal["message"].as_str().unwrap().contains("limit"));
}
