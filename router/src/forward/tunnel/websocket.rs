//! Just enough of RFC 6455 to end a WebSocket politely: where frames begin, and how to say goodbye.
//!
//! The router carries upgraded connections as raw bytes. To close one with a reason it must insert a
//! Close frame between two frames of a side, so each direction's frame headers are followed without
//! keeping or changing anything.

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; MAX_HEADER],
    seen: usize,
    payload: u64,
}

/// Two bytes, eight of length, four of mask.
const MAX_HEADER: usize = 14;
/// "Going away", the code for a server that shuts down or gives up on an idle connection.
pub(super) const GOING_AWAY: u16 = 1001;
/// Longest payload of a control frame.
const MAX_CONTROL: usize = 125;

/// Who a frame is made for, which decides whether it is masked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Peer {
    /// Frames to a client are never masked.
    Client,
    /// Frames to a server always are.
    Sandbox,
}

impl Frames {
    /// Notes that `bytes` have passed.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skip = usize::try_from(self.payload)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                self.payload -= skip as u64;
                bytes = bytes.get(skip..).unwrap_or_default();
                continue;
            }
            if let (Some(slot), Some((first, rest))) =
                (self.header.get_mut(self.seen), bytes.split_first())
            {
                *slot = *first;
                self.seen += 1;
                bytes = rest;
            }
            if let Some(payload) = self.complete() {
                self.payload = payload;
                self.seen = 0;
            }
        }
    }

    /// Whether the next byte begins a frame.
    pub(super) fn is_between(&self) -> bool {
        self.seen == 0 && self.payload == 0
    }

    /// The length of the payload, once the header is complete.
    fn complete(&self) -> Option<u64> {
        let (_, second) = (self.header[0], self.header[1]);
        if self.seen < 2 {
            return None;
        }
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let (extended, length) = match second & 0x7f {
            126 => (
                2,
                u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
            ),
            127 => {
                let long = self
                    .header
                    .iter()
                    .skip(2)
                    .take(8)
                    .fold(0, |length, byte| length << 8 | u64::from(*byte));
                (8, long)
            }
            short => (0, u64::from(short)),
        };
        (self.seen == 2 + extended + mask).then_some(length)
    }
}

/// A Close frame with a code and a reason of at most 123 bytes.
pub(super) fn close_frame(to: Peer, code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason.bytes().take(MAX_CONTROL - payload.len()));
    let length = u8::try_from(payload.len()).unwrap_or_default();
    let mut frame = vec![0x88];
    match to {
        Peer::Client => {
            frame.push(length);
            frame.extend(payload);
        }
        Peer::Sandbox => {
            let [a, b, c, d, ..] = *uuid::Uuid::new_v4().as_bytes();
            let mask = [a, b, c, d];
            frame.push(0x80 | length);
            frame.extend(mask);
            frame.extend(
                payload
                    .iter()
                    .zip(mask.iter().cycle())
                    .map(|(byte, mask)| byte ^ mask),
            );
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x82];
        if length < 126 {
            frame.push(mask | u8::try_from(length).unwrap());
        } else if let Ok(short) = u16::try_from(length) {
            frame.push(mask | 0x7e);
            frame.extend(short.to_be_bytes());
        } else {
            frame.push(mask | 0x7f);
            frame.extend((length as u64).to_be_bytes());
        }
        if masked {
            frame.extend([1, 2, 3, 4]);
        }
        frame.extend(std::iter::repeat_n(0xff, length));
        frame
    }

    proptest! {
        #[test]
        fn boundaries_are_found_however_bytes_are_cut(
            frames in proptest::collection::vec((0_usize..70_000, any::<bool>()), 1..6),
            cuts in proptest::collection::vec(1_usize..3000, 1..40),
        ) {
            let mut boundaries = vec![0];
            let mut stream = Vec::new();
            for (length, masked) in frames {
                stream.extend(frame(length, masked));
                boundaries.push(stream.len());
            }
            let mut follower = Frames::default();
            let mut position = 0;
            let mut cuts = cuts.into_iter().cycle();
            while position < stream.len() {
                let end = (position + cuts.next().unwrap()).min(stream.len());
                follower.pass(&stream[position..end]);
                position = end;
                prop_assert_eq!(follower.is_between(), boundaries.contains(&position));
            }
        }
    }

    #[test]
    fn close_frames_are_well_formed() {
        let frame = close_frame(Peer::Client, GOING_AWAY, "bye");
        assert_eq!(frame, [0x88, 5, 0x03, 0xe9, b'b', b'y', b'e']);
        let masked = close_frame(Peer::Sandbox, GOING_AWAY, "bye");
        assert_eq!(masked[1], 0x85);
        let payload: Vec<u8> = masked[6..]
            .iter()
            .zip(masked[2..6].iter().cycle())
            .map(|(byte, mask)| byte ^ mask)
            .collect();
        assert_eq!(payload, frame[2..]);
        let long = close_frame(Peer::Client, GOING_AWAY, &"x".repeat(500));
        assert_eq!((long[1], long.len()), (125, 127));
    }
}
