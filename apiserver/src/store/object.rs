//! The stored form of one object.
//!
//! Objects are kept as JSON text without the parts that vary per reader: `apiVersion`, `kind` and
//! `metadata.resourceVersion` go into a short head written at read time, everything else is the
//! shared tail. A read of any version and a watch event are therefore two copies, never a
//! serialisation, and the revision is not known before the commit. What selectors, garbage
//! collection and deletion look at is extracted once, when the draft is made.

use std::fmt;
use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::Revision;

/// Namespace (empty for cluster-scoped objects) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// `metadata.name`
    pub name: Arc<str>,
}

impl Key {
    /// A key from its parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// `metadata.uid` in sixteen bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(u128);

impl Uid {
    /// The UID with this number.
    pub const fn from_u128(number: u128) -> Self {
        Self(number)
    }

    /// Parses the canonical text form; other text was never issued here and names no object.
    pub fn parse(text: &str) -> Option<Self> {
        uuid::Uuid::try_parse(text)
            .ok()
            .filter(|uuid| text.len() == 36 && uuid.hyphenated().to_string() == text)
            .map(|uuid| Self(uuid.as_u128()))
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_u128(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One owner reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// `apiVersion` without the version.
    pub group: Box<str>,
    /// `kind`
    pub kind: Box<str>,
    /// `name`
    pub name: Box<str>,
    /// `uid`; `None` when it is no UID this server could have issued.
    pub uid: Option<Uid>,
    /// `blockOwnerDeletion`
    pub blocks: bool,
}

/// `metadata.labels`, sorted by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    fn new(map: Option<&Map<String, Value>>) -> Self {
        let mut pairs: Vec<(Box<str>, Box<str>)> = map
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into())))
            .collect();
        pairs.sort_unstable();
        Self(pairs.into())
    }

    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self
            .0
            .binary_search_by(|(candidate, _)| (**candidate).cmp(key))
            .ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }
}

/// Values of the resource's selectable fields, by selector name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(Box<[(Arc<str>, Box<str>)]>);

impl Fields {
    /// The value of a field; empty when absent.
    pub fn get(&self, label: &str) -> &str {
        self.0
            .iter()
            .find(|(candidate, _)| &**candidate == label)
            .map_or("", |(_, value)| value)
    }
}

impl FromIterator<(Arc<str>, String)> for Fields {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, String)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(label, value)| (label, value.into_boxed_str()))
                .collect(),
        )
    }
}

/// An object ready to be committed: everything but its revision.
#[derive(Debug, Clone)]
pub struct Draft {
    pub(super) key: Key,
    pub(super) uid: Option<Uid>,
    pub(super) labels: Labels,
    pub(super) fields: Fields,
    pub(super) owners: Box<[Owner]>,
    pub(super) finalizers: Box<[Box<str>]>,
    pub(super) deleting: bool,
    pub(super) tail: Bytes,
    /// Where `metadata` ends in the tail.
    pub(super) metadata: usize,
}

impl Draft {
    /// Encodes an object; `apiVersion`, `kind` and `metadata.resourceVersion` are left out.
    pub fn new(object: &Value, fields: Fields) -> Self {
        let metadata = object.get("metadata");
        let text = |field: &str| metadata.and_then(|m| m.get(field)).and_then(Value::as_str);
        let (tail, end) = encode(object);
        Self {
            key: Key::new(text("namespace").unwrap_or(""), text("name").unwrap_or("")),
            uid: text("uid").and_then(Uid::parse),
            labels: Labels::new(
                metadata
                    .and_then(|m| m.get("labels"))
                    .and_then(Value::as_object),
            ),
            fields,
            owners: owners(metadata),
            finalizers: metadata
                .and_then(|m| m.get("finalizers"))
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|name| name.as_str().map(Into::into))
                .collect(),
            deleting: text("deletionTimestamp").is_some(),
            tail: tail.into(),
            metadata: end,
        }
    }

    /// The key the draft will be stored under.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The object this draft would be at `revision`; revision 0 leaves `resourceVersion` out, as
    /// for an object that is not stored.
    pub fn at(self, revision: Revision) -> Object {
        Object {
            revision,
            content: self,
        }
    }
}

/// One stored object at one revision.
#[derive(Debug, Clone)]
pub struct Object {
    revision: Revision,
    content: Draft,
}

impl Object {
    /// `metadata.resourceVersion`
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Namespace and name.
    pub fn key(&self) -> &Key {
        &self.content.key
    }

    /// `metadata.namespace`, empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        &self.content.key.namespace
    }

    /// `metadata.name`
    pub fn name(&self) -> &str {
        &self.content.key.name
    }

    /// `metadata.uid`
    pub fn uid(&self) -> Option<Uid> {
        self.content.uid
    }

    /// `metadata.labels`
    pub fn labels(&self) -> &Labels {
        &self.content.labels
    }

    /// Selectable fields.
    pub fn fields(&self) -> &Fields {
        &self.content.fields
    }

    /// `metadata.ownerReferences`
    pub fn owners(&self) -> &[Owner] {
        &self.content.owners
    }

    /// Whether `metadata.finalizers` holds `name`.
    pub fn has_finalizer(&self, name: &str) -> bool {
        self.content
            .finalizers
            .iter()
            .any(|finalizer| &**finalizer == name)
    }

    /// Whether `metadata.deletionTimestamp` is set.
    pub fn is_deleting(&self) -> bool {
        self.content.deleting
    }

    /// Bytes the object's text occupies.
    pub fn size(&self) -> usize {
        self.content.tail.len()
    }

    /// The same object with another revision, as a deletion event shows it.
    #[must_use]
    pub fn at(&self, revision: Revision) -> Self {
        Self {
            revision,
            content: self.content.clone(),
        }
    }

    /// Appends the object as JSON text under this type.
    pub fn write(&self, api_version: &str, kind: &str, out: &mut Vec<u8>) {
        self.write_head(api_version, kind, out);
        out.extend_from_slice(self.tail_after_head());
    }

    /// Appends the object as JSON text without its type, which a list names once.
    pub fn write_untyped(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        self.write_metadata_head(out);
        out.extend_from_slice(self.tail_after_head());
    }

    /// Appends only the object's metadata, as a `PartialObjectMetadata`.
    pub fn write_metadata(&self, out: &mut Vec<u8>) {
        self.write_head("meta.k8s.io/v1", "PartialObjectMetadata", out);
        let skipped = self.content.tail.len() - self.tail_after_head().len();
        let end = self.content.metadata.saturating_sub(skipped);
        out.extend_from_slice(self.tail_after_head().get(..end).unwrap_or_default());
        out.push(b'}');
    }

    /// The object as a value under this type.
    pub fn value(&self, api_version: &str, kind: &str) -> Value {
        let mut text = Vec::with_capacity(self.content.tail.len() + 160);
        self.write(api_version, kind, &mut text);
        // The text was produced by the encoder below or checked when the journal was read.
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn write_head(&self, api_version: &str, kind: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"apiVersion\":");
        write_json(out, api_version);
        out.extend_from_slice(b",\"kind\":");
        write_json(out, kind);
        out.push(b',');
        self.write_metadata_head(out);
    }

    fn write_metadata_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"metadata\":{");
        if self.revision != Revision::ZERO {
            let outcome = write!(out, "\"resourceVersion\":\"{}\"", self.revision);
            debug_assert!(outcome.is_ok(), "writing to memory succeeds");
        }
    }

    fn tail_after_head(&self) -> &[u8] {
        // The tail continues after `resourceVersion` with a comma unless nothing follows.
        let skip = usize::from(
            self.revision == Revision::ZERO && self.content.tail.first() == Some(&b','),
        );
        self.content.tail.get(skip..).unwrap_or_default()
    }
}

/// The tail: the rest of `metadata` and every other member; and where `metadata` ends in it.
fn encode(object: &Value) -> (Vec<u8>, usize) {
    let mut out = Vec::with_capacity(1024);
    let metadata = object.get("metadata").and_then(Value::as_object);
    for (key, value) in metadata.into_iter().flatten() {
        if key != "resourceVersion" {
            member(&mut out, key, value);
        }
    }
    out.push(b'}');
    let end = out.len();
    for (key, value) in object.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            member(&mut out, key, value);
        }
    }
    out.push(b'}');
    out.shrink_to_fit();
    (out, end)
}

fn member(out: &mut Vec<u8>, key: &str, value: &Value) {
    out.push(b',');
    write_json(out, key);
    out.push(b':');
    write_json(out, value);
}

fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Neither strings nor `Value`s have a failing serialisation, and memory takes every byte.
    let outcome = serde_json::to_writer(out, value);
    debug_assert!(outcome.is_ok(), "values serialise");
}

fn owners(metadata: Option<&Value>) -> Box<[Owner]> {
    metadata
        .and_then(|m| m.get("ownerReferences"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|reference| {
            let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or("");
            Owner {
                group: text("apiVersion")
                    .rsplit_once('/')
                    .map_or("", |(group, _)| group)
                    .into(),
                kind: text("kind").into(),
                name: text("name").into(),
                uid: Uid::parse(text("uid")),
                blocks: reference.get("blockOwnerDeletion").and_then(Value::as_bool) == Some(true),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Value {
        json!({
            "apiVersion": "g/v1", "kind": "K",
            "metadata": {
                "name": "a", "resourceVersion": "3", "namespace": "n",
                "uid": "0b6ff3ac-3b53-4a37-9ea4-5f2f8d4c7a11",
                "labels": {"z": "1", "a": "2"},
                "finalizers": ["f/x"],
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "D", "name": "d",
                    "uid": "not-a-uid", "blockOwnerDeletion": true}],
            },
            "spec": {"text": "a\"b\u{1F600}", "n": 1.5}, "status": {},
        })
    }

    #[test]
    fn any_type_and_revision_can_be_put_in_front_of_the_tail() {
        let object = Draft::new(&sample(), Fields::default()).at(Revision::new(9));
        let mut expected = sample();
        expected["apiVersion"] = "g/v2".into();
        expected["metadata"]["resourceVersion"] = "9".into();
        assert_eq!(object.value("g/v2", "K"), expected);
    }

    #[test]
    fn an_unstored_object_has_no_resource_version() {
        let object = Draft::new(&sample(), Fields::default()).at(Revision::ZERO);
        let value = object.value("g/v1", "K");
        assert!(value["metadata"].get("resourceVersion").is_none());
        assert_eq!(value["spec"], sample()["spec"]);
        let mut out = Vec::new();
        object.write_metadata(&mut out);
        let partial: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(partial["metadata"]["name"], "a");
        assert!(partial.get("spec").is_none());
    }

    #[test]
    fn what_other_parts_look_at_is_extracted() {
        let object = Draft::new(&sample(), Fields::default()).at(Revision::new(1));
        assert_eq!(object.labels().get("a"), Some("2"));
        assert_eq!(object.labels().get("b"), None);
        assert!(object.has_finalizer("f/x") && !object.is_deleting());
        let owner = &object.owners()[0];
        assert_eq!(
            (&*owner.group, owner.uid, owner.blocks),
            ("apps", None, true)
        );
        assert_eq!(
            object.uid().unwrap().to_string(),
            "0b6ff3ac-3b53-4a37-9ea4-5f2f8d4c7a11"
        );
        let mut out = Vec::new();
        object.write_metadata(&mut out);
        let partial: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(partial["metadata"]["resourceVersion"], "1");
        assert_eq!(partial.as_object().unwrap().len(), 3);
    }

    #[test]
    fn only_canonical_uids_parse() {
        assert!(Uid::parse("0b6ff3ac-3b53-4a37-9ea4-5f2f8d4c7a11").is_some());
        for text in [
            "",
            "x",
            "0B6FF3AC-3B53-4A37-9EA4-5F2F8D4C7A11",
            "0b6ff3ac3b534a379ea45f2f8d4c7a11",
        ] {
            assert!(Uid::parse(text).is_none(), "{text}");
        }
    }
}
