//! Directories as tar archives, both ways.
//!
//! Written in GNU format, read in that, in POSIX (pax) and in older ones. Names and sizes are the
//! archive's; where anything is stored is decided by handles alone.

mod pack;
mod source;
mod unpack;

pub use pack::Packing;
pub use unpack::{UnpackError, Unpacked};

/// The unit of the format in bytes.
const BLOCK: usize = 512;

/// How many bytes fill up the last block of `size` bytes.
fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    (BLOCK - over) % BLOCK
}
