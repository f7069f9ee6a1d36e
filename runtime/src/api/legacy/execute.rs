//! `POST /execute`: run a command line to its end.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answer::Answer;
use super::python;
use super::reply::{self, Violation};
use super::shlex;
use crate::api::answer::json_body;
use crate::api::body::{self, BodyError};
use crate::api::{App, held};
use crate::exec::{Command, Exit, Limits, Outcome, SpawnError, run_to_end};
use crate::files::FileError;

/// A valid request.
#[derive(Clone, Debug, PartialEq)]
struct Request {
    command: String,
    timeout: Option<Duration>,
}

/// The status `timeout(1)` and the SDKs use.
const TIMED_OUT: i32 = 124;
/// Nobody means more than this; far below where times overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

pub(super) async fn execute(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let body = match body::read(body, app.config.max_request_bytes).await {
        Ok(body) => body,
        Err(error @ BodyError::TooLarge { .. }) => {
            return reply::detail(StatusCode::PAYLOAD_TOO_LARGE, error.to_string());
        }
        Err(error @ BodyError::Stalled(_)) => {
            return reply::detail(StatusCode::REQUEST_TIMEOUT, error.to_string());
        }
        Err(error) => return reply::detail(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let request = match parse(&headers, &body) {
        Ok(request) => request,
        Err(Refusal::Text) => {
            let text = "There was an error parsing the body";
            return reply::detail(StatusCode::BAD_REQUEST, text);
        }
        Err(Refusal::Content(violations)) => return reply::unprocessable(&violations),
    };
    drop(body);
    run(&app, &request).await
}

async fn run(app: &App, request: &Request) -> Response<Body> {
    let words = match shlex::split(&request.command) {
        Ok(words) => words,
        Err(error) => return failed(&error.to_string()),
    };
    let directory = match app.root.handle() {
        Ok(directory) => directory,
        Err(error) => {
            let root = app.root.path().to_string_lossy();
            return failed(&match &error {
                FileError::System { source, .. } => python::os_error(source, &root),
                other => other.to_string(),
            });
        }
    };
    let Ok(command) = Command::new(words.clone(), directory) else {
        return failed("embedded null byte");
    };
    let limits = Limits {
        timeout: request.timeout.unwrap_or(app.config.exec_timeout),
        stream_bytes: app.config.max_output_bytes,
    };
    let mut running = app.metrics.command(Instant::now());
    match run_to_end(&app.processes, command, limits).await {
        Ok(outcome) => {
            running.finished(&outcome);
            answer(outcome, &words, limits.timeout)
        }
        Err(error) => {
            running.refused();
            refused(&error)
        }
    }
}

fn refused(error: &SpawnError) -> Response<Body> {
    match error {
        SpawnError::Empty => failed("list index out of range"),
        SpawnError::Program { program, source } => {
            failed(&python::os_error(source, &program.to_string_lossy()))
        }
        SpawnError::System { what, source } => failed(&format!("cannot {what}: {source}")),
        SpawnError::Busy { .. } | SpawnError::Closing => {
            reply::busy(format!("Failed to execute command: {error}"))
        }
    }
}

fn failed(why: &str) -> Response<Body> {
    let answer = Answer {
        remark: failure(why),
        exit_code: 1,
        ..Answer::default()
    };
    json_body(StatusCode::OK, answer.body())
}

fn failure(why: &str) -> String {
    format!("Failed to execute command: {why}")
}

/// What becomes of a command that ran.
fn answer(outcome: Outcome, words: &[String], timeout: Duration) -> Response<Body> {
    let (remark, exit_code) = if outcome.timed_out {
        let why = format!(
            "Command '{}' timed out after {:?} seconds",
            python::repr_list(words),
            timeout.as_secs_f64(),
        );
        (failure(&why), TIMED_OUT)
    } else {
        let code = match outcome.exit {
            Some(Exit::Code(code)) => code,
            Some(Exit::Signal(signal)) => -signal,
            Some(Exit::Unknown) | None => -1,
        };
        (String::new(), code)
    };
    let answer = Answer {
        stdout: outcome.stdout,
        stderr: outcome.stderr,
        remark,
        exit_code,
        timed_out: outcome.timed_out,
    };
    let mut response = json_body(StatusCode::OK, answer.body());
    held::until_sent(response.extensions_mut(), outcome.held);
    response
}

/// Why a body is no request.
#[derive(Debug)]
enum Refusal {
    /// It is no text.
    Text,
    Content(Vec<Violation>),
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        Self::Content(vec![violation])
    }
}

fn parse(headers: &HeaderMap, body: &Bytes) -> Result<Request, Refusal> {
    if body.is_empty() {
        return Err(Violation::missing(&[], Value::Null).into());
    }
    let text = std::str::from_utf8(body).map_err(|_| Refusal::Text)?;
    if !is_json(headers) {
        return Err(not_an_object(text.into()).into());
    }
    let value: Value = serde_json::from_str(text).map_err(|error| invalid_json(text, &error))?;
    let Value::Object(members) = &value else {
        return Err(not_an_object(value).into());
    };
    let mut violations = Vec::new();
    let command = match members.get("command") {
        Some(Value::String(command)) => command.clone(),
        Some(other) => {
            violations.push(wrong("string_type", "command", STRING, other));
            String::new()
        }
        None => {
            violations.push(Violation::missing(&["command"], value.clone()));
            String::new()
        }
    };
    let timeout = members
        .get("timeout_seconds")
        .and_then(|value| timeout(value, &mut violations));
    if violations.is_empty() {
        Ok(Request { command, timeout })
    } else {
        Err(Refusal::Content(violations))
    }
}

const STRING: &str = "Input should be a valid string";
const NUMBER: &str = "Input should be a valid number";
const POSITIVE: &str = "Input should be greater than 0";

fn timeout(value: &Value, violations: &mut Vec<Violation>) -> Option<Duration> {
    let member = "timeout_seconds";
    match value.as_f64() {
        Some(seconds) if seconds > 0.0 => {
            let timeout = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST);
            return Some(timeout.min(LONGEST));
        }
        Some(_) => violations.push(Violation {
            context: Some(json!({"gt": 0.0})),
            ..wrong("greater_than", member, POSITIVE, value)
        }),
        None if value.is_null() => {}
        None => violations.push(wrong("float_type", member, NUMBER, value)),
    }
    None
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = value
        .and_then(|value| value.split(';').next())
        .unwrap_or("");
    let essence = essence.trim().to_ascii_lowercase();
    essence
        .strip_prefix("application/")
        .is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

fn wrong(kind: &'static str, member: &str, message: &'static str, input: &Value) -> Violation {
    Violation {
        kind,
        location: vec![member.into()],
        message,
        input: input.clone(),
        context: None,
    }
}

fn not_an_object(input: Value) -> Violation {
    Violation {
        kind: "model_attributes_type",
        location: Vec::new(),
        message: "Input should be a valid dictionary or object to extract fields from",
        input,
        context: None,
    }
}

fn invalid_json(text: &str, error: &serde_json::Error) -> Violation {
    let before: usize = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum();
    let position = before + error.column().saturating_sub(1);
    let place = format!(" at line {} column {}", error.line(), error.column());
    let why = error.to_string();
    Violation {
        kind: "json_invalid",
        location: vec![position.into()],
        message: "JSON decode error",
        input: json!({}),
        context: Some(json!({"error": why.strip_suffix(&place).unwrap_or(&why)})),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn judge(kind: Option<&'static str>, body: &str) -> Result<Request, String> {
        let mut headers = HeaderMap::new();
        if let Some(kind) = kind {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        parse(&headers, &Bytes::from(body.to_owned())).map_err(|refusal| match refusal {
            Refusal::Text => "text".to_owned(),
            Refusal::Content(violations) => violations
                .iter()
                .map(|one| format!("{} {}", one.kind, json!(one.location)))
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    #[test]
    fn bodies_are_judged_as_the_framework_does() {
        let json = Some("application/json");
        for (kind, body, expected) in [
            (json, "", "missing []"),
            (json, "{}", r#"missing ["command"]"#),
            (json, r#"{"command":5}"#, r#"string_type ["command"]"#),
            (json, r#"{"command":null}"#, r#"string_type ["command"]"#),
            (json, "[1]", "model_attributes_type []"),
            (json, "null", "model_attributes_type []"),
            (json, "\"x\"", "model_attributes_type []"),
            (json, "{bad", "json_invalid [1]"),
            (json, "{\"a\":1,\n}", "json_invalid [8]"),
            (json, r#"{"command":"x"} y"#, "json_invalid [16]"),
            (
                json,
                r#"{"command":"x","timeout_seconds":NaN}"#,
                "json_invalid [33]",
            ),
            (
                json,
                r#"{"command":"x","timeout_seconds":[]}"#,
                r#"float_type ["timeout_seconds"]"#,
            ),
            (
                json,
                r#"{"command":"x","timeout_seconds":"5"}"#,
                r#"float_type ["timeout_seconds"]"#,
            ),
            (
                json,
                r#"{"command":"x","timeout_seconds":0}"#,
                r#"greater_than ["timeout_seconds"]"#,
            ),
            (
                json,
                r#"{"command":"x","timeout_seconds":-1.5}"#,
                r#"greater_than ["timeout_seconds"]"#,
            ),
            (
                json,
                r#"{"command":7,"timeout_seconds":{}}"#,
                r#"string_type ["command"], float_type ["timeout_seconds"]"#,
            ),
            (None, r#"{"command":"x"}"#, "model_attributes_type []"),
            (
                Some("text/plain"),
                r#"{"command":"x"}"#,
                "model_attributes_type []",
            ),
        ] {
            assert_eq!(judge(kind, body), Err(expected.to_owned()), "{body}");
        }
    }

    #[test]
    fn requests_carry_command_and_timeout() {
        let request = |command: &str, timeout| {
            Ok(Request {
                command: command.to_owned(),
                timeout,
            })
        };
        let json = Some("application/json");
        let charset = Some("application/vnd.x+json; charset=utf-8");
        let seconds = Duration::from_secs_f64;
        assert_eq!(judge(json, r#"{"command":"x"}"#), request("x", None));
        assert_eq!(
            judge(charset, r#"{"command":"x","more":1}"#),
            request("x", None)
        );
        for (number, timeout) in [
            ("null", None),
            ("30.0", Some(seconds(30.0))),
            ("1", Some(seconds(1.0))),
            ("0.25", Some(seconds(0.25))),
            ("1e300", Some(LONGEST)),
        ] {
            let body = format!(r#"{{"command":"x","timeout_seconds":{number}}}"#);
            assert_eq!(judge(json, &body), request("x", timeout), "{number}");
        }
        assert_eq!(
            judge(json, r#"{"command":"x","command":"y"}"#),
            request("y", None)
        );
    }
}
