//! Discovery documents and OpenAPI, derived from a registry snapshot.
//!
//! Functions of the snapshot alone: `http` calls them and picks the form the client accepts.

pub mod aggregated;
pub mod legacy;
pub mod openapi;

/// Documents that are built at most once per registry snapshot.
#[derive(Debug, Default)]
pub struct DiscoveryCache {}
