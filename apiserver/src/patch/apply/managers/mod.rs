//! Who owns what: `metadata.managedFields`, read, changed and written back.
//!
//! An owner is told apart by its name, what it did (apply or update), the subresource it went
//! through and, for updates, the API version. Times are part of the record but never of the
//! identity.

mod update;

pub(super) use update::{Conflicting, apply, update};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::fieldset::{FieldSet, FieldSetError};
use crate::format::time::{format_time, parse as parse_time};
use crate::schema::render;

/// Most owners that updates may have; beyond it the oldest are put together.
pub const MAX_UPDATERS: usize = 10;

/// The owner of fields whose updaters were put together.
const OLD_UPDATERS: &str = "ancient-changes";

/// Fields that nobody owns.
const NEVER_OWNED: [&[&str]; 12] = [
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// What an owner did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who an owner is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: String,
}

impl Identity {
    /// Whether both are the same owner.
    fn is(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// The owner as conflict messages name it, as in `"kubectl-edit" using v1`.
    pub(super) fn describe(&self) -> String {
        let manager = render::quote(&self.manager);
        let subresource = if self.subresource.is_empty() {
            String::new()
        } else {
            format!(" with subresource {}", render::quote(&self.subresource))
        };
        let version = match self.operation {
            Operation::Apply => String::new(),
            Operation::Update => format!(" using {}", self.api_version),
        };
        format!("{manager}{subresource}{version}")
    }
}

/// One owner and its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) identity: Identity,
    /// As written; absent or malformed times stay as they are.
    time: Option<String>,
    pub(super) fields: FieldSet,
}

impl Owner {
    pub(super) const fn new(identity: Identity, fields: FieldSet) -> Self {
        Self {
            identity,
            time: None,
            fields,
        }
    }

    pub(super) fn touch(&mut self, now: Timestamp) {
        self.time = Some(format_time(now));
    }

    fn seconds(&self) -> i64 {
        self.time
            .as_deref()
            .and_then(parse_time)
            .map_or(0, Timestamp::as_second)
    }
}

/// The owners of an object's fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Managers {
    owners: Vec<Owner>,
}

/// `metadata.managedFields` that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ManagersError {
    #[error("metadata.managedFields: expected a list of entries")]
    NotAList,
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    ApiVersion,
    #[error("missing fieldsType in managed fields entry {0}")]
    MissingFieldsType(usize),
    #[error("invalid fieldsType {1:?} in managed fields entry {0}")]
    FieldsType(usize, String),
    #[error("error decoding set: {0}")]
    Fields(#[from] FieldSetError),
}

impl Managers {
    /// Reads the owners from an object.
    pub(super) fn parse(object: &Value) -> Result<Self, ManagersError> {
        let mut managers = Self::default();
        let entries = match object.pointer("/metadata/managedFields") {
            None | Some(Value::Null) => return Ok(managers),
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err(ManagersError::NotAList),
        };
        for (i, entry) in entries.iter().enumerate() {
            let text = |key| entry.get(key).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err(ManagersError::Operation),
            };
            if text("apiVersion").is_empty() {
                return Err(ManagersError::ApiVersion);
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(ManagersError::MissingFieldsType(i)),
                other => return Err(ManagersError::FieldsType(i, other.to_owned())),
            }
            let fields = match entry.get("fieldsV1") {
                None | Some(Value::Null) => FieldSet::default(),
                Some(fields) => FieldSet::parse(fields)?,
            };
            managers.put(Owner {
                identity: Identity {
                    manager: text("manager").to_owned(),
                    operation,
                    api_version: text("apiVersion").to_owned(),
                    subresource: text("subresource").to_owned(),
                },
                time: entry
                    .get("time")
                    .and_then(Value::as_str)
                    .map(ToOwned::to_owned),
                fields,
            });
        }
        Ok(managers)
    }

    /// Writes the owners to an object, in the published order.
    pub(super) fn write(mut self, object: &mut Value) {
        self.owners.sort_by(|a, b| {
            let (one, two) = (&a.identity, &b.identity);
            one.operation
                .cmp(&two.operation)
                .then_with(|| a.seconds().cmp(&b.seconds()))
                .then_with(|| one.manager.cmp(&two.manager))
                .then_with(|| one.api_version.cmp(&two.api_version))
                .then_with(|| one.subresource.cmp(&two.subresource))
        });
        let entries: Vec<Value> = self.owners.iter().map(entry).collect();
        let Some(object) = object.as_object_mut() else {
            return;
        };
        if entries.is_empty() {
            if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
                metadata.shift_remove("managedFields");
            }
            return;
        }
        let metadata = object
            .entry("metadata")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(metadata) = metadata {
            metadata.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    pub(super) fn owners(&self) -> &[Owner] {
        &self.owners
    }

    pub(super) fn get(&self, identity: &Identity) -> Option<&Owner> {
        self.owners.iter().find(|owner| owner.identity.is(identity))
    }

    pub(super) fn get_mut(&mut self, identity: &Identity) -> Option<&mut Owner> {
        self.owners
            .iter_mut()
            .find(|owner| owner.identity.is(identity))
    }

    /// Adds an owner, or replaces it.
    pub(super) fn put(&mut self, owner: Owner) {
        match self.get_mut(&owner.identity) {
            Some(known) => *known = owner,
            None => self.owners.push(owner),
        }
    }

    /// Changes what every owner has; owners of nothing go.
    pub(super) fn retain(&mut self, mut change: impl FnMut(&mut Owner)) {
        for owner in &mut self.owners {
            change(owner);
        }
        self.owners.retain(|owner| !owner.fields.is_empty());
    }

    /// Takes the fields that nobody owns from one owner.
    pub(super) fn strip(&mut self, identity: &Identity) {
        let mut never = FieldSet::default();
        for path in NEVER_OWNED {
            never = never.union(&FieldSet::of_fields(path));
        }
        self.retain(|owner| {
            if owner.identity.is(identity) {
                owner.fields = owner.fields.difference(&never);
            }
        });
    }

    /// Puts the oldest updaters together until there are no more than [`MAX_UPDATERS`].
    pub(super) fn cap_updaters(&mut self) {
        let mut updaters: Vec<(i64, Identity)> = self
            .owners
            .iter()
            .filter(|owner| owner.identity.operation == Operation::Update)
            .map(|owner| (owner.seconds(), owner.identity.clone()))
            .collect();
        let mut count = updaters.len();
        if count <= MAX_UPDATERS {
            return;
        }
        updaters
            .sort_by(|(a_time, a), (b_time, b)| (a_time, &a.manager).cmp(&(b_time, &b.manager)));
        // The first owner of each version, which waits for a second one to be put together with.
        let mut firsts: Vec<Identity> = Vec::new();
        for (_, identity) in updaters {
            if count <= MAX_UPDATERS {
                break;
            }
            let first = firsts
                .iter()
                .find(|first| first.api_version == identity.api_version)
                .cloned();
            let Some(first) = first else {
                firsts.push(identity);
                continue;
            };
            let bucket = Identity {
                manager: OLD_UPDATERS.to_owned(),
                operation: Operation::Update,
                api_version: identity.api_version.clone(),
                subresource: String::new(),
            };
            if self.get(&bucket).is_none()
                && let Some(first) = self.take(&first)
            {
                self.put(Owner {
                    identity: bucket.clone(),
                    ..first
                });
            }
            if let Some(owner) = self.take(&identity) {
                let fields = match self.get(&bucket) {
                    Some(old) => old.fields.union(&owner.fields),
                    None => owner.fields,
                };
                self.put(Owner {
                    identity: bucket,
                    time: owner.time,
                    fields,
                });
                count -= 1;
            }
        }
    }

    fn take(&mut self, identity: &Identity) -> Option<Owner> {
        let at = self
            .owners
            .iter()
            .position(|owner| owner.identity.is(identity))?;
        Some(self.owners.remove(at))
    }

    /// Whether both say the same, whatever the times.
    pub(super) fn same_but_times(&self, other: &Self) -> bool {
        self.owners.len() == other.owners.len()
            && self.owners.iter().all(|owner| {
                other
                    .owners
                    .iter()
                    .any(|known| known.identity == owner.identity && known.fields == owner.fields)
            })
    }
}

/// An owner as an entry of `managedFields`.
fn entry(owner: &Owner) -> Value {
    let identity = &owner.identity;
    let mut entry = Map::new();
    if !identity.manager.is_empty() {
        entry.insert("manager".to_owned(), json!(identity.manager));
    }
    entry.insert("operation".to_owned(), json!(identity.operation.as_str()));
    entry.insert("apiVersion".to_owned(), json!(identity.api_version));
    if let Some(time) = &owner.time {
        entry.insert("time".to_owned(), json!(time));
    }
    entry.insert("fieldsType".to_owned(), json!("FieldsV1"));
    entry.insert("fieldsV1".to_owned(), owner.fields.to_value());
    if !identity.subresource.is_empty() {
        entry.insert("subresource".to_owned(), json!(identity.subresource));
    }
    Value::Object(entry)
}

/// Whether an object asks for its owners to be forgotten: an empty list, or one empty entry.
pub(super) fn asks_for_reset(object: &Value) -> bool {
    match object.pointer("/metadata/managedFields") {
        Some(Value::Array(entries)) => match entries.as_slice() {
            [] => true,
            [Value::Object(only)] => only.values().all(Value::is_null),
            [only] => only.is_null(),
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests;
