//! Building and running a node.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::clock::Clock;
use agent_sandbox_service::readiness::Gate;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use axum::Router;
use kube::Client;

use crate::address::{AddressRange, Addresses};
use crate::context::Context;
use crate::events::{Recorder, Writer};
use crate::image::ImageTable;
use crate::objects::ObjectWatches;
use crate::pod::probe::ask::Asker;
use crate::process::isolation::{DEFAULT_ID_BASE, Isolation, NoIsolation, Unconfined};
use crate::process::leftovers::Records;
use crate::process::spawn::{InitProgram, Spawner};
use crate::registration::{self, Profile};
use crate::roster::Roster;
use crate::state_dir::{ClaimData, StateDir, StateDirError};
use crate::{claims, kubelet, scheduler, server};

/// How long everything but pods may take to stop.
const STOP_TASKS: Duration = Duration::from_secs(2);

/// How much longer than their grace period pods may take to stop.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// Settings of a node; see [`Node::builder`].
pub struct NodeBuilder {
    client: Client,
    name: String,
    state_dir: PathBuf,
    images: ImageTable,
    clock: Clock,
    init: InitProgram,
    addresses: AddressRange,
    host_ip: IpAddr,
    unconfined: Unconfined,
    id_base: u32,
    max_pods: usize,
    stop_grace: Duration,
    settle: Duration,
    claim_data: ClaimData,
    labels: BTreeMap<String, String>,
    gate: Option<Gate>,
}

impl std::fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeBuilder")
            .field("name", &self.name)
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}

/// Why a node cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// Nothing confines pods on this machine.
    #[error(transparent)]
    Isolation(#[from] NoIsolation),
    /// The operating system refused something that every program needs.
    #[error("{action}")]
    System {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl NodeBuilder {
    /// Name of the node (`local`). Must be a DNS name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// What images stand for ([`ImageTable::host_defaults`]).
    #[must_use]
    pub fn images(mut self, images: ImageTable) -> Self {
        self.images = images;
        self
    }

    /// Where the time comes from (the system).
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Which program becomes the init helper ([`InitProgram::current`]).
    #[must_use]
    pub fn init(mut self, init: InitProgram) -> Self {
        self.init = init;
        self
    }

    /// Addresses for pods (`127.100.0.0/16`).
    #[must_use]
    pub fn addresses(mut self, range: AddressRange) -> Self {
        self.addresses = range;
        self
    }

    /// The node's own address (`127.0.0.1`).
    #[must_use]
    pub fn host_ip(mut self, ip: IpAddr) -> Self {
        self.host_ip = ip;
        self
    }

    /// Whether pods may run unconfined when nothing confines them ([`Unconfined::Refuse`]).
    #[must_use]
    pub fn unconfined(mut self, unconfined: Unconfined) -> Self {
        self.unconfined = unconfined;
        self
    }

    /// First host user id for pods when the node has privileges ([`DEFAULT_ID_BASE`]).
    #[must_use]
    pub fn id_base(mut self, base: u32) -> Self {
        self.id_base = base;
        self
    }

    /// How many pods the node takes (1,000).
    #[must_use]
    pub fn max_pods(mut self, pods: usize) -> Self {
        self.max_pods = pods;
        self
    }

    /// How long containers may take to end when the node stops (2 s).
    #[must_use]
    pub fn stop_grace(mut self, grace: Duration) -> Self {
        self.stop_grace = grace;
        self
    }

    /// How long a pod that starts may keep its status back, so that running and ready become one
    /// write (250 ms). A pod that is ready is told at once; one that takes longer is told twice.
    #[must_use]
    pub fn settle(mut self, longest: Duration) -> Self {
        self.settle = longest;
        self
    }

    /// What happens to the data of claims when the node stops ([`ClaimData::Remove`]).
    #[must_use]
    pub fn claim_data(mut self, claim_data: ClaimData) -> Self {
        self.claim_data = claim_data;
        self
    }

    /// Adds a label to the node object.
    #[must_use]
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// A gate that opens when the node is registered.
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Takes the state directory, ends what an earlier node left behind, and finds out how pods can
    /// be confined. Nothing is written to the API yet.
    ///
    /// # Errors
    /// When the state directory is in use or unusable, or when pods cannot be confined.
    pub async fn build(self) -> Result<Node, BuildError> {
        let system = |action| move |source| BuildError::System { action, source };
        let state = StateDir::open(&self.state_dir)?;
        let records = Records::open(state.running()).map_err(system("open process records"))?;
        let killed = records
            .kill_all()
            .map_err(system("end processes of an earlier node"))?;
        if killed > 0 {
            tracing::warn!(killed, "ended processes that an earlier node left behind");
        }
        state.clean()?;
        let records = Arc::new(records);
        let spawner = Spawner::new(self.init).map_err(system("start the spawning thread"))?;
        let isolation = Isolation::detect(
            &spawner,
            &records,
            state.path(),
            self.unconfined,
            self.id_base,
        )
        .await?;
        let (recorder, events) = Recorder::new(self.client.clone(), &self.name, self.clock.clone());
        let watches = Tasks::new("object-watches");
        let context = Context {
            objects: ObjectWatches::new(self.client.clone(), watches),
            asker: Asker::new(spawner.clone()),
            allocatable: registration::machine(state.path()),
            pods: state.pods(),
            claims: state.claims(),
            client: self.client,
            node_name: self.name,
            host_ip: self.host_ip,
            images: self.images,
            isolation,
            spawner,
            records,
            addresses: Addresses::new(self.addresses),
            recorder,
            roster: Roster::default(),
            clock: self.clock.clone(),
            stop_grace: self.stop_grace,
            settle: self.settle,
            stopping: Shutdown::new(),
        };
        let hostname = rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned();
        Ok(Node {
            context: Arc::new(context),
            state,
            events,
            profile: Profile {
                labels: self.labels,
                max_pods: self.max_pods,
                hostname,
                since: self.clock.now(),
            },
            claim_data: self.claim_data,
            gate: self.gate,
        })
    }
}

/// A node that is ready to run.
pub struct Node {
    context: Arc<Context>,
    state: StateDir,
    events: Writer,
    profile: Profile,
    claim_data: ClaimData,
    gate: Option<Gate>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.context.node_name)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Begins the settings of a node that uses `client` and keeps everything beneath `state_dir`.
    pub fn builder(client: Client, state_dir: impl Into<PathBuf>) -> NodeBuilder {
        NodeBuilder {
            client,
            name: "local".into(),
            state_dir: state_dir.into(),
            images: ImageTable::host_defaults(),
            clock: Clock::system(),
            init: InitProgram::current(),
            addresses: AddressRange::default(),
            host_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            unconfined: Unconfined::default(),
            id_base: DEFAULT_ID_BASE,
            max_pods: 1000,
            stop_grace: Duration::from_secs(2),
            settle: Duration::from_millis(250),
            claim_data: ClaimData::default(),
            labels: BTreeMap::new(),
            gate: None,
        }
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.context.node_name
    }

    /// How pods are confined on this machine.
    pub fn isolation(&self) -> &Isolation {
        &self.context.isolation
    }

    /// The kubelet's HTTP routes: `/containerLogs/{namespace}/{pod}/{container}`, `/pods`,
    /// `/healthz`. Usable while and after the node runs.
    pub fn router(&self) -> Router {
        let stopping = self.context.stopping.token();
        server::router(self.context.roster.clone(), stopping)
    }

    /// Runs pods until the order to stop; then ends them all and removes the state directory
    /// (except the data of claims, if that was asked for).
    ///
    /// # Errors
    /// When files of the state directory cannot be removed at the end.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), StateDirError> {
        let Self {
            context,
            state,
            events,
            profile,
            claim_data,
            gate,
        } = self;
        let workers = Tasks::new("pods");
        let tasks = Tasks::new("node");
        let max_pods = profile.max_pods;
        let stopping = context.stopping.clone();
        tasks.spawn(
            "registration",
            registration::run(context.clone(), profile, gate),
        );
        tasks.spawn("scheduler", scheduler::run(context.clone(), max_pods));
        tasks.spawn("claims", claims::run(context.clone(), claim_data));
        tasks.spawn("events", events.run(stopping.clone()));
        tasks.spawn("kubelet", kubelet::run(context.clone(), workers.clone()));
        shutdown.triggered().await;
        stopping.trigger();
        let grace = context.stop_grace + STOP_MARGIN;
        let late_tasks = tasks.shutdown(STOP_TASKS).await;
        let late_pods = workers.shutdown(grace).await;
        if late_tasks + late_pods > 0 {
            tracing::warn!(
                late_tasks,
                late_pods,
                "some parts of the node had to be cut off"
            );
        }
        // The last container handles go with the workers, and whatever still ran with them.
        drop((workers, tasks, context));
        let removed = tokio::task::spawn_blocking(move || state.remove(claim_data)).await;
        removed.unwrap_or(Ok(()))
    }
}
