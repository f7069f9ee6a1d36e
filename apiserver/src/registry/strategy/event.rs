//! `events.k8s.io` Events: another form of the core Events, over the same objects.
//!
//! Published behaviour: the conversion between `events.k8s.io/v1` and `core/v1` renames these
//! fields and changes no values.

use serde_json::{Map, Value};

use super::{Context, Strategy, text};
use crate::schema::FieldError;

/// Names in `events.k8s.io/v1` and in `core/v1`.
const RENAMED: [(&str, &str); 7] = [
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Core Events.
#[derive(Debug)]
pub(super) struct CoreEvent;

impl Strategy for CoreEvent {
    fn validate(&self, ctx: &Context<'_>, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        misplaced(ctx, new, "involvedObject").into_iter().collect()
    }
}

#[derive(Debug)]
pub(super) struct Event;

/// An event belongs into the namespace of what it is about, or into the default one when that has none.
fn misplaced(ctx: &Context<'_>, event: &Value, subject: &str) -> Option<FieldError> {
    let about = event
        .get(subject)
        .map_or("", |about| text(about, "namespace"));
    let expected = if about.is_empty() { "default" } else { about };
    (ctx.namespace != expected).then(|| {
        let path = format!("{subject}.namespace");
        FieldError::invalid(path, &about.into(), "does not match event.namespace")
    })
}

impl Strategy for Event {
    fn validate(&self, ctx: &Context<'_>, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        misplaced(ctx, new, "regarding").into_iter().collect()
    }

    fn stored_form(&self, object: Value) -> Value {
        let mut core = rename(object, |name| {
            RENAMED
                .iter()
                .find(|(events, _)| *events == name)
                .map(|(_, core)| *core)
        });
        if let Some(map) = core.as_object_mut() {
            map.insert("apiVersion".to_owned(), "v1".into());
        }
        core
    }

    fn view_form(&self, object: Value) -> Value {
        rename(object, |name| {
            RENAMED
                .iter()
                .find(|(_, core)| *core == name)
                .map(|(events, _)| *events)
        })
    }
}

fn rename(object: Value, new_name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(map) = object else {
        return object;
    };
    let renamed: Map<String, Value> = map
        .into_iter()
        .map(|(name, value)| (new_name(&name).map_or(name, ToOwned::to_owned), value))
        .collect();
    Value::Object(renamed)
}
