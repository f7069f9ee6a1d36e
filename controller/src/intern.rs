//! One allocation per distinct text or label set. Thousands of sandboxes of one pool share their
//! pod template, labels, image names and messages; the interner makes that sharing real, which is
//! what keeps a cached sandbox near one kibibyte. Called by the decoders in [`crate::objects`].

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::ident::Text;
use crate::objects::Labels;

/// Tables of shared values. Entries nobody else holds are swept when a table has doubled.
#[derive(Debug, Default)]
pub struct Interner {
    texts: Mutex<Pool<str>>,
    labels: Mutex<Pool<Labels>>,
}

#[derive(Debug)]
struct Pool<T: ?Sized + Eq + Hash> {
    entries: HashSet<Arc<T>, BuildHasherDefault<DefaultHasher>>,
    sweep_at: usize,
}

/// Below this many entries sweeping is not worth the walk.
const FIRST_SWEEP: usize = 1024;

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
            self.entries.retain(|entry| Arc::strong_count(entry) > 1);
            self.sweep_at = (self.entries.len() * 2).max(FIRST_SWEEP);
        }
        self.entries.insert(value);
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
}
