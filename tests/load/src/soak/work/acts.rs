//! The single things that clients do, each with what its answer must be.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue, TE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::super::named::NAMESPACE;
use super::{BIG_HEAD, Client, Done, HELD, PATIENCE, Trial};
use crate::client::{Connection, Failure, Way, WebSocket, refused};
use crate::pattern::{Check, PatternBody};
use crate::sandbox::Identity;

impl Client {
    pub(super) async fn whoami(&mut self, trial: &Trial) -> Result<Done, Failure> {
        let response = self.get(trial, "/who").await?;
        let said = Identity::of(response.headers())?;
        let text = text(response).await?;
        if said.map(|it| it.to_string()).as_ref() != Some(&text) {
            return Err(Failure::Wrong(format!("the body is {text:?}")));
        }
        Ok(Done::Complete)
    }

    pub(super) async fn upload(
        &mut self,
        trial: &Trial,
        body: PatternBody,
        size: u64,
    ) -> Result<Done, Failure> {
        let response = self.post(trial, "/upload", body).await?;
        let text = text(response).await?;
        if text != format!("{size} sound") {
            return Err(Failure::Wrong(format!("{size} bytes arrived as {text}")));
        }
        Ok(Done::Complete)
    }

    pub(super) async fn download(
        &mut self,
        trial: &Trial,
        path: &str,
        size: u64,
        pause: Duration,
    ) -> Result<Done, Failure> {
        let response = self.get(trial, path).await?;
        whole(drain(response, pause).await?.0, size)
    }

    pub(super) async fn echo(&mut self, trial: &Trial, size: u64) -> Result<Done, Failure> {
        let body = PatternBody::new(size).without_length();
        let response = self.post(trial, "/echo", body).await?;
        whole(drain(response, Duration::ZERO).await?.0, size)
    }

    pub(super) async fn call(&mut self, trial: &Trial, size: u64) -> Result<Done, Failure> {
        if !self.http2.as_ref().is_some_and(Connection::is_open) {
            self.http2 = Some(Connection::http2(self.router, &self.tasks).await?);
        }
        let mut request = Request::post("/echo")
            .body(PatternBody::new(size).without_length())
            .map_err(|error| Failure::Wrong(error.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        let Some(connection) = &mut self.http2 else {
            return Err(Failure::Anonymous);
        };
        let response = connection.send(request, &trial.way).await?;
        // A call that fails in the router has status 200 and says so in its trailers' place.
        let failed = response.headers().get("grpc-status").cloned();
        if let (Some(status), None) = (failed, Identity::of(response.headers())?) {
            self.ledger.answered(trial.number);
            return Err(Failure::Refused {
                status: StatusCode::OK,
                reason: format!("grpc-status {}", String::from_utf8_lossy(status.as_bytes())),
            });
        }
        let response = self.judge(trial, response)?;
        let (check, trailers) = drain(response, Duration::ZERO).await?;
        let status = trailers.get("grpc-status").map(HeaderValue::as_bytes);
        if status != Some(b"0") {
            return Err(Failure::Wrong(format!("the call ended with {trailers:?}")));
        }
        whole(check, size)
    }

    pub(super) async fn events(&mut self, trial: &Trial) -> Result<Done, Failure> {
        let wanted = self.random.usize(1..20);
        let mut response = self.get(trial, "/events?every=5").await?;
        let said = Identity::of(response.headers())?;
        let said = said.map(|it| it.to_string()).unwrap_or_default();
        let mut expected = Vec::new();
        for id in 0..wanted {
            expected.extend_from_slice(format!("id: {id}\ndata: {said}\n\n").as_bytes());
        }
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            let Some(frame) = response.body_mut().frame().await else {
                return Err(Failure::Wrong("events came to an end".to_owned()));
            };
            seen.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| data));
        }
        if !seen.starts_with(&expected) {
            let seen = String::from_utf8_lossy(&seen).into_owned();
            return Err(Failure::Wrong(format!("{seen:?} from {said}")));
        }
        Ok(Done::Left)
    }

    pub(super) async fn open(&mut self, trial: &Trial) -> Result<WebSocket, Failure> {
        let socket = WebSocket::open(self.router, &trial.way).await;
        if matches!(&socket, Ok(_) | Err(Failure::Refused { .. })) {
            self.ledger.answered(trial.number);
        }
        let socket = socket?;
        trial.judge(socket.identity())?;
        Ok(socket)
    }

    pub(super) async fn websocket(&mut self, trial: &Trial) -> Result<Done, Failure> {
        let mut socket = self.open(trial).await?;
        for _ in 0..self.random.usize(..5) {
            let length = self.random.usize(..70_000);
            exchange(&mut socket, length).await?;
        }
        if self.random.bool() {
            return Ok(Done::Left);
        }
        socket.close().await.map(|()| Done::Complete)
    }

    /// Opens one more to keep.
    pub(super) async fn hold(&mut self, trial: &Trial) -> Result<Done, Failure> {
        let socket = self.open(trial).await?;
        self.held.push((socket, trial.clone()));
        Ok(Done::Left)
    }

    /// Uses one that is kept, or lets it go.
    pub(super) async fn use_held(&mut self) {
        let index = self.random.usize(..self.held.len());
        let (mut socket, trial) = self.held.swap_remove(index);
        let length = self.random.usize(..2000);
        let used = tokio::time::timeout(PATIENCE, exchange(&mut socket, length)).await;
        if !matches!(used, Ok(Ok(()))) {
            return self.settle(&trial, used.map(|it| it.map(|()| Done::Complete)));
        }
        // Another takes its place sooner or later.
        if self.held.len() < HELD && self.random.u8(..4) > 0 {
            self.held.push((socket, trial));
            return;
        }
        let closed = tokio::time::timeout(PATIENCE, socket.close()).await;
        self.settle(&trial, closed.map(|it| it.map(|()| Done::Complete)));
    }

    pub(super) async fn status(&mut self, trial: &Trial, code: u16) -> Result<Done, Failure> {
        let connection = self.connection().await?;
        let request = request("GET", &format!("/status?code={code}"), PatternBody::new(0))?;
        let response = connection.send(request, &trial.way).await?;
        let status = response.status();
        self.ledger.answered(trial.number);
        let Some(identity) = Identity::of(response.headers())? else {
            return Err(refused(status, response.headers()));
        };
        trial.judge(&identity)?;
        drain(response, Duration::ZERO).await?;
        if status != code {
            return Err(Failure::Wrong(format!("{status} instead of {code}")));
        }
        Ok(Done::Complete)
    }

    /// Not among those that are accounted: the router refuses it before it is a request.
    pub(super) async fn big_head(&mut self) -> Result<Done, Failure> {
        let mut connection = Connection::http1(self.router, &self.tasks).await?;
        let way = Way::to(NAMESPACE, "nobody").with("x-big", &"x".repeat(BIG_HEAD));
        let request = request("GET", "/", PatternBody::new(0))?;
        match connection.send(request, &way).await {
            Ok(response) if response.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                Ok(Done::AsItMust)
            }
            // The router answers and closes while we still send.
            Err(Failure::Exchange(_)) => Ok(Done::Left),
            Err(failure) => Err(failure),
            Ok(response) => Err(Failure::Wrong(format!("answered {}", response.status()))),
        }
    }

    pub(super) async fn connection(&mut self) -> Result<&mut Connection<PatternBody>, Failure> {
        if !self.http1.as_ref().is_some_and(Connection::is_open) {
            self.http1 = Some(Connection::http1(self.router, &self.tasks).await?);
        }
        self.http1.as_mut().ok_or(Failure::Anonymous)
    }

    pub(super) async fn get(
        &mut self,
        trial: &Trial,
        path: &str,
    ) -> Result<Response<Incoming>, Failure> {
        self.send(trial, request("GET", path, PatternBody::new(0))?)
            .await
    }

    pub(super) async fn post(
        &mut self,
        trial: &Trial,
        path: &str,
        body: PatternBody,
    ) -> Result<Response<Incoming>, Failure> {
        self.send(trial, request("POST", path, body)?).await
    }

    pub(super) async fn send(
        &mut self,
        trial: &Trial,
        request: Request<PatternBody>,
    ) -> Result<Response<Incoming>, Failure> {
        let connection = self.connection().await?;
        let response = connection.send(request, &trial.way).await?;
        self.judge(trial, response)
    }

    /// Passes on the answers of sandboxes that may have given it.
    fn judge(
        &self,
        trial: &Trial,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>, Failure> {
        self.ledger.answered(trial.number);
        match Identity::of(response.headers())? {
            Some(identity) => trial.judge(&identity)?,
            None if response.status().is_success() => return Err(Failure::Anonymous),
            None => return Err(refused(response.status(), response.headers())),
        }
        if !response.status().is_success() {
            return Err(Failure::Wrong(format!(
                "the sandbox answered {}",
                response.status()
            )));
        }
        Ok(response)
    }
}

fn request(method: &str, path: &str, body: PatternBody) -> Result<Request<PatternBody>, Failure> {
    let request = Request::builder().method(method).uri(path).body(body);
    request.map_err(|error| Failure::Wrong(error.to_string()))
}

/// An answer of the router itself that must come.
pub(super) fn expect(
    outcome: Result<Response<Incoming>, Failure>,
    code: u16,
    why: &str,
) -> Result<Done, Failure> {
    match outcome {
        Err(Failure::Refused { status, reason }) if status == code && reason == why => {
            Ok(Done::AsItMust)
        }
        Err(failure) => Err(failure),
        Ok(response) => Err(Failure::Wrong(format!("answered {}", response.status()))),
    }
}

/// Echoes one message over a WebSocket.
async fn exchange(socket: &mut WebSocket, length: usize) -> Result<(), Failure> {
    let sent = crate::pattern::chunk(length as u64, length as u64);
    let received = socket.echo(&sent).await?;
    if received != sent {
        return Err(Failure::Wrong(format!("{length} bytes came back changed")));
    }
    Ok(())
}

/// Reads a body to its end, with pauses, and compares it with the pattern on the way.
pub(super) async fn drain(
    response: Response<Incoming>,
    pause: Duration,
) -> Result<(Check, HeaderMap), Failure> {
    let mut body = response.into_body();
    let mut check = Check::default();
    let mut trailers = HeaderMap::new();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                check.take(&data);
                read += data.len();
            }
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
        if !pause.is_zero() && read > 100_000 {
            read = 0;
            tokio::time::sleep(pause).await;
        }
    }
    Ok((check, trailers))
}

fn whole(check: Check, size: u64) -> Result<Done, Failure> {
    if check.bytes() != size || !check.is_sound() {
        let sound = check.is_sound();
        return Err(Failure::Wrong(format!(
            "{} bytes instead of {size}, sound: {sound}",
            check.bytes()
        )));
    }
    Ok(Done::Complete)
}

pub(super) async fn text(response: Response<Incoming>) -> Result<String, Failure> {
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}
