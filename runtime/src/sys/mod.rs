//! The seam to the kernel: starting a program, looking at exited children, reading `/proc`, and what
//! the owner of a process may do to it.
//!
//! Everything `unsafe` of this crate lives here. Callers are the process engine and the program's
//! start; nothing here keeps state or knows what a command is.

pub(crate) mod children;
pub(crate) mod descriptors;
pub(crate) mod proc;
pub(crate) mod readiness;
pub(crate) mod spawn;
