//! One pod's life.
pub(crate) mod env;
pub(crate) mod fields;
pub(crate) mod probe;
pub(crate) mod references;
pub(crate) mod restart;
