//! Every route and layer of a proxy listener, on one screen.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request};
use tower::Service;

use crate::forward::Proxy;
use crate::target::SANDBOX_ID;

/// The application of a listener.
pub(crate) fn stack(proxy: Proxy) -> Router {
    Router::new()
        // Gateways probe the proxy port. A request that names a sandbox is meant for its own
        // `/healthz`.
        .route_service("/healthz", Health(proxy.clone()))
        // Everything else goes to the sandbox named in the headers, whatever its path or method.
        .fallback_service(proxy)
}

/// Answers for the router when no sandbox is named.
#[derive(Clone, Debug)]
struct Health(Proxy);

impl Service<Request<Body>> for Health {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.headers().contains_key(&SANDBOX_ID) || request.method() == Method::CONNECT {
            return self.0.call(request);
        }
        let mut response = Response::new(Body::from(r#"{"status":"ok"}"#));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Box::pin(std::future::ready(Ok(response)))
    }
}
