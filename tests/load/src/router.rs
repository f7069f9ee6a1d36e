//! The router under test: the program that is shipped, in a process of its own, so that its memory and
//! its descriptors are its own.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use agent_sandbox_service::tasks::Tasks;
use anyhow::{Context, Result, ensure};
use http::Request;
use http_body_util::{BodyExt, Empty};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::client::{Connection, Way};
use crate::programs::{Program, built, eventually};

/// How long the router may take to serve.
const START: Duration = Duration::from_secs(60);
/// How long one look at its metrics may take, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running router.
#[derive(Debug)]
pub struct Router {
    program: Program,
    address: SocketAddr,
    metrics: SocketAddr,
    reader: Tasks,
}

/// What `/metrics` says, by series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(BTreeMap<String, f64>);

impl Router {
    /// Starts one that everybody may use, with more arguments, and waits until it is ready. Every line
    /// it writes goes to `log`.
    ///
    /// # Errors
    /// When it does not start or does not become ready.
    pub async fn start(
        arguments: impl IntoIterator<Item = String>,
        mut log: impl FnMut(&str) + Send + 'static,
    ) -> Result<Self> {
        let [address, metrics, health] = free_addresses().await?;
        let mut command = Command::new(built("agent-sandbox-router")?);
        command
            .arg("--authz-mode=allow-all")
            .arg(format!("--http-bind-address={address}"))
            .arg(format!("--metrics-bind-address={metrics}"))
            .arg(format!("--health-probe-bind-address={health}"))
            .arg("--shutdown-delay=0s")
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut program = Program::start("agent-sandbox-router", &mut command)?;
        let output = program.child().stderr.take().context("it is a pipe")?;
        let reader = Tasks::new("router log");
        reader.spawn("lines", async move {
            let mut output = BufReader::with_capacity(256 * 1024, output);
            let mut line = Vec::new();
            while output
                .read_until(b'\n', &mut line)
                .await
                .is_ok_and(|n| n > 0)
            {
                log(String::from_utf8_lossy(&line).trim_end());
                line.clear();
            }
        });
        let mut router = Self {
            program,
            address,
            metrics,
            reader,
        };
        eventually("the router is ready", START, async || {
            router.program.check()?;
            let probe = get(health, "/readyz").await;
            Ok(probe.is_ok_and(|(status, _)| status == 200))
        })
        .await?;
        Ok(router)
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Fails when it has ended.
    ///
    /// # Errors
    /// Says how.
    pub fn check(&mut self) -> Result<()> {
        self.program.check()
    }

    /// Its metrics now.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<Metrics> {
        let (status, text) = get(self.metrics, "/metrics").await?;
        ensure!(status == 200, "the router's metrics answer {status}");
        Ok(Metrics::parse(&text))
    }

    /// Ends it as Kubernetes would, waits, and has read its last words when it returns.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub async fn stop(self) -> Result<()> {
        self.program.stop().await?;
        self.reader.shutdown(PATIENCE).await;
        Ok(())
    }
}

impl Metrics {
    fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            series
                .filter_map(|line| {
                    let (name, value) = line.rsplit_once(' ')?;
                    Some((name.to_owned(), value.parse().ok()?))
                })
                .collect(),
        )
    }

    /// The sum of a metric over all its labels; 0 if there is none.
    pub fn sum(&self, metric: &str) -> f64 {
        self.series(metric).map(|(_, value)| value).sum()
    }

    /// The series of a metric, with the text of their labels.
    pub fn series(&self, metric: &str) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().filter_map(move |(name, value)| {
            let labels = name.strip_prefix(metric)?;
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, *value))
        })
    }
}

/// A GET on an address of this machine: the status and the body.
async fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let exchange = async {
        let tasks = Tasks::new("get");
        let mut connection = Connection::http1(address, &tasks).await?;
        let request = Request::get(path).body(Empty::<bytes::Bytes>::new())?;
        let response = connection.send(request, &Way::default()).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let outcome = tokio::time::timeout(PATIENCE, exchange).await;
    outcome.with_context(|| format!("{address}{path} does not answer"))?
}

/// Addresses that nobody listens on.
async fn free_addresses() -> Result<[SocketAddr; 3]> {
    // All are held at once, so that they differ.
    let bind = || tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let held = [bind().await?, bind().await?, bind().await?];
    let [one, two, three] = &held;
    Ok([one.local_addr()?, two.local_addr()?, three.local_addr()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_labels() {
        let text = "# HELP a b\na{x=\"1 2\"} 3\na{x=\"2\"} 4\na_total 9\nb 1.5\n";
        let metrics = Metrics::parse(text);
        let sums = ["a", "a_total", "b", "c"].map(|name| metrics.sum(name));
        assert!((sums[0] - 7.0).abs() < 1e-9, "{sums:?}");
        assert!((sums[1] - 9.0).abs() < 1e-9, "{sums:?}");
        assert!((sums[2] - 1.5).abs() < 1e-9, "{sums:?}");
        assert!(sums[3].abs() < 1e-9, "{sums:?}");
        assert_eq!(metrics.series("a").count(), 2);
    }
}
