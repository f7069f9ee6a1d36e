//! The operator: keeps sandboxes, their claims, templates and warm pools as their specs say, on any
//! Kubernetes API server.
//!
//! ```text
//!   API server ── lists and watches ──> watch ──> store ──> queues, deadlines
//!       ^                                           ^ |             |
//!       |                          own writes, at once| rows        v
//!       |                                           | v          workers
//!       +───────────── act <── plan <── observe <─────────────── (per kind)
//! ```
//!
//! * [`objects`] says what is kept of each kind, [`store`] keeps it and routes changes, [`watch`] feeds
//!   it from the API server. A successful write is in the store before the watch delivers it.
//! * [`sandbox`], [`claim`], [`template`] and [`warm_pool`] each consist of `desired` (what objects
//!   should look like), `plan` (what to do), `status` (what to say), all three pure, and `act`, the only
//!   file that writes.
//! * [`allocation`] is where members of pools are given to claims.
//! * [`queue`] decides when an object is looked at, [`expiry`] when its time is over, [`lanes`] who goes
//!   first, [`lease`] and [`fence`] whether this replica may write at all.
//! * [`trace`] follows work from the client's request to the pod, [`metrics`] counts it.
//! * [`transport`] is the connection that [`api`] calls through, [`kubeconfig`] says where to.
//! * [`app`] puts it together: [`Controller::builder`] with a client, then [`Controller::run`].
//!
//! Nothing here is global: several operators can run in one process, each with its own client, clock
//! and metrics registry.

#![cfg_attr(
    test,
    allow(clippy::needless_pass_by_value, reason = "tests pass JSON literals")
)]

pub mod allocation;
pub mod api;
pub mod app;
pub mod args;
pub mod blueprint;
pub mod calls;
pub mod claim;
pub mod config;
pub mod confirm;
pub mod context;
pub mod error;
pub mod events;
pub mod expiry;
pub mod fence;
pub mod field_tracking;
pub mod fingerprint;
#[cfg(test)]
mod fixtures;
pub mod ident;
pub mod intern;
pub mod json_text;
pub mod kubeconfig;
pub mod lanes;
pub mod lease;
pub mod merge;
pub mod metrics;
pub mod names;
pub mod objects;
pub mod queue;
pub mod sandbox;
pub mod store;
pub mod template;
pub mod trace;
pub mod transport;
pub mod warm_pool;
pub mod watch;

pub use app::{Builder, Controller, ControllerError};
pub use config::Config;
