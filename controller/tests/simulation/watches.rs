//! Watches: what they say, how late, how often, and when they break off.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::faults::Fate;
use crate::kube_model::{Body, Request};
use crate::processes::Pid;
use crate::world::{World, refusal};

impl World {
    /// Answers a watch.
    pub(crate) async fn watch(
        &self,
        pid: Pid,
        request: Request,
    ) -> Result<Response<Body>, std::io::Error> {
        sleep(Duration::from_millis(1)).await;
        if !self.awake(pid).await {
            return std::future::pending().await;
        }
        let since = request.number("resourceVersion").unwrap_or(0);
        let (fate, expired) = {
            let mut inner = self.lock();
            let expired = inner.faults.cuts() && inner.faults.expires();
            (inner.faults.journey(&request).fate, expired)
        };
        let actor = self.actor(pid);
        let what = format!("watch {} from {since}", request.resource);
        match fate {
            Fate::Serve | Fate::Overtaken => {}
            Fate::Refuse(error) => {
                self.note(actor, what, format!("refused: {}", error.0));
                return Ok(refusal(&error));
            }
            Fate::NeverArrives | Fate::AnswerLost => {
                self.note(actor, what, "never answered".to_owned());
                return std::future::pending().await;
            }
            Fate::Reset | Fate::FailAfter => {
                self.note(actor, what, "connection reset".to_owned());
                return Err(std::io::Error::other("connection reset"));
            }
        }
        if expired {
            self.note(actor, what, "410".to_owned());
            let line = Bytes::from(gone());
            let body = StreamBody::new(futures::stream::iter([Ok(Frame::data(line))]));
            return Ok(Response::new(BodyExt::boxed_unsync(body)));
        }
        let seconds = request.number("timeoutSeconds").unwrap_or(300);
        let changed = self
            .changed
            .lock()
            .entry(request.resource.clone())
            .or_default()
            .clone();
        let feed = Feed {
            world: self.clone(),
            pid,
            request,
            changed,
            at: since,
            again: None,
            is_over: false,
            ends: Instant::now() + Duration::from_secs(seconds),
        };
        let lines = futures::stream::unfold(feed, |mut feed| async move {
            let event = feed.next().await?;
            Some((Ok(Frame::data(Bytes::from(event))), feed))
        });
        Ok(Response::new(BodyExt::boxed_unsync(StreamBody::new(
            lines.fuse(),
        ))))
    }
}

/// The last line of a watch whose revision the server does not remember any more.
fn gone() -> String {
    let error = json!({"type": "ERROR", "object": {
        "kind": "Status", "code": 410, "reason": "Expired", "message": "too old",
    }});
    format!("{error}\n")
}

/// A watch.
struct Feed {
    world: World,
    pid: Pid,
    request: Request,
    changed: Arc<Notify>,
    at: u64,
    again: Option<String>,
    is_over: bool,
    ends: Instant,
}

impl Feed {
    /// The next line.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(event) = self.again.take() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            let waker = self.changed.clone();
            let mut changed = std::pin::pin!(waker.notified());
            changed.as_mut().enable();
            let pending = {
                let inner = self.world.lock();
                inner.state.has_event(&self.request, self.at)
            };
            if !pending {
                tokio::select! {
                    biased;
                    () = changed => {}
                    () = sleep_until(self.ends) => return None,
                }
                continue;
            }
            let lag = self.world.lock().faults.lag();
            if !lag.is_zero() {
                sleep(lag).await;
            }
            self.world.hears(self.pid, &self.request.resource).await;
            if !self.world.awake(self.pid).await {
                return std::future::pending().await;
            }
            let mut inner = self.world.lock();
            if inner.faults.cuts() {
                // Some say why they end: they have fallen behind what the server remembers.
                let expired = inner.faults.expires();
                self.is_over = true;
                return expired.then(gone);
            }
            let revision = inner.state.revision();
            if let Some(event) = inner.state.next_event(&self.request, &mut self.at) {
                let is_last = !inner.state.has_event(&self.request, self.at);
                if inner.faults.repeats() {
                    self.again = Some(event.clone());
                } else if is_last && inner.faults.bookmarks() {
                    self.at = revision;
                    let at = revision.to_string();
                    let bookmark = json!({
                        "type": "BOOKMARK", "object": {"metadata": {"resourceVersion": at}},
                    });
                    self.again = Some(format!("{bookmark}\n"));
                }
                return Some(event);
            }
        }
    }
}
