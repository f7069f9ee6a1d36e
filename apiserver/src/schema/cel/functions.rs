//! The functions that rules may call: what they cost and return, and the context that has them.
//!
//! The functions themselves are those of the CEL standard library and of the Kubernetes libraries in
//! `kube-cel`; a few that the evaluator lacks are added here. The costs follow the published model.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::common::ast::{CallExpr, Expr, IdedExpr};
use kube_cel::cel::extractors::{Arguments, This};
use kube_cel::cel::objects::Value as CelValue;
use kube_cel::cel::{Context, ExecutionError};
use parking_lot::Mutex;

use super::super::pattern::Pattern;
use super::super::structural::Structural;
use super::declared::{MAX_REQUEST, Sized, Ty};
use super::values;

/// A call as the inspection sees it.
#[derive(Debug)]
pub(super) struct Call {
    cost: Cost,
    result: Returns,
}

/// What a call costs beyond its operands.
#[derive(Debug, Clone, Copy)]
enum Cost {
    /// One unit.
    Unit,
    /// Walking along the first operand.
    Walk,
    /// Walking along the first operand and building a result of its size.
    Rewrite,
    /// Walking along the second operand.
    WalkSecond,
    /// One unit for every entry of the first operand.
    Entries,
    /// Every place in the first operand is compared with the second.
    Search,
    /// The first operand is matched with the regular expression of the second.
    Regex,
    /// Every entry of the first operand is compared with every entry of the second.
    Product,
}

/// What a call returns.
#[derive(Debug, Clone, Copy)]
enum Returns {
    Bool,
    Int,
    Uint,
    Double,
    Bytes,
    Timestamp,
    Duration,
    Type,
    Library(&'static str),
    /// A string of the size of the first operand.
    Text,
    /// A string of unknown size.
    LongText,
    /// Strings, together of the size of the first operand.
    Texts,
    /// What the first operand is.
    Same,
    /// An entry of the first operand.
    Entry,
    /// What is in the first operand, an optional.
    Inner,
    /// An optional of the first operand.
    Optional,
    Dyn,
}

const FUNCTIONS: &[(&str, Cost, Returns)] = &[
    // Standard library.
    ("size", Cost::Unit, Returns::Int),
    ("contains", Cost::Search, Returns::Bool),
    ("startsWith", Cost::WalkSecond, Returns::Bool),
    ("endsWith", Cost::WalkSecond, Returns::Bool),
    ("matches", Cost::Regex, Returns::Bool),
    ("string", Cost::Walk, Returns::LongText),
    ("bytes", Cost::Walk, Returns::Bytes),
    ("bool", Cost::Unit, Returns::Bool),
    ("double", Cost::Unit, Returns::Double),
    ("int", Cost::Unit, Returns::Int),
    ("uint", Cost::Unit, Returns::Uint),
    ("dyn", Cost::Unit, Returns::Dyn),
    ("type", Cost::Unit, Returns::Type),
    ("duration", Cost::Unit, Returns::Duration),
    ("timestamp", Cost::Unit, Returns::Timestamp),
    ("getFullYear", Cost::Unit, Returns::Int),
    ("getMonth", Cost::Unit, Returns::Int),
    ("getDayOfYear", Cost::Unit, Returns::Int),
    ("getDayOfMonth", Cost::Unit, Returns::Int),
    ("getDate", Cost::Unit, Returns::Int),
    ("getDayOfWeek", Cost::Unit, Returns::Int),
    ("getHours", Cost::Unit, Returns::Int),
    ("getMinutes", Cost::Unit, Returns::Int),
    ("getSeconds", Cost::Unit, Returns::Int),
    ("getMilliseconds", Cost::Unit, Returns::Int),
    // Optionals.
    ("optional.none", Cost::Unit, Returns::Optional),
    ("optional.of", Cost::Unit, Returns::Optional),
    ("optional.ofNonZeroValue", Cost::Unit, Returns::Optional),
    ("value", Cost::Unit, Returns::Inner),
    ("hasValue", Cost::Unit, Returns::Bool),
    ("or", Cost::Unit, Returns::Same),
    ("orValue", Cost::Unit, Returns::Inner),
    // Strings.
    ("charAt", Cost::Unit, Returns::Text),
    ("indexOf", Cost::Walk, Returns::Int),
    ("lastIndexOf", Cost::Walk, Returns::Int),
    ("lowerAscii", Cost::Walk, Returns::Text),
    ("upperAscii", Cost::Walk, Returns::Text),
    ("trim", Cost::Walk, Returns::Text),
    ("substring", Cost::Walk, Returns::Text),
    ("replace", Cost::Rewrite, Returns::LongText),
    ("split", Cost::Rewrite, Returns::Texts),
    ("join", Cost::Rewrite, Returns::LongText),
    ("format", Cost::Walk, Returns::LongText),
    ("strings.quote", Cost::Walk, Returns::LongText),
    ("reverse", Cost::Walk, Returns::Same),
    ("find", Cost::Regex, Returns::Text),
    ("findAll", Cost::Regex, Returns::Texts),
    // Lists and sets.
    ("isSorted", Cost::Entries, Returns::Bool),
    ("sum", Cost::Entries, Returns::Entry),
    ("min", Cost::Entries, Returns::Entry),
    ("max", Cost::Entries, Returns::Entry),
    ("first", Cost::Unit, Returns::Dyn),
    ("last", Cost::Unit, Returns::Dyn),
    ("slice", Cost::Entries, Returns::Same),
    ("sort", Cost::Product, Returns::Same),
    ("distinct", Cost::Product, Returns::Same),
    ("flatten", Cost::Entries, Returns::Dyn),
    ("lists.range", Cost::Unit, Returns::Dyn),
    ("sets.contains", Cost::Product, Returns::Bool),
    ("sets.equivalent", Cost::Product, Returns::Bool),
    ("sets.intersects", Cost::Product, Returns::Bool),
    // Numbers.
    ("math.greatest", Cost::Entries, Returns::Dyn),
    ("math.least", Cost::Entries, Returns::Dyn),
    ("math.abs", Cost::Unit, Returns::Same),
    ("math.sign", Cost::Unit, Returns::Same),
    ("math.ceil", Cost::Unit, Returns::Double),
    ("math.floor", Cost::Unit, Returns::Double),
    ("math.round", Cost::Unit, Returns::Double),
    ("math.trunc", Cost::Unit, Returns::Double),
    ("math.sqrt", Cost::Unit, Returns::Double),
    ("math.isFinite", Cost::Unit, Returns::Bool),
    ("math.isInf", Cost::Unit, Returns::Bool),
    ("math.isNaN", Cost::Unit, Returns::Bool),
    ("math.bitAnd", Cost::Unit, Returns::Same),
    ("math.bitOr", Cost::Unit, Returns::Same),
    ("math.bitXor", Cost::Unit, Returns::Same),
    ("math.bitNot", Cost::Unit, Returns::Same),
    ("math.bitShiftLeft", Cost::Unit, Returns::Same),
    ("math.bitShiftRight", Cost::Unit, Returns::Same),
    // Quantities and semantic versions.
    (
        "quantity",
        Cost::Walk,
        Returns::Library("kubernetes.Quantity"),
    ),
    ("isQuantity", Cost::Walk, Returns::Bool),
    ("semver", Cost::Walk, Returns::Library("kubernetes.Semver")),
    ("isSemver", Cost::Walk, Returns::Bool),
    ("isGreaterThan", Cost::Unit, Returns::Bool),
    ("isLessThan", Cost::Unit, Returns::Bool),
    ("compareTo", Cost::Unit, Returns::Int),
    ("add", Cost::Unit, Returns::Same),
    ("sub", Cost::Unit, Returns::Same),
    ("sign", Cost::Unit, Returns::Int),
    ("asInteger", Cost::Unit, Returns::Int),
    ("isInteger", Cost::Unit, Returns::Bool),
    ("asApproximateFloat", Cost::Unit, Returns::Double),
    ("major", Cost::Unit, Returns::Int),
    ("minor", Cost::Unit, Returns::Int),
    ("patch", Cost::Unit, Returns::Int),
    // Addresses and URLs.
    ("ip", Cost::Walk, Returns::Library("net.IP")),
    ("isIP", Cost::Walk, Returns::Bool),
    ("ip.isCanonical", Cost::Rewrite, Returns::Bool),
    ("family", Cost::Unit, Returns::Int),
    ("isUnspecified", Cost::Unit, Returns::Bool),
    ("isLoopback", Cost::Unit, Returns::Bool),
    ("isLinkLocalMulticast", Cost::Unit, Returns::Bool),
    ("isLinkLocalUnicast", Cost::Unit, Returns::Bool),
    ("isGlobalUnicast", Cost::Unit, Returns::Bool),
    ("cidr", Cost::Walk, Returns::Library("net.CIDR")),
    ("isCIDR", Cost::Walk, Returns::Bool),
    ("containsIP", Cost::WalkSecond, Returns::Bool),
    ("containsCIDR", Cost::WalkSecond, Returns::Bool),
    ("masked", Cost::Unit, Returns::Same),
    ("prefixLength", Cost::Unit, Returns::Int),
    ("url", Cost::Walk, Returns::Library("kubernetes.URL")),
    ("isURL", Cost::Walk, Returns::Bool),
    ("getScheme", Cost::Unit, Returns::Text),
    ("getHost", Cost::Unit, Returns::Text),
    ("getHostname", Cost::Unit, Returns::Text),
    ("getPort", Cost::Unit, Returns::Text),
    ("getEscapedPath", Cost::Unit, Returns::Text),
    ("getQuery", Cost::Unit, Returns::Dyn),
    // Formats and JSON patches.
    ("format.named", Cost::Unit, Returns::Optional),
    ("format.dns1123Label", Cost::Unit, FORMAT),
    ("format.dns1123Subdomain", Cost::Unit, FORMAT),
    ("format.dns1035Label", Cost::Unit, FORMAT),
    ("format.qualifiedName", Cost::Unit, FORMAT),
    ("format.dns1123LabelPrefix", Cost::Unit, FORMAT),
    ("format.dns1123SubdomainPrefix", Cost::Unit, FORMAT),
    ("format.dns1035LabelPrefix", Cost::Unit, FORMAT),
    ("format.labelValue", Cost::Unit, FORMAT),
    ("format.uri", Cost::Unit, FORMAT),
    ("format.uuid", Cost::Unit, FORMAT),
    ("format.byte", Cost::Unit, FORMAT),
    ("format.date", Cost::Unit, FORMAT),
    ("format.datetime", Cost::Unit, FORMAT),
    ("validate", Cost::Rewrite, Returns::Dyn),
    ("jsonpatch.escapeKey", Cost::Walk, Returns::LongText),
    // Encodings.
    ("base64.encode", Cost::Walk, Returns::LongText),
    ("base64.decode", Cost::Walk, Returns::Bytes),
];

const FORMAT: Returns = Returns::Library("kubernetes.NamedFormat");

/// Names of types, which rules compare `type(x)` with.
pub(super) const TYPES: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
];

/// The function `name`.
pub(super) fn find(name: &str) -> Option<Call> {
    FUNCTIONS
        .iter()
        .find(|(known, _, _)| *known == name)
        .map(|(_, cost, result)| Call {
            cost: *cost,
            result: *result,
        })
}

impl Call {
    /// Units for a call with these operands, the receiver first.
    pub(super) fn cost(&self, operands: &[Sized]) -> u64 {
        let size = |at: usize| operands.get(at).map_or(0, |operand| operand.size);
        match self.cost {
            Cost::Unit => 1,
            Cost::Walk => scaled(size(0), 10).max(1),
            Cost::Rewrite => scaled(size(0).saturating_mul(2), 10).max(1),
            Cost::WalkSecond => scaled(size(1), 10).max(1),
            Cost::Entries => size(0).max(1),
            Cost::Search => scaled(size(0), 10)
                .saturating_mul(scaled(size(1), 10))
                .max(1),
            Cost::Regex => scaled(size(0).saturating_add(1), 10)
                .saturating_mul(scaled(size(1), 4))
                .max(1),
            Cost::Product => size(0).saturating_mul(size(1).max(1)).max(1),
        }
    }

    /// What a call with these operands returns.
    pub(super) fn result(&self, operands: &[Sized]) -> Sized {
        let first = operands.first().cloned().unwrap_or(Sized::fixed(Ty::Dyn));
        match self.result {
            Returns::Bool => Sized::fixed(Ty::Bool),
            Returns::Int => Sized::fixed(Ty::Int),
            Returns::Uint => Sized::fixed(Ty::Uint),
            Returns::Double => Sized::fixed(Ty::Double),
            Returns::Bytes => Sized::of(Ty::Bytes, first.size),
            Returns::Timestamp => Sized::of(Ty::Timestamp, 32),
            Returns::Duration => Sized::of(Ty::Duration, 32),
            Returns::Type => Sized::fixed(Ty::Type),
            Returns::Library(name) => Sized::of(Ty::Library(name), first.size),
            Returns::Text => Sized::of(Ty::String, first.size),
            Returns::LongText => Sized::of(Ty::String, MAX_REQUEST),
            Returns::Texts => {
                let text = Sized::of(Ty::String, first.size);
                Sized::of(Ty::List(text.into()), first.size)
            }
            Returns::Same => first,
            Returns::Entry => match first.ty {
                // `min(a, b)` of scalars.
                ref ty if ty.is_scalar() => first,
                _ => first.element(),
            },
            Returns::Inner => match first.ty {
                Ty::Optional(inner) => (*inner).clone(),
                _ => Sized::ANY,
            },
            Returns::Optional => {
                let size = first.size;
                Sized::of(Ty::Optional(first.into()), size)
            }
            Returns::Dyn => Sized::of(Ty::Dyn, first.size),
        }
    }
}

/// `size` divided by `per`, rounded up.
pub(super) const fn scaled(size: u64, per: u64) -> u64 {
    size.div_ceil(per)
}

/// The function that compares values whose lists may be in any order.
pub(super) const EQUAL: &str = "@equal";

/// A context with every function; `schemas` are those that [`EQUAL`] refers to by number.
pub(super) fn context(schemas: Vec<Structural>) -> Context<'static> {
    let mut context = Context::default().with_all();
    context.add_function("dyn", |value: CelValue| Ok::<_, ExecutionError>(value));
    context.add_function("type", |value: CelValue| {
        Ok::<_, ExecutionError>(type_of(&value))
    });
    for name in TYPES {
        context.add_variable_from_value(*name, type_value(name));
    }
    context.add_function("size", size);
    context.add_function("bool", to_bool);
    context.add_function("string", to_string());
    context.add_function("matches", Matcher::default().function());
    context.add_function(EQUAL, move |Arguments(arguments): Arguments| {
        equal(&schemas, &arguments)
    });
    context
}

/// The length of a string in characters, and of the rest in entries or bytes.
fn size(This(value): This<CelValue>) -> Result<i64, ExecutionError> {
    let size = match &value {
        CelValue::String(text) => text.chars().count(),
        CelValue::Bytes(bytes) => bytes.len(),
        CelValue::List(items) => items.len(),
        CelValue::Map(map) => map.map.len(),
        _ => return Err(ExecutionError::NoSuchOverload),
    };
    i64::try_from(size).map_err(|_| ExecutionError::NoSuchOverload)
}

fn to_bool(This(value): This<CelValue>) -> Result<bool, ExecutionError> {
    match value {
        CelValue::Bool(on) => Ok(on),
        CelValue::String(text) => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            other => Err(ExecutionError::function_error(
                "bool",
                format!("type conversion error from '{other}' to 'bool'"),
            )),
        },
        _ => Err(ExecutionError::NoSuchOverload),
    }
}

/// The library's conversion to a string, which leaves out booleans.
fn to_string() -> impl Fn(This<CelValue>) -> Result<CelValue, ExecutionError> + Send + Sync {
    let library = Context::default().with_all();
    let call = IdedExpr {
        id: 0,
        expr: Expr::Call(CallExpr {
            func_name: "string".to_owned(),
            target: None,
            args: vec![IdedExpr {
                id: 0,
                expr: Expr::Ident("value".to_owned()),
            }],
        }),
    };
    move |This(value)| {
        if let CelValue::Bool(on) = value {
            return Ok(CelValue::String(Arc::new(on.to_string())));
        }
        let mut scope = library.new_inner_scope();
        scope.add_variable_from_value("value", value);
        scope.resolve(&call)
    }
}

/// Matches regular expressions as Go does, and remembers those of the rules.
#[derive(Default)]
struct Matcher {
    known: Mutex<HashMap<Arc<String>, Arc<Pattern>>>,
}

impl Matcher {
    /// Patterns that are remembered; rules have few, values that are used as patterns many.
    const MOST: usize = 64;

    fn function(
        self,
    ) -> impl Fn(This<Arc<String>>, Arc<String>) -> Result<bool, ExecutionError> + Send + Sync {
        move |This(text), pattern| Ok(self.compiled(&pattern)?.matches(&text))
    }

    fn compiled(&self, pattern: &Arc<String>) -> Result<Arc<Pattern>, ExecutionError> {
        if let Some(known) = self.known.lock().get(pattern) {
            return Ok(Arc::clone(known));
        }
        let compiled = Arc::new(Pattern::parse(pattern).map_err(|error| {
            ExecutionError::function_error("matches", format!("invalid regex: {error}"))
        })?);
        let mut known = self.known.lock();
        if known.len() < Self::MOST {
            known.insert(Arc::clone(pattern), Arc::clone(&compiled));
        }
        Ok(compiled)
    }
}

fn equal(schemas: &[Structural], arguments: &[CelValue]) -> Result<CelValue, ExecutionError> {
    let [left, right, CelValue::Int(number)] = arguments else {
        return Err(ExecutionError::NoSuchOverload);
    };
    let schema = usize::try_from(*number)
        .ok()
        .and_then(|number| schemas.get(number))
        .ok_or(ExecutionError::NoSuchOverload)?;
    Ok(CelValue::Bool(values::equal(schema, left, right)))
}

/// Types are told apart by name, which is all that rules can see of them.
fn type_of(value: &CelValue) -> CelValue {
    type_value(match value {
        CelValue::List(_) => "list",
        CelValue::Map(_) => "map",
        CelValue::Function(..) => "function",
        CelValue::Int(_) => "int",
        CelValue::UInt(_) => "uint",
        CelValue::Float(_) => "double",
        CelValue::String(_) => "string",
        CelValue::Bytes(_) => "bytes",
        CelValue::Bool(_) => "bool",
        CelValue::Duration(_) => "google.protobuf.Duration",
        CelValue::Timestamp(_) => "google.protobuf.Timestamp",
        CelValue::Opaque(_) => "opaque",
        CelValue::Null => "null_type",
    })
}

fn type_value(name: &str) -> CelValue {
    CelValue::String(Arc::new(format!("type {name}")))
}

#[cfg(test)]
mod tests {
    use kube_cel::cel::parser::Parser;

    use super::*;

    /// Every function of the table exists in the context, and nothing else does.
    #[test]
    fn the_table_lists_what_exists() {
        let context = context(Vec::new());
        let exists = |call: &str| {
            let expression = Parser::new().parse(call).unwrap();
            !matches!(
                context.resolve(&expression),
                Err(ExecutionError::UndeclaredReference(_))
            )
        };
        for (name, _, _) in FUNCTIONS {
            // With a receiver or without, as the name may want it.
            assert!(
                exists(&format!("{name}('1')")) || exists(&format!("'1'.{name}('1')")),
                "{name}"
            );
        }
        assert!(!exists("nope('1')"));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = FUNCTIONS.iter().map(|(name, _, _)| name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
