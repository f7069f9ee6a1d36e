//! Waiting without a thread until a descriptor is readable.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Tells when a descriptor becomes readable.
#[derive(Debug)]
pub(crate) struct Readiness {
    descriptor: AsyncFd<OwnedFd>,
}

impl Readiness {
    /// Registers with the event loop this is called in.
    pub(crate) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        #[expect(
            unsafe_code,
            reason = "the event loop keeps the number of the descriptor"
        )]
        // SAFETY: an `OwnedFd` always names the same descriptor and keeps it open until it is dropped,
        // and `AsyncFd` takes it out of the event loop before that.
        let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
        Ok(Self {
            descriptor: registered?,
        })
    }

    /// Waits until the descriptor is readable. What arrives after that counts for the next time, so
    /// everything that is there must be read in between.
    pub(crate) async fn wait(&self) -> io::Result<()> {
        self.descriptor.readable().await?.clear_ready();
        Ok(())
    }
}
