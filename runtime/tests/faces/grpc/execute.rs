//! `Execute`: a command to its end.

use std::time::Duration;

use agent_sandbox_runtime::proto::process::v1::{ExecuteRequest, ProcessConfig};
use tonic::{Code, Request};

use super::{client, config, execute, sh};
use crate::harness::start as serve;
use crate::harness::{PATIENCE, eventually, start_with};

#[tokio::test]
async fn output_and_status_are_those_of_the_command() {
    let server = serve().await;
    let mut client = client(&server).await;
    let answer = execute(&mut client, config(&["echo", "hello  world", "$HOME;"]))
        .await
        .unwrap();
    assert_eq!(answer.exit_code, 0);
    assert_eq!(answer.stdout, "hello  world $HOME;\n");
    assert_eq!(answer.stderr, "");
    let answer = execute(&mut client, sh("echo out; echo err >&2; exit 3"))
        .await
        .unwrap();
    assert_eq!((answer.exit_code, &answer.stdout[..]), (3, &b"out\n"[..]));
    assert_eq!(answer.stderr, "err\n");
    // Not text, and nothing to read.
    let answer = execute(&mut client, sh("printf '\\377\\0'; cat"))
        .await
        .unwrap();
    assert_eq!(&answer.stdout[..], b"\xff\0");
}

#[tokio::test]
async fn a_signal_can_be_told_from_a_status() {
    let server = serve().await;
    let mut client = client(&server).await;
    let request = ExecuteRequest {
        config: sh("kill -9 $$"),
    };
    let answer = client.execute(request).await.unwrap();
    assert_eq!(
        answer.metadata().get("agent-sandbox-exit-signal").unwrap(),
        "9"
    );
    assert_eq!(answer.into_inner().exit_code, 137);
    let request = ExecuteRequest {
        config: sh("exit 137"),
    };
    let answer = client.execute(request).await.unwrap();
    assert!(answer.metadata().get("agent-sandbox-exit-signal").is_none());
    assert_eq!(answer.into_inner().exit_code, 137);
}

#[tokio::test]
async fn environment_and_directory_are_applied() {
    let server = start_with(|config| config.environment.push(("KEPT".into(), "1".into()))).await;
    std::fs::create_dir_all(server.root().join("deep/er")).unwrap();
    std::fs::write(server.root().join("file"), "").unwrap();
    std::os::unix::fs::symlink("..", server.root().join("out")).unwrap();
    let mut client = client(&server).await;
    let within = |cwd: &str| ProcessConfig {
        env_vars: [("ADDED".to_owned(), "two words".to_owned())].into(),
        cwd: Some(cwd.to_owned()),
        ..sh("echo $KEPT $ADDED $(pwd -P)").unwrap()
    };
    let root = std::fs::canonicalize(server.root()).unwrap();
    for (cwd, place) in [
        ("", root.clone()),
        (".", root.clone()),
        ("/", root.clone()),
        ("deep/er", root.join("deep/er")),
        ("/deep", root.join("deep")),
        (root.join("deep").to_str().unwrap(), root.join("deep")),
    ] {
        let answer = execute(&mut client, Some(within(cwd))).await.unwrap();
        let expected = format!("1 two words {}\n", place.display());
        assert_eq!(answer.stdout, expected, "{cwd}");
    }
    for (cwd, code) in [
        ("..", Code::PermissionDenied),
        ("deep/../../..", Code::PermissionDenied),
        ("out", Code::PermissionDenied),
        ("missing", Code::NotFound),
        ("file", Code::NotFound),
        ("a\0b", Code::InvalidArgument),
    ] {
        let status = execute(&mut client, Some(within(cwd))).await.unwrap_err();
        assert_eq!(status.code(), code, "{cwd:?} {status:?}");
        assert!(status.message().starts_with("cwd: "), "{status:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_run_is_named() {
    let server = serve().await;
    std::fs::write(server.root().join("plain"), "no program").unwrap();
    let mut client = client(&server).await;
    let variable = |name: &str, value: &str| {
        Some(ProcessConfig {
            env_vars: [(name.to_owned(), value.to_owned())].into(),
            ..config(&["true"]).unwrap()
        })
    };
    for (config, code, text) in [
        (None, Code::InvalidArgument, "config is missing"),
        (
            config(&[]),
            Code::InvalidArgument,
            "config.command is empty",
        ),
        (
            config(&["echo", "a\0b"]),
            Code::InvalidArgument,
            "config.command",
        ),
        (variable("", "x"), Code::InvalidArgument, "config.env_vars"),
        (
            variable("A=B", "x"),
            Code::InvalidArgument,
            "config.env_vars",
        ),
        (
            variable("A", "x\0"),
            Code::InvalidArgument,
            "config.env_vars",
        ),
        (
            config(&["no-such-program"]),
            Code::NotFound,
            "no-such-program",
        ),
        (config(&["./missing"]), Code::NotFound, "./missing"),
        (config(&["./plain"]), Code::PermissionDenied, "./plain"),
        (config(&["/"]), Code::PermissionDenied, "\"/\""),
    ] {
        let status = execute(&mut client, config).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(text), "{status:?}");
    }
    assert_eq!(server.runtime.processes().running(), 0);
}

#[tokio::test]
async fn a_child_in_the_background_neither_delays_nor_fails_the_call() {
    let server = serve().await;
    let mut client = client(&server).await;
    let answer = execute(&mut client, sh("echo hi; sleep 1000 & echo $!"))
        .await
        .unwrap();
    assert_eq!(answer.exit_code, 0);
    let text = String::from_utf8(answer.stdout.to_vec()).unwrap();
    let pid: i32 = text.strip_prefix("hi\n").unwrap().trim().parse().unwrap();
    assert!(crate::harness::runs(pid), "it goes on");
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_deadline_ends_the_whole_tree() {
    let server = serve().await;
    let mut client = client(&server).await;
    let mut request = Request::new(ExecuteRequest {
        config: sh("setsid sleep 1000 & (sleep 1000 &) ; trap '' TERM; echo $$ > pid; sleep 1000"),
    });
    request.set_timeout(Duration::from_millis(700));
    let status = client.execute(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(crate::harness::sleepers(&server), Vec::<i32>::new());
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_whole_tree() {
    let server = serve().await;
    let mut client = client(&server).await;
    let call = tokio::spawn(async move {
        let config = sh("setsid sleep 1000 & (sleep 1000 &) ; touch began; sleep 1000");
        client.execute(ExecuteRequest { config }).await
    });
    let began = server.root().join("began");
    eventually("the command runs", || began.exists()).await;
    assert!(!crate::harness::sleepers(&server).is_empty());
    call.abort();
    eventually("everything is gone", || {
        crate::harness::sleepers(&server).is_empty() && server.runtime.processes().running() == 0
    })
    .await;
}

#[tokio::test]
async fn output_that_no_caller_could_receive_keeps_its_ends() {
    let server = serve().await;
    let mut client = client(&server).await;
    let script = "echo begin; head -c 6000000 /dev/zero | tr '\\0' x; echo end; echo short >&2";
    let config = sh(script);
    // The client's library receives 4 MiB.
    let answer = client
        .execute(ExecuteRequest {
            config: config.clone(),
        })
        .await
        .unwrap();
    let omitted = answer
        .metadata()
        .get("agent-sandbox-stdout-omitted-bytes")
        .unwrap();
    let omitted: usize = omitted.to_str().unwrap().parse().unwrap();
    let answer = answer.into_inner();
    let text = String::from_utf8(answer.stdout.to_vec()).unwrap();
    let mark = format!("\n[... {omitted} bytes omitted ...]\n");
    assert!(text.starts_with("begin\nxxx") && text.ends_with("xxxend\n") && text.contains(&mark));
    assert_eq!(text.len() - mark.len() + omitted, 6 + 6_000_000 + 4);
    assert_eq!(answer.stderr, "short\n");
    assert_eq!(answer.exit_code, 0);
    // One that receives more says so.
    let mut client = client.max_decoding_message_size(16 << 20);
    let mut request = Request::new(ExecuteRequest { config });
    let metadata = request.metadata_mut();
    metadata.insert(
        "agent-sandbox-max-message-bytes",
        "16777216".parse().unwrap(),
    );
    let answer = client.execute(request).await.unwrap().into_inner();
    assert_eq!(answer.stdout.len(), 6 + 6_000_000 + 4);
}

#[tokio::test]
async fn a_hundred_at_once_each_get_their_own() {
    let server = serve().await;
    let client = client(&server).await;
    let calls = (0..100).map(|number| {
        let mut client = client.clone();
        async move {
            let script = format!("echo {number}; exit {number}");
            let answer = execute(&mut client, sh(&script)).await.unwrap();
            assert_eq!(answer.exit_code, number);
            assert_eq!(answer.stdout, format!("{number}\n"));
        }
    });
    tokio::time::timeout(PATIENCE, futures::future::join_all(calls))
        .await
        .unwrap();
}
