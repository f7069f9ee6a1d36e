//! The platform's behaviour, in one process.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "the whole program is a test"
)]

mod claims;
mod controller_claims;
mod controller_sandboxes;
mod node_pods;
mod objects;
mod pools;
mod router;
