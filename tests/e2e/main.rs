//! The platform's behaviour, in one process.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "the whole program is a test"
)]

mod claims;
mod endings;
mod node_pods;
mod objects;
mod older_versions;
mod operators;
mod policies;
mod pools;
mod router;
mod sandboxes;
