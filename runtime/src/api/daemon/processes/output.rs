//! `GET /v1/processes/{id}/output`: the output as JSON lines, from any entry that is still there.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Response, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream;
use serde::Serialize;

use super::find;
use super::state::{End, end_of};
use crate::api::App;
use crate::api::daemon::files::query;
use crate::api::daemon::{is_read, method_not_allowed, reply};
use crate::exec::{Follow, Item, Process, Stream};

/// One line of the answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Line {
    Entry {
        entry: u64,
        stream: &'static str,
        #[serde(flatten)]
        content: Content,
    },
    /// Entries that made room before they were read.
    Missed { missed: u64 },
    /// The last line, if the command has ended.
    Exit { exit: End },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Content {
    Text(String),
    /// What is not text by itself: other bytes, or a part of a character.
    Base64(String),
}

pub(super) async fn output(
    State(app): State<App>,
    Path(id): Path<String>,
    request: Request,
) -> Response<Body> {
    if !is_read(request.method()) {
        return method_not_allowed("GET, HEAD");
    }
    let process = match find(&app, &id) {
        Ok(process) => process,
        Err(refusal) => return refusal,
    };
    let (from, follow) = match (from(request.uri()), follow(request.uri())) {
        (Ok(from), Ok(follow)) => (from, follow),
        (Err(text), _) | (_, Err(text)) => return reply::invalid(text),
    };
    // Who wants everything starts at what there is.
    let from = from.unwrap_or_else(|| process.journal().oldest_number());
    let reading = Reading {
        output: process.journal().follow(from),
        process,
        follow,
    };
    let lines = stream::unfold(Some(reading), |reading| async move {
        let (line, reading) = reading?.next().await?;
        Some((encode(&line), reading))
    });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    );
    response
}

/// The entry to begin with.
pub(super) fn from(uri: &Uri) -> Result<Option<u64>, String> {
    match query(uri, "from") {
        None => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|_| format!("from is {text:?}; expected the number of an entry, such as 0")),
    }
}

/// Whether to wait for what is still to come.
fn follow(uri: &Uri) -> Result<bool, String> {
    match query(uri, "follow").as_deref() {
        None | Some("true" | "1" | "") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("follow is {other:?}; expected true or false")),
    }
}

struct Reading {
    process: Arc<Process>,
    output: Follow,
    follow: bool,
}

impl Reading {
    /// The next line, and what follows it.
    async fn next(mut self) -> Option<(Line, Option<Self>)> {
        let item = if self.follow {
            self.output.next().await
        } else {
            self.output.ready()
        };
        if let Some(item) = item {
            return Some((line(item), Some(self)));
        }
        if self.follow {
            self.process.exited().await;
        }
        let exit = end_of(&self.process)?;
        Some((Line::Exit { exit }, None))
    }
}

fn line(item: Item) -> Line {
    match item {
        Item::Missed { entries } => Line::Missed { missed: entries },
        Item::Entry(entry) => Line::Entry {
            entry: entry.number,
            stream: match entry.stream {
                Stream::Stdout => "stdout",
                Stream::Stderr => "stderr",
            },
            content: match std::str::from_utf8(&entry.bytes) {
                Ok(text) => Content::Text(text.to_owned()),
                Err(_) => Content::Base64(STANDARD.encode(&entry.bytes)),
            },
        },
    }
}

fn encode(line: &Line) -> serde_json::Result<Bytes> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Entry;

    #[test]
    fn lines_hold_text_or_exact_bytes() {
        let entry = |bytes: &'static [u8]| {
            let item = Item::Entry(Entry {
                number: 7,
                stream: Stream::Stderr,
                bytes: Bytes::from_static(bytes),
            });
            String::from_utf8(encode(&line(item)).unwrap().to_vec()).unwrap()
        };
        assert_eq!(
            entry("é\n".as_bytes()),
            "{\"entry\":7,\"stream\":\"stderr\",\"text\":\"é\\n\"}\n"
        );
        assert_eq!(
            entry(b"\xc3"),
            "{\"entry\":7,\"stream\":\"stderr\",\"base64\":\"ww==\"}\n"
        );
        let missed = encode(&line(Item::Missed { entries: 3 })).unwrap();
        assert_eq!(&missed[..], b"{\"missed\":3}\n");
    }

    #[test]
    fn queries_are_checked() {
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        assert_eq!(from(&uri("/x?from=12")), Ok(Some(12)));
        assert_eq!(from(&uri("/x")), Ok(None));
        assert!(
            from(&uri("/x?from=-1"))
                .unwrap_err()
                .contains("from is \"-1\"")
        );
        assert_eq!(follow(&uri("/x")), Ok(true));
        assert_eq!(follow(&uri("/x?follow=false")), Ok(false));
        assert!(
            follow(&uri("/x?follow=no"))
                .unwrap_err()
                .contains("follow is \"no\"")
        );
    }
}
