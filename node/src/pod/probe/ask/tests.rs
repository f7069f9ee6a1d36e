//! Questions to real servers on loopback.

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::response::Redirect;
use axum::routing::{any, get};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};

use super::*;

const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn container() -> ContainerSpec {
    serde_json::from_value(json!({
        "name": "c",
        "ports": [{"name": "web", "containerPort": 8888}],
    }))
    .unwrap()
}

fn question(probe: Value) -> Result<Question, String> {
    let probe: Probe = serde_json::from_value(probe).unwrap();
    Question::of_probe(&probe, &container(), IP)
}

fn asker() -> Asker {
    let init = crate::process::spawn::InitProgram::current();
    Asker::new(Spawner::new(init).unwrap())
}

#[test]
fn every_action_is_understood() {
    let http = |path: &str| Question::Http {
        host: "127.0.0.1".into(),
        port: 8888,
        tls: false,
        path: path.into(),
        headers: vec![],
    };
    for (probe, expected) in [
        (json!({"httpGet": {"port": 8888}}), http("/")),
        (
            json!({"httpGet": {"port": "web", "path": "ready?x=1"}}),
            http("/ready?x=1"),
        ),
        (
            json!({"httpGet": {"port": 1, "host": "example", "scheme": "HTTPS", "path": "/",
                   "httpHeaders": [{"name": "A", "value": "b"}]}}),
            Question::Http {
                host: "example".into(),
                port: 1,
                tls: true,
                path: "/".into(),
                headers: vec![("A".into(), "b".into())],
            },
        ),
        (
            json!({"tcpSocket": {"port": "web"}}),
            Question::Tcp {
                host: "127.0.0.1".into(),
                port: 8888,
            },
        ),
        (
            json!({"grpc": {"port": 9, "service": "s"}}),
            Question::Grpc {
                host: "127.0.0.1".into(),
                port: 9,
                service: "s".into(),
            },
        ),
        (
            json!({"exec": {"command": ["a", "b"]}}),
            Question::Exec {
                command: vec!["a".into(), "b".into()],
            },
        ),
    ] {
        assert_eq!(question(probe), Ok(expected));
    }
    for bad in [
        json!({}),
        json!({"httpGet": {"port": "nope"}}),
        json!({"httpGet": {"port": 0}}),
        json!({"tcpSocket": {"port": 70_000}}),
        json!({"grpc": {"port": -1}}),
    ] {
        assert!(question(bad.clone()).is_err(), "{bad}");
    }
}

#[test]
fn redirects_stay_on_the_host() {
    let from = (8080, false, "/a".to_owned());
    for (location, expected) in [
        ("/b?c", Some((8080, false, "/b?c".to_owned()))),
        ("http://h/b", Some((80, false, "/b".to_owned()))),
        ("https://h:9/b", Some((9, true, "/b".to_owned()))),
        ("http://other/b", None),
        ("not a uri", None),
    ] {
        assert_eq!(redirect("h", &from, location), expected, "{location}");
    }
}

async fn serve(router: Router) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind((IP, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    #[allow(
        clippy::disallowed_methods,
        reason = "the server lives as long as the test"
    )]
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, task)
}

#[tokio::test]
async fn http_answers_decide_by_status() {
    let router = Router::new()
        .route("/ok", get(|| async { "fine" }))
        .route("/bad", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
        .route("/moved", get(|| async { Redirect::to("/bad") }))
        .route(
            "/away",
            get(|| async { Redirect::to("http://elsewhere.invalid/") }),
        )
        .route("/loop", get(|| async { Redirect::to("/loop") }))
        .route(
            "/header",
            get(|headers: http::HeaderMap| async move {
                match headers.get("x-probe").map(HeaderValue::as_bytes) {
                    Some(b"yes") => StatusCode::OK,
                    _ => StatusCode::FORBIDDEN,
                }
            }),
        )
        .route("/slow", any(std::future::pending::<()>));
    let (address, _server) = serve(router).await;
    let headers = vec![("X-Probe".to_owned(), "yes".to_owned())];
    for (path, expected) in [
        ("/ok", Ok(())),
        ("/bad", Err("HTTP probe failed with statuscode: 503")),
        ("/missing", Err("HTTP probe failed with statuscode: 404")),
        ("/moved", Err("HTTP probe failed with statuscode: 503")),
        ("/away", Ok(())),
        ("/loop", Err("stopped after 10 redirects")),
        ("/header", Ok(())),
    ] {
        let answer = asker()
            .http("127.0.0.1", address.port(), false, path, &headers)
            .await;
        assert_eq!(answer, expected.map_err(str::to_owned), "{path}");
    }
    let refused = asker().http("127.0.0.1", 1, false, "/", &[]).await;
    assert!(
        refused
            .unwrap_err()
            .starts_with("Get \"http://127.0.0.1:1/\": ")
    );
    let garbage = vec![("bad name".to_owned(), "x".to_owned())];
    let error = asker().http("127.0.0.1", 1, false, "/", &garbage).await;
    assert!(error.unwrap_err().contains("bad name"));
}

#[tokio::test]
async fn tcp_needs_a_listener() {
    let listener = TcpListener::bind((IP, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tcp("127.0.0.1", port).await.unwrap();
    // Taken without listening, so that nobody else does.
    let taken = TcpSocket::new_v4().unwrap();
    taken.set_reuseaddr(true).unwrap();
    taken.bind((IP, 0).into()).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = tcp("127.0.0.1", port).await.unwrap_err();
    assert!(
        error.starts_with(&format!("dial tcp 127.0.0.1:{port}: ")),
        "{error}"
    );
}

#[tokio::test]
async fn grpc_speaks_the_health_protocol() {
    async fn check(body: Bytes) -> http::Response<axum::body::Body> {
        let status: u8 = match body.as_ref() {
            [0, 0, 0, 0, 0] => 1,
            [0, 0, 0, 0, 6, 0x0a, 4, b's', b'i', b'c', b'k'] => 2,
            _ => 3,
        };
        let trailers = async {
            Some(Ok(http::HeaderMap::from_iter([(
                HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )])))
        };
        let body = Full::new(Bytes::from(vec![0, 0, 0, 0, 2, 0x08, status]));
        http::Response::new(axum::body::Body::new(body.with_trailers(trailers)))
    }
    let router = Router::new().route("/grpc.health.v1.Health/Check", any(check));
    let (address, _server) = serve(router).await;
    let ask = |service: &'static str| grpc("127.0.0.1", address.port(), service);
    assert_eq!(ask("").await, Ok(()));
    assert!(ask("sick").await.unwrap_err().contains("NOT_SERVING"));
    assert!(ask("other").await.unwrap_err().contains("SERVICE_UNKNOWN"));
}

#[tokio::test]
async fn https_accepts_any_certificate() {
    let certified = rcgen::generate_simple_self_signed(["wrong.example".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((IP, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        let service = hyper::service::service_fn(|_| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(Empty::<Bytes>::new()))
        });
        // The client closes without waiting for the end of the connection.
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await
            .ok();
    };
    let asker = asker();
    let (answer, ()) = tokio::join!(asker.http("127.0.0.1", port, true, "/", &[]), server);
    assert_eq!(answer, Ok(()));
}
