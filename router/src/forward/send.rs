//! Sending a request: connections, attempts and their repetition.
//!
//! Called by the exchange once the way is known. A request is repeated only while nothing of it has
//! been sent, within the deadline of its answer, and only to the same sandbox: the caller was
//! allowed to reach no other.

use std::time::Duration;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{Request, StatusCode, Uri, Version};
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::body::{RequestBody, Source};
use super::exchange::{self, ExchangeError, Patience};
use super::flow::Upload;
use super::record::Record;
use super::tunnel::Protocol;
use super::{Proxy, Reply, Shared, Upgrade};
use crate::error::{Dialect, Error};
use crate::resolve::Route;
use crate::target::Target;
use crate::upstream::{DialError, Dialled, Head, Key};

/// A request ready to be sent, wherever it goes.
pub(super) struct Outgoing {
    pub(super) request: Box<Request<RequestBody>>,
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
    /// A connection, but meanwhile the address may be somebody else's; the request is untouched.
    Moved(Box<Outgoing>),
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
            let wait = match self.attempt(target, &route, outgoing).await {
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
                Err(Attempt::Moved(returned)) => {
                    outgoing = *returned;
                    if repetition >= retry.max {
                        let id = target.id.as_str().to_owned();
                        return Err(Error::Unreachable { id });
                    }
                    Duration::ZERO
                }
                Err(Attempt::Dial(failure, returned)) => {
                    outgoing = *returned;
                    let wait = retry.delay(repetition);
                    if repetition >= retry.max || Instant::now() + wait >= outgoing.deadline {
                        return Err(self.give_up(target, &route, &failure));
                    }
                    tracing::debug!(sandbox = %target.id, error = %failure, "dialling again");
                    wait
                }
            };
            repetition += 1;
            record.retried();
            let metrics = &self.shared.reporters.metrics;
            metrics.upstream_retry(namespace(&route));
            tokio::time::sleep(wait).await;
            route = Box::pin(self.route_again(target, &route, outgoing.deadline)).await?;
            record.set_route(&route);
        }
    }

    /// Where the sandbox is now. An address it had before may be another's by now, so without a way
    /// there is no further attempt; and only the same sandbox is tried, because the caller was allowed
    /// to reach no other.
    async fn route_again(
        &self,
        target: &Target,
        before: &Route,
        deadline: Instant,
    ) -> Result<Route, Error> {
        let (route, _) = self.shared.resolver.resolve(target, deadline).await?;
        if same_sandbox(&route, before) {
            Ok(route)
        } else {
            let id = target.id.as_str().to_owned();
            Err(Error::Gone { id })
        }
    }

    /// Whether a connection just made leads to the sandbox still. Dialling takes time, in which a pod can
    /// end and its address be given to another.
    fn is_current(&self, target: &Target, key: &Key) -> bool {
        let now = self.shared.resolver.lookup(target);
        now.is_ok_and(|(route, _)| Key::of(&route) == *key)
    }

    /// One attempt over one connection.
    async fn attempt(
        &self,
        target: &Target,
        route: &Route,
        outgoing: Outgoing,
    ) -> Result<Reply, Attempt> {
        let id = || target.id.as_str().to_owned();
        let key = Key::of(route);
        // What is not done for every request has a future of its own, so that this one stays small.
        if outgoing.dialect == Dialect::Grpc {
            return Box::pin(self.attempt_http2(target, &key, outgoing)).await;
        }
        let (mut connection, is_kept) = if let Some(connection) = self.pool.take(&key) {
            (connection, true)
        } else {
            let timeout = self.dial_timeout(outgoing.deadline);
            match Box::pin(self.pool.dial(&key, timeout)).await {
                Ok(connection) => (connection, false),
                Err(failure) => return Err(Attempt::Dial(failure, Box::new(outgoing))),
            }
        };
        if !is_kept && !self.is_current(target, &key) {
            return Err(Attempt::Moved(Box::new(outgoing)));
        }
        let Outgoing {
            request,
            path,
            upgrade,
            patience,
            deadline,
            dialect,
        } = outgoing;
        let protocol = upgrade.as_ref().map(|_| Protocol::of(request.headers()));
        match exchange::over_http1(&mut connection, request, path.as_str(), &patience).await {
            Ok(head) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                match (upgrade, protocol) {
                    (Some(client), Some(protocol)) => Ok(Reply::Upgrade(Box::new(Upgrade {
                        head,
                        client,
                        sandbox: connection,
                        protocol,
                    }))),
                    _ => Err(Attempt::Final(Error::UnexpectedUpgrade { id: id() })),
                }
            }
            Ok(head) => Ok(Reply::Answer(
                head,
                Source::Http1(connection, self.pool.clone()),
            )),
            Err(ExchangeError::NotSent(request)) if is_kept => {
                Err(Attempt::Stale(Box::new(Outgoing {
                    request,
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
        let (mut sender, is_kept) = if let Some(sender) = self.pool.shared(key) {
            (sender, true)
        } else {
            let (sender, is_kept) = match self.pool.dial_shared(key, timeout).await {
                Ok(Dialled::Here(sender)) => (sender, false),
                Ok(Dialled::Elsewhere(sender)) => (sender, true),
                Err(failure) => return Err(Attempt::Dial(failure, Box::new(outgoing))),
            };
            // Whoever dialled, it took time.
            if !self.is_current(target, key) {
                return Err(Attempt::Moved(Box::new(outgoing)));
            }
            (sender, is_kept)
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
        match exchange::over_http2(&mut sender.requests, *request, &patience).await {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                let head = Head::new(parts.status, parts.headers);
                Ok(Reply::Answer(head, Source::Http2(body)))
            }
            Err(ExchangeError::NotSent(request)) if is_kept => {
                // The shared connection ended in between; the next attempt opens another.
                self.pool.unshare(key, &sender);
                Err(Attempt::Stale(Box::new(Outgoing {
                    request,
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

    fn dial_timeout(&self, deadline: Instant) -> Duration {
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
