//! Sending a request: connections, attempts and their repetition.
//!
//! Called by the exchange once the way is known. A request is repeated only while nothing of it has
//! been sent, within the deadline of its answer, and only to the same sandbox: the caller was
//! allowed to reach no other.

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{Request, StatusCode, Uri, Version};
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::body::{Carrier, RequestBody};
use super::exchange::{self, ExchangeError, Patience};
use super::flow::Upload;
use super::record::Record;
use super::tunnel::Protocol;
use super::{Proxy, Reply, Shared, Upgrade};
use crate::error::{Dialect, Error};
use crate::pool::{DialError, Key};
use crate::resolve::Route;
use crate::target::Target;

/// A request ready to be sent, wherever it goes.
pub(super) struct Outgoing {
    pub(super) request: Request<RequestBody>,
    pub(super) path: PathAndQuery,
    pub(super) upgrade: Option<OnUpgrade>,
    pub(super) patience: Patience,
    pub(super) deadline: Instant,
    pub(super) dialect: Dialect,
}

/// Why an attempt brought no answer.
enum Attempt {
    /// No connection; the request is untouched.
    Dial(DialError, Box<Outgoing>),
    /// A kept connection had ended; the request is untouched.
    Stale(Box<Outgoing>),
    /// The request may have been sent.
    Final(Error),
}

impl Proxy {
    /// Sends the request, dialling again while nothing of it was sent.
    pub(super) async fn send(
        &self,
        record: &mut Record,
        target: &Target,
        mut route: Route,
        mut outgoing: Outgoing,
    ) -> Result<Reply, Error> {
        let retry = &self.shared.config.retry;
        let mut repetition = 0;
        loop {
            let failure = match self.attempt(target, &route, outgoing).await {
                Ok(answer) => return Ok(answer),
                Err(Attempt::Final(error)) => {
                    self.report(&route, &error);
                    return Err(error);
                }
                Err(Attempt::Stale(returned)) => {
                    // Idle connections that had died are not the sandbox's answer.
                    outgoing = *returned;
                    continue;
                }
                Err(Attempt::Dial(failure, returned)) => {
                    outgoing = *returned;
                    failure
                }
            };
            let wait = retry.delay(repetition);
            if repetition >= retry.max || Instant::now() + wait >= outgoing.deadline {
                return Err(self.give_up(target, &route, &failure));
            }
            repetition += 1;
            record.retried();
            let metrics = &self.shared.reporters.metrics;
            metrics.upstream_retry(namespace(&route));
            tracing::debug!(sandbox = %target.id, error = %failure, "dialling again");
            tokio::time::sleep(wait).await;
            // The pod may have moved meanwhile. Only the same sandbox is tried: the caller was
            // allowed to reach no other.
            if let Ok((newer, _)) = self.shared.resolver.lookup(target)
                && same_sandbox(&newer, &route)
            {
                route = newer;
                record.set_route(&route);
            }
        }
    }

    /// One attempt over one connection.
    async fn attempt(
        &self,
        target: &Target,
        route: &Route,
        mut outgoing: Outgoing,
    ) -> Result<Reply, Attempt> {
        let id = || target.id.as_str().to_owned();
        let key = Key::of(route);
        // What is not done for every request has a future of its own, so that this one stays small.
        if outgoing.dialect == Dialect::Grpc {
            return Box::pin(self.attempt_http2(target, &key, outgoing)).await;
        }
        let (connection, reused) = if let Some(connection) = self.pool.take(&key) {
            (connection, true)
        } else {
            let timeout = self.dial_timeout(outgoing.deadline);
            match Box::pin(self.pool.dial(&key, timeout)).await {
                Ok(connection) => (connection, false),
                Err(failure) => return Err(Attempt::Dial(failure, Box::new(outgoing))),
            }
        };
        let headers = outgoing.request.headers_mut();
        headers.insert(HOST, connection.host().clone());
        *outgoing.request.version_mut() = Version::HTTP_11;
        *outgoing.request.uri_mut() = Uri::from(outgoing.path.clone());
        let Outgoing {
            request,
            path,
            upgrade,
            patience,
            deadline,
            dialect,
        } = outgoing;
        let protocol = upgrade.as_ref().map(|_| Protocol::of(request.headers()));
        match exchange::over_http1(connection, request, &patience).await {
            Ok((response, sandbox)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                match (upgrade, protocol) {
                    (Some(client), Some(protocol)) => Ok(Reply::Upgrade(Box::new(Upgrade {
                        response,
                        client,
                        sandbox,
                        protocol,
                    }))),
                    _ => Err(Attempt::Final(Error::UnexpectedUpgrade { id: id() })),
                }
            }
            Ok((response, sandbox)) => Ok(Reply::Response(
                response,
                Carrier::Http1(sandbox, self.pool.clone()),
            )),
            Err(ExchangeError::NotSent(request)) if reused => {
                Err(Attempt::Stale(Box::new(Outgoing {
                    request: *request,
                    path,
                    upgrade,
                    patience,
                    deadline,
                    dialect,
                })))
            }
            Err(error) => Err(Attempt::Final(self.failure(&patience, &error, id()))),
        }
    }

    async fn attempt_http2(
        &self,
        target: &Target,
        key: &Key,
        mut outgoing: Outgoing,
    ) -> Result<Reply, Attempt> {
        let id = || target.id.as_str().to_owned();
        let host = match key.host() {
            Ok(host) => host,
            Err(failure) => return Err(Attempt::Dial(failure, Box::new(outgoing))),
        };
        let timeout = self.dial_timeout(outgoing.deadline);
        let (mut sender, reused) = match self.pool.shared(key) {
            Some(sender) => (sender, true),
            None => match self.pool.dial_shared(key, timeout).await {
                Ok(sender) => (sender, false),
                Err(failure) => return Err(Attempt::Dial(failure, Box::new(outgoing))),
            },
        };
        let uri = Uri::builder()
            .scheme("http")
            .authority(host.as_bytes())
            .path_and_query(outgoing.path.clone())
            .build()
            .map_err(|_| Attempt::Final(Error::Dial { id: id() }))?;
        outgoing.request.headers_mut().remove(HOST);
        *outgoing.request.version_mut() = Version::HTTP_2;
        *outgoing.request.uri_mut() = uri;
        let Outgoing {
            request, patience, ..
        } = outgoing;
        match exchange::over_http2(&mut sender, request, &patience).await {
            Ok(response) => Ok(Reply::Response(response, Carrier::Http2)),
            Err(ExchangeError::NotSent(request)) if reused => {
                // The shared connection ended in between; the next attempt opens another.
                self.pool.unshare(key);
                Err(Attempt::Stale(Box::new(Outgoing {
                    request: *request,
                    patience,
                    path: outgoing.path,
                    upgrade: outgoing.upgrade,
                    deadline: outgoing.deadline,
                    dialect: outgoing.dialect,
                })))
            }
            Err(error) => Err(Attempt::Final(self.failure(&patience, &error, id()))),
        }
    }

    /// The answer for a client whose request was sent in vain.
    fn failure(&self, patience: &Patience, error: &ExchangeError, id: String) -> Error {
        tracing::debug!(sandbox = id, %error, "exchange failed");
        match (patience.flow().upload(), error) {
            (Upload::TooLarge, _) => Error::BodyTooLarge {
                limit: self.shared.config.limits.body.unwrap_or_default(),
            },
            (Upload::Broken, _) => {
                Error::BadRequest("The request body is malformed or was cut off.")
            }
            (_, ExchangeError::TimedOut) => Error::Timeout { id },
            (_, ExchangeError::Stalled) => Error::BodyStalled,
            (_, ExchangeError::Broken(_) | ExchangeError::NotSent(_)) => Error::Broken { id },
        }
    }

    /// No connection could be made, and no more attempts are due.
    fn give_up(&self, target: &Target, route: &Route, failure: &DialError) -> Error {
        let Shared {
            resolver,
            reporters,
            ..
        } = &*self.shared;
        tracing::warn!(
            sandbox = %target.id,
            namespace = %target.namespace,
            source = route.source.as_str(),
            error = %failure,
            "upstream connect failure"
        );
        reporters
            .metrics
            .upstream_error(namespace(route), failure.reason());
        // A refusal proves that somebody lives at the address.
        if failure.is_unreachable()
            && resolver.set_unreachable(route)
            && let Some(namespace) = namespace(route)
        {
            reporters.metrics.invalidated(namespace);
        }
        Error::Dial {
            id: target.id.as_str().to_owned(),
        }
    }

    fn report(&self, route: &Route, error: &Error) {
        let reason = match error {
            Error::Timeout { .. } => "timeout",
            Error::Broken { .. } => "eof",
            Error::UnexpectedUpgrade { .. } | Error::Dial { .. } => "other",
            _ => return,
        };
        let metrics = &self.shared.reporters.metrics;
        metrics.upstream_error(namespace(route), reason);
    }

    fn dial_timeout(&self, deadline: Instant) -> std::time::Duration {
        deadline
            .saturating_duration_since(Instant::now())
            .min(self.shared.config.time.connect)
    }
}

/// The namespace label of a route: known only to the table.
fn namespace(route: &Route) -> Option<&str> {
    route.row.as_ref().map(|row| &*row.namespace)
}

fn same_sandbox(one: &Route, other: &Route) -> bool {
    match (&one.row, &other.row) {
        (Some(one), Some(other)) => one.namespace == other.namespace && one.name == other.name,
        (None, None) => true,
        _ => false,
    }
}
