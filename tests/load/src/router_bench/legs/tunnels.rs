//! Memory of an idle WebSocket through the proxy, each after one message there and back; and how long
//! such a message takes.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::{undisturbed, unless_void};
use crate::bench::client::Connection;
use crate::bench::figures::Peer as _;
use crate::bench::memory::{self, POINTS};
use crate::bench::rounds::{self, Gate};
use crate::bench::say;
use crate::router_bench::args::Leg;
use crate::router_bench::figures::Measure;
use crate::router_bench::peers::{Kind, Peer, Sandbox};
use crate::router_bench::report::Report;
use crate::router_bench::stage::Stage;
use crate::statistics::Latencies;
use crate::websocket::{self, End, Kind as Message};

/// Memory of one tunnel.
pub const MEMORY: &str = "KiB/tunnel";
/// A message there and back.
pub const ECHO: &str = "echo p50 us";
/// After one message each.
pub const IDLE: &str = "after one echo each";
/// One tunnel, one message at a time.
pub const BUSY: &str = "64 B, one at a time";
const MESSAGE: [u8; 64] = [b'm'; 64];
const ANSWER: Duration = Duration::from_secs(30);

/// Measures. The script of the Python stack relays requests only.
pub async fn run(stage: &Stage, gate: &mut Gate, report: &mut Report) -> Result<()> {
    let upgrades = |kind: &Kind| *kind != Kind::Python;
    let mut proxies = stage.proxies();
    if proxies.contains(&Kind::Python) {
        proxies.retain(upgrades);
        report.void(
            Kind::Python,
            Leg::Tunnels,
            "not measured: the script carries requests, not upgrades",
        );
    }
    for round in 0..stage.plan.memory_rounds {
        for kind in rounds::order(proxies.len(), round).filter_map(|index| proxies.get(index)) {
            say(&format!(
                "{} idle tunnels, {}, round {} of {}",
                stage.plan.connections,
                kind.name(),
                round + 1,
                stage.plan.memory_rounds
            ));
            let peer = stage.start(*kind).await?;
            let found = hold(&peer, stage).await;
            if let Some(slope) = unless_void(found, Leg::Tunnels, IDLE, *kind, report)? {
                report
                    .figures
                    .note(measure(IDLE, MEMORY), *kind, round, slope);
            }
        }
    }
    let mut cast = Vec::new();
    for kind in stage.peers.iter().copied().filter(upgrades) {
        cast.push(stage.start(kind).await?);
    }
    compare(stage, &cast, gate, report).await
}

/// Measures the echo of these.
pub async fn compare(
    stage: &Stage,
    cast: &[Peer],
    gate: &mut Gate,
    report: &mut Report,
) -> Result<()> {
    for round in 0..stage.plan.rounds {
        say(&format!(
            "echo, round {} of {}",
            round + 1,
            stage.plan.rounds
        ));
        report.idle(gate.pass().await?);
        for peer in rounds::order(cast.len(), round).filter_map(|index| cast.get(index)) {
            let found =
                undisturbed(stage, cast, gate, report, async || echo(peer, stage).await).await;
            if let Some(time) = unless_void(found, Leg::Tunnels, BUSY, peer.kind, report)? {
                report
                    .figures
                    .note(measure(BUSY, ECHO), peer.kind, round, time);
            }
        }
    }
    Ok(())
}

fn measure(setting: &'static str, quantity: &'static str) -> Measure {
    Measure {
        leg: Leg::Tunnels,
        setting,
        quantity,
    }
}

async fn hold(peer: &Peer, stage: &Stage) -> Result<f64> {
    let Some(tree) = peer.tree()? else {
        anyhow::bail!("there is no proxy");
    };
    let mut held: Vec<TcpStream> = Vec::new();
    held.push(open(peer, stage).await?.into_stream());
    let mut points = vec![(0, memory::at_rest(tree).await?)];
    for point in 1..=POINTS {
        let number = stage.plan.connections / POINTS * point;
        while held.len() <= usize::try_from(number)? {
            held.push(open(peer, stage).await?.into_stream());
        }
        points.push((number, memory::at_rest(tree).await?));
    }
    memory::all_open(&held)?;
    memory::slope(&points)
}

/// The median of the time of a message there and back, in microseconds.
async fn echo(peer: &Peer, stage: &Stage) -> Result<f64> {
    let mut tunnel = open(peer, stage).await?;
    let mut samples = Vec::with_capacity(stage.plan.messages);
    for _ in 0..stage.plan.messages {
        let sent = Instant::now();
        message(&mut tunnel).await?;
        samples.push(sent.elapsed());
    }
    let latencies = Latencies::of(&samples);
    Ok(latencies.map_or(0.0, |latencies| latencies.p50 * 1e3))
}

/// A tunnel that has echoed one message.
pub async fn open(peer: &Peer, stage: &Stage) -> Result<Connection> {
    let request = peer.request(&stage.site, Sandbox::Scripted, "/tunnel");
    let upgrade = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
        websocket::KEY
    );
    let mut connection = Connection::open(request.address).await?;
    let head = request.head("GET", &upgrade);
    timeout(ANSWER, async {
        connection.send(head.as_bytes()).await?;
        connection.switched().await
    })
    .await??;
    message(&mut connection).await?;
    Ok(connection)
}

async fn message(tunnel: &mut Connection) -> Result<()> {
    let expected = websocket::frame(Message::Binary, &MESSAGE, End::Server);
    let echoed = timeout(ANSWER, async {
        tunnel
            .send(&websocket::frame(Message::Binary, &MESSAGE, End::Client))
            .await?;
        tunnel.bytes(expected.len()).await
    })
    .await??;
    ensure!(echoed == expected, "the echo is another message");
    Ok(())
}
