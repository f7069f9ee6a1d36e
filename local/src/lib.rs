//! `agent-sandbox`: the whole platform on one machine, in one process, without a cluster.
//!
//! ```text
//!   agent-sandbox up
//!     |- API server   embedded, TLS on 127.0.0.1, token in the kubeconfig
//!     |- node         runs Pods as local processes, each on an address of its own
//!     |- controller   the operator, with an in-process client
//!     `- router       HTTP on 127.0.0.1, with an in-process client
//! ```
//!
//! This crate only composes: start order, hand-over, what is printed, and the stop. Everything that
//! runs lives in the crates it wires together.

pub mod api;
pub mod args;
pub mod child;
pub mod definitions;
pub mod images;
pub mod kubeconfig;
pub mod manifest;
pub mod part;
pub mod platform;
pub mod state_dir;
pub mod up;
