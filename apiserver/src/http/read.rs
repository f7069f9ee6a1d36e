//! GET of one object and of a collection.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Api;
use super::list::{Filter, ListOptions, Token, list_metadata};
use super::negotiate::{Accepted, Encoding, Form};
use super::request::Query;
use super::respond;
use super::table::{self, IncludeObject};
use crate::ops::{Encoder, Target};
use crate::status::ApiError;
use crate::store::{ListQuery, Object, Page, RevisionError};

/// Lists are written in chunks of about this many bytes, so that a large one is never held twice.
const CHUNK: usize = 64 << 10;

/// One object.
pub(super) fn get(
    api: &Api,
    target: &Target,
    query: &Query,
    accepted: Accepted,
) -> Result<Response<Body>, ApiError> {
    let options = ListOptions::parse(query, false)?;
    let (_, least) = options.snapshot()?;
    if let Some(requested) = least.filter(|least| *least > api.engine.store.revision()) {
        let current = api.engine.store.revision();
        return Err(ApiError::revision(&RevisionError::Future {
            requested,
            current,
        }));
    }
    let object = api.engine.read(target)?;
    let encoder = Encoder::of(target);
    let include = include_object(query)?;
    let now = api.engine.clock.now();
    Ok(respond::object(
        StatusCode::OK,
        accepted,
        &encoder,
        &object,
        include,
        now,
    ))
}

/// A collection.
pub(super) fn list(
    api: &Api,
    target: &Target,
    query: &Query,
    accepted: Accepted,
) -> Result<Response<Body>, ApiError> {
    let options = ListOptions::parse(query, false)?;
    let filter = Filter::parse(query, target)?;
    let page = page(api, target, &options, &filter)?;
    let token = page
        .objects
        .last()
        .filter(|_| page.remaining > 0)
        .map(|last| Token {
            revision: Some(page.revision),
            after: last.key().clone(),
        });
    // The count is only exact, and only given, when nothing is filtered.
    let remaining = filter.is_empty().then_some(page.remaining);
    let metadata = list_metadata(page.revision, token.as_ref(), remaining);
    let include = include_object(query)?;
    Ok(answer(
        target,
        accepted,
        include,
        page.objects,
        &metadata,
        api.engine.clock.now(),
    ))
}

/// The page of a collection that the options ask for.
fn page(
    api: &Api,
    target: &Target,
    options: &ListOptions,
    filter: &Filter,
) -> Result<Page, ApiError> {
    let store = &api.engine.store;
    let (exact, least) = options.snapshot()?;
    let query = ListQuery {
        namespace: (!target.namespace.is_empty()).then_some(target.namespace.as_str()),
        revision: exact,
        after: options.token.as_ref().map(|token| &token.after),
    };
    let page = store
        .list(&target.resource(), query, options.limit, |object| {
            filter.accepts(object)
        })
        .map_err(|error| match (&error, &options.token) {
            (RevisionError::Expired { .. }, Some(token)) => {
                let fresh = Token {
                    revision: None,
                    after: token.after.clone(),
                };
                ApiError::continue_expired(fresh.encode())
            }
            _ => ApiError::revision(&error),
        })?;
    match least {
        Some(requested) if requested > page.revision => {
            let current = page.revision;
            Err(ApiError::revision(&RevisionError::Future {
                requested,
                current,
            }))
        }
        _ => Ok(page),
    }
}

/// The objects of a collection that a deletion of it covers.
pub(super) fn selected(api: &Api, target: &Target, query: &Query) -> Result<Page, ApiError> {
    let options = ListOptions::parse(query, false)?;
    let filter = Filter::parse(query, target)?;
    page(api, target, &options, &filter)
}

/// A collection in the accepted form.
pub(super) fn answer(
    target: &Target,
    accepted: Accepted,
    include: IncludeObject,
    objects: Vec<Arc<Object>>,
    metadata: &Value,
    now: Timestamp,
) -> Response<Body> {
    let encoder = Encoder::of(target);
    let (kind, api_version) = match accepted.form {
        Form::Object => (target.descriptor.list_kind.as_str(), encoder.api_version()),
        Form::Partial => ("PartialObjectMetadataList", "meta.k8s.io/v1"),
        Form::Table => {
            let rows: Vec<Value> = objects.iter().map(|object| encoder.value(object)).collect();
            let (descriptor, version) = (encoder.descriptor(), encoder.version());
            let table = table::render(descriptor, version, &rows, metadata, include, true, now);
            return respond::value(StatusCode::OK, accepted, &table);
        }
    };
    if accepted.encoding == Encoding::Yaml {
        let items: Vec<Value> = objects.iter().map(|object| encoder.item(object)).collect();
        let list =
            json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items});
        return respond::value(StatusCode::OK, accepted, &list);
    }
    let (kind, api_version) = (json!(kind), json!(api_version));
    let head = format!(
        "{{\"kind\":{kind},\"apiVersion\":{api_version},\"metadata\":{metadata},\"items\":["
    );
    let chunks = Chunks {
        text: head.into_bytes(),
        objects: objects.into_iter(),
        encoder,
        form: accepted.form,
        first: true,
        done: false,
    };
    let mut chunks = chunks.peekable();
    // A list that fits one chunk gets a length instead of chunked encoding.
    let first = chunks.next().unwrap_or_default();
    let body = if chunks.peek().is_none() {
        Body::from(first)
    } else {
        let all = std::iter::once(first).chain(chunks);
        Body::from_stream(futures::stream::iter(all.map(Ok::<_, Infallible>)))
    };
    respond::json_text(StatusCode::OK, body)
}

/// What the rows of a table carry.
pub(super) fn include_object(query: &Query) -> Result<IncludeObject, ApiError> {
    match query.get("includeObject") {
        None | Some("Metadata") => Ok(IncludeObject::Metadata),
        Some("None") => Ok(IncludeObject::None),
        Some("Object") => Ok(IncludeObject::Object),
        Some(other) => Err(ApiError::bad_request(format!(
            "includeObject: expected None, Metadata or Object, not \"{other}\""
        ))),
    }
}

/// A list's JSON text, piece by piece.
struct Chunks {
    text: Vec<u8>,
    objects: std::vec::IntoIter<Arc<Object>>,
    encoder: Encoder,
    form: Form,
    first: bool,
    done: bool,
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut text = std::mem::take(&mut self.text);
        for object in self.objects.by_ref() {
            if !std::mem::take(&mut self.first) {
                text.push(b',');
            }
            match self.form {
                Form::Partial => object.write_metadata(&mut text),
                Form::Object | Form::Table => self.encoder.write_item(&object, &mut text),
            }
            if text.len() >= CHUNK {
                return Some(text.into());
            }
        }
        self.done = true;
        text.extend_from_slice(b"]}");
        Some(text.into())
    }
}
