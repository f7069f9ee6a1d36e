//! `/v1/fs/{operation}`: what can be done to files besides reading and storing them.
//!
//! Every operation takes a JSON object and answers with one. What takes time runs on a thread of its own
//! and ends when the client goes away.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::members::{Members, Refused};
use super::{method_not_allowed, not_found, reply};
use crate::api::{App, answer, body};
use crate::files::{Caller, FileError, Root, TreePath};

mod content;
mod tree;

/// Work that was asked for, ready to run.
type Work = Box<dyn FnOnce(&Root, &Caller) -> Result<Value, FileError> + Send>;
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
}

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
        takes: Takes::Time,
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
        takes: Takes::Time,
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
        takes: Takes::Time,
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
        takes: Takes::Time,
    },
];

pub(super) async fn operation(
    State(app): State<App>,
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
    match operation.prepare(members) {
        Ok(work) => run(&app, work, operation.takes).await,
        Err(refused) => refused.answer(),
    }
}

impl Operation {
    fn prepare(&self, mut members: Members) -> Result<Work, Refused> {
        let work = (self.parse)(&mut members)?;
        members.finish(self.members)?;
        Ok(work)
    }
}

async fn run(app: &App, work: Work, takes: Takes) -> Response<Body> {
    let (caller, _waiting) = Caller::new();
    let outcome = match takes {
        Takes::Moments => Ok(work(&app.root, &caller)),
        Takes::Time => {
            let root = app.root.clone();
            spawn_blocking(move || work(&root, &caller)).await
        }
    };
    match outcome {
        Ok(Ok(value)) => answer::json(StatusCode::OK, &value),
        Ok(Err(error)) => reply::file(&error),
        Err(error) => reply::stuck(&error),
    }
}

/// A path member, as the REST paths are read: absolute ones may name the root directory.
fn locate(root: &Root, text: &str) -> Result<TreePath, FileError> {
    root.parse_absolute(text.as_ref())
}

/// What an operation without a result answers.
fn done() -> Value {
    json!({})
}
