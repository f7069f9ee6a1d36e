//! From start to end: readiness, probes, and what SIGTERM does.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::Signal;

use crate::process::{Process, Sandbox, ask, eventually, get, local, status};

#[test]
fn on_sigterm_it_is_not_ready_then_finishes_and_probes_answer_to_the_end() {
    let sandbox = Sandbox::holding();
    let mut process = Process::start(local(&["--authz-mode=allow-all"]));
    let [requests, metrics, probes] = process.addresses();
    eventually("ready", || {
        ask(probes, &get("/readyz", "")).filter(|answer| status(answer) == "200")
    });
    assert_eq!(status(&ask(probes, &get("/healthz", "")).unwrap()), "200");
    let mut busy = TcpStream::connect(requests).unwrap();
    busy.write_all(get("/slow", &sandbox.route()).as_bytes())
        .unwrap();
    eventually("the request is under way", || sandbox.heads().pop());

    process.signal(Signal::TERM);
    process.says(&["draining", "SIGTERM"]);
    let answer = eventually("not ready", || {
        ask(probes, &get("/readyz", "")).filter(|answer| status(answer) == "503")
    });
    assert!(answer.contains("draining"), "{answer}");
    eventually("nothing new is accepted", || {
        TcpStream::connect(requests).is_err().then_some(())
    });
    // While a request is under way, probes and metrics are answered.
    assert_eq!(status(&ask(probes, &get("/healthz", "")).unwrap()), "200");
    let shown = ask(metrics, &get("/metrics", "")).unwrap();
    assert!(
        shown.contains("sandbox_router_inflight_requests 1"),
        "{shown}"
    );
    sandbox.release();
    let mut answer = String::new();
    busy.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    assert_eq!(process.ends().code(), Some(0));
    process.says(&["sandbox-router.access", "/slow"]);
}

#[test]
fn sigint_ends_it_too() {
    let mut process = Process::start(local(&["--authz-mode=allow-all"]));
    let [_, _, probes] = process.addresses();
    eventually("ready", || {
        ask(probes, &get("/readyz", "")).filter(|answer| status(answer) == "200")
    });
    process.signal(Signal::INT);
    assert_eq!(process.ends().code(), Some(0));
    process.says(&["draining", "SIGINT"]);
}
