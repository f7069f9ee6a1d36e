//! Sets of fields, and their form in `metadata.managedFields[].fieldsV1`.
//!
//! A path is in the set when it is a member itself; having members below it is not enough. Conflicts
//! and ownership are computed with these sets only.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::element::{Element, ElementError};

/// A set of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Every entry is a member or has members below it.
    entries: BTreeMap<Element, Entry>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    member: bool,
    below: FieldSet,
}

impl Entry {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

/// `fieldsV1` that is not a set of fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldSetError {
    /// A key is malformed.
    #[error(transparent)]
    Element(#[from] ElementError),
    /// Something is not an object.
    #[error("expected an object below {0:?}")]
    NotAnObject(String),
}

impl FieldSet {
    /// The set with the one path `fields`.
    pub fn of_fields(fields: &[&str]) -> Self {
        let mut set = Self::default();
        let path: Vec<_> = fields.iter().map(|name| Element::field(name)).collect();
        set.insert(&path);
        set
    }

    /// Reads `fieldsV1`.
    pub fn parse(fields: &Value) -> Result<Self, FieldSetError> {
        Ok(Self::parse_entry(fields, "")?.below)
    }

    fn parse_entry(fields: &Value, at: &str) -> Result<Entry, FieldSetError> {
        let Value::Object(map) = fields else {
            return Err(FieldSetError::NotAnObject(at.to_owned()));
        };
        let mut entry = Entry::default();
        for (key, value) in map {
            if key == "." {
                entry.member = true;
            } else if let Some(element) = Element::parse(key)? {
                let below = Self::parse_entry(value, key)?;
                entry.below.put(element, below);
            }
        }
        if entry.below.is_empty() {
            entry.member = true;
        }
        Ok(entry)
    }

    /// The set as `fieldsV1`.
    pub fn to_value(&self) -> Value {
        self.to_object(false)
    }

    fn to_object(&self, member: bool) -> Value {
        let mut map = Map::new();
        if member && !self.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, entry) in &self.entries {
            map.insert(element.to_key(), entry.below.to_object(entry.member));
        }
        Value::Object(map)
    }

    /// Whether the set has no members.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a path.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        let entry = self.entries.entry(first.clone()).or_default();
        if rest.is_empty() {
            entry.member = true;
        } else {
            entry.below.insert(rest);
        }
    }

    /// Whether the path is a member.
    pub fn contains(&self, path: &[Element]) -> bool {
        let Some((first, rest)) = path.split_first() else {
            return false;
        };
        self.entries.get(first).is_some_and(|entry| {
            if rest.is_empty() {
                entry.member
            } else {
                entry.below.contains(rest)
            }
        })
    }

    /// Whether the element itself is a member.
    pub(super) fn has(&self, element: &Element) -> bool {
        self.entries.get(element).is_some_and(|entry| entry.member)
    }

    /// What is below an element; `None` when nothing is.
    pub(super) fn below(&self, element: &Element) -> Option<&Self> {
        let below = &self.entries.get(element)?.below;
        (!below.is_empty()).then_some(below)
    }

    /// The elements at this level, whether they are members, and what is below them.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Element, bool, &Self)> {
        self.entries
            .iter()
            .map(|(element, entry)| (element, entry.member, &entry.below))
    }

    /// Sets an element's membership and what is below it; nothing happens when both are nothing.
    pub(super) fn set(&mut self, element: Element, member: bool, below: Self) {
        self.put(element, Entry { member, below });
    }

    fn put(&mut self, element: Element, entry: Entry) {
        if !entry.is_empty() {
            self.entries.insert(element, entry);
        }
    }

    /// The members of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut result = self.clone();
        for (element, entry) in &other.entries {
            match result.entries.get_mut(element) {
                Some(known) => {
                    known.member |= entry.member;
                    known.below = known.below.union(&entry.below);
                }
                None => {
                    result.entries.insert(element.clone(), entry.clone());
                }
            }
        }
        result
    }

    /// The members of both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut result = Self::default();
        for (element, entry) in &self.entries {
            if let Some(other) = other.entries.get(element) {
                result.put(
                    element.clone(),
                    Entry {
                        member: entry.member && other.member,
                        below: entry.below.intersection(&other.below),
                    },
                );
            }
        }
        result
    }

    /// The members that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut result = Self::default();
        for (element, entry) in &self.entries {
            let entry = match other.entries.get(element) {
                None => entry.clone(),
                Some(other) => Entry {
                    member: entry.member && !other.member,
                    below: entry.below.difference(&other.below),
                },
            };
            result.put(element.clone(), entry);
        }
        result
    }

    /// All members as texts in the form of conflict messages, in order.
    pub fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect("", &mut found);
        found
    }

    fn collect(&self, prefix: &str, found: &mut Vec<String>) {
        for (element, entry) in &self.entries {
            let path = format!("{prefix}{element}");
            if entry.member {
                found.push(path.clone());
            }
            entry.below.collect(&path, found);
        }
    }

    /// Calls `visit` with every member: those of a level before those below it, which is the order
    /// of published messages.
    pub(super) fn each<'s>(&'s self, visit: &mut impl FnMut(&[&'s Element])) {
        self.visit(&mut Vec::new(), visit);
    }

    fn visit<'s>(&'s self, path: &mut Vec<&'s Element>, visit: &mut impl FnMut(&[&'s Element])) {
        for (element, entry) in &self.entries {
            if entry.member {
                path.push(element);
                visit(path);
                path.pop();
            }
        }
        for (element, entry) in &self.entries {
            path.push(element);
            entry.below.visit(path, visit);
            path.pop();
        }
    }
}

impl fmt::Display for FieldSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.paths().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::element::Scalar;
    use super::*;

    fn any_element() -> impl Strategy<Value = Element> {
        prop_oneof![
            "[a-c]".prop_map(|name| Element::field(&name)),
            (0_i64..2, "[ab]").prop_map(|(port, name)| Element::key([
                ("port".into(), Value::from(port)),
                ("name".into(), Value::from(name)),
            ])),
            prop_oneof![
                any::<bool>().prop_map(Value::from),
                "[ab]".prop_map(Value::from)
            ]
            .prop_map(|value| Element::Value(Scalar(value))),
            (0_usize..3).prop_map(Element::Index),
        ]
    }

    pub(crate) fn any_set() -> impl Strategy<Value = FieldSet> {
        let path = proptest::collection::vec(any_element(), 1..4);
        proptest::collection::vec(path, 0..8).prop_map(|paths| {
            let mut set = FieldSet::default();
            for path in &paths {
                set.insert(path);
            }
            set
        })
    }

    #[test]
    fn the_published_form() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80}": {".": {}, "f:port": {}}, "z:unknown": {}}}
        });
        let set = FieldSet::parse(&fields).unwrap();
        assert_eq!(
            set.paths(),
            [
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.ports[port=80]",
                ".spec.ports[port=80].port"
            ]
        );
        let mut expected = fields;
        expected["f:spec"]["f:ports"]
            .as_object_mut()
            .unwrap()
            .remove("z:unknown");
        assert_eq!(set.to_value(), expected);
        assert!(FieldSet::parse(&json!({"f:a": 1})).is_err());
        assert!(FieldSet::parse(&json!({"a": {}})).is_err());
        assert!(FieldSet::parse(&json!({})).unwrap().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn round_trip(set in any_set()) {
            prop_assert_eq!(FieldSet::parse(&set.to_value()).unwrap(), set);
        }

        #[test]
        fn set_laws(a in any_set(), b in any_set(), c in any_set()) {
            prop_assert_eq!(a.union(&b), b.union(&a));
            prop_assert_eq!(a.union(&b.union(&c)), a.union(&b).union(&c));
            prop_assert_eq!(a.intersection(&b), b.intersection(&a));
            prop_assert_eq!(a.difference(&b).intersection(&b), FieldSet::default());
            prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
            prop_assert_eq!(a.union(&a), a.clone());
            prop_assert!(a.difference(&a).is_empty());
        }

        #[test]
        fn members_are_what_was_inserted(a in any_set(), path in proptest::collection::vec(any_element(), 1..4)) {
            let mut with = a.clone();
            with.insert(&path);
            prop_assert!(with.contains(&path));
            let mut single = FieldSet::default();
            single.insert(&path);
            prop_assert!(!a.difference(&single).contains(&path));
            let mut count = 0;
            with.each(&mut |_| count += 1);
            prop_assert_eq!(count, with.paths().len());
        }
    }
}
