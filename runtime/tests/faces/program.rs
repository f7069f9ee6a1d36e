//! The real program: environment, signals, orphans, a full disk.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;

use hyper::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{PATIENCE, eventually, form, runs, sh, written_pid};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_agent-sandbox-runtime");

/// A running program; killed when the test ends early.
pub(crate) struct Running {
    pub(crate) child: Child,
    address: SocketAddr,
    pub(crate) log: Arc<Mutex<String>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn program(root: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(["--address", "127.0.0.1", "--port", "0"])
        .env("SANDBOX_BASE_DIR", root)
        .env("AGENT_SANDBOX_LOG", "info");
    command
}

/// Starts it and reads from its log where it serves, and then nothing more of it.
fn start_unread(mut command: Command) -> (Running, BufReader<ChildStderr>) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    let address = loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "ended early: {seen}");
        seen.push_str(&line);
        if let Some((_, rest)) = line.split_once("serving address=") {
            break rest.split_whitespace().next().unwrap().parse().unwrap();
        }
    };
    let running = Running {
        child,
        address,
        log: Arc::new(Mutex::new(seen)),
    };
    (running, log)
}

/// Starts it and reads its log.
pub(crate) fn start(command: Command) -> Running {
    let (running, log) = start_unread(command);
    let kept = running.log.clone();
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            let mut kept = kept.lock();
            kept.push_str(&line);
            kept.push('\n');
        }
    });
    running
}

impl Running {
    async fn call(&self, path: &str, kind: &str, body: &[u8]) -> (StatusCode, Value) {
        let (status, text) = self.send("POST", path, kind, body).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> (StatusCode, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {kind}\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// The most that was resident at any time, in MiB.
    pub(crate) fn peak(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<usize>().unwrap() >> 10
    }

    pub(crate) async fn execute(&self, command: &str) -> Value {
        let body = json!({"command": command}).to_string();
        let (status, value) = self
            .call("/execute", "application/json", body.as_bytes())
            .await;
        assert_eq!(status, StatusCode::OK);
        value
    }

    fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }

    /// The states of this program's children that have exited and were not reaped.
    fn zombies(&self) -> usize {
        let pid = self.child.id().to_string();
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path().join("stat")).ok())
            .filter(|stat| {
                let fields: Vec<&str> = stat
                    .rsplit_once(')')
                    .unwrap()
                    .1
                    .split_whitespace()
                    .collect();
                fields[0] == "Z" && fields[1] == pid
            })
            .count()
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_neither_requests_nor_the_end() {
    let root = tempfile::tempdir().unwrap();
    let (mut running, _log) = start_unread(program(root.path()));
    // More lines than a pipe holds.
    for _ in 0..1000 {
        let (status, _) = running.send("GET", "/exists/x", "text/plain", b"").await;
        assert_eq!(status, StatusCode::OK);
    }
    assert!(running.terminate().success());
}

#[tokio::test]
async fn names_of_files_stay_out_of_the_log() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("file"), "").unwrap();
    let running = start(program(root.path()));
    let body = form("file/s3cret", b"y");
    let (status, _) = running.call("/upload", crate::harness::FORM, &body).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let log = || running.log.lock().clone();
    eventually("the failure is logged", || {
        log().contains("upload failed") && log().contains("status=500")
    })
    .await;
    assert!(!log().contains("s3cret"), "{}", log());
}

#[tokio::test]
async fn the_environment_configures_root_and_timeout() {
    let root = tempfile::tempdir().unwrap();
    let mut command = program(root.path());
    command
        .env("SANDBOX_EXEC_TIMEOUT_SECONDS", "0.3")
        .env("AGENT_SANDBOX_RUNTIME_X", "hidden");
    let mut running = start(command);
    assert_eq!(running.execute("sleep 1000").await["timed_out"], true);
    let (status, _) = running
        .call("/upload", crate::harness::FORM, &form("x", b"y"))
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(std::fs::read(root.path().join("x")).unwrap(), b"y");
    // With time of its own: this one is to end.
    let body = json!({"command": "env", "timeout_seconds": PATIENCE.as_secs()}).to_string();
    let (_, answer) = running
        .call("/execute", "application/json", body.as_bytes())
        .await;
    let environment = answer["stdout"].to_string();
    assert!(environment.contains("SANDBOX_BASE_DIR="), "{environment}");
    assert!(
        !environment.contains("AGENT_SANDBOX_RUNTIME_"),
        "{environment}"
    );
    assert!(running.terminate().success());
}

#[tokio::test]
async fn only_the_three_standard_descriptors_are_inherited() {
    let root = tempfile::tempdir().unwrap();
    // What whoever starts the program leaves open must not reach the commands either.
    let (_reader, stray) = rustix::pipe::pipe().unwrap();
    let stray = std::os::fd::AsRawFd::as_raw_fd(&stray);
    let running = start(program(root.path()));
    let own = format!("/proc/{}/fd/{stray}", running.child.id());
    assert!(
        std::fs::symlink_metadata(own).is_ok(),
        "the program itself inherited it"
    );
    // The listing opens one more.
    let answer = running.execute("ls /proc/self/fd").await;
    assert_eq!(answer["stdout"], "0\n1\n2\n3\n");
}

#[tokio::test]
async fn the_programs_own_limit_of_open_files_is_not_the_commands() {
    let root = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "ulimit -Sn 256; ulimit -Hn 4096; exec \"$0\" \"$@\"",
            PROGRAM,
        ])
        .args(["--address", "127.0.0.1", "--port", "0"])
        .env("SANDBOX_BASE_DIR", root.path())
        .env("AGENT_SANDBOX_LOG", "info");
    let running = start(command);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.child.id())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["4096", "4096"]);
    // It is set a moment after the start; a command that never sees it runs into its time limit.
    let script = "until [ $(ulimit -Sn) = 256 ]; do sleep 0.01; done; ulimit -Sn; ulimit -Hn";
    let answer = running.execute(&sh(script)).await;
    assert_eq!(answer["stdout"], "256\n4096\n");
}

#[tokio::test]
async fn a_senseless_environment_means_the_defaults_with_a_warning() {
    for seconds in ["soon", "0", "-3", "nan", "inf", ""] {
        let output = Command::new(PROGRAM)
            .env("SANDBOX_BASE_DIR", "  ")
            .env("SANDBOX_EXEC_TIMEOUT_SECONDS", seconds)
            // Ends the program right after the warnings, before it makes the default directory.
            .args(["--token-file", "/missing/token"])
            .output()
            .unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{log}");
        for text in [
            "SANDBOX_BASE_DIR=\"  \" is ignored and the default used".to_owned(),
            format!("SANDBOX_EXEC_TIMEOUT_SECONDS={seconds:?} is ignored and the default used"),
            "cannot read the token file /missing/token".to_owned(),
        ] {
            assert!(log.contains(&text), "{text}\n{log}");
        }
    }
}

#[tokio::test]
async fn bad_flags_end_with_status_2_and_a_remedy() {
    for (arguments, texts) in [
        (["--root-dir", ""], ["--root-dir", "blank"]),
        (
            ["--exec-timeout-seconds", "nan"],
            ["--exec-timeout-seconds", "above 0"],
        ),
        (["--port", "eighty"], ["--port", "eighty"]),
    ] {
        let output = Command::new(PROGRAM).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(texts.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[tokio::test]
async fn orphans_are_reaped_and_no_commands_exit_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let running = start(program(root.path()));
    let running = &running;
    // Each command leaves an orphan that outlives it for a moment.
    let calls = (0..60).map(|number| async move {
        let script = sh(&format!("(setsid sleep 0.0{number:02} &) ; exit {number}"));
        assert_eq!(running.execute(&script).await["exit_code"], number);
    });
    futures::future::join_all(calls).await;
    // And one stays until it has come to the runtime.
    let script = format!(
        "(setsid sh -c \"until [ \\$(ps -o ppid= -p \\$\\$) = {} ]; do sleep 0.01; done; touch adopted\" &)",
        running.child.id()
    );
    let answer = running.execute(&sh(&script)).await;
    assert_eq!(answer["exit_code"], 0);
    let file = root.path().join("adopted");
    eventually("the orphan comes to the runtime", || file.exists()).await;
    eventually("no zombies", || running.zombies() == 0).await;
}

#[tokio::test]
async fn sigterm_ends_everything_the_commands_left_behind() {
    let root = tempfile::tempdir().unwrap();
    let mut running = start(program(root.path()));
    running
        .execute(&sh(
            "setsid sh -c 'echo $$ > daemon.pid; exec sleep 1000' > /dev/null 2>&1 &",
        ))
        .await;
    let daemon = written_pid(&root.path().join("daemon.pid")).await;
    assert!(runs(daemon));
    assert!(running.terminate().success());
    assert!(!runs(daemon));
}

#[tokio::test]
async fn sigterm_also_ends_who_threw_session_parents_and_environment_away() {
    let root = tempfile::tempdir().unwrap();
    let mut running = start(program(root.path()));
    let script = "(env -i setsid sh -c 'echo $$ > pid; exec sleep 1000' >/dev/null 2>&1 &)";
    let answer = running.execute(&sh(script)).await;
    assert_eq!(answer["exit_code"], 0, "{answer}");
    let pid = written_pid(&root.path().join("pid")).await;
    assert!(runs(pid));
    assert!(running.terminate().success());
    assert!(!runs(pid));
}

/// The program on a small file system, in a mount namespace of its own so that nobody else sees it.
fn on_small_disk(root: &Path, size: &str) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .arg(format!(
            "mount -t tmpfs -o size={size} none \"$SANDBOX_BASE_DIR\" && exec \"$0\" \"$@\""
        ))
        .arg(PROGRAM)
        .args(["--address", "127.0.0.1", "--port", "0"])
        .env("SANDBOX_BASE_DIR", root)
        .env("AGENT_SANDBOX_LOG", "info");
    command
}

#[tokio::test]
async fn a_full_disk_is_507_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let running = start(on_small_disk(root.path(), "256k"));
    let (status, _) = running
        .call("/upload", crate::harness::FORM, &form("kept", b"old"))
        .await;
    assert_eq!(status, StatusCode::OK);
    for size in [300 << 10, 3 << 20] {
        let body = form("kept", &vec![b'x'; size]);
        let (status, answer) = running.call("/upload", crate::harness::FORM, &body).await;
        assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE, "{answer}");
        let text = answer["message"].as_str().unwrap();
        let why = "File upload failed: [Errno 28] No space left on device: ";
        assert!(text.starts_with(why), "{text}");
    }
    assert_eq!(running.execute("cat kept").await["stdout"], "old");
    assert_eq!(running.execute("ls -A").await["stdout"], "kept\n");
}

#[tokio::test]
async fn nothing_half_done_stays_on_a_full_disk() {
    let root = tempfile::tempdir().unwrap();
    let running = start(on_small_disk(root.path(), "1m"));
    let text = vec![b'x'; 600 << 10];
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in [("small", &text[..10]), ("large", &text[..])] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content).unwrap();
    }
    let archive = archive.into_inner().unwrap();
    let (status, _) = running.send("PUT", "/v1/files/dir/half", "", &text).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let requests = [
        ("PUT", "/v1/files/dir/half", text.repeat(5)),
        (
            "POST",
            "/v1/fs/copy",
            br#"{"from": "dir/half", "to": "other"}"#.to_vec(),
        ),
        (
            "POST",
            "/v1/fs/copy",
            br#"{"from": "dir", "to": "other"}"#.to_vec(),
        ),
        (
            "POST",
            "/v1/fs/replace",
            br#"{"pattern": "x", "replacement": "yy", "paths": "dir/half"}"#.to_vec(),
        ),
        ("PUT", "/v1/archive/place", archive),
    ];
    for (method, path, body) in requests {
        let (status, answer) = running.send(method, path, "", &body).await;
        assert_eq!(status, StatusCode::INSUFFICIENT_STORAGE, "{path}: {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["code"], "INSUFFICIENT_STORAGE", "{path}: {answer}");
    }
    let found = running
        .execute("find . -mindepth 1 -type f -printf '%P %s\\n'")
        .await;
    let mut names: Vec<&str> = found["stdout"].as_str().unwrap().lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["dir/half 614400", "place/small 10"]);
    let found = running.execute("find . -mindepth 1 -type d").await;
    assert_eq!(
        found["stdout"].as_str().unwrap().lines().count(),
        2,
        "{found}"
    );
}

/// Another file system beneath the root.
#[tokio::test]
async fn what_is_moved_to_another_file_system_arrives_whole() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("other")).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .arg("mount -t tmpfs none \"$SANDBOX_BASE_DIR/other\" && exec \"$0\" \"$@\"")
        .arg(PROGRAM)
        .args(["--address", "127.0.0.1", "--port", "0"])
        .env("SANDBOX_BASE_DIR", root.path())
        .env("AGENT_SANDBOX_LOG", "info");
    let running = start(command);
    let made = running
        .execute(&sh("mkdir -p dir/sub && echo text > dir/sub/f && ln -s f dir/sub/l && \
             chmod 750 dir/sub/f && touch -d @1000000000 dir/sub/f && mkdir -p special && mkfifo special/pipe"))
        .await;
    assert_eq!(made["exit_code"], 0, "{made}");
    let both = |from: &str, to: &str| json!({"from": from, "to": to}).to_string();
    let (status, answer) = running
        .call("/v1/fs/move", "", both("dir", "other/dir").as_bytes())
        .await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let found = running
        .execute("stat -c '%F %a %Y %s' other/dir/sub/f other/dir/sub/l")
        .await;
    let text = found["stdout"].as_str().unwrap();
    assert!(
        text.starts_with("regular file 750 1000000000 5\nsymbolic link"),
        "{found}"
    );
    let (status, answer) = running
        .call(
            "/v1/fs/move",
            "",
            both("special", "other/special").as_bytes(),
        )
        .await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert_eq!(
        running.execute("ls -A . other").await["stdout"],
        ".:\nother\nspecial\n\nother:\ndir\n"
    );
}

#[tokio::test]
async fn an_upload_is_not_held_in_memory() {
    const MIB: usize = 1 << 20;
    let root = tempfile::tempdir().unwrap();
    let running = start(program(root.path()));
    running.execute("true").await;
    let before = running.peak();
    let data = vec![b'x'; 64 * MIB];
    let (status, _) = running
        .call("/upload", crate::harness::FORM, &form("form", &data))
        .await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = running.send("PUT", "/v1/files/bytes", "", &data).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    for name in ["form", "bytes"] {
        let stored = std::fs::metadata(root.path().join(name)).unwrap();
        assert_eq!(stored.len(), 64 << 20);
    }
    let after = running.peak();
    assert!(after < before + 16, "{before} to {after} MiB");
}
