//! Root file systems from Debian packages: which ones (a lock file), from where (a mirror), and how they
//! are unpacked. No program of Debian's is needed to build an image, and no privilege.

mod ar;
pub(crate) mod index;
pub(crate) mod lock;
pub(crate) mod mirror;
pub(crate) mod package;
pub(crate) mod release;
mod version;
