//! Bodies of any size and any pace through the router: its memory must not follow them.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use anyhow::{Context, Result, ensure};
use http::Request;
use http_body_util::BodyExt;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::client::{Connection, Way};
use crate::network;
use crate::pattern::{Check, PatternBody};
use crate::programs::{POLL, Program, eventually};
use crate::router::Router;

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Bytes of the large body, each way.
    pub large: u64,
    /// Clients that read or write slowly, of each kind at once.
    pub slow: u32,
}

/// What the router needed.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Its memory before, in bytes.
    pub before: u64,
    /// What was carried, and the most memory in use meanwhile.
    pub legs: Vec<Leg>,
}

/// One kind of load.
#[derive(Clone, Debug, Serialize)]
pub struct Leg {
    /// What it is.
    pub name: &'static str,
    /// Bytes carried.
    pub bytes: u64,
    /// The most memory in use, in bytes.
    pub peak: u64,
    /// What may be in use.
    pub bound: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// More memory than before that one large body may take: a window of buffers, whatever its size.
const LARGE: u64 = 6 * 1024 * 1024;
/// More memory than before that each slow client may take: a read buffer of both sides, what is on its
/// way, and what an allocator keeps of the legs before. A hundredth of the bodies' size.
const SLOW: u64 = 1536 * 1024;
/// How long a leg may take.
const PATIENCE: Duration = Duration::from_secs(3600);
const SAMPLE: Duration = Duration::from_millis(50);
/// The body of a slow client. Far more than the kernel's own buffers hold.
const SLOW_BODY: u64 = 160 * 1024 * 1024;
/// Buffer of a slow client's socket, so that what waits does so in the router.
const SLOW_BUFFER: u32 = 16 * 1024;
/// How long slow clients go on once nothing moves any more but at their pace.
const SLOW_TIME: Duration = Duration::from_secs(3);

const NAMESPACE: &str = "load";
const NAME: &str = "bodies";

/// Runs it.
///
/// # Errors
/// When anything cannot be started, a body does not arrive as it was sent, or memory grows.
pub async fn run(plan: Plan, progress: impl Fn(&str)) -> Result<Report> {
    let sandbox = format!("{NAMESPACE}/{NAME}={}", network::address(2, 1)?);
    let sandboxes = Program::sandboxes(&sandbox)?;
    let arguments = [
        format!("--static-sandboxes={sandbox}"),
        "--access-log=false".to_owned(),
        // Slow sandboxes are still taking what they were sent.
        "--shutdown-timeout=2s".to_owned(),
    ];
    let router = Router::start(arguments, |_| {}).await?;
    let way = Way::to(NAMESPACE, NAME);
    eventually("the sandbox answers", Duration::from_secs(30), async || {
        let tasks = Tasks::new("first");
        let mut connection = Connection::http1(router.address(), &tasks).await?;
        let response = connection
            .send(Request::new(PatternBody::new(0)), &way)
            .await?;
        Ok(response.status().is_success())
    })
    .await?;
    // What any body needs is there before it counts.
    download(router.address(), &way, 16 * 1024 * 1024).await?;
    upload(router.address(), &way, 16 * 1024 * 1024).await?;
    let before = router.program().memory()?;
    let mut report = Report {
        before,
        legs: Vec::new(),
    };
    let bench = Bench {
        router: &router,
        before,
    };
    let large = bench.leg(
        "download",
        plan.large,
        LARGE,
        download(router.address(), &way, plan.large),
    );
    report.add(large.await?, &progress);
    let large = bench.leg(
        "upload",
        plan.large,
        LARGE,
        upload(router.address(), &way, plan.large),
    );
    report.add(large.await?, &progress);
    let most = SLOW * u64::from(plan.slow);
    let readers = slow_readers(router.address(), &way, plan.slow);
    report.add(
        bench.leg("slow readers", 0, most, readers).await?,
        &progress,
    );
    let writers = slow_sandboxes(router.address(), &way, plan.slow);
    report.add(
        bench.leg("slow sandboxes", 0, most, writers).await?,
        &progress,
    );
    let writers = slow_writers(router.address(), &way, plan.slow);
    report.add(
        bench.leg("slow writers", 0, most, writers).await?,
        &progress,
    );
    router.stop().await?;
    sandboxes.stop().await?;
    Ok(report)
}

/// A router whose memory is watched.
struct Bench<'a> {
    router: &'a Router,
    before: u64,
}

impl Bench<'_> {
    async fn leg(
        &self,
        name: &'static str,
        bytes: u64,
        more: u64,
        load: impl Future<Output = Result<()>>,
    ) -> Result<Leg> {
        let started = Instant::now();
        let done = Shutdown::new();
        let watch = async {
            let mut peak = 0;
            while !done.is_triggered() {
                peak = peak.max(self.router.program().memory()?);
                tokio::select! {
                    () = tokio::time::sleep(SAMPLE) => {}
                    () = done.triggered() => {}
                }
            }
            anyhow::Ok(peak)
        };
        let load = async {
            let outcome = tokio::time::timeout(PATIENCE, load).await;
            done.trigger();
            outcome.context("does not end in time")?
        };
        let (peak, outcome) = tokio::join!(watch, load);
        outcome.context(name)?;
        Ok(Leg {
            name,
            bytes,
            peak: peak?,
            bound: self.before + more,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

async fn download(router: SocketAddr, way: &Way, size: u64) -> Result<()> {
    let tasks = Tasks::new("download");
    let mut connection = Connection::http1(router, &tasks).await?;
    let request = Request::get(format!("/bytes?n={size}")).body(PatternBody::new(0))?;
    let response = connection.send(request, way).await?;
    ensure!(
        response.status().is_success(),
        "answered {}",
        response.status()
    );
    let mut body = response.into_body();
    let mut check = Check::default();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            check.take(&data);
        }
    }
    ensure!(check.bytes() == size, "{} of {size} bytes", check.bytes());
    ensure!(check.is_sound(), "the bytes are not those that were sent");
    Ok(())
}

async fn upload(router: SocketAddr, way: &Way, size: u64) -> Result<()> {
    let tasks = Tasks::new("upload");
    let mut connection = Connection::http1(router, &tasks).await?;
    let request = Request::post("/upload").body(PatternBody::new(size))?;
    let response = connection.send(request, way).await?;
    let text = response.into_body().collect().await?.to_bytes();
    let expected = format!("{size} sound");
    ensure!(
        *text == *expected.as_bytes(),
        "answered {text:?} instead of {expected}"
    );
    Ok(())
}

/// Clients that ask for much and take a little at a time: what the sandbox would send at once must wait
/// with the sandbox.
async fn slow_readers(router: SocketAddr, way: &Way, count: u32) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = dawdler(router).await?;
        let head = request("GET", &format!("/bytes?n={SLOW_BODY}"), "", way);
        stream.write_all(&head).await?;
        streams.push(stream);
    }
    let end = Instant::now() + SLOW_TIME;
    let mut buffer = vec![0; 1024];
    while Instant::now() < end {
        for stream in &mut streams {
            ensure!(
                stream.read(&mut buffer).await? > 0,
                "a slow reader is cut off"
            );
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Clients that send much to sandboxes that take a little at a time: it must wait with the clients.
async fn slow_sandboxes(router: SocketAddr, way: &Way, count: u32) -> Result<()> {
    let tasks = Tasks::new("slow sandboxes");
    let mut sending = Vec::new();
    for _ in 0..count {
        let mut connection = Connection::http1(router, &tasks).await?;
        let request = Request::post("/upload?pace=65536").body(PatternBody::new(SLOW_BODY))?;
        let way = way.clone();
        sending.push(Box::pin(
            async move { connection.send(request, &way).await },
        ));
    }
    let all = futures::future::select_all(sending);
    let Ok((first, ..)) = tokio::time::timeout(SLOW_TIME, all).await else {
        return Ok(());
    };
    first.map(|response| response.status())?;
    anyhow::bail!("a sandbox took {SLOW_BODY} bytes although it is slow")
}

/// Clients that send a little at a time: each piece must pass on its own.
async fn slow_writers(router: SocketAddr, way: &Way, count: u32) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = dawdler(router).await?;
        stream
            .write_all(&request(
                "POST",
                "/echo",
                "Transfer-Encoding: chunked\r\n",
                way,
            ))
            .await?;
        streams.push(stream);
    }
    let end = Instant::now() + SLOW_TIME;
    while Instant::now() < end {
        for stream in &mut streams {
            stream.write_all(b"1\r\nx\r\n").await?;
        }
        tokio::time::sleep(POLL).await;
    }
    for stream in &mut streams {
        stream.write_all(b"0\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        ensure!(answer.ends_with(b"0\r\n\r\n"), "an echo has no end");
    }
    Ok(())
}

/// A connection whose own buffers hold little.
async fn dawdler(router: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(SLOW_BUFFER)?;
    socket.set_send_buffer_size(SLOW_BUFFER)?;
    Ok(socket.connect(router).await?)
}

fn request(method: &str, path: &str, more: &str, way: &Way) -> Vec<u8> {
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nHost: router\r\nConnection: close\r\n{more}")
            .into_bytes();
    head.extend(way.lines());
    head.extend_from_slice(b"\r\n");
    head
}

impl Report {
    fn add(&mut self, leg: Leg, progress: &impl Fn(&str)) {
        progress(&leg.to_string());
        self.legs.push(leg);
    }

    /// Fails when memory followed a body.
    ///
    /// # Errors
    /// Says which.
    pub fn verdict(&self) -> Result<()> {
        for leg in &self.legs {
            ensure!(
                leg.peak <= leg.bound,
                "memory is not flat: before {}, {leg}",
                mebibytes(self.before)
            );
        }
        Ok(())
    }
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            bytes,
            peak,
            bound,
            seconds,
        } = self;
        let (peak, bound) = (mebibytes(*peak), mebibytes(*bound));
        write!(
            f,
            "{name}: {} in {seconds:.1} s, memory at most {peak} (allowed {bound})",
            mebibytes(*bytes)
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mebibytes(bytes: u64) -> String {
    format!("{:.2} MiB", bytes as f64 / 1024.0 / 1024.0)
}
