//! One allocation per distinct text or label set. Thousands of sandboxes of one pool share their
//! pod template, labels, image names and messages; the interner makes that sharing real, which is
//! what keeps a cached sandbox near one kibibyte. Called by the decoders in [`crate::objects`].

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::ident::Text;
use crate::objects::Labels;

/// Tables of shared values. Entries nobody else holds are swept when a table has doubled, and when much of what
/// may have held them was let go.
#[derive(Debug, Default)]
pub struct Interner {
    texts: Mutex<Pool<str>>,
    labels: Mutex<Pool<Labels>>,
    /// How many rows were let go since the last sweep.
    released: AtomicUsize,
}

#[derive(Debug)]
struct Pool<T: ?Sized + Eq + Hash> {
    entries: HashSet<Arc<T>, BuildHasherDefault<DefaultHasher>>,
    sweep_at: usize,
}

/// Below this many entries sweeping is not worth the walk.
const FIRST_SWEEP: usize = 1024;
/// Fewer rows than this are not worth a sweep.
const FEWEST: usize = 128;
/// A sweep is due when one row was let go for so many entries, which is about how many a row has to itself. So it
/// costs each of them a look at so many.
const ENTRIES_A_ROW: usize = 8;

impl<T: ?Sized + Eq + Hash> Default for Pool<T> {
    fn default() -> Self {
        Self {
            entries: HashSet::default(),
            sweep_at: FIRST_SWEEP,
        }
    }
}

impl<T: ?Sized + Eq + Hash> Pool<T> {
    fn insert(&mut self, value: Arc<T>) {
        if self.entries.len() >= self.sweep_at {
            self.sweep();
        }
        self.entries.insert(value);
    }

    fn sweep(&mut self) {
        self.entries.retain(|entry| Arc::strong_count(entry) > 1);
        self.entries.shrink_to(self.entries.len() * 2);
        self.sweep_at = (self.entries.len() * 2).max(FIRST_SWEEP);
    }
}

impl Interner {
    /// The shared copy of `text`.
    pub fn text(&self, text: &str) -> Text {
        let mut pool = self.texts.lock();
        if let Some(known) = pool.entries.get(text) {
            return known.clone();
        }
        let new: Text = Arc::from(text);
        pool.insert(new.clone());
        new
    }

    /// The shared copy of an optional text; an empty one counts as absent.
    pub fn optional(&self, text: Option<&str>) -> Option<Text> {
        text.filter(|text| !text.is_empty())
            .map(|text| self.text(text))
    }

    /// The shared copy of a label or annotation set.
    pub fn labels(&self, labels: Labels) -> Arc<Labels> {
        let mut pool = self.labels.lock();
        if let Some(known) = pool.entries.get(&labels) {
            return known.clone();
        }
        let new = Arc::new(labels);
        pool.insert(new.clone());
        new
    }

    /// Takes note that a row was let go, with whatever texts and label sets it alone had.
    pub fn release(&self) {
        let released = self.released.fetch_add(1, Ordering::Relaxed) + 1;
        if released < FEWEST || released * ENTRIES_A_ROW < self.len() {
            return;
        }
        self.released.store(0, Ordering::Relaxed);
        // Label sets first: they hold texts.
        self.labels.lock().sweep();
        self.texts.lock().sweep();
    }

    /// How many distinct texts and label sets are held, for diagnostics.
    pub fn len(&self) -> usize {
        self.texts.lock().entries.len() + self.labels.lock().entries.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_one_allocation() {
        let interner = Interner::default();
        let one = interner.text("python");
        let two = interner.text("python");
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(interner.optional(Some("")), None);
        assert_eq!(interner.len(), 1);
    }

    #[test]
    fn unused_texts_are_swept() {
        let interner = Interner::default();
        let kept = interner.text("kept");
        for index in 0..10 * FIRST_SWEEP {
            interner.text(&format!("gone-{index}"));
        }
        assert!(interner.len() <= FIRST_SWEEP + 1, "{}", interner.len());
        assert!(Arc::ptr_eq(&kept, &interner.text("kept")));
    }

    #[test]
    fn what_was_let_go_does_not_stay() {
        let interner = Interner::default();
        let name = |index| interner.text(&format!("name-{index}"));
        let labels = |index| interner.labels([(name(0), name(index))].into_iter().collect());
        let rows: Vec<_> = (0..FIRST_SWEEP * 4).map(labels).collect();
        assert!(interner.len() > FIRST_SWEEP * 4);
        for row in rows {
            drop(row);
            interner.release();
        }
        assert!(interner.len() < FIRST_SWEEP * 2, "{}", interner.len());
    }
}
