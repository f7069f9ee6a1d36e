//! Keeping one stream of a command within a limit: its beginning and its end.
//!
//! The beginning says what ran, the end says how it failed; when something must go, it is the middle,
//! and the count of what went is kept.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use super::budget::Share;

/// The kept output of one stream.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Captured {
    /// Everything, or the beginning if something was omitted.
    pub head: Vec<u8>,
    /// How many bytes are missing between `head` and `tail`.
    pub omitted: u64,
    /// The end; empty unless something was omitted.
    pub tail: Vec<u8>,
}

impl Captured {
    /// How many bytes are kept.
    pub fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Whether nothing was written, or nothing kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same within `bytes`, the mark of what is missing included.
    #[must_use]
    pub fn shortened(mut self, bytes: usize) -> Self {
        if self.len() + if self.omitted > 0 { MARK } else { 0 } <= bytes {
            return self;
        }
        let before = self.len();
        let kept = bytes.saturating_sub(MARK);
        let half = kept.div_ceil(2);
        if self.omitted == 0 {
            self.tail = self.head.split_off(half.min(self.head.len()));
        }
        self.head.truncate(half);
        let excess = self.tail.len().saturating_sub(kept - self.head.len());
        self.tail.drain(..excess);
        self.omitted += (before - self.len()) as u64;
        self
    }

    /// Everything in one piece; where something is missing, a line says how much.
    pub fn marked(self) -> Bytes {
        if self.omitted == 0 {
            return self.head.into();
        }
        self.pieces().concat().into()
    }

    /// Everything in order; where something is missing, a line says how much.
    pub fn pieces(self) -> Vec<Bytes> {
        if self.omitted == 0 {
            return vec![self.head.into()];
        }
        let mark = format!("\n[... {} bytes omitted ...]\n", self.omitted);
        vec![self.head.into(), mark.into(), self.tail.into()]
    }

    /// Whether this is the last byte.
    pub fn ends_with(&self, byte: u8) -> bool {
        let end = if self.omitted == 0 {
            &self.head
        } else {
            &self.tail
        };
        end.ends_with(&[byte])
    }
}

/// Room for the mark of what is missing, whatever the number in it.
const MARK: usize = 64;

/// Collects the output of one stream.
#[derive(Debug)]
pub(super) struct Capture {
    head: Vec<u8>,
    head_room: Room,
    tail: VecDeque<Bytes>,
    tail_bytes: usize,
    tail_room: Room,
    omitted: u64,
    share: Share,
}

/// How much a half may hold.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// So much is granted by now.
    granted: usize,
    /// So much it may be at most.
    limit: usize,
}

/// Pieces smaller than this are merged, so that a million one-byte writes do not keep a million
/// buffers.
const PIECE: usize = 4096;
/// What each half has in any case; more comes out of what all commands share, in steps of this size.
const OWN: usize = 32 << 10;

impl Room {
    fn new(limit: usize) -> Self {
        Self {
            granted: limit.min(OWN),
            limit,
        }
    }

    /// Makes room for `bytes` in all, or for as many as can be had.
    fn grow(&mut self, bytes: usize, share: &mut Share) {
        while self.granted < bytes && self.granted < self.limit {
            let step = OWN.min(self.limit - self.granted);
            if share.take(step) {
                self.granted += step;
            } else {
                // What was left out once leaves a gap, so this half never grows again.
                self.limit = self.granted;
            }
        }
    }
}

impl Capture {
    /// Keeps at most `limit` bytes, half of them from the beginning.
    pub(super) fn new(limit: usize, share: Share) -> Self {
        let head = limit.div_ceil(2);
        Self {
            head: Vec::new(),
            head_room: Room::new(head),
            tail: VecDeque::new(),
            tail_bytes: 0,
            tail_room: Room::new(limit - head),
            omitted: 0,
            share,
        }
    }

    pub(super) fn push(&mut self, mut bytes: Bytes) {
        if self.tail.is_empty() && self.omitted == 0 {
            self.head_room
                .grow(self.head.len() + bytes.len(), &mut self.share);
            let room = self.head_room.granted - self.head.len();
            let fits = bytes.split_to(bytes.len().min(room));
            self.head.extend_from_slice(&fits);
        }
        if bytes.is_empty() {
            return;
        }
        self.tail_bytes += bytes.len();
        self.append_tail(bytes);
        self.tail_room.grow(self.tail_bytes, &mut self.share);
        while self.tail_bytes > self.tail_room.granted {
            let excess = self.tail_bytes - self.tail_room.granted;
            let Some(oldest) = self.tail.front_mut() else {
                break;
            };
            let dropped = excess.min(oldest.len());
            oldest.advance(dropped);
            if oldest.is_empty() {
                self.tail.pop_front();
            }
            self.tail_bytes -= dropped;
            self.omitted += dropped as u64;
        }
    }

    fn append_tail(&mut self, bytes: Bytes) {
        match self.tail.back_mut() {
            Some(last) if last.len() + bytes.len() <= PIECE => {
                *last = [last.as_ref(), bytes.as_ref()].concat().into();
            }
            _ => self.tail.push_back(bytes),
        }
    }

    /// The kept output, which counts as collected as long as the share is there.
    pub(super) fn finish(mut self) -> (Captured, Share) {
        let mut tail = Vec::new();
        // When nothing is missing there is no end apart from the whole.
        let target = match self.omitted {
            0 => &mut self.head,
            _ => &mut tail,
        };
        for piece in self.tail {
            target.extend_from_slice(&piece);
        }
        let captured = Captured {
            head: self.head,
            omitted: self.omitted,
            tail,
        };
        (captured, self.share)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::exec::budget::Budget;

    fn capture(limit: usize, pieces: &[&[u8]]) -> Captured {
        capture_of(usize::MAX, limit, pieces)
    }

    fn capture_of(budget: usize, limit: usize, pieces: &[&[u8]]) -> Captured {
        let mut capture = Capture::new(limit, Budget::new(budget).share());
        for piece in pieces {
            capture.push(Bytes::copy_from_slice(piece));
        }
        capture.finish().0
    }

    #[test]
    fn keeps_beginning_and_end() {
        let kept = capture(6, &[b"abcdef", b"ghi", b"jkl"]);
        assert_eq!(
            kept,
            Captured {
                head: b"abc".to_vec(),
                omitted: 6,
                tail: b"jkl".to_vec()
            }
        );
        assert_eq!(capture(6, &[b"ab", b"cdef"]).head, b"abcdef");
        assert_eq!(capture(0, &[b"ab"]).omitted, 2);
    }

    #[test]
    fn without_a_share_of_the_budget_both_ends_are_still_kept() {
        let output: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        let pieces: Vec<&[u8]> = output.chunks(1000).collect();
        for (budget, head, tail) in [
            (0, OWN, OWN),
            (OWN * 3, OWN * 4, OWN),
            (OWN * 30, OWN * 16, OWN * 16),
        ] {
            let kept = capture_of(budget, 1 << 20, &pieces);
            assert!(output.starts_with(&kept.head) && output.ends_with(&kept.tail));
            let lengths = (kept.head.len(), kept.tail.len());
            if budget == OWN * 30 {
                assert_eq!((kept.omitted, kept.head.len()), (0, 1 << 20));
            } else {
                assert_eq!(lengths, (head, tail), "{budget}");
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_uncounted_and_nothing_kept_beyond_the_limit(
            limit in 0usize..64,
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..12),
        ) {
            let all = pieces.concat();
            let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let kept = capture(limit, &slices);
            prop_assert!(kept.head.len() + kept.tail.len() <= limit);
            prop_assert_eq!(kept.head.len() as u64 + kept.omitted + kept.tail.len() as u64, all.len() as u64);
            prop_assert!(all.starts_with(&kept.head) && all.ends_with(&kept.tail));
            prop_assert_eq!(kept.omitted == 0, all.len() <= limit);
        }
    }
}
