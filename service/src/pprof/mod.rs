//! Profiles of the process at the paths, and in the format, that Go's tools and load tests expect.
//!
//! They are what the kernel knows: processor time by thread, in the program and in the kernel, and
//! memory by mapping. Sampling stacks would need a signal handler that interrupts every thread, and
//! symbols, which shipped programs do not carry; `perf record -g -p PID` does it from outside.

mod encode;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

use self::encode::{Profile, Unit};

/// What is served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// The profile of processor time alone.
    Processor,
    /// Everything there is.
    Everything,
}

/// How long processor time is watched unless the client says otherwise.
const USUAL: u64 = 30;
/// The longest that it is watched.
const LONGEST: u64 = 300;

/// The routes beneath `/debug/pprof/`.
pub fn router(scope: Scope) -> Router {
    // Profiles of the same time tell nothing that one of them does not.
    let one = Arc::new(Semaphore::new(1));
    let router = Router::new().route("/debug/pprof/profile", get(processor).with_state(one));
    if scope == Scope::Processor {
        return router;
    }
    router
        .route("/debug/pprof/", get(index))
        .route("/debug/pprof/cmdline", get(command_line))
        .route("/debug/pprof/heap", get(memory))
        .route("/debug/pprof/goroutine", get(tasks))
}

async fn index() -> &'static str {
    "profile?seconds=N  processor time by thread\n\
     heap               resident memory by mapping\n\
     goroutine          how many tasks and threads there are\n\
     cmdline            how the program was called\n"
}

async fn command_line() -> Result<Vec<u8>, Failure> {
    Ok(fs::read("/proc/self/cmdline")?)
}

async fn tasks() -> String {
    let runtime = tokio::runtime::Handle::current();
    let metrics = runtime.metrics();
    format!(
        "tasks: {}\nworker threads: {}\nthreads: {}\n",
        metrics.num_alive_tasks(),
        metrics.num_workers(),
        threads().map_or(0, |threads| threads.len()),
    )
}

async fn processor(
    State(one): State<Arc<Semaphore>>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Response, Failure> {
    let seconds = match query.get("seconds") {
        None => USUAL,
        Some(text) => text
            .parse()
            .ok()
            .filter(|seconds| (1..=LONGEST).contains(seconds))
            .ok_or(Failure::Seconds)?,
    };
    let _permit = one.try_acquire().map_err(|_| Failure::Busy)?;
    let (began, before) = (SystemTime::now(), threads()?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = threads()?;
    let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
    let mut profile = Profile::new(
        began,
        &[("samples", Unit::Count), ("cpu", Unit::Nanoseconds)],
    );
    profile.lasted(Duration::from_secs(seconds), tick);
    for (id, thread) in after {
        // A thread that was not there had used nothing.
        let (user, kernel) = before.get(&id).map_or((0, 0), |was| (was.user, was.kernel));
        for (place, now, was) in [
            ("user", thread.user, user),
            ("kernel", thread.kernel, kernel),
        ] {
            let ticks = now.saturating_sub(was);
            if ticks > 0 {
                profile.sample(&[place, &thread.name], &[ticks, ticks.saturating_mul(tick)]);
            }
        }
    }
    Ok(answer(&profile))
}

async fn memory() -> Result<Response, Failure> {
    let text = fs::read_to_string("/proc/self/smaps")?;
    let mut profile = Profile::new(SystemTime::now(), &[("inuse_space", Unit::Bytes)]);
    for (mapping, bytes) in resident(&text) {
        profile.sample(&[&mapping], &[bytes]);
    }
    Ok(answer(&profile))
}

fn answer(profile: &Profile) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    (kind, profile.encode()).into_response()
}

/// A thread and the processor time it has used, in clock ticks.
#[derive(Debug, Eq, PartialEq)]
struct Thread {
    name: String,
    user: u64,
    kernel: u64,
}

impl Thread {
    /// Reads the one line of a thread's `stat`: its name, which may hold anything, is in parentheses.
    fn parse(line: &str) -> Option<Self> {
        let (front, rest) = line.rsplit_once(')')?;
        let (_, name) = front.split_once('(')?;
        let mut members = rest.split_whitespace().skip(11);
        let mut ticks = || members.next()?.parse().ok();
        Some(Self {
            name: name.to_owned(),
            user: ticks()?,
            kernel: ticks()?,
        })
    }
}

/// The threads of this process, by number.
fn threads() -> std::io::Result<BTreeMap<String, Thread>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/task")? {
        let path = entry?.path();
        // A thread may end while it is looked at.
        let Ok(line) = fs::read_to_string(path.join("stat")) else {
            continue;
        };
        if let (Some(thread), Some(id)) = (Thread::parse(&line), path.file_name()) {
            threads.insert(id.to_string_lossy().into_owned(), thread);
        }
    }
    Ok(threads)
}

/// Resident bytes by what is mapped, from the text of `smaps`.
fn resident(text: &str) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    let mut mapping = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("Rss:") {
            let kibibytes = rest.trim().trim_end_matches(" kB").parse().unwrap_or(0_u64);
            if kibibytes > 0 {
                *all.entry(mapping.clone()).or_insert(0) += kibibytes.saturating_mul(1024);
            }
        } else if line
            .split_whitespace()
            .next()
            .is_some_and(|it| it.contains('-'))
        {
            // Address, rights, offset, device, inode, and what it is a mapping of.
            let name: Vec<&str> = line.split_whitespace().skip(5).collect();
            mapping = if name.is_empty() {
                "anonymous".to_owned()
            } else {
                name.join(" ")
            };
        }
    }
    all
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("seconds: expected a whole number from 1 to {LONGEST}")]
    Seconds,
    #[error("another profile is being taken")]
    Busy,
    #[error("the kernel does not tell: {0}")]
    Kernel(#[from] std::io::Error),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Seconds => StatusCode::BAD_REQUEST,
            Self::Busy | Self::Kernel(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, format!("{self}\n")).into_response()
    }
}

#[cfg(test)]
mod tests;
