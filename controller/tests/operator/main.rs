//! The operator as a whole, against a model of the API server with paused time: what clients see, how
//! many writes it takes, and what happens when calls fail, answers are lost, watches lag and replicas
//! come and go.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "tests of JSON read best with indexing and literals, and failing loudly is their job"
)]

mod adoption;
mod claims;
mod election;
mod faults;
mod harness;
#[path = "../kube_model/mod.rs"]
mod kube_model;
mod lifecycle;
mod model;
mod pools;
mod process;
mod reports;
mod sandboxes;
mod templates;
mod tracing;
