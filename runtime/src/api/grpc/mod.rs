//! The gRPC face: `process.v1.ProcessService`, and the standard services for health and reflection. It
//! answers on the same ports as the others; the protocol is told by the path.

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::{Response, StatusCode};
use tonic::Status;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::server::{Builder, Error};

use self::service::Commands;
pub(crate) use self::service::command;
use super::App;
use crate::proto;
use crate::proto::process::v1::process_service_server::{ProcessServiceServer, SERVICE_NAME};

mod deadline;
mod output;
mod service;
mod start;
mod status;

/// The health of the services of this face, by name and as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Health(HealthReporter);

impl Health {
    pub(crate) fn new() -> Self {
        Self(HealthReporter::new())
    }

    /// Says that commands are served.
    pub(crate) async fn serving(&self) {
        self.0.set_serving::<ProcessServiceServer<Commands>>().await;
    }

    /// Says, also to those who watch, that nothing is served any more, and lets them go.
    pub(crate) async fn not_serving(&self) {
        let mut reporter = self.0.clone();
        for service in ["", SERVICE_NAME] {
            reporter
                .set_service_status(service, ServingStatus::NotServing)
                .await;
            // What is said last is still heard; then the watch ends, which would delay the shutdown.
            reporter.clear_service_status(service).await;
        }
    }
}

/// Every route of this face.
///
/// # Errors
/// When the definitions that reflection tells about are broken.
pub(crate) fn routes(app: &App) -> Result<Router<App>, Error> {
    let commands = ProcessServiceServer::new(Commands::new(app.clone()))
        .max_decoding_message_size(app.config.max_request_bytes);
    let health = HealthServer::new(HealthService::from_health_reporter(app.health.0.clone()));
    let described = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Router::new()
        .route_service(&path(SERVICE_NAME), commands)
        .route_service(&path("grpc.health.v1.Health"), health)
        .route_service(
            &path("grpc.reflection.v1.ServerReflection"),
            described().build_v1()?,
        )
        .route_service(
            &path("grpc.reflection.v1alpha.ServerReflection"),
            described().build_v1alpha()?,
        ))
}

fn path(service: &str) -> String {
    format!("/{service}/{{method}}")
}

/// The calls a kubelet makes without a token.
pub(crate) fn is_health(path: &str) -> bool {
    path == "/grpc.health.v1.Health/Check"
}

/// Whether the caller speaks gRPC, and understands no other answer.
pub(crate) fn is_call(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.starts_with(b"application/grpc") && !kind.starts_with(b"application/grpc-web")
    })
}

/// What is answered to a call in place of an HTTP error.
pub(crate) fn refusal(status: StatusCode, text: &str) -> Response<Body> {
    let status = match status {
        StatusCode::UNAUTHORIZED => Status::unauthenticated(text),
        StatusCode::NOT_FOUND => Status::unimplemented(text),
        StatusCode::MISDIRECTED_REQUEST => Status::failed_precondition(text),
        _ => Status::unavailable(text),
    };
    status.into_http()
}
