//! Server-side apply and the field ownership that every write records.
//!
//! ```text
//!   typed      a value seen through its schema: merge, compare, extract, remove
//!   fieldset   sets of fields, as in managedFields
//!   managers   who owns which set; conflicts, take-over, abandonment
//! ```
//!
//! [`server_side_apply`] and [`record_update`] are the two entries; both are pure. Behaviour follows
//! what Kubernetes publishes about server-side apply and `sigs.k8s.io/structured-merge-diff`.
//!
//! Fields that an endpoint ignores (`status` on the main resource, everything else on `/status`) are the
//! caller's business: it removes them from the configuration, and resets them in updates, before.

mod element;
mod fieldset;
mod last_applied;
mod managers;
mod typed;

pub use element::{Element, ElementError, Scalar};
pub use fieldset::{FieldSet, FieldSetError};
pub use managers::MAX_UPDATERS;

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};

use self::managers::{Conflicting, Identity, Managers, Operation, Owner};
use self::typed::Type;
use crate::meta;
use crate::schema::Structural;

/// Owns what was there before the first apply to an object without a record.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// What a server-side apply works on.
#[derive(Debug)]
pub struct ApplyInput<'a> {
    /// Schema of the request's version.
    pub schema: &'a Structural,
    /// The live object in the request's version, `metadata.managedFields` included.
    pub live: Option<&'a Value>,
    /// The applied configuration.
    pub applied: &'a Value,
    /// The field manager.
    pub manager: &'a str,
    /// `apiVersion` of the request.
    pub api_version: &'a str,
    /// Subresource the apply goes through, empty for the main resource.
    pub subresource: &'a str,
    /// Time to record.
    pub now: Timestamp,
    /// Whether to take over fields of other managers.
    pub force: bool,
}

/// Why an apply was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyError {
    /// Other managers own fields with another value: 409 with one cause per field.
    Conflict(Vec<Conflict>),
    /// The request cannot be applied, whatever the schema says: 400.
    Malformed(String),
    /// The configuration does not fit the schema: 500 without a reason, as published.
    Untyped(String),
}

/// A field that another manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it, as in `"kubectl-edit" using v1`.
    pub owner: String,
    /// Which field, as in `.spec.replicas`.
    pub field: String,
}

impl fmt::Display for ApplyError {
    /// The message of the published error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conflicts = match self {
            Self::Malformed(message) | Self::Untyped(message) => return f.write_str(message),
            Self::Conflict(conflicts) => conflicts,
        };
        if let [only] = conflicts.as_slice() {
            return write!(
                f,
                "Apply failed with 1 conflict: conflict with {}: {}",
                only.owner, only.field
            );
        }
        write!(f, "Apply failed with {} conflicts: ", conflicts.len())?;
        let mut owners: Vec<&str> = conflicts.iter().map(|c| c.owner.as_str()).collect();
        owners.sort_unstable();
        owners.dedup();
        for (i, owner) in owners.into_iter().enumerate() {
            let newline = if i > 0 { "\n" } else { "" };
            write!(f, "{newline}conflicts with {owner}:")?;
            for conflict in conflicts.iter().filter(|c| c.owner == owner) {
                write!(f, "\n- {}", conflict.field)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ApplyError {}

impl ApplyError {
    fn malformed(message: impl Into<String>) -> Self {
        Self::Malformed(message.into())
    }
}

/// Merges `applied` into `live` and updates `metadata.managedFields`.
///
/// The result equals `live`, record and times included, when nothing changed.
pub fn server_side_apply(input: &ApplyInput<'_>) -> Result<Value, ApplyError> {
    let ty = Type::Schema(input.schema);
    check_configuration(input)?;
    let empty = empty_object(input);
    let live = input.live.unwrap_or(&empty);
    let mut managers = Managers::parse(live).map_err(|error| {
        ApplyError::malformed(format!("failed to decode managed fields: {error}"))
    })?;
    let before = managers.clone();
    let mut bare = live.clone();
    remove_record(&mut bare);
    let identity = Identity {
        manager: input.manager.to_owned(),
        operation: Operation::Apply,
        api_version: input.api_version.to_owned(),
        subresource: input.subresource.to_owned(),
    };
    if managers.is_empty() && input.live.is_some() {
        let first = Identity {
            manager: BEFORE_FIRST_APPLY.to_owned(),
            operation: Operation::Update,
            ..identity.clone()
        };
        record(ty, &empty, &bare, first, &mut managers, input.now);
    }
    let merged = merge(input, &bare, &identity, &mut managers)?;
    managers.strip(&identity);
    let changed = merged.is_some();
    let mut next = merged.unwrap_or_else(|| bare.clone());
    if input.manager == last_applied::KUBECTL {
        last_applied::refresh(&mut next, input.applied);
    }
    if !changed && managers.same_but_times(&before) && next == bare {
        return Ok(live.clone());
    }
    if changed && let Some(owner) = managers.get_mut(&identity) {
        owner.touch(input.now);
    }
    managers.write(&mut next);
    Ok(next)
}

/// Merges, trying again by force what only conflicts with `kubectl`'s own client-side apply.
fn merge(
    input: &ApplyInput<'_>,
    live: &Value,
    identity: &Identity,
    managers: &mut Managers,
) -> Result<Option<Value>, ApplyError> {
    let ty = Type::Schema(input.schema);
    let mut attempt = |force| {
        let mut next = managers.clone();
        let merged = managers::apply(ty, live, input.applied, identity, force, &mut next)?;
        *managers = next;
        Ok(merged)
    };
    let mut conflicts: Vec<Conflicting> = match attempt(input.force) {
        Ok(merged) => return Ok(merged),
        Err(conflicts) => conflicts,
    };
    if input.manager == last_applied::KUBECTL {
        let own = last_applied::owned(ty, live, input.api_version);
        conflicts.retain(|conflict| !own.contains(&conflict.path));
        if conflicts.is_empty()
            && let Ok(merged) = attempt(true)
        {
            return Ok(merged);
        }
    }
    let mut conflicts: Vec<Conflict> = conflicts
        .into_iter()
        .map(|conflict| Conflict {
            owner: conflict.owner.describe(),
            field: conflict.path.iter().map(ToString::to_string).collect(),
        })
        .collect();
    conflicts.sort_by(|a, b| a.owner.cmp(&b.owner));
    Err(ApplyError::Conflict(conflicts))
}

/// Refuses configurations that cannot be applied, whatever the object.
fn check_configuration(input: &ApplyInput<'_>) -> Result<(), ApplyError> {
    let applied = input.applied;
    if !applied.is_object() {
        return Err(ApplyError::malformed(
            "the applied configuration must be an object",
        ));
    }
    let text = |pointer: &str| {
        applied
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let api_version = text("/apiVersion");
    if api_version != input.api_version {
        return Err(ApplyError::malformed(format!(
            "Incorrect version specified in apply patch. Specified patch version: {api_version}, expected: {}",
            input.api_version
        )));
    }
    if applied
        .pointer("/metadata/managedFields")
        .is_some_and(|fields| !fields.is_null())
    {
        return Err(ApplyError::malformed("metadata.managedFields must be nil"));
    }
    let problems = typed::check(Type::Schema(input.schema), applied);
    if problems.is_empty() {
        return Ok(());
    }
    let texts: Vec<_> = problems
        .iter()
        .map(|problem| {
            if problem.path.is_empty() {
                problem.message.clone()
            } else {
                format!("{}: {}", problem.path, problem.message)
            }
        })
        .collect();
    let texts = match texts.as_slice() {
        [only] => only.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    Err(ApplyError::Untyped(format!(
        "failed to create typed patch object ({}/{}; {}): {texts}",
        text("/metadata/namespace"),
        text("/metadata/name"),
        meta::group_version_kind(api_version, text("/kind")),
    )))
}

/// What an object is before it exists.
fn empty_object(input: &ApplyInput<'_>) -> Value {
    let mut object = Map::new();
    for key in ["apiVersion", "kind"] {
        if let Some(value) = input.applied.get(key) {
            object.insert(key.to_owned(), value.clone());
        }
    }
    Value::Object(object)
}

/// What a non-apply write is, for [`record_update`].
#[derive(Debug, Clone, Copy)]
pub struct UpdateInput<'a> {
    /// Schema of the request's version.
    pub schema: &'a Structural,
    /// The field manager.
    pub manager: &'a str,
    /// `apiVersion` of the request.
    pub api_version: &'a str,
    /// Subresource, empty for the main resource.
    pub subresource: &'a str,
    /// Time to record.
    pub now: Timestamp,
}

/// Records in `new.metadata.managedFields` which fields a create, update or patch changed.
///
/// `new` may change the record itself, or reset it with an empty list; objects without a record are
/// not recorded again before they are applied. A write that changes nothing leaves the record as it
/// was, times included.
pub fn record_update(input: UpdateInput<'_>, old: Option<&Value>, new: &mut Value) {
    let ty = Type::Schema(input.schema);
    let known = |object: &Value| Managers::parse(object).unwrap_or_default();
    let mut managers = match old {
        Some(old) if !input.subresource.is_empty() => known(old),
        _ if managers::asks_for_reset(new) => Managers::default(),
        _ => match (Managers::parse(new), old) {
            (Ok(managers), _) if !managers.is_empty() => managers,
            (_, Some(old)) => known(old),
            (_, None) => Managers::default(),
        },
    };
    remove_record(new);
    if managers.is_empty() && old.is_some() {
        return;
    }
    let empty = Value::Object(Map::new());
    let mut before = old.cloned().unwrap_or(empty);
    remove_record(&mut before);
    let identity = Identity {
        manager: if input.manager.is_empty() {
            "unknown".to_owned()
        } else {
            input.manager.to_owned()
        },
        operation: Operation::Update,
        api_version: input.api_version.to_owned(),
        subresource: input.subresource.to_owned(),
    };
    record(ty, &before, new, identity, &mut managers, input.now);
    managers.cap_updaters();
    if let Some(old) = old
        && before == *new
        && managers.same_but_times(&known(old))
    {
        managers = known(old);
    }
    managers.write(new);
}

/// Records that `identity` turned `old` into `new`.
fn record(
    ty: Type<'_>,
    old: &Value,
    new: &Value,
    identity: Identity,
    managers: &mut Managers,
    now: Timestamp,
) {
    let changed = managers::update(ty, old, new, managers);
    let mut own = Managers::default();
    own.put(Owner::new(identity.clone(), changed));
    own.strip(&identity);
    let Some(changed) = own.get(&identity).map(|owner| owner.fields.clone()) else {
        return;
    };
    // The writer keeps what it had and did not touch.
    let fields = match managers.get(&identity) {
        Some(known) => known.fields.union(&changed),
        None => changed,
    };
    let mut owner = Owner::new(identity, fields);
    owner.touch(now);
    managers.put(owner);
}

fn remove_record(object: &mut Value) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.shift_remove("managedFields");
    }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
