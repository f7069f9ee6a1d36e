//! What every pod's worker shares: how to reach the API, where things are, what there is to give.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::clock::Clock;
use agent_sandbox_service::shutdown::Shutdown;
use kube::Client;

use crate::address::Addresses;
use crate::events::Recorder;
use crate::image::ImageTable;
use crate::objects::ObjectWatches;
use crate::pod::fields::Allocatable;
use crate::pod::probe::ask::Asker;
use crate::process::init::message::{Confinement, UserMap};
use crate::process::isolation::Isolation;
use crate::process::leftovers::Records;
use crate::process::spawn::Spawner;
use crate::roster::Roster;

/// The shared parts of one node.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) node_name: String,
    pub(crate) host_ip: IpAddr,
    pub(crate) allocatable: Allocatable,
    pub(crate) images: ImageTable,
    pub(crate) isolation: Isolation,
    pub(crate) spawner: Spawner,
    pub(crate) records: Arc<Records>,
    pub(crate) asker: Asker,
    pub(crate) addresses: Addresses,
    pub(crate) objects: ObjectWatches,
    pub(crate) recorder: Recorder,
    pub(crate) roster: Roster,
    pub(crate) clock: Clock,
    /// Directories of pods.
    pub(crate) pods: PathBuf,
    /// Data of persistent volume claims.
    pub(crate) claims: PathBuf,
    /// How long containers may take to end when the node stops.
    pub(crate) stop_grace: Duration,
    /// How long a pod that is starting may keep its first status back.
    pub(crate) settle: Duration,
    /// Given when the node stops.
    pub(crate) stopping: Shutdown,
}

impl Context {
    /// First host id of the containers' users, when they are not the node's own user.
    pub(crate) fn id_base(&self) -> Option<u32> {
        match self.isolation.confinement() {
            Confinement::Namespaces(UserMap::Range { base }) => Some(*base),
            Confinement::Namespaces(UserMap::Single) => None,
            Confinement::Landlock { uid_base } | Confinement::Plain { uid_base } => *uid_base,
        }
    }
}
