//! The one handler: every request of every resource comes through here.
//!
//! Two path shapes (with and without a namespace) and eight verbs, for any resource the registry
//! knows. The service never fails: whatever goes wrong becomes a `metav1.Status`.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};
use tokio::time::Instant;

use super::body;
use super::negotiate::{self, Form};
use super::request::{Query, ResourcePath, Route};
use super::write;
use super::{Api, open, read, respond, review, watch};
use crate::auth::User;
use crate::ops::Target;
use crate::registry::{Origin, Subresource, SubresourceAction, Verb};
use crate::status::ApiError;
use crate::stream;

/// The API as an axum router.
pub fn router(api: Api) -> Router {
    Router::new().fallback(handle).with_state(Arc::new(api))
}

async fn handle(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    let outcome = match Route::parse(request.uri().path()) {
        Route::Resource(path) => return resource(&api, &path, request).await,
        route if route == Route::Unknown || is_read(request.method()) => {
            open::answer(&api, &route, request.headers())
        }
        _ => Err(ApiError::method_not_allowed()),
    };
    outcome.unwrap_or_else(|error| respond::failure(&error))
}

/// Answers a request for a resource and counts it.
async fn resource(api: &Api, path: &ResourcePath, request: Request) -> Response<Body> {
    let started = Instant::now();
    let query = Query::parse(request.uri().query());
    let verb = verb(request.method(), path, &query);
    let outcome = answer(api, path, query, request).await;
    let response = outcome.unwrap_or_else(|error| respond::failure(&error));
    tracing::debug!(
        verb,
        group = path.group,
        resource = path.resource,
        namespace = path.namespace,
        name = path.name,
        subresource = path.subresource,
        code = response.status().as_u16(),
        "request"
    );
    if let Some(metrics) = &api.metrics {
        metrics.record(verb, path, response.status(), started.elapsed());
    }
    response
}

async fn answer(
    api: &Api,
    path: &ResourcePath,
    query: Query,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let call = Call::new(api, path, query, request.headers().clone())?;
    let mut response = if call.is_stream(request.method()) {
        let connector = api.nodes.as_deref();
        stream::serve(
            &api.engine,
            connector,
            &call.target,
            &call.subresource,
            &call.query,
            request,
        )
        .await?
    } else if is_read(request.method()) {
        call.read(api)?
    } else {
        let (parts, body) = request.into_parts();
        let user = parts
            .extensions
            .get::<User>()
            .cloned()
            .unwrap_or_else(User::admin);
        let bytes = body::read(body, api.limits.body).await?;
        call.write(api, &parts.method, &bytes, &user)?
    };
    if let Some(deprecation) = &call.target.version.deprecation {
        respond::warn(&mut response, std::slice::from_ref(&deprecation.warning));
    }
    if response.status() == StatusCode::CREATED
        && call.subresource.is_empty()
        && let Some(warning) = api.unattended.warning(&call.target.descriptor)
    {
        respond::warn(&mut response, &[warning]);
    }
    Ok(response)
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The verb under which a request is counted.
fn verb(method: &Method, path: &ResourcePath, query: &Query) -> &'static str {
    let collection = path.name.is_empty();
    match *method {
        Method::GET | Method::HEAD if path.watch || query.flag("watch") => "WATCH",
        Method::GET | Method::HEAD if collection => "LIST",
        Method::GET | Method::HEAD => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE if collection => "DELETECOLLECTION",
        Method::DELETE => "DELETE",
        _ => "OTHER",
    }
}

/// A request for a resource that exists.
struct Call {
    target: Target,
    subresource: String,
    watch: bool,
    query: Query,
    headers: HeaderMap,
}

impl Call {
    fn new(
        api: &Api,
        path: &ResourcePath,
        query: Query,
        headers: HeaderMap,
    ) -> Result<Self, ApiError> {
        let snapshot = api.engine.registry.snapshot();
        let descriptor = snapshot
            .resource(&path.group, &path.resource)
            .ok_or_else(ApiError::no_such_path)?;
        let version = descriptor
            .served(&path.version)
            .ok_or_else(ApiError::no_such_path)?;
        let namespaced = descriptor.is_namespaced();
        // Objects live where their scope says; only collections may span all namespaces.
        let fits = if namespaced {
            path.name.is_empty() || !path.namespace.is_empty()
        } else {
            path.namespace.is_empty()
        };
        if !fits {
            return Err(ApiError::no_such_path());
        }
        Ok(Self {
            target: Target {
                descriptor: descriptor.clone(),
                version: version.clone(),
                namespace: path.namespace.clone(),
                name: path.name.clone(),
            },
            subresource: path.subresource.clone(),
            watch: path.watch || query.flag("watch"),
            query,
            headers,
        })
    }

    /// Whether the node of a pod has to serve this.
    fn is_stream(&self, method: &Method) -> bool {
        let found = self.target.version.subresource(&self.subresource);
        let connects = found.is_some_and(|found| {
            let verb = if is_read(method) {
                Verb::Get
            } else {
                Verb::Create
            };
            matches!(found.action, SubresourceAction::Connect) && found.verbs.contains(&verb)
        });
        connects && !self.target.name.is_empty() && (is_read(method) || *method == Method::POST)
    }

    fn read(&self, api: &Api) -> Result<Response<Body>, ApiError> {
        let accepted = negotiate::accepted(&self.headers)?;
        if !self.subresource.is_empty() {
            return self.read_subresource(api, accepted);
        }
        let target = &self.target;
        if self.watch {
            self.require(Verb::Watch)?;
            return watch::watch(api, target, &self.query, accepted);
        }
        if target.name.is_empty() {
            self.require(Verb::List)?;
            return read::list(api, target, &self.query, accepted);
        }
        self.require(Verb::Get)?;
        read::get(api, target, &self.query, accepted)
    }

    fn read_subresource(
        &self,
        api: &Api,
        accepted: negotiate::Accepted,
    ) -> Result<Response<Body>, ApiError> {
        let found = self.require_subresource(Verb::Get)?;
        match &found.action {
            SubresourceAction::Part { .. } => read::get(api, &self.target, &self.query, accepted),
            SubresourceAction::Scale(_) => {
                let object = api.engine.read(&self.target)?;
                let scale = api.engine.scale(&self.target, &object)?;
                Ok(respond::value(StatusCode::OK, accepted, &scale))
            }
            SubresourceAction::Connect => Err(ApiError::unavailable(
                "no node is connected that could serve this subresource",
            )),
            SubresourceAction::Binding | SubresourceAction::Eviction | SubresourceAction::Token => {
                Err(ApiError::method_not_allowed())
            }
        }
    }

    fn write(
        &self,
        api: &Api,
        method: &Method,
        bytes: &Bytes,
        user: &User,
    ) -> Result<Response<Body>, ApiError> {
        let target = &self.target;
        let mut accepted = negotiate::accepted(&self.headers)?;
        let collection = target.name.is_empty();
        if review::is_virtual(&target.descriptor) {
            return self.review(api, method, bytes, user, accepted);
        }
        if accepted.form == Form::Table && !self.subresource.is_empty() {
            accepted.form = Form::Object;
        }
        let request = write::Request {
            api,
            target,
            subresource: &self.subresource,
            query: &self.query,
            headers: &self.headers,
            accepted,
        };
        let refuse = || Err(self.refusal(method));
        if !self.subresource.is_empty() {
            return match *method {
                Method::POST => {
                    let found = self.require_subresource(Verb::Create)?;
                    request.create_subresource(&found.action, bytes)
                }
                Method::PUT => self
                    .require_subresource(Verb::Update)
                    .and_then(|_| request.update(bytes)),
                Method::PATCH => self
                    .require_subresource(Verb::Patch)
                    .and_then(|_| request.patch(bytes)),
                _ => refuse(),
            };
        }
        match (method, collection) {
            (&Method::POST, true) => {
                self.require(Verb::Create)?;
                // A namespaced object cannot be created across namespaces.
                if target.descriptor.is_namespaced() && target.namespace.is_empty() {
                    return refuse();
                }
                request.create(bytes)
            }
            (&Method::PUT, false) => self
                .require(Verb::Update)
                .and_then(|()| request.update(bytes)),
            (&Method::PATCH, false) => self
                .require(Verb::Patch)
                .and_then(|()| request.patch(bytes)),
            (&Method::DELETE, false) => self
                .require(Verb::Delete)
                .and_then(|()| request.delete(bytes)),
            (&Method::DELETE, true) => {
                self.require(Verb::DeleteCollection)?;
                if target.descriptor.is_namespaced() && target.namespace.is_empty() {
                    return refuse();
                }
                request.delete_collection(bytes)
            }
            _ => refuse(),
        }
    }

    fn review(
        &self,
        api: &Api,
        method: &Method,
        bytes: &Bytes,
        user: &User,
        accepted: negotiate::Accepted,
    ) -> Result<Response<Body>, ApiError> {
        if *method == Method::POST && self.target.kind() == "Binding" {
            return self.bind(api, bytes, accepted);
        }
        if *method != Method::POST || !self.target.name.is_empty() {
            return Err(ApiError::method_not_allowed());
        }
        let validation = crate::ops::FieldValidation::Ignore;
        let body = body::object(&self.headers, bytes, validation)?;
        let answer = review::answer(api, &self.target, body.value, user)?;
        Ok(respond::value(StatusCode::CREATED, accepted, &answer))
    }

    /// The older way to bind a pod: a Binding posted to the collection names the pod.
    fn bind(
        &self,
        api: &Api,
        bytes: &Bytes,
        accepted: negotiate::Accepted,
    ) -> Result<Response<Body>, ApiError> {
        let snapshot = api.engine.registry.snapshot();
        let pods = snapshot
            .resource("", "pods")
            .ok_or_else(ApiError::no_such_path)?;
        let body = body::object(&self.headers, bytes, crate::ops::FieldValidation::Ignore)?;
        let target = Target::stored(
            pods,
            &self.target.namespace,
            crate::meta::text(&body.value, "name"),
        )?;
        let request = write::Request {
            api,
            target: &target,
            subresource: "binding",
            query: &self.query,
            headers: &self.headers,
            accepted,
        };
        request.create_subresource(&SubresourceAction::Binding, bytes)
    }

    /// The answer to a method that leads nowhere.
    fn refusal(&self, method: &Method) -> ApiError {
        let descriptor = &self.target.descriptor;
        if descriptor.origin == Origin::BuiltIn {
            return ApiError::method_not_allowed();
        }
        let verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if self.target.name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            _ => "get",
        };
        ApiError::verb_not_supported(descriptor, verb)
    }

    fn require(&self, verb: Verb) -> Result<(), ApiError> {
        if self.target.descriptor.allows(verb) {
            return Ok(());
        }
        Err(ApiError::method_not_allowed())
    }

    fn require_subresource(&self, verb: Verb) -> Result<&Subresource, ApiError> {
        let found = self
            .target
            .version
            .subresource(&self.subresource)
            .ok_or_else(ApiError::no_such_path)?;
        if self.target.name.is_empty() {
            return Err(ApiError::no_such_path());
        }
        if found.verbs.contains(&verb) {
            return Ok(found);
        }
        Err(ApiError::method_not_allowed())
    }
}
