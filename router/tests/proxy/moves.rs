//! An address that becomes another sandbox's while a request is on its way.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use agent_sandbox_router::Router;
use agent_sandbox_router::resolve::table::{Phase, Table};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::resolution::{loaded, pod, request, sandbox};
use crate::rig::{self, Rig};
use crate::sandbox::{Sandbox, ok};

const RETRIES: &str = r#"sandbox_router_upstream_retries_total{sandbox_namespace="ns"}"#;

/// The sandbox `former` at `address`.
fn table(address: &str) -> std::sync::Arc<Table> {
    let table = loaded();
    table.update(|index| {
        index.apply_sandbox(sandbox("former", Phase::Running));
        index.apply_pod(pod("former", address));
    });
    table
}

/// The pod of `former` is gone and `latter` has its address.
fn hand_over(table: &Table, address: &str) {
    table.update(|index| {
        index.delete_pod(&pod("former", address).uid);
        index.apply_sandbox(sandbox("latter", Phase::Running));
        index.apply_pod(pod("latter", address));
    });
}

/// A socket that refuses whoever comes, until it listens.
fn bound(address: &str) -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    let ip: IpAddr = address.parse().unwrap();
    socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

fn listener(socket: Socket) -> TcpListener {
    socket.set_nonblocking(true).unwrap();
    TcpListener::from_std(socket.into()).unwrap()
}

#[tokio::test]
async fn an_attempt_is_not_repeated_at_an_address_that_is_anothers_by_then() {
    let address = "127.0.0.11";
    let (socket, port) = bound(address);
    let table = table(address);
    let mut config = rig::config();
    config.retry.max = u32::MAX;
    let rig = Rig::build(Router::builder(config).resolver(table.clone()));
    let mut wire = rig.connect().await;
    wire.write(request(port, "X-Sandbox-ID: former\r\n")).await;
    rig::eventually("the first repetition", async || rig.metric(RETRIES) >= 1.0).await;
    hand_over(&table, address);
    socket.listen(16).unwrap();
    let latter = Sandbox::on(listener(socket), |mut wire| async move {
        while wire.head().await.is_some() {
            wire.write(&ok(b"latter")).await;
        }
    });
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.reason()), (503, "not-ready"));
    assert_eq!(latter.connections(), 0);
    let latter = rig.send(&request(port, "X-Sandbox-ID: latter\r\n")).await;
    assert_eq!(latter.text(), "latter");
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_made_too_late_is_not_used() {
    let address = "127.0.0.12";
    let (socket, port) = bound(address);
    // One connection waits to be accepted, and with it the queue is full: the next one hangs.
    socket.listen(0).unwrap();
    let target = SocketAddr::new(address.parse().unwrap(), port);
    let first = tokio::net::TcpStream::connect(target).await.unwrap();
    let table = table(address);
    let mut config = rig::config();
    config.resolution.wait = Duration::ZERO;
    let rig = Rig::build(Router::builder(config).resolver(table.clone()));
    let mut wire = rig.connect().await;
    wire.write(request(port, "X-Sandbox-ID: former\r\n")).await;
    rig::eventually("the request is under way", async || {
        rig.metric("sandbox_router_inflight_requests") >= 1.0
    })
    .await;
    rig::eventually("the router dials", async || dials(target)).await;
    hand_over(&table, address);
    let listener = listener(socket);
    drop(listener.accept().await.unwrap());
    drop(first);
    // The connection is made, and nothing is written to it.
    let (mut late, _) = listener.accept().await.unwrap();
    assert_eq!(late.read(&mut [0]).await.unwrap(), 0);
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.reason()), (503, "not-ready"));
    rig.stop().await;
}

/// Whether a connection to `target` is being made (state `SYN_SENT` in `/proc/net/tcp`).
fn dials(target: SocketAddr) -> bool {
    let SocketAddr::V4(target) = target else {
        return false;
    };
    let ip = u32::from_ne_bytes(target.ip().octets());
    let remote = format!("{ip:08X}:{:04X}", target.port());
    let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
    connections.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next() == Some(&remote) && fields.next() == Some("02")
    })
}
