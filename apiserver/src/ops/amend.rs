//! Small changes that the server makes by itself: finalizers, owner references, conditions.
//!
//! They work on the stored form and skip schemas and hooks, so that an object which has become
//! invalid can still be cleaned up. Never reachable from a request.

use std::sync::Arc;

use serde_json::Value;

use super::{Engine, MAX_RACES, Target, delete, view};
use crate::registry::Descriptor;
use crate::status::ApiError;
use crate::store::{Change, CommitError, Draft, Object, Uid};

impl Engine {
    /// Changes an object in place, and removes it if that releases its last hold. Does nothing when
    /// the object is gone, has another UID than `uid`, or `change` leaves it as it is.
    pub(crate) fn amend(
        &self,
        descriptor: &Arc<Descriptor>,
        namespace: &str,
        name: &str,
        uid: Option<Uid>,
        change: impl Fn(&mut Value),
    ) -> Result<(), ApiError> {
        let target = Target::stored(descriptor, namespace, name)?;
        for _ in 0..MAX_RACES {
            let Ok(stored) = self.read(&target) else {
                return Ok(());
            };
            if uid.is_some() && stored.uid() != uid {
                return Ok(());
            }
            let old = stored.value(&target.api_version(), target.kind());
            let mut new = old.clone();
            change(&mut new);
            let outcome = if delete::is_finished(descriptor, &new) {
                self.remove(&target, &stored, false)
            } else if new == old {
                return Ok(());
            } else {
                let draft = Draft::new(&new, view::fields(descriptor, &new));
                self.swap(&target, &stored, draft, false)
            };
            match outcome {
                Ok(_) | Err(CommitError::Missing) => return Ok(()),
                Err(CommitError::Stale { .. }) => {}
                Err(other) => return Err(ApiError::internal(&other.to_string())),
            }
        }
        Err(target.conflict())
    }

    /// Removes a stored object as it is, unless it changed since it was read.
    pub(crate) fn expire(&self, resource: &str, object: &Object) {
        let change = Change::Delete {
            key: object.key().clone(),
            expected: object.revision(),
        };
        if let Err(error) = self.store.commit(resource, change, None) {
            tracing::debug!(resource, name = object.name(), %error, "not expired");
        }
    }

    /// Brings stored objects of a resource into the form its current schema gives them, without a
    /// new revision: defaults apply and unknown fields vanish on read, as after reading from a disk.
    pub(crate) fn renormalise(&self, descriptor: &Arc<Descriptor>) {
        let Some(storage) = descriptor.storage() else {
            return;
        };
        let api_version = descriptor.api_version(&storage.name);
        self.store.rewrite(&descriptor.qualified(), |object| {
            let old = object.value(&api_version, &descriptor.kind);
            let mut new = old.clone();
            crate::schema::prune(&storage.schema, &mut new);
            crate::schema::apply_defaults(&storage.schema, &mut new);
            let fields = view::fields(descriptor, &new);
            (new != old || fields != *object.fields()).then(|| Draft::new(&new, fields))
        });
    }
}
