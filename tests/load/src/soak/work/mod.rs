//! What clients do: short and long, both ways, politely and not. Every answer is compared with who
//! should have given it and what it should have said; a request must succeed if nothing happened to
//! its sandbox meanwhile.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use http::StatusCode;
use http_body_util::BodyExt;

use super::ledger::Ledger;
use super::named::{Look, NAMESPACE, Named};
use crate::client::{Connection, Failure, Way, WebSocket};
use crate::pattern::PatternBody;
use crate::sandbox::Identity;

use self::acts::{drain, expect, text};

mod acts;

/// Longest that anything a client does may take; the router gives up on everything earlier.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many tunnels a client keeps open while it does other things.
const HELD: usize = 6;
/// More than a head may have.
const BIG_HEAD: usize = 200 * 1024;
/// Nobody listens there.
const CLOSED_PORT: &str = "9";

/// What a client can do, and how often compared with the rest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Get,
    Upload,
    Download,
    Echo,
    Call,
    Events,
    WebSocket,
    Held,
    Reconnect,
    Wait,
    Status,
    SlowReader,
    SlowWriter,
    LeaveDownload,
    LeaveUpload,
    BrokenOff,
    BigHead,
    Unknown,
    ClosedPort,
}

const KINDS: [(Kind, u32); 19] = [
    (Kind::Get, 30),
    (Kind::Upload, 10),
    (Kind::Download, 10),
    (Kind::Echo, 6),
    (Kind::Call, 10),
    (Kind::Events, 5),
    (Kind::WebSocket, 6),
    (Kind::Held, 8),
    (Kind::Reconnect, 8),
    (Kind::Wait, 3),
    (Kind::Status, 4),
    (Kind::SlowReader, 2),
    (Kind::SlowWriter, 2),
    (Kind::LeaveDownload, 4),
    (Kind::LeaveUpload, 4),
    (Kind::BrokenOff, 3),
    (Kind::BigHead, 1),
    (Kind::Unknown, 1),
    (Kind::ClosedPort, 1),
];

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    router: SocketAddr,
    sandboxes: Arc<[Arc<Named>]>,
    addresses: Arc<[IpAddr]>,
    ledger: Arc<Ledger>,
    random: fastrand::Rng,
    tasks: Tasks,
    http1: Option<Connection<PatternBody>>,
    http2: Option<Connection<PatternBody>>,
    held: Vec<(WebSocket, Trial)>,
}

/// One request and what held when it began.
#[derive(Clone)]
struct Trial {
    kind: &'static str,
    named: Arc<Named>,
    before: Look,
    number: u64,
    way: Way,
}

/// How a trial ended well.
#[derive(Clone, Copy, Debug)]
enum Done {
    /// With everything that was asked for.
    Complete,
    /// The client left before the end.
    Left,
    /// As it must.
    AsItMust,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Echo => "echo",
            Self::Call => "call",
            Self::Events => "events",
            Self::WebSocket => "websocket",
            Self::Held => "held websocket",
            Self::Reconnect => "get on a new connection",
            Self::Wait => "wait",
            Self::Status => "status",
            Self::SlowReader => "slow reader",
            Self::SlowWriter => "slow writer",
            Self::LeaveDownload => "download left",
            Self::LeaveUpload => "upload left",
            Self::BrokenOff => "broken off by the sandbox",
            Self::BigHead => "head too large",
            Self::Unknown => "unknown sandbox",
            Self::ClosedPort => "closed port",
        }
    }
}

/// What a violation says of it.
impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sandbox = self.named.name();
        let (kind, number) = (self.kind, self.number);
        write!(f, "{kind} of {sandbox} (soak-{number})")
    }
}

impl Trial {
    fn judge(&self, answered: &Identity) -> Result<(), Failure> {
        let judged = self.named.judge(self.before, answered);
        judged.map_err(Failure::Wrong)
    }
}

impl Client {
    pub(super) fn new(
        router: SocketAddr,
        sandboxes: Arc<[Arc<Named>]>,
        addresses: Arc<[IpAddr]>,
        ledger: Arc<Ledger>,
        seed: u64,
    ) -> Self {
        Self {
            router,
            sandboxes,
            addresses,
            ledger,
            random: fastrand::Rng::with_seed(seed),
            tasks: Tasks::new("client"),
            http1: None,
            http2: None,
            held: Vec::new(),
        }
    }

    /// Does one thing after the other until told to stop, and lets go of everything then.
    pub(super) async fn work(mut self, stop: Shutdown) {
        while !stop.is_triggered() {
            let kind = self.choose();
            self.once(kind).await;
            let pause = self.random.u64(..20);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        while let Some((socket, trial)) = self.held.pop() {
            let outcome = tokio::time::timeout(PATIENCE, socket.close()).await;
            self.settle(&trial, outcome.map(|it| it.map(|()| Done::Complete)));
        }
    }

    fn choose(&mut self) -> Kind {
        let all: u32 = KINDS.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.u32(..all);
        for (kind, weight) in KINDS {
            match at.checked_sub(weight) {
                Some(rest) => at = rest,
                None => return kind,
            }
        }
        Kind::Get
    }

    async fn once(&mut self, kind: Kind) {
        if kind == Kind::Held && !self.held.is_empty() {
            return self.use_held().await;
        }
        let Some(trial) = self.trial(kind) else {
            return;
        };
        let outcome = tokio::time::timeout(PATIENCE, self.attempt(kind, &trial)).await;
        if !matches!(outcome, Ok(Ok(Done::Complete))) {
            self.http1 = None;
        }
        if matches!(outcome, Ok(Err(_)) | Err(_)) {
            self.http2 = None;
        }
        // One that is kept is settled when it ends.
        if kind == Kind::Held && matches!(outcome, Ok(Ok(_))) {
            return;
        }
        self.settle(&trial, outcome);
    }

    fn trial(&mut self, kind: Kind) -> Option<Trial> {
        let named = self.random.choice(self.sandboxes.iter())?.clone();
        let before = named.look();
        let (number, id) = self.ledger.open();
        let mut way = Way::to(NAMESPACE, named.name()).with("x-request-id", &id);
        match self.random.u8(..10) {
            0 => {
                if let Some(uid) = named.uid() {
                    way = way.with("x-sandbox-uid", &uid);
                }
            }
            // Mostly another sandbox's address: it must not matter.
            1 => {
                let address = self.random.choice(self.addresses.iter())?;
                way = way.with("x-sandbox-pod-ip", &address.to_string());
            }
            2 => way = way.with("x-sandbox-timeout", "60"),
            _ => {}
        }
        if kind == Kind::ClosedPort {
            way = way.with("x-sandbox-port", CLOSED_PORT);
        }
        if kind == Kind::Unknown {
            way = Way::to(NAMESPACE, "nobody").with("x-request-id", &id);
        }
        Some(Trial {
            kind: kind.name(),
            named,
            before,
            number,
            way,
        })
    }

    fn settle(&self, trial: &Trial, outcome: Result<Result<Done, Failure>, impl fmt::Debug>) {
        let Ok(outcome) = outcome else {
            self.ledger.count(trial.kind, "hangs");
            self.ledger
                .violation(format_args!("{trial:?} did not end in time"));
            return;
        };
        let failure = match outcome {
            Ok(done) => {
                let name = match done {
                    Done::Complete => "complete",
                    Done::Left => "left",
                    Done::AsItMust => "as it must",
                };
                return self.ledger.count(trial.kind, name);
            }
            Err(failure) => failure,
        };
        let mut fatal = trial.named.was_left_alone(trial.before);
        let name = match &failure {
            Failure::Connect(_) => {
                fatal = true;
                "no connection to the router".to_owned()
            }
            Failure::Broken(_) | Failure::Exchange(_) => "broken".to_owned(),
            Failure::Refused { status, reason } => {
                // The router's own answers say so; 500 would be a fault of its own.
                fatal |= reason.is_empty() || *status == StatusCode::INTERNAL_SERVER_ERROR;
                format!("{} {reason}", status.as_u16())
            }
            Failure::Anonymous | Failure::Identity(_) | Failure::Wrong(_) => {
                fatal = true;
                "wrong".to_owned()
            }
        };
        if fatal {
            let cause = std::error::Error::source(&failure);
            self.ledger
                .violation(format_args!("{trial:?}: {failure}: {cause:?}"));
        }
        self.ledger.count(trial.kind, name);
    }

    async fn attempt(&mut self, kind: Kind, trial: &Trial) -> Result<Done, Failure> {
        let size = 1 << self.random.u32(..22);
        let size = self.random.u64(..size);
        match kind {
            Kind::Get => self.whoami(trial).await,
            Kind::Reconnect => {
                self.http1 = None;
                self.whoami(trial).await
            }
            Kind::BigHead => self.big_head().await,
            Kind::Upload => self.upload(trial, PatternBody::new(size), size).await,
            Kind::SlowWriter => {
                let body = PatternBody::new(100_000).at_pace(200_000).without_length();
                self.upload(trial, body, 100_000).await
            }
            Kind::Download => {
                let more = ["", "&chunked=1"];
                let more = self.random.choice(more).unwrap_or_default();
                let path = format!("/bytes?n={size}{more}");
                self.download(trial, &path, size, Duration::ZERO).await
            }
            Kind::SlowReader => {
                let pause = Duration::from_millis(10);
                self.download(trial, "/bytes?n=2000000", 2_000_000, pause)
                    .await
            }
            Kind::Echo => self.echo(trial, size).await,
            Kind::Call => self.call(trial, size).await,
            Kind::Events => self.events(trial).await,
            Kind::WebSocket => self.websocket(trial).await,
            Kind::Held => self.hold(trial).await,
            Kind::Wait => {
                let path = format!("/wait?ms={}", self.random.u32(..300));
                let response = self.get(trial, &path).await?;
                text(response).await.map(|_| Done::Complete)
            }
            Kind::Status => {
                let code = self.random.choice([204, 304, 401, 404, 429, 500, 503]);
                self.status(trial, code.unwrap_or(404)).await
            }
            Kind::LeaveDownload => {
                let mut response = self.get(trial, "/bytes?n=4000000").await?;
                // The first of it, if there is any.
                drop(response.body_mut().frame().await);
                Ok(Done::Left)
            }
            Kind::LeaveUpload => {
                let body = PatternBody::new(4_000_000).breaking_at(size.min(3_000_000));
                match self.post(trial, "/upload", body).await {
                    Ok(_) => Err(Failure::Wrong("half a body was answered".to_owned())),
                    // Cut off by us, or refused before.
                    Err(Failure::Exchange(_) | Failure::Refused { .. }) => Ok(Done::Left),
                    Err(failure) => Err(failure),
                }
            }
            Kind::BrokenOff => {
                let response = self.get(trial, "/bytes?n=3000000&break=300000").await?;
                match drain(response, Duration::ZERO).await {
                    Ok(_) => Err(Failure::Wrong("half a body came to an end".to_owned())),
                    Err(Failure::Exchange(_)) => Ok(Done::AsItMust),
                    Err(other) => Err(other),
                }
            }
            Kind::Unknown => expect(self.get(trial, "/").await, 404, "unknown-sandbox"),
            Kind::ClosedPort => match self.get(trial, "/").await {
                // Its sandbox may just have no pod.
                Err(failure) if !trial.named.was_left_alone(trial.before) => Err(failure),
                outcome => expect(outcome, 502, "dial"),
            },
        }
    }
}
