//! The transport against servers of both protocols, and against connections that die in silence.
#![allow(
    clippy::disallowed_methods,
    reason = "what is spawned here ends with the test's runtime"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use agent_sandbox_service::server::Server;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::{listen, tls};
use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Version;
use axum::routing::get;
use http_body_util::BodyExt;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

/// A server that answers with the version spoken and the connection's other end.
struct Site {
    address: SocketAddr,
    authority: Vec<u8>,
    tls: Arc<rustls::ServerConfig>,
    stop: Shutdown,
    serving: JoinHandle<()>,
}

async fn report(ConnectInfo(peer): ConnectInfo<SocketAddr>, version: Version) -> String {
    // A call that is under way while the others come.
    tokio::task::yield_now().await;
    format!("{version:?} {peer}")
}

fn certificate(protocols: &[&str]) -> (Vec<u8>, Arc<rustls::ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let config = tls::from_pem(pem.as_bytes(), "crt", key.as_bytes(), "key").unwrap();
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    (made.cert.der().to_vec(), Arc::new(config))
}

impl Site {
    fn open(protocols: &[&str]) -> Self {
        let (authority, tls) = certificate(protocols);
        Self::open_at("127.0.0.1:0".parse().unwrap(), authority, tls)
    }

    fn open_at(address: SocketAddr, authority: Vec<u8>, tls: Arc<rustls::ServerConfig>) -> Self {
        let listener = listen::bind(address).unwrap();
        let stop = Shutdown::new();
        let router = Router::new()
            .route("/", get(report))
            .route("/never", get(std::future::pending::<()>));
        let server = Server::new(router).tls(tls.clone());
        Self {
            address: listener.local_addr().unwrap(),
            authority,
            tls,
            stop: stop.clone(),
            serving: tokio::spawn(server.serve(listener, stop, Duration::from_secs(5))),
        }
    }

    /// Ends this server and opens another one in its place.
    async fn replace(self) -> Self {
        self.stop.trigger();
        self.serving.await.unwrap();
        Self::open_at(self.address, self.authority, self.tls)
    }

    fn transport(&self) -> Transport {
        self.transport_to(self.address, Patience::default())
    }

    fn transport_to(&self, address: SocketAddr, patience: Patience) -> Transport {
        let mut config = Config::new(format!("https://{address}").parse().unwrap());
        config.root_cert = Some(vec![self.authority.clone()]);
        config.tls_server_name = Some("localhost".to_owned());
        Transport::new(&config, patience).unwrap()
    }

    /// What the server says about a call.
    async fn ask(&self, transport: &Transport) -> String {
        let response = transport.clone().call(self.request("/")).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    fn request(&self, path: &str) -> Request<Body> {
        let url = format!("https://{}{path}", self.address);
        Request::get(url).body(Body::empty()).unwrap()
    }
}

#[tokio::test]
async fn a_burst_shares_one_http2_connection() {
    let site = Site::open(&["h2", "http/1.1"]);
    let transport = site.transport();
    // More than a server takes at once on one connection: the rest waits in the client.
    let calls = (0..500).map(|_| site.ask(&transport));
    let answers: BTreeSet<String> = futures::future::join_all(calls).await.into_iter().collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers.first().unwrap().starts_with("HTTP/2.0 "));
    let other = site.ask(&site.transport()).await;
    assert!(
        !answers.contains(&other),
        "each client has its own connection"
    );
}

#[tokio::test]
async fn a_server_without_http2_is_spoken_to_all_the_same() {
    for protocols in [&["http/1.1"][..], &[]] {
        let site = Site::open(protocols);
        let transport = site.transport();
        for _ in 0..2 {
            assert!(site.ask(&transport).await.starts_with("HTTP/1.1 "));
        }
    }
}

#[tokio::test]
async fn a_connection_that_ended_is_replaced_without_an_error() {
    let mut site = Site::open(&["h2"]);
    let transport = site.transport();
    let first = site.ask(&transport).await;
    site = site.replace().await;
    let second = site.ask(&transport).await;
    assert_ne!(first, second);
    assert!(second.starts_with("HTTP/2.0 "));
}

#[tokio::test]
async fn a_server_that_is_away_is_named_and_found_again() {
    let site = Site::open(&["h2"]);
    let transport = site.transport();
    site.stop.trigger();
    site.serving.await.unwrap();
    let call = transport.clone().call(
        Request::get(format!("https://{}/", site.address))
            .body(Body::empty())
            .unwrap(),
    );
    let error = call.await.unwrap_err().to_string();
    assert!(error.contains(&site.address.to_string()), "{error}");
    let site = Site::open_at(site.address, site.authority, site.tls);
    assert!(site.ask(&transport).await.starts_with("HTTP/2.0 "));
}

/// Carries connections to `to`; what arrives at the first one after the order to stop goes nowhere.
async fn valve(to: SocketAddr, stop: Shutdown) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        for number in 0.. {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(to).await.unwrap();
            if number > 0 {
                tokio::spawn(async move { copy_bidirectional(&mut near, &mut far).await });
                continue;
            }
            tokio::select! {
                biased;
                () = stop.triggered() => {}
                _ = copy_bidirectional(&mut near, &mut far) => {}
            }
            held.push((near, far));
        }
    });
    address
}

#[tokio::test]
async fn silence_is_noticed_by_the_client_itself() {
    let site = Site::open(&["h2"]);
    let silence = Shutdown::new();
    let address = valve(site.address, silence.clone()).await;
    let transport = site.transport_to(address, Patience::default());
    let first = site.ask(&transport).await;
    let waiting = transport.clone().call(site.request("/never"));
    silence.trigger();
    // Nothing arrives any more, so that paused time jumps to what the client waits for.
    tokio::time::pause();
    let waiting = tokio::time::timeout(Duration::from_mins(1), waiting).await;
    assert!(waiting.unwrap().is_err(), "its connection is dead");
    tokio::time::resume();
    assert_ne!(site.ask(&transport).await, first);
}

#[tokio::test]
async fn a_call_given_up_after_long_makes_way_for_a_new_connection() {
    let site = Site::open(&["h2"]);
    let transport = site.transport();
    let first = site.ask(&transport).await;
    // Paused time moves only when everybody waits for a later moment.
    tokio::time::pause();
    let early = transport.clone().call(site.request("/never"));
    assert!(futures::poll!(Box::pin(early)).is_pending());
    tokio::time::resume();
    assert_eq!(site.ask(&transport).await, first, "given up at once");
    tokio::time::pause();
    let late = transport.clone().call(site.request("/never"));
    let doubt = Patience::default().doubt;
    assert!(tokio::time::timeout(doubt, late).await.is_err());
    tokio::time::resume();
    assert_ne!(site.ask(&transport).await, first, "given up after long");
}
