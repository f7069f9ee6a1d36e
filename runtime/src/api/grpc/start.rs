//! The events of a `Start` call.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use tonic::Status;

use crate::exec::{Cause, Entry, Follow, Item, Leash, Process, Stream};
use crate::metrics::RunningCommand;
use crate::proto::process::v1::start_response::Event;
use crate::proto::process::v1::{ExitEvent, InitEvent, StartResponse};

/// A call in progress.
struct Call {
    process: Arc<Process>,
    output: Follow,
    /// What did not fit the message before.
    rest: Option<Entry>,
    /// The largest piece.
    piece: usize,
    leash: Leash,
    running: RunningCommand,
}

/// The command's number, its output as it comes, its exit. The command waits while nobody reads, and
/// is ended when the stream is dropped before its exit.
pub(super) fn events(
    output: Follow,
    piece: Option<usize>,
    leash: Leash,
    running: RunningCommand,
) -> BoxStream<'static, Result<StartResponse, Status>> {
    let process = leash.process().clone();
    // Numbers grow by one with each command and never get near the end of the type.
    let process_id = i32::try_from(process.id().0).unwrap_or(i32::MAX);
    let first = event(Event::Init(InitEvent { process_id }));
    let call = Call {
        process,
        output,
        rest: None,
        piece: piece.unwrap_or(usize::MAX),
        leash,
        running,
    };
    let rest = stream::unfold(Some(call), |call| async move { Some(next(call?).await) });
    stream::iter([Ok(first)]).chain(rest).boxed()
}

/// The next event, and the call if there are more.
async fn next(mut call: Call) -> (Result<StartResponse, Status>, Option<Call>) {
    if let Some(entry) = call.entry().await {
        let output = match entry.stream {
            Stream::Stdout => Event::Stdout(entry.bytes),
            Stream::Stderr => Event::Stderr(entry.bytes),
        };
        return (Ok(event(output)), Some(call));
    }
    let Call {
        process,
        leash,
        mut running,
        ..
    } = call;
    let exit = process.exited().await;
    leash.release();
    running.ended(exit, process.cause());
    if process.cause() == Some(Cause::TimedOut) {
        let status = Status::deadline_exceeded("the command was ended at the deadline");
        return (Err(status), None);
    }
    let exit_code = exit.shell_code();
    (Ok(event(Event::Exit(ExitEvent { exit_code }))), None)
}

impl Call {
    /// The next piece of output; `None` after the last.
    async fn entry(&mut self) -> Option<Entry> {
        let mut entry = match self.rest.take() {
            Some(rest) => rest,
            None => loop {
                // A follower that holds the command back misses nothing.
                if let Item::Entry(entry) = self.output.next().await? {
                    break entry;
                }
            },
        };
        if entry.bytes.len() > self.piece {
            let bytes = entry.bytes.split_off(self.piece);
            self.rest = Some(Entry { bytes, ..entry });
        }
        Some(entry)
    }
}

fn event(event: Event) -> StartResponse {
    StartResponse { event: Some(event) }
}
