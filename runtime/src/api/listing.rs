//! Directories as JSON arrays, written piece by piece.
//!
//! An array that fits one piece is sent whole, as any other answer. Of a longer one no more is held than
//! the names and a piece that waits: the next is written when the client has taken the one before, and no
//! thread waits meanwhile. What a client does not take is given up, because the room for names is shared.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::timeout;

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

/// The entries of a directory, of which each piece may wait for the client as long as `patience`. What cannot
/// be listed is an error; of what vanishes while the answer is on its way nothing is told.
pub(crate) async fn answer<E: Serialize + 'static>(
    root: &Root,
    path: TreePath,
    frame: Frame<E>,
    patience: Duration,
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
            let rest = stream::unfold(Some(Pieces::of(rest, patience)), following);
            Body::from_stream(first.chain(rest))
        }
    };
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(Ok(response))
}

/// The pieces that are still to come.
struct Pieces {
    written: mpsc::Receiver<io::Result<Piece>>,
    patience: Duration,
    /// Who writes them, also while nobody asks for one; ends with the body.
    _writer: JoinSet<()>,
}

struct Piece {
    text: Bytes,
    last: bool,
}

impl Pieces {
    fn of<E: Serialize + 'static>(rest: Writing<E>, patience: Duration) -> Self {
        let (to, written) = mpsc::channel(1);
        let mut writer = JoinSet::new();
        writer.spawn(write(rest, to, patience));
        Self {
            written,
            patience,
            _writer: writer,
        }
    }
}

/// Writes a piece whenever the one before was taken, until the end, or until one is not taken in time.
async fn write<E: Serialize + 'static>(
    mut rest: Writing<E>,
    to: mpsc::Sender<io::Result<Piece>>,
    patience: Duration,
) {
    while let Ok(Ok(place)) = timeout(patience, to.reserve()).await {
        let (text, following) = match spawn_blocking(move || rest.piece()).await {
            Ok(Ok(written)) => written,
            Ok(Err(error)) => return place.send(Err(io::Error::other(error))),
            Err(error) => return place.send(Err(io::Error::other(error))),
        };
        let last = following.is_none();
        place.send(Ok(Piece { text, last }));
        match following {
            Some(following) => rest = following,
            None => return,
        }
    }
}

/// The next piece, and where those behind it come from. What fails now breaks the connection off, so that
/// the client knows that something is missing.
async fn following(pieces: Option<Pieces>) -> Option<(io::Result<Bytes>, Option<Pieces>)> {
    let mut pieces = pieces?;
    Some(match pieces.written.recv().await {
        Some(Ok(piece)) => (Ok(piece.text), (!piece.last).then_some(pieces)),
        Some(Err(error)) => (Err(error), None),
        None => {
            let seconds = pieces.patience.as_secs();
            let reason =
                format!("the listing was given up: no more of it was taken for {seconds} s");
            (Err(io::Error::new(io::ErrorKind::TimedOut, reason)), None)
        }
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use http_body_util::BodyExt;
    use tokio::time::sleep;

    use super::*;

    const NAMES: usize = 4 * ENTRIES + 1;
    const PATIENCE: Duration = Duration::from_secs(90);

    /// A listing of so many names that it is sent in pieces.
    async fn begun(root: &Path) -> Body {
        let dir = root.join("dir");
        fs::create_dir(&dir).unwrap();
        for number in 0..NAMES {
            fs::write(dir.join(number.to_string()), "").unwrap();
        }
        let root = Root::open(root).unwrap();
        let frame = Frame {
            before: "[".into(),
            after: "]",
            entry: |listed| Some(listed.name.into_string().unwrap()),
        };
        let path = TreePath::parse("dir").unwrap();
        answer(&root, path, frame, PATIENCE)
            .await
            .unwrap()
            .unwrap()
            .into_body()
    }

    /// Whether a listing holds the directory open.
    fn held(root: &Path) -> bool {
        let dir = root.canonicalize().unwrap().join("dir");
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .any(|open| fs::read_link(open.unwrap().path()).is_ok_and(|open| open == dir))
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_that_nobody_takes_is_given_up() {
        let root = tempfile::tempdir().unwrap();
        let mut body = begun(root.path()).await;
        body.frame().await.unwrap().unwrap();
        sleep(PATIENCE / 2).await;
        assert!(held(root.path()));
        // Nobody asks for more, and yet nothing is held.
        sleep(PATIENCE).await;
        assert!(!held(root.path()));
        let error = body.collect().await.unwrap_err();
        assert!(error.to_string().contains("for 90 s"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_that_is_taken_slowly_comes_whole() {
        let root = tempfile::tempdir().unwrap();
        let mut body = begun(root.path()).await;
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            text.extend(frame.unwrap().into_data().unwrap());
            sleep(PATIENCE * 9 / 10).await;
        }
        let names: Vec<String> = serde_json::from_slice(&text).unwrap();
        assert_eq!(names.len(), NAMES);
        assert!(!held(root.path()));
    }

    #[tokio::test]
    async fn a_listing_ends_with_its_body() {
        let root = tempfile::tempdir().unwrap();
        let body = begun(root.path()).await;
        drop(body);
        let ended = async {
            while held(root.path()) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, ended).await.unwrap();
    }
}
