//! Very many connections at once: idle tunnels, and streams in which something happens all the time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use anyhow::{Context, Result, ensure};
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::client::{Connection, Way, WebSocket};
use crate::network;
use crate::pattern::PatternBody;
use crate::programs::{Program, eventually, require_descriptors};
use crate::router::Router;
use crate::sandbox::Identity;

/// How many.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Idle tunnels.
    pub websockets: u32,
    /// Streams of events.
    pub streams: u32,
}

/// What the routers needed.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How many there were: as many as the machine's limit on descriptors asks for.
    pub routers: usize,
    /// Connections of each kind that were open at once.
    pub websockets: u32,
    /// Streams that were active at once.
    pub streams: u32,
    /// Events that arrived, each from the sandbox that was asked.
    pub events: u64,
    /// Memory of all routers together before, with idle tunnels, with streams as well, and after.
    pub memory: BTreeMap<&'static str, u64>,
    /// Descriptors of all routers together at the same times.
    pub descriptors: BTreeMap<&'static str, usize>,
}

/// Sandboxes; each gets its part.
const SANDBOXES: u8 = 20;
const NAMESPACE: &str = "load";
/// Connections that are being opened at once.
const OPENING: usize = 64;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How many events each stream must have brought.
const EVENTS: u64 = 5;
/// Descriptors of a process beside those that are counted.
const SPARE: u64 = 200;
/// Memory that an idle tunnel may take at most, in bytes: both its sockets' state, no buffers.
const PER_WEBSOCKET: u64 = 8 * 1024;
/// Memory that an active stream may take at most.
const PER_STREAM: u64 = 48 * 1024;
/// Memory that routers may keep when everything is gone, each: what an allocator keeps for next time.
const KEPT: u64 = 32 * 1024 * 1024;

/// Everything that is open.
struct Open {
    routers: Vec<Router>,
    websockets: Vec<(WebSocket, String)>,
    tasks: Tasks,
}

/// Runs it.
///
/// # Errors
/// When a process may not have enough descriptors, a connection is not carried, or one that should be
/// open is not.
pub async fn run(plan: Plan, progress: impl Fn(&str)) -> Result<Report> {
    let (websockets, streams) = (u64::from(plan.websockets), u64::from(plan.streams));
    // This process and the sandboxes' hold one end of each.
    let what = format!("holding {websockets} WebSockets and {streams} streams");
    let allowed = require_descriptors(websockets + streams + SPARE, &what)?;
    // A router holds both ends.
    let count = (2 * (websockets + streams)).div_ceil(allowed.saturating_sub(SPARE).max(1));
    if count > 1 {
        progress(&format!(
            "{count} routers share the load, because this machine allows a process {allowed} descriptors"
        ));
    }
    let given: Result<Vec<String>> = (1..=SANDBOXES)
        .map(|number| {
            Ok(format!(
                "{NAMESPACE}/{}={}",
                name(number),
                network::address(3, number)?
            ))
        })
        .collect();
    let given = given?.join(",");
    let sandboxes = Program::sandboxes(&given)?;
    let mut open = Open {
        routers: Vec::new(),
        websockets: Vec::new(),
        tasks: Tasks::new("streams"),
    };
    for _ in 0..count {
        let arguments = [
            format!("--static-sandboxes={given}"),
            "--access-log=false".to_owned(),
            "--upstream-idle-timeout=1s".to_owned(),
        ];
        open.routers.push(Router::start(arguments, |_| {}).await?);
    }
    open.reach_all().await?;
    let mut report = Report {
        routers: open.routers.len(),
        websockets: plan.websockets,
        streams: plan.streams,
        events: 0,
        memory: BTreeMap::new(),
        descriptors: BTreeMap::new(),
    };
    open.settle(0, 0).await?;
    report.note("1 before", &open)?;
    open.websockets(plan.websockets).await?;
    open.settle(plan.websockets, 0).await?;
    report.note("2 with WebSockets", &open)?;
    progress(&format!("{} WebSockets are open", plan.websockets));
    let stop = Shutdown::new();
    let events: Arc<[AtomicU64]> = (0..plan.streams).map(|_| AtomicU64::new(0)).collect();
    open.streams(plan.streams, &events, &stop).await?;
    progress(&format!("{} streams are active", plan.streams));
    eventually("every stream brings events", PATIENCE, async || {
        ensure!(open.tasks.len() == plan.streams as usize, "a stream ended");
        Ok(events
            .iter()
            .all(|seen| seen.load(Ordering::Relaxed) >= EVENTS))
    })
    .await?;
    open.settle(plan.websockets, plan.streams).await?;
    report.note("3 with streams too", &open)?;
    open.use_all().await?;
    progress("every WebSocket still echoes");
    stop.trigger();
    open.tasks.shutdown(PATIENCE).await;
    report.events = events.iter().map(|seen| seen.load(Ordering::Relaxed)).sum();
    open.close_all().await?;
    open.settle(0, 0).await?;
    report.note("4 after", &open)?;
    for router in open.routers {
        router.stop().await?;
    }
    sandboxes.stop().await?;
    Ok(report)
}

impl Open {
    /// The router and the sandbox of the connection with this number.
    fn way(&self, number: u32) -> Result<(&Router, String)> {
        let index = number as usize % self.routers.len().max(1);
        let router = self.routers.get(index).context("there is a router")?;
        let sandbox = u8::try_from(number % u32::from(SANDBOXES))? + 1;
        Ok((router, name(sandbox)))
    }

    /// Waits until every sandbox answers through every router.
    async fn reach_all(&self) -> Result<()> {
        eventually("every sandbox answers", PATIENCE, async || {
            for router in &self.routers {
                for sandbox in 1..=SANDBOXES {
                    let tasks = Tasks::new("first");
                    let mut connection = Connection::http1(router.address(), &tasks).await?;
                    let way = Way::to(NAMESPACE, &name(sandbox));
                    let request = Request::new(PatternBody::new(0));
                    let response = connection.send(request, &way).await?;
                    if !response.status().is_success() {
                        return Ok(false);
                    }
                }
            }
            Ok(true)
        })
        .await
    }

    async fn websockets(&mut self, count: u32) -> Result<()> {
        let places = Semaphore::new(OPENING);
        let all = (0..count).map(|number| {
            let (this, places) = (&*self, &places);
            async move {
                let _place = places.acquire().await?;
                let (router, name) = this.way(number)?;
                let socket = WebSocket::open(router.address(), &Way::to(NAMESPACE, &name)).await?;
                ensure!(
                    socket.identity().name == name,
                    "{} instead of {name}",
                    socket.identity()
                );
                anyhow::Ok((socket, name))
            }
        });
        let opened = tokio::time::timeout(PATIENCE, futures::future::try_join_all(all));
        self.websockets = opened.await.context("WebSockets do not open in time")??;
        Ok(())
    }

    async fn streams(
        &mut self,
        count: u32,
        events: &Arc<[AtomicU64]>,
        stop: &Shutdown,
    ) -> Result<()> {
        for number in 0..count {
            let (router, name) = self.way(number)?;
            let drivers = Tasks::new("stream connection");
            let mut connection = Connection::http1(router.address(), &drivers).await?;
            let request = Request::get("/events?every=500").body(PatternBody::new(0))?;
            let response = connection.send(request, &Way::to(NAMESPACE, &name)).await?;
            let identity = Identity::of(response.headers())?.context("nobody says who answers")?;
            ensure!(identity.name == name, "{identity} instead of {name}");
            let (events, stop) = (events.clone(), stop.clone());
            let follow = async move {
                let _held = (connection, drivers);
                let seen = events.get(number as usize);
                tokio::select! {
                    () = follow(response.into_body(), &identity, seen) => {}
                    () = stop.triggered() => {}
                }
            };
            self.tasks.spawn("stream", follow);
        }
        Ok(())
    }

    /// Waits until the routers carry exactly so much.
    async fn settle(&self, websockets: u32, streams: u32) -> Result<()> {
        let what = format!("the routers carry {websockets} WebSockets and {streams} streams");
        eventually(&what, PATIENCE, async || {
            let mut carried = [0.0; 3];
            for router in &self.routers {
                let metrics = router.metrics().await?;
                for (sum, gauge) in carried.iter_mut().zip([
                    "sandbox_router_upgraded_connections",
                    "sandbox_router_inflight_requests",
                    "sandbox_router_idle_upstream_connections",
                ]) {
                    *sum += metrics.sum(gauge);
                }
            }
            let all = f64::from(websockets + streams);
            let expected = [f64::from(websockets), all, 0.0];
            Ok(carried
                .iter()
                .zip(expected)
                .all(|(is, should)| (is - should).abs() < 0.5))
        })
        .await
    }

    /// Each WebSocket echoes a message, through its router, from its own sandbox.
    async fn use_all(&mut self) -> Result<()> {
        let all = self.websockets.iter_mut().map(|(socket, name)| async move {
            let echo = socket.echo(name.as_bytes()).await?;
            ensure!(echo == name.as_bytes(), "{name} came back as {echo:?}");
            Ok(())
        });
        let used = tokio::time::timeout(PATIENCE, futures::future::try_join_all(all));
        used.await.context("WebSockets do not echo in time")??;
        Ok(())
    }

    async fn close_all(&mut self) -> Result<()> {
        let sockets = std::mem::take(&mut self.websockets);
        let all = sockets.into_iter().map(|(socket, _)| socket.close());
        let closed = tokio::time::timeout(PATIENCE, futures::future::try_join_all(all));
        closed.await.context("WebSockets do not close in time")??;
        Ok(())
    }
}

/// Counts events for as long as they are those of this sandbox.
async fn follow(mut body: Incoming, identity: &Identity, seen: Option<&AtomicU64>) {
    let expected = format!("\ndata: {identity}\n\n");
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if !data.ends_with(expected.as_bytes()) {
            return;
        }
        if let Some(seen) = seen {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn name(number: u8) -> String {
    format!("many-{number}")
}

impl Report {
    fn note(&mut self, when: &'static str, open: &Open) -> Result<()> {
        let (mut memory, mut descriptors) = (0, 0);
        for router in &open.routers {
            memory += router.program().memory()?;
            descriptors += router.program().descriptors()?;
        }
        self.memory.insert(when, memory);
        self.descriptors.insert(when, descriptors);
        Ok(())
    }

    /// Fails when connections cost too much, or leave anything behind.
    ///
    /// # Errors
    /// Says what.
    pub fn verdict(&self) -> Result<()> {
        let memory: Vec<u64> = self.memory.values().copied().collect();
        let descriptors: Vec<usize> = self.descriptors.values().copied().collect();
        let ([before, idle, active, after], [open_before, .., open_after]) =
            (memory.as_slice(), descriptors.as_slice())
        else {
            anyhow::bail!("four times are noted");
        };
        let websockets = PER_WEBSOCKET * u64::from(self.websockets);
        ensure!(
            *idle <= before + websockets,
            "idle WebSockets cost too much:\n{self}"
        );
        let streams = PER_STREAM * u64::from(self.streams);
        ensure!(*active <= idle + streams, "streams cost too much:\n{self}");
        ensure!(
            *after <= before + KEPT * self.routers as u64,
            "memory is kept:\n{self}"
        );
        ensure!(
            *open_after <= open_before + self.routers,
            "descriptors are kept:\n{self}"
        );
        Ok(())
    }
}

impl fmt::Display for Report {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} WebSockets and {} streams through {} routers, {} events",
            self.websockets, self.streams, self.routers, self.events
        )?;
        let times = self.memory.iter().zip(self.descriptors.values());
        for ((when, memory), descriptors) in times {
            let mebibytes = *memory as f64 / 1024.0 / 1024.0;
            writeln!(f, "  {when}: {mebibytes:.1} MiB, {descriptors} descriptors")?;
        }
        Ok(())
    }
}
