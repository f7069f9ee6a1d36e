//! The allocation record of a pool, `SandboxWarmPool.status`, as kept: which members belong to claims
//! although they do not say so themselves yet, and which are about to be deleted. What it is for is told
//! in [`crate::allocation`].

use agent_sandbox_crds::allocation as entry;
use serde::Deserialize;
use serde_json::{Value, json};

use super::DecodeError;
use crate::ident::{Key, Revision, Text, Uid};
use crate::intern::Interner;

/// A pool's record.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AllocationRecord {
    /// Members that belong to claims.
    pub allocations: Vec<Allocation>,
    /// Members that are about to be deleted.
    pub retiring: Vec<Named>,
    /// The newest revision of the sandboxes that have left `allocations`. Whoever has not seen them as
    /// they were then takes some of them for free.
    pub settled: Revision,
}

/// A member that belongs to a claim.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Allocation {
    /// The claim.
    pub claim: Named,
    /// The member.
    pub sandbox: Named,
}

/// An object in the pool's namespace, by name and identity.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Named {
    /// Its name.
    pub name: Text,
    /// Its UID.
    pub uid: Uid,
}

impl AllocationRecord {
    /// The members of `status` that hold the record. Lists are written whole: that is what makes a
    /// write of them a compare-and-swap.
    pub fn to_value(&self) -> Value {
        let text = |it: &Named| (it.name.clone(), it.uid.to_string());
        let allocations = self.allocations.iter().map(|it| {
            let (claim, sandbox) = (text(&it.claim), text(&it.sandbox));
            let entry = entry::Allocation {
                claim: reference(&claim),
                sandbox: reference(&sandbox),
            };
            entry.to_string().into()
        });
        let retiring = self.retiring.iter().map(text);
        let retiring = retiring.map(|it| reference(&it).to_string().into());
        let or_none = |list: Vec<Value>| {
            if list.is_empty() {
                Value::Null
            } else {
                list.into()
            }
        };
        let settled = self.settled > Revision::default();
        json!({
            "allocations": or_none(allocations.collect()),
            "retiring": or_none(retiring.collect()),
            "settledResourceVersion": settled.then(|| self.settled.to_string()),
        })
    }
}

/// The record on the wire.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RecordWire {
    allocations: Vec<String>,
    retiring: Vec<String>,
    settled_resource_version: Option<String>,
}

impl RecordWire {
    pub(super) fn read(
        self,
        pool: &Key,
        interner: &Interner,
    ) -> Result<AllocationRecord, DecodeError> {
        let broken = |reason| DecodeError::Member {
            kind: "SandboxWarmPool",
            key: pool.clone(),
            reason,
        };
        let settled = match self.settled_resource_version.as_deref() {
            None | Some("") => Revision::default(),
            Some(text) => Revision::parse(text).map_err(|_| {
                broken(format!(
                    "status.settledResourceVersion {text:?} is not an integer"
                ))
            })?,
        };
        let named = |it: entry::Reference<'_>| Named {
            name: interner.text(it.name),
            uid: Uid::parse(it.uid),
        };
        let allocations = self.allocations.iter().map(|text| {
            let entry = entry::Allocation::parse(text).ok_or_else(|| {
                broken(format!(
                    "status.allocations has {text:?}, which is not CLAIM/UID=SANDBOX/UID"
                ))
            })?;
            Ok(Allocation {
                claim: named(entry.claim),
                sandbox: named(entry.sandbox),
            })
        });
        let retiring = self.retiring.iter().map(|text| {
            entry::Reference::parse(text).map(named).ok_or_else(|| {
                broken(format!(
                    "status.retiring has {text:?}, which is not SANDBOX/UID"
                ))
            })
        });
        Ok(AllocationRecord {
            allocations: allocations.collect::<Result<_, DecodeError>>()?,
            retiring: retiring.collect::<Result<_, DecodeError>>()?,
            settled,
        })
    }
}

fn reference((name, uid): &(Text, String)) -> entry::Reference<'_> {
    entry::Reference { name, uid }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{row, uid};
    use crate::objects::PoolRow;

    #[test]
    fn the_record_is_read_as_it_is_written() {
        let named = |name: &str, n| Named {
            name: name.into(),
            uid: Uid::parse(&uid(n)),
        };
        let record = AllocationRecord {
            allocations: vec![Allocation {
                claim: named("c", 1),
                sandbox: named("p-1", 2),
            }],
            retiring: vec![named("p-2", 3)],
            settled: Revision(7),
        };
        let pool = row::<PoolRow>(json!({"metadata": {}, "status": record.to_value()}));
        assert_eq!(*pool.record, record);
        let none = AllocationRecord::default();
        assert_eq!(
            none.to_value(),
            json!({"allocations": null, "retiring": null, "settledResourceVersion": null})
        );
        assert_eq!(*row::<PoolRow>(json!({"metadata": {}})).record, none);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (status, expected) in [
            (
                json!({"settledResourceVersion": "soon"}),
                "settledResourceVersion \"soon\"",
            ),
            (
                json!({"allocations": ["c/1"]}),
                "\"c/1\", which is not CLAIM/UID=SANDBOX/UID",
            ),
            (
                json!({"retiring": ["p"]}),
                "\"p\", which is not SANDBOX/UID",
            ),
        ] {
            let wire: RecordWire = serde_json::from_value(status).unwrap();
            let error = wire
                .read(&Key::new("n", "p"), &Interner::default())
                .unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
