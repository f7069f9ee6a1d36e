//! What must outlive an answer's handler: it stays until the body has been sent, or nobody wants it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{Extensions, Response};
use http_body::{Frame, SizeHint};

use crate::exec::Held;

/// Keeps `held` with the answer that these extensions are of, until [`with_body`] sees it.
pub(crate) fn until_sent(extensions: &mut Extensions, held: Held) {
    if !held.is_nothing() {
        extensions.insert(Arc::new(held));
    }
}

/// Moves what was kept with an answer into its body, which goes when it has been sent.
pub(crate) fn with_body(mut response: Response<Body>) -> Response<Body> {
    match response.extensions_mut().remove::<Arc<Held>>() {
        Some(held) => response.map(|body| Body::new(Holding { body, _held: held })),
        None => response,
    }
}

struct Holding {
    body: Body,
    _held: Arc<Held>,
}

impl http_body::Body for Holding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
