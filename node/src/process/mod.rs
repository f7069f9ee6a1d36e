//! Processes of containers: how they are confined, started, watched and ended.
//!
//! The rest of the crate asks for a [`container::Container`] and never sees a process id, a
//! namespace or a signal number. Everything that runs between a fork and an exec lives in [`init`].

pub(crate) mod container;
pub mod init;
pub(crate) mod isolation;
pub(crate) mod leftovers;
pub(crate) mod logs;
mod pidfd;
pub(crate) mod proc_stat;
pub(crate) mod spawn;

#[cfg(test)]
mod test_host;
#[cfg(test)]
mod tests;
