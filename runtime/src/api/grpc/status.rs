//! What the engines fail with, in the status codes of the service.

use agent_sandbox_service::causes;
use rustix::io::Errno;
use tonic::Status;

use crate::exec::{InputError, SpawnError};
use crate::files::FileError;

/// A working directory that cannot be had.
pub(super) fn directory(error: &FileError) -> Status {
    let text = match error {
        FileError::System { context, source } => format!("cwd: {context}: {source}"),
        other => format!("cwd: {other}"),
    };
    match error {
        FileError::Escapes => Status::permission_denied(text),
        FileError::Nul => Status::invalid_argument(text),
        error if error.is_absent() => Status::not_found(text),
        error if matches!(error.errno(), Some(Errno::ACCESS | Errno::PERM)) => {
            Status::permission_denied(text)
        }
        _ => Status::internal(text),
    }
}

/// A command that was not started.
pub(super) fn spawn(error: &SpawnError) -> Status {
    let text = causes::on_one_line(error);
    match error {
        SpawnError::Empty => {
            Status::invalid_argument("config.command is empty; expected a program")
        }
        SpawnError::Busy { .. } => Status::resource_exhausted(text),
        SpawnError::Closing => Status::unavailable(text),
        SpawnError::Program { .. } => match error.errno() {
            Some(Errno::NOENT | Errno::NOTDIR) => Status::not_found(text),
            Some(Errno::ACCESS | Errno::PERM) => Status::permission_denied(text),
            Some(Errno::TOOBIG | Errno::NAMETOOLONG | Errno::LOOP) => {
                Status::invalid_argument(text)
            }
            _ => Status::internal(text),
        },
        SpawnError::System { .. } => match error.errno() {
            // No descriptors, no memory, no process numbers: a later try may succeed.
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN) => {
                Status::resource_exhausted(text)
            }
            _ => Status::internal(text),
        },
    }
}

/// Input that was not taken.
pub(super) fn input(error: &InputError) -> Status {
    match error {
        InputError::None | InputError::Closed | InputError::Unread => {
            Status::failed_precondition(error.to_string())
        }
        InputError::System(source) => Status::internal(format!("{error}: {source}")),
    }
}
