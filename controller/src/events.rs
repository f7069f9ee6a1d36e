//! Kubernetes events. Reconcilers hand them over and go on; one task writes them in the background
//! lane. Events are advice: when too many are waiting, new ones are dropped and counted.

use std::time::Duration;

use agent_sandbox_service::clock::{Clock, UniqueTimes};
use agent_sandbox_service::shutdown::Shutdown;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::api::{Api, CLAIMS, EVENTS, Fields, POOLS, Resource, SANDBOXES, TEMPLATES};
use crate::ident::{Key, Revision, Uid};
use crate::lanes::Lanes;
use crate::names;
use crate::objects::Head;

/// Events that may wait to be written.
const BACKLOG: usize = 1024;

/// How much an event matters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Importance {
    /// Something went as it should.
    Normal,
    /// Something did not.
    Warning,
}

/// What an event is about.
#[derive(Clone, Debug)]
pub struct Regarding {
    resource: &'static Resource,
    reporter: &'static str,
    key: Key,
    uid: Uid,
    revision: Revision,
}

impl Regarding {
    fn new(resource: &'static Resource, reporter: &'static str, head: &Head) -> Self {
        Self {
            resource,
            reporter,
            key: head.key.clone(),
            uid: head.uid,
            revision: head.revision,
        }
    }

    /// A sandbox.
    pub fn sandbox(head: &Head) -> Self {
        Self::new(&SANDBOXES, names::SANDBOX_REPORTER, head)
    }

    /// A claim.
    pub fn claim(head: &Head) -> Self {
        Self::new(&CLAIMS, names::CLAIM_REPORTER, head)
    }

    /// A template.
    pub fn template(head: &Head) -> Self {
        Self::new(&TEMPLATES, names::TEMPLATE_REPORTER, head)
    }

    /// A pool.
    pub fn pool(head: &Head) -> Self {
        Self::new(&POOLS, names::POOL_REPORTER, head)
    }
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// What it is about.
    pub regarding: Regarding,
    /// How much it matters.
    pub importance: Importance,
    /// A stable word for it.
    pub reason: &'static str,
    /// What was being done.
    pub action: &'static str,
    /// For humans.
    pub note: String,
}

/// Where reconcilers leave events. Clones share the backlog.
#[derive(Clone, Debug)]
pub struct Events {
    backlog: mpsc::Sender<Event>,
    dropped: prometheus::IntCounter,
}

/// The other end: writes events until dropped.
#[derive(Debug)]
pub struct Recorder {
    backlog: mpsc::Receiver<Event>,
}

impl Events {
    /// A backlog and the recorder that works it off.
    pub fn new(dropped: prometheus::IntCounter) -> (Self, Recorder) {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        (
            Self {
                backlog: sender,
                dropped,
            },
            Recorder { backlog: receiver },
        )
    }

    /// Leaves an event to be written.
    pub fn record(&self, event: Event) {
        if self.backlog.try_send(event).is_err() {
            self.dropped.inc();
        }
    }
}

impl Recorder {
    /// Writes events until every [`Events`] is gone, or, once `end` has come, until none is waiting.
    pub async fn run(
        mut self,
        api: Api,
        lanes: Lanes,
        clock: Clock,
        instance: String,
        end: Shutdown,
    ) {
        let mut times = UniqueTimes::default();
        loop {
            let event = tokio::select! {
                biased;
                event = self.backlog.recv() => event,
                () = end.triggered() => None,
            };
            let Some(event) = event else {
                return;
            };
            let now = clock.now();
            let name = event_name(&event.regarding.key.name, times.next(now));
            let object = to_value(&event, &name, &now.to_string(), &instance);
            let _lane = lanes.background().await;
            let namespace = &event.regarding.key.namespace;
            let written: crate::api::Result<serde::de::IgnoredAny> = api
                .create(&EVENTS, namespace, &object, Fields::Lenient)
                .await;
            if let Err(error) = written {
                tracing::debug!(%error, reason = event.reason, object = %event.regarding.key, "event not written");
                if let Some(delay) = error.retry_after() {
                    tokio::time::sleep(delay.min(Duration::from_secs(10))).await;
                }
            }
        }
    }
}

/// The longest note the API accepts, in bytes.
const LONGEST_NOTE: usize = 1024;

fn to_value(event: &Event, name: &str, time: &str, instance: &str) -> Value {
    let regarding = &event.regarding;
    let mut note = event.note.clone();
    if note.len() > LONGEST_NOTE {
        let mut end = LONGEST_NOTE - '…'.len_utf8();
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
        note.push('…');
    }
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": name,
            "namespace": &*regarding.key.namespace,
        },
        "eventTime": micro_time(time),
        "type": match event.importance {
            Importance::Normal => "Normal",
            Importance::Warning => "Warning",
        },
        "reason": event.reason,
        "action": event.action,
        "note": note,
        "reportingController": regarding.reporter,
        "reportingInstance": instance,
        "regarding": {
            "apiVersion": regarding.resource.api_version(),
            "kind": regarding.resource.kind,
            "namespace": &*regarding.key.namespace,
            "name": &*regarding.key.name,
            "uid": regarding.uid.to_string(),
            "resourceVersion": regarding.revision.to_string(),
        },
    })
}

/// The object's name and a time, so that the events of an object are listed as they happened.
fn event_name(object: &str, time: u64) -> String {
    let mut name = object.to_owned();
    // Object names are ASCII; leave room for the suffix.
    name.truncate(230);
    let name = name.trim_end_matches(['.', '-']);
    format!("{name}.{time:016x}")
}

/// A time with exactly six digits of fraction, as `metav1.MicroTime` has it.
pub(crate) fn micro_time(time: &str) -> String {
    time.parse::<jiff::Timestamp>().map_or_else(
        |_| time.to_owned(),
        |time| time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_what_the_api_requires() {
        let head = Head {
            key: Key::new("n", "claim-1"),
            uid: Uid::parse("0b54b5a6-2d3f-4c61-9e0b-00ff10a0b0c0"),
            revision: Revision(9),
            generation: 1,
            created: jiff::Timestamp::UNIX_EPOCH,
            deleting: None,
            owner: None,
        };
        let event = Event {
            regarding: Regarding::claim(&head),
            importance: Importance::Normal,
            reason: "SandboxAdopted",
            action: "Adoption",
            note: "ä".repeat(1000),
        };
        let value = to_value(
            &event,
            &event_name("claim-1", 255),
            "2026-01-01T00:00:00.5Z",
            "replica-1",
        );
        assert_eq!(value["eventTime"], "2026-01-01T00:00:00.500000Z");
        assert_eq!(value["reportingController"], "sandboxclaim-controller");
        assert_eq!(value["regarding"]["kind"], "SandboxClaim");
        assert!(value["note"].as_str().unwrap().len() <= LONGEST_NOTE);
        assert_eq!(value["metadata"]["name"], "claim-1.00000000000000ff");
    }

    #[test]
    fn a_shortened_name_does_not_end_in_the_middle_of_a_label() {
        let name = event_name(&format!("{}.b", "a".repeat(229)), 0);
        assert_eq!(name.rsplit_once('.').unwrap().0, "a".repeat(229));
    }

    #[tokio::test]
    async fn a_full_backlog_drops_and_counts() {
        let dropped = prometheus::IntCounter::new("dropped", "Dropped.").unwrap();
        let (events, recorder) = Events::new(dropped.clone());
        let head = Head {
            key: Key::new("n", "a"),
            uid: Uid::FOREIGN,
            revision: Revision(1),
            generation: 1,
            created: jiff::Timestamp::UNIX_EPOCH,
            deleting: None,
            owner: None,
        };
        for _ in 0..BACKLOG + 3 {
            events.record(Event {
                regarding: Regarding::pool(&head),
                importance: Importance::Normal,
                reason: "R",
                action: "A",
                note: String::new(),
            });
        }
        assert_eq!(dropped.get(), 3);
        drop(recorder);
    }
}
