//! `POST /execute`: words, environment, outcomes, time, trees and outputs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::harness::{
    PATIENCE, eventually, post, runs, sh, start, start_with, with_enough_time, written_pid,
};

fn succeeded(stdout: &str) -> Value {
    json!({"stdout": stdout, "stderr": "", "exit_code": 0})
}

#[tokio::test]
async fn echo_answers_exactly_three_members() {
    let server = start().await;
    assert_eq!(
        server.execute("echo 'hello world'").await,
        succeeded("hello world\n")
    );
}

#[tokio::test]
async fn only_quoting_is_special() {
    let server = start().await;
    fs::write(server.root().join("present"), "").unwrap();
    for (command, stdout) in [
        ("echo hi; ls | wc", "hi; ls | wc\n"),
        ("echo # no comment", "# no comment\n"),
        (
            "echo $HOME $(id) `id` * > out &&",
            "$HOME $(id) `id` * > out &&\n",
        ),
        ("echo 'a  b' \"c 'd'\" e\\ f ''", "a  b c 'd' e f \n"),
        ("printf %s\\\\n one 'two three'", "one\ntwo three\n"),
        (&sh("echo \"$((1+2))\" | tr 3 x"), "x\n"),
    ] {
        assert_eq!(
            server.execute(command).await,
            succeeded(stdout),
            "{command}"
        );
    }
}

#[tokio::test]
async fn commands_run_in_the_root_as_leaders_of_a_new_session() {
    let server = start().await;
    let root = fs::canonicalize(server.root()).unwrap();
    assert_eq!(
        server.execute("pwd").await,
        succeeded(&format!("{}\n", root.display()))
    );
    let stat = server.execute(&sh("exec cat /proc/$$/stat")).await;
    let stat = stat["stdout"].as_str().unwrap().to_owned();
    let (pid, rest) = stat.split_once(' ').unwrap();
    let fields: Vec<&str> = rest
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    assert_eq!((fields[2], fields[3]), (pid, pid), "group and session");
}

#[tokio::test]
async fn standard_input_is_empty() {
    let server = start().await;
    assert_eq!(server.execute("cat").await, succeeded(""));
    assert_eq!(
        server.execute("readlink /proc/self/fd/0").await,
        succeeded("/dev/null\n")
    );
}

#[tokio::test]
async fn commands_get_the_environment_without_the_runtimes_own_variables() {
    let server = start_with(|config| {
        for (name, value) in [
            ("VISIBLE", "yes"),
            ("AGENT_SANDBOX_RUNTIME_TOKEN", "secret"),
            ("AGENT_SANDBOX_RUNTIME_TOKEN_FILE", "/secret"),
        ] {
            config.environment.push((name.into(), value.into()));
        }
    })
    .await;
    let environment = server.execute("env").await["stdout"].to_string();
    assert!(environment.contains("VISIBLE=yes"), "{environment}");
    assert!(
        !environment.to_lowercase().contains("secret"),
        "{environment}"
    );
}

#[tokio::test]
async fn exit_codes_and_signals_are_reported() {
    let server = start().await;
    for (script, code) in [
        ("exit 0", 0),
        ("exit 3", 3),
        ("exit 255", 255),
        ("kill -9 $$", -9),
        ("kill -TERM $$", -15),
    ] {
        let answer = server
            .execute(&sh(&format!("echo out; echo err >&2; {script}")))
            .await;
        let expected = json!({"stdout": "out\n", "stderr": "err\n", "exit_code": code});
        assert_eq!(answer, expected, "{script}");
    }
}

#[tokio::test]
async fn what_cannot_be_started_says_why_in_the_old_words() {
    let server = start().await;
    let root = server.root();
    fs::write(root.join("plain"), "#!/bin/sh\n").unwrap();
    fs::write(root.join("garbage"), "\x01\x02").unwrap();
    fs::set_permissions(root.join("garbage"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(root.join("folder")).unwrap();
    for (command, why) in [
        (
            "no-such-program x",
            "[Errno 2] No such file or directory: 'no-such-program'",
        ),
        (
            "./missing",
            "[Errno 2] No such file or directory: './missing'",
        ),
        ("./plain", "[Errno 13] Permission denied: './plain'"),
        ("./folder", "[Errno 13] Permission denied: './folder'"),
        ("./plain/x", "[Errno 20] Not a directory: './plain/x'"),
        ("./garbage", "[Errno 8] Exec format error: './garbage'"),
        ("''", "[Errno 13] Permission denied: ''"),
        ("", "list index out of range"),
        ("  \t\n ", "list index out of range"),
        ("echo 'open", "No closing quotation"),
        ("echo \"open", "No closing quotation"),
        ("echo \\", "No escaped character"),
        ("echo a\0b", "embedded null byte"),
    ] {
        let expected = json!({
            "stdout": "", "stderr": format!("Failed to execute command: {why}"), "exit_code": 1,
        });
        assert_eq!(server.execute(command).await, expected, "{command:?}");
    }
}

#[tokio::test]
async fn too_long_an_argument_list_is_the_commands_failure() {
    let server = start().await;
    let answer = server
        .execute(&format!("true {}", "x".repeat(200_000)))
        .await;
    let expected = "Failed to execute command: [Errno 7] Argument list too long: 'true'";
    assert_eq!(
        answer,
        json!({"stdout": "", "stderr": expected, "exit_code": 1})
    );
}

#[tokio::test]
async fn a_timed_out_command_keeps_its_output_and_says_so() {
    // The command says when it has written.
    with_enough_time("the command writes", async |seconds| {
        let server = start().await;
        let script = "echo out; printf err >&2; touch written; sleep 1000";
        let answer = server.execute_within(&sh(script), seconds).await;
        assert_eq!(answer["timed_out"], true, "{answer}");
        if !server.root().join("written").exists() {
            return None;
        }
        let stderr = format!(
            "err\nFailed to execute command: Command '['sh', '-c', '{script}']' timed out after \
             {seconds} seconds"
        );
        let expected =
            json!({"stdout": "out\n", "stderr": stderr, "exit_code": 124, "timed_out": true});
        assert_eq!(answer, expected);
        Some(())
    })
    .await;
}

#[tokio::test]
async fn the_configured_timeout_applies_and_the_request_overrides_it() {
    let server =
        start_with(|config| config.exec_timeout = std::time::Duration::from_millis(300)).await;
    assert_eq!(server.execute("sleep 1000").await["timed_out"], true);
    let answer = server.execute_within("sleep 0.6", 50.0).await;
    assert_eq!(answer, succeeded(""));
}

#[tokio::test]
async fn the_whole_tree_ends_with_the_time() {
    // A child in the group, one that ignores signals, one in its own session, and a daemon that left
    // group, session and parent behind.
    let script = "trap '' TERM HUP INT
        sleep 1000 & echo $! > plain.pid
        sh -c 'trap \"\" TERM HUP INT; echo $$ > stubborn.pid; while :; do sleep 1; done' &
        setsid sh -c 'echo $$ > session.pid; exec sleep 1000' &
        setsid sh -c 'setsid sh -c \"echo \\$\\$ > daemon.pid; exec sleep 1000\" & exit' &
        wait";
    let command = sh(script);
    with_enough_time("the whole tree runs", async |seconds| {
        let server = start().await;
        let root = server.root();
        let mut grown = None;
        let mut request = std::pin::pin!(server.execute_within(&command, seconds));
        let tree = async {
            let mut pids = Vec::new();
            for name in ["plain", "stubborn", "session", "daemon"] {
                pids.push(written_pid(&root.join(format!("{name}.pid"))).await);
            }
            pids.iter().all(|pid| runs(*pid)).then_some(pids)
        };
        let answer = tokio::select! {
            answer = &mut request => answer,
            pids = tree => {
                grown = pids;
                request.await
            }
        };
        assert_eq!(answer["timed_out"], true, "{answer}");
        for pid in grown? {
            assert!(!runs(pid), "{pid} survived");
        }
        Some(())
    })
    .await;
}

#[tokio::test]
async fn a_disconnected_client_ends_the_whole_tree() {
    let server = start().await;
    let root = server.root();
    let script = "setsid sh -c 'echo $$ > session.pid; exec sleep 1000' &
        echo $$ > leader.pid; exec sleep 1000";
    let mut sender = server.connect().await;
    let body = json!({"command": sh(script)}).to_string();
    let request = sender.send_request(post("/execute", "application/json", body));
    let request = tokio::spawn(request);
    let leader = written_pid(&root.join("leader.pid")).await;
    let session = written_pid(&root.join("session.pid")).await;
    assert!(runs(leader) && runs(session));
    request.abort();
    drop(sender);
    eventually("the tree is gone", || !runs(leader) && !runs(session)).await;
    eventually("the table is empty", || {
        server.runtime.processes().running() == 0
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_http2_stream_ends_its_command_and_no_other() {
    let server = start().await;
    let stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let run = |script: &str| {
        let body = json!({"command": sh(script)}).to_string();
        let mut sender = sender.clone();
        let request = http_request(&server, body);
        tokio::spawn(async move { sender.send_request(request).await })
    };
    let cancelled = run("echo $$ > cancelled.pid; exec sleep 1000");
    let kept = run("echo $$ > kept.pid; until [ -e go ]; do sleep 0.01; done; echo done");
    let gone = written_pid(&server.root().join("cancelled.pid")).await;
    written_pid(&server.root().join("kept.pid")).await;
    cancelled.abort();
    eventually("the cancelled one is gone", || !runs(gone)).await;
    fs::write(server.root().join("go"), "").unwrap();
    let answer = kept.await.unwrap().unwrap();
    let body = http_body_util::BodyExt::collect(answer.into_body())
        .await
        .unwrap()
        .to_bytes();
    let outcome: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(outcome, succeeded("done\n"));
}

/// With the absolute address HTTP/2 asks for.
fn http_request(
    server: &crate::harness::Server,
    body: String,
) -> hyper::Request<http_body_util::Full<hyper::body::Bytes>> {
    hyper::Request::post(format!("http://{}/execute", server.address))
        .header("content-type", "application/json")
        .body(http_body_util::Full::new(body.into()))
        .unwrap()
}

#[tokio::test]
async fn a_background_child_holds_nobody_and_lives_on() {
    let server = start().await;
    let script = "echo started; (while :; do echo tick; sleep 0.01; done) & echo $! > child.pid";
    let answer = server
        .execute_within(&sh(script), PATIENCE.as_secs_f64())
        .await;
    assert_eq!(answer["exit_code"], 0, "{answer}");
    assert!(answer.get("timed_out").is_none(), "{answer}");
    assert!(
        answer["stdout"].as_str().unwrap().starts_with("started\n"),
        "{answer}"
    );
    let child = written_pid(&server.root().join("child.pid")).await;
    assert!(runs(child), "closing its pipe would have killed it");
    // It keeps writing into a pipe that is read, so it never blocks: it makes progress.
    let ticks = || {
        let io = fs::read_to_string(format!("/proc/{child}/io")).unwrap();
        let line = io
            .lines()
            .find(|line| line.starts_with("wchar"))
            .unwrap()
            .to_owned();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let before = ticks();
    eventually("it goes on writing", || ticks() > before).await;
    server.stop().await;
    assert!(!runs(child), "a shutdown ends background children too");
}

#[tokio::test]
async fn output_of_a_pipeline_stage_that_ends_a_moment_later_is_kept() {
    let server = start().await;
    // Written a moment after the leader has gone. A busy machine may not come to it before the
    // runtime stops waiting, hence several attempts.
    let script = "echo early; (while kill -0 $$; do :; done 2> /dev/null; sleep 0.02; echo late) &";
    for _ in 0..20 {
        let answer = server.execute(&sh(script)).await;
        if answer == succeeded("early\nlate\n") {
            return;
        }
        assert_eq!(answer, succeeded("early\n"));
    }
    panic!("late output is never kept");
}

#[tokio::test]
async fn bytes_survive_unchanged() {
    let server = start().await;
    assert_eq!(
        server.execute("printf 'a\\r\\nb\\rc\\n'").await,
        succeeded("a\r\nb\rc\n")
    );
    let answer = server
        .execute(&sh("printf 'ok\\377\\n'; printf '\\200' >&2; exit 2"))
        .await;
    let expected = json!({
        "stdout": "ok\u{fffd}\n", "stdout_base64": "b2v/Cg==",
        "stderr": "\u{fffd}", "stderr_base64": "gA==",
        "exit_code": 2,
    });
    assert_eq!(answer, expected);
    assert_eq!(
        server.execute("printf 'é漢\\0🙂'").await,
        succeeded("é漢\0🙂")
    );
}

#[tokio::test]
async fn the_environment_of_python_programs_works() {
    let server = start().await;
    let program = "import sys; print(sum(range(10))); print(\"err\", file=sys.stderr)";
    let answer = server.execute(&format!("python3 -c '{program}'")).await;
    assert_eq!(
        answer,
        json!({"stdout": "45\n", "stderr": "err\n", "exit_code": 0})
    );
}

#[tokio::test]
async fn invalid_requests_are_described_as_the_framework_does() {
    let server = start().await;
    let json_type = "application/json";
    for (kind, body, detail) in [
        (
            json_type,
            r#"{"cmd": "x"}"#,
            json!([{"type": "missing", "loc": ["body", "command"], "msg": "Field required",
                    "input": {"cmd": "x"}}]),
        ),
        (
            json_type,
            "",
            json!([{"type": "missing", "loc": ["body"], "msg": "Field required", "input": null}]),
        ),
        (
            json_type,
            r#"{"command": 5}"#,
            json!([{"type": "string_type", "loc": ["body", "command"],
                    "msg": "Input should be a valid string", "input": 5}]),
        ),
        (
            json_type,
            r#"{"command": "x", "timeout_seconds": 0}"#,
            json!([{"type": "greater_than", "loc": ["body", "timeout_seconds"],
                    "msg": "Input should be greater than 0", "input": 0, "ctx": {"gt": 0.0}}]),
        ),
        (
            "text/plain",
            r#"{"command": "x"}"#,
            json!([{"type": "model_attributes_type", "loc": ["body"],
                    "msg": "Input should be a valid dictionary or object to extract fields from",
                    "input": r#"{"command": "x"}"#}]),
        ),
    ] {
        let answer = server.post("/execute", kind, body).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_eq!(answer.json(), json!({"detail": detail}), "{body}");
    }
    let answer = server.post("/execute", json_type, "{bad").await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let detail = &answer.json()["detail"][0];
    assert_eq!(detail["type"], "json_invalid");
    assert_eq!(detail["loc"], json!(["body", 1]));
    assert_eq!(detail["msg"], "JSON decode error");
    assert_eq!(detail["input"], json!({}));
    assert!(detail["ctx"]["error"].is_string());
    let answer = server
        .post("/execute", json_type, &b"{\"command\": \"\xff\"}"[..])
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        answer.json(),
        json!({"detail": "There was an error parsing the body"})
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_commands_at_once_keep_their_outputs_apart() {
    let server = start().await;
    let server = &server;
    let answers = (0..100).map(|number| async move {
        let answer = server
            .execute(&sh(&format!("echo {number}; exit {}", number % 7)))
            .await;
        let expected =
            json!({"stdout": format!("{number}\n"), "stderr": "", "exit_code": number % 7});
        assert_eq!(answer, expected);
    });
    futures::future::join_all(answers).await;
    eventually("the table is empty", || {
        server.runtime.processes().running() == 0
    })
    .await;
}
