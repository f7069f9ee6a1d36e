//! The router through a real listener, against scripted sandboxes on loopback.
//!
//! One module per topic. `rig` starts a router, `sandbox` plays the other end, `wire` is a client
//! that sees every byte.

#![allow(
    clippy::disallowed_methods,
    reason = "tests join what they spawn, or it ends with the test's runtime"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::float_cmp,
    reason = "a test fails by panicking; metrics are whole numbers"
)]

mod rig;
mod sandbox;
mod wire;

mod authorization;
mod bodies;
mod drain;
mod errors;
mod forwarding;
mod grpc;
mod hostile;
mod http2_frames;
mod limits;
mod moves;
mod resolution;
mod retries;
mod smuggling;
mod timeouts;
mod tls;
mod tracing;
mod upgrades;
mod watch;
