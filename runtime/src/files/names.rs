//! The names of one directory, held compactly while a listing is under way.
//!
//! A directory can have millions of names, and each as a value of its own would cost a multiple of its
//! text. Here they lie behind each other in pieces, with four bytes for the place of each.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::FileError;

/// Bytes that are held together.
const PIECE: usize = 64 << 10;
/// What a name costs besides its text: the byte that ends it, and its place.
const EXTRA: usize = 1 + size_of::<u32>();
/// Pieces that one listing may hold.
const MAX_PIECES: usize = 1024;
/// Pieces that all listings together may hold, beyond the first of each.
const MAX_SHARED: usize = 2048;

/// What all listings of a root share.
#[derive(Clone, Debug)]
pub(super) struct Room {
    shared: Arc<Semaphore>,
    /// Pieces that one listing may hold.
    pieces: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self::new(MAX_PIECES, MAX_SHARED)
    }
}

/// Names, first in the order in which they were added, then sorted.
#[derive(Debug)]
pub(super) struct Names {
    pieces: Vec<Piece>,
    /// The number of the piece, and where in it the name begins.
    places: Vec<u32>,
    room: Room,
}

#[derive(Debug)]
struct Piece {
    text: Vec<u8>,
    /// Bytes that are left.
    left: usize,
    _share: Option<OwnedSemaphorePermit>,
}

impl Room {
    fn new(pieces: usize, shared: usize) -> Self {
        Self {
            shared: Arc::new(Semaphore::new(shared)),
            pieces,
        }
    }

    /// No names yet.
    pub(super) fn names(&self) -> Names {
        Names {
            pieces: Vec::new(),
            places: Vec::new(),
            room: self.clone(),
        }
    }
}

impl Names {
    /// Adds a name.
    ///
    /// # Errors
    /// [`FileError::Unlistable`] when these are more names than one listing may hold,
    /// [`FileError::Exhausted`] when all listings together hold too many.
    pub(super) fn add(&mut self, name: &CStr) -> Result<(), FileError> {
        let text = name.to_bytes_with_nul();
        let cost = text.len() + EXTRA - 1;
        if self.pieces.last().is_none_or(|piece| piece.left < cost) {
            self.pieces.push(self.piece()?);
        }
        let number = self.pieces.len().saturating_sub(1);
        let Some(piece) = self.pieces.last_mut() else {
            return Ok(());
        };
        // Both are small: see the limits.
        let place = (number * PIECE + piece.text.len()) as u64;
        self.places.push(u32::try_from(place).unwrap_or(u32::MAX));
        piece.text.extend_from_slice(text);
        piece.left = piece.left.saturating_sub(cost);
        Ok(())
    }

    fn piece(&self) -> Result<Piece, FileError> {
        if self.pieces.len() >= self.room.pieces {
            let limit = self.room.pieces * PIECE;
            return Err(FileError::Unlistable { limit });
        }
        let share = if self.pieces.is_empty() {
            None
        } else {
            let share = self.room.shared.clone().try_acquire_owned();
            Some(share.map_err(|_| {
                FileError::Exhausted(
                    "other listings hold as many names as may be held at once; try again later"
                        .into(),
                )
            })?)
        };
        Ok(Piece {
            text: Vec::new(),
            left: PIECE,
            _share: share,
        })
    }

    /// Sorts the names by their bytes.
    pub(super) fn sort(&mut self) {
        let mut places = std::mem::take(&mut self.places);
        places.sort_unstable_by(|one, other| self.at(*one).cmp(self.at(*other)));
        self.places = places;
    }

    /// The name with this number, the first being 0.
    pub(super) fn get(&self, number: usize) -> Option<&OsStr> {
        let place = *self.places.get(number)?;
        Some(OsStr::from_bytes(self.at(place)))
    }

    fn at(&self, place: u32) -> &[u8] {
        let place = place as usize;
        let piece = self.pieces.get(place / PIECE);
        let text = piece.and_then(|piece| piece.text.get(place % PIECE..));
        let name = text.and_then(|text| CStr::from_bytes_until_nul(text).ok());
        name.map(CStr::to_bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    fn named(number: usize) -> CString {
        // No order, and all lengths.
        let number = number.wrapping_mul(7919) % 100_003;
        let text = format!("{number:x}{}", "-".repeat(number % 240));
        CString::new(text).unwrap()
    }

    #[test]
    fn names_come_back_sorted() {
        let mut names = Room::default().names();
        assert_eq!(names.get(0), None);
        let mut expected: Vec<CString> = (0..5000).map(named).collect();
        for name in &expected {
            names.add(name).unwrap();
        }
        assert!(names.pieces.len() > 5);
        names.sort();
        expected.sort();
        for (number, name) in expected.iter().enumerate() {
            assert_eq!(names.get(number).unwrap().as_bytes(), name.as_bytes());
        }
        assert_eq!(names.get(expected.len()), None);
        // Nothing is held but the text, its places, and the rest of each piece.
        let held: usize = names.pieces.iter().map(|piece| piece.text.len()).sum();
        let text: usize = expected
            .iter()
            .map(|name| name.to_bytes_with_nul().len())
            .sum();
        assert_eq!(held, text);
    }

    #[test]
    fn one_listing_and_all_together_are_bounded() {
        let fill = |names: &mut Names| (0..).map(named).find_map(|name| names.add(&name).err());
        let room = Room::new(3, 3);
        let mut one = room.names();
        let error = fill(&mut one).unwrap();
        assert!(
            matches!(error, FileError::Unlistable { limit } if limit == 3 * PIECE),
            "{error}"
        );
        // Two of the three shared pieces are taken.
        let mut other = room.names();
        let error = fill(&mut other).unwrap();
        assert!(matches!(error, FileError::Exhausted(_)), "{error}");
        // A small directory can be listed all the same.
        room.names().add(c"name").unwrap();
        drop(one);
        other.add(c"more").unwrap();
        drop(other);
        assert_eq!(room.shared.available_permits(), 3);
    }
}
