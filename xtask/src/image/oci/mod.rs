//! Images as archives: layers, configuration, manifest, and the file that holds them.

pub(crate) mod archive;
pub(crate) mod config;
pub(crate) mod layer;
