//! Directories as JSON arrays, written piece by piece.
//!
//! An array that fits one piece is sent whole, as any other answer. Of a longer one no more is held than
//! the names and a piece: the next is written when the client has taken the one before, and no thread
//! waits meanwhile.

use std::io;

use axum::body::Body;
use axum::http::Response;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::Serialize;
use tokio::task::{JoinError, spawn_blocking};

use crate::files::{Caller, FileError, Listed, Listing, Root, TreePath};

/// What a face puts around the entries, and what it makes of one.
pub(crate) struct Frame<E> {
    /// The text before the first entry.
    pub(crate) before: String,
    /// The text behind the last entry.
    pub(crate) after: &'static str,
    /// `None` for entries that are not told.
    pub(crate) entry: fn(Listed) -> Option<E>,
}

/// A piece is sent when it has so many bytes,
const PIECE: usize = 64 << 10;
/// or so many entries were looked at.
const ENTRIES: usize = 1024;

/// The entries of a directory. What cannot be listed is an error; of what vanishes while the answer is on
/// its way nothing is told.
pub(crate) async fn answer<E: Serialize + 'static>(
    root: &Root,
    path: TreePath,
    frame: Frame<E>,
) -> Result<Result<Response<Body>, FileError>, JoinError> {
    let root = root.clone();
    let (caller, _waiting) = Caller::new();
    let begun = spawn_blocking(move || {
        let listing = root.list(&path, &caller)?;
        Writing::new(listing, frame).piece()
    });
    let (first, rest) = match begun.await? {
        Ok(begun) => begun,
        Err(error) => return Ok(Err(error)),
    };
    let body = match rest {
        None => Body::from(first),
        Some(rest) => {
            let first = stream::iter([Ok(first)]);
            Body::from_stream(first.chain(stream::unfold(Some(rest), following)))
        }
    };
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(Ok(response))
}

/// The next piece, and what is still to be written. What fails now breaks the connection off, so that the
/// client knows that something is missing.
async fn following<E: Serialize + 'static>(
    rest: Option<Writing<E>>,
) -> Option<(io::Result<Bytes>, Option<Writing<E>>)> {
    let rest = rest?;
    Some(match spawn_blocking(move || rest.piece()).await {
        Ok(Ok((piece, rest))) => (Ok(piece), rest),
        Ok(Err(error)) => (Err(io::Error::other(error)), None),
        Err(error) => (Err(io::Error::other(error)), None),
    })
}

/// An array that is not complete yet.
struct Writing<E> {
    listing: Listing,
    frame: Frame<E>,
    /// Whether an entry was written.
    begun: bool,
}

impl<E: Serialize> Writing<E> {
    fn new(listing: Listing, frame: Frame<E>) -> Self {
        Self {
            listing,
            frame,
            begun: false,
        }
    }

    /// Writes a piece; what is left, if it was not the last.
    fn piece(mut self) -> Result<(Bytes, Option<Self>), FileError> {
        let mut piece = Vec::new();
        for _ in 0..ENTRIES {
            let Some(listed) = self.listing.next() else {
                if !self.begun {
                    piece.extend_from_slice(self.frame.before.as_bytes());
                }
                piece.extend_from_slice(self.frame.after.as_bytes());
                return Ok((piece.into(), None));
            };
            let Some(entry) = (self.frame.entry)(listed) else {
                continue;
            };
            let before = if self.begun { "," } else { &self.frame.before };
            piece.extend_from_slice(before.as_bytes());
            self.begun = true;
            serde_json::to_writer(&mut piece, &entry).map_err(|error| FileError::System {
                context: "writing the listing",
                source: error.into(),
            })?;
            if piece.len() >= PIECE {
                break;
            }
        }
        Ok((piece.into(), Some(self)))
    }
}
