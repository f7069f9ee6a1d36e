//! Subresources that are served by the node of a pod: log, exec, attach, port-forward.
//!
//! The request is translated into the node's own HTTP routes and handed to it through a
//! [`NodeConnector`], upgrade and all; what the node answers goes back to the client untouched. The
//! two sides share a process or a socket, and neither crate knows the other.

use std::fmt;

use axum::body::Body;
use axum::extract::Request;
use form_urlencoded::Serializer;
use http::{Response, Uri};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::http::request::Query;
use crate::meta;
use crate::ops::{Encoder, Engine, Target};
use crate::status::ApiError;

/// A node's HTTP routes, which are those of a kubelet: `/containerLogs/{namespace}/{pod}/{container}`,
/// `/exec/...`, `/attach/...` and `/portForward/{namespace}/{pod}`.
pub type NodeService = BoxCloneSyncService<Request, Response<Body>, std::convert::Infallible>;

/// Finds nodes by name.
pub trait NodeConnector: fmt::Debug + Send + Sync {
    /// The routes of a node; `None` when it is not connected.
    fn connect(&self, node: &str) -> Option<NodeService>;
}

/// The annotation that names the container to use when a client names none.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// How much of a node's error message is kept.
const MAX_REFUSAL: usize = 4096;

/// Serves one of the subresources.
pub(crate) async fn serve(
    engine: &Engine,
    connector: Option<&dyn NodeConnector>,
    target: &Target,
    subresource: &str,
    query: &Query,
    mut request: Request,
) -> Result<Response<Body>, ApiError> {
    let stored = engine.read(target)?;
    let pod = Encoder::of(target).value(&stored);
    let node = at(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        return Err(ApiError::bad_request(format!(
            "pod {} does not have a host assigned",
            target.name
        )));
    }
    let path = node_path(target, subresource, query, &pod)?;
    let service = connector
        .and_then(|connector| connector.connect(node))
        .ok_or_else(|| {
            ApiError::unavailable(&format!("node {node} is not connected to this API server"))
        })?;
    *request.uri_mut() = path;
    let response = match service.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if response.status().is_client_error() || response.status().is_server_error() {
        return Err(refusal(response).await);
    }
    Ok(response)
}

/// What a node answered instead of a stream, as the client expects errors.
async fn refusal(response: Response<Body>) -> ApiError {
    let code = response.status();
    let text = match Limited::new(response.into_body(), MAX_REFUSAL)
        .collect()
        .await
    {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(_) => String::new(),
    };
    let message = if text.is_empty() {
        format!("the node answered {code}")
    } else {
        text
    };
    ApiError::from_node(code, message)
}

/// The node's route for a request, with its query in the node's words.
fn node_path(
    target: &Target,
    subresource: &str,
    query: &Query,
    pod: &Value,
) -> Result<Uri, ApiError> {
    let (namespace, name) = (&target.namespace, &target.name);
    let mut text = Serializer::new(String::new());
    let path = match subresource {
        "log" => {
            let container = container(query, pod, true)?;
            for option in [
                "follow",
                "previous",
                "timestamps",
                "insecureSkipTLSVerifyBackend",
            ] {
                if query.flag(option) {
                    text.append_pair(option, "true");
                }
            }
            for option in ["tailLines", "limitBytes", "sinceSeconds"] {
                if let Some(value) = query.get(option) {
                    let valid = value.parse::<i64>().is_ok_and(|number| number >= 0);
                    if !valid {
                        return Err(ApiError::bad_request(format!(
                            "{option}: expected a non-negative integer, not \"{value}\""
                        )));
                    }
                    text.append_pair(option, value);
                }
            }
            for option in ["sinceTime", "stream"] {
                if let Some(value) = query.get(option) {
                    text.append_pair(option, value);
                }
            }
            format!("/containerLogs/{namespace}/{name}/{container}")
        }
        "exec" | "attach" => {
            let container = container(query, pod, false)?;
            for (theirs, ours) in [
                ("stdin", "input"),
                ("stdout", "output"),
                ("stderr", "error"),
                ("tty", "tty"),
            ] {
                if query.flag(theirs) {
                    text.append_pair(ours, "1");
                }
            }
            if subresource == "exec" {
                let mut commands = query.all("command").peekable();
                if commands.peek().is_none() {
                    return Err(ApiError::bad_request(
                        "you must specify at least one command",
                    ));
                }
                for command in commands {
                    text.append_pair("command", command);
                }
            }
            format!("/{subresource}/{namespace}/{name}/{container}")
        }
        "portforward" => {
            for port in query.all("ports") {
                text.append_pair("port", port);
            }
            format!("/portForward/{namespace}/{name}")
        }
        _ => return Err(ApiError::no_such_path()),
    };
    let text = text.finish();
    let uri = if text.is_empty() {
        path
    } else {
        format!("{path}?{text}")
    };
    uri.parse()
        .map_err(|_| ApiError::bad_request("the pod or container cannot be named in a path"))
}

/// The container a client means.
fn container(query: &Query, pod: &Value, any_kind: bool) -> Result<String, ApiError> {
    let lists: &[&str] = if any_kind || query.get("container").is_some() {
        &["containers", "initContainers", "ephemeralContainers"]
    } else {
        &["containers"]
    };
    let known: Vec<&str> = lists
        .iter()
        .filter_map(|list| pod.get("spec")?.get(list)?.as_array())
        .flatten()
        .filter_map(|container| container.get("name")?.as_str())
        .collect();
    let pod_name = meta::text(pod, "name");
    if let Some(wanted) = query.get("container") {
        if known.contains(&wanted) {
            return Ok(wanted.to_owned());
        }
        return Err(ApiError::bad_request(format!(
            "container {wanted} is not valid for pod {pod_name}"
        )));
    }
    let default = meta::get(pod, "annotations")
        .and_then(|annotations| annotations.get(DEFAULT_CONTAINER))
        .and_then(Value::as_str)
        .filter(|name| known.contains(name));
    match (default, known.as_slice()) {
        (Some(default), _) => Ok(default.to_owned()),
        (None, [only]) => Ok((*only).to_owned()),
        (None, several) => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {pod_name}, choose one of: [{}]",
            several.join(" ")
        ))),
    }
}

fn at<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    path.iter()
        .try_fold(object, |value, step| value.get(step))
        .and_then(Value::as_str)
        .unwrap_or("")
}
