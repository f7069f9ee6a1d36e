//! The seam to the kernel: starting a program, looking at exited children, reading `/proc`.
//!
//! Everything `unsafe` of this crate lives here. Callers are the process engine only; nothing here
//! keeps state or knows what a command is.

pub(crate) mod children;
pub(crate) mod descriptors;
pub(crate) mod proc;
pub(crate) mod spawn;
