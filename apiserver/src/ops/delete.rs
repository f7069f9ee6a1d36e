//! DELETE: preconditions, finalizers, grace periods, propagation.
//!
//! An object goes at once unless something holds it: a finalizer, a grace period, or a hold of its
//! kind (a namespace with content). Held objects get their `deletionTimestamp`, and the write that
//! releases the last hold removes them.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Encoder, Engine, MAX_RACES, Target};
use crate::meta;
use crate::registry::{Deletion, Descriptor};
use crate::status::ApiError;
use crate::store::{CommitError, Object};

/// The finalizer that keeps an owner until its dependents are gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer that keeps an owner until its dependents forgot it.
pub(crate) const ORPHAN: &str = "orphan";

/// What happens to dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They are collected after the owner is gone.
    Background,
    /// They go first.
    Foreground,
    /// They stay and lose their reference to the owner.
    Orphan,
}

/// What the object must still be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// `metadata.uid`
    pub uid: Option<String>,
    /// `metadata.resourceVersion`
    pub resource_version: Option<String>,
}

/// Options of a deletion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Decide everything, change nothing.
    pub dry_run: bool,
    /// The client's grace period in seconds.
    pub grace: Option<i64>,
    /// What happens to dependents; the resource's default when absent.
    pub propagation: Option<Propagation>,
    /// What the object must still be.
    pub preconditions: Preconditions,
}

/// What a deletion did.
#[derive(Debug, Clone)]
pub enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Arc<Object>),
    /// The object is marked and waits for what holds it.
    Pending(Arc<Object>),
}

impl Deleted {
    /// The object as it was left.
    pub fn object(&self) -> &Arc<Object> {
        match self {
            Self::Gone(object) | Self::Pending(object) => object,
        }
    }
}

/// Whether nothing holds an object that is marked for deletion.
pub(super) fn is_finished(descriptor: &Descriptor, object: &Value) -> bool {
    let grace = meta::get(object, "deletionGracePeriodSeconds").and_then(Value::as_i64);
    meta::is_deleting(object)
        && grace.unwrap_or(0) == 0
        && meta::finalizers(object).is_empty()
        && !descriptor.strategy.holds(object)
}

impl Engine {
    /// Deletes one object.
    pub fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Deleted, ApiError> {
        if let Some(why) = target.descriptor.strategy.keeps(&target.name) {
            return Err(ApiError::forbidden(&target.descriptor, &target.name, why));
        }
        let encoder = Encoder::of(target);
        for _ in 0..MAX_RACES {
            let stored = self.read(target)?;
            let old = encoder.value(&stored);
            check_preconditions(target, &options.preconditions, &old)?;
            let next = mark(&target.descriptor, &old, options, self.clock.now());
            let outcome = match next {
                Next::Gone => self
                    .remove(target, &stored, options.dry_run)
                    .map(Deleted::Gone),
                Next::Held => return Ok(Deleted::Pending(stored)),
                Next::Marked(object) => {
                    let draft = self.draft(target, object)?;
                    self.swap(target, &stored, draft, options.dry_run)
                        .map(Deleted::Pending)
                }
            };
            match outcome {
                Ok(deleted) => return Ok(deleted),
                Err(CommitError::Stale { .. }) => {}
                Err(CommitError::Missing) => return Err(target.not_found()),
                Err(other) => return Err(ApiError::internal(&other.to_string())),
            }
        }
        Err(target.conflict())
    }

    /// Deletes every object of a collection that `wanted` accepts; what is gone meanwhile counts as
    /// deleted.
    pub fn delete_collection(
        &self,
        target: &Target,
        options: &DeleteOptions,
        wanted: &[Arc<Object>],
    ) -> Result<Vec<Arc<Object>>, ApiError> {
        let mut deleted = Vec::with_capacity(wanted.len());
        for object in wanted {
            let one = Target {
                namespace: object.namespace().to_owned(),
                name: object.name().to_owned(),
                ..target.clone()
            };
            match self.delete(&one, options) {
                Ok(outcome) => deleted.push(outcome.object().clone()),
                Err(error) if error.reason() == "NotFound" => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }
}

/// What a deletion makes of an object.
enum Next {
    Gone,
    /// It is marked already and nothing changes.
    Held,
    Marked(Value),
}

fn mark(descriptor: &Descriptor, old: &Value, options: &DeleteOptions, now: Timestamp) -> Next {
    let mut new = old.clone();
    match options.propagation {
        Some(Propagation::Foreground) => {
            meta::remove_finalizer(&mut new, ORPHAN);
            meta::add_finalizer(&mut new, FOREGROUND);
        }
        Some(Propagation::Orphan) => {
            meta::remove_finalizer(&mut new, FOREGROUND);
            meta::add_finalizer(&mut new, ORPHAN);
        }
        Some(Propagation::Background) => {
            meta::remove_finalizer(&mut new, FOREGROUND);
            meta::remove_finalizer(&mut new, ORPHAN);
        }
        None => {}
    }
    let deleting = meta::is_deleting(old);
    let grace = match descriptor.strategy.deletion(old, options.grace) {
        Deletion::Now => Some(0),
        Deletion::Graceful { seconds } => Some(seconds.max(0)),
        Deletion::Marked => None,
    };
    match grace {
        None if !deleting => meta::set(&mut new, "deletionTimestamp", meta::time(now)),
        None => {}
        Some(grace) => {
            let pending = meta::get(old, "deletionGracePeriodSeconds").and_then(Value::as_i64);
            // A second deletion may shorten the grace period of the first, never extend it.
            if !deleting || pending.is_some_and(|pending| grace < pending) {
                let end = now
                    .saturating_add(SignedDuration::from_secs(grace))
                    .unwrap_or(now);
                meta::set(&mut new, "deletionTimestamp", meta::time(end));
                meta::set(&mut new, "deletionGracePeriodSeconds", grace);
            }
            if !deleting && let Some(generation) = meta::generation(old) {
                meta::set(&mut new, "generation", generation + 1);
            }
        }
    }
    descriptor.strategy.mark_deleting(&mut new, now);
    if is_finished(descriptor, &new) {
        Next::Gone
    } else if new == *old {
        Next::Held
    } else {
        Next::Marked(new)
    }
}

fn check_preconditions(
    target: &Target,
    preconditions: &Preconditions,
    object: &Value,
) -> Result<(), ApiError> {
    let demands = [
        (
            "UID",
            "uid",
            &preconditions.uid,
            "deleted and then recreated",
        ),
        (
            "ResourceVersion",
            "resourceVersion",
            &preconditions.resource_version,
            "modified",
        ),
    ];
    for (label, field, demand, fate) in demands {
        let actual = meta::text(object, field);
        if let Some(demand) = demand.as_deref().filter(|demand| *demand != actual) {
            let why = format!(
                "the {label} in the precondition ({demand}) does not match the {label} in record \
                 ({actual}). The object might have been {fate}"
            );
            return Err(ApiError::conflict_of_kind(
                &target.descriptor,
                &target.name,
                &why,
            ));
        }
    }
    Ok(())
}
