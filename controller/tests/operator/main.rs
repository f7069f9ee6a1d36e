//! The operator as a whole, against a model of the API server with paused time: what clients see, how
//! many writes it takes, and what happens when calls fail, answers are lost, watches lag and replicas
//! come and go.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::float_cmp,
    reason = "tests of JSON read best with indexing and literals, failing loudly is their job, and counts are whole"
)]

mod adoption;
mod allocation;
mod claims;
mod election;
mod endurance;
mod faults;
mod foreign_policies;
mod harness;
#[path = "../kube_model/mod.rs"]
#[allow(dead_code, reason = "the simulation asks more of it")]
mod kube_model;
mod lifecycle;
mod lost_policies;
mod model;
mod ownership;
mod pools;
mod process;
mod reports;
mod sandboxes;
mod templates;
mod tracing;
mod upkeep;
mod warm_claims;
