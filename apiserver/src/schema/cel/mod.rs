//! `x-kubernetes-validations`: rules in the Common Expression Language.
//!
//! ```text
//!   compile    parse, inspect and price the rules of a schema, once
//!   inspect    types and costs of an expression;  declared: the types a schema declares
//!   functions  what rules may call
//!   values     JSON as rules see it
//!   evaluate   run the rules for an object, within a budget
//! ```
//!
//! The registry compiles a schema's rules when it takes a CRD; the write path runs them after
//! validation. A rule that does not compile, costs too much or uses something the evaluator lacks
//! (`sortBy`, `cel.bind`, comprehensions with two variables) is refused with the CRD, never skipped.
//! Behaviour, limits and texts are the published ones of Kubernetes.

mod compile;
mod declared;
mod evaluate;
mod functions;
mod inspect;
mod values;

use std::fmt;

use kube_cel::cel::Context;
use serde_json::Value;

use self::compile::{Compiler, Level};
use super::path::Path;
use super::{FieldError, SchemaError, Structural};

/// The compiled rules of one schema.
#[derive(Default)]
pub struct Rules {
    /// Absent when the schema has no rules.
    compiled: Option<Box<Set>>,
}

struct Set {
    root: Level,
    context: Context<'static>,
}

impl Rules {
    /// Compiles every rule of the schema once.
    ///
    /// Fails with all rules that cannot be used, and with defaults that break them; paths are
    /// relative to the schema document.
    pub fn compile(schema: &Structural) -> Result<Self, SchemaError> {
        if schema.is_recursive() || !schema.has_rules() {
            return Ok(Self::default());
        }
        let mut compiler = Compiler::new();
        let root = compiler.root(schema);
        let Compiler {
            mut errors,
            unordered,
            ..
        } = compiler;
        let set = Set {
            root,
            context: functions::context(unordered),
        };
        if errors.is_empty() {
            check_defaults(&set, &set.root, &Path::ROOT, &mut errors);
        }
        SchemaError::check(errors)?;
        Ok(Self {
            compiled: Some(Box::new(set)),
        })
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.compiled.is_none()
    }

    /// Evaluates the rules; transition rules run only where `old` has a counterpart.
    ///
    /// With `old`, rules about a value that did not change are not held against it.
    pub fn check(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        match &self.compiled {
            Some(set) => evaluate::run(&set.context, &set.root, new, old),
            None => Vec::new(),
        }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("root", &self.compiled.as_ref().map(|set| &set.root))
            .finish()
    }
}

/// Defaults must satisfy the rules of their own level and below, as a new and as an unchanged value.
fn check_defaults(set: &Set, level: &Level, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(default) = level.schema.default_value() {
        let at = path.field("default").to_string();
        let mut found = evaluate::run(&set.context, level, default, Some(default));
        if found.is_empty() {
            found = evaluate::run(&set.context, level, default, None);
        }
        for mut error in found {
            error.prefix(&at);
            errors.push(error);
        }
    }
    let properties = path.field("properties");
    for (name, below) in &level.properties {
        check_defaults(set, below, &properties.key(name), errors);
    }
    if let Some(below) = &level.items {
        check_defaults(set, below, &path.field("items"), errors);
    }
}

/// A property name as an identifier of CEL; `None` when it cannot be one.
fn escape(name: &str) -> Option<String> {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let mut escaped = String::with_capacity(name.len());
    let mut rest = name.chars();
    while let Some(c) = rest.next() {
        match c {
            '_' if rest.as_str().starts_with('_') => {
                rest.next();
                escaped.push_str("__underscores__");
            }
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' => escaped.push(c),
            '.' => escaped.push_str("__dot__"),
            '-' => escaped.push_str("__dash__"),
            '/' => escaped.push_str("__slash__"),
            _ => return None,
        }
    }
    Some(escaped)
}

#[cfg(test)]
mod tests;
