//! Traces of a claim's life, as a collector gets them. Real time: spans travel over a real socket.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_sandbox_controller::Config;
use agent_sandbox_service::listen;
use agent_sandbox_service::otlp::{Exporter, OtlpArgs};
use agent_sandbox_service::server::Server;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use prost::Message;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::harness::{Harness, claim, template, warm_pool};

/// The members of the protocol's messages that are looked at.
#[derive(Clone, Message, PartialEq)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<Resource>,
}

#[derive(Clone, Message, PartialEq)]
struct Resource {
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<Scope>,
}

#[derive(Clone, Message, PartialEq)]
struct Scope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, Message, PartialEq)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Event>,
}

#[derive(Clone, Message, PartialEq)]
struct Event {
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, Message, PartialEq)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Text>,
}

#[derive(Clone, Message, PartialEq)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<&str, &str> {
    let pairs = attributes.iter().map(|pair| {
        let text = pair.value.as_ref().map_or("", |value| value.text.as_str());
        (pair.key.as_str(), text)
    });
    pairs.collect()
}

impl Span {
    fn is_of(&self, object: &str) -> bool {
        texts(&self.attributes).get("k8s.object.name") == Some(&object)
    }

    fn trace(&self) -> String {
        let number = u128::from_be_bytes(self.trace.as_slice().try_into().unwrap());
        format!("{number:032x}")
    }
}

/// Runs an operator with a collector over `setting`, until `done`, and returns all spans.
async fn spans(setting: impl FnOnce(&Harness), done: impl Fn(&Harness) -> bool) -> Vec<Span> {
    let (sender, mut bodies) = mpsc::unbounded_channel::<Bytes>();
    let take = move |body: Bytes| async move {
        sender.send(body).unwrap();
    };
    let listener = listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (tasks, end) = (Tasks::new("collector"), Shutdown::new());
    let server = Server::new(Router::new().route("/v1/traces", post(take)));
    tasks.spawn("serve", server.serve(listener, end.clone(), Duration::ZERO));
    let args = OtlpArgs {
        otlp_endpoint: endpoint,
        otlp_protocol: agent_sandbox_service::otlp::Protocol::HttpProtobuf,
        otel_traces_sampler_arg: "1".to_owned(),
        ..OtlpArgs::default()
    };
    let settings = args.settings("agent-sandbox-controller").unwrap().unwrap();

    let mut harness = Harness::new();
    let client = harness.model.client();
    harness.run_with(client, Config::default(), |builder| {
        builder.traces(Exporter::new(settings))
    });
    setting(&harness);
    harness
        .eventually("the work is done", |_| done(&harness))
        .await;
    // The last spans are sent on the way out.
    harness.stop().await;
    end.trigger();
    tasks.shutdown(Duration::from_secs(10)).await;
    let mut spans = Vec::new();
    while let Ok(body) = bodies.try_recv() {
        let export = Export::decode(body).unwrap();
        let scopes = export.resources.into_iter().flat_map(|it| it.scopes);
        spans.extend(scopes.flat_map(|scope| scope.spans));
    }
    spans
}

fn cold(harness: &Harness, annotations: Value) {
    let model = &harness.model;
    model.create("sandboxtemplates", template("t", json!({})));
    model.create("sandboxwarmpools", warm_pool("p", "t", 0));
    let mut object = claim("c", "p");
    object["metadata"]["annotations"] = annotations;
    object["metadata"]["labels"] = json!({"agents.x-k8s.io/created-by": "whoever"});
    model.create("sandboxclaims", object);
}

fn is_served(harness: &Harness) -> bool {
    crate::harness::ready(&harness.model, "sandboxclaims", "c")
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const ANNOTATION: &str = "opentelemetry.io/trace-context";

#[tokio::test]
async fn one_trace_leads_from_the_client_to_the_pod() {
    let context = format!(r#"{{"traceparent":"00-{TRACE}-b7ad6b7169203331-01"}}"#);
    let spans = spans(|it| cold(it, json!({ANNOTATION: context})), is_served).await;
    let named = |name: &str, object: &str| {
        let mut all = spans
            .iter()
            .filter(|it| it.name == name && it.is_of(object));
        all.next()
            .unwrap_or_else(|| panic!("no span {name} of {object}: {spans:#?}"))
    };
    let claim = named("ReconcileSandboxClaim", "c");
    assert_eq!(claim.trace(), TRACE);
    assert_eq!(claim.parent, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    assert_eq!(texts(&claim.attributes)["k8s.namespace.name"], "n");
    let creator = texts(&claim.attributes)["agent_sandbox.created_by"];
    assert_eq!(creator, "unknown", "normalised, as everywhere");
    let sandbox = named("ReconcileSandbox", "c");
    assert_eq!(sandbox.trace(), TRACE, "through the sandbox's annotation");
    assert!(spans.iter().any(|it| it.name == "ReconcileSandboxTemplate"));
    let parts: Vec<&Span> = spans
        .iter()
        .filter(|it| it.trace() == TRACE && ["reconcilePod", "reconcilePVCs"].contains(&&*it.name))
        .collect();
    assert!(parts.iter().any(|it| it.parent == sandbox.id), "{parts:#?}");
    let events: Vec<&Event> = parts.iter().flat_map(|it| &it.events).collect();
    for name in ["NewPodStatusObserved", "ExistingPodStatusObserved"] {
        let event = events.iter().find(|event| event.name == name);
        let event = event.unwrap_or_else(|| panic!("no {name}: {events:#?}"));
        let texts = texts(&event.attributes);
        assert_eq!(texts["pod.Name"], "c");
        assert!(texts.contains_key("pod.Phase"), "{texts:?}");
    }
}

#[tokio::test]
async fn a_claim_without_a_trace_gets_one_and_a_broken_one_does_no_harm() {
    for annotations in [json!({}), json!({ANNOTATION: "{\"traceparent\": 7"})] {
        let spans = spans(|it| cold(it, annotations.clone()), is_served).await;
        let broken = annotations.get(ANNOTATION).is_some();
        let claims: Vec<_> = spans
            .iter()
            .filter(|it| it.name == "ReconcileSandboxClaim")
            .map(Span::trace)
            .collect();
        assert!(!claims.is_empty() && !claims.contains(&TRACE.to_owned()));
        let sandbox = spans.iter().find(|it| it.name == "ReconcileSandbox");
        let trace = sandbox.unwrap().trace();
        assert_eq!(claims.contains(&trace), !broken, "{claims:?} {trace}");
    }
}
