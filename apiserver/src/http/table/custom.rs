//! Custom resources: the columns of their definition.

use jiff::Timestamp;
use serde_json::Value;

use super::{Heading, JsonPath, name, since};
use crate::registry::Version;

/// The columns of one version of a custom resource.
pub(super) struct Columns(Vec<(Heading, Option<JsonPath>)>);

impl Columns {
    /// The columns a version declares, or its age when it declares none.
    pub(super) fn of(version: &Version) -> Self {
        if version.columns.is_empty() {
            let age = Heading {
                name: "Age".to_owned(),
                r#type: "date".to_owned(),
                format: String::new(),
                description: String::new(),
                priority: 0,
            };
            return Self(vec![(
                age,
                JsonPath::parse(".metadata.creationTimestamp").ok(),
            )]);
        }
        let columns = version.columns.iter().map(|column| {
            let description = if column.description.is_empty() {
                format!(
                    "Custom resource definition column (in JSONPath format): {}",
                    column.json_path
                )
            } else {
                column.description.clone()
            };
            let heading = Heading {
                name: column.name.clone(),
                r#type: column.r#type.clone(),
                format: column.format.clone(),
                description,
                priority: column.priority,
            };
            // The definition was refused if its paths could not be parsed.
            (heading, JsonPath::parse(&column.json_path).ok())
        });
        Self(columns.collect())
    }

    pub(super) fn headings(&self) -> Vec<Heading> {
        let name = Heading {
            name: "Name".to_owned(),
            r#type: "string".to_owned(),
            format: "name".to_owned(),
            description: String::new(),
            priority: 0,
        };
        std::iter::once(name)
            .chain(self.0.iter().map(|(heading, _)| heading.clone()))
            .collect()
    }

    pub(super) fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cells = self.0.iter().map(|(heading, path)| {
            let found = path
                .as_ref()
                .and_then(|path| path.find(object).into_iter().next());
            found.map_or(Value::Null, |value| cell(&heading.r#type, value, now))
        });
        std::iter::once(name(object)).chain(cells).collect()
    }
}

/// A value as a cell of a column's type; null when it does not fit.
fn cell(r#type: &str, value: &Value, now: Timestamp) -> Value {
    match (r#type, value) {
        (_, Value::Null) => Value::Null,
        ("string", Value::String(text)) => text.as_str().into(),
        ("string", other) => other.to_string().into(),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a fraction is cut off, as documented"
        )]
        ("integer", Value::Number(number)) => number
            .as_i64()
            .or_else(|| number.as_f64().map(|number| number as i64))
            .map_or(Value::Null, Value::from),
        ("number", Value::Number(number)) => number.as_f64().map_or(Value::Null, Value::from),
        ("boolean", Value::Bool(flag)) => (*flag).into(),
        ("date", Value::String(text)) if crate::format::time::parse(text).is_none() => {
            "<invalid>".into()
        }
        ("date", Value::String(text)) => since(text, now).into(),
        _ => Value::Null,
    }
}
