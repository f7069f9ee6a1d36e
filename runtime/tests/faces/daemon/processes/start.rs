//! Starting, listing, following, forgetting.

use serde_json::{Value, json};

use super::text;
use crate::harness::{eventually, runs, sleepers, start, start_with};

#[tokio::test]
async fn a_command_runs_by_itself_and_is_looked_at_later() {
    let server = start().await;
    let id = server.shell("echo out; echo err >&2; exit 3").await;
    let lines = server.lines(id, "").await;
    assert_eq!(
        (text(&lines, "stdout"), text(&lines, "stderr")),
        ("out\n".into(), "err\n".into())
    );
    let exit = &lines.last().unwrap()["exit"];
    assert_eq!(exit["exit_code"], 3);
    let process = server.process(id).await;
    assert_eq!(process["id"], id);
    assert_eq!(process["state"], "exited");
    assert_eq!(process["exit_code"], 3);
    assert_eq!(
        process["command"],
        json!(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"])
    );
    assert_eq!(
        process["output"],
        json!({"first_entry": 0, "next_entry": 2})
    );
    assert!(process["ended_at"].as_str().unwrap() >= process["started_at"].as_str().unwrap());
    // Again, and from the middle.
    assert_eq!(server.lines(id, "").await, lines);
    assert_eq!(server.lines(id, "?from=1").await, lines[1..]);
    assert_eq!(server.lines(id, "?from=9&follow=false").await, lines[2..]);
}

#[tokio::test]
async fn commands_of_every_face_are_in_one_list() {
    let server = start().await;
    let id = server.shell("sleep 1000").await;
    let mut client = crate::grpc::client(&server).await;
    let config = crate::grpc::config(&["sleep", "1000"]);
    let started = crate::grpc::start(&mut client, config, None).await;
    let mut sender = server.connect().await;
    let body = json!({"command": "sleep 1000"}).to_string();
    let legacy = tokio::spawn(sender.send_request(crate::harness::post(
        "/execute",
        "application/json",
        body,
    )));
    eventually("all three run", || {
        server.runtime.processes().running() == 3
    })
    .await;
    let list = server.get("/v1/processes").await.json();
    let ids: Vec<u64> = list["processes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|process| process["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, [id, u64::try_from(started.id).unwrap(), 3]);
    // And each can be ended by any.
    for id in ids {
        let answer = server
            .call("DELETE", &format!("/v1/processes/{id}"), &[])
            .await;
        assert_eq!(answer.status, 204);
        let answer = server.get(&format!("/v1/processes/{id}")).await;
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    assert_eq!(started.finish().await.exit, Some(137));
    let answer = legacy.await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(sleepers(&server), Vec::<i32>::new());
}

#[tokio::test]
async fn settings_of_a_command_are_applied() {
    let server = start().await;
    std::fs::create_dir(server.root().join("sub")).unwrap();
    let request = json!({
        "argv": ["sh", "-c", "pwd -P; echo $A; ulimit -n; ulimit -f; cat"],
        "env": {"A": "b c"}, "cwd": "sub", "limits": {"nofile": 55, "fsize": 512}, "timeout_seconds": 50.5,
    });
    let id = server.detach(&request).await;
    let lines = server.lines(id, "").await;
    let sub = std::fs::canonicalize(server.root().join("sub")).unwrap();
    assert_eq!(
        text(&lines, "stdout"),
        format!("{}\nb c\n55\n1\n", sub.display())
    );
    let request = json!({"shell": "echo $0 $(shopt -q login_shell 2>/dev/null && echo login)", "login": true});
    let lines = {
        let id = server.detach(&request).await;
        server.lines(id, "").await
    };
    assert!(text(&lines, "stdout").starts_with("/bin/sh"), "{lines:?}");
}

#[tokio::test]
async fn a_user_is_taken_on_or_refused() {
    let server = start().await;
    let script = "id -u; id -g; echo $HOME";
    let request = json!({"argv": ["sh", "-c", script], "user": "4242:4243"});
    let answer = server.ask("/v1/processes", &request).await;
    if rustix::process::geteuid().is_root() {
        assert_eq!(answer.status, 201, "{answer:?}");
        let lines = server
            .lines(answer.json()["id"].as_u64().unwrap(), "")
            .await;
        assert_eq!(text(&lines, "stdout"), "4242\n4243\n\n");
        let request = json!({"argv": ["sh", "-c", script], "user": "nobody"});
        let id = server.detach(&request).await;
        let seen = text(&server.lines(id, "").await, "stdout");
        assert!(seen.starts_with("65534\n65534\n/"), "{seen}");
    } else {
        assert_eq!(answer.status, 403, "{answer:?}");
        assert_eq!(answer.json()["code"], "PERMISSION_DENIED");
    }
}

#[tokio::test]
async fn a_timeout_ends_the_tree_and_keeps_what_was_written() {
    let server = start().await;
    let request = json!({
        "shell": "echo partial; trap '' TERM; setsid sleep 1000 & (sleep 1000 &) ; sleep 1000",
        "timeout_seconds": 0.7,
    });
    let id = server.detach(&request).await;
    let lines = server.lines(id, "").await;
    assert_eq!(text(&lines, "stdout"), "partial\n");
    let exit = &lines.last().unwrap()["exit"];
    assert_eq!(
        (&exit["exit_code"], &exit["signal"]),
        (&json!(137), &json!(9))
    );
    assert_eq!(exit["ended_by"], "timeout");
    eventually("everything is gone", || sleepers(&server).is_empty()).await;
}

#[tokio::test]
async fn what_was_left_behind_goes_when_the_command_is_forgotten() {
    let server = start().await;
    let id = server
        .shell("setsid sleep 1000 >/dev/null 2>&1 & echo done")
        .await;
    let lines = server.lines(id, "").await;
    assert_eq!(text(&lines, "stdout"), "done\n");
    // Which is the command's business.
    let mut left = Vec::new();
    eventually("something is left", || {
        left = sleepers(&server);
        left.len() == 1
    })
    .await;
    let path = format!("/v1/processes/{id}");
    assert_eq!(server.call("DELETE", &path, &[]).await.status, 204);
    assert!(!runs(left[0]));
    assert_eq!(server.call("DELETE", &path, &[]).await.status, 404);
}

#[tokio::test]
async fn no_more_ended_commands_are_kept_than_allowed() {
    let server = start_with(|config| config.kept_processes = 2).await;
    for _ in 0..4 {
        let id = server.shell("true").await;
        server.lines(id, "").await;
    }
    let list = server.get("/v1/processes").await.json();
    let ids: Vec<&Value> = list["processes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["id"])
        .collect();
    assert_eq!(ids, [3, 4]);
}

#[tokio::test]
async fn output_is_bounded_and_gaps_are_told() {
    let server = start().await;
    let id = server
        .shell("head -c 3000000 /dev/zero | tr '\\0' x; echo end")
        .await;
    // The end is read by somebody who then knows that all was written.
    let lines = server.lines(id, "").await;
    assert_eq!(lines.last().unwrap()["exit"]["exit_code"], 0);
    let lines = server.lines(id, "?from=0").await;
    let missed = lines[0]["missed"].as_u64().unwrap();
    assert_eq!(lines[1]["entry"], missed);
    let kept = text(&lines, "stdout");
    assert!(
        kept.ends_with("xend\n") && kept.len() <= 256 << 10,
        "{}",
        kept.len()
    );
}

#[tokio::test]
async fn bytes_that_are_no_text_are_exact() {
    let server = start().await;
    let id = server.shell("printf '\\377\\0'").await;
    let lines = server.lines(id, "").await;
    assert_eq!(
        lines[0],
        json!({"entry": 0, "stream": "stdout", "base64": "/wA="})
    );
}

#[tokio::test]
async fn requests_that_are_wrong_say_where() {
    let server = start_with(|config| config.max_request_bytes = 1000).await;
    std::fs::write(server.root().join("plain"), "").unwrap();
    for (request, status, words) in [
        (json!({}), 400, "expected either \"argv\""),
        (json!({"argv": ["x"], "shell": "x"}), 400, "expected either"),
        (json!({"argv": []}), 400, "expected either"),
        (json!({"argv": [1]}), 400, "\"argv\" holds a number"),
        (json!({"argv": ["a\0"]}), 400, "NUL"),
        (json!({"argv": ["x"], "login": true}), 400, "\"login\""),
        (
            json!({"argv": ["x"], "env": {"A=": "b"}}),
            400,
            "\"env\" has the variable",
        ),
        (
            json!({"argv": ["x"], "env": {"A": 1}}),
            400,
            "\"A\" is a number",
        ),
        (
            json!({"argv": ["x"], "cwd": ".."}),
            403,
            "\"cwd\": the path leaves",
        ),
        (
            json!({"argv": ["x"], "cwd": "none"}),
            404,
            "\"cwd\": opening",
        ),
        (
            json!({"argv": ["x"], "user": "no-such-user"}),
            400,
            "\"user\": there is no user",
        ),
        (
            json!({"argv": ["x"], "pty": {"cols": 70000}}),
            400,
            "\"cols\" is 70000",
        ),
        (
            json!({"argv": ["x"], "pty": {"width": 1}}),
            400,
            "\"width\" is not known",
        ),
        (
            json!({"argv": ["x"], "timeout_seconds": 0}),
            400,
            "\"timeout_seconds\" is 0",
        ),
        (
            json!({"argv": ["x"], "limits": {"threads": 1}}),
            400,
            "\"limits\": no resource",
        ),
        (
            json!({"argv": ["x"], "limits": {"nproc": -1}}),
            400,
            "\"nproc\" is -1",
        ),
        (
            json!({"argv": ["x"], "timeout": 1}),
            400,
            "\"timeout\" is not known",
        ),
        (json!({"argv": ["no-such-program"]}), 400, "no-such-program"),
        (json!({"argv": ["./plain"]}), 403, "./plain"),
        (json!({"argv": ["x".repeat(1000)]}), 413, "1000 bytes"),
        (json!([]), 400, "expected a JSON object"),
    ] {
        let answer = server.ask("/v1/processes", &request).await;
        assert_eq!(answer.status, status, "{request} {answer:?}");
        let text = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(text.contains(words), "{request}: {text}");
    }
    for (method, path, status) in [
        ("GET", "/v1/processes/1", 404),
        ("GET", "/v1/processes/x", 404),
        ("GET", "/v1/processes/1/output", 404),
        ("GET", "/v1/processes/1/attach", 404),
        ("DELETE", "/v1/processes/1", 404),
        ("POST", "/v1/processes/1/stdin", 404),
        ("PUT", "/v1/processes", 405),
        ("PUT", "/v1/processes/1/output", 405),
    ] {
        let answer = server.call(method, path, &[]).await;
        assert_eq!(answer.status, status, "{method} {path}");
    }
}

#[tokio::test]
async fn operators_limits_hold_for_every_face() {
    let server = start_with(|config| {
        config.command_limits = "nofile=77,core=0".parse().unwrap();
    })
    .await;
    let answer = server.execute("sh -c 'ulimit -n'").await;
    assert_eq!(answer["stdout"], "77\n");
    // A command may ask for less, never for more.
    for (asked, got) in [(50, "50\n"), (1000, "77\n")] {
        let request = json!({"shell": "ulimit -n", "limits": {"nofile": asked}});
        let id = server.detach(&request).await;
        assert_eq!(text(&server.lines(id, "").await, "stdout"), got);
    }
}

#[tokio::test]
async fn a_login_shell_reads_the_profile_first() {
    let server = start().await;
    std::fs::write(server.root().join(".profile"), "echo profile\n").unwrap();
    for (login, written) in [(true, "profile\nline\n"), (false, "line\n")] {
        let request = json!({"shell": "echo line", "login": login, "env": {"HOME": server.root()}});
        let id = server.detach(&request).await;
        assert_eq!(text(&server.lines(id, "").await, "stdout"), written);
    }
}

#[tokio::test]
async fn a_program_is_looked_for_where_the_commands_own_path_says() {
    let server = start().await;
    let tool = server.root().join("bin/tool");
    std::fs::create_dir(server.root().join("bin")).unwrap();
    std::fs::write(&tool, "#!/bin/sh\necho found\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&tool, executable).unwrap();
    let answer = server
        .ask("/v1/processes", &json!({"argv": ["tool"]}))
        .await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let id = server
        .detach(&json!({"argv": ["tool"], "env": {"PATH": "bin"}}))
        .await;
    assert_eq!(text(&server.lines(id, "").await, "stdout"), "found\n");
}
