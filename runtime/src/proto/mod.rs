//! The messages and services of the gRPC face, generated from `proto/` by `cargo xtask generate`.

/// Commands.
pub mod process {
    /// The published version.
    #[allow(
        clippy::pedantic,
        clippy::or_fun_call,
        clippy::allow_attributes_without_reason,
        missing_debug_implementations,
        unreachable_pub,
        unused_qualifications,
        reason = "generated"
    )]
    pub mod v1 {
        include!("process.v1.rs");
    }
}

/// The definitions with their comments, for reflection.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!("process.v1.binpb");
