//! The server as clients see it, one topic per module.
//!
//! Requests go through the router (to see statuses, headers and bytes) or through `kube::Client`;
//! neither needs a socket. Nothing sleeps: what happens by itself is awaited with a deadline.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::similar_names,
    clippy::unwrap_used,
    reason = "the whole program is a test"
)]

mod apply;
mod churn;
mod controller;
mod definitions;
mod deletion;
mod expiry;
mod garbage;
mod harness;
mod laws;
mod namespaces;
mod pods;
mod reads;
mod restart;
mod rules;
mod streams;
mod watches;
mod wire;
mod writes;
