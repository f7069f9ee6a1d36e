//! Connections that switch protocols: WebSocket and any other.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::rig::{self, LONG, Rig, StoppedClock};
use crate::sandbox::{Sandbox, ok, reserved};
use crate::wire::Wire;

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: yes\r\n\r\n";

/// Switches, then echoes every byte.
fn echoing() -> Sandbox {
    Sandbox::start(|mut wire| async move {
        wire.head().await.unwrap();
        wire.write(SWITCH).await;
        let (mut reader, mut writer) = wire.stream.into_split();
        tokio::io::copy(&mut reader, &mut writer).await.ok();
    })
}

fn upgrade(stub: &Sandbox, protocol: &str) -> String {
    stub.get("/ws").replace(
        "Host:",
        &format!(
            "Connection: keep-alive, Upgrade\r\nUpgrade: {protocol}\r\nOrigin: http://r\r\nHost:"
        ),
    )
}

async fn open(rig: &Rig, stub: &Sandbox, protocol: &str) -> Wire {
    let mut wire = rig.connect().await;
    wire.write(upgrade(stub, protocol)).await;
    let head = wire.head().await.unwrap();
    assert!(head.line.starts_with("HTTP/1.1 101"), "{head:?}");
    assert_eq!(head.get("connection"), Some("Upgrade"));
    wire
}

/// A small text frame of a client or of a server.
fn frame(payload: &str, masked: bool) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let mut frame = vec![0x81, if masked { 0x80 | length } else { length }];
    if masked {
        frame.extend([0; 4]);
    }
    frame.extend(payload.as_bytes());
    frame
}

#[tokio::test]
async fn a_websocket_is_carried_both_ways() {
    let (report, mut heads) = tokio::sync::mpsc::unbounded_channel();
    let stub = Sandbox::start(move |mut wire| {
        let report = report.clone();
        async move {
            report.send(wire.head().await.unwrap()).unwrap();
            // The first bytes of the new protocol come with the answer.
            wire.write([SWITCH, "early"].concat()).await;
            assert_eq!(wire.bytes(4).await, b"late");
            wire.write("bye").await;
        }
    });
    let rig = Rig::start(rig::config());
    let mut wire = rig.connect().await;
    wire.write(upgrade(&stub, "websocket")).await;
    let head = wire.head().await.unwrap();
    assert_eq!(head.get("upgrade"), Some("websocket"));
    assert_eq!(head.get("sec-websocket-accept"), Some("yes"));
    let seen = heads.recv().await.unwrap();
    assert_eq!(
        (seen.get("connection"), seen.get("upgrade")),
        (Some("Upgrade"), Some("websocket"))
    );
    assert_eq!(seen.get("origin"), None);
    assert_eq!(wire.bytes(5).await, b"early");
    rig.metric_is("sandbox_router_upgraded_connections", 1.0)
        .await;
    wire.write("late").await;
    assert_eq!(wire.rest().await, b"bye");
    drop(wire);
    let line = rig.logged("/ws").await;
    assert_eq!(
        (&line["status"], &line["bytes_in"], &line["bytes_out"]),
        (&101.into(), &4.into(), &8.into())
    );
    rig.metric_is("sandbox_router_upgraded_connections", 0.0)
        .await;
    rig.stop().await;
}

#[tokio::test]
async fn any_other_protocol_is_carried_and_a_side_may_end_first() {
    let stub = Sandbox::start(|mut wire| async move {
        wire.head().await.unwrap();
        wire.write(SWITCH.replace("websocket", "tcp")).await;
        let asked = wire.rest().await;
        wire.write([b"you said ", asked.as_slice()].concat()).await;
    });
    let rig = Rig::start(rig::config());
    let mut wire = open(&rig, &stub, "tcp").await;
    wire.write("hello").await;
    wire.stream.shutdown().await.unwrap();
    assert_eq!(wire.rest().await, b"you said hello");
    assert_eq!(rig.logged("/ws").await["outcome"], "complete");
    rig.stop().await;
}

#[tokio::test]
async fn large_amounts_pass_unchanged() {
    let stub = echoing();
    let rig = Rig::start(rig::config());
    let wire = open(&rig, &stub, "tcp").await;
    let (reader, mut writer) = wire.stream.into_split();
    let sent: Vec<u8> = (0_u32..2_000_000).flat_map(u32::to_le_bytes).collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut wire = Wire::over(tokio::io::join(reader, tokio::io::sink()));
    assert!(wire.rest().await == expected);
    writing.await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_response() {
    let stub = Sandbox::answering("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno");
    let rig = Rig::start(rig::config());
    let mut wire = rig.connect().await;
    wire.write(upgrade(&stub, "websocket")).await;
    let reply = wire.reply().await;
    assert_eq!(
        (reply.status, reply.text(), reply.reason()),
        (403, "no", "none")
    );
    rig.stop().await;
}

#[tokio::test]
async fn an_upgrade_nobody_asked_for_is_a_502() {
    let stub = Sandbox::answering(SWITCH);
    let rig = Rig::start(rig::config());
    let reply = rig.send(&stub.get("/")).await;
    assert_eq!((reply.status, reply.reason()), (502, "unexpected-upgrade"));
    rig.stop().await;
}

#[tokio::test]
async fn switching_to_http_2_in_the_clear_is_not_carried() {
    let stub = Sandbox::mirror();
    let rig = Rig::start(rig::config());
    let mut wire = rig.connect().await;
    let request = upgrade(&stub, "h2c").replace(
        "keep-alive, Upgrade",
        "Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x",
    );
    wire.write(request).await;
    let reply = wire.reply().await;
    assert_eq!(reply.status, 200);
    assert!(!reply.text().contains("upgrade") && !reply.text().contains("http2-settings"));
    rig.stop().await;
}

#[tokio::test]
async fn an_idle_websocket_is_told_why_it_is_closed() {
    let (closed, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let stub = Sandbox::start(move |mut wire| {
        let closed = closed.clone();
        async move {
            wire.head().await.unwrap();
            wire.write(SWITCH).await;
            wire.write(frame("hi", false)).await;
            closed.send(wire.bytes(8).await).unwrap();
            closed.send(wire.rest().await).unwrap();
        }
    });
    let mut config = rig::config();
    config.time.upgrade_idle = LONG;
    let rig = Rig::start(config);
    let mut wire = open(&rig, &stub, "websocket").await;
    wire.write(frame("ho", true)).await;
    assert_eq!(wire.bytes(4).await, frame("hi", false));
    assert_eq!(ends.recv().await.unwrap(), frame("ho", true));
    StoppedClock::skip(LONG).await;
    let goodbye = wire.rest().await;
    assert_eq!(goodbye[..4], [0x88, 23, 0x03, 0xe9], "code 1001");
    assert_eq!(&goodbye[4..], b"idle timeout exceeded");
    let at_sandbox = ends.recv().await.unwrap();
    assert_eq!(
        at_sandbox[..2],
        [0x88, 0x80 + 23],
        "masked, as a client's frames are"
    );
    assert_eq!(rig.logged("/ws").await["outcome"], "idle timeout exceeded");
    rig.stop().await;
}

#[tokio::test]
async fn a_websocket_in_the_middle_of_a_frame_is_closed_without_a_word() {
    let stub = Sandbox::start(|mut wire| async move {
        wire.head().await.unwrap();
        wire.write(SWITCH).await;
        // Announces five bytes and sends two.
        wire.write([0x81, 5, b'a', b'b']).await;
        wire.rest().await;
    });
    let mut config = rig::config();
    config.time.upgrade_idle = LONG;
    let rig = Rig::start(config);
    let mut wire = open(&rig, &stub, "websocket").await;
    assert_eq!(wire.bytes(4).await, [0x81, 5, b'a', b'b']);
    StoppedClock::skip(LONG).await;
    assert_eq!(wire.rest().await, b"");
    rig.stop().await;
}

/// A Close frame.
fn close(code: u16, reason: &str, masked: bool) -> Vec<u8> {
    let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
    let length = u8::try_from(payload.len()).unwrap();
    let mut frame = vec![0x88, if masked { 0x80 | length } else { length }];
    if masked {
        frame.extend([0; 4]);
    }
    frame.extend(payload);
    frame
}

#[tokio::test]
async fn close_codes_and_reasons_pass_both_ways() {
    let (report, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let stub = Sandbox::start(move |mut wire| {
        let report = report.clone();
        async move {
            let head = wire.head().await.unwrap();
            wire.write(SWITCH).await;
            if head.line.contains("/ws") {
                wire.write(close(4001, "auth failed", false)).await;
            }
            report.send(wire.rest().await).unwrap();
        }
    });
    let rig = Rig::start(rig::config());
    let mut wire = open(&rig, &stub, "websocket").await;
    let told = close(4001, "auth failed", false);
    assert_eq!(wire.bytes(told.len()).await, told);
    let answer = close(3000, "leaving", true);
    wire.write(&answer).await;
    drop(wire);
    assert_eq!(ends.recv().await.unwrap(), answer);
    rig.stop().await;
}

#[tokio::test]
async fn an_idle_websocket_survives_the_bounds_of_requests() {
    let mut config = rig::config();
    config.time.request = LONG;
    config.time.idle = LONG;
    let rig = Rig::start(config);
    let mut wire = open(&rig, &echoing(), "websocket").await;
    StoppedClock::skip(LONG * 3).await;
    wire.write("still here").await;
    assert_eq!(wire.bytes(10).await, b"still here");
    drop(wire);
    rig.stop().await;
}

#[tokio::test]
async fn a_websocket_lives_no_longer_than_it_may() {
    let mut config = rig::config();
    config.time.upgrade = Some(Duration::from_millis(300));
    let rig = Rig::start(config);
    let mut wire = open(&rig, &echoing(), "websocket").await;
    let goodbye = wire.rest().await;
    assert_eq!(&goodbye[4..], b"max lifetime exceeded");
    rig.stop().await;
}

#[tokio::test]
async fn upgrades_are_dialled_again_like_requests() {
    let (socket, port) = reserved();
    let mut config = rig::config();
    config.retry.max = 1000;
    let rig = Rig::start(config);
    let mut wire = rig.connect().await;
    wire.write(format!(
        "GET /ws HTTP/1.1\r\nHost: r\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         X-Sandbox-ID: box\r\nX-Sandbox-Namespace: ns\r\nX-Sandbox-Port: {port}\r\n\r\n"
    ))
    .await;
    let retries = r#"sandbox_router_upstream_retries_total{sandbox_namespace="ns"}"#;
    rig::eventually("a repetition", async || rig.metric(retries) >= 1.0).await;
    let _stub = Sandbox::on(socket.listen(4).unwrap(), |mut wire| async move {
        wire.head().await.unwrap();
        wire.write(SWITCH).await;
    });
    assert!(wire.head().await.unwrap().line.contains("101"));
    rig.stop().await;
}

#[tokio::test]
async fn a_request_after_a_refused_upgrade_uses_the_same_connection() {
    let stub = Sandbox::answering(ok(b"no upgrade"));
    let rig = Rig::start(rig::config());
    let mut wire = rig.connect().await;
    wire.write(upgrade(&stub, "websocket")).await;
    assert_eq!(wire.reply().await.text(), "no upgrade");
    wire.write(stub.get("/")).await;
    assert_eq!(wire.reply().await.text(), "no upgrade");
    rig.stop().await;
}
