//! The node as an object: registered at start, kept alive by a lease, retired at the end.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::readiness::Gate;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    Namespace, Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::context::Context;
use crate::pod::fields::Allocatable;
use crate::process::isolation::{Isolation, Level};

/// Namespace of node leases.
const LEASES: &str = "kube-node-lease";

/// How long a lease is valid, and how often it is renewed; the kubelet's own values.
const LEASE_SECONDS: i32 = 40;
const RENEW: Duration = Duration::from_secs(10);

/// After how many renewals the conditions are written again.
const STATUS_EVERY: u32 = 30;

/// Pause after a failure at start.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How long the last word may take.
const FAREWELL: Duration = Duration::from_millis(250);

/// Version that the node reports, after the API it speaks.
const VERSION: &str = "v1.36.0";

/// What does not change while a node runs.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) max_pods: usize,
    pub(crate) hostname: String,
    /// When the node began to be what it is.
    pub(crate) since: Timestamp,
}

/// Registers the node, opens the gate, and renews until the order to stop.
pub(crate) async fn run(context: Arc<Context>, profile: Profile, gate: Option<Gate>) {
    let mut pause = RETRY.0;
    let uid = loop {
        match register(&context, &profile).await {
            Ok(uid) => break uid,
            Err(error) => {
                tracing::warn!(%error, "registering the node failed, will try again");
                if let Some(gate) = &gate {
                    gate.set_not_ready(format!("registering the node: {error}"));
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY.1),
            () = context.stopping.triggered() => return,
        }
    };
    if let Some(gate) = &gate {
        gate.set_ready();
    }
    let mut beats = 0;
    loop {
        if let Err(error) = renew(&context, uid.as_deref()).await {
            tracing::debug!(%error, "renewing the node's lease failed");
        }
        tokio::select! {
            () = tokio::time::sleep(RENEW) => {}
            () = context.stopping.triggered() => break,
        }
        beats += 1;
        if beats % STATUS_EVERY == 0
            && let Err(error) = write_status(&context, &profile, Ready::Yes).await
        {
            tracing::debug!(%error, "writing the node's status failed");
        }
    }
    // The API server may be stopping too; then nobody is left to read it.
    let farewell = write_status(&context, &profile, Ready::Stopped);
    if let Ok(Err(error)) = tokio::time::timeout(FAREWELL, farewell).await {
        tracing::debug!(%error, "the node's last status was not written");
    }
}

/// Creates the node or takes over one of the same name; returns its uid.
async fn register(context: &Context, profile: &Profile) -> kube::Result<Option<String>> {
    let api: Api<Node> = Api::all(context.client.clone());
    let node = Node {
        metadata: ObjectMeta {
            name: Some(context.node_name.clone()),
            labels: Some(labels(context, profile)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec::default()),
        status: Some(status(context, profile, Ready::Yes)),
    };
    let created = match api.create(&PostParams::default(), &node).await {
        Ok(created) => created,
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let patch = json!({"metadata": {"labels": node.metadata.labels}});
            let params = PatchParams::default();
            api.patch(&context.node_name, &params, &Patch::Merge(patch))
                .await?
        }
        Err(error) => return Err(error),
    };
    write_status(context, profile, Ready::Yes).await?;
    Ok(created.metadata.uid)
}

async fn write_status(context: &Context, profile: &Profile, ready: Ready) -> kube::Result<()> {
    let api: Api<Node> = Api::all(context.client.clone());
    let patch = json!({"status": status(context, profile, ready)});
    let params = PatchParams::default();
    api.patch_status(&context.node_name, &params, &Patch::Strategic(patch))
        .await?;
    Ok(())
}

async fn renew(context: &Context, uid: Option<&str>) -> kube::Result<()> {
    let leases: Api<Lease> = Api::namespaced(context.client.clone(), LEASES);
    let now = MicroTime(context.clock.now());
    let patch = json!({"spec": {"renewTime": now, "holderIdentity": context.node_name}});
    let params = PatchParams::default();
    match leases
        .patch(&context.node_name, &params, &Patch::Merge(patch))
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        outcome => return outcome.map(drop),
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(context.node_name.clone()),
            namespace: Some(LEASES.into()),
            owner_references: uid.map(|uid| {
                vec![OwnerReference {
                    api_version: "v1".into(),
                    kind: "Node".into(),
                    name: context.node_name.clone(),
                    uid: uid.to_owned(),
                    ..OwnerReference::default()
                }]
            }),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(context.node_name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    let params = PostParams::default();
    match leases.create(&params, &lease).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            create_namespace(&context.client).await?;
            leases.create(&params, &lease).await.map(drop)
        }
        outcome => outcome.map(drop),
    }
}

async fn create_namespace(client: &Client) -> kube::Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(LEASES.into()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    match api.create(&PostParams::default(), &namespace).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// Whether the node takes pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    Yes,
    Stopped,
}

fn labels(context: &Context, profile: &Profile) -> BTreeMap<String, String> {
    let arch = architecture();
    let own = [
        ("kubernetes.io/hostname", context.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
    ];
    let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
    own.into_iter().chain(profile.labels.clone()).collect()
}

fn status(context: &Context, profile: &Profile, ready: Ready) -> NodeStatus {
    let capacity = capacity(context.allocatable, profile.max_pods);
    NodeStatus {
        addresses: Some(addresses(context.host_ip, &profile.hostname)),
        allocatable: Some(capacity.clone()),
        capacity: Some(capacity),
        conditions: Some(conditions(
            &context.isolation,
            ready,
            profile.since,
            context.clock.now(),
        )),
        node_info: Some(system_info()),
        ..NodeStatus::default()
    }
}

fn addresses(ip: IpAddr, hostname: &str) -> Vec<NodeAddress> {
    let address = |kind: &str, address: String| NodeAddress {
        type_: kind.into(),
        address,
    };
    vec![
        address("InternalIP", ip.to_string()),
        address("Hostname", hostname.to_owned()),
    ]
}

fn capacity(allocatable: Allocatable, max_pods: usize) -> BTreeMap<String, Quantity> {
    let kibibytes = |bytes: u64| format!("{}Ki", bytes >> 10);
    [
        ("cpu", allocatable.cpus.to_string()),
        ("memory", kibibytes(allocatable.memory_bytes)),
        ("ephemeral-storage", kibibytes(allocatable.storage_bytes)),
        ("pods", max_pods.to_string()),
    ]
    .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
    .into()
}

fn conditions(
    isolation: &Isolation,
    ready: Ready,
    since: Timestamp,
    now: Timestamp,
) -> Vec<NodeCondition> {
    let condition = |kind: &str, holds: bool, reason: &str, message: String| NodeCondition {
        type_: kind.into(),
        status: if holds { "True" } else { "False" }.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(Time(since)),
    };
    let pressure = |kind: &str, what: &str, reason: &str| {
        condition(
            kind,
            false,
            reason,
            format!("the node does not measure {what}"),
        )
    };
    let reason = match isolation.level() {
        Level::Namespaces => "Namespaces",
        Level::Landlock => "Landlock",
        Level::Plain => "None",
    };
    let missing = isolation.missing().join("; ");
    vec![
        pressure(
            "MemoryPressure",
            "memory pressure",
            "KubeletHasSufficientMemory",
        ),
        pressure("DiskPressure", "disk pressure", "KubeletHasNoDiskPressure"),
        pressure("PIDPressure", "process ids", "KubeletHasSufficientPID"),
        condition(
            "ProcessIsolation",
            isolation.level() != Level::Plain,
            reason,
            format!("{isolation}; not isolated: {missing}"),
        ),
        match ready {
            Ready::Yes => condition("Ready", true, "KubeletReady", "node is running pods".into()),
            Ready::Stopped => NodeCondition {
                last_transition_time: Some(Time(now)),
                ..condition("Ready", false, "NodeStopped", "node was stopped".into())
            },
        },
    ]
}

fn system_info() -> NodeSystemInfo {
    let uname = rustix::system::uname();
    let read = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.trim().to_owned()
    };
    let release = read("/etc/os-release");
    let pretty = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    NodeSystemInfo {
        architecture: architecture().into(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("process://{}", env!("CARGO_PKG_VERSION")),
        kernel_version: uname.release().to_string_lossy().into_owned(),
        kube_proxy_version: String::new(),
        kubelet_version: VERSION.into(),
        machine_id: read("/etc/machine-id"),
        operating_system: "linux".into(),
        os_image: pretty.unwrap_or("Linux").trim_matches('"').to_owned(),
        ..NodeSystemInfo::default()
    }
}

/// The architecture by its name in Go, which Kubernetes uses.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What the machine has.
pub(crate) fn machine(state: &std::path::Path) -> Allocatable {
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let storage =
        rustix::fs::statvfs(state).map_or(0, |stat| stat.f_blocks.saturating_mul(stat.f_frsize));
    let info = rustix::system::sysinfo();
    Allocatable {
        cpus,
        memory_bytes: (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)),
        storage_bytes: storage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::init::message::{Confinement, UserMap};

    #[test]
    fn the_machine_is_described() {
        let machine = machine(std::path::Path::new("/"));
        assert!(machine.cpus > 0 && machine.memory_bytes > 1 << 20 && machine.storage_bytes > 0);
        let capacity = capacity(machine, 7);
        assert_eq!(capacity["pods"].0, "7");
        assert!(capacity["memory"].0.ends_with("Ki"));
        let info = system_info();
        assert!(
            !info.kernel_version.is_empty() && !info.os_image.contains('"'),
            "{info:?}"
        );
    }

    #[test]
    fn conditions_report_readiness_and_isolation() {
        let isolation = Isolation::describe(Confinement::Namespaces(UserMap::Single), vec![]);
        let find = |ready: Ready, kind: &str| {
            let conditions = conditions(
                &isolation,
                ready,
                Timestamp::UNIX_EPOCH,
                Timestamp::UNIX_EPOCH,
            );
            let found = conditions
                .into_iter()
                .find(|condition| condition.type_ == kind);
            found.unwrap()
        };
        assert_eq!(find(Ready::Yes, "Ready").status, "True");
        assert_eq!(find(Ready::Stopped, "Ready").status, "False");
        let isolation = find(Ready::Yes, "ProcessIsolation");
        assert_eq!(isolation.reason.as_deref(), Some("Namespaces"));
        assert!(isolation.message.unwrap().contains("network"));
    }
}
