//! Health, metadata and what is not there.

use hyper::StatusCode;
use serde_json::json;

use crate::harness::{start, start_with};

#[tokio::test]
async fn health_tells_the_uptime() {
    let server = start().await;
    let answer = server.get("/v1/health").await;
    assert_eq!(answer.status, StatusCode::OK);
    let health = answer.json();
    assert_eq!(health["status"], "ok");
    assert!(health["uptime_seconds"].is_u64(), "{health}");
    assert_eq!(health.as_object().unwrap().len(), 2);
    let head = server.call("HEAD", "/v1/health", &[]).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn health_is_unavailable_during_a_shutdown() {
    let server = start().await;
    server
        .runtime
        .processes()
        .shutdown(std::time::Duration::ZERO)
        .await;
    let answer = server.get("/v1/health").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.json()["code"], "UNAVAILABLE");
}

#[tokio::test]
async fn metadata_shows_prefixed_variables_without_credentials() {
    let server = start_with(|config| {
        for (name, value) in [
            ("SANDBOX_NAME", "box"),
            ("SANDBOX_API_TOKEN", "hush"),
            ("OTHER", "x"),
        ] {
            config.environment.push((name.into(), value.into()));
        }
    })
    .await;
    let answer = server.get("/v1/metadata").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json(), json!({"env": {"SANDBOX_NAME": "box"}}));
}

#[tokio::test]
async fn unknown_routes_and_methods_answer_in_plain_text() {
    let server = start().await;
    for path in ["/v1/nope", "/v1/files2", "/v1/health/x"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.body, "404 page not found\n", "{path}");
        assert!(
            answer.header("content-type").starts_with("text/plain"),
            "{path}"
        );
    }
    for (method, path, allow) in [
        ("POST", "/v1/files/x", "DELETE, GET, HEAD, PUT"),
        ("PATCH", "/v1/files", "DELETE, GET, HEAD, PUT"),
        ("PUT", "/v1/health", "GET, HEAD"),
        ("DELETE", "/v1/metadata", "GET, HEAD"),
    ] {
        let answer = server.call(method, path, &[]).await;
        assert_eq!(
            answer.status,
            StatusCode::METHOD_NOT_ALLOWED,
            "{method} {path}"
        );
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
        assert!(
            answer.header("content-type").starts_with("text/plain"),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn both_faces_see_the_same_files() {
    let server = start().await;
    server.upload("dir/file", b"from the legacy face").await;
    assert_eq!(
        server.get("/v1/files/dir/file").await.body,
        "from the legacy face"
    );
    let put = server
        .put("/v1/files/other", "", b"from the daemon face")
        .await;
    assert_eq!(put.status, StatusCode::NO_CONTENT);
    assert_eq!(
        server.get("/download/other").await.body,
        "from the daemon face"
    );
    assert_eq!(
        server.execute("cat other").await["stdout"],
        "from the daemon face"
    );
}

#[tokio::test]
async fn what_is_put_at_one_port_is_worked_on_at_another_and_got_back() {
    let mut server = start_with(|config| config.ports = vec![0, 0]).await;
    let [rest, grpc] = [server.addresses[0], server.addresses[1]];
    let put = server.put("/v1/files/job/in", "", b"3\n1\n2\n").await;
    assert_eq!(put.status, StatusCode::NO_CONTENT);
    server.address = grpc;
    let mut client = crate::grpc::client(&server).await;
    let config = crate::grpc::sh("sort job/in > job/out");
    let answer = crate::grpc::execute(&mut client, config).await.unwrap();
    assert_eq!(answer.exit_code, 0, "{answer:?}");
    server.address = rest;
    assert_eq!(server.get("/v1/files/job/out").await.body, "1\n2\n3\n");
    let listing = server.get("/v1/files/job").await.json();
    assert_eq!(listing["entries"][1]["name"], "out");
    let answer = server
        .call("DELETE", "/v1/files/job?recursive=true", &[])
        .await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    let config = crate::grpc::config(&["ls"]);
    let answer = crate::grpc::execute(&mut client, config).await.unwrap();
    assert_eq!((answer.exit_code, &answer.stdout[..]), (0, &b""[..]));
}

#[tokio::test]
async fn a_neighbour_whose_name_begins_like_the_roots_is_outside() {
    let server = start().await;
    let neighbour = server.outside().join("root-evil");
    std::fs::create_dir(&neighbour).unwrap();
    std::fs::write(neighbour.join("f"), "secret").unwrap();
    std::os::unix::fs::symlink("../root-evil", server.root().join("link")).unwrap();
    for path in [
        "..%2Froot-evil%2Ff",
        "%2E%2E/root-evil/new",
        "../root-evil",
        "link/f",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let answer = server.call(method, &format!("/v1/files/{path}"), &[]).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path}");
            assert_eq!(answer.json()["code"], "PERMISSION_DENIED");
        }
    }
    let names: Vec<_> = std::fs::read_dir(&neighbour).unwrap().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(std::fs::read(neighbour.join("f")).unwrap(), b"secret");
}
