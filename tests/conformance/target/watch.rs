//! Watches, read event by event.

use anyhow::{Context as _, Result};
use futures::{AsyncBufReadExt as _, StreamExt as _};
use http::Request;
use serde_json::Value;

use super::{DEADLINE, Target, text};

/// The events of a watch, read with a deadline.
pub(crate) struct Watch {
    lines: std::pin::Pin<Box<dyn futures::Stream<Item = std::io::Result<String>> + Send>>,
}

impl Watch {
    /// The next event; an error when the watch ends or nothing comes.
    pub(crate) async fn next(&mut self) -> Result<Value> {
        let line = tokio::time::timeout(DEADLINE, self.lines.next())
            .await
            .context("no event came")?
            .context("the watch ended")??;
        Ok(serde_json::from_str(&line)?)
    }

    /// The next event that is not a bookmark, as its type and the object.
    pub(crate) async fn change(&mut self) -> Result<(String, Value)> {
        loop {
            let mut event = self.next().await?;
            let kind = text(&event, "/type").to_owned();
            if kind != "BOOKMARK" {
                return Ok((kind, event["object"].take()));
            }
        }
    }

    /// The next changes as `TYPE name`, in order.
    pub(crate) async fn changes(&mut self, count: usize) -> Result<Vec<String>> {
        let mut changes = Vec::with_capacity(count);
        while changes.len() < count {
            let (kind, object) = self.change().await?;
            changes.push(format!("{kind} {}", text(&object, "/metadata/name")));
        }
        Ok(changes)
    }
}

impl Target {
    /// Opens a watch.
    pub(crate) async fn watch(&self, path: &str, query: &str) -> Result<Watch> {
        self.watch_as(path, query, "application/json").await
    }

    /// Opens a watch that asks for a media type.
    pub(crate) async fn watch_as(&self, path: &str, query: &str, accept: &str) -> Result<Watch> {
        let separator = if query.is_empty() { "" } else { "&" };
        let request = Request::get(format!("{path}?watch=true{separator}{query}"))
            .header("accept", accept)
            .body(Vec::new())?;
        let lines = self.client.request_stream(request).await?.lines();
        Ok(Watch {
            lines: Box::pin(lines),
        })
    }
}
