//! Calls about one object after which the store knows what came of them, so that whoever made one goes on
//! with the world as it is and not as the watch will tell of it. The `act` files use them and say what a
//! refusal means; nothing here decides anything.

use serde_json::Value;

use crate::api::{self, Delete, Deleted, Fields, Part, Resource};
use crate::context::Context;
use crate::ident::Key;
use crate::store::{Stored, Work};

impl Context {
    /// Tells the store what a call returned. What cannot be stored arrives through the watch.
    pub fn learn<R: Stored>(&self, by: Option<&Work>, wire: R::Wire) {
        if let Err(error) = self.store.assume::<R>(wire, by) {
            tracing::debug!(%error, "what a call returned was not stored");
        }
    }

    /// Creates an object, with strict field validation.
    ///
    /// # Errors
    /// When it was not created, or nobody knows; the store is as it was then.
    pub async fn create<R: Stored>(
        &self,
        by: &Work,
        resource: &'static Resource,
        namespace: &str,
        object: &Value,
    ) -> api::Result<()> {
        let created = self.api.create(resource, namespace, object, Fields::Strict);
        self.learn::<R>(Some(by), created.await?);
        Ok(())
    }

    /// Patches an object.
    ///
    /// # Errors
    /// When it was not patched, or nobody knows; the store is as it was then.
    pub async fn patch<R: Stored>(
        &self,
        by: &Work,
        resource: &'static Resource,
        key: &Key,
        part: Part,
        patch: &Value,
    ) -> api::Result<()> {
        let patched = self.api.patch(resource, key, part, patch);
        self.learn::<R>(Some(by), patched.await?);
        Ok(())
    }

    /// Deletes an object. Whether it is gone or on its way out is for the store to say.
    ///
    /// # Errors
    /// When it was not deleted, or nobody knows; the store is as it was then.
    pub async fn delete<R: Stored>(
        &self,
        by: &Work,
        resource: &'static Resource,
        key: &Key,
        delete: Delete,
    ) -> api::Result<()> {
        let uid = delete.uid;
        match self.api.delete::<R::Wire>(resource, key, delete).await? {
            Deleted::Gone => self.store.assume_deleted::<R>(key, uid, Some(by)),
            Deleted::Pending(wire) => self.learn::<R>(Some(by), *wire),
        }
        Ok(())
    }
}
