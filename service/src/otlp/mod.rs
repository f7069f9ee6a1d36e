//! Traces for an OpenTelemetry collector: spans are queued by the program and sent in batches.
//!
//! A small exporter of our own: the protocol is one protobuf message over HTTP, and the programs
//! need nothing else of an SDK. The queue is bounded; when the collector is slow or away, spans are
//! dropped and counted, never waited for. Collectors are reached over plain HTTP, as an agent on the
//! node or in the cluster is.

mod context;
mod export;
mod settings;
mod wire;

pub use context::{SpanContext, SpanId, TraceId};
pub use export::{Exporter, Span, SpanEvent, SpanKind};
pub use settings::{OtlpArgs, OtlpError, OtlpSettings, Protocol};
