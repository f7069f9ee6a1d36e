//! Defaults that do not depend on anything: a type, a field of it and a value.
//!
//! Read by the defaulting of built-in kinds only. Types are named without their common prefix,
//! `io.k8s.api.`.

use serde_json::{Map, Value};

/// A value that does not depend on anything.
#[derive(Debug, Clone, Copy)]
pub(super) enum Constant {
    Text(&'static str),
    Number(i64),
    Flag(bool),
    EmptyObject,
}

impl Constant {
    /// The value as it is written into an object.
    pub(super) fn value(self) -> Value {
        match self {
            Self::Text(text) => text.into(),
            Self::Number(number) => number.into(),
            Self::Flag(flag) => flag.into(),
            Self::EmptyObject => Value::Object(Map::new()),
        }
    }
}

use Constant::{EmptyObject, Flag, Number, Text};

/// The mode of files in volumes: `0644`.
const FILE_MODE: Constant = Number(0o644);

/// Type, field and value.
pub(super) const CONSTANTS: &[(&str, &str, Constant)] = &[
    ("core.v1.PodSpec", "restartPolicy", Text("Always")),
    (
        "core.v1.PodSpec",
        "terminationGracePeriodSeconds",
        Number(30),
    ),
    ("core.v1.PodSpec", "dnsPolicy", Text("ClusterFirst")),
    ("core.v1.PodSpec", "securityContext", EmptyObject),
    (
        "core.v1.PodSpec",
        "schedulerName",
        Text("default-scheduler"),
    ),
    (
        "core.v1.Container",
        "terminationMessagePath",
        Text("/dev/termination-log"),
    ),
    (
        "core.v1.Container",
        "terminationMessagePolicy",
        Text("File"),
    ),
    (
        "core.v1.EphemeralContainerCommon",
        "terminationMessagePath",
        Text("/dev/termination-log"),
    ),
    (
        "core.v1.EphemeralContainerCommon",
        "terminationMessagePolicy",
        Text("File"),
    ),
    ("core.v1.ContainerPort", "protocol", Text("TCP")),
    ("core.v1.Probe", "timeoutSeconds", Number(1)),
    ("core.v1.Probe", "periodSeconds", Number(10)),
    ("core.v1.Probe", "successThreshold", Number(1)),
    ("core.v1.Probe", "failureThreshold", Number(3)),
    ("core.v1.HTTPGetAction", "path", Text("/")),
    ("core.v1.HTTPGetAction", "scheme", Text("HTTP")),
    ("core.v1.GRPCAction", "service", Text("")),
    ("core.v1.ObjectFieldSelector", "apiVersion", Text("v1")),
    ("core.v1.SecretVolumeSource", "defaultMode", FILE_MODE),
    ("core.v1.ConfigMapVolumeSource", "defaultMode", FILE_MODE),
    ("core.v1.DownwardAPIVolumeSource", "defaultMode", FILE_MODE),
    ("core.v1.ProjectedVolumeSource", "defaultMode", FILE_MODE),
    (
        "core.v1.ServiceAccountTokenProjection",
        "expirationSeconds",
        Number(3600),
    ),
    ("core.v1.HostPathVolumeSource", "type", Text("")),
    (
        "core.v1.ISCSIVolumeSource",
        "iscsiInterface",
        Text("default"),
    ),
    ("core.v1.RBDVolumeSource", "pool", Text("rbd")),
    ("core.v1.RBDVolumeSource", "user", Text("admin")),
    (
        "core.v1.RBDVolumeSource",
        "keyring",
        Text("/etc/ceph/keyring"),
    ),
    ("core.v1.ServicePort", "protocol", Text("TCP")),
    ("core.v1.ServiceSpec", "sessionAffinity", Text("None")),
    ("core.v1.ServiceSpec", "type", Text("ClusterIP")),
    ("core.v1.EndpointPort", "protocol", Text("TCP")),
    ("core.v1.Secret", "type", Text("Opaque")),
    (
        "core.v1.PersistentVolumeSpec",
        "persistentVolumeReclaimPolicy",
        Text("Retain"),
    ),
    (
        "core.v1.PersistentVolumeSpec",
        "volumeMode",
        Text("Filesystem"),
    ),
    ("core.v1.PersistentVolumeStatus", "phase", Text("Pending")),
    (
        "core.v1.PersistentVolumeClaimSpec",
        "volumeMode",
        Text("Filesystem"),
    ),
    (
        "core.v1.PersistentVolumeClaimStatus",
        "phase",
        Text("Pending"),
    ),
    ("core.v1.NamespaceStatus", "phase", Text("Active")),
    ("apps.v1.DeploymentSpec", "replicas", Number(1)),
    ("apps.v1.DeploymentSpec", "revisionHistoryLimit", Number(10)),
    (
        "apps.v1.DeploymentSpec",
        "progressDeadlineSeconds",
        Number(600),
    ),
    ("apps.v1.DeploymentStrategy", "type", Text("RollingUpdate")),
    (
        "apps.v1.RollingUpdateDeployment",
        "maxUnavailable",
        Text("25%"),
    ),
    ("apps.v1.RollingUpdateDeployment", "maxSurge", Text("25%")),
    ("apps.v1.ReplicaSetSpec", "replicas", Number(1)),
    ("apps.v1.DaemonSetSpec", "revisionHistoryLimit", Number(10)),
    (
        "apps.v1.DaemonSetUpdateStrategy",
        "type",
        Text("RollingUpdate"),
    ),
    (
        "apps.v1.RollingUpdateDaemonSet",
        "maxUnavailable",
        Number(1),
    ),
    ("apps.v1.RollingUpdateDaemonSet", "maxSurge", Number(0)),
    ("apps.v1.StatefulSetSpec", "replicas", Number(1)),
    (
        "apps.v1.StatefulSetSpec",
        "revisionHistoryLimit",
        Number(10),
    ),
    (
        "apps.v1.StatefulSetSpec",
        "podManagementPolicy",
        Text("OrderedReady"),
    ),
    (
        "apps.v1.StatefulSetSpec",
        "persistentVolumeClaimRetentionPolicy",
        EmptyObject,
    ),
    (
        "apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy",
        "whenDeleted",
        Text("Retain"),
    ),
    (
        "apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy",
        "whenScaled",
        Text("Retain"),
    ),
    (
        "apps.v1.RollingUpdateStatefulSetStrategy",
        "partition",
        Number(0),
    ),
    ("batch.v1.CronJobSpec", "concurrencyPolicy", Text("Allow")),
    ("batch.v1.CronJobSpec", "suspend", Flag(false)),
    (
        "batch.v1.CronJobSpec",
        "successfulJobsHistoryLimit",
        Number(3),
    ),
    ("batch.v1.CronJobSpec", "failedJobsHistoryLimit", Number(1)),
    (
        "batch.v1.PodFailurePolicyOnPodConditionsPattern",
        "status",
        Text("True"),
    ),
    ("networking.v1.NetworkPolicyPort", "protocol", Text("TCP")),
    (
        "networking.v1.IngressClassParametersReference",
        "scope",
        Text("Cluster"),
    ),
    ("rbac.v1.RoleRef", "apiGroup", Text(RBAC_GROUP)),
    ("storage.v1.StorageClass", "reclaimPolicy", Text("Delete")),
    (
        "storage.v1.StorageClass",
        "volumeBindingMode",
        Text("Immediate"),
    ),
    (
        "scheduling.v1.PriorityClass",
        "preemptionPolicy",
        Text("PreemptLowerPriority"),
    ),
    ("discovery.v1.EndpointPort", "name", Text("")),
    ("discovery.v1.EndpointPort", "protocol", Text("TCP")),
    (
        "autoscaling.v2.HorizontalPodAutoscalerSpec",
        "minReplicas",
        Number(1),
    ),
    (
        "authentication.v1.TokenRequestSpec",
        "expirationSeconds",
        Number(3600),
    ),
];

pub(super) const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
