//! The bench's own load: every connection is a future on this thread.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use tokio::time::{Instant, timeout};

use super::{Load, Order};
use crate::bench::client::Connection;
use crate::statistics::Latencies;

/// What one answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// Makes the load.
pub(super) async fn run(order: &Order) -> Result<Load> {
    drive(order, |since, _| since.elapsed() < order.time).await
}

/// The same for a number of requests instead of a time.
pub async fn count(order: &Order, requests_a_connection: usize) -> Result<Load> {
    drive(order, |_, done| done < requests_a_connection).await
}

/// Each connection makes one request, and goes on while `more` says so, given the start and how many it
/// has made.
async fn drive(order: &Order, more: impl Fn(Instant, usize) -> bool) -> Result<Load> {
    let request = order.request.head("GET", "").into_bytes();
    let address = order.request.address;
    let opening = (0..order.connections).map(|_| Connection::open(address));
    let connections = try_join_all(opening).await?;
    let start = Instant::now();
    let loops = connections.into_iter().map(|mut connection| {
        let (request, more) = (&request, &more);
        async move {
            let mut samples = Vec::new();
            loop {
                let sent = Instant::now();
                let answer = timeout(ANSWER, connection.exchange(request))
                    .await
                    .context("an answer took too long")??;
                ensure!(
                    answer.status == 200 && answer.length == order.length,
                    "answered {} with {} bytes instead of 200 with {}",
                    answer.status,
                    answer.length,
                    order.length
                );
                samples.push(sent.elapsed());
                if !more(start, samples.len()) {
                    break;
                }
            }
            anyhow::Ok(samples)
        }
    });
    let samples: Vec<Duration> = try_join_all(loops).await?.concat();
    let elapsed = start.elapsed();
    let latencies = Latencies::of(&samples).context("no request was answered")?;
    Ok(Load {
        requests: u64::try_from(samples.len())?,
        elapsed,
        p50: latencies.p50 * 1e3,
        p90: latencies.p90 * 1e3,
        p99: latencies.p99 * 1e3,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::client::Request;
    use crate::router_bench::backend::Backend;

    fn order(backend: &Backend, path: &str, length: u64) -> Order {
        Order {
            request: Request {
                address: backend.address(),
                path: path.to_owned(),
                headers: Vec::new(),
            },
            length,
            connections: 4,
            time: Duration::ZERO,
        }
    }

    #[tokio::test]
    async fn every_answer_is_counted() {
        let backend = Backend::start().unwrap();
        let load = count(&order(&backend, "/2", 2), 25).await.unwrap();
        assert_eq!(load.requests, 100);
        assert!(load.p50 > 0.0 && load.p50 <= load.p90 && load.p90 <= load.p99);
        assert!(load.elapsed > Duration::ZERO);
    }

    #[tokio::test]
    async fn wrong_answers_are_errors() {
        let backend = Backend::start().unwrap();
        let error = count(&order(&backend, "/2", 3), 1).await.unwrap_err();
        assert!(error.to_string().contains("2 bytes"), "{error}");
        let error = count(&order(&backend, "/nowhere", 2), 1).await.unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
    }
}
