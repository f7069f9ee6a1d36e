//! A body of the pattern: made as it is read, so that size costs no memory.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Interval};

use super::chunk;

/// Bytes of the pattern, from its beginning.
#[derive(Debug)]
pub struct PatternBody {
    sent: u64,
    length: u64,
    breaks: Option<Break>,
    pace: Option<Pace>,
    sized: bool,
}

/// Where the body breaks off, and when: what was sent before is on its way by then, since whoever sends it has been
/// made to wait.
#[derive(Debug)]
struct Break {
    offset: u64,
    /// Begins when the offset has been reached.
    pause: Option<Interval>,
}

/// So many bytes at every tick.
#[derive(Debug)]
struct Pace {
    ticks: Interval,
    step: u64,
    left: u64,
}

/// How a body ends that was to break off.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the script says to break off here")]
pub struct BreaksOff;

/// How often a bounded pace sends.
const TICK: Duration = Duration::from_millis(20);
const TICKS_PER_SECOND: u64 = 50;

impl PatternBody {
    /// A body of this length.
    pub fn new(length: u64) -> Self {
        Self {
            sent: 0,
            length,
            breaks: None,
            pace: None,
            sized: true,
        }
    }

    /// Sends at most this many bytes in a second.
    #[must_use]
    pub fn at_pace(mut self, per_second: u64) -> Self {
        self.pace = Some(Pace {
            ticks: tokio::time::interval(TICK),
            step: (per_second / TICKS_PER_SECOND).max(1),
            left: 0,
        });
        self
    }

    /// Breaks off after this many bytes.
    #[must_use]
    pub fn breaking_at(mut self, offset: u64) -> Self {
        self.breaks = Some(Break {
            offset,
            pause: None,
        });
        self
    }

    /// Does not say its length beforehand.
    #[must_use]
    pub fn without_length(mut self) -> Self {
        self.sized = false;
        self
    }
}

impl Body for PatternBody {
    type Data = Bytes;
    type Error = BreaksOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BreaksOff>>> {
        let this = self.get_mut();
        let left = this.length - this.sent;
        if left == 0 {
            return Poll::Ready(None);
        }
        let limit = match &mut this.breaks {
            Some(it) if it.offset <= this.sent => {
                let begin = || tokio::time::interval_at(Instant::now() + TICK, TICK);
                ready!(it.pause.get_or_insert_with(begin).poll_tick(cx));
                return Poll::Ready(Some(Err(BreaksOff)));
            }
            Some(it) => left.min(it.offset - this.sent),
            None => left,
        };
        let limit = match &mut this.pace {
            Some(pace) => {
                if pace.left == 0 {
                    ready!(pace.ticks.poll_tick(cx));
                    pace.left = pace.step;
                }
                limit.min(pace.left)
            }
            None => limit,
        };
        let chunk = chunk(this.sent, limit);
        let length = chunk.len() as u64;
        this.sent += length;
        if let Some(pace) = &mut this.pace {
            pace.left -= length;
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.sent == self.length
    }

    fn size_hint(&self) -> SizeHint {
        if self.sized {
            SizeHint::with_exact(self.length - self.sent)
        } else {
            SizeHint::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    /// Otherwise who sends it could throw away the beginning that it has not sent yet.
    #[tokio::test(start_paused = true)]
    async fn who_sends_a_body_waits_before_it_breaks_off_however_late_that_is() {
        let mut body = PatternBody::new(100).breaking_at(50);
        tokio::time::advance(10 * TICK).await;
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap().len(), 50);
        assert!(futures::poll!(body.frame()).is_pending());
        assert_eq!(body.frame().await.unwrap().unwrap_err(), BreaksOff);
    }
}
