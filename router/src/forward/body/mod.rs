//! Bodies on their way through: counted, limited and watched, never collected.
//!
//! A [`ClientBody`] goes to the sandbox as a [`RequestBody`]; a [`ResponseBody`] goes to the client as
//! an [`Answer`], as do bodies that the router makes itself. Frames pass as they are,
//! trailers included; back-pressure passes because a body is only polled when the other side can
//! take more.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::Body as RouterBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

pub(crate) use self::request::{ClientBody, RequestBody, RequestBodyError};
pub(crate) use self::response::{Limits, ResponseBody, Source};

mod request;
mod response;

/// A response body as it goes to the client.
pub(crate) enum Answer {
    /// The sandbox's.
    Sandbox(ResponseBody),
    /// The router's own.
    Router(RouterBody),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Sandbox(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Router(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Sandbox(body) => body.is_end_stream(),
            Self::Router(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Sandbox(body) => body.size_hint(),
            Self::Router(body) => body.size_hint(),
        }
    }
}
