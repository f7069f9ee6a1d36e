//! Per-kind hooks: what a descriptor's data cannot express.
//!
//! The write path calls the hooks of a resource in a fixed order: `prepare_*`, schema, `validate`.
//! Hooks are pure over their arguments and must not touch the store except through [`Context`].

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::schema::FieldError;

/// What a hook may know about the request it runs in.
#[derive(Debug)]
pub struct Context<'a> {
    /// The request's time.
    pub now: Timestamp,
    /// Namespace of the object, empty for cluster-scoped ones.
    pub namespace: &'a str,
    /// Name of the object.
    pub name: &'a str,
}

/// How a DELETE without pending finalizers proceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The object goes at once.
    Now,
    /// `deletionTimestamp` is set this many seconds ahead and somebody else finishes the job.
    Graceful {
        /// The grace period.
        seconds: i64,
    },
}

/// Hooks of one resource. Every method has the behaviour of a plain custom resource by default.
pub trait Strategy: fmt::Debug + Send + Sync {
    /// Completes an object before it is created.
    fn prepare_create(&self, _ctx: &Context<'_>, _object: &mut Value) {}

    /// Completes an object before it replaces `old`.
    fn prepare_update(&self, _ctx: &Context<'_>, _new: &mut Value, _old: &Value) {}

    /// Checks beyond the schema.
    fn validate(&self, _ctx: &Context<'_>, _new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        Vec::new()
    }

    /// Texts for `Warning` headers.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// How a deletion proceeds; `requested` is the client's grace period.
    fn deletion(&self, _object: &Value, _requested: Option<i64>) -> Deletion {
        Deletion::Now
    }

    /// Rewrites an object of this view into the stored resource's form.
    fn stored_form(&self, object: Value) -> Value {
        object
    }

    /// Rewrites a stored object into this view's form.
    fn view_form(&self, object: Value) -> Value {
        object
    }
}

/// A resource without hooks.
#[derive(Debug)]
struct Plain;

impl Strategy for Plain {}

/// The hooks of a built-in resource; plain ones when it has none.
pub fn strategy_for(_group: &str, _plural: &str) -> Arc<dyn Strategy> {
    Arc::new(Plain)
}
