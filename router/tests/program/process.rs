//! A router process, and sockets to look at it with.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};

/// Longest a test waits for anything.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running router. Dropping it ends it.
pub(crate) struct Process {
    child: Child,
    said: Arc<Said>,
}

/// What the process has said so far, line by line.
#[derive(Default)]
struct Said {
    state: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

/// A command line without anything of this test's own environment.
pub(crate) fn router(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agent-sandbox-router"));
    command
        .args(flags)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Flags of a router that listens on loopback, knows one sandbox and stops at once.
pub(crate) const LOCAL: [&str; 7] = [
    "--http-bind-address=127.0.0.1:0",
    "--metrics-bind-address=127.0.0.1:0",
    "--health-probe-bind-address=127.0.0.1:0",
    "--static-sandboxes=ns/box=127.0.0.1",
    "--resolve-wait=0",
    "--shutdown-delay=0",
    "--shutdown-timeout=60s",
];

/// The same, with more.
pub(crate) fn local(more: &[&str]) -> Command {
    router(&[&LOCAL[..], more].concat())
}

/// Runs a command that ends by itself: its status and what it said.
pub(crate) fn refused(mut command: Command) -> (ExitStatus, String) {
    let output = command.output().unwrap();
    (
        output.status,
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let said = Arc::<Said>::default();
        let (stderr, heard) = (child.stderr.take().unwrap(), said.clone());
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                heard.state.lock().0.push(line);
                heard.more.notify_all();
            }
            heard.state.lock().1 = true;
            heard.more.notify_all();
        });
        Self { child, said }
    }

    /// Waits for a line with all of these texts, and returns the first.
    pub(crate) fn says(&self, texts: &[&str]) -> String {
        self.line(1, texts)
    }

    /// The same for the `n`th such line.
    pub(crate) fn line(&self, n: usize, texts: &[&str]) -> String {
        let end = Instant::now() + DEADLINE;
        let mut state = self.said.state.lock();
        loop {
            let mut found = state
                .0
                .iter()
                .filter(|line| texts.iter().all(|text| line.contains(text)));
            if let Some(line) = found.nth(n - 1) {
                return line.clone();
            }
            assert!(
                !state.1 && !self.said.more.wait_until(&mut state, end).timed_out(),
                "no {n}. line with {texts:?} in:\n{}",
                state.0.join("\n")
            );
        }
    }

    /// Everything said so far.
    pub(crate) fn log(&self) -> String {
        self.said.state.lock().0.join("\n")
    }

    /// The addresses it listens on, in the order it binds them: requests, metrics, probes.
    pub(crate) fn addresses(&self) -> [SocketAddr; 3] {
        [1, 2, 3].map(|n| {
            let line = self.line(n, &["listening", "address="]);
            let (_, address) = line.split_once("address=").unwrap();
            address.trim().parse().unwrap()
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn ends(&mut self) -> ExitStatus {
        eventually("the process ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until something is there.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// One exchange on a connection of its own: the whole answer as text. `None` if nobody listens.
pub(crate) fn ask(address: SocketAddr, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A request for `path` that closes its connection.
pub(crate) fn get(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: r\r\nConnection: close\r\n{more}\r\n")
}

/// The status of an answer.
pub(crate) fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

/// A sandbox that answers every request with a count, once it may.
pub(crate) struct Sandbox {
    pub(crate) port: u16,
    may: Arc<(Mutex<bool>, Condvar)>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Sandbox {
    /// One that answers at once.
    pub(crate) fn start() -> Self {
        let sandbox = Self::holding();
        sandbox.release();
        sandbox
    }

    /// One that answers when released.
    pub(crate) fn holding() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let may = Arc::<(Mutex<bool>, Condvar)>::default();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let (gate, heads) = (may.clone(), seen.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (gate, heads) = (gate.clone(), heads.clone());
                thread::spawn(move || serve(stream, &gate, &heads));
            }
        });
        Self { port, may, seen }
    }

    pub(crate) fn release(&self) {
        *self.may.0.lock() = true;
        self.may.1.notify_all();
    }

    /// The heads of the requests that came.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.seen.lock().clone()
    }

    /// The headers that lead here.
    pub(crate) fn route(&self) -> String {
        format!(
            "X-Sandbox-ID: box\r\nX-Sandbox-Namespace: ns\r\nX-Sandbox-Port: {}\r\n",
            self.port
        )
    }
}

fn serve(mut stream: TcpStream, gate: &(Mutex<bool>, Condvar), heads: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        heads.lock().push(head);
        let mut may = gate.0.lock();
        while !*may {
            gate.1.wait(&mut may);
        }
        drop(may);
        if stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .is_err()
        {
            return;
        }
    }
}
