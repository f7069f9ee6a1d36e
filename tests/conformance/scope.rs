//! A namespace of its own for each test, the definitions it needs, and plain requests in it.
//!
//! Requests and answers are untyped JSON: a typed client would hide what is on the wire.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use agent_sandbox_apiserver::Server;
use agent_sandbox_crds::{PodSpecSchema, crd};
use agent_sandbox_service::shutdown::Shutdown;
use futures::FutureExt;
use http_body_util::BodyExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

/// How long a server may take to act on a definition.
const DEADLINE: Duration = Duration::from_secs(30);

/// Definitions belong to a whole cluster, so tests that share one take turns.
static TURN: Mutex<()> = Mutex::const_new(());

/// Where one test does its work.
pub(crate) struct Scope {
    client: Client,
    namespace: String,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    /// Texts of the `Warning` headers.
    pub(crate) warnings: Vec<String>,
    pub(crate) body: Value,
}

/// Runs a test with our definitions installed, Sandbox with this schema, in a namespace that is removed afterwards
/// however the test ends.
pub(crate) async fn with_crds(pod_spec: PodSpecSchema, test: impl AsyncFnOnce(&Scope)) {
    if let Some(kubeconfig) = std::env::var_os("AGENT_SANDBOX_TEST_KUBECONFIG") {
        let _turn = TURN.lock().await;
        let scope = Scope::open(cluster(Path::new(&kubeconfig)).await).await;
        scope.install(pod_spec).await;
        scope.close_after(test).await;
    } else {
        let embedded = embedded(pod_spec);
        let scope = Scope::open(embedded.server.client()).await;
        embedded
            .installed
            .get_or_init(async || scope.install(pod_spec).await)
            .await;
        scope.close_after(test).await;
    }
}

/// A client for the cluster that the tests are told to use.
async fn cluster(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

/// An embedded server that all tests which want one schema share.
struct Embedded {
    server: Server,
    installed: OnceCell<()>,
}

fn embedded(pod_spec: PodSpecSchema) -> &'static Embedded {
    static LEAN: LazyLock<Embedded> = LazyLock::new(Embedded::start);
    static FULL: LazyLock<Embedded> = LazyLock::new(Embedded::start);
    match pod_spec {
        PodSpecSchema::Lean => &LEAN,
        PodSpecSchema::Full => &FULL,
    }
}

impl Embedded {
    fn start() -> Self {
        // Every test has a runtime that ends with it, so the servers need one of their own.
        static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
        let _runtime = RUNTIME.enter();
        Self {
            server: Server::builder().start(&Shutdown::new()).unwrap(),
            installed: OnceCell::new(),
        }
    }
}

impl Scope {
    async fn open(client: Client) -> Self {
        let outside = Self {
            client,
            namespace: String::new(),
        };
        let wanted = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": { "generateName": "conformance-" },
        });
        let created = outside.post("/api/v1/namespaces", &wanted).await.created();
        Self {
            namespace: text(&created, "/metadata/name").to_owned(),
            ..outside
        }
    }

    /// Runs the test, and removes the namespace whatever comes of it.
    async fn close_after(self, test: impl AsyncFnOnce(&Self)) {
        let result = std::panic::AssertUnwindSafe(test(&self))
            .catch_unwind()
            .await;
        let namespace = format!("/api/v1/namespaces/{}", self.namespace);
        self.delete(&namespace).await;
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }

    /// Path of a namespaced resource: `collection("agents.x-k8s.io/v1beta1", "sandboxes")`.
    pub(crate) fn collection(&self, group_version: &str, plural: &str) -> String {
        format!(
            "/apis/{group_version}/namespaces/{}/{plural}",
            self.namespace
        )
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "", None).await
    }

    /// Reads a collection as the table `kubectl get` prints.
    pub(crate) async fn table(&self, path: &str) -> Reply {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        self.request("GET", path, "", accept, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, "application/json", Some(body))
            .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send("PUT", path, "application/json", Some(body)).await
    }

    pub(crate) async fn merge(&self, path: &str, body: &Value) -> Reply {
        self.send("PATCH", path, "application/merge-patch+json", Some(body))
            .await
    }

    pub(crate) async fn apply(&self, path: &str, manager: &str, body: &Value) -> Reply {
        let path = format!("{path}?fieldManager={manager}");
        self.send("PATCH", &path, "application/apply-patch+yaml", Some(body))
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, "", None).await
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Reply {
        self.request(method, path, content_type, "application/json", body)
            .await
    }

    async fn request(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        accept: &str,
        body: Option<&Value>,
    ) -> Reply {
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("accept", accept);
        if body.is_some() {
            request = request.header("content-type", content_type);
        }
        let bytes = body
            .map(|body| serde_json::to_vec(body).unwrap())
            .unwrap_or_default();
        let request = request.body(Body::from(bytes)).unwrap();
        let response = self.client.send(request).await.unwrap();
        let code = response.status().as_u16();
        let warnings = response
            .headers()
            .get_all("warning")
            .iter()
            .map(|value| value.to_str().unwrap().to_owned())
            .collect();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        // A path that is not served yet is answered in plain text.
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes)));
        Reply {
            code,
            warnings,
            body,
        }
    }

    async fn install(&self, pod_spec: PodSpecSchema) {
        const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        for crd in crd::all(pod_spec) {
            let path = format!("{DEFINITIONS}/{}", crd.metadata.name.as_deref().unwrap());
            let mut wanted = definition(&crd);
            let found = self.get(&path).await;
            let reply = if found.code == 404 {
                self.post(DEFINITIONS, &wanted).await
            } else {
                let version = &found.ok()["metadata"]["resourceVersion"];
                wanted["metadata"]["resourceVersion"] = version.clone();
                self.put(&path, &wanted).await
            };
            assert!(reply.code < 300, "{reply:?}");
        }
        for crd in crd::all(pod_spec) {
            let group_version = format!("{}/v1beta1", crd.spec.group);
            let path = self.collection(&group_version, &crd.spec.names.plural);
            self.eventually("the definitions are served", async || {
                self.get(&path).await.code == 200
            })
            .await;
        }
        // A changed definition is served a little after it is accepted. The two forms differ in what they keep.
        let path = self.collection("agents.x-k8s.io/v1beta1", "sandboxes") + "?dryRun=All";
        let probe = json!({
            "apiVersion": "agents.x-k8s.io/v1beta1",
            "kind": "Sandbox",
            "metadata": { "name": "probe" },
            "spec": { "podTemplate": { "spec": { "containers": [], "notInAnySchema": true } } },
        });
        let kept = pod_spec == PodSpecSchema::Lean;
        self.eventually("the wanted schema is served", async || {
            let reply = self.post(&path, &probe).await;
            let found = reply.body.pointer("/spec/podTemplate/spec/notInAnySchema");
            reply.code == 201 && found.is_some() == kept
        })
        .await;
    }

    /// Waits until a condition holds.
    async fn eventually(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition().await {
            assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Reply {
    /// The body of a 200.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.code, 200, "{}", self.body);
        self.body
    }

    /// The body of a 201.
    #[track_caller]
    pub(crate) fn created(self) -> Value {
        assert_eq!(self.code, 201, "{}", self.body);
        self.body
    }

    /// Asserts that the object was refused as invalid, with a cause at this field that contains this text.
    #[track_caller]
    pub(crate) fn refused(&self, field: &str, message: &str) {
        assert_eq!(
            (self.code, &self.body["reason"]),
            (422, &json!("Invalid")),
            "{}",
            self.body
        );
        let causes = self.body["details"]["causes"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let found = causes.iter().any(|cause| {
            cause["field"] == field
                && cause["message"]
                    .as_str()
                    .is_some_and(|m| m.contains(message))
        });
        assert!(
            found,
            "no cause at {field:?} with {message:?}: {}",
            self.body
        );
    }
}

/// A string inside a value.
#[track_caller]
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no string at {pointer} in {value}"))
}

fn definition(crd: &CustomResourceDefinition) -> Value {
    serde_json::to_value(crd).unwrap()
}
