//! What belongs to whom: the keys of the objects of one kind by the UID of their owner. Most owners have
//! one, for which no set is kept: with thousands of sandboxes the sets would outweigh the rows.

use std::collections::{BTreeMap, BTreeSet};

use crate::ident::{Key, Uid};

/// Keys by owner.
#[derive(Debug, Default)]
pub(super) struct Owned(BTreeMap<Uid, Keys>);

/// The keys of one owner; never none.
#[derive(Debug)]
enum Keys {
    One(Key),
    More(BTreeSet<Key>),
}

impl Owned {
    /// The keys of an owner, in order.
    pub(super) fn of(&self, owner: Uid) -> impl Iterator<Item = &Key> {
        let (one, more) = match self.0.get(&owner) {
            None => (None, None),
            Some(Keys::One(key)) => (Some(key), None),
            Some(Keys::More(keys)) => (None, Some(keys)),
        };
        one.into_iter().chain(more.into_iter().flatten())
    }

    /// Whether an owner has any.
    pub(super) fn has(&self, owner: Uid) -> bool {
        self.0.contains_key(&owner)
    }

    /// Moves a key from its old owner to its new one.
    pub(super) fn shift(&mut self, key: &Key, new: Option<Uid>, old: Option<Uid>) {
        if new == old {
            return;
        }
        if let Some(old) = old {
            self.remove(old, key);
        }
        if let Some(new) = new {
            self.insert(new, key);
        }
    }

    fn insert(&mut self, owner: Uid, key: &Key) {
        let Some(keys) = self.0.get_mut(&owner) else {
            self.0.insert(owner, Keys::One(key.clone()));
            return;
        };
        match keys {
            Keys::One(known) if known == key => {}
            Keys::One(known) => {
                *keys = Keys::More(BTreeSet::from([known.clone(), key.clone()]));
            }
            Keys::More(keys) => {
                keys.insert(key.clone());
            }
        }
    }

    fn remove(&mut self, owner: Uid, key: &Key) {
        let is_last = match self.0.get_mut(&owner) {
            None => false,
            Some(Keys::One(known)) => known == key,
            Some(Keys::More(keys)) => {
                keys.remove(key);
                keys.is_empty()
            }
        };
        if is_last {
            self.0.remove(&owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_more_are_found_and_the_last_takes_its_owner_along() {
        let [a, b] = ["a", "b"].map(|name| Key::new("n", name));
        let [one, two] = [1, 2].map(|n| Uid::parse(&crate::fixtures::uid(n)));
        let mut owned = Owned::default();
        let keys = |owned: &Owned, owner| owned.of(owner).cloned().collect::<Vec<_>>();
        owned.shift(&b, Some(one), None);
        owned.shift(&b, Some(one), None);
        assert_eq!(keys(&owned, one), vec![b.clone()]);
        owned.shift(&a, Some(one), None);
        assert_eq!(keys(&owned, one), [a.clone(), b.clone()]);
        owned.shift(&a, Some(two), Some(one));
        assert_eq!(
            (keys(&owned, one), keys(&owned, two)),
            (vec![b.clone()], vec![a.clone()])
        );
        // What was never there takes nothing along.
        owned.shift(&a, None, Some(one));
        assert!(owned.has(one));
        owned.shift(&b, None, Some(one));
        owned.shift(&b, None, Some(two));
        assert_eq!((owned.has(one), owned.has(two)), (false, true));
    }
}
