//! What stands around the calls: health, reflection, the token, the identity.

use agent_sandbox_runtime::proto::process::v1::ExecuteRequest;
use hyper::HeaderMap;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::{channel, client, config, execute};
use crate::harness::{start, start_with};

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

#[tokio::test]
async fn health_is_that_of_the_service_and_ends_with_it() {
    let server = start().await;
    let origin = format!("http://{}", server.address).parse().unwrap();
    let mut health = HealthClient::with_origin(channel(&server).await, origin);
    for service in ["", "process.v1.ProcessService"] {
        let answer = health.check(check(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let status = health.check(check("other.Service")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let mut watch = health.watch(check("")).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    server.shutdown.trigger();
    let last = watch.message().await.unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    assert!(watch.message().await.unwrap().is_none(), "the watch ends");
}

#[tokio::test]
async fn reflection_describes_the_service() {
    let server = start().await;
    let origin = format!("http://{}", server.address).parse().unwrap();
    let mut reflection = ServerReflectionClient::with_origin(channel(&server).await, origin);
    let ask = |request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    let questions = futures::stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(
            "process.v1.ProcessService".to_owned(),
        )),
    ]);
    let mut answers = reflection
        .server_reflection_info(questions)
        .await
        .unwrap()
        .into_inner();
    let mut answer = async || {
        answers
            .message()
            .await
            .unwrap()
            .unwrap()
            .message_response
            .unwrap()
    };
    let MessageResponse::ListServicesResponse(list) = answer().await else {
        panic!("expected services");
    };
    let names: Vec<&str> = list
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    for name in ["process.v1.ProcessService", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(matches!(
        answer().await,
        MessageResponse::FileDescriptorResponse(files) if !files.file_descriptor_proto.is_empty()
    ));
}

#[tokio::test]
async fn the_token_is_asked_for_in_the_protocols_own_terms() {
    let token = Some(agent_sandbox_runtime::config::TokenSource::Value(
        "hush".into(),
    ));
    let server = start_with(|config| config.token = token).await;
    let mut client = client(&server).await;
    let status = execute(&mut client, config(&["true"])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.message(), "A valid bearer token is required");
    let call = |token: &str| {
        let mut request = Request::new(ExecuteRequest {
            config: config(&["true"]),
        });
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        request
    };
    assert!(client.execute(call("hush")).await.is_ok());
    let status = client.execute(call("hush2")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    // Probes have no token; watching and reflection are no probes.
    let origin: hyper::Uri = format!("http://{}", server.address).parse().unwrap();
    let mut health = HealthClient::with_origin(channel(&server).await, origin.clone());
    assert!(health.check(check("")).await.is_ok());
    let status = health.watch(check("")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let mut reflection = ServerReflectionClient::with_origin(channel(&server).await, origin);
    let nothing = futures::stream::empty();
    let status = reflection
        .server_reflection_info(nothing)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn services_that_are_none_are_unimplemented() {
    let server = start().await;
    let mut sender = channel(&server).await;
    for path in ["/process.v1.ProcessService/Restart", "/other.Service/Call"] {
        let request = hyper::Request::post(format!("http://{}{path}", server.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(tonic::body::Body::empty())
            .unwrap();
        let answer = tower::Service::call(&mut sender, request).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "12", "{path}");
    }
}

#[tokio::test]
async fn every_face_says_whose_answer_it_is() {
    let server = start_with(|config| config.identity = Some("pod-7".parse().unwrap())).await;
    let signed = |headers: &HeaderMap| headers.get("x-sandbox-identity").cloned();
    for path in [
        "/",
        "/healthz",
        "/metrics",
        "/v1/health",
        "/list/",
        "/nowhere",
    ] {
        let answer = server.get(path).await;
        assert_eq!(signed(&answer.headers).unwrap(), "pod-7", "{path}");
    }
    let mut client = client(&server).await;
    let request = ExecuteRequest {
        config: config(&["true"]),
    };
    let answer = client.execute(request).await.unwrap();
    assert_eq!(
        answer.metadata().get("x-sandbox-identity").unwrap(),
        "pod-7"
    );
    let nameless = start().await;
    assert_eq!(signed(&nameless.get("/").await.headers), None);
}
