//! A model of the API server, small enough to be obviously right: one revision counter, objects as
//! JSON, a log that watches read from, merge patches, preconditions, generations, finalizers and
//! garbage collection. The operator's tests and its simulation each put their own front before it,
//! which decides when calls arrive, what they answer and when watches speak; what a call does to the
//! objects is decided here.

mod request;
mod state;

pub(crate) use self::request::{Body, Request, failure, respond};
#[allow(unused_imports, reason = "each front uses a part of it")]
pub(crate) use self::state::{Answer, Entry, FOREGROUND, Failure, Id, State, is_deleting};
