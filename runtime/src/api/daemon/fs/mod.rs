//! `/v1/fs/{operation}`: what can be done to files besides reading and storing them.
//!
//! Every operation takes a JSON object and answers with one. What takes time runs on a thread of its own
//! and ends when the client goes away. What may take long takes turns, so that it leaves threads to others.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{Method, Response, StatusCode};
use axum::routing::any;
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use super::members::{Members, Refused};
use super::{method_not_allowed, not_found, reply};
use crate::api::{App, answer, body};
use crate::files::{Caller, FileError, Root, TreePath};

mod content;
mod tree;

/// Work that was asked for, ready to run, and its answer as JSON.
type Work = Box<dyn FnOnce(&Root, &Caller) -> Result<Bytes, FileError> + Send>;
/// Takes the members of a request.
type Parse = fn(&mut Members) -> Result<Work, Refused>;

/// An operation: its name, its members, and how they are read.
struct Operation {
    name: &'static str,
    members: &'static [&'static str],
    parse: Parse,
    takes: Takes,
}

/// How long the work may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Takes {
    /// Less than handing it to another thread would.
    Moments,
    Time,
    /// Long, and much of what the machine has: only some of these run at once.
    Turns,
}

/// So much work runs at once that takes turns, each on a thread of its own.
const MAX_RUNNING: usize = 16;
/// So many requests for such work, read and checked, are accepted at once. All but those that run wait.
const MAX_ACCEPTED: usize = 256;

/// Whose turn it is.
#[derive(Clone, Debug)]
struct Turns {
    accepted: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

/// Given back when the work has ended, also when nobody waits for it any more.
type Turn = (OwnedSemaphorePermit, OwnedSemaphorePermit);

const OPERATIONS: &[Operation] = &[
    Operation {
        name: "stat",
        members: &["path", "follow"],
        parse: tree::stat,
        takes: Takes::Moments,
    },
    Operation {
        name: "mkdir",
        members: &["path", "parents", "mode"],
        parse: tree::mkdir,
        takes: Takes::Time,
    },
    Operation {
        name: "move",
        members: &["from", "to", "overwrite"],
        parse: tree::move_to,
        takes: Takes::Time,
    },
    Operation {
        name: "copy",
        members: &["from", "to", "overwrite"],
        parse: tree::copy,
        takes: Takes::Turns,
    },
    Operation {
        name: "chmod",
        members: &["path", "mode", "uid", "gid"],
        parse: tree::chmod,
        takes: Takes::Time,
    },
    Operation {
        name: "glob",
        members: &["pattern", "path", "limit"],
        parse: content::glob,
        takes: Takes::Turns,
    },
    Operation {
        name: "search",
        members: &[
            "pattern",
            "path",
            "literal",
            "ignore_case",
            "glob",
            "exclude",
            "limit",
            "max_file_bytes",
            "max_line_bytes",
        ],
        parse: content::search,
        takes: Takes::Turns,
    },
    Operation {
        name: "replace",
        members: &[
            "pattern",
            "replacement",
            "paths",
            "path",
            "glob",
            "exclude",
            "literal",
            "ignore_case",
            "expected",
            "max_file_bytes",
        ],
        parse: content::replace,
        takes: Takes::Turns,
    },
];

/// The routes of all operations.
pub(super) fn routes() -> Router<App> {
    let turns = Turns {
        accepted: Arc::new(Semaphore::new(MAX_ACCEPTED)),
        running: Arc::new(Semaphore::new(MAX_RUNNING)),
    };
    Router::new()
        .route("/v1/fs/{operation}", any(operation))
        .layer(Extension(turns))
}

async fn operation(
    State(app): State<App>,
    Extension(turns): Extension<Turns>,
    Path(name): Path<String>,
    request: Request,
) -> Response<Body> {
    let Some(operation) = OPERATIONS.iter().find(|known| known.name == name) else {
        return not_found().await;
    };
    if request.method() != Method::POST {
        body::drain(&mut request.into_body().into_data_stream()).await;
        return method_not_allowed("POST");
    }
    let limit = app.config.max_request_bytes;
    let members = match Members::read(request.into_body(), limit).await {
        Ok(members) => members,
        Err(refused) => return refused.answer(),
    };
    let work = match operation.prepare(members) {
        Ok(work) => work,
        Err(refused) => return refused.answer(),
    };
    let turn = match operation.takes {
        Takes::Moments | Takes::Time => None,
        // Only now: a client that is slow to ask must not keep others from it.
        Takes::Turns => match turns.take().await {
            Ok(turn) => Some(turn),
            Err(error) => return reply::file(&error),
        },
    };
    run(&app, work, operation.takes, turn).await
}

impl Turns {
    /// Waits for a turn, unless too many wait already.
    async fn take(self) -> Result<Turn, FileError> {
        let accepted = self.accepted.try_acquire_owned().map_err(|_| {
            FileError::Exhausted(format!(
                "{MAX_ACCEPTED} requests that work on many files are under way already; try again later"
            ))
        })?;
        match self.running.acquire_owned().await {
            Ok(running) => Ok((accepted, running)),
            Err(error) => Err(FileError::Exhausted(error.to_string())),
        }
    }
}

impl Operation {
    fn prepare(&self, mut members: Members) -> Result<Work, Refused> {
        let work = (self.parse)(&mut members)?;
        members.finish(self.members)?;
        Ok(work)
    }
}

async fn run(app: &App, work: Work, takes: Takes, turn: Option<Turn>) -> Response<Body> {
    let (caller, _waiting) = Caller::new();
    let outcome = match takes {
        Takes::Moments => Ok(work(&app.root, &caller)),
        Takes::Time | Takes::Turns => {
            let root = app.root.clone();
            let work = spawn_blocking(move || {
                let _turn = turn;
                work(&root, &caller)
            });
            work.await
        }
    };
    match outcome {
        Ok(Ok(text)) => answer::json_text(StatusCode::OK, text),
        Ok(Err(error)) => reply::file(&error),
        Err(error) => reply::stuck(&error),
    }
}

/// A path member, as the REST paths are read: absolute ones may name the root directory.
fn locate(root: &Root, text: &str) -> Result<TreePath, FileError> {
    root.parse_absolute(text.as_ref())
}

/// What an operation answers.
fn told(value: &impl Serialize) -> Result<Bytes, FileError> {
    match serde_json::to_vec(value) {
        Ok(text) => Ok(text.into()),
        Err(error) => Err(FileError::System {
            context: "writing the answer",
            source: error.into(),
        }),
    }
}

/// What an operation without a result answers.
fn done() -> Result<Bytes, FileError> {
    told(&json!({}))
}

#[cfg(test)]
mod tests;
