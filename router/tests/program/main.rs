//! The router as its operator runs it: a process with flags, an environment, files and signals.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a process of its own does not follow a paused clock"
)]

mod process;

mod configuration;
mod lifecycle;
mod reload;
