//! Asking the API server itself before saying that something is not there. Watches of different kinds
//! run apart: an object created first may be seen last, and "not found" would be told of what exists.
//! Only reads; reconcilers call it where an absence is about to be reported.

use crate::api::Resource;
use crate::context::Context;
use crate::error::Fault;
use crate::ident::Key;
use crate::store::{Stored, Work};

/// Whether an object exists; if so the store knows it from now on.
///
/// # Errors
/// When the API server does not answer; whether the object exists is unknown then.
pub async fn exists<R: Stored>(
    cx: &Context,
    by: &Work,
    resource: &'static Resource,
    key: &Key,
) -> Result<bool, Fault> {
    match cx.api.get::<R::Wire>(resource, key).await {
        Ok(Some(wire)) => {
            cx.learn::<R>(Some(by), wire);
            Ok(true)
        }
        Ok(None) => Ok(false),
        Err(error) => Err(Fault::of(
            &format!("reading {} {:?}", R::KIND, &*key.name),
            &error,
        )),
    }
}
