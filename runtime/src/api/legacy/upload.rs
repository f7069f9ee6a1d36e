//! `POST /upload`: a form with one part named `file`, whose file name is the destination.
//!
//! The body is read to its end even when it is refused: clients send it whole before they look for an
//! answer. Nothing is put in its place before the form is complete; of several such parts the
//! last one counts.

use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Response, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};

use super::files::describe;
use super::reply::{self, Violation};
use crate::api::App;
use crate::api::body;
use crate::api::multipart::{Event, Multipart, MultipartError, Part};
use crate::api::stall::{self, Stalled};
use crate::files::{FileError, TreePath, Upload, UploadOptions};

/// How much of a field without a file name is repeated in the error about it.
const ECHO: usize = 1024;

pub(super) async fn upload(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let mut body = body.into_data_stream();
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let refusal = match kind.and_then(Multipart::from_content_type) {
        Some(Ok(form)) => match receive(&app, form, &mut body).await {
            Ok(received) => return store(&app, received).await,
            Err(refusal) => refusal,
        },
        Some(Err(error)) => Refusal::Form(error),
        None => Refusal::Missing,
    };
    body::drain(&mut body).await;
    refusal.answer()
}

/// Why there is nothing to store.
#[derive(Debug)]
enum Refusal {
    /// The client went away.
    Gone,
    /// The client sent nothing more.
    Stalled(Stalled),
    Form(MultipartError),
    Missing,
    /// The part has no file name.
    NoFile(String),
}

impl Refusal {
    fn answer(self) -> Response<Body> {
        match self {
            Self::Gone => reply::detail(
                StatusCode::BAD_REQUEST,
                "There was an error parsing the body",
            ),
            Self::Stalled(stalled) => {
                reply::detail(StatusCode::REQUEST_TIMEOUT, stalled.to_string())
            }
            Self::Form(error) => reply::detail(StatusCode::BAD_REQUEST, error.to_string()),
            Self::Missing => reply::unprocessable(&[Violation::missing(&["file"], Value::Null)]),
            Self::NoFile(text) => reply::unprocessable(&[Violation {
                kind: "value_error",
                location: vec!["file".into()],
                message: "Value error, Expected UploadFile, received: <class 'str'>",
                input: text.into(),
                context: Some(json!({"error": {}})),
            }]),
        }
    }
}

/// A complete file part: its name, and the file or what went wrong with it.
type Received = (String, Result<Upload, Failure>);

/// Why a file could not be taken.
#[derive(Debug)]
enum Failure {
    File(FileError),
    TooLarge { limit: u64 },
}

/// The part being read.
enum Current {
    File(String, Result<Upload, Failure>),
    Text(Vec<u8>),
    Other,
}

/// Reads the form and returns its last `file` part.
async fn receive(
    app: &App,
    mut form: Multipart,
    body: &mut BodyDataStream,
) -> Result<Received, Refusal> {
    let mut last = Err(Refusal::Missing);
    let mut current = Current::Other;
    loop {
        match form.next().map_err(Refusal::Form)? {
            Event::NeedMore => match body.next().await {
                Some(Ok(bytes)) => form.push(bytes),
                Some(Err(error)) => {
                    return Err(stall::cause(&error).map_or(Refusal::Gone, Refusal::Stalled));
                }
                None => {
                    form.finish().map_err(Refusal::Form)?;
                    return last;
                }
            },
            Event::Part(part) => current = begin(app, part).await,
            Event::Data(bytes) => current = current.data(app, bytes).await,
            Event::PartEnd => match std::mem::replace(&mut current, Current::Other) {
                Current::File(name, upload) => last = Ok((name, upload)),
                Current::Text(text) => {
                    last = Err(Refusal::NoFile(String::from_utf8_lossy(&text).into_owned()));
                }
                Current::Other => {}
            },
            Event::End => {
                body::drain(body).await;
                return last;
            }
        }
    }
}

async fn begin(app: &App, part: Part) -> Current {
    match (part.name.as_str(), part.filename) {
        ("file", Some(name)) => {
            let upload = match TreePath::parse(&name) {
                Ok(path) => Upload::begin(&app.root, path, UploadOptions::default()).await,
                Err(error) => Err(error),
            };
            Current::File(name, upload.map_err(Failure::File))
        }
        ("file", None) => Current::Text(Vec::new()),
        _ => Current::Other,
    }
}

impl Current {
    async fn data(self, app: &App, bytes: Bytes) -> Self {
        match self {
            Self::File(name, Ok(mut upload)) => {
                let total = upload.written() + bytes.len() as u64;
                let result = match app.config.max_upload_bytes {
                    Some(limit) if total > limit => Err(Failure::TooLarge { limit }),
                    _ => upload.write(bytes).await.map_err(Failure::File),
                };
                Self::File(name, result.map(|()| upload))
            }
            Self::Text(mut text) => {
                let room = ECHO.saturating_sub(text.len());
                text.extend(bytes.iter().take(room));
                Self::Text(text)
            }
            failed => failed,
        }
    }
}

async fn store(app: &App, (name, upload): Received) -> Response<Body> {
    let stored = match upload {
        Ok(upload) => {
            let bytes = upload.written();
            upload.commit().await.map(|_| bytes).map_err(Failure::File)
        }
        Err(failure) => Err(failure),
    };
    match stored {
        Ok(bytes) => {
            app.metrics.uploaded(bytes);
            let text = format!("File '{name}' uploaded successfully.");
            reply::message(StatusCode::OK, text)
        }
        Err(Failure::TooLarge { limit }) => reply::message(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("File upload failed: the file is larger than the limit of {limit} bytes"),
        ),
        Err(Failure::File(FileError::Escapes | FileError::Nul)) => reply::access_denied(),
        Err(Failure::File(error)) => {
            let status = if error.is_full() {
                StatusCode::INSUFFICIENT_STORAGE
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            };
            let target = app.root.path().join(name.trim_start_matches('/'));
            let target = target.to_string_lossy();
            let why = describe(&error, target.trim_end_matches('/'));
            tracing::warn!(%error, "upload failed");
            reply::message(status, format!("File upload failed: {why}"))
        }
    }
}
