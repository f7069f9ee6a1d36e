//! `/v1/fs/{glob,search,replace}`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use serde_json::{Value, json};

use super::{ask, done, fifo, refused};
use crate::harness::{Server, start};

fn write(server: &Server, name: &str, content: impl AsRef<[u8]>) {
    let path = server.root().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn text(server: &Server, name: &str) -> String {
    fs::read_to_string(server.root().join(name)).unwrap()
}

fn paths(answer: &Value) -> Vec<&str> {
    answer["matches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| found["path"].as_str().unwrap())
        .collect()
}

/// Files that are found, and a directory outside that a link leads to.
async fn tree() -> Server {
    let server = start().await;
    write(&server, "src/main.rs", "fn main() {\r\n    run();\n}\n");
    write(&server, "src/deep/lib.rs", "// run\nfn run() {}\n");
    write(&server, "src/deep/.hidden.rs", "");
    write(&server, "README.md", "Run it.\n");
    write(&server, "data.bin", b"run\0run");
    fifo(&server, "src/pipe");
    fs::create_dir(server.outside().join("other")).unwrap();
    fs::write(server.outside().join("other/secret.rs"), "run\n").unwrap();
    symlink(
        server.outside().join("other"),
        server.root().join("src/out"),
    )
    .unwrap();
    server
}

#[tokio::test]
async fn names_are_matched_and_links_not_followed() {
    let server = tree().await;
    for (request, expected) in [
        (
            json!({"pattern": "*"}),
            vec!["README.md", "data.bin", "src"],
        ),
        (
            json!({"pattern": "**/*.rs"}),
            vec!["src/deep/.hidden.rs", "src/deep/lib.rs", "src/main.rs"],
        ),
        (
            json!({"pattern": "*.rs", "path": "src"}),
            vec!["src/main.rs"],
        ),
        (
            json!({"pattern": "src/{pipe,out}"}),
            vec!["src/out", "src/pipe"],
        ),
        (
            json!({"pattern": "src/*/[k-m]?b.rs"}),
            vec!["src/deep/lib.rs"],
        ),
        (json!({"pattern": "src/out/*"}), vec![]),
        (json!({"pattern": "nothing"}), vec![]),
    ] {
        let found = done(&server, "glob", &request).await;
        assert_eq!(paths(&found), expected, "{request}");
        assert_eq!(found["truncated"], false);
    }
    let found = done(&server, "glob", &json!({"pattern": "**", "limit": 2})).await;
    assert_eq!(
        (paths(&found).len(), &found["truncated"]),
        (2, &json!(true))
    );
    let found = done(&server, "glob", &json!({"pattern": "src/*"})).await;
    let kinds: Vec<_> = found["matches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| found["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["directory", "file", "link", "fifo"]);
    for (request, status, code) in [
        (json!({"pattern": "../*"}), 400, "INVALID_ARGUMENT"),
        (json!({"pattern": "[a"}), 400, "INVALID_ARGUMENT"),
        (json!({"pattern": "*", "limit": 0}), 400, "INVALID_ARGUMENT"),
        (
            json!({"pattern": "*", "path": "src/out"}),
            403,
            "PERMISSION_DENIED",
        ),
        (json!({"pattern": "*", "path": "missing"}), 404, "NOT_FOUND"),
    ] {
        refused(&server, "glob", &request, status, code).await;
    }
}

#[tokio::test]
async fn text_is_found_line_by_line() {
    let server = tree().await;
    let found = done(&server, "search", &json!({"pattern": "run\\(\\)"})).await;
    let lines: Vec<_> = found["matches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            (
                line["path"].as_str().unwrap(),
                line["line"].as_u64().unwrap(),
                line["column"].as_u64().unwrap(),
                line["text"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            ("src/deep/lib.rs", 2, 4, "fn run() {}"),
            ("src/main.rs", 2, 5, "    run();"),
        ]
    );
    assert_eq!(
        (&found["files_binary"], &found["truncated"]),
        (&json!(1), &json!(false))
    );
    for (request, expected) in [
        (
            json!({"pattern": "RUN", "ignore_case": true, "glob": "*.md"}),
            vec!["README.md"],
        ),
        (
            json!({"pattern": "run()", "literal": true, "glob": ["main.*"]}),
            vec!["src/main.rs"],
        ),
        (
            json!({"pattern": "run", "exclude": "deep"}),
            vec!["src/main.rs"],
        ),
        (json!({"pattern": "\\{$"}), vec!["src/main.rs"]),
        (
            json!({"pattern": "\\Afn", "path": "src"}),
            vec!["src/deep/lib.rs", "src/main.rs"],
        ),
        (
            json!({"pattern": "run", "path": "src/main.rs"}),
            vec!["src/main.rs"],
        ),
        (json!({"pattern": "main.*\\n.*run"}), vec![]),
        (json!({"pattern": "^$"}), vec![]),
    ] {
        assert_eq!(
            paths(&done(&server, "search", &request).await),
            expected,
            "{request}"
        );
    }
    for (request, status, code) in [
        (json!({"pattern": "("}), 400, "INVALID_ARGUMENT"),
        (json!({"pattern": ""}), 400, "INVALID_ARGUMENT"),
        (
            json!({"pattern": "x", "glob": "{"}),
            400,
            "INVALID_ARGUMENT",
        ),
        (json!({"pattern": "x", "glob": 1}), 400, "INVALID_ARGUMENT"),
        (
            json!({"pattern": "x", "path": "src/pipe"}),
            400,
            "INVALID_ARGUMENT",
        ),
        (
            json!({"pattern": "x", "path": "src/out"}),
            403,
            "PERMISSION_DENIED",
        ),
    ] {
        refused(&server, "search", &request, status, code).await;
    }
}

#[tokio::test]
async fn a_search_is_bounded_and_says_so() {
    let server = start().await;
    write(&server, "many", "x\n".repeat(100));
    write(
        &server,
        "long",
        format!("{}needle{}", "a".repeat(10_000), "b".repeat(10_000)),
    );
    write(&server, "large", vec![b'x'; 5000]);
    let found = done(
        &server,
        "search",
        &json!({"pattern": "x", "path": "many", "limit": 7}),
    )
    .await;
    assert_eq!(
        (paths(&found).len(), &found["truncated"]),
        (7, &json!(true))
    );
    let found = done(
        &server,
        "search",
        &json!({"pattern": "x", "path": "many", "limit": 100}),
    )
    .await;
    assert_eq!(
        (paths(&found).len(), &found["truncated"]),
        (100, &json!(false))
    );
    let request = json!({"pattern": "needle", "max_line_bytes": 16});
    let found = done(&server, "search", &request).await;
    let line = &found["matches"][0];
    assert_eq!(
        (&line["text"], &line["cut"]),
        (&json!("aaaaaneedlebbbbb"), &json!(true))
    );
    assert_eq!(line["column"], 10_001);
    let request = json!({"pattern": "x", "glob": "large", "max_file_bytes": 4999});
    let found = done(&server, "search", &request).await;
    assert_eq!(
        (paths(&found).len(), &found["files_too_large"]),
        (0, &json!(1))
    );
}

#[tokio::test]
async fn text_is_replaced_file_by_file() {
    let server = tree().await;
    let executable = fs::Permissions::from_mode(0o750);
    fs::set_permissions(server.root().join("src/main.rs"), executable).unwrap();
    let request = json!({"pattern": "run(\\(?)", "replacement": "go$1", "glob": "*.rs"});
    let changed = done(&server, "replace", &request).await;
    assert_eq!(changed["replacements"], 3);
    let mut files = changed["files"].as_array().unwrap().clone();
    files.sort_by_key(|file| file["path"].to_string());
    assert_eq!(
        files,
        [
            json!({"path": "src/deep/lib.rs", "replacements": 2}),
            json!({"path": "src/main.rs", "replacements": 1}),
        ]
    );
    assert_eq!(
        text(&server, "src/main.rs"),
        "fn main() {\r\n    go();\n}\n"
    );
    assert_eq!(text(&server, "src/deep/lib.rs"), "// go\nfn go() {}\n");
    let mode = fs::metadata(server.root().join("src/main.rs"))
        .unwrap()
        .mode();
    assert_eq!(mode & 0o7777, 0o750);
    assert_eq!(
        fs::read(server.outside().join("other/secret.rs")).unwrap(),
        b"run\n"
    );
    // A literal replacement is taken as it is, and lines may be spanned.
    let request = json!({
        "pattern": "{\r\n", "replacement": "$1{\n", "literal": true, "paths": "src/main.rs",
    });
    done(&server, "replace", &request).await;
    assert_eq!(
        text(&server, "src/main.rs"),
        "fn main() $1{\n    go();\n}\n"
    );
    let none = json!({"pattern": "absent", "replacement": "", "paths": ["README.md"]});
    assert_eq!(done(&server, "replace", &none).await["replacements"], 0);
}

#[tokio::test]
async fn nothing_is_replaced_unless_everything_is_as_expected() {
    let server = tree().await;
    let inode = || {
        fs::metadata(server.root().join("src/main.rs"))
            .unwrap()
            .ino()
    };
    let before = inode();
    let both = ["src/main.rs", "src/deep/lib.rs"];
    let request = json!({"pattern": "run", "replacement": "go", "paths": both, "expected": 2});
    let answer = ask(&server, "replace", &request).await;
    assert_eq!(answer.status, 409);
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("3 occurrences were found and 2 expected"),
        "{message}"
    );
    for (request, status, code) in [
        (
            json!({"paths": ["src/main.rs", "missing"]}),
            404,
            "NOT_FOUND",
        ),
        (
            json!({"paths": ["src/main.rs", "data.bin"]}),
            400,
            "INVALID_ARGUMENT",
        ),
        (
            json!({"paths": ["src/main.rs", "src/pipe"]}),
            400,
            "INVALID_ARGUMENT",
        ),
        (
            json!({"paths": ["src/main.rs", "src/out/secret.rs"]}),
            403,
            "PERMISSION_DENIED",
        ),
        (
            json!({"paths": ["src/main.rs"], "max_file_bytes": 3}),
            413,
            "TOO_LARGE",
        ),
        (
            json!({"paths": ["src/main.rs"], "glob": "*"}),
            400,
            "INVALID_ARGUMENT",
        ),
        (json!({}), 400, "INVALID_ARGUMENT"),
    ] {
        let mut request = request;
        request["pattern"] = "run".into();
        request["replacement"] = "go".into();
        refused(&server, "replace", &request, status, code).await;
    }
    assert_eq!(inode(), before);
    assert!(text(&server, "src/main.rs").contains("run"));
    let request = json!({"pattern": "run", "replacement": "go", "paths": both, "expected": 3});
    done(&server, "replace", &request).await;
    assert!(!text(&server, "src/main.rs").contains("run"));
}
