//! Traces: continued from the client, carried to the sandbox, sent to a collector.

use agent_sandbox_service::otlp::{OtlpArgs, Protocol, SpanContext};

use crate::rig::{self, Rig};
use crate::sandbox::{Sandbox, ok};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn traced(collector: &Sandbox) -> Rig {
    let args = OtlpArgs {
        otlp_endpoint: format!("http://{}", collector.address),
        otlp_protocol: Protocol::HttpProtobuf,
        otel_traces_sampler_arg: "1".to_owned(),
        ..OtlpArgs::default()
    };
    let mut config = rig::config();
    config.traces = args.settings("sandbox-router").unwrap();
    Rig::start(config)
}

fn context(seen: &str) -> SpanContext {
    let value = seen
        .lines()
        .find_map(|line| line.strip_prefix("traceparent: "));
    SpanContext::parse(value.unwrap()).unwrap()
}

#[tokio::test]
async fn a_trace_is_continued_and_reported() {
    let (report, mut reports) = tokio::sync::mpsc::unbounded_channel();
    let collector = Sandbox::start(move |mut wire| {
        let report = report.clone();
        async move {
            while let Some(head) = wire.head().await {
                let (body, _) = wire.body(&head).await;
                report.send((head.line, body)).unwrap();
                wire.write(ok(b"")).await;
            }
        }
    });
    let rig = traced(&collector);
    let stub = Sandbox::mirror();
    let request = stub.get("/traced").replace(
        "Host:",
        &format!("traceparent: {PARENT}\r\ntracestate: a=1\r\nHost:"),
    );
    let seen = rig.send(&request).await;
    let parent = SpanContext::parse(PARENT).unwrap();
    let ours = context(seen.text());
    assert_eq!(ours.trace, parent.trace);
    assert_ne!(ours.span, parent.span);
    assert!(seen.text().contains("tracestate: a=1\n"));
    let line = rig.logged("/traced").await;
    assert_eq!(line["trace_id"], ours.trace.to_string());
    assert_eq!(line["span_id"], ours.span.to_string());
    rig.stop().await;
    let (line, body) = reports.recv().await.unwrap();
    assert_eq!(line, "POST /v1/traces HTTP/1.1");
    let contains = |what: &[u8]| body.windows(what.len()).any(|window| window == what);
    assert!(contains(&ours.trace.to_bytes()) && contains(&ours.span.to_bytes()));
    assert!(contains(&parent.span.to_bytes()), "as the parent");
    for text in ["HTTP GET", "/traced", "sandbox-router", "box"] {
        assert!(contains(text.as_bytes()), "{text}");
    }
}

#[tokio::test]
async fn a_trace_begins_here_when_none_came() {
    let collector = Sandbox::answering(ok(b""));
    let rig = traced(&collector);
    let stub = Sandbox::mirror();
    let first = context(rig.send(&stub.get("/")).await.text());
    let second = context(rig.send(&stub.get("/")).await.text());
    assert_ne!(first.trace, second.trace);
    rig.stop().await;
}

#[tokio::test]
async fn without_export_a_trace_context_passes_untouched() {
    let stub = Sandbox::mirror();
    let rig = Rig::start(rig::config());
    let request = stub
        .get("/")
        .replace("Host:", &format!("traceparent: {PARENT}\r\nHost:"));
    let reply = rig.send(&request).await;
    assert!(reply.text().contains(&format!("traceparent: {PARENT}\n")));
    assert!(
        !rig.send(&stub.get("/"))
            .await
            .text()
            .contains("traceparent")
    );
    rig.stop().await;
}
