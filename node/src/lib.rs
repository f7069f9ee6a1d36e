//! A process-based Kubernetes node: runs Pods as local processes.
//!
//! ```text
//!              API server (kube::Client)
//!     pods, node |  ^ status, events, binding, volumes
//!                v  |
//!   kubelet -- scheduler -- claims -- registration -- events
//!      | one task per pod
//!   pod::worker   plans purely (phase, plan, status), acts through
//!      |-- volume    directories: emptyDir, config maps, secrets, fields, tokens, claims
//!      |-- process   confined processes: namespaces or Landlock, logs, exec
//!      `-- address   a loopback address per pod
//! ```
//!
//! The crate knows Kubernetes and nothing of what runs on it: any pod whose images are in the
//! caller's [`ImageTable`] runs. It is for one machine and for development: pods share the host's
//! network and kernel, and there is no resource accounting.
//!
//! A host program calls [`init::requested`] first thing in `main` and, if so, [`init::main`]; then
//! builds a [`Node`] and runs it.

mod address;
mod claims;
mod context;
mod events;
mod image;
mod kubelet;
mod node;
mod objects;
mod pod;
mod process;
mod quantity;
mod registration;
mod roster;
mod scheduler;
mod server;
mod state_dir;
#[cfg(test)]
mod test_api;
#[cfg(test)]
mod test_wait;
mod volume;

pub use address::{AddressRange, InvalidRange, RESERVATION_PORT};
pub use image::{Image, ImageError, ImageName, ImageTable, Init, InvalidImageName};
pub use node::{BuildError, Node, NodeBuilder};
pub use process::init;
pub use process::isolation::{DEFAULT_ID_BASE, Isolation, Level, NoIsolation, Unconfined};
pub use process::spawn::InitProgram;
pub use state_dir::{ClaimData, StateDirError};
