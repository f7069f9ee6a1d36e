//! Every route and layer of a proxy listener, on one screen.
//!
//! A request that names a sandbox is the proxy's, whatever its path or method, and passes no route on
//! its way there. The routes serve the few others.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use axum::routing::any;
use axum::{Extension, Router};
use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};
use tower::ServiceExt;

use crate::forward::Proxy;
use crate::forward::body::{Answer, ClientBody};
use crate::server::Peer;
use crate::target::SANDBOX_ID;

/// The application of a listener.
#[derive(Clone, Debug)]
pub(crate) struct App {
    proxy: Proxy,
    routes: Router,
}

impl App {
    pub(crate) fn new(proxy: Proxy) -> Self {
        let routes = Router::new()
            // Gateways probe the proxy port.
            .route("/healthz", any(health))
            // Everything else should have named a sandbox; the proxy says so, and counts it.
            .fallback(unnamed)
            .with_state(proxy.clone());
        Self { proxy, routes }
    }

    /// Answers one request of `peer`.
    pub(crate) async fn answer(
        &self,
        request: Request<ClientBody>,
        peer: &Arc<Peer>,
    ) -> http::Response<Answer> {
        let is_named = request.headers().contains_key(&SANDBOX_ID);
        if is_named || request.method() == Method::CONNECT {
            self.proxy.handle(request, peer).await
        } else {
            Box::pin(self.route(request, peer)).await
        }
    }

    async fn route(
        &self,
        request: Request<ClientBody>,
        peer: &Arc<Peer>,
    ) -> http::Response<Answer> {
        // No route reads a body; this one is dropped when the request has been answered.
        let (parts, _unread) = request.into_parts();
        let mut request = Request::from_parts(parts, Body::empty());
        request.extensions_mut().insert(peer.clone());
        match self.routes.clone().oneshot(request).await {
            Ok(response) => response.map(Answer::Router),
        }
    }
}

async fn health() -> ([(http::HeaderName, HeaderValue); 1], &'static str) {
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], r#"{"status":"ok"}"#)
}

async fn unnamed(
    State(proxy): State<Proxy>,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request<Body>,
) -> Response {
    let response = proxy.handle(request.map(|_| ClientBody::empty()), &peer);
    response.await.map(Body::new)
}
