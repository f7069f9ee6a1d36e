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
use crate::config::{Config, Drain, Limits, Network, PoolLimits, Resolution, Retry, Time};
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
}

/// Where the router learns of sandboxes.
#[derive(Debug)]
pub enum Source {
    /// From watches.
    Watch,
    /// From the command line: these, and no others.
    Fixed(Arc<Table>),
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

impl Settings {
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
