//! The rules of `metadata`: what the server sets, what a client may set, and what may change.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Target;
use crate::format::names;
use crate::meta;
use crate::registry::{NameRule, Origin};
use crate::schema::FieldError;
use crate::status::ApiError;

/// Finalizers that need no domain.
const STANDARD_FINALIZERS: [&str; 3] = [
    "kubernetes",
    super::delete::ORPHAN,
    super::delete::FOREGROUND,
];
/// All annotation keys and values together.
const MAX_ANNOTATION_BYTES: usize = 256 << 10;

/// Checks that a body is an object of the target's type, and names that type in it.
pub(super) fn settle_type(target: &Target, object: &mut Value) -> Result<(), ApiError> {
    let Some(map) = object.as_object_mut() else {
        return Err(ApiError::bad_request("the body must be one JSON object"));
    };
    let api_version = target.api_version();
    let text = |field: &str| map.get(field).and_then(Value::as_str).unwrap_or("");
    let (given_version, given_kind) = (text("apiVersion"), text("kind"));
    let kind = target.kind();
    // A typed decoder knows what it expects; custom resources have to say what they are.
    if target.descriptor.origin == Origin::BuiltIn {
        let found_version = non_empty(given_version).unwrap_or(&api_version);
        let found_kind = non_empty(given_kind).unwrap_or(kind);
        if (found_version, found_kind) != (&*api_version, kind) {
            let version = found_version.rsplit('/').next().unwrap_or_default();
            return Err(ApiError::bad_request(format!(
                "{found_kind} in version \"{version}\" cannot be handled as a {kind}: the API \
                 version and kind in the data ({found_version}, {found_kind}) do not match the \
                 expected ones ({api_version}, {kind})"
            )));
        }
    } else {
        if given_kind.is_empty() {
            let shown = Value::from(map.clone());
            return Err(ApiError::bad_request(format!(
                "the object provided is unrecognized (must be of type {kind}): Object 'Kind' is \
                 missing in '{shown}'"
            )));
        }
        if given_version != api_version {
            return Err(ApiError::bad_request(format!(
                "the API version in the data ({given_version}) does not match the expected API \
                 version ({api_version})"
            )));
        }
        if given_kind != kind {
            return Err(mistyped(target, given_kind, "kind", given_kind, kind));
        }
    }
    map.insert("apiVersion".to_owned(), api_version.into());
    map.insert("kind".to_owned(), target.kind().into());
    if map
        .get("metadata")
        .is_some_and(|metadata| !metadata.is_object() && !metadata.is_null())
    {
        return Err(ApiError::bad_request("metadata: expected an object"));
    }
    Ok(())
}

fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Like [`settle_type`], for a patched object: a patch must not change the type.
pub(super) fn settle_patched_type(target: &Target, object: &mut Value) -> Result<(), ApiError> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or("");
    let api_version = target.api_version();
    if target.descriptor.origin == Origin::BuiltIn {
        let shown = meta::group_version_kind(text("apiVersion"), text("kind"));
        if shown != meta::group_version_kind(&api_version, target.kind()) {
            let detail = format_args!("the result is of another type: {shown}");
            let error = FieldError::invalid("patch", &object.to_string().into(), detail);
            return Err(ApiError::invalid("", "", "", &[error]));
        }
    } else if text("apiVersion") != api_version {
        let given = text("apiVersion");
        return Err(mistyped(
            target,
            target.kind(),
            "apiVersion",
            given,
            &api_version,
        ));
    }
    settle_type(target, object)
}

/// Checks that a configuration to apply is of the target's type and does not name another object. It
/// need not name its own.
pub(super) fn check_applied(target: &Target, applied: &Value) -> Result<(), ApiError> {
    if !applied.is_object() {
        return Err(ApiError::bad_request("the body must be one JSON object"));
    }
    let text = |field: &str| applied.get(field).and_then(Value::as_str).unwrap_or("");
    let (given_version, given_kind) = (text("apiVersion"), text("kind"));
    let descriptor = &target.descriptor;
    let served = descriptor
        .versions
        .iter()
        .any(|version| given_version == descriptor.api_version(&version.name));
    if !served || given_kind != target.kind() {
        let shown = meta::group_version_kind(given_version, given_kind);
        return Err(ApiError::bad_request(format!(
            "invalid object type: {shown}"
        )));
    }
    let mut named = applied.clone();
    if meta::text(&named, "name").is_empty() {
        meta::set(&mut named, "name", target.name.as_str());
    }
    settle_identity(target, &mut named)
}

/// The refusal of an object that says it is something else.
fn mistyped(target: &Target, kind: &str, field: &str, given: &str, expected: &str) -> ApiError {
    let error = FieldError::invalid(field, &json!(given), format_args!("must be {expected}"));
    ApiError::invalid(&target.descriptor.group, kind, &target.name, &[error])
}

/// Makes the namespace of a new object agree with the path.
pub(super) fn settle_namespace(target: &Target, object: &mut Value) -> Result<(), ApiError> {
    let given = meta::text(object, "namespace");
    if !given.is_empty() && given != target.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if target.namespace.is_empty() {
        meta::remove(object, "namespace");
    } else {
        meta::set(object, "namespace", target.namespace.as_str());
    }
    Ok(())
}

/// Checks that a body replaces the object the path names.
pub(super) fn settle_identity(target: &Target, object: &mut Value) -> Result<(), ApiError> {
    let name = meta::text(object, "name");
    if name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            target.name
        )));
    }
    if name != target.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    settle_namespace(target, object)
}

/// Sets what belongs to the server in a new object.
pub(super) fn stamp_new(target: &Target, object: &mut Value, uid: &str, now: Timestamp) {
    for field in [
        "selfLink",
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        meta::remove(object, field);
    }
    meta::set(object, "uid", uid);
    meta::set(object, "creationTimestamp", meta::time(now));
    if target.descriptor.generation {
        meta::set(object, "generation", 1);
    }
}

/// Refuses to replace another object than the one that was read.
pub(super) fn check_uid(target: &Target, new: &Value, old: &Value) -> Result<(), ApiError> {
    let (uid, actual) = (meta::text(new, "uid"), meta::text(old, "uid"));
    if uid.is_empty() || uid == actual {
        return Ok(());
    }
    let why =
        format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {actual}");
    Err(ApiError::conflict_because(
        &target.descriptor,
        &target.name,
        &why,
    ))
}

/// Carries over what a replacement cannot change and a client may leave out.
pub(super) fn carry_over(new: &mut Value, old: &Value) {
    if meta::text(new, "uid").is_empty() {
        meta::copy(new, old, "uid");
    }
    for field in ["creationTimestamp", "generation"] {
        meta::copy(new, old, field);
    }
    meta::remove(new, "selfLink");
    // A deletion under way cannot be undone or changed by leaving its fields out.
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        if meta::get(old, field).is_some() {
            meta::copy(new, old, field);
        }
    }
}

/// Everything wrong with the metadata of an object about to be stored.
pub(super) fn violations(target: &Target, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if old.is_none() {
        check_name(target, new, &mut errors);
    }
    check_labels(new, old, &mut errors);
    check_annotations(new, old, &mut errors);
    check_finalizers(target, new, old, &mut errors);
    check_owners(new, &mut errors);
    if let Some(old) = old {
        check_unchanged(new, old, &mut errors);
    }
    errors
}

/// What clients are told about sound metadata.
pub(super) fn warnings(target: &Target, new: &Value, old: Option<&Value>) -> Vec<String> {
    if target.descriptor.origin == Origin::BuiltIn {
        return Vec::new();
    }
    let before = old.map(meta::finalizers).unwrap_or_default();
    meta::finalizers(new)
        .into_iter()
        .filter(|finalizer| !finalizer.contains('/') && !before.contains(finalizer))
        .filter(|finalizer| !STANDARD_FINALIZERS.contains(finalizer))
        .map(|finalizer| {
            format!(
                "metadata.finalizers: \"{finalizer}\": prefer a domain-qualified finalizer name to \
                 avoid accidental conflicts with other finalizer writers"
            )
        })
        .collect()
}

fn check_name(target: &Target, new: &Value, errors: &mut Vec<FieldError>) {
    let rule = target.descriptor.strategy.name_rule();
    let problems = |name: &str| match rule {
        NameRule::Subdomain => names::dns1123_subdomain_errors(name),
        NameRule::Label => names::dns1123_label_errors(name),
        NameRule::Dns1035Label => names::dns1035_label_errors(name),
        NameRule::PathSegment => names::path_segment_errors(name),
    };
    let mut report = |field: &str, name: &str, problems: Vec<String>| {
        errors.extend(
            problems
                .into_iter()
                .map(|text| FieldError::invalid(field, &json!(name), text)),
        );
    };
    let prefix = meta::text(new, "generateName");
    if !prefix.is_empty() {
        // What follows a dash at its end is still to come.
        let begun = prefix
            .strip_suffix('-')
            .map_or_else(|| prefix.to_owned(), |start| format!("{start}a"));
        report("metadata.generateName", prefix, problems(&begun));
    }
    let name = meta::text(new, "name");
    if name.is_empty() {
        let problem = "name or generateName is required";
        errors.push(FieldError::required("metadata.name", problem));
        return;
    }
    report("metadata.name", name, problems(name));
}

fn check_labels(new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    for (key, value) in pairs(new, "labels") {
        if old.is_some_and(|old| pairs(old, "labels").any(|pair| pair == (key, value))) {
            continue;
        }
        let keys = names::label_key_errors(key);
        errors.extend(
            keys.into_iter()
                .map(|t| FieldError::invalid("metadata.labels", &json!(key), t)),
        );
        let values = names::label_value_errors(value);
        errors.extend(
            values
                .into_iter()
                .map(|t| FieldError::invalid("metadata.labels", &json!(value), t)),
        );
    }
}

fn check_annotations(new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let mut bytes = 0;
    for (key, value) in pairs(new, "annotations") {
        bytes += key.len() + value.len();
        if old.is_some_and(|old| pairs(old, "annotations").any(|(known, _)| known == key)) {
            continue;
        }
        // Annotation keys may be written in any case, unlike the DNS prefix of a label.
        let problems = names::label_key_errors(&key.to_ascii_lowercase());
        errors.extend(
            problems
                .into_iter()
                .map(|t| FieldError::invalid("metadata.annotations", &json!(key), t)),
        );
    }
    if bytes > MAX_ANNOTATION_BYTES {
        errors.push(FieldError::too_long(
            "metadata.annotations",
            MAX_ANNOTATION_BYTES as u64,
        ));
    }
}

fn check_finalizers(
    target: &Target,
    new: &Value,
    old: Option<&Value>,
    errors: &mut Vec<FieldError>,
) {
    let finalizers = meta::finalizers(new);
    let before = old.map(meta::finalizers).unwrap_or_default();
    for (at, finalizer) in finalizers
        .iter()
        .enumerate()
        .filter(|(_, f)| !before.contains(f))
    {
        let problems = names::label_key_errors(finalizer);
        errors.extend(
            problems
                .into_iter()
                .map(|text| FieldError::invalid("metadata.finalizers", &json!(finalizer), text)),
        );
        // Built-in kinds insist on a domain; custom ones only recommend it.
        let known = STANDARD_FINALIZERS.contains(finalizer) || finalizer.contains('/');
        if target.descriptor.origin == Origin::BuiltIn && !known {
            errors.push(FieldError::invalid(
                format_args!("metadata.finalizers[{at}]"),
                &json!(finalizer),
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
    if finalizers.contains(&super::delete::ORPHAN)
        && finalizers.contains(&super::delete::FOREGROUND)
    {
        errors.push(FieldError::invalid(
            "metadata.finalizers",
            &json!(finalizers),
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
    let Some(old) = old.filter(|old| meta::is_deleting(old)) else {
        return;
    };
    let before = meta::finalizers(old);
    let added: Vec<String> = finalizers
        .iter()
        .filter(|finalizer| !before.contains(finalizer))
        .map(|finalizer| format!("\"{finalizer}\""))
        .collect();
    if !added.is_empty() {
        errors.push(FieldError::forbidden(
            "metadata.finalizers",
            format_args!(
                "no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{{{}}}",
                added.join(", ")
            ),
        ));
    }
}

fn check_owners(new: &Value, errors: &mut Vec<FieldError>) {
    let path = "metadata.ownerReferences";
    let references = meta::get(new, "ownerReferences").and_then(Value::as_array);
    let mut controller: Option<String> = None;
    let mut uids = HashSet::new();
    for reference in references.into_iter().flatten() {
        let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or("");
        let parts = [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ];
        for (field, problem) in parts {
            if text(field).is_empty() {
                errors.push(FieldError::invalid(
                    format_args!("{path}.{field}"),
                    &json!(text(field)),
                    problem,
                ));
            }
        }
        if (text("apiVersion"), text("kind")) == ("v1", "Event") {
            let problem = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(path, reference, problem));
        }
        if !uids.insert(text("uid")) {
            continue;
        }
        if reference.get("controller").and_then(Value::as_bool) == Some(true) {
            if let Some(first) = &controller {
                errors.push(FieldError::invalid(
                    path,
                    &json!(references),
                    format_args!(
                        "Only one reference can have Controller set to true. Found \"true\" in \
                         references for {first} and {}/{}",
                        text("kind"),
                        text("name")
                    ),
                ));
            }
            controller = Some(format!("{}/{}", text("kind"), text("name")));
        }
    }
}

fn check_unchanged(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    for field in ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let value = meta::get(new, field);
        if value != meta::get(old, field) {
            errors.push(FieldError::invalid(
                format_args!("metadata.{field}"),
                value.unwrap_or(&Value::Null),
                "field is immutable",
            ));
        }
    }
}

fn pairs<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    meta::get(object, field)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}
