//! What an API server must do, checked over the wire and without regard to which server it is.
//!
//! The same tests run against the embedded server and, when `AGENT_SANDBOX_TEST_KUBECONFIG` names a kubeconfig, against
//! that cluster; they must agree. The cluster needs its control plane only.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the whole program is a test"
)]
#![allow(
    clippy::needless_pass_by_value,
    clippy::similar_names,
    reason = "a `patch` goes to a `path`, and bodies are written where they are sent"
)]

mod target;

mod crds;
mod defaults;
mod deletion;
mod discovery;
mod errors;
mod field_validation;
mod metadata;
mod patches;
mod reads;
mod server_side_apply;
mod subresources;
mod tables;
mod validation;
mod watches;
mod writes;
