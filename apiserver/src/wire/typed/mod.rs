//! Reading an object of a built-in kind the way a typed decoder does.
//!
//! A real API server decodes a built-in object into a struct and encodes it again, which has effects
//! that clients see: fields the type does not have vanish, nulls and empty optional fields are left
//! out, nested structs appear even when empty, quantities and times get one spelling, and a value of
//! the wrong type is refused with a message that names the field. [`conform`] has the same effects on
//! JSON, driven by the table of types. Fields that a struct would write as `null` are left out.
//!
//! The write path calls it on every object of a built-in kind before anything else looks at it;
//! unknown fields must be reported before, because afterwards they are gone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::types::{Field, Message, Omit, Scalar, Table, Type, definition_name};
use crate::format::quantity::{Quantity, QuantityError};
use crate::format::time;

/// A value that does not fit its field's type: 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    /// JSON of another type than the field's.
    #[error("json: cannot unmarshal {found} into Go struct field {path} of type {expected}")]
    Mismatch {
        /// What stands there: `string`, `number 1.5`, ...
        found: String,
        /// The innermost type and the path of the field.
        path: String,
        /// The field's type.
        expected: String,
    },
    /// The object as a whole is not a JSON object.
    #[error("json: cannot unmarshal {found} into Go value of type {expected}")]
    Root {
        /// What stands there.
        found: String,
        /// The kind's type.
        expected: String,
    },
    /// Not a quantity.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    /// Not a time.
    #[error(
        "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
    )]
    Time {
        /// The text.
        text: String,
    },
    /// Not base64.
    #[error("illegal base64 data at input byte {at}")]
    Base64 {
        /// The offset of the first byte that does not belong.
        at: usize,
    },
}

/// Whether the type of this kind is in the table.
pub fn is_known(group: &str, version: &str, kind: &str) -> bool {
    Table::get()
        .message(&definition_name(group, version, kind))
        .is_some()
}

/// Rewrites `object` as the typed decoder of this kind would understand it. Objects of kinds without
/// a type in the table are left alone. On an error the object must not be used.
pub fn conform(
    group: &str,
    version: &str,
    kind: &str,
    object: &mut Value,
) -> Result<(), TypeError> {
    match Table::get().message(&definition_name(group, version, kind)) {
        Some(message) => conform_root(message, object),
        None => Ok(()),
    }
}

/// Rewrites the metadata of an object of any kind, custom ones included, as the typed decoder of
/// `ObjectMeta` would understand it.
pub fn conform_metadata(object: &mut Value) -> Result<(), TypeError> {
    let Some(metadata) = object
        .get_mut("metadata")
        .filter(|metadata| !metadata.is_null())
    else {
        return Ok(());
    };
    let table = Table::get();
    let Some(message) = table.message("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") else {
        return Ok(());
    };
    let mut walk = Walk {
        table,
        path: vec!["metadata"],
        message,
    };
    let Value::Object(fields) = metadata.take() else {
        return Err(walk.mismatch("value", &Type::Scalar(Scalar::Raw)));
    };
    *metadata = Value::Object(walk.message(message, fields)?);
    Ok(())
}

/// Calls `visit` for every message in an object of this kind, outer ones before inner ones, with the
/// short name of its type (`core.v1.Container`) and its fields. Messages that appear in place are
/// visited with the fields of the message around them.
pub(crate) fn visit(
    group: &str,
    version: &str,
    kind: &str,
    object: &mut Value,
    visit: &mut dyn FnMut(&'static str, &mut Map<String, Value>),
) {
    let table = Table::get();
    if let Some(message) = table.message(&definition_name(group, version, kind))
        && let Value::Object(fields) = object
    {
        visit_message(table, message, fields, visit);
    }
}

fn visit_message(
    table: &Table,
    message: &Message,
    fields: &mut Map<String, Value>,
    visit: &mut dyn FnMut(&'static str, &mut Map<String, Value>),
) {
    visit(
        message
            .name
            .strip_prefix("io.k8s.api.")
            .unwrap_or(message.name),
        fields,
    );
    for field in &message.fields {
        match (field.name, &field.r#type) {
            (None, Type::Message(id)) => visit_message(table, table.resolve(*id), fields, visit),
            (None, _) => {}
            (Some(name), r#type) => {
                if let Some(value) = fields.get_mut(name) {
                    visit_value(table, r#type, value, visit);
                }
            }
        }
    }
}

fn visit_value(
    table: &Table,
    r#type: &Type,
    value: &mut Value,
    visit: &mut dyn FnMut(&'static str, &mut Map<String, Value>),
) {
    match (r#type, value) {
        (Type::Message(id), Value::Object(fields)) => {
            visit_message(table, table.resolve(*id), fields, visit);
        }
        (Type::List(item), Value::Array(values)) => {
            for value in values {
                visit_value(table, item, value, visit);
            }
        }
        (Type::Map(item), Value::Object(values)) => {
            for value in values.values_mut() {
                visit_value(table, item, value, visit);
            }
        }
        _ => {}
    }
}

/// Paths of texts that the API requires and an object leaves empty. The status is not looked at, because it
/// belongs to whoever reports it, and the metadata has rules of its own.
pub(crate) fn empty_required(
    group: &str,
    version: &str,
    kind: &str,
    object: &Value,
) -> Vec<String> {
    let table = Table::get();
    let mut found = Vec::new();
    if let Some(message) = table.message(&definition_name(group, version, kind)) {
        for field in message
            .fields
            .iter()
            .filter(|field| !matches!(field.name, Some("status" | "metadata")))
        {
            find_empty(table, field, object, "", &mut found);
        }
    }
    found
}

fn find_empty(table: &Table, field: &Field, object: &Value, path: &str, found: &mut Vec<String>) {
    let Some(name) = field.name else {
        if let Type::Message(id) = &field.r#type {
            let inner = table.resolve(*id);
            for field in &inner.fields {
                find_empty(table, field, object, path, found);
            }
        }
        return;
    };
    let Some(value) = object.get(name) else {
        return;
    };
    let dot = if path.is_empty() { "" } else { "." };
    let path = format!("{path}{dot}{name}");
    // A header or setting may well have an empty value; only its name is needed.
    let may_be_empty = name == "value";
    if field.required && value == "" && !may_be_empty {
        found.push(path);
        return;
    }
    let mut descend = |r#type: &Type, value: &Value, path: &str| {
        if let Type::Message(id) = r#type {
            let inner = table.resolve(*id);
            for field in &inner.fields {
                find_empty(table, field, value, path, found);
            }
        }
    };
    match (&field.r#type, value) {
        (Type::List(item), Value::Array(values)) => {
            for (index, value) in values.iter().enumerate() {
                descend(item, value, &format!("{path}[{index}]"));
            }
        }
        (Type::Map(item), Value::Object(values)) => {
            for (key, value) in values {
                descend(item, value, &format!("{path}[{key}]"));
            }
        }
        (r#type, value) => descend(r#type, value, &path),
    }
}

/// Whether a type of the table has a field of this name, in place or not.
#[cfg(test)]
pub(crate) fn has_field(definition: &str, name: &str) -> bool {
    let message = Table::get().message(definition);
    message.is_some_and(|message| message.fields.iter().any(|field| field.name == Some(name)))
}

pub(super) fn conform_root(message: &Message, object: &mut Value) -> Result<(), TypeError> {
    let Value::Object(mut fields) = object.take() else {
        return Err(TypeError::Root {
            found: describe(object),
            expected: short_name(message).to_owned(),
        });
    };
    let mut result = Map::new();
    for name in ["kind", "apiVersion"] {
        if let Some(value) = fields.remove(name) {
            result.insert(name.to_owned(), value);
        }
    }
    let mut walk = Walk {
        table: Table::get(),
        path: Vec::new(),
        message,
    };
    result.append(&mut walk.message(message, fields)?);
    *object = Value::Object(result);
    Ok(())
}

/// The state of one pass: where it is, for messages.
struct Walk<'a> {
    table: &'static Table,
    /// JSON names from the root; in-place messages appear by their type's name.
    path: Vec<&'static str>,
    /// The innermost message.
    message: &'a Message,
}

impl<'a> Walk<'a> {
    fn message(
        &mut self,
        message: &'a Message,
        mut given: Map<String, Value>,
    ) -> Result<Map<String, Value>, TypeError> {
        let outer = std::mem::replace(&mut self.message, message);
        let mut result = Map::new();
        self.fields(message, &mut given, &mut result)?;
        self.message = outer;
        Ok(result)
    }

    fn fields(
        &mut self,
        message: &'a Message,
        given: &mut Map<String, Value>,
        result: &mut Map<String, Value>,
    ) -> Result<(), TypeError> {
        for field in &message.fields {
            match (field.name, &field.r#type) {
                (None, Type::Message(id)) => {
                    let inner = self.table.resolve(*id);
                    self.path.push(short_name(inner));
                    self.fields(inner, given, result)?;
                    self.path.pop();
                }
                (None, _) => {}
                (Some(name), _) => {
                    let entry = given
                        .remove_entry(name)
                        .filter(|(_, value)| !value.is_null());
                    self.path.push(name);
                    let entry = match entry {
                        Some((key, value)) => Some((key, self.value(&field.r#type, value)?)),
                        None => self.absent(field)?.map(|value| (name.to_owned(), value)),
                    };
                    self.path.pop();
                    if let Some((key, value)) = entry.filter(|(_, value)| !left_out(field, value)) {
                        result.insert(key, value);
                    }
                }
            }
        }
        Ok(())
    }

    /// What a struct holds in a field that was not given, if JSON can show it.
    fn absent(&mut self, field: &Field) -> Result<Option<Value>, TypeError> {
        if field.optional {
            return Ok(None);
        }
        Ok(match &field.r#type {
            Type::Message(id) => {
                let message = self.table.resolve(*id);
                Some(Value::Object(self.message(message, Map::new())?))
            }
            Type::Scalar(scalar) => zero(*scalar),
            Type::List(_) | Type::Map(_) | Type::Wrapped(_) => None,
        })
    }

    fn value(&mut self, r#type: &Type, value: Value) -> Result<Value, TypeError> {
        match (r#type, value) {
            (Type::Scalar(scalar), value) => self.scalar(*scalar, value),
            (Type::Wrapped(inner), value) => self.value(inner, value),
            (Type::Message(id), Value::Object(fields)) => {
                let message = self.table.resolve(*id);
                Ok(Value::Object(self.message(message, fields)?))
            }
            (Type::List(item), Value::Array(values)) => {
                let values = values.into_iter().map(|value| self.element(item, value));
                Ok(Value::Array(values.collect::<Result<_, _>>()?))
            }
            (Type::Map(item), Value::Object(fields)) => {
                let mut result = Map::new();
                for (key, value) in fields {
                    result.insert(key, self.element(item, value)?);
                }
                Ok(Value::Object(result))
            }
            (r#type, value) => Err(self.mismatch(&describe(&value), r#type)),
        }
    }

    /// A value inside a list or map, where null means the zero value.
    fn element(&mut self, r#type: &Type, value: Value) -> Result<Value, TypeError> {
        match (r#type, value) {
            (Type::Message(_), Value::Null) => self.value(r#type, Value::Object(Map::new())),
            (Type::Scalar(Scalar::Raw | Scalar::Any), value) => Ok(value),
            (Type::Scalar(scalar), Value::Null) => Ok(zero(*scalar).unwrap_or(Value::Null)),
            (_, Value::Null) => Ok(Value::Null),
            (r#type, value) => self.value(r#type, value),
        }
    }

    fn scalar(&self, scalar: Scalar, value: Value) -> Result<Value, TypeError> {
        let r#type = Type::Scalar(scalar);
        match (scalar, &value) {
            (Scalar::String | Scalar::IntOrString, Value::String(_))
            | (Scalar::Bool, Value::Bool(_))
            | (Scalar::Float64, Value::Number(_))
            | (Scalar::Raw | Scalar::Any, _) => Ok(value),
            (Scalar::Int64, Value::Number(number)) if number.as_i64().is_some() => Ok(value),
            (Scalar::Int32 | Scalar::IntOrString, Value::Number(number))
                if number
                    .as_i64()
                    .is_some_and(|number| i32::try_from(number).is_ok()) =>
            {
                Ok(value)
            }
            (Scalar::Int32 | Scalar::Int64 | Scalar::IntOrString, Value::Number(number)) => {
                Err(self.mismatch(&format!("number {number}"), &r#type))
            }
            (Scalar::Quantity, Value::String(text)) => {
                Ok(Quantity::parse(text.trim())?.to_string().into())
            }
            (Scalar::Quantity, Value::Number(number)) => {
                Ok(Quantity::parse(&number.to_string())?.to_string().into())
            }
            (Scalar::Quantity, _) => Err(QuantityError::Format.into()),
            (Scalar::Time, Value::String(text)) => match time::canonical_time(text) {
                Some(text) => Ok(text.into()),
                None => Err(TypeError::Time { text: text.clone() }),
            },
            (Scalar::MicroTime, Value::String(text)) => match time::canonical_micro_time(text) {
                Some(text) => Ok(text.into()),
                None => Err(TypeError::Time { text: text.clone() }),
            },
            (Scalar::Bytes, Value::String(text)) => Ok(canonical_base64(text)?.into()),
            _ => Err(self.mismatch(&describe(&value), &r#type)),
        }
    }

    fn mismatch(&self, found: &str, r#type: &Type) -> TypeError {
        TypeError::Mismatch {
            found: found.to_owned(),
            path: format!("{}.{}", short_name(self.message), self.path.join(".")),
            expected: self.type_name(r#type),
        }
    }

    /// The type as the real server's messages name it.
    fn type_name(&self, r#type: &Type) -> String {
        match r#type {
            Type::Scalar(Scalar::Bool) => "bool".to_owned(),
            Type::Scalar(Scalar::Int32 | Scalar::IntOrString) => "int32".to_owned(),
            Type::Scalar(Scalar::Int64) => "int64".to_owned(),
            Type::Scalar(Scalar::Float64) => "float64".to_owned(),
            Type::Scalar(Scalar::Bytes) => "[]uint8".to_owned(),
            Type::Scalar(_) => "string".to_owned(),
            Type::List(item) => format!("[]{}", self.type_name(item)),
            Type::Map(item) => format!("map[string]{}", self.type_name(item)),
            Type::Wrapped(inner) => self.type_name(inner),
            Type::Message(id) => {
                let name = self.table.resolve(*id).name;
                let mut parts = name.rsplit('.');
                let (name, package) = (parts.next(), parts.next());
                format!(
                    "{}.{}",
                    package.unwrap_or_default(),
                    name.unwrap_or_default()
                )
            }
        }
    }
}

/// The zero value of a scalar; `None` for those that JSON would show as null.
fn zero(scalar: Scalar) -> Option<Value> {
    match scalar {
        Scalar::String => Some("".into()),
        Scalar::Bool => Some(false.into()),
        Scalar::Int32 | Scalar::Int64 | Scalar::Float64 | Scalar::IntOrString => Some(0.into()),
        Scalar::Quantity => Some("0".into()),
        Scalar::Bytes | Scalar::Time | Scalar::MicroTime | Scalar::Raw | Scalar::Any => None,
    }
}

/// Whether JSON leaves out a field with this value.
fn left_out(field: &Field, value: &Value) -> bool {
    if field.omit == Omit::Never || field.optional {
        return false;
    }
    match (&field.r#type, value) {
        // Structs are never empty to an encoder, whatever their JSON looks like.
        (Type::Message(_), Value::Object(fields)) => field.omit == Omit::Zero && fields.is_empty(),
        (Type::Scalar(Scalar::Quantity | Scalar::IntOrString | Scalar::Raw | Scalar::Any), _) => {
            false
        }
        (_, Value::String(text)) => text.is_empty(),
        (_, Value::Bool(flag)) => !flag,
        (_, Value::Number(number)) => number.as_f64() == Some(0.0),
        (_, Value::Array(values)) => values.is_empty(),
        (_, Value::Object(fields)) => fields.is_empty(),
        (_, Value::Null) => true,
    }
}

fn canonical_base64(text: &str) -> Result<String, TypeError> {
    // Line breaks are allowed anywhere.
    let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&compact) {
        Ok(_) => Ok(compact),
        Err(
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _),
        ) => Err(TypeError::Base64 { at }),
        Err(_) => Err(TypeError::Base64 { at: compact.len() }),
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
    .to_owned()
}

fn short_name(message: &Message) -> &'static str {
    message.name.rsplit('.').next().unwrap_or(message.name)
}

#[cfg(test)]
mod tests;
