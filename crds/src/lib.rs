//! The four resource kinds of the sandbox platform and everything that follows from their definition alone: names,
//! labels, annotations, conditions, hashes, schemas and the CustomResourceDefinitions themselves.
//!
//! Nothing here talks to a cluster, reads a clock or decides what to do; the programs do. The CRDs are built by
//! [`crd`] from the types of this crate and written into the chart by [`generate`].
//!
//! `CustomResourceExt::crd` of the kinds, which the derive macro provides, has no schema; [`crd`] has the real ones.
//!
//! Both served versions, `v1beta1` and `v1alpha1`, share one schema that is a superset of the two, so one Rust type
//! per kind reads every object and no conversion is needed.

pub mod allocation;
pub mod annotations;
pub mod claim;
pub mod condition;
pub mod crd;
pub mod generate;
pub mod hash;
pub mod json_object;
pub mod labels;
pub mod names;
pub mod pod_template;
pub mod reference;
pub mod sandbox;
pub mod schema;
mod string_enum;
pub mod template;
pub mod warm_pool;
mod yaml;

pub use crate::claim::{SandboxClaim, SandboxClaimSpec, SandboxClaimStatus};
pub use crate::generate::{GeneratedFile, generated_files};
pub use crate::json_object::JsonObject;
pub use crate::pod_template::{Blueprint, PodMetadata, PodTemplate, VolumeClaimTemplate};
pub use crate::reference::ObjectReference;
pub use crate::sandbox::{Sandbox, SandboxSpec, SandboxStatus};
pub use crate::schema::PodSpecSchema;
pub use crate::template::{SandboxTemplate, SandboxTemplateSpec, SandboxTemplateStatus};
pub use crate::warm_pool::{SandboxWarmPool, SandboxWarmPoolSpec, SandboxWarmPoolStatus};

/// The API group of Sandbox.
pub const CORE_GROUP: &str = "agents.x-k8s.io";
/// The API group of SandboxClaim, SandboxTemplate and SandboxWarmPool.
pub const EXTENSIONS_GROUP: &str = "extensions.agents.x-k8s.io";
/// The version that is stored.
pub const STORED_VERSION: &str = "v1beta1";
/// The older version that is still served.
pub const DEPRECATED_VERSION: &str = "v1alpha1";
