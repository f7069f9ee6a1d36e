//! How ownership changes with a write: by comparison for updates, by the configuration for applies.

use serde_json::Value;

use super::super::element::Element;
use super::super::fieldset::FieldSet;
use super::super::typed::{self, Diff, Type};
use super::{Identity, Managers, Owner};

/// A field whose owner disagrees with an apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Conflicting {
    pub(in super::super) owner: Identity,
    pub(in super::super) path: Vec<Element>,
}

/// Records that `identity` turned `old` into `new`. The result are the fields it changed.
pub(in super::super) fn update(
    ty: Type<'_>,
    old: &Value,
    new: &Value,
    managers: &mut Managers,
) -> FieldSet {
    let diff = typed::compare(ty, old, new);
    managers.retain(|owner| owner.fields = typed::reconcile(ty, &owner.fields));
    take_over(&diff, managers, None);
    diff.modified.union(&diff.added)
}

/// Merges `applied` into `live` for `identity`.
///
/// The result is the object, `None` when it stays as it is. Without `force`, fields that others own
/// with another value are conflicts, and `managers` is not to be used.
pub(in super::super) fn apply(
    ty: Type<'_>,
    live: &Value,
    applied: &Value,
    identity: &Identity,
    force: bool,
    managers: &mut Managers,
) -> Result<Option<Value>, Vec<Conflicting>> {
    managers.retain(|owner| owner.fields = typed::reconcile(ty, &owner.fields));
    let merged = typed::merge(ty, live, applied);
    let fields = typed::field_set(ty, applied);
    let last = managers.get(identity).map(|owner| owner.fields.clone());
    let time = managers.get(identity).and_then(|owner| owner.time.clone());
    managers.put(Owner {
        identity: identity.clone(),
        time,
        fields,
    });
    let next = match last {
        Some(last) => without_abandoned(ty, &merged, &last, managers),
        None => merged,
    };
    let diff = typed::compare(ty, live, &next);
    if !force {
        let conflicts = conflicts(&diff, managers, identity);
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
    }
    take_over(&diff, managers, Some(identity));
    Ok((!typed::same(live, &next)).then_some(next))
}

/// Takes changed and removed fields from everybody but `but`.
fn take_over(diff: &Diff, managers: &mut Managers, but: Option<&Identity>) {
    let gone = diff.modified.union(&diff.added).union(&diff.removed);
    managers.retain(|owner| {
        if !but.is_some_and(|but| owner.identity.is(but)) {
            owner.fields = owner.fields.difference(&gone);
        }
    });
}

fn conflicts(diff: &Diff, managers: &Managers, identity: &Identity) -> Vec<Conflicting> {
    let changed = diff.modified.union(&diff.added);
    let mut found = Vec::new();
    for owner in managers.owners() {
        if owner.identity.is(identity) {
            continue;
        }
        owner.fields.intersection(&changed).each(&mut |path| {
            found.push(Conflicting {
                owner: owner.identity.clone(),
                path: path.iter().map(|element| (*element).clone()).collect(),
            });
        });
    }
    found
}

/// `merged` without what the owner applied `last` time, does not apply any more, and nobody owns.
fn without_abandoned(ty: Type<'_>, merged: &Value, last: &FieldSet, managers: &Managers) -> Value {
    if last.is_empty() {
        return merged.clone();
    }
    let named = |set: &FieldSet| typed::named_fields(ty, set);
    let set_of = |value: &Value| named(&typed::field_set(ty, value));
    let without = |set: &FieldSet| typed::remove(ty, merged, set);
    let last = named(last);
    let all = set_of(merged);
    // What was applied last time goes...
    let pruned = set_of(&without(&last));
    // ...except what somebody owns, the new configuration included...
    let owned = managers
        .owners()
        .iter()
        .fold(FieldSet::default(), |owned, owner| {
            owned.union(&owner.fields)
        });
    let kept = set_of(&without(&all.difference(&pruned.union(&named(&owned)))));
    // ...and except what came along with it but was never applied.
    without(&all.difference(&kept).intersection(&last))
}
