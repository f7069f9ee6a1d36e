//! Every face over real sockets: one server per test, in a directory of its own.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "this is a test: failing is its job, and it joins what it spawns"
)]

mod daemon;
mod docs;
mod grpc;
mod harness;
mod legacy;
mod lifecycle;
mod limits;
mod listings;
mod metrics;
mod program;
mod secrecy;
mod stalls;
