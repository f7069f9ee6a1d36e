//! What a delete requires of the object, and what it leaves behind.
//!
//! Every delete names the UID it means, so that a successor of the same name is never hit.

use serde_json::{Value, json};

use crate::ident::{Revision, Uid};

/// What a delete requires of the object, and what becomes of its dependents.
#[derive(Clone, Copy, Debug)]
pub struct Delete {
    /// The object must have this UID.
    pub uid: Uid,
    /// The object must be at this revision, when given.
    pub revision: Option<Revision>,
    /// Wait for dependents.
    pub foreground: bool,
}

impl Delete {
    /// Deletes the object with this UID, whatever its revision.
    pub fn of(uid: Uid) -> Self {
        Self {
            uid,
            revision: None,
            foreground: false,
        }
    }

    /// Deletes the object only as it was seen.
    pub fn as_seen(uid: Uid, revision: Revision) -> Self {
        Self {
            revision: Some(revision),
            ..Self::of(uid)
        }
    }

    /// The body of the request.
    pub(super) fn to_value(self) -> Value {
        let mut preconditions = json!({"uid": self.uid.to_string()});
        if let (Some(revision), Some(members)) = (self.revision, preconditions.as_object_mut()) {
            members.insert("resourceVersion".to_owned(), revision.to_string().into());
        }
        json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": preconditions,
            "propagationPolicy": if self.foreground { "Foreground" } else { "Background" },
        })
    }
}

/// What a delete left behind.
#[derive(Clone, Debug)]
pub enum Deleted<T> {
    /// The object is gone.
    Gone,
    /// The object is still there, being deleted.
    Pending(Box<T>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletes_carry_their_preconditions() {
        let uid = Uid::parse("0b54b5a6-2d3f-4c61-9e0b-00ff10a0b0c0");
        assert_eq!(
            Delete::as_seen(uid, Revision(7)).to_value()["preconditions"],
            json!({"uid": uid.to_string(), "resourceVersion": "7"})
        );
        assert_eq!(
            Delete::of(uid).to_value()["propagationPolicy"],
            "Background"
        );
    }
}
