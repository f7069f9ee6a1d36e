//! PATCH in its four kinds, of objects and of their parts.

use serde_json::Value;

use super::create::Ownership;
use super::schema::{Strictness, conform, strictness};
use super::update::{Candidate, Part, strict_refusal};
use super::{Engine, FieldValidation, Target, WriteOptions, Written, metadata};
use crate::meta;
use crate::patch::apply::{ApplyError, ApplyInput, server_side_apply};
use crate::patch::{PatchError, json, merge, strategic};
use crate::schema::{FieldError, Structural};
use crate::status::ApiError;

/// How a patch document is to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
    /// `application/apply-patch+yaml`
    Apply {
        /// Take over fields that other managers own.
        force: bool,
    },
}

impl Engine {
    /// Patches an object, or the part of it behind `subresource`. An apply may create it.
    pub fn patch(
        &self,
        target: &Target,
        subresource: &str,
        kind: PatchKind,
        patch: &Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let part = Part::of(&target.version, subresource)?;
        if let PatchKind::Apply { force } = kind {
            return self.apply(target, part, subresource, patch.clone(), force, options);
        }
        self.replace(target, part, options, |old| {
            let mut object = patched(&target.version.schema, kind, old, patch)?;
            metadata::settle_patched_type(target, &mut object)?;
            metadata::settle_identity(target, &mut object)?;
            let warnings = match strictness(target, options, &object) {
                Strictness::Clean => Vec::new(),
                Strictness::Warnings(warnings) => warnings,
                Strictness::Refused(problems) => {
                    let error = FieldError::invalid(
                        "patch",
                        &Value::from(patch.to_string()),
                        format_args!("strict decoding error: {problems}"),
                    );
                    return Err(ApiError::invalid("", "", "", &[error]));
                }
            };
            // A value of the wrong type is the patch's fault, not the object's.
            let mut typed = object.clone();
            conform(target, &mut typed).map_err(|problem| {
                let error = FieldError::invalid("patch", &object.to_string().into(), problem);
                ApiError::invalid("", "", "", &[error])
            })?;
            Ok(Candidate {
                object,
                ownership: Ownership::Record,
                warnings,
            })
        })
    }

    pub(super) fn apply(
        &self,
        target: &Target,
        part: Part<'_>,
        subresource: &str,
        mut applied: Value,
        force: bool,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        metadata::check_applied(target, &applied)?;
        // Fields that the schema does not know are refused by the merge, whatever the client says about
        // them; what is left to judge are repeated ones.
        let warnings = match options.validation {
            FieldValidation::Warn => options.decoding.clone(),
            FieldValidation::Strict if !options.decoding.is_empty() => {
                return Err(strict_refusal(target, &options.decoding.join(", ")));
            }
            FieldValidation::Strict | FieldValidation::Ignore => Vec::new(),
        };
        confine_configuration(target, part, &mut applied);

        let merged = |live: Option<&Value>| {
            let mut object = server_side_apply(&ApplyInput {
                schema: &target.version.schema,
                live,
                applied: &applied,
                manager: &options.manager,
                api_version: &target.api_version(),
                subresource,
                now: self.clock.now(),
                force,
            })
            .map_err(refusal)?;
            metadata::settle_identity(target, &mut object)?;
            Ok(object)
        };
        // Somebody may create or delete the object between looking and writing.
        for _ in 0..super::MAX_RACES {
            if self.read(target).is_err() && subresource.is_empty() {
                let uid = meta::text(&applied, "uid");
                if !uid.is_empty() {
                    let why = format!(
                        "uid mismatch: the provided object specified uid {uid}, and no existing \
                         object was found"
                    );
                    let name = &target.name;
                    return Err(ApiError::conflict_because(&target.descriptor, name, &why));
                }
                let object = merged(None)?;
                let outcome = self.create_named(
                    target,
                    object,
                    options,
                    Ownership::Applied,
                    warnings.clone(),
                );
                match outcome {
                    Err(error) if error.reason() == "AlreadyExists" => continue,
                    outcome => return outcome,
                }
            }
            let outcome = self.replace(target, part, options, |old| {
                Ok(Candidate {
                    object: merged(Some(old))?,
                    ownership: Ownership::Applied,
                    warnings: warnings.clone(),
                })
            });
            match outcome {
                Err(error) if error.reason() == "NotFound" && subresource.is_empty() => {}
                outcome => return outcome,
            }
        }
        Err(target.conflict())
    }
}

/// The result of a patch that is not an apply.
pub(super) fn patched(
    schema: &Structural,
    kind: PatchKind,
    old: &Value,
    patch: &Value,
) -> Result<Value, ApiError> {
    let outcome = match kind {
        PatchKind::Json => {
            let mut object = old.clone();
            json::apply(&mut object, patch).map(|()| object)
        }
        PatchKind::Strategic => strategic::apply(schema, old, patch),
        PatchKind::Merge | PatchKind::Apply { .. } if !patch.is_object() => Err(
            PatchError::Malformed("the patch must be one JSON object".to_owned()),
        ),
        PatchKind::Merge | PatchKind::Apply { .. } => {
            let mut object = old.clone();
            merge::apply(&mut object, patch);
            Ok(object)
        }
    };
    outcome.map_err(|error| match error {
        PatchError::Malformed(message) => ApiError::bad_request(message),
        PatchError::Inapplicable(message) => ApiError::unprocessable(message),
        PatchError::TooLarge(message) => ApiError::too_large_because(message),
    })
}

/// Drops from an applied configuration what this part of the API would ignore, so that the manager
/// does not come to own it.
fn confine_configuration(target: &Target, part: Part<'_>, applied: &mut Value) {
    match part {
        Part::Main => {
            if target.version.has_status() {
                meta::put(applied, &["status".to_owned()], None);
            }
        }
        Part::Only { paths, .. } => {
            let mut confined = serde_json::json!({
                "apiVersion": applied.get("apiVersion"),
                "kind": applied.get("kind"),
                "metadata": {},
            });
            for field in [
                "name",
                "namespace",
                "uid",
                "resourceVersion",
                "managedFields",
            ] {
                meta::copy(&mut confined, applied, field);
            }
            for path in paths {
                meta::put(&mut confined, path, meta::at(applied, path).cloned());
            }
            *applied = confined;
        }
    }
}

fn refusal(error: ApplyError) -> ApiError {
    match error {
        ApplyError::Conflict(conflicts) => ApiError::apply_conflict(&conflicts),
        ApplyError::Malformed(message) => ApiError::bad_request(message),
        ApplyError::Untyped(message) => ApiError::untyped(message),
    }
}
