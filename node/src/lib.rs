//! A process-based Kubernetes node: runs Pods as local processes.

mod image;
mod process;
mod state_dir;

pub use image::{Image, ImageError, ImageName, ImageTable, Init, InvalidImageName};
pub use process::init;
pub use process::isolation::{DEFAULT_ID_BASE, Isolation, Level, NoIsolation, Unconfined};
pub use process::spawn::InitProgram;
pub use state_dir::{ClaimData, StateDirError};
