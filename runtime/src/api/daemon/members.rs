//! The members of a JSON request body, taken one by one. What is missing, of the wrong type or unknown
//! is refused by its name.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde_json::{Map, Value};

use super::reply;
use crate::api::body::{self, BodyError};

/// What is left of an object's members.
#[derive(Debug)]
pub(super) struct Members {
    open: Map<String, Value>,
}

/// What is wrong with a body; the text is for the client.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refused {
    status: StatusCode,
    message: String,
}

impl Refused {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
        }
    }

    pub(super) fn answer(&self) -> Response<Body> {
        let code = match self.status {
            StatusCode::PAYLOAD_TOO_LARGE => "TOO_LARGE",
            StatusCode::REQUEST_TIMEOUT => reply::STALLED,
            _ => "INVALID_ARGUMENT",
        };
        reply::error(self.status, code, &self.message)
    }
}

impl Members {
    /// Reads a body whole.
    pub(super) async fn read(body: Body, limit: usize) -> Result<Self, Refused> {
        let bytes = body::read(body, limit).await.map_err(|error| Refused {
            status: match error {
                BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                BodyError::Stalled(_) => StatusCode::REQUEST_TIMEOUT,
                BodyError::Broken => StatusCode::BAD_REQUEST,
            },
            message: error.to_string(),
        })?;
        Self::parse(&bytes)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(open)) => Ok(Self { open }),
            Ok(other) => Err(Refused::new(format!(
                "the body is {}; expected a JSON object",
                kind(&other)
            ))),
            Err(error) => Err(Refused::new(format!(
                "the body is not JSON ({error}); expected a JSON object"
            ))),
        }
    }

    /// Takes a member; one that is null counts as missing.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.open.remove(name).filter(|value| !value.is_null())
    }

    /// A text that must be there.
    pub(super) fn text(&mut self, name: &str) -> Result<String, Refused> {
        self.optional_text(name)?
            .ok_or_else(|| Refused::new(format!("\"{name}\" is missing; expected a string")))
    }

    /// A text.
    pub(super) fn optional_text(&mut self, name: &str) -> Result<Option<String>, Refused> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(unexpected(name, &other, "a string")),
        }
    }

    /// A text, or a number as one, that must be there.
    pub(super) fn text_or_number(&mut self, name: &str) -> Result<String, Refused> {
        let expected = "a string or a number";
        match self.take(name) {
            Some(Value::String(text)) => Ok(text),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(other) => Err(unexpected(name, &other, expected)),
            None => Err(Refused::new(format!(
                "\"{name}\" is missing; expected {expected}"
            ))),
        }
    }

    /// A list of texts; one text is a list of one.
    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, Refused> {
        let expected = "a string or a list of strings";
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text]),
            Some(Value::Array(values)) => values
                .into_iter()
                .map(|value| match value {
                    Value::String(text) => Ok(text),
                    other => Err(Refused::new(format!(
                        "\"{name}\" holds {}; expected {expected}",
                        kind(&other)
                    ))),
                })
                .collect(),
            Some(other) => Err(unexpected(name, &other, expected)),
        }
    }

    /// True or false.
    pub(super) fn flag(&mut self, name: &str, default: bool) -> Result<bool, Refused> {
        match self.take(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(unexpected(name, &other, "true or false")),
        }
    }

    /// A whole number within a range.
    pub(super) fn number<N>(
        &mut self,
        name: &str,
        range: &RangeInclusive<N>,
    ) -> Result<Option<N>, Refused>
    where
        N: TryFrom<u64> + PartialOrd + Display,
    {
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        if !value.is_number() {
            return Err(unexpected(name, &value, &expected()));
        }
        let number = value.as_u64().and_then(|number| N::try_from(number).ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(Refused::new(format!(
                "\"{name}\" is {value}; expected {}",
                expected()
            ))),
        }
    }

    /// Permission bits as four octal digits.
    pub(super) fn mode(&mut self, name: &str) -> Result<Option<u32>, Refused> {
        let expected = "four octal digits, such as \"0644\"";
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let Some(text) = value.as_str() else {
            return Err(unexpected(name, &value, expected));
        };
        let digits = text.len() == 4 && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        match u32::from_str_radix(text, 8) {
            Ok(mode) if digits => Ok(Some(mode)),
            _ => Err(Refused::new(format!(
                "\"{name}\" is {text:?}; expected {expected}"
            ))),
        }
    }

    /// A time in seconds, above 0.
    pub(super) fn seconds(&mut self, name: &str) -> Result<Option<Duration>, Refused> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let seconds = value.as_f64().filter(|seconds| *seconds > 0.0);
        match seconds.map(Duration::try_from_secs_f64) {
            Some(Ok(time)) => Ok(Some(time)),
            _ => Err(Refused::new(format!(
                "\"{name}\" is {value}; expected a number of seconds above 0"
            ))),
        }
    }

    /// An object whose members are taken in turn.
    pub(super) fn members(&mut self, name: &str) -> Result<Option<Self>, Refused> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(open)) => Ok(Some(Self { open })),
            Some(other) => Err(unexpected(name, &other, "an object")),
        }
    }

    /// The names that are left.
    pub(super) fn names(&self) -> Vec<String> {
        self.open.keys().cloned().collect()
    }

    /// Refuses what nobody took.
    pub(super) fn finish(self, known: &[&str]) -> Result<(), Refused> {
        match self
            .open
            .keys()
            .find(|name| !known.contains(&name.as_str()))
        {
            None => Ok(()),
            Some(name) => Err(Refused::new(format!(
                "{name:?} is not known; expected only {}",
                known.join(", ")
            ))),
        }
    }
}

fn unexpected(name: &str, value: &Value, expected: &str) -> Refused {
    Refused::new(format!(
        "\"{name}\" is {}; expected {expected}",
        kind(value)
    ))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, bool, Option<u32>, Option<u32>), Refused> {
        let mut members = Members::parse(text.as_bytes())?;
        let taken = (
            members.text("path")?,
            members.flag("follow", true)?,
            members.number("limit", &(1..=10))?,
            members.mode("mode")?,
        );
        members.texts("names")?;
        members.finish(&["path", "follow", "limit", "mode", "names"])?;
        Ok(taken)
    }

    #[test]
    fn members_are_taken_with_their_defaults() {
        let taken = parse(r#"{"path": "a"}"#).unwrap();
        assert_eq!(taken, ("a".into(), true, None, None));
        let text = r#"{"path":"", "follow":false, "limit":10, "mode":"4755", "names":["x"]}"#;
        let taken = parse(text).unwrap();
        assert_eq!(taken, (String::new(), false, Some(10), Some(0o4755)));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_expected() {
        for (text, words) in [
            ("", ["not JSON", "JSON object"]),
            ("[]", ["a list", "JSON object"]),
            ("{}", ["\"path\" is missing", "a string"]),
            (r#"{"path":null}"#, ["\"path\" is missing", "a string"]),
            (r#"{"path":1}"#, ["\"path\" is a number", "a string"]),
            (
                r#"{"path":"","follow":"yes"}"#,
                ["\"follow\" is a string", "true or false"],
            ),
            (
                r#"{"path":"","limit":0}"#,
                ["\"limit\" is 0", "from 1 to 10"],
            ),
            (
                r#"{"path":"","limit":-1}"#,
                ["\"limit\" is -1", "from 1 to 10"],
            ),
            (
                r#"{"path":"","limit":1.5}"#,
                ["\"limit\" is 1.5", "whole number"],
            ),
            (
                r#"{"path":"","limit":"1"}"#,
                ["\"limit\" is a string", "1 to 10"],
            ),
            (
                r#"{"path":"","mode":"755"}"#,
                ["\"mode\" is \"755\"", "octal"],
            ),
            (r#"{"path":"","mode":"+755"}"#, ["\"mode\"", "octal"]),
            (
                r#"{"path":"","mode":493}"#,
                ["\"mode\" is a number", "octal"],
            ),
            (
                r#"{"path":"","names":[1]}"#,
                ["\"names\" holds a number", "list"],
            ),
            (
                r#"{"path":"","other":1}"#,
                ["\"other\" is not known", "follow"],
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(
                words.iter().all(|word| error.contains(word)),
                "{text}: {error}"
            );
        }
    }
}
