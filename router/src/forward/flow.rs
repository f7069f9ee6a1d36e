//! What one exchange has moved so far, shared by the bodies of both directions and the timers that
//! watch them.
//!
//! Timers are lazy: bytes only note the time, and a timer that fires looks at the notes and rearms
//! itself. So a transfer costs no timer operation per chunk.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The progress of one exchange.
#[derive(Debug)]
pub(crate) struct Flow {
    start: Instant,
    /// Milliseconds after `start` at which a byte last moved.
    moved: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    upload: AtomicU8,
}

/// Where the request body stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Upload {
    /// Complete, or there is none.
    Done = 0,
    /// The sandbox has not taken what the client sent.
    Open = 1,
    /// Waiting for the client to send more.
    Starved = 2,
    /// Larger than allowed.
    TooLarge = 3,
    /// The client broke off.
    Broken = 4,
}

impl Flow {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            moved: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            upload: AtomicU8::new(Upload::Done as u8),
        }
    }

    /// When the exchange began.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.touch();
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        self.touch();
    }

    pub(crate) fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    pub(crate) fn set_upload(&self, upload: Upload) {
        self.upload.store(upload as u8, Ordering::Relaxed);
    }

    pub(crate) fn upload(&self) -> Upload {
        match self.upload.load(Ordering::Relaxed) {
            1 => Upload::Open,
            2 => Upload::Starved,
            3 => Upload::TooLarge,
            4 => Upload::Broken,
            _ => Upload::Done,
        }
    }

    /// When nothing will have moved for `quiet`.
    pub(crate) fn quiet_at(&self, quiet: Duration) -> Instant {
        self.start + Duration::from_millis(self.moved.load(Ordering::Relaxed)) + quiet
    }

    fn touch(&self) {
        let elapsed = self.start.elapsed().as_millis();
        self.moved.store(
            u64::try_from(elapsed).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }
}
