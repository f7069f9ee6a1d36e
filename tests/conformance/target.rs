//! The server under test and how tests talk to it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use agent_sandbox_apiserver::Server;
use agent_sandbox_service::shutdown::Shutdown;
use anyhow::{Context as _, Result, ensure};
use futures::{AsyncBufReadExt as _, StreamExt as _};
use http::{HeaderMap, Method, Request, StatusCode};
use kube::Client;
use serde_json::{Value, json};

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Names the kubeconfig of a cluster to test instead of our server.
const KUBECONFIG: &str = "AGENT_SANDBOX_TEST_KUBECONFIG";

/// A server and a namespace of the test's own in it.
pub(crate) struct Target {
    client: Client,
    namespace: String,
    shutdown: Option<Shutdown>,
    /// Our server, unless a cluster is tested.
    server: Option<Server>,
}

/// What the server answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// The kinds of PATCH.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patch {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// The kubeconfig of the cluster under test, if one is.
#[expect(
    clippy::disallowed_methods,
    reason = "the one switch of the suite, read where it is used"
)]
pub(crate) fn kubeconfig() -> Option<PathBuf> {
    std::env::var_os(KUBECONFIG)
        .filter(|path: &OsString| !path.is_empty())
        .map(PathBuf::from)
}

impl Target {
    /// Connects to the server under test and makes a namespace.
    pub(crate) async fn new() -> Result<Self> {
        let mut target = match kubeconfig() {
            Some(path) => {
                let kubeconfig = kube::config::Kubeconfig::read_from(&path)
                    .with_context(|| format!("reading {}", path.display()))?;
                let config =
                    kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
                Self {
                    client: Client::try_from(config)?,
                    namespace: String::new(),
                    shutdown: None,
                    server: None,
                }
            }
            None => {
                let shutdown = Shutdown::new();
                let server = Server::builder().start(&shutdown)?;
                Self {
                    client: server.client(),
                    namespace: String::new(),
                    shutdown: Some(shutdown),
                    server: Some(server),
                }
            }
        };
        let namespace = target
            .post(
                "/api/v1/namespaces",
                &json!({"metadata": {"generateName": "conformance-"}}),
            )
            .await?
            .created()?;
        target.namespace = text(&namespace, "/metadata/name").to_owned();
        // Pods are refused until their namespace has its default service account.
        let account = target.path("/api/v1", "serviceaccounts/default");
        target
            .eventually("the default service account", async || {
                Ok((target.get(&account).await?.status == StatusCode::OK).then_some(()))
            })
            .await?;
        Ok(target)
    }

    /// The namespace of this test.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The client, for what is easier with it.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Our server, when it is the one under test.
    pub(crate) fn server(&self) -> Option<&Server> {
        self.server.as_ref()
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
        self.call(
            Method::POST,
            path,
            &[("content-type", "application/json")],
            Some(body),
        )
        .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        self.call(
            Method::PUT,
            path,
            &[("content-type", "application/json")],
            Some(body),
        )
        .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Answer> {
        self.call(Method::DELETE, path, &[], None).await
    }

    /// DELETE with options in the body.
    pub(crate) async fn delete_with(&self, path: &str, options: Value) -> Result<Answer> {
        let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let (Some(body), Value::Object(options)) = (body.as_object_mut(), options) {
            body.extend(options);
        }
        self.call(
            Method::DELETE,
            path,
            &[("content-type", "application/json")],
            Some(&body),
        )
        .await
    }

    pub(crate) async fn patch(&self, kind: Patch, path: &str, patch: &Value) -> Result<Answer> {
        let media = match kind {
            Patch::Json => "application/json-patch+json",
            Patch::Merge => "application/merge-patch+json",
            Patch::Strategic => "application/strategic-merge-patch+json",
            Patch::Apply => "application/apply-patch+yaml",
        };
        self.call(Method::PATCH, path, &[("content-type", media)], Some(patch))
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

    /// Opens a watch.
    pub(crate) async fn watch(&self, path: &str, query: &str) -> Result<Watch> {
        self.watch_as(path, query, "application/json").await
    }

    /// Opens a watch that asks for a media type.
    pub(crate) async fn watch_as(&self, path: &str, query: &str, accept: &str) -> Result<Watch> {
        let separator = if query.is_empty() { "" } else { "&" };
        let request = Request::get(format!("{path}?watch=true{separator}{query}"))
            .header("accept", accept)
            .body(Vec::new())?;
        let lines = self.client.request_stream(request).await?.lines();
        Ok(Watch {
            lines: Box::pin(lines),
        })
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

    /// Installs a CRD and waits until its objects are served. `spec` lacks the names, which are made
    /// from `kind`; the group is the test's own.
    pub(crate) async fn define(&self, kind: &str, mut spec: Value) -> Result<Custom> {
        let plural = format!("{}s", kind.to_lowercase());
        let group = format!("{}.conformance.example.com", self.namespace);
        if let Some(spec) = spec.as_object_mut() {
            spec.insert("group".to_owned(), group.as_str().into());
            let names = spec.entry("names").or_insert_with(|| json!({}));
            if let Some(names) = names.as_object_mut() {
                names.insert("kind".to_owned(), kind.into());
                names.insert("plural".to_owned(), plural.as_str().into());
            }
        }
        let name = format!("{plural}.{group}");
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": name}, "spec": spec,
        });
        let collection = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        self.post(collection, &definition).await?.created()?;
        let path = format!("{collection}/{name}");
        self.eventually("the definition to be established", async || {
            let definition = self.get(&path).await?.ok()?;
            let conditions = definition
                .pointer("/status/conditions")
                .and_then(Value::as_array);
            let established = conditions.into_iter().flatten().any(|condition| {
                condition["type"] == "Established" && condition["status"] == "True"
            });
            Ok(established.then_some(()))
        })
        .await?;
        let custom = Custom {
            definition: path,
            group,
            plural,
        };
        // A real server announces before every replica of its storage is ready.
        self.eventually("the resource to be served", async || {
            let list = self.get(&custom.path(self, "v1", "")).await?;
            Ok((list.status == StatusCode::OK).then_some(()))
        })
        .await?;
        Ok(custom)
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

/// A custom resource of the test.
pub(crate) struct Custom {
    /// Path of the definition.
    pub(crate) definition: String,
    pub(crate) group: String,
    pub(crate) plural: String,
}

impl Custom {
    /// The path of one object, or of the collection when `name` is empty.
    pub(crate) fn path(&self, target: &Target, version: &str, name: &str) -> String {
        let slash = if name.is_empty() { "" } else { "/" };
        target.path(
            &format!("/apis/{}/{version}", self.group),
            &format!("{}{slash}{name}", self.plural),
        )
    }

    pub(crate) fn api_version(&self, version: &str) -> String {
        format!("{}/{version}", self.group)
    }
}

impl Answer {
    /// The object, if the answer was 200.
    pub(crate) fn ok(self) -> Result<Value> {
        self.expect(StatusCode::OK)
    }

    /// The object, if the answer was 201.
    pub(crate) fn created(self) -> Result<Value> {
        self.expect(StatusCode::CREATED)
    }

    fn expect(self, status: StatusCode) -> Result<Value> {
        ensure!(
            self.status == status,
            "expected {status}, got {}: {}",
            self.status,
            self.body
        );
        Ok(self.body)
    }

    /// The `Status`, if the answer was this error.
    #[track_caller]
    pub(crate) fn error(self, code: u16, reason: &str) -> Value {
        let Self { status, body, .. } = self;
        assert_eq!(status.as_u16(), code, "{body}");
        assert_eq!(body["kind"], "Status", "{body}");
        assert_eq!(body["apiVersion"], "v1", "{body}");
        assert_eq!(body["status"], "Failure", "{body}");
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["reason"], reason, "{body}");
        body
    }

    /// The texts of the `Warning` headers.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.headers
            .get_all("warning")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(|value| {
                let text = value.split_once('"').map_or(value, |(_, text)| text);
                text.strip_suffix('"').unwrap_or(text).replace("\\\"", "\"")
            })
            .collect()
    }
}

/// The events of a watch, read with a deadline.
pub(crate) struct Watch {
    lines: std::pin::Pin<Box<dyn futures::Stream<Item = std::io::Result<String>> + Send>>,
}

impl Watch {
    /// The next event; an error when the watch ends or nothing comes.
    pub(crate) async fn next(&mut self) -> Result<Value> {
        let line = tokio::time::timeout(DEADLINE, self.lines.next())
            .await
            .context("no event came")?
            .context("the watch ended")??;
        Ok(serde_json::from_str(&line)?)
    }

    /// The next event that is not a bookmark, as its type and the object.
    pub(crate) async fn change(&mut self) -> Result<(String, Value)> {
        loop {
            let mut event = self.next().await?;
            let kind = text(&event, "/type").to_owned();
            if kind != "BOOKMARK" {
                return Ok((kind, event["object"].take()));
            }
        }
    }

    /// The next changes as `TYPE name`, in order.
    pub(crate) async fn changes(&mut self, count: usize) -> Result<Vec<String>> {
        let mut changes = Vec::with_capacity(count);
        while changes.len() < count {
            let (kind, object) = self.change().await?;
            changes.push(format!("{kind} {}", text(&object, "/metadata/name")));
        }
        Ok(changes)
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
