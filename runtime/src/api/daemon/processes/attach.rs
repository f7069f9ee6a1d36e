//! `GET /v1/processes/{id}/attach`: a process over a WebSocket, in the channels that `kubectl exec` uses
//! (subprotocols `v4.channel.k8s.io` and `v5.channel.k8s.io`), so that its clients serve here too.
//!
//! A message is a channel's number and its bytes: 0 standard input, 1 and 2 the outputs, 3 how it ended, 4 a
//! new size, 255 a channel that is closed (version 5). The process waits while the client does not read.
//! When the client leaves, or takes nothing and says nothing for too long, the process runs on without it.
//! When the runtime stops, who is still attached is told so by the code of the close.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::server::Upgrade;
use axum::body::Body;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Extension, Path, State};
use axum::http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{Response, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::time::error::Elapsed;

use super::{find, output};
use crate::api::App;
use crate::api::daemon::{method_not_allowed, reply};
use crate::exec::{Exit, Follow, Item, Process, Stream, TerminalSize};

const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Finds out within twice this time that a client is gone, who would hold the process back otherwise.
const PING: Duration = Duration::from_secs(20);

/// How long a client may take to receive the end and to answer it.
const FAREWELL: Duration = Duration::from_secs(10);
/// The same when the server stops: shorter than the moment that it leaves for this.
const SHORT_FAREWELL: Duration = Duration::from_millis(400);

pub(super) async fn attach(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    held: Option<Extension<Upgrade>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response<Body> {
    let process = match find(&app, &id) {
        Ok(process) => process,
        Err(refusal) => return refusal,
    };
    let from = match output::from(&uri) {
        Ok(from) => from.unwrap_or(0),
        Err(text) => return reply::invalid(text),
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(error) => return no_websocket(&error),
    };
    if !is_key(&headers) {
        return reply::invalid(format!("{SEC_WEBSOCKET_KEY} is not 16 bytes in base64"));
    }
    upgrade
        .protocols(PROTOCOLS)
        .max_message_size(app.config.max_request_bytes)
        .on_upgrade(async move |socket| {
            let stopping = async {
                match &held {
                    Some(Extension(held)) => held.over().await,
                    // Nobody waits for the end of this connection.
                    None => std::future::pending().await,
                }
            };
            serve(process, from, socket, stopping).await;
        })
}

/// Whether the client sent a key as RFC 6455 wants it.
fn is_key(headers: &HeaderMap) -> bool {
    let key = headers.get(SEC_WEBSOCKET_KEY);
    let bytes = key.and_then(|key| STANDARD.decode(key.as_bytes()).ok());
    bytes.is_some_and(|bytes| bytes.len() == 16)
}

/// Says what is missing of a WebSocket.
fn no_websocket(error: &WebSocketUpgradeRejection) -> Response<Body> {
    use WebSocketUpgradeRejection as Missing;
    match error {
        Missing::MethodNotGet(_) => method_not_allowed("GET"),
        Missing::WebSocketKeyHeaderMissing(_) => reply::invalid(format!(
            "{SEC_WEBSOCKET_KEY} is missing; expected 16 bytes in base64"
        )),
        Missing::InvalidWebSocketVersionHeader(_) => {
            let text = format!("{SEC_WEBSOCKET_VERSION} is missing or another one; expected 13");
            let mut response = reply::invalid(text);
            let version = HeaderValue::from_static("13");
            response
                .headers_mut()
                .insert(SEC_WEBSOCKET_VERSION, version);
            response
        }
        // Another protocol is asked for than the one that is spoken here.
        _ => {
            let mut response = reply::error(
                StatusCode::UPGRADE_REQUIRED,
                "UPGRADE_REQUIRED",
                "a process is attached to over a WebSocket; expected a GET of HTTP/1.1 with \
                 \"Connection: Upgrade\" and \"Upgrade: websocket\"",
            );
            let headers = response.headers_mut();
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            response
        }
    }
}

async fn serve(
    process: Arc<Process>,
    from: u64,
    socket: WebSocket,
    stopping: impl Future<Output = ()>,
) {
    let (mut to_client, mut from_client) = socket.split();
    let mut stopping = std::pin::pin!(stopping);
    let mut output = process.journal().follow_holding_from(from);
    let code = {
        let reading = read(&process, &mut from_client);
        let writing = async {
            let exit = write(&process, &mut output, &mut to_client).await?;
            let status = json_status(exit).to_string();
            to_client.send(message(STATUS, status.as_bytes())).await
        };
        tokio::select! {
            told = writing => told.ok().map(|()| close_code::NORMAL),
            // Whoever is gone needs no farewell.
            () = reading => None,
            () = &mut stopping => Some(close_code::AWAY),
        }
    };
    let Some(code) = code else { return };
    let farewell = async {
        let reason = "".into();
        let close = Message::Close(Some(CloseFrame { code, reason }));
        to_client.send(close).await?;
        // A connection that is closed on what the client still sends loses what it has not read.
        while let Some(Ok(_)) = from_client.next().await {}
        Ok::<_, axum::Error>(())
    };
    let too_late = async {
        if code != close_code::AWAY {
            // A server that stops meanwhile does not wait for the rest.
            tokio::time::timeout(FAREWELL, stopping).await?;
        }
        tokio::time::sleep(SHORT_FAREWELL).await;
        Ok::<_, Elapsed>(())
    };
    tokio::select! {
        left = farewell => if let Err(error) = left {
            tracing::debug!(%error, "an attached client did not wait for the end");
        },
        _ = too_late => tracing::debug!("an attached client did not close in time"),
    }
}

/// Sends the output until its end, and tells how the process ended.
async fn write(
    process: &Process,
    output: &mut Follow,
    client: &mut SplitSink<WebSocket, Message>,
) -> Result<Exit, axum::Error> {
    let mut ping = tokio::time::interval(PING);
    ping.tick().await;
    loop {
        // Neither may keep the other from its turn: a client is silent unless it is pinged.
        let item = tokio::select! {
            item = output.next() => item,
            _ = ping.tick() => {
                client.send(Message::Ping(Bytes::new())).await?;
                continue;
            }
        };
        match item {
            None => return Ok(process.exited().await),
            // Only what had made room before; there is no word for it in the protocol.
            Some(Item::Missed { .. }) => {}
            Some(Item::Entry(entry)) => {
                let channel = match entry.stream {
                    Stream::Stdout => STDOUT,
                    Stream::Stderr => STDERR,
                };
                client.send(message(channel, &entry.bytes)).await?;
            }
        }
    }
}

/// Takes what the client sends until it leaves, or stays silent for too long.
async fn read(process: &Process, client: &mut SplitStream<WebSocket>) {
    let mut taking = true;
    loop {
        let next = tokio::time::timeout(PING * 2, client.next());
        let bytes = match next.await {
            Ok(Some(Ok(Message::Binary(bytes)))) => bytes,
            Ok(Some(Ok(Message::Text(text)))) => text.into(),
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => return,
        };
        if taking && take(process, &bytes).await.is_break() {
            taking = false;
        }
    }
}

/// One message of the client. Broken off when the process takes no more input; it may still write.
async fn take(process: &Process, bytes: &[u8]) -> ControlFlow<()> {
    let done = match bytes.split_first() {
        Some((&STDIN, input)) => process.write(input).await,
        Some((&RESIZE, size)) => {
            resize(process, size);
            Ok(())
        }
        Some((&CLOSE, &[STDIN])) => process.finish_input().await,
        _ => Ok(()),
    };
    match done {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            tracing::debug!(process = %process.id(), %error, "input of an attached client was not taken");
            ControlFlow::Break(())
        }
    }
}

/// The message of `kubectl`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u32,
    height: u32,
}

fn resize(process: &Process, text: &[u8]) {
    let size = serde_json::from_slice(text).map(|size: Size| {
        let size = TerminalSize::clamped(size.width, size.height);
        process.resize(size)
    });
    match size {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "cannot resize a terminal"),
        Err(error) => tracing::debug!(%error, "an attached client sent a size that is none"),
    }
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(channel);
    message.extend_from_slice(bytes);
    Message::Binary(message.into())
}

/// How a process ended, as `kubectl` reads it.
fn json_status(exit: Exit) -> serde_json::Value {
    match exit.shell_code() {
        0 => json!({"metadata": {}, "status": "Success"}),
        code => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
    }
}
