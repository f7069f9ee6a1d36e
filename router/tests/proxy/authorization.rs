//! Who may reach which sandbox.

use std::time::Duration;

use agent_sandbox_router::Router;
use agent_sandbox_router::authz::review::{ReviewSettings, Reviews};
use agent_sandbox_router::authz::scoped_token::{Key, ScopedTokens};
use agent_sandbox_router::authz::static_token::StaticToken;
use agent_sandbox_router::authz::{Authorizer, Subject};
use agent_sandbox_router::config::PodIpPolicy;
use agent_sandbox_router::resolve::fixed::Fixed;
use agent_sandbox_service::clock::Clock;

use crate::rig::{self, LOOPBACK, Rig};
use crate::sandbox::Sandbox;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

fn tokens() -> ScopedTokens {
    ScopedTokens::new(Key::new(KEY).unwrap(), Vec::new(), Clock::system())
}

fn bearing(request: &str, token: &str) -> String {
    request.replace("Host:", &format!("Authorization: Bearer {token}\r\nHost:"))
}

#[tokio::test]
async fn open_routers_ask_nobody_and_still_drop_credentials() {
    let stub = Sandbox::mirror();
    let rig = Rig::start(rig::config());
    let reply = rig.send(&bearing(&stub.get("/"), "secret")).await;
    assert_eq!(reply.status, 200);
    assert!(!reply.text().contains("secret"));
    rig.stop().await;
}

/// A cluster that knows one token, and whom it lets reach everything.
fn reviews() -> Authorizer {
    let service = tower::service_fn(|request: http::Request<kube::client::Body>| async move {
        let status = if request.uri().path().ends_with("/tokenreviews") {
            serde_json::json!({"authenticated": true, "user": {"username": "ann"}})
        } else {
            serde_json::json!({"allowed": true})
        };
        let review = serde_json::json!({"metadata": {}, "spec": {}, "status": status});
        let body = kube::client::Body::from(review.to_string().into_bytes());
        Ok::<_, std::convert::Infallible>(http::Response::new(body))
    });
    let settings = ReviewSettings {
        audiences: Vec::new(),
        require_token: true,
        access: true,
        ttl: Duration::from_secs(30),
        cache_size: 10,
    };
    let client = kube::Client::new(service, "default");
    Authorizer::Review(Box::new(Reviews::new(client, settings)))
}

#[tokio::test]
async fn no_mode_lets_a_credential_reach_a_sandbox_or_a_log() {
    let mine = Subject {
        namespace: "ns",
        name: "box",
    };
    let scoped = tokens().mint(mine, Duration::from_secs(60)).unwrap();
    for (authorizer, token) in [
        (Authorizer::AllowAll, "open-secret"),
        (
            Authorizer::Static(StaticToken::new("static-secret").unwrap()),
            "static-secret",
        ),
        (Authorizer::Scoped(tokens()), scoped.as_str()),
        (reviews(), "reviewed-secret"),
    ] {
        let stub = Sandbox::recording();
        let rig = Rig::start(rig::with(authorizer));
        let route = stub.sandbox.route();
        for (path, switch) in [
            ("/plain", ""),
            ("/upgrade", "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        ] {
            // Named by `Connection` or said twice, it does not get any further.
            let request = format!(
                "GET {path}?token={token} HTTP/1.1\r\n{route}{switch}Authorization: Bearer {token}\r\n\
                 Proxy-Authorization: Bearer {token}\r\n\r\n"
            );
            assert_eq!(rig.send(&request).await.status, 200);
            rig.logged(path).await;
        }
        let refused = bearing(&stub.sandbox.get("/refused"), &format!("{token}x"));
        rig.send(&refused.replace("ID: box", "ID: nobody")).await;
        rig.logged("/refused").await;
        let log = rig.log_text();
        rig.stop().await;
        let heard = stub.heard().concat().to_ascii_lowercase();
        let query = format!("?token={token} http").to_ascii_lowercase();
        assert_eq!(heard.matches(&query).count(), 2, "{heard}");
        let elsewhere = heard.replace(&query, "");
        assert!(!elsewhere.contains(&token.to_ascii_lowercase()), "{heard}");
        assert!(!heard.contains("authorization"), "{heard}");
        assert!(!log.contains(token), "{log}");
    }
}

#[tokio::test]
async fn an_address_that_callers_choose_is_not_what_a_scoped_token_opens() {
    let stub = Sandbox::mirror();
    let mut config = rig::with(Authorizer::Scoped(tokens()));
    config.resolution.pod_ip = PodIpPolicy::Trust { loopback: true };
    let rig = Rig::start(config);
    let mine = Subject {
        namespace: "ns",
        name: "box",
    };
    let token = tokens().mint(mine, Duration::from_secs(60)).unwrap();
    let request = bearing(&stub.get("/"), &token);
    assert_eq!(rig.send(&request).await.status, 200);
    let elsewhere = request.replace("Host:", "X-Sandbox-Pod-IP: 127.0.0.1\r\nHost:");
    assert_eq!(rig.send(&elsewhere).await.status, 403);
    rig.stop().await;
}

#[tokio::test]
async fn a_static_token_is_asked_for_before_anything_else() {
    let stub = Sandbox::mirror();
    let token = Authorizer::Static(StaticToken::new("s3cret").unwrap());
    let rig = Rig::start(rig::with(token));
    let nothing = "GET / HTTP/1.1\r\nHost: r\r\n\r\n";
    let reply = rig.send(nothing).await;
    assert_eq!(
        (reply.status, reply.detail().as_str()),
        (401, "Missing or invalid Authorization header.")
    );
    assert_eq!(reply.head.get("www-authenticate"), Some("Bearer"));
    let reply = rig.send(&bearing(&stub.get("/"), "wrong")).await;
    assert_eq!(
        (reply.status, reply.detail().as_str()),
        (401, "Invalid token.")
    );
    assert_eq!(rig.send(&bearing(nothing, "s3cret")).await.status, 400);
    let reply = rig.send(&bearing(&stub.get("/"), "s3cret")).await;
    assert_eq!(reply.status, 200);
    assert!(
        !reply.text().contains("s3cret"),
        "the token stops at the router"
    );
    // Probes of the router itself need no token.
    let healthy = rig.send("GET /healthz HTTP/1.1\r\nHost: r\r\n\r\n").await;
    assert_eq!(healthy.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn a_scoped_token_opens_its_sandbox_and_no_other() {
    let stub = Sandbox::mirror();
    let table = Fixed::new()
        .sandbox("ns", "box", LOOPBACK)
        .sandbox("ns", "other", LOOPBACK);
    let config = rig::with(Authorizer::Scoped(tokens()));
    let rig = Rig::build(Router::builder(config).resolver(table.into_table()));
    let mine = Subject {
        namespace: "ns",
        name: "box",
    };
    let token = tokens().mint(mine, Duration::from_secs(60)).unwrap();
    let send = |request: String| {
        let rig = &rig;
        async move {
            let reply = rig.send(&request).await;
            (reply.status, String::from_utf8(reply.body).unwrap())
        }
    };
    let request = bearing(&stub.get("/"), &token);
    assert_eq!(send(request.clone()).await.0, 200);
    // The unmodified Python SDK sends the address it knows, right or stale.
    for ip in ["127.0.0.1", "127.0.0.99", "10.0.0.1"] {
        let hinted = request.replace("Host:", &format!("X-Sandbox-Pod-IP: {ip}\r\nHost:"));
        assert_eq!(send(hinted).await.0, 200, "{ip}");
    }
    let same_by_uid = request.replace("Host:", "X-Sandbox-UID: uid-ns-box\r\nHost:");
    assert_eq!(send(same_by_uid).await.0, 200);

    let forbidden = (403, r#"{"detail":"forbidden"}"#.to_owned());
    assert_eq!(
        send(request.replace("ID: box", "ID: other")).await,
        forbidden
    );
    assert_eq!(
        send(request.replace("Namespace: ns", "Namespace: x")).await,
        forbidden
    );
    // A UID must not lead past the token.
    let other_by_uid = request.replace("Host:", "X-Sandbox-UID: uid-ns-other\r\nHost:");
    assert_eq!(send(other_by_uid).await, forbidden);

    let unknown = (401, r#"{"detail":"unauthenticated"}"#.to_owned());
    assert_eq!(send(stub.get("/")).await, unknown);
    assert_eq!(
        send(bearing(&stub.get("/"), &token[..token.len() - 4])).await,
        unknown
    );
    assert_eq!(send(request.replace("Bearer", "Basic")).await, unknown);
    rig.stop().await;
}

#[tokio::test]
async fn decisions_are_counted() {
    let stub = Sandbox::mirror();
    let rig = Rig::start(rig::with(Authorizer::Scoped(tokens())));
    let subject = Subject {
        namespace: "ns",
        name: "box",
    };
    let token = tokens().mint(subject, Duration::from_secs(60)).unwrap();
    rig.send(&bearing(&stub.get("/"), &token)).await;
    rig.send(&stub.get("/").replace("Namespace: ns", "Namespace: made-up"))
        .await;
    rig.send(&stub.get("/")).await;
    let decisions = |namespace: &str, decision: &str| {
        rig.metric(&format!(
            r#"sandbox_router_authz_decisions_total{{decision="{decision}",sandbox_namespace="{namespace}"}}"#
        ))
    };
    // The first decision comes before the namespace is known to exist.
    assert!(decisions("-", "allow") + decisions("ns", "allow") == 1.0);
    assert!(decisions("ns", "deny") == 1.0);
    assert!(decisions("-", "deny") == 1.0);
    assert!(!rig.metrics.encode().contains("made-up"));
    rig.stop().await;
}

#[tokio::test]
async fn a_refused_websocket_is_refused_as_a_response() {
    let rig = Rig::start(rig::with(Authorizer::Scoped(tokens())));
    let stub = Sandbox::mirror();
    let upgrade = stub.get("/").replace(
        "Host:",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nHost:",
    );
    let reply = rig.send(&upgrade).await;
    assert_eq!((reply.status, reply.reason()), (401, "unauthenticated"));
    assert_eq!(stub.connections(), 0);
    rig.stop().await;
}
