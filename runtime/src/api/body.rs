//! Reading request bodies: small ones whole within a limit, refused ones to their end.

use axum::body::{Body, BodyDataStream, Bytes};
use futures::StreamExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::stall::{self, Stalled};

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("The request body is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    #[error(transparent)]
    Stalled(Stalled),
    #[error("There was an error parsing the body")]
    Broken,
}

/// Reads and forgets what is left. Clients send a body whole before they look for an answer; cutting them
/// off would cost them the answer.
pub(crate) async fn drain(body: &mut BodyDataStream) {
    while let Some(Ok(_)) = body.next().await {}
}

/// The whole body, if it is not larger than `limit` bytes.
///
/// # Errors
/// See [`BodyError`].
pub(crate) async fn read(body: Body, limit: usize) -> Result<Bytes, BodyError> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge { limit }),
        Err(error) => Err(match stall::cause(&*error) {
            Some(stalled) => BodyError::Stalled(stalled),
            None => BodyError::Broken,
        }),
    }
}
