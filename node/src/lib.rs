//! A process-based Kubernetes node: runs Pods as local processes.

mod address;
mod image;
mod objects;
mod pod;
mod process;
mod quantity;
mod state_dir;
#[cfg(test)]
mod test_api;
mod volume;

pub use address::{AddressRange, InvalidRange, RESERVATION_PORT};
pub use image::{Image, ImageError, ImageName, ImageTable, Init, InvalidImageName};
pub use process::init;
pub use process::isolation::{DEFAULT_ID_BASE, Isolation, Level, NoIsolation, Unconfined};
pub use process::spawn::InitProgram;
pub use state_dir::{ClaimData, StateDirError};
