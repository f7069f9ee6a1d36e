//! What one exchange has moved so far, shared by the bodies of both directions and the timers that
//! watch them.
//!
//! Timers are lazy: bytes only note the time, and a timer that fires looks at the notes and rearms
//! itself. So a transfer costs no timer operation per chunk; and where something else looks at it often
//! enough ([`Looks`]), a wait that ends in time costs none at all.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Version;
use tokio::time::{Instant, Sleep};

use crate::server::TICK;

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

/// How often an exchange is looked at without a timer of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Looks {
    /// At every tick of the client's connection.
    EveryTick,
    /// Never.
    Never,
}

impl Looks {
    /// A request over HTTP/1 is part of its connection's task; a stream of HTTP/2 has its own.
    pub(crate) fn of(version: Version) -> Self {
        if version == Version::HTTP_2 {
            Self::Never
        } else {
            Self::EveryTick
        }
    }

    /// Whether a wait until `at` needs no timer yet.
    fn can_wait(self, at: Instant) -> bool {
        // Twice, because a tick may be late.
        self == Self::EveryTick && Instant::now() + 2 * TICK < at
    }
}

/// A timer that is made when it is needed.
#[derive(Debug)]
pub(crate) struct Timer {
    looks: Looks,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    pub(crate) fn new(looks: Looks) -> Self {
        Self { looks, sleep: None }
    }

    /// Ready at `at`, which may be later than it was in the call before.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        if self.sleep.is_none() && self.looks.can_wait(at) {
            return Poll::Pending;
        }
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        loop {
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if at <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }

    /// Lets go of the timer.
    pub(crate) fn clear(&mut self) {
        self.sleep = None;
    }
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
