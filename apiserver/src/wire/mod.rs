//! Wire formats other than JSON.

pub mod protobuf;
