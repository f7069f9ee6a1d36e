//! Watches: a stream of events as newline-delimited JSON.
//!
//! A watch starts from a list (initial events) or from a revision, then delivers what the store
//! pushes, translated by the selectors: an object that stops matching is deleted for this watcher,
//! one that starts matching is added. It ends at its timeout, at shutdown, when its resource
//! changes, or when the client cannot keep up; clients start again from the last revision they saw.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::shutdown::Shutdown;
use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::Api;
use super::list::{Filter, ListOptions};
use super::metrics::WatchGuard;
use super::negotiate::{Accepted, Form};
use super::read::include_object;
use super::request::Query;
use super::respond;
use super::table::{self, IncludeObject};
use crate::ops::{Encoder, Engine, Target};
use crate::status::ApiError;
use crate::store::{Event, EventKind, Key, Object, Revision, RevisionError, Scope, Subscription};

/// Events that wait together are sent together, up to about this many bytes.
const CHUNK: usize = 64 << 10;
/// A bookmark this long before the end lets the client continue from close to it.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// Starts a watch.
pub(super) fn watch(
    api: &Api,
    target: &Target,
    query: &Query,
    accepted: Accepted,
) -> Result<Response<Body>, ApiError> {
    let options = ListOptions::parse(query, true)?;
    let filter = Filter::parse(query, target)?;
    let include = include_object(query)?;
    let resource = target.resource();
    let scope = scope(target, &filter);
    let store = &api.engine.store;
    let from_list = match options.initial_events {
        Some(initial) => initial,
        None => options
            .revision
            .is_none_or(|revision| revision == Revision::ZERO),
    };
    if let Some(requested) = options
        .revision
        .filter(|revision| *revision > store.revision())
    {
        let current = store.revision();
        return Err(ApiError::revision(&RevisionError::Future {
            requested,
            current,
        }));
    }
    let started = if from_list {
        store
            .list_and_subscribe(&resource, scope)
            .map(|(page, subscription)| (page.revision, page.objects.into(), subscription))
    } else {
        let after = match options
            .revision
            .filter(|revision| *revision != Revision::ZERO)
        {
            Some(revision) => revision,
            None => store.revision(),
        };
        store
            .subscribe(&resource, scope, after)
            .map(|subscription| (after, VecDeque::new(), subscription))
    };
    let (revision, initial, subscription) = match started {
        Ok(started) => started,
        Err(error @ RevisionError::Expired { .. }) => return Ok(expired(&error)),
        Err(error) => return Err(ApiError::revision(&error)),
    };
    let timeout = options
        .timeout
        .map_or(api.limits.watch, Duration::from_secs);
    let deadline = Instant::now() + timeout;
    let bookmarks = options.bookmarks.then(|| {
        let mut ticks = tokio::time::interval(api.limits.bookmarks);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        ticks
    });
    // The resource may have changed since the target was found: that is looked at first.
    let mut registry = api.engine.registry.changes();
    registry.mark_changed();
    let state = Watch {
        _counted: api
            .metrics
            .as_ref()
            .map(|metrics| metrics.watch(&target.descriptor.group, &target.descriptor.plural)),
        writer: Writer {
            encoder: Encoder::of(target),
            form: accepted.form,
            include,
            headers: true,
        },
        filter,
        initial,
        announce_end: (options.initial_events == Some(true)).then_some(revision),
        subscription,
        last: revision,
        bookmarks,
        deadline,
        last_bookmark: options
            .bookmarks
            .then(|| deadline - LAST_BOOKMARK.min(timeout)),
        registry,
        engine: api.engine.clone(),
        shutdown: api.shutdown.clone(),
        ended: false,
    };
    let stream = futures::stream::unfold(state, |mut state| async move {
        let chunk = state.next().await?;
        Some((Ok::<_, Infallible>(chunk), state))
    });
    Ok(respond::json_text(
        StatusCode::OK,
        Body::from_stream(stream),
    ))
}

/// The stream of a watch from a revision that is gone: one error event.
fn expired(error: &RevisionError) -> Response<Body> {
    let status = ApiError::revision(error).to_value();
    let line = format!("{}\n", json!({ "type": "ERROR", "object": status }));
    respond::json_text(StatusCode::OK, line)
}

/// The narrowest scope that covers what a watch can see.
fn scope(target: &Target, filter: &Filter) -> Scope {
    let name = if target.name.is_empty() {
        filter.name()
    } else {
        Some(target.name.as_str())
    };
    let cluster = !target.descriptor.is_namespaced();
    match name {
        Some(name) if cluster || !target.namespace.is_empty() => {
            Scope::Object(Key::new(&target.namespace, name))
        }
        _ if target.namespace.is_empty() => Scope::All,
        _ => Scope::Namespace(target.namespace.as_str().into()),
    }
}

/// A running watch.
struct Watch {
    _counted: Option<WatchGuard>,
    writer: Writer,
    filter: Filter,
    initial: VecDeque<Arc<Object>>,
    /// The revision of the initial list, while its end has to be announced.
    announce_end: Option<Revision>,
    subscription: Subscription,
    /// The last revision the client was told about.
    last: Revision,
    bookmarks: Option<Interval>,
    deadline: Instant,
    last_bookmark: Option<Instant>,
    registry: tokio::sync::watch::Receiver<u64>,
    engine: Engine,
    shutdown: Shutdown,
    /// Set when nothing follows what is written already.
    ended: bool,
}

impl Watch {
    /// The next piece of the stream; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        self.write_initial(&mut out);
        while out.is_empty() && !self.ended {
            let last_bookmark = self.last_bookmark;
            tokio::select! {
                biased;
                () = self.shutdown.triggered() => return None,
                () = tokio::time::sleep_until(self.deadline) => return None,
                changed = self.registry.changed() => {
                    self.ended = changed.is_err() || !self.is_current();
                    // What happened before the change still belongs to this watch.
                    while self.ended && let Some(event) = self.subscription.try_next() {
                        self.write_event(&event, &mut out);
                    }
                }
                event = self.subscription.next() => {
                    let event = event?;
                    self.write_event(&event, &mut out);
                    while out.len() < CHUNK && let Some(event) = self.subscription.try_next() {
                        self.write_event(&event, &mut out);
                    }
                }
                () = tick(self.bookmarks.as_mut()) => self.write_bookmark(&mut out),
                () = sleep_until(last_bookmark) => {
                    self.last_bookmark = None;
                    self.write_bookmark(&mut out);
                }
            }
        }
        (!out.is_empty()).then(|| out.into())
    }

    fn write_initial(&mut self, out: &mut Vec<u8>) {
        while out.len() < CHUNK
            && let Some(object) = self.initial.pop_front()
        {
            if self.filter.accepts(&object) {
                self.writer
                    .event("ADDED", &object, self.engine.clock.now(), out);
            }
        }
        if self.initial.is_empty()
            && let Some(revision) = self.announce_end.take()
        {
            let annotations = json!({ "k8s.io/initial-events-end": "true" });
            self.writer.bookmark(revision, Some(&annotations), out);
        }
    }

    fn write_event(&mut self, event: &Event, out: &mut Vec<u8>) {
        self.last = event.revision();
        let before = event
            .previous
            .as_ref()
            .filter(|object| self.filter.accepts(object));
        let after = (event.kind != EventKind::Deleted && self.filter.accepts(&event.object))
            .then_some(&event.object);
        let now = self.engine.clock.now();
        match (before, after) {
            (None, Some(object)) => self.writer.event("ADDED", object, now, out),
            (Some(_), Some(object)) => self.writer.event("MODIFIED", object, now, out),
            (Some(_), None) if event.kind == EventKind::Deleted => {
                self.writer.event("DELETED", &event.object, now, out);
            }
            // The watcher is shown the last state it knew, at the revision where it ended.
            (Some(before), None) => {
                let left = before.at(event.revision());
                self.writer.event("DELETED", &left, now, out);
            }
            (None, None) => {}
        }
    }

    /// Tells the client how far it is, once everything up to there has been sent.
    fn write_bookmark(&mut self, out: &mut Vec<u8>) {
        if let Some(revision) = self.subscription.caught_up() {
            self.last = self.last.max(revision);
        }
        self.writer.bookmark(self.last, None, out);
    }

    /// Whether the version is still served as it was when the watch began.
    fn is_current(&self) -> bool {
        let encoder = &self.writer.encoder;
        let descriptor = encoder.descriptor();
        self.engine
            .registry
            .snapshot()
            .resource(&descriptor.group, &descriptor.plural)
            .and_then(|current| current.served(&encoder.version().name))
            .is_some_and(|current| Arc::ptr_eq(current, encoder.version()))
    }
}

/// Completes at the next tick; never without an interval.
async fn tick(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Completes at an instant; never without one.
async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Writes events in the accepted form.
struct Writer {
    encoder: Encoder,
    form: Form,
    include: IncludeObject,
    /// Whether the next table carries its column definitions.
    headers: bool,
}

impl Writer {
    fn event(&mut self, kind: &str, object: &Object, now: Timestamp, out: &mut Vec<u8>) {
        open(kind, out);
        match self.form {
            Form::Object => self.encoder.write(object, out),
            Form::Partial => object.write_metadata(out),
            Form::Table => {
                let metadata = json!({ "resourceVersion": object.revision().to_string() });
                let rows = [self.encoder.value(object)];
                let table = self.table(&rows, &metadata, now);
                out.extend_from_slice(table.to_string().as_bytes());
            }
        }
        close(out);
    }

    fn bookmark(&mut self, revision: Revision, annotations: Option<&Value>, out: &mut Vec<u8>) {
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if let (Value::Object(metadata), Some(annotations)) = (&mut metadata, annotations) {
            metadata.insert("annotations".to_owned(), annotations.clone());
        }
        let object = match self.form {
            Form::Object => json!({
                "kind": self.encoder.descriptor().kind,
                "apiVersion": self.encoder.api_version(),
                "metadata": metadata,
            }),
            Form::Partial => json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
            }),
            Form::Table => {
                let headers = self.headers;
                let table = self.table(&[], &metadata, Timestamp::UNIX_EPOCH);
                self.headers = headers;
                table
            }
        };
        open("BOOKMARK", out);
        out.extend_from_slice(object.to_string().as_bytes());
        close(out);
    }

    fn table(&mut self, rows: &[Value], metadata: &Value, now: Timestamp) -> Value {
        let headers = std::mem::take(&mut self.headers);
        let (descriptor, version) = (self.encoder.descriptor(), self.encoder.version());
        table::render(
            descriptor,
            version,
            rows,
            metadata,
            self.include,
            headers,
            now,
        )
    }
}

fn open(kind: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
}

fn close(out: &mut Vec<u8>) {
    out.extend_from_slice(b"}\n");
}
