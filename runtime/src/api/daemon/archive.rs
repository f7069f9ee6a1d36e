//! `GET`, `HEAD` and `PUT` of `/v1/archive/{path}`: directories as tar archives.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::http::{Method, Response, StatusCode, Uri};
use axum::routing::any;
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::spawn_blocking;

use super::files::path;
use super::{is_read, method_not_allowed, reply};
use crate::api::{App, answer, body, stall};
use crate::files::{Caller, FileError, Packing, UnpackError};

const ARCHIVE: &str = "/v1/archive";
/// Each holds a thread for as long as its client takes.
const MAX_TRANSFERS: usize = 64;
/// Pieces between the network and the disk.
const PIECES: usize = 4;

/// How many archives are on their way.
#[derive(Clone, Debug)]
struct Transfers(Arc<Semaphore>);

/// The routes of archives.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/archive", any(archive))
        .route("/v1/archive/", any(archive))
        .route("/v1/archive/{*path}", any(archive))
        .layer(Extension(Transfers(Arc::new(Semaphore::new(
            MAX_TRANSFERS,
        )))))
}

async fn archive(
    State(app): State<App>,
    Extension(Transfers(transfers)): Extension<Transfers>,
    request: Request,
) -> Response<Body> {
    let read = is_read(request.method());
    if !read && request.method() != Method::PUT {
        body::drain(&mut request.into_body().into_data_stream()).await;
        return method_not_allowed("GET, HEAD, PUT");
    }
    let Ok(permit) = transfers.try_acquire_owned() else {
        return busy();
    };
    if read {
        let (head, _) = request.into_parts();
        pack(&app, &head.method, &head.uri, permit).await
    } else {
        unpack(&app, request, permit).await
    }
}

fn busy() -> Response<Body> {
    let mut response = reply::error(
        StatusCode::SERVICE_UNAVAILABLE,
        "UNAVAILABLE",
        format!("{MAX_TRANSFERS} archives are on their way already; try again later"),
    );
    let later = HeaderValue::from_static("1");
    response.headers_mut().insert(RETRY_AFTER, later);
    response
}

async fn pack(
    app: &App,
    method: &Method,
    uri: &Uri,
    permit: OwnedSemaphorePermit,
) -> Response<Body> {
    let path = match path(app, uri, ARCHIVE) {
        Ok((path, _)) => path,
        Err(error) => return reply::file(&error),
    };
    let root = app.root.clone();
    let packing = match spawn_blocking(move || root.pack(&path)).await {
        Ok(Ok(packing)) => packing,
        Ok(Err(error)) => return reply::file(&error),
        Err(error) => return reply::stuck(&error),
    };
    let mut response = Response::new(Body::empty());
    let kind = HeaderValue::from_static("application/x-tar");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    if method == Method::GET {
        *response.body_mut() = stream_of(packing, permit);
    }
    response
}

/// The client's pace is the disk's: the thread waits while the client does not read, and ends when it
/// goes away. What fails on the way breaks the connection, so that the client knows.
fn stream_of(packing: Packing, permit: OwnedSemaphorePermit) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    spawn_blocking(move || {
        let _permit = permit;
        let take = |bytes| {
            let sent = sender.blocking_send(Ok(bytes));
            sent.map_err(|_| FileError::Cancelled)
        };
        if let Err(error) = packing.run(take, &Caller::default()) {
            let text = reply::text(&error);
            tracing::warn!(error = text, "an archive was broken off");
            // There may be nobody left to tell.
            drop(sender.blocking_send(Err(io::Error::other(text))));
        }
    });
    Body::from_stream(stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    }))
}

async fn unpack(app: &App, request: Request, permit: OwnedSemaphorePermit) -> Response<Body> {
    let path = path(app, request.uri(), ARCHIVE);
    let mut body = request.into_body().into_data_stream();
    let path = match path {
        Ok((path, _)) => path,
        Err(error) => {
            body::drain(&mut body).await;
            return reply::file(&error);
        }
    };
    let (caller, _waiting) = Caller::new();
    let (sender, mut receiver) = mpsc::channel(PIECES);
    let (root, limit) = (app.root.clone(), app.config.max_upload_bytes);
    let work = spawn_blocking(move || {
        let _permit = permit;
        let pieces = std::iter::from_fn(|| receiver.blocking_recv());
        root.unpack(&path, pieces, limit, &caller)
    });
    let mut stalled = false;
    while let Some(piece) = body.next().await {
        if let Err(error) = &piece {
            stalled = stall::cause(error).is_some();
        }
        let piece = piece.map_err(io::Error::other);
        let broken = piece.is_err();
        // When the work is done or has failed, the rest of the body says nothing more.
        if sender.send(piece).await.is_err() || broken {
            body::drain(&mut body).await;
            break;
        }
    }
    drop(sender);
    match work.await {
        Ok(Ok(stored)) => {
            app.metrics.uploaded(stored.bytes);
            answer::json(
                StatusCode::OK,
                &json!({
                    "files": stored.files,
                    "directories": stored.directories,
                    "links": stored.links,
                    "bytes": stored.bytes,
                }),
            )
        }
        Ok(Err(error)) if stalled => reply::stalled(words(&error)),
        Ok(Err(error)) => reply::file_with(&error.source, &words(&error)),
        Err(error) => reply::stuck(&error),
    }
}

fn words(error: &UnpackError) -> String {
    match &error.source {
        FileError::System { source, .. } => format!("{source}: {error}"),
        _ => error.to_string(),
    }
}
