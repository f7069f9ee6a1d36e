//! The server under test and how tests talk to it.

mod answer;
mod definition;
mod watch;

use std::time::Duration;

use agent_sandbox_apiserver::Server;
use agent_sandbox_service::shutdown::Shutdown;
pub(crate) use agent_sandbox_tests::cluster::kubeconfig;
use anyhow::{Context as _, Result};
use http::{Method, Request, StatusCode};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::sync::MutexGuard;

pub(crate) use answer::Answer;
pub(crate) use definition::{any_fields, only_v1};

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What `kubectl get` accepts: a table to print, or else the object.
pub(crate) const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// What our server publishes as its certificate authority. Nobody connects, so nobody verifies.
const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";

/// A server and a namespace of the test's own in it.
pub(crate) struct Target {
    client: Client,
    namespace: String,
    shutdown: Option<Shutdown>,
    /// Our server, unless a cluster is tested.
    server: Option<Server>,
    /// Keeps our definitions as they are until the test is over.
    turn: Option<MutexGuard<'static, ()>>,
}

/// The kinds of PATCH.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patch {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl Target {
    /// Connects to the server under test and makes a namespace.
    pub(crate) async fn new() -> Result<Self> {
        let mut target = Self::connect().await?;
        let namespace = target
            .create(
                "/api/v1/namespaces",
                &json!({"metadata": {"generateName": "conformance-"}}),
            )
            .await?;
        target.namespace = text(&namespace, "/metadata/name").to_owned();
        // Pods are refused until their namespace has its default service account.
        let account = target.path("/api/v1", "serviceaccounts/default");
        target.answers(&account, StatusCode::OK).await?;
        Ok(target)
    }

    async fn connect() -> Result<Self> {
        let (client, server, shutdown) = if let Some(path) = kubeconfig() {
            let kubeconfig = Kubeconfig::read_from(&path)
                .with_context(|| format!("reading {}", path.display()))?;
            let options = KubeConfigOptions::default();
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            (Client::try_from(config)?, None, None)
        } else {
            let shutdown = Shutdown::new();
            let server = Server::builder().root_ca(AUTHORITY).start(&shutdown)?;
            (server.client(), Some(server), Some(shutdown))
        };
        Ok(Self {
            client,
            namespace: String::new(),
            shutdown,
            server,
            turn: None,
        })
    }

    /// The namespace of this test.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The path of something in the test's namespace: `root` is `/api/v1` or `/apis/GROUP/VERSION`.
    pub(crate) fn path(&self, root: &str, rest: &str) -> String {
        format!("{root}/namespaces/{}/{rest}", self.namespace)
    }

    /// The path of a ConfigMap of the test, or of all of them.
    pub(crate) fn config_maps(&self, name: &str) -> String {
        let path = self.path("/api/v1", "configmaps");
        if name.is_empty() {
            path
        } else {
            format!("{path}/{name}")
        }
    }

    /// A name that no other test uses, for objects without a namespace.
    pub(crate) fn unique(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.namespace)
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer> {
        self.call(Method::GET, path, &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(Method::POST, path, "application/json", body)
            .await
    }

    /// POSTs an object to its collection and answers with it as the server made it.
    pub(crate) async fn create(&self, collection: &str, object: &Value) -> Result<Value> {
        self.post(collection, object).await?.created()
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(Method::PUT, path, "application/json", body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Answer> {
        self.call(Method::DELETE, path, &[], None).await
    }

    /// DELETE with options in the body.
    pub(crate) async fn delete_with(&self, path: &str, options: Value) -> Result<Answer> {
        let body = with(
            json!({"kind": "DeleteOptions", "apiVersion": "v1"}),
            options,
        );
        self.send(Method::DELETE, path, "application/json", &body)
            .await
    }

    pub(crate) async fn patch(&self, kind: Patch, path: &str, patch: &Value) -> Result<Answer> {
        let media = match kind {
            Patch::Json => "application/json-patch+json",
            Patch::Merge => "application/merge-patch+json",
            Patch::Strategic => "application/strategic-merge-patch+json",
            Patch::Apply => "application/apply-patch+yaml",
        };
        self.send(Method::PATCH, path, media, patch).await
    }

    /// Reads a collection or an object as the table `kubectl get` prints.
    pub(crate) async fn table(&self, path: &str) -> Result<Answer> {
        self.get_as(path, TABLE).await
    }

    /// GET of a media type.
    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Result<Answer> {
        self.call(Method::GET, path, &[("accept", accept)], None)
            .await
    }

    async fn send(&self, method: Method, path: &str, media: &str, body: &Value) -> Result<Answer> {
        self.call(method, path, &[("content-type", media)], Some(body))
            .await
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer> {
        let body = body
            .map(ToString::to_string)
            .unwrap_or_default()
            .into_bytes();
        self.call_raw(method, path, headers, body).await
    }

    /// Sends a request with any body and reads the whole answer.
    pub(crate) async fn call_raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer> {
        let mut request = Request::builder().method(&method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(kube::client::Body::from(body))?;
        let exchange = async {
            let response = self.client.send(request).await?;
            let (parts, body) = response.into_parts();
            let bytes = http_body_util::BodyExt::collect(body).await?.to_bytes();
            let body = serde_json::from_slice(&bytes)
                .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
            anyhow::Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body,
            })
        };
        tokio::time::timeout(DEADLINE, exchange)
            .await
            .with_context(|| format!("{method} {path} took too long"))?
            .with_context(|| format!("{method} {path}"))
    }

    /// Waits until GET of a path answers with this status, and returns the body.
    pub(crate) async fn answers(&self, path: &str, status: StatusCode) -> Result<Value> {
        self.eventually(&format!("{status} at {path}"), async || {
            let answer = self.get(path).await?;
            Ok((answer.status == status).then_some(answer.body))
        })
        .await
    }

    /// Waits until an object is on its way out: deleted, but held by a finalizer.
    pub(crate) async fn terminating(&self, path: &str) -> Result<()> {
        self.eventually(&format!("the deletion of {path}"), async || {
            let object = self.get(path).await?.ok()?;
            Ok((!text(&object, "/metadata/deletionTimestamp").is_empty()).then_some(()))
        })
        .await
    }

    /// Asks again until there is an answer, or fails after [`DEADLINE`].
    pub(crate) async fn eventually<T>(
        &self,
        what: &str,
        mut attempt: impl AsyncFnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let asking = async {
            loop {
                if let Some(answer) = attempt().await? {
                    return anyhow::Ok(answer);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, asking)
            .await
            .with_context(|| format!("waited too long for {what}"))?
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(shutdown) = &self.shutdown {
            shutdown.trigger();
        }
        // On a cluster, what a test made goes with its namespace and definitions.
        if self.server.is_none()
            && !self.namespace.is_empty()
            && let Ok(handle) = tokio::runtime::Handle::try_current()
        {
            let (client, namespace) = (self.client.clone(), self.namespace.clone());
            tokio::task::block_in_place(|| handle.block_on(clean_up(&client, &namespace)));
        }
    }
}

/// Deletes the namespace of a test and every definition of its group.
async fn clean_up(client: &Client, namespace: &str) {
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut paths = vec![format!("/api/v1/namespaces/{namespace}")];
    if let Ok(request) = Request::get(definitions).body(Vec::new())
        && let Ok(list) = client.request::<Value>(request).await
    {
        let names = list["items"].as_array().into_iter().flatten();
        let own = names.map(|item| text(item, "/metadata/name").to_owned());
        let own = own.filter(|name| name.contains(&format!(".{namespace}.")));
        paths.extend(own.map(|name| format!("{definitions}/{name}")));
    }
    for path in paths {
        if let Ok(request) = Request::delete(path).body(Vec::new()) {
            drop(client.request::<Value>(request).await);
        }
    }
}

/// The text at a JSON pointer; empty when absent.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The names in a list.
pub(crate) fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .map(|item| text(item, "/metadata/name").to_owned())
        .collect()
}

/// A JSON object with more members, which replace those of the same name.
pub(crate) fn with(mut object: Value, members: Value) -> Value {
    let more = members.as_object().expect("an object").clone();
    object.as_object_mut().expect("an object").extend(more);
    object
}

/// A ConfigMap.
pub(crate) fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// A Pod that no scheduler will place.
pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "local.test/none:1"}], "schedulerName": "none"},
    })
}
