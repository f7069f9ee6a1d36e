//! The server as clients see it, one topic per module.
//!
//! Requests go through the router (to see statuses, headers and bytes) or through `kube::Client`;
//! neither needs a socket. Nothing sleeps: what happens by itself is awaited with a deadline.

mod apply;
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
mod streams;
mod watches;
mod wire;
mod writes;
