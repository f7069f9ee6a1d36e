//! Something large through the proxy, down and up: how fast by the clock, at what cost, and whether
//! memory stays flat.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, timeout};

use super::{undisturbed, unless_void};
use crate::bench::client::{Connection, LARGE_BUFFER};
use crate::bench::figures::number;
use crate::bench::rounds::{self, Gate};
use crate::bench::say;
use crate::router_bench::args::Leg;
use crate::router_bench::figures::Measure;
use crate::router_bench::peers::{Peer, Sandbox};
use crate::router_bench::report::Report;
use crate::router_bench::stage::Stage;

/// Streams of one round, one after the other: processor time is counted in hundredths of a second.
const STREAMS: u32 = 4;
/// From the sandbox.
pub const DOWN: &str = "256 MiB down";
/// To the sandbox.
pub const UP: &str = "256 MiB up";
/// By the clock; 10^9 bytes.
pub const SPEED: &str = "GB/s";
/// What the proxy spends.
pub const COST: &str = "CPU-s/GiB";
/// By how much the largest resident set exceeds the one before.
pub const GROWTH: &str = "peak MiB over idle";
/// What one stream may take.
const STREAM: Duration = Duration::from_secs(120);
const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Measures everybody.
pub async fn run(stage: &Stage, gate: &mut Gate, report: &mut Report) -> Result<()> {
    let cast = stage.cast().await?;
    compare(stage, &cast, gate, report).await
}

/// Measures these.
pub async fn compare(
    stage: &Stage,
    cast: &[Peer],
    gate: &mut Gate,
    report: &mut Report,
) -> Result<()> {
    let bytes = stage.plan.stream;
    for (setting, is_up) in [(DOWN, false), (UP, true)] {
        for round in 0..stage.plan.rounds {
            say(&format!(
                "{setting}, round {} of {}",
                round + 1,
                stage.plan.rounds
            ));
            report.idle(gate.pass().await?);
            for peer in rounds::order(cast.len(), round).filter_map(|index| cast.get(index)) {
                let found = undisturbed(stage, cast, gate, report, async || {
                    measure(peer, stage, is_up).await
                })
                .await;
                let Some(found) = unless_void(found, Leg::Streaming, setting, peer.kind, report)?
                else {
                    continue;
                };
                let mut note = |quantity, value| {
                    let measure = Measure {
                        leg: Leg::Streaming,
                        setting,
                        quantity,
                    };
                    report.figures.note(measure, peer.kind, round, value);
                };
                let bytes = number(bytes) * f64::from(STREAMS);
                note(SPEED, bytes / 1e9 / found.elapsed.as_secs_f64());
                if let Some(proxy) = found.proxy {
                    let gibibytes = bytes / MEBIBYTE / 1024.0;
                    note(COST, proxy.cpu.as_secs_f64() / gibibytes);
                    note(GROWTH, number(proxy.growth) / MEBIBYTE);
                }
            }
        }
    }
    Ok(())
}

struct Found {
    elapsed: Duration,
    proxy: Option<Proxy>,
}

struct Proxy {
    cpu: Duration,
    growth: u64,
}

async fn measure(peer: &Peer, stage: &Stage, is_up: bool) -> Result<Found> {
    let bytes = stage.plan.stream;
    let mut before = None;
    if let Some(tree) = peer.tree()? {
        tree.forget_peak()?;
        before = Some((tree, tree.cpu()?, tree.resident()?));
    }
    let start = Instant::now();
    for _ in 0..STREAMS {
        if is_up {
            timeout(STREAM, upload(peer, stage, bytes)).await??;
        } else {
            timeout(STREAM, download(peer, stage, bytes)).await??;
        }
    }
    let elapsed = start.elapsed();
    let proxy = before
        .map(|(tree, cpu, resident)| {
            anyhow::Ok(Proxy {
                cpu: tree.cpu()?.since(cpu).all(),
                growth: tree.peak()?.saturating_sub(resident),
            })
        })
        .transpose()?;
    Ok(Found { elapsed, proxy })
}

async fn download(peer: &Peer, stage: &Stage, bytes: u64) -> Result<()> {
    let request = peer.request(&stage.site, Sandbox::Scripted, &format!("/{bytes}"));
    let mut connection = Connection::open(request.address).await?;
    connection.enlarge();
    let head = request.head("GET", "");
    let answer = connection.exchange(head.as_bytes()).await?;
    ensure!(
        answer.status == 200 && answer.length == bytes,
        "answered {} with {} of {bytes} bytes",
        answer.status,
        answer.length
    );
    Ok(())
}

async fn upload(peer: &Peer, stage: &Stage, bytes: u64) -> Result<()> {
    static ZEROS: [u8; LARGE_BUFFER] = [0; LARGE_BUFFER];
    let request = peer.request(&stage.site, Sandbox::Scripted, "/upload");
    let mut connection = Connection::open(request.address).await?;
    let head = request.head("POST", &format!("Content-Length: {bytes}\r\n"));
    connection.send(head.as_bytes()).await?;
    let mut missing = usize::try_from(bytes)?;
    while missing > 0 {
        let length = missing.min(ZEROS.len());
        connection
            .send(ZEROS.get(..length).unwrap_or_default())
            .await?;
        missing -= length;
    }
    let (status, text) = connection.text().await?;
    ensure!(
        status == 200 && text == bytes.to_string(),
        "answered {status}: {text:?} of {bytes} bytes came"
    );
    Ok(())
}
