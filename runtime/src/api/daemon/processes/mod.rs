//! `/v1/processes`: commands that outlive the request that started them. They can be listed, followed
//! from any entry of their output, written to, attached to and left again, signalled and ended; the
//! commands of the other faces are among them while they run.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Method, Request, Response, StatusCode};
use axum::routing::any;
use serde_json::json;

use super::{files, is_read, method_not_allowed, reply};
use crate::api::{App, answer};
use crate::exec::{Process, ProcessId};

mod attach;
mod control;
mod output;
mod start;
mod state;

use self::state::describe;

/// Every route of the collection.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/processes", any(collection))
        .route("/v1/processes/{id}", any(one))
        .route("/v1/processes/{id}/output", any(output::output))
        .route("/v1/processes/{id}/attach", any(attach::attach))
        .route("/v1/processes/{id}/stdin", any(control::stdin))
        .route("/v1/processes/{id}/signal", any(control::signal))
        .route("/v1/processes/{id}/resize", any(control::resize))
}

async fn collection(State(app): State<App>, request: Request<Body>) -> Response<Body> {
    if is_read(request.method()) {
        let processes = app.processes.list();
        let processes: Vec<_> = processes.iter().map(|process| describe(process)).collect();
        return answer::json(StatusCode::OK, &json!({"processes": processes}));
    }
    if request.method() == Method::POST {
        return start::start(&app, request.into_body()).await;
    }
    method_not_allowed("GET, HEAD, POST")
}

async fn one(State(app): State<App>, Path(id): Path<String>, method: Method) -> Response<Body> {
    let process = match find(&app, &id) {
        Ok(process) => process,
        Err(refusal) => return refusal,
    };
    if is_read(&method) {
        return answer::json(StatusCode::OK, &describe(&process));
    }
    if method == Method::DELETE {
        // Whoever was faster has ended it just as well.
        app.processes.forget(process.id()).await;
        return files::no_content();
    }
    method_not_allowed("DELETE, GET, HEAD")
}

/// The process of a path, or the answer that there is none.
fn find(app: &App, id: &str) -> Result<Arc<Process>, Response<Body>> {
    id.parse()
        .ok()
        .and_then(|id| app.processes.get(ProcessId(id)))
        .ok_or_else(|| {
            let text = format!("there is no process {id:?}");
            reply::error(StatusCode::NOT_FOUND, "NOT_FOUND", text)
        })
}

/// What cannot be done to a process as it is.
fn conflict(text: impl AsRef<str>) -> Response<Body> {
    reply::error(StatusCode::CONFLICT, "CONFLICT", text)
}
