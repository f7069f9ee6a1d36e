//! The JSONPath of printer columns.
//!
//! The dialect of `kubectl` as far as a path to one value needs it: fields (`.a`, `['a.b']`, `.a\.b`),
//! indexes and slices (`[0]`, `[-1]`, `[1:3]`), wildcards (`[*]`, `.*`), descent (`..a`) and filters
//! over lists (`[?(@.type=="Ready")]`, with `==`, `!=`, `<`, `<=`, `>`, `>=`, or a path alone).

use serde_json::Value;
use thiserror::Error;

/// A parsed path.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPath(Vec<Step>);

/// Why a path cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid JSONPath at {at:?}: {problem}")]
pub struct JsonPathError {
    /// The rest of the path from where it is wrong.
    pub at: String,
    /// What is wrong there.
    pub problem: &'static str,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Any,
    /// Every value below, at any depth.
    Descend,
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    Filter(Filter),
}

#[derive(Debug, Clone, PartialEq)]
struct Filter {
    left: Operand,
    /// `None` asks whether the left side exists.
    comparison: Option<(Comparison, Operand)>,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    /// A path from the element (`@.a.b`).
    Path(JsonPath),
    Literal(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// Parses a path that starts at the object, with or without the leading dot.
    pub fn parse(text: &str) -> Result<Self, JsonPathError> {
        let mut parser = Parser { rest: text.trim() };
        let path = parser.path()?;
        if parser.rest.is_empty() {
            Ok(path)
        } else {
            Err(parser.error("unexpected text"))
        }
    }

    /// The values at the path, in order; none when something on the way is missing.
    pub fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        self.0.iter().fold(vec![object], |values, step| {
            values
                .into_iter()
                .flat_map(|value| step.apply(value))
                .collect()
        })
    }
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match (self, value) {
            (Self::Field(name), Value::Object(_)) => value.get(name).into_iter().collect(),
            (Self::Any, Value::Object(fields)) => fields.values().collect(),
            (Self::Any, Value::Array(items)) => items.iter().collect(),
            (Self::Descend, _) => {
                let mut found = Vec::new();
                descend(value, &mut found);
                found
            }
            (Self::Index(index), Value::Array(items)) => {
                let at = position(*index, items.len());
                at.and_then(|at| items.get(at)).into_iter().collect()
            }
            (Self::Slice(from, to), Value::Array(items)) => {
                let bound = |index: i64| position(index, items.len()).unwrap_or(items.len());
                let (from, to) = (from.map_or(0, bound), to.map_or(items.len(), bound));
                items
                    .get(from..to.min(items.len()))
                    .unwrap_or_default()
                    .iter()
                    .collect()
            }
            (Self::Filter(filter), Value::Array(items)) => {
                items.iter().filter(|item| filter.accepts(item)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// An index from the front, or from the end when negative.
fn position(index: i64, length: usize) -> Option<usize> {
    match usize::try_from(index) {
        Ok(index) => Some(index),
        Err(_) => length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?),
    }
}

fn descend<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(value);
    match value {
        Value::Object(fields) => fields.values().for_each(|value| descend(value, found)),
        Value::Array(items) => items.iter().for_each(|value| descend(value, found)),
        _ => {}
    }
}

impl Filter {
    fn accepts(&self, item: &Value) -> bool {
        let left = self.left.values(item);
        match &self.comparison {
            None => !left.is_empty(),
            Some((comparison, right)) => match (left.as_slice(), right.values(item).as_slice()) {
                ([left], [right]) => comparison.holds(left, right),
                _ => false,
            },
        }
    }
}

impl Operand {
    fn values<'a>(&'a self, item: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Path(path) => path.find(item),
            Self::Literal(value) => vec![value],
        }
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> bool {
        let order = match (left, right) {
            (Value::Number(left), Value::Number(right)) => {
                left.as_f64().partial_cmp(&right.as_f64())
            }
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            _ => None,
        };
        let Some(order) = order else { return false };
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn error(&self, problem: &'static str) -> JsonPathError {
        JsonPathError {
            at: self.rest.to_owned(),
            problem,
        }
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Steps until something that is not one.
    fn path(&mut self) -> Result<JsonPath, JsonPathError> {
        let mut steps = Vec::new();
        if !self.rest.starts_with(['.', '[']) && !self.rest.is_empty() {
            steps.push(self.field()?);
        }
        loop {
            if self.take("..") {
                steps.push(Step::Descend);
                if !self.rest.starts_with('[') {
                    steps.push(self.field()?);
                }
            } else if self.take(".") {
                // A dot alone, or before a bracket, stays where it is.
                let at_end = self.rest.is_empty() || self.rest.starts_with(['[', ')', ' ']);
                if !at_end {
                    steps.push(self.field()?);
                }
            } else if self.take("[") {
                steps.push(self.bracket()?);
            } else {
                return Ok(JsonPath(steps));
            }
        }
    }

    /// A bare name; a backslash takes away the meaning of what follows.
    fn field(&mut self) -> Result<Step, JsonPathError> {
        if self.take("*") {
            return Ok(Step::Any);
        }
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some((_, escaped)) => name.push(escaped),
                    None => return Err(self.error("a backslash at the end")),
                },
                '.' | '[' | ']' | ')' | '(' | ' ' | '=' | '!' | '<' | '>' | ',' | '\'' | '"' => {
                    end = at;
                    break;
                }
                other => name.push(other),
            }
        }
        if name.is_empty() {
            return Err(self.error("a field name is missing"));
        }
        self.rest = self.rest.get(end..).unwrap_or_default();
        Ok(Step::Field(name))
    }

    /// What stands between brackets, the opening one taken.
    fn bracket(&mut self) -> Result<Step, JsonPathError> {
        self.skip_spaces();
        let step = if self.take("*") {
            Step::Any
        } else if self.take("?(") {
            let filter = self.filter()?;
            self.skip_spaces();
            if !self.take(")") {
                return Err(self.error("a filter ends with `)`"));
            }
            Step::Filter(filter)
        } else if self.rest.starts_with(['\'', '"']) {
            Step::Field(self.quoted()?)
        } else {
            let from = self.number();
            if self.take(":") {
                Step::Slice(from, self.number())
            } else {
                Step::Index(from.ok_or_else(|| {
                    self.error("an index, a slice, `*`, a quoted name or a filter is expected")
                })?)
            }
        };
        self.skip_spaces();
        if self.take("]") {
            Ok(step)
        } else {
            Err(self.error("a bracket is not closed"))
        }
    }

    fn number(&mut self) -> Option<i64> {
        let sign = usize::from(self.rest.starts_with('-'));
        let digits = self
            .rest
            .bytes()
            .skip(sign)
            .take_while(u8::is_ascii_digit)
            .count();
        let (number, rest) = self.rest.split_at_checked(sign + digits)?;
        let number = number.parse().ok()?;
        self.rest = rest;
        Some(number)
    }

    fn quoted(&mut self) -> Result<String, JsonPathError> {
        let mut chars = self.rest.char_indices();
        let Some((_, quote)) = chars.next() else {
            return Err(self.error("a quote is missing"));
        };
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some((_, escaped)) => text.push(escaped),
                    None => break,
                },
                c if c == quote => {
                    self.rest = self.rest.get(at + c.len_utf8()..).unwrap_or_default();
                    return Ok(text);
                }
                other => text.push(other),
            }
        }
        Err(self.error("a quoted text is not closed"))
    }

    fn filter(&mut self) -> Result<Filter, JsonPathError> {
        let left = self.operand()?;
        self.skip_spaces();
        let comparisons = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        for (token, comparison) in comparisons {
            if self.take(token) {
                return Ok(Filter {
                    left,
                    comparison: Some((comparison, self.operand()?)),
                });
            }
        }
        Ok(Filter {
            left,
            comparison: None,
        })
    }

    fn operand(&mut self) -> Result<Operand, JsonPathError> {
        self.skip_spaces();
        if self.take("@") {
            return Ok(Operand::Path(self.path()?));
        }
        if self.rest.starts_with(['\'', '"']) {
            return Ok(Operand::Literal(self.quoted()?.into()));
        }
        let end = self
            .rest
            .find([' ', ')', '=', '!', '<', '>'])
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        let literal = match word {
            "true" => Value::from(true),
            "false" => Value::from(false),
            word => match word.parse::<i64>() {
                Ok(number) => number.into(),
                Err(_) => word
                    .parse::<f64>()
                    .ok()
                    .filter(|number| number.is_finite())
                    .map(Value::from)
                    .ok_or_else(|| {
                        self.error("a path from `@`, a text, a number or a boolean is expected")
                    })?,
            },
        };
        self.rest = rest;
        Ok(Operand::Literal(literal))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn find(path: &str, object: &Value) -> Value {
        let path = JsonPath::parse(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        path.find(object)
            .into_iter()
            .cloned()
            .collect::<Vec<_>>()
            .into()
    }

    #[test]
    fn paths_lead_to_values() {
        let object = json!({
            "metadata": {"annotations": {"a.b/c": "x"}},
            "spec": {"a": 1, "list": [{"n": 1, "t": "p"}, {"n": 2, "t": "q"}, {"n": 3}]},
            "status": {"conditions": [
                {"type": "Ready", "status": "True"}, {"type": "Synced", "status": "False"}]},
        });
        for (path, expected) in [
            (".spec.a", json!([1])),
            ("spec.a", json!([1])),
            (".spec.missing.b", json!([])),
            (".spec.a.b", json!([])),
            (".metadata.annotations['a.b/c']", json!(["x"])),
            (r".metadata.annotations.a\.b/c", json!(["x"])),
            (".spec.list[0].n", json!([1])),
            (".spec.list[-1].n", json!([3])),
            (".spec.list[9].n", json!([])),
            (".spec.list[-9].n", json!([])),
            (".spec.list[1:].n", json!([2, 3])),
            (".spec.list[:2].n", json!([1, 2])),
            (".spec.list[1:2].n", json!([2])),
            (".spec.list[2:1].n", json!([])),
            (".spec.list[*].n", json!([1, 2, 3])),
            (".spec.list[*]..n", json!([1, 2, 3])),
            (
                r#".status.conditions[?(@.type=="Ready")].status"#,
                json!(["True"]),
            ),
            (
                ".status.conditions[?(@.type == 'Synced')].status",
                json!(["False"]),
            ),
            (
                ".status.conditions[?(@.type!='Ready')].status",
                json!(["False"]),
            ),
            (".spec.list[?(@.n>1)].n", json!([2, 3])),
            (".spec.list[?(@.n<=2)].n", json!([1, 2])),
            (".spec.list[?(@.t)].n", json!([1, 2])),
            (".spec.list[?(@.t=='zzz')].n", json!([])),
            (
                "..status",
                json!([{"conditions": [
                {"type": "Ready", "status": "True"}, {"type": "Synced", "status": "False"}]}, "True", "False"]),
            ),
        ] {
            assert_eq!(find(path, &object), expected, "{path}");
        }
        assert_eq!(find(".", &json!(1)), json!([1]));
    }

    #[test]
    fn malformed_paths_are_refused() {
        for path in [
            ".a[",
            ".a[b]",
            ".a['b",
            ".a[?(@.b=='c']",
            ".a[?(c)]",
            ".a[0",
            ".a b",
            ".a..",
            r".a\",
            ".a[?(@.b==)]",
        ] {
            let error = JsonPath::parse(path).expect_err(path);
            assert!(
                error.to_string().starts_with("invalid JSONPath at"),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(path in "[a-c.\\[\\]()?@'\"=<>!*: 0-9\\\\-]{0,30}") {
            if let Ok(path) = JsonPath::parse(&path) {
                let _found = path.find(&json!({"a": [{"b": 1}, {"b": "c"}], "b": {"c": null}}));
            }
        }
    }
}
