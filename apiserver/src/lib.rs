//! An embedded Kubernetes API server, generic over resources.
//!
//! ```text
//!   kube::Client (in process)      kubectl, Helm, SDKs (TLS listener)
//!              \                        /
//!               http    request -> decode -> strategy, schema, patch -> encode
//!                |            \
//!            discovery        registry   what exists: descriptors, built in or from CRDs
//!                               |
//!   background  <-- events --  store     the only owner of state: one revision, windows, watches
//! ```
//!
//! One code path serves every resource; what differs between kinds is data in a
//! [`registry::Descriptor`] or a hook of its [`registry::Strategy`]. The server is for development,
//! tests and local use: it behaves like a real API server or refuses, and it is never a production
//! control plane.

pub mod auth;
pub mod background;
pub mod certificate;
pub mod discovery;
pub mod format;
pub mod http;
mod meta;
pub mod ops;
pub mod patch;
pub mod registry;
pub mod schema;
pub mod selector;
mod server;
pub mod status;
pub mod store;
pub mod stream;
pub mod wire;

pub use server::{Builder, Server, StartError};
