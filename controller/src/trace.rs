//! Spans of the operator's work. A claim's trace begins with its client, whose context travels in an
//! annotation: from the claim to its sandbox, and from there into the passes over both. Without an
//! exporter nothing is measured, allocated or written.

use std::time::SystemTime;

use agent_sandbox_service::otlp::{self, Exporter, SpanContext, SpanEvent, SpanId, SpanKind};
use serde::Deserialize;

use crate::ident::{Key, Text};

/// Where spans go, if anywhere. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Tracer {
    exporter: Option<Exporter>,
}

/// What an object says about the work on it.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The annotation with the trace's context.
    pub context: Option<Text>,
    /// The client that asked for the object, normalised.
    pub creator: Option<&'static str>,
}

/// The annotation's content: headers of W3C trace context, as JSON.
#[derive(Deserialize)]
struct Carrier<'a> {
    #[serde(borrow)]
    traceparent: std::borrow::Cow<'a, str>,
}

/// A piece of work that is being traced, unless tracing is off. It ends when it is dropped.
#[derive(Debug)]
pub struct Span(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    exporter: Exporter,
    context: SpanContext,
    parent: Option<SpanId>,
    name: &'static str,
    start: SystemTime,
    texts: Vec<(&'static str, String)>,
    events: Vec<SpanEvent>,
    error: Option<&'static str>,
}

impl Tracer {
    /// Sends spans to `exporter`.
    pub fn to(exporter: Exporter) -> Self {
        Self {
            exporter: Some(exporter),
        }
    }

    /// Begins a pass over an object, below the context that it carries. A context that cannot be read
    /// is reported and left out.
    pub fn pass(&self, name: &'static str, key: &Key, about: impl FnOnce() -> About) -> Span {
        let Some(exporter) = &self.exporter else {
            return Span(None);
        };
        let About { context, creator } = about();
        let parent = context.and_then(|text| {
            let parent = parse(&text);
            if parent.is_none() {
                tracing::info!(
                    object = %key,
                    %text,
                    "no trace context: expected JSON with a traceparent"
                );
            }
            parent
        });
        let mut span = Span::begin(exporter, parent, name);
        span.text("k8s.namespace.name", || key.namespace.to_string());
        span.text("k8s.object.name", || key.name.to_string());
        if let Some(creator) = creator {
            span.text("agent_sandbox.created_by", || creator.to_owned());
        }
        span
    }
}

/// Reads the annotation.
fn parse(text: &str) -> Option<SpanContext> {
    let carrier: Carrier<'_> = serde_json::from_str(text).ok()?;
    SpanContext::parse(&carrier.traceparent)
}

impl Span {
    /// No span.
    pub fn off() -> Self {
        Self(None)
    }

    fn begin(exporter: &Exporter, parent: Option<SpanContext>, name: &'static str) -> Self {
        Self(Some(Box::new(Open {
            exporter: exporter.clone(),
            context: exporter.context(parent),
            parent: parent.map(|parent| parent.span),
            name,
            start: SystemTime::now(),
            texts: Vec::new(),
            events: Vec::new(),
            error: None,
        })))
    }

    /// Begins a part of this work.
    #[must_use]
    pub fn child(&self, name: &'static str) -> Self {
        match &self.0 {
            Some(open) => Self::begin(&open.exporter, Some(open.context), name),
            None => Self(None),
        }
    }

    /// Says something about the work.
    pub fn text(&mut self, key: &'static str, value: impl FnOnce() -> String) {
        if let Some(open) = &mut self.0 {
            open.texts.push((key, value()));
        }
    }

    /// Something happens.
    pub fn event(
        &mut self,
        name: &'static str,
        texts: impl FnOnce() -> Vec<(&'static str, String)>,
    ) {
        if let Some(open) = &mut self.0 {
            open.events.push(SpanEvent {
                time: SystemTime::now(),
                name,
                texts: texts(),
            });
        }
    }

    /// The work fails.
    pub fn fail(&mut self, error: &'static str) {
        if let Some(open) = &mut self.0 {
            open.error = Some(error);
        }
    }

    /// What the annotation of an object says that this work makes; `None` when tracing is off.
    pub fn carrier(&self) -> Option<String> {
        let open = self.0.as_ref()?;
        Some(format!(r#"{{"traceparent":"{}"}}"#, open.context))
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(open) = self.0.take() else {
            return;
        };
        let Open {
            exporter,
            context,
            parent,
            name,
            start,
            texts,
            events,
            error,
        } = *open;
        exporter.push(otlp::Span {
            context,
            parent,
            name: name.to_owned(),
            kind: SpanKind::Internal,
            start,
            end: SystemTime::now(),
            texts,
            numbers: Vec::new(),
            events,
            error,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_read_from_json_and_everything_else_is_none() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let text = format!(r#"{{"tracestate":"a=b","traceparent":"{header}"}}"#);
        assert_eq!(parse(&text).unwrap().to_string(), header);
        for text in [
            "",
            "{",
            "{}",
            "[]",
            r#"{"traceparent":7}"#,
            r#"{"traceparent":"x"}"#,
            header,
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn without_an_exporter_nothing_is_computed() {
        let tracer = Tracer::default();
        let mut span = tracer.pass("p", &Key::new("n", "a"), || {
            unreachable!("nobody asks for the context")
        });
        span.text("k", || unreachable!("nobody asks for text"));
        span.event("e", || unreachable!("nobody asks for events"));
        let mut child = span.child("c");
        child.fail("x");
        assert!(child.0.is_none() && span.carrier().is_none());
    }
}
