//! The connection to the API server: HTTP/2 where the server offers it in the TLS handshake, and then
//! exactly one connection per client, however many calls are made at once. A server or proxy that
//! offers only HTTP/1.1, or no TLS, is spoken to through a pool of HTTP/1.1 connections.
//!
//! [`crate::kubeconfig::Connection`] makes clients of it. It never repeats a call that may have
//! reached the server: only those who make calls know whether they may be repeated.

mod open;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use agent_sandbox_service::tasks::Tasks;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::Config;
use kube::client::{Body, ConfigExt};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};

pub use self::open::{OpenError, TargetError};
use self::open::{Target, Wire};

/// How long a connection may take for what, before it is given up.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long opening a connection may take, from the name's resolution to the TLS handshake's end.
    pub open: Duration,
    /// Silence after which the server is asked for a sign of life.
    pub silence: Duration,
    /// How long it may take to give one. Afterwards the connection is closed and its calls fail.
    pub answer: Duration,
    /// A call that was given up after this long without an answer casts doubt on its connection: the
    /// calls after it open a new one.
    pub doubt: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            open: Duration::from_secs(10),
            silence: Duration::from_secs(10),
            answer: Duration::from_secs(10),
            doubt: Duration::from_secs(2),
        }
    }
}

/// One connection to the API server, opened when first used and again whenever it was lost. Clones
/// share it.
#[derive(Clone)]
pub(crate) struct Transport {
    line: Arc<Line>,
}

/// The pool of HTTP/1.1 connections.
type Http1 = BoxCloneSyncService<Request<Body>, Response<Incoming>, BoxError>;
/// A connection being opened, or open: everybody who wants it waits for the same attempt.
type Opening = Shared<BoxFuture<'static, Result<Wire, Arc<OpenError>>>>;

struct Line {
    target: Target,
    patience: Patience,
    state: Mutex<State>,
    http1: Http1,
    tasks: Tasks,
}

#[derive(Default)]
struct State {
    /// How many connections were begun.
    begun: u64,
    current: Option<Opening>,
}

impl Transport {
    /// A connection to the server that `config` names. Nothing is opened yet.
    ///
    /// # Errors
    /// When the server's name or the certificates cannot be used.
    pub(crate) fn new(config: &Config, patience: Patience) -> Result<Self, TargetError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(patience.open));
        let tls = config.rustls_https_connector_with_connector(tcp)?;
        let pool: Pool<_, Body> = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(tls);
        Ok(Self {
            line: Arc::new(Line {
                target: Target::new(config)?,
                patience,
                state: Mutex::default(),
                http1: BoxCloneSyncService::new(pool.map_err(BoxError::from)),
                tasks: Tasks::new("api-connection"),
            }),
        })
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let line = self.line.clone();
        Box::pin(async move { line.call(request).await })
    }
}

/// How often a call looks for a connection that is still open. Only calls of which nothing was sent
/// look again.
const LOOKS: usize = 4;

impl Line {
    async fn call(
        self: Arc<Self>,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, BoxError> {
        for _ in 0..LOOKS {
            let (number, opening) = self.current();
            let mut sender = match opening.await {
                Ok(Wire::Http2(sender)) => sender,
                Ok(Wire::Http1) => return self.http1.clone().oneshot(request).await,
                Err(error) => {
                    self.retire(number);
                    return Err(error.into());
                }
            };
            let doubt = Doubt {
                line: &self,
                number,
                since: Instant::now(),
            };
            let answer = sender.try_send_request(request).await;
            let mut error = match answer {
                Ok(response) => {
                    doubt.dispel();
                    return Ok(response);
                }
                Err(error) => error,
            };
            doubt.dispel();
            if sender.is_closed() {
                self.retire(number);
            }
            let Some(unsent) = error.take_message() else {
                return Err(error.into_error().into());
            };
            self.retire(number);
            request = unsent;
        }
        Err(Arc::new(OpenError::Unstable).into())
    }

    /// The connection in use and its number; begins one if there is none.
    fn current(self: &Arc<Self>) -> (u64, Opening) {
        let mut state = self.state.lock();
        if let Some(opening) = &state.current {
            return (state.begun, opening.clone());
        }
        let (sender, receiver) = oneshot::channel();
        let line = Arc::downgrade(self);
        let (target, patience) = (self.target.clone(), self.patience);
        self.tasks.spawn("connect", async move {
            let opened = target.open(patience).await;
            let (wire, connection) = match opened {
                Ok((wire, connection)) => (Ok(wire), connection),
                Err(error) => (Err(Arc::new(error)), None),
            };
            let failed = sender.send(wire).is_err();
            // What serves the connection ends when the last of its senders is gone.
            if let (Some(connection), Some(line), false) = (connection, line.upgrade(), failed) {
                line.tasks.spawn("connection", connection);
            }
        });
        let opening = receiver
            .map(|opened| opened.unwrap_or_else(|_| Err(Arc::new(OpenError::Interrupted))))
            .boxed()
            .shared();
        state.begun += 1;
        state.current = Some(opening.clone());
        (state.begun, opening)
    }

    /// Opens another connection for the calls to come. Those on the way keep theirs.
    fn retire(&self, number: u64) {
        let mut state = self.state.lock();
        if state.begun == number {
            state.current = None;
        }
    }
}

/// A call that waits for its answer. When it is given up after a long wait, its connection may be
/// dead without anybody having said so.
struct Doubt<'a> {
    line: &'a Line,
    number: u64,
    since: Instant,
}

impl Doubt<'_> {
    /// There was an answer, if only an error.
    fn dispel(mut self) {
        self.number = 0;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if self.number != 0 && self.since.elapsed() >= self.line.patience.doubt {
            self.line.retire(self.number);
        }
    }
}

#[cfg(test)]
mod tests;
