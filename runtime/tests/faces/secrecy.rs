//! What nobody learns: what was in requests from the log, what the runtime holds from commands.

use std::path::Path;
use std::process::Command;

use crate::harness::{eventually, sh};
use crate::program::{PROGRAM, program, start};

#[tokio::test]
async fn requests_are_logged_without_what_was_in_them() {
    let root = tempfile::tempdir().unwrap();
    let running = start(program(root.path()));
    running.execute("echo hush-command").await;
    running.send("GET", "/healthz", "", b"").await;
    running
        .send("PUT", "/v1/files/hush-name", "", b"hush")
        .await;
    let log = || running.log.lock().clone();
    eventually("both requests are logged", || {
        let log = log();
        [
            "POST route=\"/execute\" status=200",
            "PUT route=\"/v1/files/{*path}\" status=204",
        ]
        .iter()
        .all(|text| log.contains(text))
    })
    .await;
    let log = log();
    assert!(!log.contains("hush"), "{log}");
    assert!(!log.contains("healthz"), "probes are no news: {log}");
}

/// As an ordinary user: a privileged one may read everything.
#[tokio::test]
async fn commands_of_the_same_user_see_neither_environment_nor_memory_of_the_runtime() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    let open = |path: &Path| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(path, mode).unwrap();
    };
    std::fs::create_dir(&root).unwrap();
    open(place.path());
    open(&root);
    let copy = place.path().join("runtime");
    std::fs::copy(PROGRAM, &copy).unwrap();
    open(&copy);
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=4242", "--regid=4242", "--clear-groups"]);
        command.arg(&copy);
        command
    } else {
        Command::new(&copy)
    };
    // A failure prints what was read, which must not be the environment of the tests.
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .args(["--address", "127.0.0.1", "--port", "0"])
        .env("SANDBOX_BASE_DIR", &root)
        .env("AGENT_SANDBOX_LOG", "info")
        .env("AGENT_SANDBOX_RUNTIME_NOTE", "hush");
    let running = start(command);
    let pid = running.child.id();
    // Its user is the command's own, whose own files of this kind can be read.
    let script =
        format!("awk '/^Uid/ {{print $2}}' /proc/{pid}/status; id -u; cat /proc/self/environ");
    let answer = running.execute(&sh(&script)).await;
    assert_eq!(answer["exit_code"], 0, "{answer}");
    let text = answer["stdout"].as_str().unwrap();
    let users: Vec<&str> = text.lines().take(2).collect();
    assert_eq!(users[0], users[1]);
    assert!(!text.contains("hush"), "{text}");
    for look in ["cat {}/environ", "cat {}/mem", "cat {}/maps", "ls {}/fd/"] {
        let look = look.replace("{}", &format!("/proc/{pid}"));
        let answer = running.execute(&look).await;
        assert_ne!(answer["exit_code"], 0, "{answer}");
        assert_eq!(answer["stdout"], "", "{answer}");
        let why = answer["stderr"].as_str().unwrap();
        assert!(why.contains("Permission denied"), "{why}");
    }
}
