//! Label selectors, in both published syntaxes: equality (`a=b,c!=d`) and sets
//! (`e in (x,y),f notin (z),g,!h`), plus the numeric `a>1` and `a<1`.
//!
//! Grammar and messages follow the Kubernetes documentation, "Labels and Selectors", and the answers
//! of a real API server to malformed selectors.

use std::{collections::BTreeSet, fmt};

use serde_json::Value;
use thiserror::Error;

use super::SelectorError;
use crate::format::names;

/// A parsed selector: all requirements must hold. Without requirements it matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

/// Why a label selector was refused; the text is the message a client shows.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LabelSelectorError {
    /// One requirement cannot be read.
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
    /// Something stands where it must not.
    #[error("found '{found}', expected: {expected}")]
    Unexpected {
        /// What stands there.
        found: String,
        /// What could stand there.
        expected: &'static str,
    },
    /// A `matchLabels`/`matchExpressions` selector is malformed.
    #[error("{0}")]
    Expression(String),
}

/// One condition on one label key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
    values: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl LabelSelector {
    /// Parses the value of a `labelSelector` query parameter.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Parser::new(text).selector()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements })
    }

    /// The selector in an object's field: `{matchLabels: {..}, matchExpressions: [..]}`. An empty
    /// or absent selector matches everything here; callers for which absent means "nothing" check
    /// before.
    pub fn from_object(selector: &Value) -> Result<Self, LabelSelectorError> {
        let mut requirements = Vec::new();
        if let Some(labels) = selector.get("matchLabels").and_then(Value::as_object) {
            for (key, value) in labels {
                let value = value.as_str().unwrap_or_default();
                requirements.push(Requirement::checked(
                    key.clone(),
                    Operator::Equals,
                    BTreeSet::from([value.to_owned()]),
                )?);
            }
        }
        let expressions = selector.get("matchExpressions").and_then(Value::as_array);
        for expression in expressions.into_iter().flatten() {
            let text = |name| {
                expression
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(LabelSelectorError::Expression(format!(
                        "{other:?} is not a valid label selector operator"
                    )));
                }
            };
            let values = expression.get("values").and_then(Value::as_array);
            let values = values
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned);
            requirements.push(Requirement::checked(
                text("key").to_owned(),
                operator,
                values.collect(),
            )?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements })
    }

    /// Whether the selector restricts nothing.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether labels, given as a lookup by key, satisfy the selector.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(label(&requirement.key)))
    }
}

/// The canonical text: requirements sorted by key, values sorted.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl Requirement {
    /// A requirement whose key and values have been checked against the rules for labels.
    fn checked(
        key: String,
        operator: Operator,
        values: BTreeSet<String>,
    ) -> Result<Self, LabelSelectorError> {
        let invalid = |path: &str, value: &str, detail: &str| {
            Err(LabelSelectorError::Requirement(format!(
                "{path}: Invalid value: {value:?}: {detail}"
            )))
        };
        let key_errors = names::label_key_errors(&key);
        if !key_errors.is_empty() {
            return invalid("key", &key, &key_errors.join("; "));
        }
        let empty_set = matches!(operator, Operator::In | Operator::NotIn) && values.is_empty();
        if empty_set {
            return Err(LabelSelectorError::Requirement(
                "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
                    .to_owned(),
            ));
        }
        if matches!(operator, Operator::Exists | Operator::DoesNotExist) && !values.is_empty() {
            return Err(LabelSelectorError::Requirement(format!(
                "values: Invalid value: {:?}: values set must be empty for exists and does not exist",
                values.iter().collect::<Vec<_>>()
            )));
        }
        for (index, value) in values.iter().enumerate() {
            let numeric = matches!(operator, Operator::GreaterThan | Operator::LessThan);
            if numeric && value.parse::<i64>().is_err() {
                let path = format!("values[{index}]");
                return invalid(
                    &path,
                    value,
                    "for 'Gt', 'Lt' operators, the value must be an integer",
                );
            }
            let errors = names::label_value_errors(value);
            if !errors.is_empty() {
                return invalid(
                    &format!("values[{index}][{key}]"),
                    value,
                    &errors.join("; "),
                );
            }
        }
        Ok(Self {
            key,
            operator,
            values,
        })
    }

    fn matches(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => {
                value.is_some_and(|value| self.values.contains(value))
            }
            Operator::NotEquals | Operator::NotIn => {
                value.is_none_or(|value| !self.values.contains(value))
            }
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let value = value.and_then(|value| value.parse::<i64>().ok());
                let bound = self
                    .values
                    .first()
                    .and_then(|bound| bound.parse::<i64>().ok());
                match (value, bound, self.operator) {
                    (Some(value), Some(bound), Operator::GreaterThan) => value > bound,
                    (Some(value), Some(bound), _) => value < bound,
                    _ => false,
                }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = || {
            self.values
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(",")
        };
        let Self { key, operator, .. } = self;
        match operator {
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::Equals => write!(f, "{key}={}", values()),
            Operator::DoubleEquals => write!(f, "{key}=={}", values()),
            Operator::NotEquals => write!(f, "{key}!={}", values()),
            Operator::GreaterThan => write!(f, "{key}>{}", values()),
            Operator::LessThan => write!(f, "{key}<{}", values()),
            Operator::In => write!(f, "{key} in ({})", values()),
            Operator::NotIn => write!(f, "{key} notin ({})", values()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    End,
    Open,
    Close,
    Comma,
    Not,
    Operator(Operator),
    /// A key or value. `in` and `notin` are words too and become operators by position.
    Word(String),
    /// A run of symbols that means nothing, such as `!!=`.
    Unknown(String),
}

impl Token {
    /// The token as written, for messages.
    fn text(&self) -> String {
        match self {
            Self::End => String::new(),
            Self::Open => "(".to_owned(),
            Self::Close => ")".to_owned(),
            Self::Comma => ",".to_owned(),
            Self::Not => "!".to_owned(),
            Self::Operator(Operator::Equals) => "=".to_owned(),
            Self::Operator(Operator::DoubleEquals) => "==".to_owned(),
            Self::Operator(Operator::NotEquals) => "!=".to_owned(),
            Self::Operator(Operator::GreaterThan) => ">".to_owned(),
            Self::Operator(_) => "<".to_owned(),
            Self::Word(text) => text.clone(),
            Self::Unknown(text) => format!("error expected: keyword found '{text}'"),
        }
    }
}

/// A recursive-descent parser over the tokens of one selector.
#[derive(Debug)]
struct Parser {
    tokens: std::vec::IntoIter<Token>,
    next: Token,
}

impl Parser {
    fn new(text: &str) -> Self {
        let mut tokens = tokens(text).into_iter();
        let next = tokens.next().unwrap_or(Token::End);
        Self { tokens, next }
    }

    fn advance(&mut self) -> Token {
        let following = self.tokens.next().unwrap_or(Token::End);
        std::mem::replace(&mut self.next, following)
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, LabelSelectorError> {
        let mut requirements = Vec::new();
        loop {
            match &self.next {
                Token::Word(_) | Token::Not => {}
                Token::End => return Ok(requirements),
                other => return Err(unexpected(other, "!, identifier, or 'end of string'")),
            }
            // Whatever is wrong inside a requirement is reported under one heading.
            requirements.push(self.requirement().map_err(|error| match error {
                LabelSelectorError::Requirement(_) => error,
                other => LabelSelectorError::Requirement(other.to_string()),
            })?);
            match self.advance() {
                Token::End => return Ok(requirements),
                Token::Comma => {
                    if !matches!(self.next, Token::Word(_) | Token::Not) {
                        return Err(unexpected(&self.next, "identifier after ','"));
                    }
                }
                other => return Err(unexpected(&other, "',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, LabelSelectorError> {
        let mut token = self.advance();
        let negated = token == Token::Not;
        if negated {
            token = self.advance();
        }
        let Token::Word(key) = token else {
            return Err(unexpected(&token, "identifier"));
        };
        let errors = names::label_key_errors(&key);
        if !errors.is_empty() {
            // The path of the key is unknown at this point, and printed so by a real server.
            return Err(LabelSelectorError::Requirement(format!(
                "<nil>: Invalid value: {key:?}: {}",
                errors.join("; ")
            )));
        }
        if negated {
            return Requirement::checked(key, Operator::DoesNotExist, BTreeSet::new());
        }
        if matches!(self.next, Token::End | Token::Comma) {
            return Requirement::checked(key, Operator::Exists, BTreeSet::new());
        }
        match self.advance() {
            Token::Operator(operator) => {
                let value = self.exact_value()?;
                Requirement::checked(key, operator, BTreeSet::from([value]))
            }
            Token::Word(word) if word == "in" || word == "notin" => {
                let operator = if word == "in" {
                    Operator::In
                } else {
                    Operator::NotIn
                };
                let values = self.value_set()?;
                Requirement::checked(key, operator, values)
            }
            other => Err(unexpected(&other, "in, notin, =, ==, !=, gt, lt")),
        }
    }

    fn exact_value(&mut self) -> Result<String, LabelSelectorError> {
        if matches!(self.next, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.advance() {
            Token::Word(value) => Ok(value),
            other => Err(unexpected(&other, "identifier")),
        }
    }

    /// `(x,y,,z)`: an empty place is the empty value.
    fn value_set(&mut self) -> Result<BTreeSet<String>, LabelSelectorError> {
        match self.advance() {
            Token::Open => {}
            // Worded without a comma, unlike all others.
            other => {
                let found = other.text();
                return Err(LabelSelectorError::Requirement(format!(
                    "found '{found}' expected: '('"
                )));
            }
        }
        let mut values = BTreeSet::new();
        let mut place_is_empty = true;
        loop {
            match self.advance() {
                Token::Word(value) if place_is_empty => {
                    values.insert(value);
                    place_is_empty = false;
                }
                token @ (Token::Comma | Token::Close) => {
                    if place_is_empty {
                        values.insert(String::new());
                    }
                    if token == Token::Close {
                        return Ok(values);
                    }
                    place_is_empty = true;
                }
                other if place_is_empty => {
                    return Err(unexpected(&other, "',', ')' or identifier"));
                }
                other => return Err(unexpected(&other, "',' or ')'")),
            }
        }
    }
}

fn unexpected(found: &Token, expected: &'static str) -> LabelSelectorError {
    LabelSelectorError::Unexpected {
        found: found.text(),
        expected,
    }
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next() {
        let (token, length) = if is_symbol(first) {
            symbol(rest)
        } else {
            let end = rest
                .find(|c| is_symbol(c) || is_space(c))
                .unwrap_or(rest.len());
            (
                Token::Word(rest.get(..end).unwrap_or_default().to_owned()),
                end,
            )
        };
        tokens.push(token);
        rest = rest
            .get(length..)
            .unwrap_or_default()
            .trim_start_matches(is_space);
    }
    tokens
}

/// The longest symbol at the start of `text`, and its length in bytes.
fn symbol(text: &str) -> (Token, usize) {
    for (spelling, token) in [
        ("==", Token::Operator(Operator::DoubleEquals)),
        ("!=", Token::Operator(Operator::NotEquals)),
        ("=", Token::Operator(Operator::Equals)),
        (">", Token::Operator(Operator::GreaterThan)),
        ("<", Token::Operator(Operator::LessThan)),
        ("!", Token::Not),
        ("(", Token::Open),
        (")", Token::Close),
        (",", Token::Comma),
    ] {
        if text.starts_with(spelling) {
            return (token, spelling.len());
        }
    }
    // Not reached for a character that `is_symbol` accepts; kept total rather than panicking.
    let length = text.chars().next().map_or(0, char::len_utf8);
    (
        Token::Unknown(text.get(..length).unwrap_or_default().to_owned()),
        length,
    )
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

#[cfg(test)]
mod tests;
