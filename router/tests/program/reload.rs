//! What SIGHUP changes while requests go on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;

use crate::process::{Process, Sandbox, ask, eventually, get, local, status};

fn post(address: SocketAddr, route: &str, body: &str) -> String {
    let length = body.len();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: r\r\nConnection: close\r\n{route}Content-Length: {length}\r\n\r\n{body}"
    );
    let answer = ask(address, &request).unwrap();
    status(&answer).to_owned()
}

#[test]
fn limits_change_for_new_requests_and_not_for_those_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    std::fs::write(&file, "max-request-body-bytes: 3\n").unwrap();
    let config = format!("--config={}", file.display());
    let mut process = Process::start(local(&["--authz-mode=allow-all", &config]));
    let [address, metrics, probes] = process.addresses();
    let (sandbox, held) = (Sandbox::start(), Sandbox::holding());
    let route = sandbox.route();
    assert_eq!(post(address, &route, "abcd"), "413");
    let mut busy = TcpStream::connect(address).unwrap();
    busy.write_all(get("/busy", &held.route()).as_bytes())
        .unwrap();
    eventually("a request is under way", || held.heads().pop());

    // What cannot change is said, by its name, and the rest is taken over.
    std::fs::write(&file, "max-request-body-bytes: 4\nshutdown-delay: 7s\n").unwrap();
    process.signal(Signal::HUP);
    process.says(&["settings adjusted"]);
    assert!(
        !process.log().contains("only after a restart"),
        "a flag beats the file"
    );
    assert_eq!(post(address, &route, "abcd"), "200");
    assert_eq!(post(address, &route, "abcde"), "413");
    std::fs::write(&file, "max-request-body-bytes: 5\nupstream-max-idle: 7\n").unwrap();
    process.signal(Signal::HUP);
    process.says(&["only after a restart", "connections to sandboxes"]);
    process.line(2, &["settings adjusted"]);
    assert_eq!(post(address, &route, "abcde"), "200");

    // What makes no sense changes nothing.
    std::fs::write(&file, "max-request-body-bytes: many\n").unwrap();
    process.signal(Signal::HUP);
    process.says(&["configuration not reloaded", "max-request-body-bytes"]);
    assert_eq!(post(address, &route, "abcde"), "200");
    assert_eq!(status(&ask(probes, &get("/readyz", "")).unwrap()), "200");
    let shown = ask(metrics, &get("/metrics", "")).unwrap();
    assert!(
        shown.contains("sandbox_router_inflight_requests 1"),
        "counted on: {shown}"
    );

    held.release();
    let mut answer = String::new();
    busy.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    process.signal(Signal::TERM);
    assert_eq!(process.ends().code(), Some(0));
}

#[test]
fn a_secret_file_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "first-secret").unwrap();
    let flag = format!("--authz-static-token-file={}", file.display());
    let process = Process::start(local(&["--authz-mode=static", &flag, "--log-filter=debug"]));
    let [address, ..] = process.addresses();
    let sandbox = Sandbox::start();
    let with = |token: &str| {
        let bearing = format!("Authorization: Bearer {token}\r\n{}", sandbox.route());
        status(&ask(address, &get("/", &bearing)).unwrap()).to_owned()
    };
    assert_eq!(with("first-secret"), "200");
    std::fs::write(&file, "second-secret").unwrap();
    process.signal(Signal::HUP);
    process.says(&["secret reloaded", "static token"]);
    assert_eq!(
        (with("first-secret"), with("second-secret")),
        ("401".into(), "200".into())
    );
    // An empty one would open the router to everybody who sends nothing.
    std::fs::write(&file, "\n").unwrap();
    process.signal(Signal::HUP);
    process.says(&["secret not reloaded", "static token"]);
    process.says(&["configuration not reloaded", "--authz-static-token-file"]);
    assert_eq!(with("second-secret"), "200");
    for secret in ["first-secret", "second-secret"] {
        assert!(!process.log().contains(secret), "{}", process.log());
    }
}
