//! Running rules against objects.
//!
//! Every evaluation is paid from a budget before it runs: what a rule can cost with the object's
//! actual sizes, without luck. A rule that could run away is refused instead.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use kube_cel::cel::objects::{OptionalValue, Value as CelValue};
use kube_cel::cel::{Context, ExecutionError, IdedExpr};
use serde_json::Value;

use super::super::correlate::OldItems;
use super::super::error::FieldError;
use super::super::field_path;
use super::super::path::Path;
use super::super::structural::{Kind, MapType, Rule};
use super::compile::{Compiled, Level};
use super::declared::Sized;
use super::{inspect, values};

/// Units that one evaluation may cost.
const MAX_CALL_COST: u64 = 1_000_000;

/// Units that all rules may cost for one object.
const BUDGET: u64 = 10_000_000;

/// Below this, a rule is paid at its largest cost, without measuring the object.
const CHEAP: u64 = 100;

/// Bytes of the longest computed message.
const MAX_MESSAGE: usize = 5 * 1024;

/// Runs the rules of a schema for one object.
pub(super) struct Run<'c> {
    context: &'c Context<'static>,
    budget: u64,
    exhausted: bool,
    errors: Vec<FieldError>,
}

/// A new value, and where it comes from.
#[derive(Clone, Copy)]
struct Change<'v> {
    new: &'v Value,
    old: Option<&'v Value>,
    /// The closest values around that are known to belong together.
    around: Option<(&'v Value, &'v Value)>,
}

impl<'v> Change<'v> {
    /// A part of this value.
    fn part(self, new: &'v Value, old: Option<&'v Value>) -> Self {
        Self {
            new,
            old,
            around: self.old.map(|old| (self.new, old)).or(self.around),
        }
    }

    /// Whether the write left this value as it was.
    fn is_unchanged(self) -> bool {
        match (self.old, self.around) {
            (Some(old), _) => old == self.new,
            (None, Some((new, old))) => new == old,
            (None, None) => false,
        }
    }
}

/// What the rules say about `new`.
pub(super) fn run(
    context: &Context<'static>,
    level: &Level,
    new: &Value,
    old: Option<&Value>,
) -> Vec<FieldError> {
    let mut run = Run {
        context,
        budget: BUDGET,
        exhausted: false,
        errors: Vec::new(),
    };
    let change = Change {
        new,
        old,
        around: None,
    };
    run.level(level, change, &Path::ROOT);
    run.errors
}

impl Run<'_> {
    fn level(&mut self, level: &Level, change: Change<'_>, path: &Path<'_>) {
        if change.new.is_null() {
            return;
        }
        self.rules(level, change, path);
        match change.new {
            Value::Array(items) => {
                let Some(below) = &level.items else {
                    return;
                };
                let old = OldItems::of(&level.schema, change.old);
                for (i, item) in items.iter().enumerate() {
                    if self.exhausted {
                        return;
                    }
                    let part = change.part(item, old.get(&level.schema, item));
                    self.level(below, part, &path.index(i));
                }
            }
            Value::Object(map) => {
                // Every published type of map can be compared key by key.
                debug_assert!(matches!(
                    level.schema.map_type,
                    MapType::Unset | MapType::Granular | MapType::Atomic
                ));
                let old = change.old.and_then(Value::as_object);
                for (name, value) in map {
                    if self.exhausted {
                        return;
                    }
                    let part = change.part(value, old.and_then(|old| old.get(name)));
                    let property = level.properties.iter().find(|(known, _)| **known == **name);
                    if let Some((_, below)) = property {
                        self.level(below, part, &path.field(name));
                    } else if let Some(below) = &level.additional {
                        self.level(below, part, &path.key(name));
                    }
                }
            }
            _ => {}
        }
    }

    fn rules(&mut self, level: &Level, change: Change<'_>, path: &Path<'_>) {
        if level.rules.is_empty() {
            return;
        }
        let old = change.old.filter(|old| !old.is_null());
        let mut scope = self.context.new_inner_scope();
        let convert = |json| values::convert(Some(&level.schema), level.place, json);
        scope.add_variable_from_value("self", convert(change.new));
        let mut old_value = None;
        if level.rules.iter().any(|rule| rule.uses_old_self) {
            old_value = old.map(convert);
        }
        if let Some(value) = &old_value {
            scope.add_variable_from_value("oldSelf", value.clone());
        }
        for rule in &level.rules {
            if rule.uses_old_self && old.is_none() && !rule.rule.optional_old_self {
                continue;
            }
            if !self.pay(level, rule, change, path) {
                return;
            }
            let optional;
            let scope = if rule.rule.optional_old_self {
                let value = old_value
                    .clone()
                    .map_or_else(OptionalValue::none, OptionalValue::of);
                let mut inner = scope.new_inner_scope();
                inner.add_variable_from_value("oldSelf", CelValue::Opaque(Arc::new(value)));
                optional = inner;
                &optional
            } else {
                &scope
            };
            self.rule(level, rule, change, scope, path);
        }
    }

    /// Takes the cost of a rule from the budget; whether it may run.
    fn pay(&mut self, level: &Level, rule: &Compiled, change: Change<'_>, path: &Path<'_>) -> bool {
        let kind = Value::String(level.schema.kind.as_str().to_owned());
        let cost = if rule.cost <= CHEAP {
            rule.cost
        } else {
            let measure = |value| Sized::measured(&level.schema, level.place, value);
            let this = measure(change.new);
            let old = change.old.map_or_else(|| this.clone(), measure);
            let mut expression = rule.expression.clone();
            inspect::inspect(&mut expression, &this, &old, &mut Vec::new())
                .cost
                .min(rule.cost)
        };
        let detail = if cost > MAX_CALL_COST {
            format!(
                "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                named(&rule.rule)
            )
        } else if cost > self.budget {
            "validation failed due to running out of cost budget, no further validation rules will be run".to_owned()
        } else {
            self.budget -= cost;
            return true;
        };
        self.errors.push(FieldError::invalid(path, &kind, detail));
        self.exhausted = true;
        false
    }

    fn rule(
        &mut self,
        level: &Level,
        compiled: &Compiled,
        change: Change<'_>,
        scope: &Context<'_>,
        path: &Path<'_>,
    ) {
        let rule = &compiled.rule;
        let kind = level.schema.kind;
        let error = match resolve(&compiled.expression, scope) {
            Ok(CelValue::Bool(true)) => return,
            Ok(CelValue::Bool(false)) => {
                if !compiled.uses_old_self && change.is_unchanged() {
                    return;
                }
                let detail = compiled
                    .message
                    .as_ref()
                    .and_then(|message| computed(message, scope))
                    .unwrap_or_else(|| message(rule));
                let path = format!(
                    "{path}{}",
                    field_path::render(&rule.field_path, &level.schema)
                );
                let path = path.strip_prefix('.').unwrap_or(&path);
                refusal(rule, kind, change.new, path, &detail)
            }
            Ok(_) => FieldError::invalid(
                path,
                &Value::String(kind.as_str().to_owned()),
                format_args!("cel expression must evaluate to a bool: {}", named(rule)),
            ),
            Err(error) => FieldError::invalid(
                path,
                &Value::String(kind.as_str().to_owned()),
                failure(&error, rule),
            ),
        };
        self.errors.push(error);
    }
}

/// Evaluates an expression. The evaluator panics where it is incomplete, for example when a time
/// leaves its range; that is the rule's error and must not end the request.
fn resolve(expression: &IdedExpr, scope: &Context<'_>) -> Result<CelValue, ExecutionError> {
    catch_unwind(AssertUnwindSafe(|| scope.resolve(expression))).unwrap_or_else(|_| {
        Err(ExecutionError::function_error(
            "evaluate",
            "the evaluator gave up",
        ))
    })
}

/// The error of a rule that is not true.
fn refusal(rule: &Rule, kind: Kind, value: &Value, path: &str, detail: &str) -> FieldError {
    let container = matches!(kind, Kind::Object | Kind::Array);
    match rule.reason.as_str() {
        "FieldValueForbidden" => FieldError::forbidden(path, detail),
        "FieldValueRequired" => FieldError::required(path, detail),
        "FieldValueDuplicate" if container => FieldError::duplicate_omitted(path),
        "FieldValueDuplicate" => FieldError::duplicate(path, value),
        _ if container => FieldError::invalid_omitted(path, detail),
        _ => FieldError::invalid(path, value, detail),
    }
}

/// The computed message, when it comes out well.
fn computed(message: &IdedExpr, scope: &Context<'_>) -> Option<String> {
    let Ok(CelValue::String(text)) = resolve(message, scope) else {
        return None;
    };
    let text = text.trim();
    (!text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n')).then(|| text.to_owned())
}

fn message(rule: &Rule) -> String {
    if rule.message.is_empty() {
        format!("failed rule: {}", rule.rule.trim())
    } else {
        rule.message.trim().to_owned()
    }
}

/// What messages call a rule.
fn named(rule: &Rule) -> &str {
    if rule.message.is_empty() {
        rule.rule.trim()
    } else {
        rule.message.trim()
    }
}

/// Why a rule could not be evaluated, in the words of cel-go where it has the same case.
fn failure(error: &ExecutionError, rule: &Rule) -> String {
    let rule = named(rule);
    let cause = match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::IndexOutOfBounds(CelValue::Int(index)) => {
            format!("index out of bounds: {index}")
        }
        ExecutionError::FunctionError { message, .. } => message.clone(),
        ExecutionError::NoSuchOverload
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnsupportedUnaryOperator(..)
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::UnsupportedTargetType { .. } => {
            return format!(
                "'no such overload': call arguments did not match a supported operator, function or macro signature for rule: {rule}"
            );
        }
        other => other.to_string(),
    };
    format!("{cause} evaluating rule: {rule}")
}
