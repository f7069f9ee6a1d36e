//! What lists and watches bring: pages, lines, and the revisions they reach.
//!
//! The watch loop reads both. An object that does not decode never hides the others of its page.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::unreadable;
use super::{ApiError, Result};
use crate::ident::Revision;

/// A page of a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
pub struct Page<T> {
    metadata: Metadata,
    /// The objects. Some servers write an empty list as null.
    #[serde(default = "Vec::new", deserialize_with = "null_as_empty")]
    pub items: Vec<T>,
}

impl<T> Page<T> {
    /// The revision of the whole list.
    ///
    /// # Errors
    /// When it is no integer.
    pub fn revision(&self) -> Result<Revision> {
        Revision::parse(&self.metadata.resource_version).map_err(|_| {
            ApiError::Unreadable(format!(
                "list resourceVersion {:?} is not an integer",
                self.metadata.resource_version
            ))
        })
    }

    /// The token of the next page.
    pub fn next(&self) -> Option<&str> {
        Some(self.metadata.next.as_str()).filter(|token| !token.is_empty())
    }
}

impl<T: DeserializeOwned> Page<T> {
    /// Reads what can be read of a page in which some object does not decode: one object must not hide
    /// all others.
    pub(super) fn salvage(body: &[u8], first: &serde_json::Error) -> Result<Self> {
        let raw: Page<Value> = serde_json::from_slice(body).map_err(|_| unreadable(first))?;
        let mut items = Vec::with_capacity(raw.items.len());
        for item in raw.items {
            let name = item.pointer("/metadata/name").cloned().unwrap_or_default();
            match serde_json::from_value(item) {
                Ok(item) => items.push(item),
                Err(error) => tracing::error!(%name, %error, "an object in a list was skipped"),
            }
        }
        Ok(Self {
            metadata: raw.metadata,
            items,
        })
    }
}

/// One line of a watch.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
pub enum WatchEvent<T> {
    /// The object appeared, or came to match the selector.
    Added(T),
    /// The object changed.
    Modified(T),
    /// The object is gone, or no longer matches the selector.
    Deleted(T),
    /// Nothing happened up to this revision.
    Bookmark(Bookmark),
    /// The watch failed.
    Error(Value),
}

/// The object of a bookmark event.
#[derive(Clone, Debug, Deserialize)]
pub struct Bookmark {
    metadata: Metadata,
}

impl Bookmark {
    /// The revision reached.
    pub fn revision(&self) -> Option<Revision> {
        Revision::parse(&self.metadata.resource_version).ok()
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

fn null_as_empty<'de, D, T>(deserializer: D) -> std::result::Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: DeserializeOwned,
{
    Option::<Vec<T>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watch_lines_and_pages_decode() {
        let event: WatchEvent<Value> = serde_json::from_str(
            r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"12"}}}"#,
        )
        .unwrap();
        assert!(matches!(event, WatchEvent::Bookmark(b) if b.revision() == Some(Revision(12))));
        let event: WatchEvent<Value> =
            serde_json::from_str(r#"{"object":{"code":410},"type":"ERROR"}"#).unwrap();
        assert!(matches!(event, WatchEvent::Error(_)));
        let page: Page<Value> =
            serde_json::from_str(r#"{"metadata":{"resourceVersion":"3"},"items":null}"#).unwrap();
        assert_eq!(page.revision().unwrap(), Revision(3));
        assert_eq!(page.next(), None);
        assert!(page.items.is_empty());
    }
}
