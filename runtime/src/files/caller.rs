//! Whether anybody still waits for long work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::FileError;

/// What long work asks between its steps: whether the result is still wanted. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    gone: Arc<AtomicBool>,
}

/// Held by who waits for the result; when it is dropped, the work ends at its next step.
#[derive(Debug)]
pub struct Waiting {
    gone: Arc<AtomicBool>,
}

impl Caller {
    /// A caller, and what it drops when it goes away.
    pub fn new() -> (Self, Waiting) {
        let caller = Self::default();
        let gone = caller.gone.clone();
        (caller, Waiting { gone })
    }

    /// Goes on only while somebody waits.
    ///
    /// # Errors
    /// [`FileError::Cancelled`].
    pub fn check(&self) -> Result<(), FileError> {
        if self.gone.load(Ordering::Relaxed) {
            Err(FileError::Cancelled)
        } else {
            Ok(())
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}
