//! Which address a request is sent to.

use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_router::Router;
use agent_sandbox_router::config::PodIpPolicy;
use agent_sandbox_router::resolve::fixed::Fixed;
use agent_sandbox_router::resolve::table::{
    Addresses, Kind, Phase, PodFacts, SandboxFacts, Table, Trust, Uid,
};
use agent_sandbox_service::listen;

use crate::rig::{self, LONG, LOOPBACK, Rig, StoppedClock};
use crate::sandbox::{Sandbox, ok, reserved};

pub(crate) fn sandbox(name: &str, phase: Phase) -> SandboxFacts {
    SandboxFacts {
        uid: Uid::parse(&format!("uid-{name}")).unwrap(),
        namespace: "ns".into(),
        name: name.into(),
        pod_name: None,
        phase,
        pooled: false,
    }
}

pub(crate) fn pod(name: &str, address: &str) -> PodFacts {
    PodFacts {
        uid: Uid::parse(&format!("pod-{name}-{address}")).unwrap(),
        namespace: "ns".into(),
        name: name.into(),
        sandbox_uid: Uid::parse(&format!("uid-{name}")).unwrap(),
        sandbox_name: name.into(),
        addresses: Addresses::new([address.parse().unwrap()]),
        ready: true,
        deleting: false,
        pooled: false,
    }
}

pub(crate) fn loaded() -> Arc<Table> {
    let table = Table::new(Trust::Sandboxes, None);
    table.set_loaded(Kind::Pods);
    table.set_loaded(Kind::Sandboxes);
    Arc::new(table)
}

/// Answers with its own name.
fn named(address: &str, port: u16, name: &'static str) -> Sandbox {
    let listener =
        listen::bind((address.parse::<std::net::IpAddr>().unwrap(), port).into()).unwrap();
    Sandbox::on(listener, move |mut wire| async move {
        while wire.head().await.is_some() {
            wire.write(&ok(name.as_bytes())).await;
        }
    })
}

pub(crate) fn request(port: u16, more: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: r\r\nX-Sandbox-Namespace: ns\r\nX-Sandbox-Port: {port}\r\n{more}\r\n"
    )
}

#[tokio::test]
async fn a_uid_beats_a_name_and_a_name_serves_when_the_uid_is_unknown() {
    let by_name = named("127.0.0.2", 0, "by name");
    let port = by_name.port();
    named("127.0.0.3", port, "by uid");
    let table = loaded();
    table.update(|index| {
        index.apply_sandbox(sandbox("one", Phase::Running));
        index.apply_sandbox(sandbox("two", Phase::Running));
        index.apply_pod(pod("one", "127.0.0.2"));
        index.apply_pod(pod("two", "127.0.0.3"));
    });
    let rig = Rig::build(Router::builder(rig::config()).resolver(table));
    let name = "X-Sandbox-ID: one\r\n";
    let both = format!("{name}X-Sandbox-UID: uid-two\r\n");
    let unknown = format!("{name}X-Sandbox-UID: 0b5f7a52-93f5-4f0a-9c2b-6f3c0d2f1a11\r\n");
    assert_eq!(rig.send(&request(port, name)).await.text(), "by name");
    assert_eq!(rig.send(&request(port, &both)).await.text(), "by uid");
    assert_eq!(rig.send(&request(port, &unknown)).await.text(), "by name");
    rig.stop().await;
}

#[tokio::test]
async fn names_are_scoped_by_namespace() {
    let stub = Sandbox::answering(ok(b"here"));
    let rig = Rig::start(rig::config());
    let elsewhere = stub.get("/").replace("Namespace: ns", "Namespace: other");
    assert_eq!(rig.send(&stub.get("/")).await.text(), "here");
    let reply = rig.send(&elsewhere).await;
    assert_eq!(reply.status, 404);
    assert_eq!(
        reply.detail(),
        "Sandbox box was not found in namespace other."
    );
    assert_eq!(stub.connections(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn the_pod_ip_header_is_a_hint_that_the_table_checks() {
    let here = named("127.0.0.4", 0, "the pod");
    let port = here.port();
    let decoy = named("127.0.0.5", port, "somebody else");
    let table = loaded();
    table.update(|index| {
        index.apply_sandbox(sandbox("box", Phase::Running));
        let mut facts = pod("box", "127.0.0.4");
        facts.addresses =
            Addresses::new(["127.0.0.4".parse().unwrap(), "127.0.0.6".parse().unwrap()]);
        index.apply_pod(facts);
    });
    let second = named("127.0.0.6", port, "the pod's second address");
    let rig = Rig::build(Router::builder(rig::config()).resolver(table));
    let send = |ip: &str| {
        let request = request(
            port,
            &format!("X-Sandbox-ID: box\r\nX-Sandbox-Pod-IP: {ip}\r\n"),
        );
        let rig = &rig;
        async move { rig.send(&request).await.text().to_owned() }
    };
    assert_eq!(send("127.0.0.4").await, "the pod");
    assert_eq!(send("127.0.0.6").await, "the pod's second address");
    // The address of an earlier pod, as clients remember it, or a lie.
    assert_eq!(send("127.0.0.5").await, "the pod");
    assert_eq!(send("10.0.0.5").await, "the pod");
    assert_eq!(decoy.connections(), 0);
    assert!(second.connections() > 0);
    assert!(rig.metric(r#"sandbox_router_pod_ip_hints_total{outcome="agreed"}"#) == 2.0);
    assert!(rig.metric(r#"sandbox_router_pod_ip_hints_total{outcome="stale"}"#) == 2.0);
    rig.stop().await;
}

#[tokio::test]
async fn a_loopback_hint_is_refused_where_pods_have_no_loopback_addresses() {
    let table = loaded();
    table.update(|index| {
        index.apply_sandbox(sandbox("box", Phase::Running));
        index.apply_pod(pod("box", "10.0.0.1"));
    });
    let rig = Rig::build(Router::builder(rig::config()).resolver(table));
    for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        let hint = format!("X-Sandbox-ID: box\r\nX-Sandbox-Pod-IP: {ip}\r\n");
        let reply = rig.send(&request(1, &hint)).await;
        assert_eq!(reply.status, 400, "{ip}");
        assert_eq!(reply.detail(), "Invalid target IP address.");
    }
    rig.stop().await;
}

#[tokio::test]
async fn an_unknown_sandbox_is_not_dialled_whatever_address_comes_with_it() {
    let stub = Sandbox::answering(ok(b"reached"));
    let rig = Rig::start(rig::config());
    let request = stub
        .get("/")
        .replace("ID: box", "ID: nobody\r\nX-Sandbox-Pod-IP: 127.0.0.1");
    assert_eq!(rig.send(&request).await.status, 404);
    assert_eq!(stub.connections(), 0);
    rig.stop().await;
}

#[tokio::test]
async fn trusting_the_pod_ip_header_is_a_choice_and_beats_everything() {
    let stub = named("127.0.0.7", 0, "dialled");
    let mut config = rig::config();
    config.resolution.pod_ip = PodIpPolicy::Trust { loopback: true };
    let rig = Rig::start(config);
    let hint = "X-Sandbox-ID: box\r\nX-Sandbox-Pod-IP: 127.0.0.7\r\n";
    assert_eq!(
        rig.send(&request(stub.port(), hint)).await.text(),
        "dialled"
    );
    assert_eq!(rig.logged("/").await["source"], "pod-ip");
    rig.stop().await;

    let mut config = rig::config();
    config.resolution.pod_ip = PodIpPolicy::Trust { loopback: false };
    let rig = Rig::start(config);
    let reply = rig.send(&request(stub.port(), hint)).await;
    assert_eq!(
        (reply.status, reply.detail().as_str()),
        (400, "Invalid target IP address.")
    );
    rig.stop().await;
}

#[tokio::test]
async fn ipv6_targets_are_bracketed() {
    let stub = Sandbox::on(
        listen::bind("[::1]:0".parse().unwrap()).unwrap(),
        |mut wire| async move {
            while let Some(head) = wire.head().await {
                wire.write(&ok(head.get("host").unwrap().as_bytes())).await;
            }
        },
    );
    let table = Fixed::new().sandbox("ns", "box", "::1".parse().unwrap());
    let rig = Rig::build(Router::builder(rig::config()).resolver(table.into_table()));
    let reply = rig.send(&stub.get("/v6")).await;
    assert_eq!(reply.text(), format!("[::1]:{}", stub.port()));
    let upstream = format!("[::1]:{}", stub.port());
    assert_eq!(rig.logged("/v6").await["upstream"], upstream.as_str());
    rig.stop().await;
}

#[tokio::test]
async fn without_a_table_and_on_a_miss_names_are_made_for_dns() {
    let mut config = rig::config();
    config.resolution.dns = Some("cluster.invalid".into());
    config.time.connect = Duration::from_secs(5);
    config.retry.max = 0;
    let only_dns = Rig::build(Router::builder(config.clone()));
    let fallback = Rig::start(config);
    for rig in [&only_dns, &fallback] {
        let reply = rig
            .send(&request(8888, "X-Sandbox-ID: elsewhere\r\n").replace("/ HTTP", "/dns HTTP"))
            .await;
        assert_eq!(reply.status, 502);
        assert_eq!(
            reply.detail(),
            "Could not connect to the backend sandbox: elsewhere"
        );
        let line = rig.logged("/dns").await;
        assert_eq!(line["source"], "dns");
        assert_eq!(line["upstream"], "elsewhere.ns.svc.cluster.invalid:8888");
        // Names that could point anywhere are not made into DNS names.
        let reply = rig
            .send(&request(8888, "X-Sandbox-ID: foo.evil.com\r\n"))
            .await;
        assert_eq!(
            (reply.status, reply.detail().as_str()),
            (400, "Invalid sandbox ID format.")
        );
        assert!(
            rig.metric(r#"sandbox_router_cache_invalidations_total{sandbox_namespace="ns"}"#)
                == 0.0
        );
    }
    only_dns.stop().await;
    fallback.stop().await;
}

#[tokio::test]
async fn long_and_dotted_names_are_routed_when_a_sandbox_has_them() {
    let stub = Sandbox::answering(ok(b"found"));
    let long = "a".repeat(64);
    let table = Fixed::new()
        .sandbox("ns", "team.box", LOOPBACK)
        .sandbox("ns", &long, LOOPBACK);
    let rig = Rig::build(Router::builder(rig::config()).resolver(table.into_table()));
    for id in ["team.box", long.as_str()] {
        let reply = rig
            .send(&stub.get("/").replace("ID: box", &format!("ID: {id}")))
            .await;
        assert_eq!(reply.text(), "found");
    }
    for id in ["foo.evil.com", &"b".repeat(64)] {
        let reply = rig
            .send(&stub.get("/").replace("ID: box", &format!("ID: {id}")))
            .await;
        assert_eq!(
            (reply.status, reply.detail().as_str()),
            (400, "Invalid sandbox ID format.")
        );
    }
    rig.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_sandbox_is_told() {
    let table = loaded();
    table.update(|index| {
        index.apply_sandbox(sandbox("asleep", Phase::Suspended));
        index.apply_sandbox(sandbox("starting", Phase::Running));
        index.apply_sandbox(sandbox("expired", Phase::Gone));
        index.apply_sandbox(sandbox("done", Phase::Finished));
        index.apply_sandbox(sandbox("deleted", Phase::Running));
    });
    table.update(|index| index.delete_sandbox(&Uid::parse("uid-deleted").unwrap()));
    let rig = Rig::build(Router::builder(rig::config()).resolver(table));
    for (name, status, reason) in [
        ("asleep", 409, "suspended"),
        ("starting", 503, "not-ready"),
        ("expired", 410, "gone"),
        ("done", 410, "gone"),
        ("deleted", 410, "gone"),
        ("never-was", 404, "unknown-sandbox"),
    ] {
        let reply = rig
            .send(&request(1, &format!("X-Sandbox-ID: {name}\r\n")))
            .await;
        assert_eq!((reply.status, reply.reason()), (status, reason), "{name}");
        let retry = (status == 503).then_some("1");
        assert_eq!(reply.head.get("retry-after"), retry, "{name}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_request_that_comes_before_its_sandbox_waits_for_it() {
    let stub = Sandbox::answering(ok(b"worth the wait"));
    let table = loaded();
    let mut config = rig::config();
    config.resolution.wait = rig::DEADLINE;
    let rig = Rig::build(Router::builder(config).resolver(table.clone()));
    let mut early = rig.connect().await;
    early.write(stub.get("/")).await;
    rig.metric_is("sandbox_router_waiting_requests", 1.0).await;
    // The Sandbox alone is not enough, nor is a pod that is not ready.
    table.update(|index| index.apply_sandbox(sandbox("box", Phase::Running)));
    let mut facts = pod("box", "127.0.0.1");
    facts.ready = false;
    table.update(|index| index.apply_pod(facts.clone()));
    facts.ready = true;
    table.update(|index| index.apply_pod(facts));
    assert_eq!(early.reply().await.text(), "worth the wait");
    rig.metric_is("sandbox_router_waiting_requests", 0.0).await;
    rig.stop().await;
}

#[tokio::test]
async fn only_so_many_requests_wait() {
    let table = loaded();
    let mut config = rig::config();
    config.resolution.wait = rig::DEADLINE;
    config.resolution.max_waiting = 1;
    let rig = Rig::build(Router::builder(config).resolver(table.clone()));
    let mut first = rig.connect().await;
    first.write(request(1, "X-Sandbox-ID: a\r\n")).await;
    rig.metric_is("sandbox_router_waiting_requests", 1.0).await;
    let reply = rig.send(&request(1, "X-Sandbox-ID: b\r\n")).await;
    assert_eq!((reply.status, reply.reason()), (503, "overloaded"));
    // A client that leaves gives its place back.
    drop(first);
    rig.metric_is("sandbox_router_waiting_requests", 0.0).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_router_that_has_not_loaded_its_table_says_so() {
    let table = Arc::new(Table::new(Trust::Sandboxes, None));
    let rig = Rig::build(Router::builder(rig::config()).resolver(table));
    let reply = rig.send(&request(1, "X-Sandbox-ID: a\r\n")).await;
    assert_eq!((reply.status, reply.reason()), (503, "loading"));
    rig.stop().await;
}

#[tokio::test]
async fn namespaces_outside_the_watch_are_named() {
    let table = Table::new(Trust::Pods, Some("mine"));
    table.set_loaded(Kind::Pods);
    let rig = Rig::build(Router::builder(rig::config()).resolver(Arc::new(table)));
    let reply = rig.send(&request(1, "X-Sandbox-ID: a\r\n")).await;
    assert_eq!(
        (reply.status, reply.detail().as_str()),
        (404, "This router serves namespace mine only, not ns.")
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_made_to_one_pod_is_never_used_for_its_successor() {
    // The successor gets the same address and port, so only the table tells them apart.
    let stub = Sandbox::answering(ok(b"x"));
    let table = loaded();
    table.update(|index| {
        index.apply_sandbox(sandbox("box", Phase::Running));
        index.apply_pod(pod("box", "127.0.0.1"));
    });
    let rig = Rig::build(Router::builder(rig::config()).resolver(table.clone()));
    for _ in 0..3 {
        rig.send(&stub.get("/")).await;
    }
    assert_eq!(stub.connections(), 1, "kept between requests");
    table.update(|index| {
        index.delete_pod(&Uid::parse("pod-box-127.0.0.1").unwrap());
        let mut successor = pod("box", "127.0.0.1");
        successor.uid = Uid::parse("another").unwrap();
        index.apply_pod(successor);
    });
    rig.send(&stub.get("/")).await;
    assert_eq!(stub.connections(), 2);
    rig.stop().await;
}

/// An address of this machine where connecting neither succeeds nor fails: the queue of its listener
/// is full.
struct Silent {
    address: std::net::SocketAddr,
    _held: Vec<socket2::Socket>,
}

impl Silent {
    fn new() -> Self {
        use socket2::{Domain, Socket, Type};
        let any: std::net::SocketAddr = "127.0.0.8:0".parse().unwrap();
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = vec![listener];
        // Until one more does not get through.
        loop {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let connected = socket.connect_timeout(&address, Duration::from_millis(100));
            held.push(socket);
            if connected.is_err() {
                break;
            }
        }
        Self {
            address: address.as_socket().unwrap(),
            _held: held,
        }
    }
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_left_alone_for_a_while() {
    let silent = tokio::task::spawn_blocking(Silent::new).await.unwrap();
    let table = loaded();
    table.update(|index| {
        index.apply_sandbox(sandbox("box", Phase::Running));
        index.apply_pod(pod("box", "127.0.0.8"));
    });
    let mut config = rig::config();
    config.time.connect = Duration::from_millis(50);
    config.retry.max = 1;
    config.resolution.quarantine = LONG;
    let rig = Rig::build(Router::builder(config).resolver(table.clone()));
    let invalidations = r#"sandbox_router_cache_invalidations_total{sandbox_namespace="ns"}"#;
    let to_silent = request(silent.address.port(), "X-Sandbox-ID: box\r\n");
    let reply = rig.send(&to_silent).await;
    assert_eq!(
        (reply.status, reply.detail().as_str()),
        (502, "Could not connect to the backend sandbox: box")
    );
    assert!(rig.metric(invalidations) == 1.0);
    let reply = rig.send(&to_silent).await;
    assert_eq!((reply.status, reply.reason()), (503, "unreachable"));
    assert!(rig.metric(invalidations) == 1.0, "reported once");

    // The pod moves: the verdict was about the old address only.
    let stub = Sandbox::answering(ok(b"moved"));
    table.update(|index| {
        index.delete_pod(&Uid::parse("pod-box-127.0.0.8").unwrap());
        index.apply_pod(pod("box", "127.0.0.1"));
    });
    // However long this connection takes, its bound does not pass.
    let clock = StoppedClock::now();
    assert_eq!(rig.send(&stub.get("/")).await.text(), "moved");
    drop(clock);
    rig.stop().await;
}

#[tokio::test]
async fn a_refused_connection_proves_a_live_pod() {
    let stub = Sandbox::answering(ok(b"right port"));
    let (_socket, closed) = reserved();
    let rig = Rig::start(rig::config());
    let reply = rig.send(&request(closed, "X-Sandbox-ID: box\r\n")).await;
    assert_eq!(reply.status, 502);
    assert!(reply.detail().ends_with(": box"));
    assert!(
        rig.metric(r#"sandbox_router_cache_invalidations_total{sandbox_namespace="ns"}"#) == 0.0
    );
    assert!(
        rig.metric(r#"sandbox_router_upstream_errors_total{reason="dial",sandbox_namespace="ns"}"#)
            == 1.0
    );
    assert_eq!(rig.send(&stub.get("/")).await.text(), "right port");
    rig.stop().await;
}
