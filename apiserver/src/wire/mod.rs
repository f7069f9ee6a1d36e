//! How the types of the API look on the wire, beyond plain JSON.
//!
//! `types` is the table of the built-in types' fields. `typed` reads an object the way the real
//! server's typed decoder does (one spelling for quantities and times, no nulls, type errors in its
//! words), and `protobuf` turns protobuf request bodies into the same JSON. Both are driven by the
//! table; neither knows a kind.

pub mod protobuf;
pub mod typed;
mod types;

pub(crate) use types::definition_name;
