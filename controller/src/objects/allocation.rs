//! The allocation record of a pool, `SandboxWarmPool.status`, as kept: which members belong to claims
//! although they do not say so themselves yet, and which are about to be deleted. What it is for is told
//! in [`crate::allocation`].

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
        let allocations = self.allocations.iter().map(|it| {
            json!({
                "claimName": &*it.claim.name,
                "claimUID": it.claim.uid.to_string(),
                "sandboxName": &*it.sandbox.name,
                "sandboxUID": it.sandbox.uid.to_string(),
            })
        });
        let retiring = self
            .retiring
            .iter()
            .map(|it| json!({"name": &*it.name, "uid": it.uid.to_string()}));
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
    allocations: Vec<AllocationWire>,
    retiring: Vec<NamedWire>,
    settled_resource_version: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AllocationWire {
    claim_name: String,
    #[serde(rename = "claimUID")]
    claim_uid: Uid,
    sandbox_name: String,
    #[serde(rename = "sandboxUID")]
    sandbox_uid: Uid,
}

#[derive(Clone, Debug, Deserialize)]
struct NamedWire {
    name: String,
    uid: Uid,
}

impl RecordWire {
    pub(super) fn read(
        self,
        pool: &Key,
        interner: &Interner,
    ) -> Result<AllocationRecord, DecodeError> {
        let settled = match self.settled_resource_version.as_deref() {
            None | Some("") => Revision::default(),
            Some(text) => Revision::parse(text).map_err(|_| DecodeError::Member {
                kind: "SandboxWarmPool",
                key: pool.clone(),
                reason: format!("status.settledResourceVersion {text:?} is not an integer"),
            })?,
        };
        let named = |name: &str, uid| Named {
            name: interner.text(name),
            uid,
        };
        Ok(AllocationRecord {
            allocations: self
                .allocations
                .iter()
                .map(|it| Allocation {
                    claim: named(&it.claim_name, it.claim_uid),
                    sandbox: named(&it.sandbox_name, it.sandbox_uid),
                })
                .collect(),
            retiring: self
                .retiring
                .iter()
                .map(|it| named(&it.name, it.uid))
                .collect(),
            settled,
        })
    }
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
    fn a_revision_that_is_no_integer_is_named() {
        let wire: RecordWire =
            serde_json::from_value(json!({"settledResourceVersion": "soon"})).unwrap();
        let error = wire
            .read(&Key::new("n", "p"), &Interner::default())
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("settledResourceVersion \"soon\""),
            "{error}"
        );
    }
}
