//! `/v1/archive`: directories as tar archives.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use hyper::StatusCode;
use serde_json::json;
use tar::{EntryType, Header};

use super::fifo;
use crate::harness::{PATIENCE, Server, eventually, start, start_with};

const TAR: &str = "application/x-tar";

/// One entry; the name is written as it is.
fn entry(archive: &mut Vec<u8>, kind: EntryType, name: &str, target: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_000_000_000);
    header.set_size(content.len() as u64);
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

fn file(archive: &mut Vec<u8>, name: &str, content: &[u8]) {
    entry(archive, EntryType::Regular, name, "", content);
}

fn tree(server: &Server) -> String {
    let long = "long-".repeat(40);
    let src = server.root().join("src");
    fs::create_dir_all(src.join("deep").join(&long)).unwrap();
    fs::write(src.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(src.join("run"), fs::Permissions::from_mode(0o751)).unwrap();
    let big: Vec<u8> = (0..=255).cycle().take(1_000_001).collect();
    fs::write(src.join("deep").join(&long).join("big"), big).unwrap();
    fs::write(src.join("empty"), "").unwrap();
    symlink("run", src.join("link")).unwrap();
    symlink(format!("/{long}"), src.join("outside")).unwrap();
    long
}

fn same(one: &Path, other: &Path) {
    let status = Command::new("diff")
        .args(["--recursive", "--no-dereference"])
        .args([one, other])
        .status()
        .unwrap();
    assert!(status.success(), "{} differs", other.display());
}

#[tokio::test]
async fn what_is_packed_is_what_is_unpacked() {
    let server = start().await;
    let long = tree(&server);
    let closed = server.root().join("src/deep");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    let packed = server.get("/v1/archive/src").await;
    assert_eq!(packed.status, StatusCode::OK);
    assert_eq!(packed.header("content-type"), TAR);
    let answer = server.put("/v1/archive/new/place", TAR, &packed.body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(
        answer.json(),
        json!({"files": 3, "directories": 2, "links": 2, "bytes": 1_000_011})
    );
    let place = server.root().join("new/place");
    same(&server.root().join("src"), &place);
    let metadata = |name: &str| fs::metadata(place.join(name)).unwrap();
    assert_eq!(metadata("run").mode() & 0o7777, 0o751);
    assert_eq!(metadata("deep").mode() & 0o7777, 0o555);
    let original = fs::metadata(server.root().join("src/run")).unwrap();
    assert_eq!(metadata("run").mtime(), original.mtime());
    // Once more over what is there.
    fs::write(place.join("run"), "other").unwrap();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(place.join("deep"), open.clone()).unwrap();
    let answer = server.put("/v1/archive/new/place", TAR, &packed.body).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    same(&server.root().join("src"), &place);
    for directory in [&closed, &place.join("deep")] {
        fs::set_permissions(directory, open.clone()).unwrap();
    }
    assert!(place.join("deep").join(long).join("big").is_file());
}

#[tokio::test]
async fn other_programs_write_and_read_the_same_archives() {
    let server = start().await;
    tree(&server);
    for format in ["gnu", "pax", "posix", "oldgnu"] {
        let packed = Command::new("tar")
            .args(["-c", "--format", format, "-C"])
            .arg(server.root().join("src"))
            .arg(".")
            .output()
            .unwrap();
        assert!(packed.status.success(), "{packed:?}");
        let place = format!("from-{format}");
        let answer = server
            .put(&format!("/v1/archive/{place}"), TAR, &packed.stdout)
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{format}: {answer:?}");
        same(&server.root().join("src"), &server.root().join(place));
    }
    let packed = server.get("/v1/archive/src").await;
    let there = server.outside().join("there");
    fs::create_dir(&there).unwrap();
    let mut program = Command::new("tar")
        .args(["-x", "-C"])
        .arg(&there)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = program.stdin.take().unwrap();
    input.write_all(&packed.body).unwrap();
    drop(input);
    assert!(program.wait().unwrap().success());
    same(&server.root().join("src"), &there);
}

#[tokio::test]
async fn what_would_leave_the_directory_is_refused() {
    let server = start().await;
    let secret = server.outside().join("secret");
    fs::write(&secret, "secret").unwrap();
    let outside = server.outside().to_str().unwrap().to_owned();
    fs::create_dir_all(server.root().join("place")).unwrap();
    symlink(&outside, server.root().join("place/planted")).unwrap();
    fs::write(server.root().join("beside"), "beside").unwrap();
    let absolute = format!("{outside}/new");
    for (entries, status, words) in [
        (vec![(EntryType::Regular, "../new", "")], 400, "contains .."),
        (
            vec![(EntryType::Regular, "a/../../new", "")],
            400,
            "contains ..",
        ),
        (
            vec![(EntryType::Regular, absolute.as_str(), "")],
            400,
            "absolute",
        ),
        (vec![(EntryType::Directory, "/new", "")], 400, "absolute"),
        (
            vec![(EntryType::Regular, "planted/new", "")],
            409,
            "passes through",
        ),
        (
            vec![
                (EntryType::Symlink, "link", outside.as_str()),
                (EntryType::Regular, "link/new", ""),
            ],
            409,
            "1 links",
        ),
        (
            vec![
                (EntryType::Symlink, "link", outside.as_str()),
                (EntryType::Directory, "link", ""),
            ],
            409,
            "passes through",
        ),
        (
            vec![(EntryType::Link, "hard", secret.to_str().unwrap())],
            400,
            "absolute",
        ),
        (
            vec![(EntryType::Link, "hard", "../beside")],
            400,
            "contains ..",
        ),
        (
            vec![(EntryType::Link, "hard", "planted/secret")],
            409,
            "passes through",
        ),
        (vec![(EntryType::Link, "hard", "planted")], 400, "hard link"),
        (vec![(EntryType::Link, "hard", "missing")], 400, "hard link"),
        (
            vec![(EntryType::Fifo, "pipe", "")],
            400,
            "not a regular file",
        ),
        (
            vec![(EntryType::Char, "null", "")],
            400,
            "not a regular file",
        ),
        (
            vec![(EntryType::Block, "disk", "")],
            400,
            "not a regular file",
        ),
        (vec![(EntryType::GNUSparse, "holes", "")], 400, "sparse"),
        (vec![(EntryType::Regular, "", "")], 400, "no name"),
    ] {
        let mut archive = Vec::new();
        for (kind, name, target) in &entries {
            entry(&mut archive, *kind, name, target, b"");
        }
        archive.resize(archive.len() + 1024, 0);
        let answer = server.put("/v1/archive/place", TAR, &archive).await;
        assert_eq!(answer.status, status, "{entries:?}: {answer:?}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(words), "{entries:?}: {message}");
    }
    let mut names: Vec<_> = fs::read_dir(&outside)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["root", "secret"]);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    assert_eq!(fs::metadata(&secret).unwrap().nlink(), 1);
}

#[tokio::test]
async fn damage_is_told_with_what_was_stored_before() {
    let server = start_with(|config| config.max_upload_bytes = Some(1000)).await;
    let mut good = Vec::new();
    file(&mut good, "one", b"1");
    let mut damaged = good.clone();
    file(&mut damaged, "two", b"2");
    let mut large = good.clone();
    file(&mut large, "large", &[0; 1001]);
    damaged[1024 + 5] ^= 1;
    let mut hard = good.clone();
    entry(&mut hard, EntryType::Link, "two", "one", b"");
    for (archive, status, words) in [
        (&good[..1000], 400, "ends in the middle"),
        (&damaged[..], 400, "checksum"),
        (
            &large[..],
            413,
            "\"large\": the file is larger than the limit of 1000",
        ),
        (b"no archive at all", 400, "ends in the middle"),
        (&[b'x'; 2048], 400, "not a tar archive"),
    ] {
        let answer = server.put("/v1/archive/place", TAR, archive).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(words), "{message}");
    }
    entry(&mut hard, EntryType::Link, "two", "one", b"");
    let answer = server.put("/v1/archive/hard", TAR, &hard).await;
    assert_eq!(answer.json()["links"], 2, "{answer:?}");
    assert_eq!(fs::read_dir(server.root().join("hard")).unwrap().count(), 2);
    let two = fs::metadata(server.root().join("hard/two")).unwrap();
    assert_eq!((two.nlink(), two.size()), (2, 1));
    let names: Vec<_> = fs::read_dir(server.root().join("place"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["one"]);
}

#[tokio::test]
async fn only_directories_are_packed_and_special_files_left_out() {
    let server = start().await;
    fs::create_dir(server.root().join("src")).unwrap();
    fs::write(server.root().join("src/f"), "x").unwrap();
    fifo(&server, "src/pipe");
    symlink(server.outside(), server.root().join("out")).unwrap();
    for (path, status) in [
        ("src/f", 400),
        ("missing", 404),
        ("src/pipe", 400),
        ("out", 403),
    ] {
        let answer = server.get(&format!("/v1/archive/{path}")).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
    let packed = server.get("/v1/archive/src").await.body;
    let mut archive = tar::Archive::new(&packed[..]);
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        names.push((entry.path().unwrap().display().to_string(), content));
    }
    assert_eq!(names, [("f".to_owned(), "x".to_owned())]);
    let answer = server.call("HEAD", "/v1/archive/src", &[]).await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
    let answer = server.call("DELETE", "/v1/archive/src", &[]).await;
    assert_eq!(answer.header("allow"), "GET, HEAD, PUT");
}

/// Whether this process has the directory open.
fn open(directory: &Path) -> bool {
    let directory = fs::canonicalize(directory).unwrap();
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .any(|path| path == directory)
}

#[tokio::test]
async fn packing_ends_when_the_client_goes_away() {
    let server = start().await;
    let src = server.root().join("src");
    fs::create_dir(&src).unwrap();
    let holes = fs::File::create(src.join("holes")).unwrap();
    holes.set_len(1 << 40).unwrap();
    let request = hyper::Request::get("/v1/archive/src").header("host", "sandbox");
    let answer = server
        .open(request.body(http_body_util::Full::default()).unwrap())
        .await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(open(&src));
    drop(answer);
    eventually("the end of the packing", || !open(&src)).await;
}

#[tokio::test]
async fn more_archives_than_allowed_are_refused_at_once() {
    let server = start().await;
    let src = server.root().join("src");
    fs::create_dir(&src).unwrap();
    let holes = fs::File::create(src.join("holes")).unwrap();
    holes.set_len(1 << 40).unwrap();
    fs::create_dir(server.root().join("small")).unwrap();
    let mut on_their_way = Vec::new();
    for _ in 0..64 {
        let request = hyper::Request::get("/v1/archive/src").header("host", "sandbox");
        let answer = server
            .open(request.body(http_body_util::Full::default()).unwrap())
            .await;
        assert_eq!(answer.status(), StatusCode::OK);
        on_their_way.push(answer);
    }
    let end = [0; 1024];
    for answer in [
        server.get("/v1/archive/small").await,
        server.put("/v1/archive/new", TAR, &end).await,
    ] {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(answer.json()["code"], "UNAVAILABLE");
    }
    assert!(!server.root().join("new").exists());
    drop(on_their_way);
    eventually("the ends of the packing", || !open(&src)).await;
    // Each gives its place back a moment after it has closed the directory.
    let stored = async {
        loop {
            let answer = server.put("/v1/archive/new", TAR, &end).await;
            if answer.status == StatusCode::OK {
                return;
            }
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        }
    };
    tokio::time::timeout(PATIENCE, stored).await.unwrap();
}
