//! POST to a collection, and creation through PUT or apply.

use std::sync::Arc;

use serde_json::Value;

use super::metadata;
use super::schema::{Strictness, normalise, strictness, violations};
use super::{Engine, Target, WriteOptions, Written};
use crate::meta;
use crate::patch::apply::{UpdateInput, record_update};
use crate::status::ApiError;
use crate::store::{Change, CommitError, Guard, Object, Revision};

/// How many generated names are tried.
const NAME_ATTEMPTS: usize = 8;

/// Who records the fields of a new object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    /// This write's manager, as for an update.
    Record,
    /// The object carries the ownership that apply computed.
    Applied,
}

impl Engine {
    /// Creates the object a client sent.
    pub fn create(
        &self,
        target: &Target,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        metadata::settle_type(target, &mut object)?;
        metadata::settle_namespace(target, &mut object)?;
        if !matches!(meta::text(&object, "resourceVersion"), "" | "0") {
            return Err(ApiError::untyped(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let warnings = match strictness(target, options, &object) {
            Strictness::Clean => Vec::new(),
            Strictness::Warnings(warnings) => warnings,
            Strictness::Refused(problems) => {
                return Err(super::update::strict_refusal(target, &problems));
            }
        };
        let prefix = meta::text(&object, "generateName").to_owned();
        if !meta::text(&object, "name").is_empty() || prefix.is_empty() {
            return self.create_named(target, object, options, Ownership::Record, warnings);
        }
        // Two objects with one generated name are bad luck, not the client's mistake.
        for _ in 0..NAME_ATTEMPTS {
            let mut attempt = object.clone();
            meta::set(&mut attempt, "name", self.ids.name(&prefix));
            let outcome = self.create_named(
                target,
                attempt,
                options,
                Ownership::Record,
                warnings.clone(),
            );
            match outcome {
                Err(error) if error.reason() == "AlreadyExists" => {}
                outcome => return outcome,
            }
        }
        Err(ApiError::no_unique_name(&target.descriptor, &prefix))
    }

    /// Creates an object whose name is settled and whose unknown fields have been judged.
    pub(super) fn create_named(
        &self,
        target: &Target,
        mut object: Value,
        options: &WriteOptions,
        ownership: Ownership,
        mut warnings: Vec<String>,
    ) -> Result<Written, ApiError> {
        let now = self.clock.now();
        let strategy = &target.descriptor.strategy;
        let name = meta::text(&object, "name").to_owned();
        self.check_namespace(target, &name)?;
        normalise(target, &mut object)?;
        metadata::stamp_new(target, &mut object, &self.ids.uid(), now);
        if target.version.has_status() && !strategy.keeps_status_on_create() {
            object.as_object_mut().map(|map| map.shift_remove("status"));
        }
        let context = self.context(target, &name, "", now);
        strategy.prepare_create(&context, &mut object);

        let mut errors = metadata::violations(target, &object, None);
        errors.extend(violations(target, &object, None));
        if errors.is_empty() {
            errors.extend(strategy.validate(&context, &object, None));
        }
        if !errors.is_empty() {
            let descriptor = &target.descriptor;
            let error = ApiError::invalid(&descriptor.group, &descriptor.kind, &name, &errors);
            return Err(error.with_warnings(warnings));
        }
        if let Err(why) = strategy.admit(&context, &object) {
            return Err(ApiError::forbidden(&target.descriptor, &name, &why));
        }
        warnings.extend(metadata::warnings(target, &object, None));
        warnings.extend(strategy.warnings(&object, None));
        if ownership == Ownership::Record {
            record_update(
                UpdateInput {
                    schema: &target.version.schema,
                    manager: &options.manager,
                    api_version: &target.api_version(),
                    subresource: "",
                    now,
                },
                None,
                &mut object,
            );
        }
        let object = self.insert(target, &name, object, options.dry_run)?;
        Ok(Written {
            object,
            created: true,
            warnings,
        })
    }

    fn insert(
        &self,
        target: &Target,
        name: &str,
        object: Value,
        dry_run: bool,
    ) -> Result<Arc<Object>, ApiError> {
        let draft = self.draft(target, object)?;
        let resource = target.resource();
        if dry_run {
            if self.store.get(&resource, &target.namespace, name).is_some() {
                return Err(ApiError::already_exists(&target.descriptor, name));
            }
            return Ok(Arc::new(draft.at(Revision::ZERO)));
        }
        let guard = Self::guard(target);
        self.store
            .commit(&resource, Change::Create(draft), guard)
            .map_err(|error| match error {
                CommitError::Exists => ApiError::already_exists(&target.descriptor, name),
                CommitError::GuardMissing => {
                    ApiError::not_found_in("", "namespaces", &target.namespace)
                }
                CommitError::GuardDeleting => {
                    let namespace = &target.namespace;
                    ApiError::namespace_terminating(&target.descriptor, name, namespace)
                }
                other => ApiError::internal(&other.to_string()),
            })
    }

    /// The condition under which an object may appear in its namespace.
    fn guard(target: &Target) -> Option<Guard<'_>> {
        (!target.namespace.is_empty()).then_some(Guard {
            resource: "namespaces",
            name: &target.namespace,
        })
    }

    /// Refuses early what the guard of the commit would refuse late, so that a dry run says it too.
    fn check_namespace(&self, target: &Target, name: &str) -> Result<(), ApiError> {
        let Some(guard) = Self::guard(target) else {
            return Ok(());
        };
        match self.store.get(guard.resource, "", guard.name) {
            None => Err(ApiError::not_found_in("", "namespaces", guard.name)),
            Some(namespace) if namespace.is_deleting() => Err(ApiError::namespace_terminating(
                &target.descriptor,
                name,
                guard.name,
            )),
            Some(_) => Ok(()),
        }
    }
}
