//! The proxy: one request in, one answer out.
//!
//! The phases of a request, in order, with what can end it early:
//!
//! | phase | what happens | errors |
//! | --- | --- | --- |
//! | check | method, `Host` | 400, 405 |
//! | admit | the caller alone | 401 |
//! | target | routing headers | 400 |
//! | authorize | the caller and the sandbox named | 401, 403, 500 |
//! | enter | limits of the router | 503 |
//! | resolve | the live pod, waiting a moment if need be | 404, 409, 410, 503 |
//! | send | dial, repeated while nothing was sent; then the request | 413, 502, 504 |
//! | answer | the response streams, or the connection becomes a tunnel | broken stream |
//!
//! Nothing is buffered and nothing rewritten beyond the headers named in [`headers`].

use std::sync::Arc;

use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use axum::body::Body;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, UPGRADE};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{Request, Response};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use crate::authz::Subject;
use crate::config::{Adjustable, Config};
use crate::error::{Dialect, Error};
use crate::limits::{Limits, Use};
use crate::resolve::{self, Hint, Resolver, Route};
use crate::server::Peer;
use crate::target::Target;
use crate::upstream::{Head, Http1, Pool};

use self::body::{Answer, ClientBody, RequestBody, ResponseBody, Source};
use self::exchange::Patience;
use self::expect::Gate;
use self::flow::Looks;
use self::headers::Sender;
use self::record::{Outcome, Record, Reporters};
use self::send::Outgoing;
use self::tunnel::Protocol;

pub(crate) mod body;
mod exchange;
mod expect;
mod flow;
mod headers;
pub(crate) mod record;
mod send;
mod tunnel;

/// What every listener of a router shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) limits: Limits,
    pub(crate) reporters: Reporters,
    /// Tunnels and HTTP/2 connections to sandboxes.
    pub(crate) tasks: Tasks,
    /// Given when tunnels must end.
    pub(crate) closing: Shutdown,
}

impl Shared {
    /// The same with what may change changed. Both count together.
    pub(crate) fn adjusted(&self, changes: Adjustable) -> Self {
        Self {
            resolver: self.resolver.clone(),
            limits: self.limits.adjusted(changes.limits),
            reporters: self.reporters.clone(),
            tasks: self.tasks.clone(),
            closing: self.closing.clone(),
            config: self.config.adjusted(changes),
        }
    }
}

/// The proxy of one listener.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
}

/// What a sandbox answered.
enum Reply {
    Answer(Head, Source),
    Upgrade(Box<Upgrade>),
}

/// Both halves of a connection that switches protocols.
struct Upgrade {
    head: Head,
    client: OnUpgrade,
    sandbox: Box<Http1>,
    protocol: Protocol,
}

impl Proxy {
    pub(crate) fn new(shared: Arc<Shared>, pool: Arc<Pool>) -> Self {
        Self { shared, pool }
    }

    /// Answers a request of `peer`, whatever it takes.
    pub(crate) async fn handle(
        &self,
        request: Request<ClientBody>,
        peer: &Peer,
    ) -> Response<Answer> {
        let sender = Sender::new(peer, &self.shared.config.trusted_proxies);
        let looks = Looks::of(request.version());
        let dialect = Dialect::of(request.version(), request.headers());
        let mut record = Box::new(Record::open(
            &self.shared,
            request.method(),
            request.uri(),
            request.headers(),
            peer.address,
        ));
        match self.exchange(&mut record, request, &sender, dialect).await {
            Ok(Reply::Answer(head, source)) => self.answer(record, head, source, looks),
            Ok(Reply::Upgrade(upgrade)) => self.switch(record, *upgrade),
            Err(error) => {
                record.set_status(error.status());
                record.finish(Outcome::Refused(error.reason()));
                error.response(dialect).map(Answer::Router)
            }
        }
    }

    /// Everything up to the head of the sandbox's answer.
    async fn exchange(
        &self,
        record: &mut Record,
        mut request: Request<ClientBody>,
        sender: &Sender<'_>,
        dialect: Dialect,
    ) -> Result<Reply, Error> {
        let Shared { config, limits, .. } = &*self.shared;
        headers::check(&request)?;
        config.authorizer.admit(request.headers())?;
        let target = Target::parse(request.headers())?;
        self.authorize(
            request.headers(),
            target.namespace.as_str(),
            target.id.as_str(),
        )
        .await?;

        let switch = request.extensions_mut().remove::<OnUpgrade>();
        let (mut parts, body) = request.into_parts();
        let protocol = switch.as_ref().and_then(|_| headers::upgrade(&parts));
        let upgrade = switch.filter(|_| protocol.is_some());
        let r#use = if upgrade.is_some() {
            Use::Upgrade
        } else {
            Use::Request
        };
        record.hold(Some(limits.enter(r#use)?));
        if let (Some(limit), Some(length)) = (config.limits.body, content_length(&parts))
            && length > limit
        {
            return Err(Error::BodyTooLarge { limit });
        }

        let patience = config.time.head(target.timeout);
        let deadline = record.flow().start() + patience;
        let looks = Looks::of(parts.version);
        let route = self.route(&parts, &target, deadline).await?;
        record.set_route(&route);
        record.hold(limits.enter_sandbox(r#use, &target, &route)?);
        if r#use == Use::Upgrade {
            let client = headers::client_address(&parts.headers, sender);
            record.hold(limits.enter_client(client)?);
        }

        let is_expected = expect::is_expected(parts.version, &parts.headers);
        let gate = (is_expected && !body.is_end_stream()).then(Gate::new);
        headers::to_sandbox(&mut parts, sender, protocol);
        record.inject(&mut parts.headers);
        let flow = record.flow().clone();
        let path = path(&parts.uri);
        // Whatever travelled with the request inside this process ends here.
        parts.extensions.clear();
        let body = RequestBody::new(body, flow.clone(), config.limits.body, gate);
        let outgoing = Outgoing {
            request: Box::new(Request::from_parts(parts, body)),
            path,
            upgrade,
            patience: Patience::new(flow, patience, looks),
            deadline,
            dialect,
        };
        self.send(record, &target, route, outgoing).await
    }

    async fn authorize(
        &self,
        headers: &http::HeaderMap,
        namespace: &str,
        name: &str,
    ) -> Result<(), Error> {
        let Shared {
            config, reporters, ..
        } = &*self.shared;
        let subject = Subject { namespace, name };
        let verdict = config.authorizer.authorize(headers, subject).await;
        reporters.metrics.authorized(namespace, verdict.is_ok());
        if let Err(error) = &verdict {
            tracing::info!(
                sandbox = name,
                namespace,
                status = error.status().as_u16(),
                %error,
                "request denied"
            );
        }
        verdict
    }

    /// The way to the target. A UID can lead to another sandbox than the one named, which the caller
    /// must then be allowed to reach as well.
    async fn route(
        &self,
        parts: &Parts,
        target: &Target,
        deadline: Instant,
    ) -> Result<Route, Error> {
        let (route, hint) = self.shared.resolver.resolve(target, deadline).await?;
        if let Some(hint) = hint {
            self.shared.reporters.metrics.hint(match hint {
                Hint::Agreed => "agreed",
                Hint::Stale => "stale",
                Hint::Unverified => "unverified",
            });
        }
        let authorizer = &self.shared.config.authorizer;
        // Nobody can say whose address the caller chose.
        if route.source == resolve::Source::PodIp && authorizer.judges_sandboxes() {
            return Err(Error::Forbidden);
        }
        if !authorizer.is_open()
            && let Some(row) = &route.row
            && (*row.namespace != *target.namespace.as_str() || *row.name != *target.id.as_str())
        {
            self.authorize(&parts.headers, &row.namespace, &row.name)
                .await?;
        }
        Ok(route)
    }

    /// Streams an ordinary response.
    fn answer(
        &self,
        mut record: Box<Record>,
        mut head: Head,
        source: Source,
        looks: Looks,
    ) -> Response<Answer> {
        let time = &self.shared.config.time;
        record.set_status(head.status);
        headers::to_client(&mut head.headers);
        let sized = head.headers.contains_key(CONTENT_LENGTH);
        let limits = body::Limits {
            idle: time.idle,
            deadline: time.stream.map(|stream| Instant::now() + stream),
            looks,
        };
        let body = ResponseBody::new(source, record, limits, sized);
        head.response(Answer::Sandbox(body))
    }

    /// Lets a tunnel take over the connection.
    fn switch(&self, mut record: Box<Record>, upgrade: Upgrade) -> Response<Answer> {
        let Upgrade {
            mut head,
            client,
            sandbox,
            protocol,
        } = upgrade;
        record.set_status(head.status);
        let named = head.headers.get(UPGRADE).cloned();
        headers::to_client(&mut head.headers);
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Some(named) = named {
            head.headers.insert(UPGRADE, named);
        }
        let limits = tunnel::Limits {
            idle: self.shared.config.time.upgrade_idle,
            lifetime: self.shared.config.time.upgrade,
            closing: self.shared.closing.clone(),
        };
        let upgrades = self.shared.reporters.metrics.upgrades().clone();
        self.shared.tasks.spawn("tunnel", async move {
            let (sandbox, first) = sandbox.into_upgraded();
            match client.await {
                Ok(client) => {
                    upgrades.inc();
                    let flow = record.flow().clone();
                    let client = TokioIo::new(client);
                    let outcome =
                        tunnel::carry(client, sandbox, first, protocol, &flow, &limits).await;
                    upgrades.dec();
                    record.finish(outcome);
                }
                Err(error) => {
                    tracing::debug!(%error, "the client left before its connection was upgraded");
                }
            }
        });
        head.response(Answer::Router(Body::empty()))
    }
}

/// What is asked for, as a request line can say it: a whole URL may leave its path out.
fn path(uri: &Uri) -> PathAndQuery {
    let given = uri.path_and_query().cloned();
    let path = given.unwrap_or_else(|| PathAndQuery::from_static("/"));
    if path.as_str().starts_with('?') {
        // Its text has the slash, and what it is made of has not.
        return PathAndQuery::try_from(path.to_string()).unwrap_or(path);
    }
    path
}

fn content_length(parts: &Parts) -> Option<u64> {
    parts
        .headers
        .get(CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
