//! The operator under test: a process of its own, so that its time and memory are its own.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::args::Plan;
use super::counters::Writes;

/// A running operator. Dropping it kills it; [`Operator::stop`] ends it in order.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    pid: i32,
    metrics: u16,
    health: u16,
    log: PathBuf,
    started: Instant,
}

impl Operator {
    /// Starts it; [`Operator::ready`] waits until it serves.
    pub async fn start(plan: &Plan, log: &Path) -> Result<Self> {
        let [metrics, health] = free_ports().await?;
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let started = Instant::now();
        let child = Command::new(&plan.controller)
            .args(["--extensions", "--leader-elect=false"])
            .arg(format!("--namespace={}", plan.namespace))
            .arg(format!("--metrics-bind-address=127.0.0.1:{metrics}"))
            .arg(format!("--health-probe-bind-address=127.0.0.1:{health}"))
            .args(&plan.controller_args)
            .env("KUBECONFIG", &plan.kubeconfig)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} does not start", plan.controller.display()))?;
        let pid = child.id().context("the operator ended at once")?;
        Ok(Self {
            child,
            pid: i32::try_from(pid)?,
            metrics,
            health,
            log: log.to_owned(),
            started,
        })
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// When its process was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Waits until it says that it serves, and returns how long it took from its start.
    pub async fn ready(&mut self) -> Result<Duration> {
        let deadline = self.started + START;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "the operator ended ({status}); its log is {}",
                    self.log.display()
                );
            }
            if let Ok((200, _)) = get(self.health, "/readyz").await {
                return Ok(self.started.elapsed());
            }
            if Instant::now() > deadline {
                bail!(
                    "the operator is not ready after {} s; its log is {}",
                    START.as_secs(),
                    self.log.display()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The writes it has made so far, by its own count.
    pub async fn writes(&self) -> Result<Writes> {
        let (status, text) = get(self.metrics, "/metrics")
            .await
            .context("the operator's metrics")?;
        anyhow::ensure!(status == 200, "the operator's metrics answer {status}");
        Ok(Writes::of_controller(&text))
    }

    /// Ends it as Kubernetes would, and waits.
    pub async fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(self.pid).context("a process number is positive")?;
        // It has not been waited for, so the number is still its own.
        kill_process(pid, Signal::TERM).context("cannot end the operator")?;
        let Ok(status) = tokio::time::timeout(STOP, self.child.wait()).await else {
            self.child.kill().await?;
            bail!("the operator does not end within {} s", STOP.as_secs());
        };
        let status = status?;
        anyhow::ensure!(
            status.success(),
            "the operator ended badly ({status}); its log is {}",
            self.log.display()
        );
        Ok(())
    }
}

/// A GET on a port of this machine: the status and the body.
async fn get(port: u16, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    parse(&answer).ok_or_else(|| std::io::Error::new(ErrorKind::InvalidData, "no HTTP answer"))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// Ports nobody listens on. All are held until all are known, so that they differ.
async fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut listeners = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("no port is free")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

/// How long it may take to read the cluster.
const START: Duration = Duration::from_secs(120);
/// How long it may take to end.
const STOP: Duration = Duration::from_secs(60);
/// Fine enough for a restart of a second.
const POLL: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_a_status_and_a_body() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(parse(answer), Some((200, "ok".to_owned())));
        assert_eq!(parse("HTTP/1.1 503 No\r\n\r\n"), Some((503, String::new())));
        assert_eq!(parse("garbage"), None);
    }

    #[tokio::test]
    async fn ports_differ() {
        let [one, two] = free_ports().await.unwrap();
        assert_ne!(one, two);
    }
}
