//! The table in `order.txt`, parsed once: which members the hashed structures have, in which order, and when they are
//! left out.

use std::collections::HashMap;
use std::sync::LazyLock;

/// A member of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) absent: Absent,
}

/// What a member holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A string, number or boolean whose zero value means unset.
    Scalar,
    /// A string, number or boolean that may be set to its zero value.
    OptionalScalar,
    /// A structure, or a [`QUANTITY`].
    Object(&'static str),
    /// A list, of structures if it names one.
    List(Option<&'static str>),
    /// A map from string to string, or to [`QUANTITY`].
    Map { quantities: bool },
}

/// What is printed for a member without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// Nothing: the member is left out.
    Omitted,
    /// `null`.
    Null,
    /// This text.
    Text(&'static str),
    /// The structure as it is with nothing set.
    Empty,
}

/// The name that stands for a quantity in the place of a structure's.
pub(super) const QUANTITY: &str = "Quantity";

/// The members of a structure; none for one the table does not know.
pub(super) fn members(structure: &str) -> &'static [Member] {
    TABLE.get(structure).map_or(&[], Vec::as_slice)
}

static TABLE: LazyLock<HashMap<&'static str, Vec<Member>>> =
    LazyLock::new(|| parse(include_str!("order.txt")));

fn parse(text: &'static str) -> HashMap<&'static str, Vec<Member>> {
    let mut table: HashMap<_, Vec<_>> = HashMap::new();
    let mut structure = "";
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let members = match line.split_once(": ") {
            Some((name, members)) if !line.starts_with(' ') => {
                structure = name;
                members
            }
            _ => line,
        };
        table
            .entry(structure)
            .or_default()
            .extend(members.split_whitespace().map(member));
    }
    table
}

fn member(text: &'static str) -> Member {
    let (text, null) = match text.strip_suffix('?') {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (text, always) = match text.split_once('!') {
        Some((text, value)) => (text, Some(value)),
        None => (text, None),
    };
    let (name, kind) = if let Some(name) = text.strip_suffix('*') {
        (name, Kind::OptionalScalar)
    } else if let Some((name, structure)) = text.split_once(':') {
        (name, Kind::Object(structure))
    } else if let Some((name, structure)) = text.split_once("[]") {
        let structure = Some(structure).filter(|structure| !structure.is_empty());
        (name, Kind::List(structure))
    } else if let Some((name, values)) = text.split_once("{}") {
        let quantities = values == QUANTITY;
        (name, Kind::Map { quantities })
    } else {
        (text, Kind::Scalar)
    };
    let absent = match (null, always) {
        (true, _) => Absent::Null,
        (_, None) => Absent::Omitted,
        (_, Some("")) => Absent::Empty,
        (_, Some(value)) => Absent::Text(value),
    };
    Member { name, kind, absent }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::core::v1::{PersistentVolumeClaimSpec, PodSpec};
    use serde_json::Value;

    use super::*;

    #[test]
    fn notation() {
        let found = |text| {
            let Member { name, kind, absent } = member(text);
            (name, kind, absent)
        };
        let expected = [
            ("a", "a", Kind::Scalar, Absent::Omitted),
            ("a!\"\"", "a", Kind::Scalar, Absent::Text("\"\"")),
            ("a*", "a", Kind::OptionalScalar, Absent::Omitted),
            ("a*?", "a", Kind::OptionalScalar, Absent::Null),
            ("a:T", "a", Kind::Object("T"), Absent::Omitted),
            ("a:T!", "a", Kind::Object("T"), Absent::Empty),
            ("a:T?", "a", Kind::Object("T"), Absent::Null),
            ("a[]", "a", Kind::List(None), Absent::Omitted),
            ("a[]T?", "a", Kind::List(Some("T")), Absent::Null),
            ("a{}", "a", Kind::Map { quantities: false }, Absent::Omitted),
            (
                "a{}Quantity",
                "a",
                Kind::Map { quantities: true },
                Absent::Omitted,
            ),
        ];
        for (text, name, kind, absent) in expected {
            assert_eq!(found(text), (name, kind, absent), "{text}");
        }
    }

    #[test]
    fn every_structure_that_is_named_is_in_the_table_and_reached() {
        let mut reached = BTreeSet::new();
        let mut ahead = vec!["Blueprint"];
        while let Some(structure) = ahead.pop() {
            assert!(!members(structure).is_empty(), "{structure}");
            if !reached.insert(structure) {
                continue;
            }
            ahead.extend(
                members(structure)
                    .iter()
                    .filter_map(|member| match member.kind {
                        Kind::Object(QUANTITY) => None,
                        Kind::Object(structure) | Kind::List(Some(structure)) => Some(structure),
                        _ => None,
                    }),
            );
        }
        assert_eq!(reached, TABLE.keys().copied().collect());
    }

    /// The table and the Kubernetes types we compile against know the same members.
    #[test]
    fn members_are_those_of_the_kubernetes_types() {
        #[derive(schemars::JsonSchema)]
        #[expect(dead_code, reason = "only its schema is wanted")]
        struct All {
            pod: PodSpec,
            claim: PersistentVolumeClaimSpec,
        }
        let root = schemars::schema_for!(All).to_value();
        let mut compared = 0;
        for (definition, schema) in root["$defs"].as_object().unwrap() {
            let structure = definition.rsplit('.').next().unwrap();
            let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
                continue;
            };
            // Of an embedded claim's metadata, the CRDs let only labels and annotations through.
            if ["ObjectMeta", "ManagedFieldsEntry", "OwnerReference"].contains(&structure) {
                continue;
            }
            let expected: BTreeSet<_> = properties.keys().map(String::as_str).collect();
            let found: BTreeSet<_> = members(structure)
                .iter()
                .map(|member| member.name)
                .collect();
            assert_eq!(found, expected, "{structure}");
            compared += 1;
        }
        assert!(compared > 100, "{compared}");
    }
}
