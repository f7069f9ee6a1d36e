//! What is read, in which order it counts, and what is refused.

use std::net::TcpListener;

use crate::process::{LOCAL, Process, Sandbox, ask, get, local, refused, router, status};

/// Limits that tell by the size of a body they accept who set them.
const LIMIT: &str = "max-request-body-bytes";

#[test]
fn the_environment_is_beaten_by_the_file_and_the_file_by_the_flag() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    let sandbox = Sandbox::start();
    // The environment names the file, and says how long to wait; so does the file, and a flag.
    std::fs::write(&file, "authz-mode: allow-all\ncluster-domain: file\n").unwrap();
    let source = |more: &[&str]| {
        let mut command = router(&[
            "--http-bind-address=127.0.0.1:0",
            "--metrics-bind-address=127.0.0.1:0",
            "--health-probe-bind-address=127.0.0.1:0",
            "--cache-enabled=false",
            "--upstream-max-retries=0",
            "--resolve-wait=0",
        ]);
        command
            .args(more)
            .env("SANDBOX_ROUTER_CONFIG", &file)
            .env("CLUSTER_DOMAIN", "variable.invalid");
        let process = Process::start(command);
        let [address, ..] = process.addresses();
        let answer = ask(address, &get("/who", &sandbox.route())).unwrap();
        assert_eq!(status(&answer), "502");
        let line = process.says(&["sandbox-router.access", "/who"]);
        let (_, upstream) = line.split_once("\"upstream\":\"").unwrap();
        upstream.split('"').next().unwrap().to_owned()
    };
    let port = sandbox.port;
    assert_eq!(source(&[]), format!("box.ns.svc.file:{port}"));
    assert_eq!(
        source(&["--cluster-domain=flag"]),
        format!("box.ns.svc.flag:{port}")
    );
    std::fs::write(&file, "authz-mode: allow-all\n").unwrap();
    assert_eq!(source(&[]), format!("box.ns.svc.variable.invalid:{port}"));
    // A file named by a flag is read instead of the one of the environment.
    let other = directory.path().join("other.yaml");
    std::fs::write(&other, "authz-mode: allow-all\ncluster-domain: other\n").unwrap();
    let named = format!("--config={}", other.display());
    assert_eq!(source(&[&named]), format!("box.ns.svc.other:{port}"));
}

#[test]
fn deployments_of_the_python_router_start_with_their_variables() {
    let sandbox = Sandbox::start();
    let request = get("/", &sandbox.route());
    let mut command = local(&[]);
    command
        .env("ROUTER_AUTH_TOKEN", " s3cret \n")
        .env("WEBSOCKET_MAX_MESSAGE_BYTES", "1024")
        .env("PROXY_TIMEOUT_SECONDS", "soon");
    let process = Process::start(command);
    let [address, ..] = process.addresses();
    assert_eq!(status(&ask(address, &request).unwrap()), "401");
    let bearing = request.replace("Host:", "Authorization: Bearer s3cret\r\nHost:");
    assert_eq!(status(&ask(address, &bearing).unwrap()), "200");
    process.says(&["WARN", "WEBSOCKET_MAX_MESSAGE_BYTES=1024"]);
    process.says(&["WARN", "PROXY_TIMEOUT_SECONDS=soon"]);
    assert!(!process.log().contains("s3cret"), "{}", process.log());

    let mut command = local(&[]);
    command.env("ALLOW_UNAUTHENTICATED_ROUTER", "true");
    let process = Process::start(command);
    let [address, ..] = process.addresses();
    process.says(&["WARN", "every caller reaches every sandbox"]);
    assert_eq!(status(&ask(address, &request).unwrap()), "200");
}

#[test]
fn a_router_that_nobody_decided_to_open_does_not_start() {
    let (status, said) = refused(local(&[]));
    assert_eq!(status.code(), Some(2));
    assert!(said.starts_with("error: --authz-mode: is needed"), "{said}");
}

#[test]
fn what_cannot_be_used_is_named_and_ends_with_status_2() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    let config = format!("--config={}", file.display());
    for (content, expected) in [
        ("no-such-key: 1\n", "unknown config key \"no-such-key\""),
        ("authz-mode: [allow-all]\n", "must be a scalar"),
        ("proxy-timeout: 180\n", "--proxy-timeout"),
    ] {
        std::fs::write(&file, content).unwrap();
        let (status, said) = refused(local(&["--authz-mode=allow-all", &config]));
        assert_eq!(status.code(), Some(2), "{content}");
        assert!(said.contains(expected), "{content}: {said}");
    }
    let (status, said) = refused(local(&["--authz-mode=allow-all", "--proxy-timeout=0"]));
    assert_eq!(status.code(), Some(2));
    assert!(said.contains("--proxy-timeout: must be longer"), "{said}");
    let (status, said) = refused(router(&["--version"]));
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}

#[test]
fn a_port_that_is_taken_is_told_at_the_start_and_nothing_stays_bound() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    // An address of its own, so that nobody else takes its port meanwhile.
    let free = TcpListener::bind("127.9.8.7:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let http = format!("--http-bind-address={address}");
    let probes = format!("--health-probe-bind-address={}", taken.1);
    let (status, said) = refused(local(&["--authz-mode=allow-all", &http, &probes]));
    assert_eq!(status.code(), Some(1));
    assert!(said.contains(&taken.1.to_string()), "{said}");
    TcpListener::bind(address).expect("the port bound before is free again");
}

#[test]
fn a_limit_holds_from_the_file_too() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    std::fs::write(&file, format!("authz-mode: allow-all\n{LIMIT}: 3\n")).unwrap();
    let sandbox = Sandbox::start();
    let config = format!("--config={}", file.display());
    let process = Process::start(router(&[&LOCAL[..], &[&config]].concat()));
    let [address, ..] = process.addresses();
    let route = sandbox.route();
    let answer = ask(
        address,
        &format!(
            "POST / HTTP/1.1\r\nHost: r\r\nConnection: close\r\n{route}Content-Length: 4\r\n\r\nabcd"
        ),
    );
    assert_eq!(status(&answer.unwrap()), "413");
    assert!(sandbox.heads().is_empty());
}
