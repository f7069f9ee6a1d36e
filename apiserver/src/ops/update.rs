//! PUT, and what every replacement of an object goes through.

use std::sync::Arc;

use serde_json::Value;

use super::create::Ownership;
use super::schema::{Strictness, normalise, strictness, violations};
use super::{Encoder, Engine, MAX_RACES, Target, WriteOptions, Written};
use super::{delete, metadata};
use crate::meta;
use crate::patch::apply::{UpdateInput, record_update};
use crate::registry::{Descriptor, SubresourceAction, Version};
use crate::status::ApiError;
use crate::store::{Change, CommitError, Draft, Object};

/// A candidate for the next state of an object.
pub(super) struct Candidate {
    /// The object as the client wants it, in the target's version.
    pub object: Value,
    /// Who records its fields.
    pub ownership: Ownership,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

/// What part of an object a write may change.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'a> {
    /// Everything that is not kept for a subresource.
    Main,
    /// Only these paths.
    Only {
        /// The subresource, for field ownership.
        subresource: &'a str,
        /// Paths from the root.
        paths: &'a [Vec<String>],
    },
}

impl<'a> Part<'a> {
    /// The part behind a subresource, if it is one that exposes a part.
    pub(super) fn of(version: &'a Version, subresource: &'a str) -> Result<Self, ApiError> {
        if subresource.is_empty() {
            return Ok(Self::Main);
        }
        match version.subresource(subresource).map(|found| &found.action) {
            Some(SubresourceAction::Part { paths }) => Ok(Self::Only { subresource, paths }),
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    fn subresource(self) -> &'a str {
        match self {
            Self::Main => "",
            Self::Only { subresource, .. } => subresource,
        }
    }
}

/// The refusal of a body with unknown or duplicate fields.
pub(super) fn strict_refusal(target: &Target, problems: &str) -> ApiError {
    let (kind, version) = (target.kind(), &target.version.name);
    ApiError::bad_request(format!(
        "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: \
         {problems}"
    ))
}

impl Engine {
    /// Replaces an object, or the part of it behind `subresource`, with the one a client sent.
    pub fn update(
        &self,
        target: &Target,
        subresource: &str,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let part = Part::of(&target.version, subresource)?;
        metadata::settle_type(target, &mut object)?;
        metadata::settle_identity(target, &mut object)?;
        let warnings = match strictness(target, options, &object) {
            Strictness::Clean => Vec::new(),
            Strictness::Warnings(warnings) => warnings,
            Strictness::Refused(problems) => return Err(strict_refusal(target, &problems)),
        };
        let given = meta::text(&object, "resourceVersion").to_owned();
        let exists = self.read(target).is_ok();
        if !exists && target.descriptor.create_on_update && subresource.is_empty() {
            if !meta::text(&object, "uid").is_empty() {
                return Err(target.conflict());
            }
            return self.create_named(target, object, options, Ownership::Record, warnings);
        }
        if exists && given.is_empty() && !target.descriptor.unconditional_update {
            let error = crate::schema::FieldError::invalid(
                "metadata.resourceVersion",
                &Value::from(0),
                "must be specified for an update",
            );
            let descriptor = &target.descriptor;
            // The published message has the resource where others have the kind.
            return Err(ApiError::invalid(
                &descriptor.group,
                &descriptor.plural,
                &target.name,
                &[error],
            ));
        }
        self.replace(target, part, options, |old| {
            metadata::check_uid(target, &object, old)?;
            Ok(Candidate {
                object: object.clone(),
                ownership: Ownership::Record,
                warnings: warnings.clone(),
            })
        })
    }

    /// Reads an object, lets `next` compute its successor, and commits that, starting over when
    /// somebody else was faster and the successor did not insist on a resource version.
    pub(super) fn replace(
        &self,
        target: &Target,
        part: Part<'_>,
        options: &WriteOptions,
        mut next: impl FnMut(&Value) -> Result<Candidate, ApiError>,
    ) -> Result<Written, ApiError> {
        let encoder = Encoder::of(target);
        for _ in 0..MAX_RACES {
            let stored = self.read(target)?;
            let old = encoder.value(&stored);
            let candidate = next(&old)?;
            let demanded = meta::text(&candidate.object, "resourceVersion");
            if !matches!(demanded, "" | "0") && demanded != meta::text(&old, "resourceVersion") {
                return Err(target.conflict());
            }
            let (settled, warnings) = self.settle(target, part, options, candidate, &old)?;
            let object = match settled {
                Settled::Unchanged => Ok(stored),
                Settled::Gone => self.remove(target, &stored, options.dry_run),
                Settled::Changed(draft) => self.swap(target, &stored, *draft, options.dry_run),
            };
            match object {
                Ok(object) => {
                    return Ok(Written {
                        object,
                        created: false,
                        warnings,
                    });
                }
                Err(CommitError::Stale { .. }) => {}
                Err(CommitError::Missing) => return Err(target.not_found()),
                Err(other) => return Err(ApiError::internal(&other.to_string())),
            }
        }
        Err(target.conflict())
    }

    /// Applies every rule of a replacement and decides what it amounts to.
    fn settle(
        &self,
        target: &Target,
        part: Part<'_>,
        options: &WriteOptions,
        candidate: Candidate,
        old: &Value,
    ) -> Result<(Settled, Vec<String>), ApiError> {
        let now = self.clock.now();
        let Candidate {
            object: mut new,
            ownership,
            mut warnings,
        } = candidate;
        let descriptor = &target.descriptor;
        metadata::carry_over(&mut new, old);
        meta::copy(&mut new, old, "resourceVersion");
        normalise(target, &mut new)?;
        new = confine(descriptor, &target.version, part, new, old);

        let context = self.context(target, &target.name, part.subresource(), now);
        descriptor.strategy.prepare_update(&context, &mut new, old);
        // Where a pod runs is part of its spec, but not of what its author asked for.
        let counts = descriptor.generation && part.subresource() != "binding";
        if counts && spec_differs(&target.version, &new, old) {
            let next = meta::generation(old).unwrap_or(0) + 1;
            meta::set(&mut new, "generation", next);
        }
        let mut errors = metadata::violations(target, &new, Some(old));
        errors.extend(violations(target, &new, Some(old)));
        if errors.is_empty() {
            errors.extend(descriptor.strategy.validate(&context, &new, Some(old)));
        }
        if !errors.is_empty() {
            let (group, kind) = (&descriptor.group, &descriptor.kind);
            let error = ApiError::invalid(group, kind, &target.name, &errors);
            return Err(error.with_warnings(warnings));
        }
        warnings.extend(metadata::warnings(target, &new, Some(old)));
        warnings.extend(descriptor.strategy.warnings(&new, Some(old)));
        if ownership == Ownership::Record {
            record_update(
                UpdateInput {
                    schema: &target.version.schema,
                    manager: &options.manager,
                    api_version: &target.api_version(),
                    subresource: part.subresource(),
                    now,
                },
                Some(old),
                &mut new,
            );
        }
        let settled = if delete::is_finished(descriptor, &new) {
            Settled::Gone
        } else if same_but_for_times(&new, old) {
            Settled::Unchanged
        } else {
            Settled::Changed(Box::new(self.draft(target, new)?))
        };
        Ok((settled, warnings))
    }

    /// Commits `draft` in place of `stored`.
    pub(super) fn swap(
        &self,
        target: &Target,
        stored: &Object,
        draft: Draft,
        dry_run: bool,
    ) -> Result<Arc<Object>, CommitError> {
        let expected = stored.revision();
        if dry_run {
            return Ok(Arc::new(draft.at(expected)));
        }
        let change = Change::Replace { expected, draft };
        self.store.commit(&target.resource(), change, None)
    }

    /// Removes `stored`.
    pub(super) fn remove(
        &self,
        target: &Target,
        stored: &Arc<Object>,
        dry_run: bool,
    ) -> Result<Arc<Object>, CommitError> {
        if dry_run {
            return Ok(stored.clone());
        }
        let change = Change::Delete {
            key: stored.key().clone(),
            expected: stored.revision(),
        };
        self.store.commit(&target.resource(), change, None)
    }
}

/// What a replacement amounts to.
enum Settled {
    /// Nothing changes; nothing is written and nobody is woken.
    Unchanged,
    /// The object changes.
    Changed(Box<Draft>),
    /// The last finalizer of a deleted object is gone, and so is the object.
    Gone,
}

/// Takes from `new` only what this part of the API may change.
fn confine(
    descriptor: &Descriptor,
    version: &Version,
    part: Part<'_>,
    new: Value,
    old: &Value,
) -> Value {
    match part {
        Part::Main => {
            let mut new = new;
            if version.has_status() && !descriptor.strategy.writes_status_with_spec() {
                let status = ["status".to_owned()];
                meta::put(&mut new, &status, old.get("status").cloned());
            }
            new
        }
        Part::Only { paths, .. } => {
            let mut confined = old.clone();
            for path in paths {
                meta::put(&mut confined, path, meta::at(&new, path).cloned());
            }
            meta::copy(&mut confined, &new, "managedFields");
            confined
        }
    }
}

/// Whether anything but metadata (and status, where it is separate) differs.
fn spec_differs(version: &Version, new: &Value, old: &Value) -> bool {
    let counts = |key: &str| {
        !(matches!(key, "metadata" | "apiVersion" | "kind")
            || key == "status" && version.has_status())
    };
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else {
        return new != old;
    };
    let differs = |a: &serde_json::Map<String, Value>, b: &serde_json::Map<String, Value>| {
        a.iter()
            .any(|(key, value)| counts(key) && b.get(key) != Some(value))
    };
    differs(new, old) || differs(old, new)
}

/// Whether two versions of an object differ in nothing but the times of their managed fields.
fn same_but_for_times(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else {
        return new == old;
    };
    new.len() == old.len()
        && new.iter().all(|(key, value)| {
            let Some(other) = old.get(key) else {
                return false;
            };
            if key == "metadata" {
                same_metadata(value, other)
            } else {
                value == other
            }
        })
}

fn same_metadata(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else {
        return new == old;
    };
    new.len() == old.len()
        && new.iter().all(|(key, value)| {
            let Some(other) = old.get(key) else {
                return false;
            };
            if key == "managedFields" {
                same_managers(value, other)
            } else {
                value == other
            }
        })
}

fn same_managers(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_array(), old.as_array()) else {
        return new == old;
    };
    let timeless = |entry: &Value| {
        let mut entry = entry.clone();
        entry.as_object_mut().map(|map| map.shift_remove("time"));
        entry
    };
    new.len() == old.len() && new.iter().zip(old).all(|(a, b)| timeless(a) == timeless(b))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_times_of_managed_fields_may_differ_in_a_no_op() {
        let object = |time: &str, manager: &str, n: i64| {
            json!({"metadata": {"name": "a", "managedFields": [{"manager": manager, "time": time}]},
                "spec": {"n": n}})
        };
        let old = object("1", "m", 1);
        assert!(same_but_for_times(&object("2", "m", 1), &old));
        assert!(!same_but_for_times(&object("1", "other", 1), &old));
        assert!(!same_but_for_times(&object("1", "m", 2), &old));
        let reordered = json!({"spec": {"n": 1}, "metadata": {"managedFields":
            [{"time": "3", "manager": "m"}], "name": "a"}});
        assert!(same_but_for_times(&reordered, &old));
    }
}
