//! The operator's settings, validated. `args.rs` makes them from the command line; programs that
//! embed the operator start from [`Config::default`].

use std::net::IpAddr;
use std::time::Duration;

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Watch one namespace only; `None` watches them all.
    pub namespace: Option<String>,
    /// Run the controllers for claims, templates and pools, not only for sandboxes.
    pub extensions: bool,
    /// Suffix of Service names.
    pub cluster_domain: String,
    /// How many objects of a kind are worked on at once.
    pub workers: Workers,
    /// Pools.
    pub pools: PoolSettings,
    /// How long a change of a pod's metadata may wait for others.
    pub write_behind: Duration,
    /// Claims.
    pub claims: ClaimSettings,
    /// Managed network policies.
    pub policy: PolicySettings,
    /// Elect a leader; `None` for a single replica that needs none.
    pub leader_election: Option<LeaderElection>,
    /// Calls per second, without watches; not positive means unlimited.
    pub api_qps: f64,
    /// Calls at once above the rate.
    pub api_burst: u32,
    /// How long one API call may take.
    pub api_timeout: Duration,
    /// Background writes (refills, tidying) in flight at once.
    pub background_writes: usize,
    /// How long background writes yield to claims at most.
    pub background_patience: Duration,
    /// Consider the health of nodes when a member is chosen. Needs permission to watch nodes.
    pub watch_nodes: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namespace: None,
            extensions: true,
            cluster_domain: "cluster.local".to_owned(),
            workers: Workers::default(),
            pools: PoolSettings::default(),
            write_behind: Duration::ZERO,
            claims: ClaimSettings::default(),
            policy: PolicySettings::default(),
            leader_election: None,
            api_qps: -1.0,
            api_burst: 10,
            api_timeout: Duration::from_secs(30),
            background_writes: 16,
            background_patience: Duration::from_secs(1),
            watch_nodes: true,
        }
    }
}

/// How many objects of a kind are worked on at once.
#[derive(Clone, Copy, Debug)]
pub struct Workers {
    /// Sandboxes.
    pub sandboxes: usize,
    /// Claims.
    pub claims: usize,
    /// Templates.
    pub templates: usize,
    /// Pools.
    pub pools: usize,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            sandboxes: 100,
            claims: 50,
            templates: 1,
            pools: 1,
        }
    }
}

/// Pools.
#[derive(Clone, Copy, Debug)]
pub struct PoolSettings {
    /// Members created or deleted in one pass.
    pub max_batch: usize,
    /// How long a pool waits after losing members before it is refilled.
    pub replenish_delay: Duration,
    /// Members created per second and pool; 0 is unlimited.
    pub max_refill_rate: f64,
    /// How long a member may stay unready before it is replaced.
    pub readiness_grace: Duration,
    /// How often a pool with unschedulable members is looked at.
    pub unschedulable_recheck: Duration,
    /// Let autoscalers evict members nobody has claimed.
    pub eviction: bool,
    /// The most members a pool may have, whatever its spec says.
    pub replica_cap: i32,
    /// The least time between two writes of one pool's status.
    pub status_interval: Duration,
    /// How long a member that ran to its end is kept before it is replaced, so that a template that
    /// cannot run does not become a loop of creating and deleting.
    pub finished_grace: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            max_batch: 300,
            replenish_delay: Duration::ZERO,
            max_refill_rate: 0.0,
            readiness_grace: Duration::from_secs(300),
            unschedulable_recheck: Duration::from_secs(60),
            eviction: true,
            replica_cap: 10_000,
            status_interval: Duration::from_millis(500),
            finished_grace: Duration::from_secs(30),
        }
    }
}

/// Claims.
#[derive(Clone, Debug)]
pub struct ClaimSettings {
    /// Record events on claims.
    pub events: bool,
    /// Record an event for every warm adoption too. It costs one write per claim and says what the
    /// claim's status says.
    pub adoption_events: bool,
    /// Write first-observed and first-ready times, and the sandbox's name, as annotations. One more
    /// write per claim, after it is Ready.
    pub annotations: bool,
    /// Domains that labels in `additionalPodMetadata` may use.
    pub label_domains: Vec<String>,
}

impl Default for ClaimSettings {
    fn default() -> Self {
        Self {
            events: true,
            adoption_events: false,
            annotations: false,
            label_domains: vec![DEFAULT_LABEL_DOMAIN.to_owned()],
        }
    }
}

/// The label domain claims may use unless a list is configured.
pub const DEFAULT_LABEL_DOMAIN: &str = "sandbox.users.io";

/// Managed network policies and the DNS settings that go with them.
#[derive(Clone, Debug)]
pub struct PolicySettings {
    /// Namespace of the router.
    pub router_namespace: String,
    /// Value of the router pods' `app` label.
    pub router_app: String,
    /// Resolvers for pods under the default policy, which blocks the cluster's own.
    pub resolvers: Vec<IpAddr>,
    /// Use exactly the address ranges that older releases blocked, without the ones added since.
    pub legacy_ranges: bool,
    /// Name no IPv6 ranges: where pods have no such addresses, and for enforcers that refuse a policy
    /// which names them. Traffic over IPv6 is then not allowed at all.
    pub ipv4_only: bool,
    /// More ranges to block, such as the public addresses of API server and nodes.
    pub blocked: Vec<String>,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            router_namespace: agent_sandbox_crds::names::SYSTEM_NAMESPACE.to_owned(),
            router_app: agent_sandbox_crds::names::ROUTER_APP.to_owned(),
            resolvers: vec![[8, 8, 8, 8].into(), [1, 1, 1, 1].into()],
            legacy_ranges: false,
            ipv4_only: false,
            blocked: Vec::new(),
        }
    }
}

/// Leader election.
#[derive(Clone, Debug)]
pub struct LeaderElection {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// This replica.
    pub identity: String,
    /// How long a lease lasts.
    pub duration: Duration,
    /// How long a leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// How long to wait between tries.
    pub retry: Duration,
}

impl LeaderElection {
    /// The usual lease, for this replica.
    pub fn new(namespace: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: agent_sandbox_crds::names::LEADER_LEASE.to_owned(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}
