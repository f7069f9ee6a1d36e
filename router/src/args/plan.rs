//! What the flags decide: everything the program does, checked.
//!
//! Made by [`Args::plan`](super::Args::plan) and taken apart by the program; nothing here can be
//! wrong any more.

use std::path::PathBuf;
use std::sync::Arc;

use agent_sandbox_service::args::LogArgs;
use agent_sandbox_service::otlp::OtlpSettings;

use super::{AuthzPlan, Listeners};
use crate::authz::Authorizer;
use crate::config::{
    Adjustable, Config, Drain, Limits, Network, PoolLimits, Resolution, Retry, Time,
};
use crate::resolve::table::Table;
use crate::tls;

/// Everything the program does, decided and checked.
#[derive(Debug)]
pub struct Plan {
    /// Where it listens.
    pub listeners: Listeners,
    /// Certificates for the HTTPS listener.
    pub tls: Option<tls::Files>,
    /// Where the router learns of sandboxes.
    pub source: Source,
    /// Kubeconfig file, when not the default.
    pub kubeconfig: Option<PathBuf>,
    /// How callers are judged.
    pub authz: AuthzPlan,
    /// Everything else, with the authorizer to be filled in.
    pub settings: Settings,
    /// What is logged, and how.
    pub log: LogArgs,
    /// What was given and is ignored, to be said once the program can log.
    pub warnings: Vec<String>,
}

/// Where the router learns of sandboxes.
#[derive(Debug)]
pub enum Source {
    /// From watches.
    Watch,
    /// From the command line: these, and no others.
    Fixed {
        /// The sandboxes.
        table: Arc<Table>,
        /// The same as it was written.
        given: String,
    },
    /// Nowhere: their names are resolved.
    Dns,
}

/// A [`Config`] without its authorizer, which may need a cluster to be made.
#[derive(Debug)]
pub struct Settings {
    pub(super) resolution: Resolution,
    pub(super) time: Time,
    pub(super) retry: Retry,
    pub(super) limits: Limits,
    pub(super) pool: PoolLimits,
    pub(super) drain: Drain,
    pub(super) trusted_proxies: Vec<Network>,
    pub(super) access_log: bool,
    pub(super) traces: Option<OtlpSettings>,
}

/// What a plan says of everything that cannot change while the router runs, to be compared with what
/// a later one says.
#[derive(Debug)]
pub struct Lasting(Vec<(&'static str, String)>);

impl Plan {
    /// What cannot change while the router runs.
    pub fn lasting(&self) -> Lasting {
        let Self {
            listeners,
            tls,
            source,
            kubeconfig,
            authz,
            settings,
            log,
            warnings: _,
        } = self;
        let Settings {
            resolution,
            time,
            retry: _,
            limits,
            pool,
            drain,
            trusted_proxies: _,
            access_log,
            traces,
        } = settings;
        let source = match source {
            Source::Watch => "watch",
            Source::Fixed { given, .. } => given,
            Source::Dns => "DNS",
        };
        let connections = (
            time.request_header,
            time.keep_alive,
            limits.head,
            limits.connections,
        );
        Lasting(vec![
            ("listeners", format!("{listeners:?}")),
            ("TLS", format!("{tls:?}")),
            (
                "resolution",
                format!("{resolution:?} {source:?} {kubeconfig:?}"),
            ),
            ("authorization", format!("{authz:?}")),
            ("client connections", format!("{connections:?}")),
            ("connections to sandboxes", format!("{pool:?}")),
            ("shutdown", format!("{drain:?}")),
            ("logging", format!("{access_log} {log:?}")),
            ("tracing", format!("{traces:?}")),
        ])
    }
}

impl Lasting {
    /// What differs, in words for a log.
    pub fn differences(&self, later: &Self) -> Vec<&'static str> {
        self.0
            .iter()
            .zip(&later.0)
            .filter(|(now, then)| now != then)
            .map(|((what, _), _)| *what)
            .collect()
    }
}

impl Settings {
    /// What may change while the router runs.
    pub fn adjustable(&self) -> Adjustable {
        Adjustable {
            time: self.time,
            retry: self.retry,
            limits: self.limits,
            trusted_proxies: self.trusted_proxies.clone(),
        }
    }

    /// The configuration with this authorizer.
    pub fn with(self, authorizer: Authorizer) -> Config {
        let Self {
            resolution,
            time,
            retry,
            limits,
            pool,
            drain,
            trusted_proxies,
            access_log,
            traces,
        } = self;
        Config {
            resolution,
            time,
            retry,
            limits,
            authorizer: Arc::new(authorizer),
            trusted_proxies,
            pool,
            drain,
            access_log,
            traces,
        }
    }
}
