//! Writing to a process, signalling it, resizing its terminal.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{Method, Response, StatusCode};
use futures::StreamExt;
use rustix::process::Signal;

use super::{conflict, find, start};
use crate::api::App;
use crate::api::daemon::files::{no_content, query};
use crate::api::daemon::members::{Members, Refused};
use crate::api::daemon::{method_not_allowed, reply};
use crate::exec::{InputError, Process};

/// The process that something is to be done to, or the answer that this is not how.
fn posted(app: &App, id: &str, request: &Request) -> Result<Arc<Process>, Response<Body>> {
    if request.method() != Method::POST {
        return Err(method_not_allowed("POST"));
    }
    find(app, id)
}

/// How long the end of an input may take after the process has ended.
const MOMENT: Duration = Duration::from_millis(100);

/// `POST /v1/processes/{id}/stdin?eof=true`: the body is written as it comes, then the input ended if
/// that is asked for.
pub(super) async fn stdin(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Response<Body> {
    let process = match posted(&app, &id, &request) {
        Ok(process) => process,
        Err(refusal) => return refusal,
    };
    let end = match query(request.uri(), "eof").as_deref() {
        None | Some("false" | "0") => false,
        Some("true" | "1" | "") => true,
        Some(other) => {
            return reply::invalid(format!("eof is {other:?}; expected true or false"));
        }
    };
    let mut body = request.into_body().into_data_stream();
    loop {
        // The client may think for as long as it likes, but not about a process that has ended. If the process
        // ended because of what it was sent, the end of that may be on its way still.
        let unread = async {
            process.exited().await;
            tokio::time::sleep(MOMENT).await;
        };
        let piece = tokio::select! {
            biased;
            piece = body.next() => piece,
            () = unread => return refused(&InputError::Unread),
        };
        let Some(piece) = piece else { break };
        let Ok(bytes) = piece else {
            return reply::invalid("the request body ended early");
        };
        if let Err(error) = process.write(&bytes).await {
            return refused(&error);
        }
    }
    if end && let Err(error) = process.finish_input().await {
        return refused(&error);
    }
    no_content()
}

fn refused(error: &InputError) -> Response<Body> {
    match error {
        InputError::System(source) => reply::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL",
            format!("{error}: {source}"),
        ),
        other => conflict(other.to_string()),
    }
}

/// `POST /v1/processes/{id}/signal` with `{"signal": "SIGTERM"}` or `{"signal": 15}`.
pub(super) async fn signal(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Response<Body> {
    let process = match posted(&app, &id, &request) {
        Ok(process) => process,
        Err(refusal) => return refusal,
    };
    let members = Members::read(request.into_body(), app.config.max_request_bytes).await;
    let signal = match members.and_then(wanted_signal) {
        Ok(signal) => signal,
        Err(refused) => return refused.answer(),
    };
    if process.signal(signal).await {
        no_content()
    } else {
        conflict("the process has ended")
    }
}

fn wanted_signal(mut members: Members) -> Result<Signal, Refused> {
    let text = members.text_or_number("signal")?;
    members.finish(&["signal"])?;
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, signal)| *signal)
        .or_else(|| Signal::from_named_raw(text.parse().ok()?))
        .ok_or_else(|| {
            Refused::new(format!(
                "\"signal\" is {text:?}; expected a name, such as \"SIGTERM\", or a number, such as 15"
            ))
        })
}

/// What programs are usually told; any other goes by its number.
const NAMES: [(&str, Signal); 11] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("TERM", Signal::TERM),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
    ("TSTP", Signal::TSTP),
    ("WINCH", Signal::WINCH),
];

/// `POST /v1/processes/{id}/resize` with `{"cols": 80, "rows": 24}`.
pub(super) async fn resize(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Response<Body> {
    let process = match posted(&app, &id, &request) {
        Ok(process) => process,
        Err(refusal) => return refusal,
    };
    let members = Members::read(request.into_body(), app.config.max_request_bytes).await;
    let size = match members.and_then(start::size) {
        Ok(size) => size,
        Err(refused) => return refused.answer(),
    };
    match process.resize(size) {
        Ok(true) => no_content(),
        Ok(false) if process.has_terminal() => conflict("the process has ended"),
        Ok(false) => conflict("the process has no terminal"),
        Err(error) => reply::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL",
            format!("cannot resize the terminal: {error}"),
        ),
    }
}
