//! Facts about Kubernetes' types that matter to a CRD embedding them and that their JSON schemas do not carry.
//!
//! Source: the OpenAPI v3 document of Kubernetes 1.36 for list and map types; for defaults, the ones that other
//! implementations of these CRDs declare. Defaults are part of what a template's hash is made of, so none may be added.

use serde_json::{Value, json};

use super::PodSpecSchema;

/// The definition that [`PodSpecSchema`] is about.
pub(crate) const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";

/// Lists that are maps: definition, property, keys.
pub(crate) const LIST_MAPS: &[(&str, &str, &[&str])] = &[
    (POD_SPEC, "containers", &["name"]),
    (POD_SPEC, "ephemeralContainers", &["name"]),
    (POD_SPEC, "hostAliases", &["ip"]),
    (POD_SPEC, "imagePullSecrets", &["name"]),
    (POD_SPEC, "initContainers", &["name"]),
    (POD_SPEC, "resourceClaims", &["name"]),
    (POD_SPEC, "schedulingGates", &["name"]),
    (
        POD_SPEC,
        "topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
    ),
    (POD_SPEC, "volumes", &["name"]),
    (CONTAINER, "env", &["name"]),
    (CONTAINER, "ports", &["containerPort", "protocol"]),
    (CONTAINER, "volumeDevices", &["devicePath"]),
    (CONTAINER, "volumeMounts", &["mountPath"]),
    (EPHEMERAL_CONTAINER, "env", &["name"]),
    (EPHEMERAL_CONTAINER, "ports", &["containerPort", "protocol"]),
    (EPHEMERAL_CONTAINER, "volumeDevices", &["devicePath"]),
    (EPHEMERAL_CONTAINER, "volumeMounts", &["mountPath"]),
    (
        "io.k8s.api.core.v1.ResourceRequirements",
        "claims",
        &["name"],
    ),
];

/// Lists that are sets: definition, property. Every other list is replaced as a whole, which is what an API server
/// assumes of a list that says nothing.
pub(crate) const LIST_SETS: &[(&str, &str)] = &[(
    "io.k8s.api.core.v1.ContainerRestartRuleOnExitCodes",
    "values",
)];

/// Objects that are replaced as a whole, wherever they appear.
pub(crate) const ATOMIC_OBJECTS: &[&str] = &[
    "io.k8s.api.core.v1.ConfigMapKeySelector",
    "io.k8s.api.core.v1.FileKeySelector",
    LOCAL_OBJECT_REFERENCE,
    "io.k8s.api.core.v1.NodeSelector",
    "io.k8s.api.core.v1.NodeSelectorTerm",
    "io.k8s.api.core.v1.ObjectFieldSelector",
    "io.k8s.api.core.v1.ResourceFieldSelector",
    "io.k8s.api.core.v1.SecretKeySelector",
    "io.k8s.api.core.v1.TypedLocalObjectReference",
    "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
];

/// Maps that are replaced as a whole: definition, property.
pub(crate) const ATOMIC_MAPS: &[(&str, &str)] = &[(POD_SPEC, "nodeSelector")];

/// Values the API server fills in: definition, property, value.
pub(crate) const DEFAULTS: &[(&str, &str, Filled)] = &[
    (
        "io.k8s.api.core.v1.AzureDiskVolumeSource",
        "fsType",
        Filled::Text("ext4"),
    ),
    (
        "io.k8s.api.core.v1.AzureDiskVolumeSource",
        "readOnly",
        Filled::False,
    ),
    (
        "io.k8s.api.core.v1.ConfigMapEnvSource",
        "name",
        Filled::Text(""),
    ),
    (
        "io.k8s.api.core.v1.ConfigMapKeySelector",
        "name",
        Filled::Text(""),
    ),
    (
        "io.k8s.api.core.v1.ConfigMapProjection",
        "name",
        Filled::Text(""),
    ),
    (
        "io.k8s.api.core.v1.ConfigMapVolumeSource",
        "name",
        Filled::Text(""),
    ),
    (
        "io.k8s.api.core.v1.ContainerPort",
        "protocol",
        Filled::Text("TCP"),
    ),
    (
        "io.k8s.api.core.v1.FileKeySelector",
        "optional",
        Filled::False,
    ),
    ("io.k8s.api.core.v1.GRPCAction", "service", Filled::Text("")),
    (
        "io.k8s.api.core.v1.ISCSIVolumeSource",
        "iscsiInterface",
        Filled::Text("default"),
    ),
    (LOCAL_OBJECT_REFERENCE, "name", Filled::Text("")),
    (
        "io.k8s.api.core.v1.RBDVolumeSource",
        "keyring",
        Filled::Text("/etc/ceph/keyring"),
    ),
    (
        "io.k8s.api.core.v1.RBDVolumeSource",
        "pool",
        Filled::Text("rbd"),
    ),
    (
        "io.k8s.api.core.v1.RBDVolumeSource",
        "user",
        Filled::Text("admin"),
    ),
    (
        "io.k8s.api.core.v1.ScaleIOVolumeSource",
        "fsType",
        Filled::Text("xfs"),
    ),
    (
        "io.k8s.api.core.v1.ScaleIOVolumeSource",
        "storageMode",
        Filled::Text("ThinProvisioned"),
    ),
    (
        "io.k8s.api.core.v1.SecretEnvSource",
        "name",
        Filled::Text(""),
    ),
    (
        "io.k8s.api.core.v1.SecretKeySelector",
        "name",
        Filled::Text(""),
    ),
    (
        "io.k8s.api.core.v1.SecretProjection",
        "name",
        Filled::Text(""),
    ),
];

const CONTAINER: &str = "io.k8s.api.core.v1.Container";
const EPHEMERAL_CONTAINER: &str = "io.k8s.api.core.v1.EphemeralContainer";
const LOCAL_OBJECT_REFERENCE: &str = "io.k8s.api.core.v1.LocalObjectReference";

/// A default value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Filled {
    Text(&'static str),
    False,
}

impl Filled {
    /// The value as JSON.
    pub(crate) fn to_json(self) -> Value {
        match self {
            Self::Text(text) => json!(text),
            Self::False => json!(false),
        }
    }
}

/// The schema that stands in for a definition as a whole, where one does.
pub(crate) fn replacement(definition: &str, pod_spec: PodSpecSchema) -> Option<Value> {
    match definition {
        POD_SPEC if pod_spec == PodSpecSchema::Lean => Some(lean_pod_spec()),
        // What a quantity looks like is not in its JSON schema, and a misspelt one should not wait for the pod.
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => Some(json!({
            "x-kubernetes-int-or-string": true,
            "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
        })),
        // The metadata of an ephemeral volume's claim template: Kubernetes accepts labels and annotations in it.
        "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" => Some(json!({
            "type": "object",
            "properties": {
                "annotations": { "type": "object", "additionalProperties": { "type": "string" } },
                "labels": { "type": "object", "additionalProperties": { "type": "string" } },
            },
        })),
        _ => None,
    }
}

/// Containers with names, and whatever else was written.
///
/// The lists in it are not maps as in core/v1. An API server records who set each field of each item of a map, and doing
/// that for containers, their environment and their ports costs almost as much per write as checking the whole pod spec.
fn lean_pod_spec() -> Value {
    json!({
        "type": "object",
        "required": ["containers"],
        "properties": {
            "containers": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": { "name": { "type": "string" } },
                    "x-kubernetes-preserve-unknown-fields": true,
                },
            },
        },
        "x-kubernetes-preserve-unknown-fields": true,
    })
}
