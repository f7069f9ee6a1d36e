//! The past of a list: the present with the newer events of the window undone.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::watch::Event;
use super::{Key, Object};

/// What objects touched since a revision were at that revision; `None` for those that did not
/// exist.
pub(super) struct Overlay(BTreeMap<Key, Option<Arc<Object>>>);

/// Undoes `newer` (oldest first): the first event that touches a key knows what was before it.
pub(super) fn overlay<'a>(
    newer: impl Iterator<Item = &'a Arc<Event>>,
    namespace: Option<&str>,
    after: Option<&Key>,
) -> Overlay {
    let mut past = BTreeMap::new();
    for event in newer {
        let key = event.object.key();
        let wanted = namespace.is_none_or(|only| *key.namespace == *only)
            && after.is_none_or(|after| key > after);
        if wanted {
            past.entry(key.clone())
                .or_insert_with(|| event.previous.clone());
        }
    }
    Overlay(past)
}

impl Overlay {
    /// The list at the overlay's revision, in key order, given the present one.
    pub(super) fn merge<'a>(
        self,
        present: impl Iterator<Item = (&'a Key, &'a Arc<Object>)>,
    ) -> Vec<Arc<Object>> {
        let mut result = self.0;
        for (key, object) in present {
            result
                .entry(key.clone())
                .or_insert_with(|| Some(object.clone()));
        }
        result.into_values().flatten().collect()
    }
}
