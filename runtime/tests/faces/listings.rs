//! Directories that are larger than one piece of an answer.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::SystemTime;

use hyper::StatusCode;
use serde_json::json;

use crate::harness::start;
use crate::program;

/// More than are written at a time.
const MANY: usize = 3000;

#[tokio::test]
async fn a_long_listing_is_the_same_text_as_a_short_one() {
    let server = start().await;
    let dir = server.root().join("dir");
    fs::create_dir(&dir).unwrap();
    let mut names = Vec::new();
    for number in 0..MANY {
        let name = format!("\"{number}\u{e9}\n");
        let path = dir.join(&name);
        match number % 500 {
            0 => fs::create_dir(path).unwrap(),
            1 => symlink("nowhere", path).unwrap(),
            _ => fs::write(path, vec![b'x'; number % 7]).unwrap(),
        }
        names.push(name);
    }
    names.sort();
    let mut legacy = String::from("[");
    let mut daemon = String::from("{\"path\":\"/dir\",\"entries\":[");
    for name in &names {
        let found = fs::symlink_metadata(dir.join(name)).unwrap();
        let kind = if found.is_dir() { "directory" } else { "file" };
        let since = found.modified().unwrap();
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let comma = |text: &str| if text.ends_with('[') { "" } else { "," };
        write!(
            legacy,
            "{}{{\"name\":{},\"size\":{},\"type\":\"{kind}\",\"mod_time\":{}}}",
            comma(&legacy),
            json!(name),
            found.len(),
            json!(since.as_secs_f64()),
        )
        .unwrap();
        if found.is_symlink() {
            continue;
        }
        let seconds = i64::try_from(since.as_secs()).unwrap();
        write!(
            daemon,
            "{}{{\"name\":{},\"size\":{},\"type\":\"{kind}\",\"modified_at\":\"{}\",\"mode\":\"{:04o}\"}}",
            comma(&daemon),
            json!(name),
            found.len(),
            jiff::Timestamp::from_second(seconds).unwrap(),
            found.mode() & 0o777,
        )
        .unwrap();
    }
    legacy.push(']');
    daemon.push_str("]}");
    for (path, expected) in [("/list/dir", legacy), ("/v1/files/dir", daemon)] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("content-type"), "application/json");
        // It is sent before all of it is known.
        assert_eq!(answer.header("content-length"), "", "{path}");
        assert!(answer.body == expected, "{path} differs");
    }
    let answer = server.call("HEAD", "/v1/files/dir", &[]).await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn a_large_directory_costs_its_names_and_no_more() {
    const FILES: usize = 50_000;
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("dir");
    fs::create_dir(&dir).unwrap();
    let long = "n".repeat(200);
    let first = dir.join(format!("{long}-0"));
    fs::write(&first, "").unwrap();
    for number in 1..FILES {
        // Another name of the same file is made sooner than a file.
        let name = dir.join(format!("{long}-{number}"));
        if fs::hard_link(&first, &name).is_err() {
            fs::write(&name, "").unwrap();
        }
    }
    let running = program::start(program::program(root.path()));
    running.execute("true").await;
    let before = running.peak();
    for path in ["/list/dir", "/v1/files/dir"] {
        let (status, text) = running.send("GET", path, "", b"").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(text.matches("\"name\":").count(), FILES, "{path}");
    }
    // The names are 10 MiB; each answer is 13 MiB of text.
    let after = running.peak();
    assert!(after < before + 20, "{before} to {after} MiB");
}
