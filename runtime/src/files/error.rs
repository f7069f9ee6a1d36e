//! Why a file operation failed, in terms a face can turn into its own answers.

use std::io;

use rustix::io::Errno;

/// A failed operation on a path a client sent.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The path, or a link on it, leads out of the root.
    #[error("the path leaves the root directory")]
    Escapes,
    /// The path cannot name a file: it contains a NUL byte.
    #[error("the path contains a NUL byte")]
    Nul,
    /// Something other than a regular file or directory: a FIFO, socket or device.
    #[error("not a regular file")]
    Special,
    /// What was asked for makes no sense; the text says why and what is expected.
    #[error("{0}")]
    Invalid(String),
    /// What is there does not allow it; the text says why.
    #[error("{0}")]
    Conflict(String),
    /// A file is larger than what is taken.
    #[error("the file is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// A directory has more names than a listing holds.
    #[error(
        "the directory has more than {limit} bytes of names; expected fewer, or a pattern that names some of them"
    )]
    Unlistable {
        /// The limit in bytes.
        limit: usize,
    },
    /// The system has no more of something; the text says of what.
    #[error("{0}")]
    Exhausted(String),
    /// The file is not in the state that was the condition.
    #[error("the file is not in the state that the request requires")]
    Condition,
    /// Whoever asked is gone, so the work was not finished.
    #[error("nobody waits for the result any more")]
    Cancelled,
    /// The system refused.
    #[error("{context}")]
    System {
        /// What was being done.
        context: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl FileError {
    pub(super) fn new(context: &'static str, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        if is_escape(&source) {
            return Self::Escapes;
        }
        Self::System { context, source }
    }

    /// The system's error number, if the system refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::System { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }

    /// Whether nothing with this name exists, or can exist.
    pub fn is_absent(&self) -> bool {
        matches!(
            self.errno(),
            Some(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP)
        )
    }

    /// Whether a name or path is longer than the file system allows.
    pub fn is_too_long(&self) -> bool {
        self.errno() == Some(Errno::NAMETOOLONG)
    }

    /// Whether the disk, or the owner's share of it, is full.
    pub fn is_full(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOSPC | Errno::DQUOT))
    }
}

/// How the confinement says that a path leads outside: no error of the system, which has a number.
pub(super) fn is_escape(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()
}
