//! The platform's behaviour, in one process.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the whole program is a test"
)]

mod claims;
mod endings;
mod faults;
mod idle;
mod node_pods;
mod objects;
mod older_versions;
mod operators;
mod policies;
mod pools;
mod real_nodes;
mod router;
mod sandboxes;
mod scale;
