//! Load in a closed loop: so many connections, each with one request at a time, for so long.
//!
//! [`wrk`] when it is installed, because it costs the least; [`own`] otherwise. The report says which.

pub mod own;
pub mod wrk;

use std::time::Duration;

use anyhow::{Result, ensure};

use super::client::Request;
use super::installed;

/// What makes the load.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Generator {
    /// The program wrk.
    Wrk,
    /// The bench's own client.
    Own,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Order {
    /// The request, always the same.
    pub request: Request,
    /// The length of a right answer.
    pub length: u64,
    /// Connections.
    pub connections: u32,
    /// How long; wrk knows whole seconds only, and at least one.
    pub time: Duration,
}

/// What was found. Latencies are in microseconds, over all requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Complete answers.
    pub requests: u64,
    /// For how long requests were sent.
    pub elapsed: Duration,
    /// Half took at most this.
    pub p50: f64,
    /// Nine in ten.
    pub p90: f64,
    /// 99 in a hundred.
    pub p99: f64,
}

impl Generator {
    /// wrk, if it is there.
    pub fn choose() -> Self {
        if installed::is_installed(wrk::PROGRAM) {
            Self::Wrk
        } else {
            Self::Own
        }
    }

    /// Makes the load. An answer that is not 200, or has another length, is an error.
    pub async fn run(self, order: &Order) -> Result<Load> {
        let load = match self {
            Self::Wrk => wrk::run(order).await?,
            Self::Own => own::run(order).await?,
        };
        ensure!(
            load.requests > 0,
            "no request was answered within {:?}",
            order.time
        );
        Ok(load)
    }

    /// What it is, for the report.
    pub fn text(self) -> String {
        match self {
            Self::Wrk => {
                let version = installed::version(wrk::PROGRAM, "--version");
                let version = version.unwrap_or_else(|| "wrk".to_owned());
                let short: Vec<&str> = version.split_whitespace().take(2).collect();
                format!("{}, one thread", short.join(" "))
            }
            Self::Own => {
                "the bench's own client, which costs more than wrk; on Debian and Ubuntu: apt-get install wrk"
                    .to_owned()
            }
        }
    }
}
