//! Memory of an idle keep-alive connection: each has had one whole exchange.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::unless_void;
use crate::bench::client::Connection;
use crate::bench::figures::Peer as _;
use crate::bench::memory::{self, POINTS};
use crate::bench::rounds;
use crate::bench::say;
use crate::router_bench::args::Leg;
use crate::router_bench::figures::Measure;
use crate::router_bench::peers::{Peer, Sandbox};
use crate::router_bench::report::Report;
use crate::router_bench::stage::Stage;

/// Under which conditions.
pub const SETTING: &str = "after one exchange each";
/// Memory of one connection.
pub const MEMORY: &str = "KiB/connection";
const EXCHANGE: Duration = Duration::from_secs(30);

/// Measures, each proxy in a fresh process each time.
pub async fn run(stage: &Stage, report: &mut Report) -> Result<()> {
    let proxies = stage.proxies();
    for round in 0..stage.plan.memory_rounds {
        for kind in rounds::order(proxies.len(), round).filter_map(|index| proxies.get(index)) {
            say(&format!(
                "{} idle connections, {}, round {} of {}",
                stage.plan.connections,
                kind.name(),
                round + 1,
                stage.plan.memory_rounds
            ));
            let peer = stage.start(*kind).await?;
            let found = hold(&peer, stage).await;
            if let Some(slope) = unless_void(found, Leg::Idle, SETTING, *kind, report)? {
                let measure = Measure {
                    leg: Leg::Idle,
                    setting: SETTING,
                    quantity: MEMORY,
                };
                report.figures.note(measure, *kind, round, slope);
            }
        }
    }
    Ok(())
}

async fn hold(peer: &Peer, stage: &Stage) -> Result<f64> {
    let Some(tree) = peer.tree()? else {
        anyhow::bail!("there is no proxy");
    };
    let mut held = Vec::new();
    // What is needed once is there before the first look.
    held.push(exchange(peer, stage).await?);
    let mut points = vec![(0, memory::at_rest(tree).await?)];
    for point in 1..=POINTS {
        let number = stage.plan.connections / POINTS * point;
        while held.len() <= usize::try_from(number)? {
            held.push(exchange(peer, stage).await?);
        }
        points.push((number, memory::at_rest(tree).await?));
    }
    memory::all_open(&held)?;
    memory::slope(&points)
}

async fn exchange(peer: &Peer, stage: &Stage) -> Result<TcpStream> {
    let request = peer.request(&stage.site, Sandbox::Fixed, "/2");
    let mut connection = Connection::open(request.address).await?;
    let head = request.head("GET", "");
    let answer = timeout(EXCHANGE, connection.exchange(head.as_bytes())).await??;
    ensure!(
        answer.status == 200 && answer.length == 2,
        "answered {} with {} bytes",
        answer.status,
        answer.length
    );
    Ok(connection.into_stream())
}
