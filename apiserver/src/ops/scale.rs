//! `autoscaling/v1` Scale: a small view of an object that reads and writes its replicas.

use serde_json::{Value, json};

use super::create::Ownership;
use super::patch::patched;
use super::update::{Candidate, Part};
use super::{Encoder, Engine, PatchKind, Target, WriteOptions, Written};
use crate::meta;
use crate::registry::{Origin, ScalePaths, SubresourceAction, Version};
use crate::schema::{FieldError, Structural};
use crate::status::ApiError;
use crate::store::Object;

/// How a client wants to change a Scale.
#[derive(Debug, Clone, Copy)]
pub enum ScaleChange<'a> {
    /// Replace it.
    Put(&'a Value),
    /// Patch it.
    Patch(PatchKind, &'a Value),
}

impl Engine {
    /// The Scale of an object.
    pub fn scale(&self, target: &Target, object: &Object) -> Result<Value, ApiError> {
        let paths = scale_paths(target)?;
        let object = Encoder::of(target).value(object);
        let custom = target.descriptor.origin != Origin::BuiltIn;
        if custom && meta::at(&object, &paths.spec).is_none() {
            let path = paths.spec.join(".");
            let message = format!("the spec replicas field \".{path}\" does not exist");
            return Err(ApiError::internal(&message));
        }
        Ok(scale_of(paths, &object))
    }

    /// Changes the replicas through the Scale.
    pub fn update_scale(
        &self,
        target: &Target,
        change: ScaleChange<'_>,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let paths = scale_paths(target)?;
        let only = [paths.spec.clone()];
        let part = Part::Only {
            subresource: "scale",
            paths: &only,
        };
        if let ScaleChange::Patch(PatchKind::Apply { force }, scale) = change {
            let replicas = wanted_replicas(target, scale)?;
            let mut applied = json!({
                "apiVersion": target.api_version(),
                "kind": target.kind(),
                "metadata": scale.get("metadata"),
            });
            meta::put(&mut applied, &paths.spec, Some(replicas.into()));
            return self.apply(target, part, "scale", applied, force, options);
        }
        self.replace(target, part, options, |old| {
            let before = scale_of(paths, old);
            let scale = match change {
                ScaleChange::Put(scale) => scale.clone(),
                ScaleChange::Patch(kind, patch) => {
                    patched(&Structural::default(), kind, &before, patch)?
                }
            };
            let replicas = wanted_replicas(target, &scale)?;
            let mut object = old.clone();
            for field in ["resourceVersion", "uid"] {
                if !meta::text(&scale, field).is_empty() {
                    meta::copy(&mut object, &scale, field);
                }
            }
            let unset_zero = replicas == 0 && meta::at(old, &paths.spec).is_none();
            if !unset_zero {
                meta::put(&mut object, &paths.spec, Some(replicas.into()));
            }
            Ok(Candidate {
                object,
                ownership: Ownership::Record,
                warnings: Vec::new(),
            })
        })
    }
}

/// What a custom resource may not hold where its Scale looks for replicas.
pub(super) fn violations(version: &Version, object: &Value) -> Vec<FieldError> {
    let Some(SubresourceAction::Scale(paths)) =
        version.subresource("scale").map(|found| &found.action)
    else {
        return Vec::new();
    };
    [&paths.spec, &paths.status]
        .into_iter()
        .filter_map(|path| {
            let value = meta::at(object, path)?;
            let problem = match value.as_i64() {
                None if value.is_null() => return None,
                None => "should be an integer".to_owned(),
                Some(..0) => "should be a non-negative integer".to_owned(),
                Some(number) if number > i64::from(i32::MAX) => {
                    format!("should be less than or equal to {}", i32::MAX)
                }
                Some(_) => return None,
            };
            let path = format!(".{}", path.join("."));
            Some(FieldError::invalid(path, value, problem))
        })
        .collect()
}

fn scale_paths(target: &Target) -> Result<&ScalePaths, ApiError> {
    match target
        .version
        .subresource("scale")
        .map(|found| &found.action)
    {
        Some(SubresourceAction::Scale(paths)) => Ok(paths),
        _ => Err(ApiError::no_such_path()),
    }
}

fn scale_of(paths: &ScalePaths, object: &Value) -> Value {
    let number = |path: &[String]| meta::at(object, path).and_then(Value::as_i64).unwrap_or(0);
    let mut metadata = json!({});
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = meta::get(object, field) {
            meta::put(&mut metadata, &[field.to_owned()], Some(value.clone()));
        }
    }
    let mut status = json!({ "replicas": number(&paths.status) });
    let selector = paths
        .selector
        .as_ref()
        .and_then(|path| meta::at(object, path));
    if let Some(selector) = selector.map(selector_text).filter(|text| !text.is_empty()) {
        meta::put(&mut status, &["selector".to_owned()], Some(selector.into()));
    }
    let replicas = number(&paths.spec);
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": if replicas == 0 { json!({}) } else { json!({ "replicas": replicas }) },
        "status": status,
    })
}

fn wanted_replicas(target: &Target, scale: &Value) -> Result<i64, ApiError> {
    let is = |field: &str, expected: &str| {
        scale
            .get(field)
            .is_none_or(|value| value.as_str() == Some(expected))
    };
    if !is("kind", "Scale") || !is("apiVersion", "autoscaling/v1") {
        return Err(ApiError::bad_request(
            "the body must be an autoscaling/v1 Scale",
        ));
    }
    let name = meta::text(scale, "name");
    if !name.is_empty() && name != target.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    let replicas = scale.get("spec").and_then(|spec| spec.get("replicas"));
    let refuse = |problem: &str| {
        let value = replicas.unwrap_or(&Value::Null);
        let error = FieldError::invalid("spec.replicas", value, problem);
        ApiError::invalid("autoscaling", "Scale", &target.name, &[error])
    };
    // What a custom resource makes of a negative number is judged with the rest of the object.
    let lowest = match target.descriptor.origin {
        Origin::BuiltIn => 0,
        Origin::Custom { .. } => i32::MIN.into(),
    };
    match replicas {
        None | Some(Value::Null) => Ok(0),
        Some(value) => match value.as_i64() {
            Some(number) if i32::try_from(number).is_err() => {
                Err(refuse("must be a 32-bit integer"))
            }
            Some(number) if number < lowest => Err(refuse("must be greater than or equal to 0")),
            Some(number) => Ok(number),
            None => Err(refuse("must be a 32-bit integer")),
        },
    }
}

/// The string form of a label selector, which may already be a string.
fn selector_text(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    let labels = selector.get("matchLabels").and_then(Value::as_object);
    let mut parts: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    for expression in expressions.into_iter().flatten() {
        let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or("");
        let values = meta::strings(expression.get("values")).join(",");
        parts.push(match text("operator") {
            "In" => format!("{} in ({values})", text("key")),
            "NotIn" => format!("{} notin ({values})", text("key")),
            "DoesNotExist" => format!("!{}", text("key")),
            _ => text("key").to_owned(),
        });
    }
    parts.sort_unstable();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_shown_as_text() {
        assert_eq!(selector_text(&json!("a=b")), "a=b");
        let object = json!({"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["x", "y"]},
            {"key": "d", "operator": "DoesNotExist"}, {"key": "e", "operator": "Exists"}]});
        assert_eq!(selector_text(&object), "!d,a=1,b=2,c in (x,y),e");
    }
}
