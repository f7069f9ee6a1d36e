//! The table of built-in types: which fields they have in JSON and protobuf.
//!
//! Read once from the committed `data/types.txt`, which `cargo xtask generate builtin-schemas`
//! writes; the notation is explained in its first lines.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The committed table.
const DATA: &str = include_str!("../../data/types.txt");

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::read(DATA));

/// Every known message.
#[derive(Debug)]
pub(super) struct Table {
    messages: Vec<Message>,
    by_name: HashMap<&'static str, usize>,
}

/// A type with fields.
#[derive(Debug)]
pub(super) struct Message {
    /// OpenAPI definition name, such as `io.k8s.api.core.v1.Pod`.
    pub(super) name: &'static str,
    /// Fields in the order of the API's sources.
    pub(super) fields: Vec<Field>,
}

/// One field of a [`Message`].
#[derive(Debug)]
pub(super) struct Field {
    /// Number in protobuf; 0 when protobuf does not carry it.
    pub(super) number: u32,
    /// Name in JSON; `None` for a message whose fields appear in place.
    pub(super) name: Option<&'static str>,
    /// When JSON leaves it out.
    pub(super) omit: Omit,
    /// Whether an object with an empty text here is refused.
    pub(super) required: bool,
    /// Whether absence differs from zero.
    pub(super) optional: bool,
    /// The type of its value.
    pub(super) r#type: Type,
}

/// When JSON leaves a field out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Omit {
    /// Zero values are written.
    Never,
    /// Empty scalars, lists and maps are not written; messages are.
    Empty,
    /// Nothing that is zero is written.
    Zero,
}

/// The type of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Scalar(Scalar),
    Message(MessageId),
    List(Box<Self>),
    /// Keys are strings.
    Map(Box<Self>),
    /// A list that protobuf carries in a message of its own.
    Wrapped(Box<Self>),
}

/// A message of the [`Table`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MessageId(usize);

/// A value that is not made of other values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    String,
    Bool,
    Int32,
    Int64,
    Float64,
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// Any JSON, which protobuf carries as text.
    Raw,
    /// Any JSON, which protobuf carries in a form of its own that is not decoded.
    Any,
}

impl Table {
    /// The table of the types the server knows.
    pub(super) fn get() -> &'static Self {
        &TABLE
    }

    /// The message with this OpenAPI definition name.
    pub(super) fn message(&self, name: &str) -> Option<&Message> {
        self.by_name.get(name).and_then(|at| self.messages.get(*at))
    }

    /// The message a type refers to.
    pub(super) fn resolve(&self, id: MessageId) -> &Message {
        static EMPTY: Message = Message {
            name: "",
            fields: Vec::new(),
        };
        self.messages.get(id.0).unwrap_or(&EMPTY)
    }

    fn read(text: &'static str) -> Self {
        let names = text.lines().filter_map(|line| line.strip_prefix('#'));
        let by_name: HashMap<_, _> = names.enumerate().map(|(at, name)| (name, at)).collect();
        let mut messages: Vec<Message> = Vec::with_capacity(by_name.len());
        for line in text.lines().filter(|line| !line.starts_with("//")) {
            if let Some(name) = line.strip_prefix('#') {
                messages.push(Message {
                    name,
                    fields: Vec::new(),
                });
            } else if let Some(message) = messages.last_mut()
                && let Some(field) = Field::read(line, &by_name)
            {
                message.fields.push(field);
            }
        }
        Self { messages, by_name }
    }
}

impl Field {
    fn read(line: &'static str, by_name: &HashMap<&'static str, usize>) -> Option<Self> {
        let mut columns = line.split(' ');
        let number = columns.next()?.parse().ok()?;
        let name = columns
            .next()
            .map(|name| if name == "." { None } else { Some(name) })?;
        let (omit, required) = match columns.next()? {
            "-" => (Omit::Never, false),
            "!" => (Omit::Never, true),
            "?" => (Omit::Empty, false),
            "0" => (Omit::Zero, false),
            _ => return None,
        };
        let notation = columns.next()?;
        let (optional, notation) = match notation.strip_prefix('*') {
            Some(notation) => (true, notation),
            None => (false, notation),
        };
        let r#type = Type::read(notation, by_name)?;
        Some(Self {
            number,
            name,
            omit,
            required,
            optional,
            r#type,
        })
    }
}

impl Type {
    fn read(notation: &str, by_name: &HashMap<&'static str, usize>) -> Option<Self> {
        if let Some(item) = notation.strip_prefix("[]") {
            return Some(Self::List(Box::new(Self::read(item, by_name)?)));
        }
        if let Some(value) = notation.strip_prefix("{}") {
            return Some(Self::Map(Box::new(Self::read(value, by_name)?)));
        }
        if let Some(list) = notation.strip_prefix('w') {
            return Some(Self::Wrapped(Box::new(Self::read(list, by_name)?)));
        }
        if let Some(name) = notation.strip_prefix('#') {
            return by_name.get(name).map(|at| Self::Message(MessageId(*at)));
        }
        Some(Self::Scalar(match notation {
            "string" => Scalar::String,
            "bool" => Scalar::Bool,
            "int32" => Scalar::Int32,
            "int64" => Scalar::Int64,
            "float64" => Scalar::Float64,
            "bytes" => Scalar::Bytes,
            "time" => Scalar::Time,
            "microtime" => Scalar::MicroTime,
            "quantity" => Scalar::Quantity,
            "intstr" => Scalar::IntOrString,
            "raw" => Scalar::Raw,
            "any" => Scalar::Any,
            _ => return None,
        }))
    }
}

/// The OpenAPI definition name of a kind, by the naming rule of the Kubernetes sources.
pub(crate) fn definition_name(group: &str, version: &str, kind: &str) -> String {
    // Options of the request itself may claim any group.
    if kind == "DeleteOptions" {
        return "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions".to_owned();
    }
    match group {
        "" => format!("io.k8s.api.core.{version}.{kind}"),
        "apiextensions.k8s.io" => {
            format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}")
        }
        _ => {
            let package = group.split('.').next().unwrap_or(group);
            format!("io.k8s.api.{package}.{version}.{kind}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_understood() {
        let table = Table::get();
        let lines = DATA.lines().filter(|line| !line.starts_with("//"));
        let (names, fields): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with('#'));
        assert_eq!(table.messages.len(), names.len());
        let read: usize = table
            .messages
            .iter()
            .map(|message| message.fields.len())
            .sum();
        assert_eq!(read, fields.len(), "a field line was not understood");
        for message in &table.messages {
            let mut numbers: Vec<_> = message
                .fields
                .iter()
                .map(|field| field.number)
                .filter(|n| *n > 0)
                .collect();
            numbers.sort_unstable();
            let before = numbers.len();
            numbers.dedup();
            assert_eq!(numbers.len(), before, "{} repeats a number", message.name);
        }
    }

    #[test]
    fn names_follow_the_packages() {
        for (group, version, kind) in [
            ("", "v1", "Pod"),
            ("apps", "v1", "Deployment"),
            ("rbac.authorization.k8s.io", "v1", "Role"),
            ("authorization.k8s.io", "v1", "SelfSubjectAccessReview"),
            ("authentication.k8s.io", "v1", "TokenRequest"),
            ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
            ("events.k8s.io", "v1", "Event"),
            ("policy", "v1", "DeleteOptions"),
            ("policy", "v1", "Eviction"),
            ("autoscaling", "v1", "Scale"),
        ] {
            let name = definition_name(group, version, kind);
            assert!(Table::get().message(&name).is_some(), "no message {name}");
        }
    }
}
