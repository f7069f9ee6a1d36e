//! Events: what happened to pods, for people who ask `kubectl describe`.
//!
//! Recording never waits and never fails: a record goes into a bounded queue, and one task writes
//! the queue to the API with a pause between writes, so that events never stand in front of a
//! status. Repetitions are counted instead of repeated.

use std::collections::HashMap;
use std::time::Duration;

use agent_sandbox_service::clock::{Clock, UniqueTimes};
use agent_sandbox_service::shutdown::Shutdown;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Records that may wait; what does not fit is dropped and counted in the log.
const QUEUE: usize = 2048;

/// How long a record waits before it is written: whatever it reports about is written first.
const DELAY: Duration = Duration::from_millis(300);

/// Pause between two writes.
const PAUSE: Duration = Duration::from_millis(20);

/// Repetitions within this time are counted on the same event.
const AGGREGATE: SignedDuration = SignedDuration::from_mins(10);

/// Events remembered for counting.
const REMEMBERED: usize = 4096;

/// A repetition is written at most this often.
const REPEAT: SignedDuration = SignedDuration::from_secs(10);

/// How long the last records may take when the node stops.
const LAST_WRITES: Duration = Duration::from_millis(250);

/// How serious an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Who reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Component {
    Kubelet,
    Scheduler,
    VolumeController,
}

impl Component {
    fn name(self) -> &'static str {
        match self {
            Self::Kubelet => "kubelet",
            Self::Scheduler => "default-scheduler",
            Self::VolumeController => "persistentvolume-controller",
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    pub(crate) about: ObjectReference,
    pub(crate) component: Component,
    pub(crate) severity: Severity,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// Where events are recorded. Clones share the queue.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<(Instant, Timestamp, Record)>,
    clock: Clock,
}

impl Recorder {
    /// A recorder and the writer that must be run.
    pub(crate) fn new(client: Client, node_name: &str, clock: Clock) -> (Self, Writer) {
        let (queue, records) = mpsc::channel(QUEUE);
        let recorder = Self { queue, clock };
        let writer = Writer {
            client,
            node_name: node_name.to_owned(),
            records,
            written: HashMap::new(),
            times: UniqueTimes::default(),
        };
        (recorder, writer)
    }

    /// Records something. Never waits.
    pub(crate) fn record(&self, record: Record) {
        let entry = (Instant::now(), self.clock.now(), record);
        if let Err(mpsc::error::TrySendError::Full((_, _, record))) = self.queue.try_send(entry) {
            tracing::debug!(
                reason = record.reason,
                message = record.message,
                "dropped an event because too many are waiting"
            );
        }
    }
}

/// What makes two records the same event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: Option<String>,
    field: Option<String>,
    reason: &'static str,
    message: String,
}

impl Key {
    fn of(record: &Record) -> Self {
        Self {
            uid: record.about.uid.clone(),
            field: record.about.field_path.clone(),
            reason: record.reason,
            message: record.message.clone(),
        }
    }
}

/// An event that exists in the API.
#[derive(Debug, Clone)]
struct Written {
    namespace: String,
    name: String,
    count: i32,
    last: Timestamp,
    last_write: Timestamp,
}

/// Writes queued records.
pub(crate) struct Writer {
    client: Client,
    node_name: String,
    records: mpsc::Receiver<(Instant, Timestamp, Record)>,
    written: HashMap<Key, Written>,
    times: UniqueTimes,
}

impl Writer {
    /// Writes until the order to stop, then what is left for a moment.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        loop {
            let next = tokio::select! {
                next = self.records.recv() => next,
                () = shutdown.triggered() => break,
            };
            let Some((queued, time, record)) = next else {
                return;
            };
            tokio::select! {
                () = tokio::time::sleep_until(queued + DELAY) => {}
                () = shutdown.triggered() => {}
            }
            self.write(time, record).await;
            tokio::time::sleep(PAUSE).await;
        }
        let last = async {
            while let Ok((_, time, record)) = self.records.try_recv() {
                self.write(time, record).await;
            }
        };
        if tokio::time::timeout(LAST_WRITES, last).await.is_err() {
            tracing::debug!("some events were not written before the end");
        }
    }

    async fn write(&mut self, time: Timestamp, record: Record) {
        let key = Key::of(&record);
        let outcome = match self.written.get_mut(&key) {
            Some(written) if time.duration_since(written.last) < AGGREGATE => {
                written.count += 1;
                written.last = time;
                if time.duration_since(written.last_write) < REPEAT {
                    return;
                }
                written.last_write = time;
                let written = written.clone();
                self.count(&written).await
            }
            _ => self.create(time, record, key.clone()).await,
        };
        match outcome {
            Ok(()) => {}
            // The namespace is going away or the event has expired.
            Err(kube::Error::Api(status)) => {
                self.written.remove(&key);
                tracing::debug!(%status, "an event was refused");
            }
            Err(error) => tracing::debug!(%error, "writing an event failed"),
        }
    }

    async fn count(&self, written: &Written) -> kube::Result<()> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &written.namespace);
        let patch = json!({"count": written.count, "lastTimestamp": Time(written.last)});
        let params = PatchParams::default();
        api.patch(&written.name, &params, &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    async fn create(&mut self, time: Timestamp, record: Record, key: Key) -> kube::Result<()> {
        let event = self.event(time, record);
        let written = Written {
            namespace: event.metadata.namespace.clone().unwrap_or_default(),
            name: event.metadata.name.clone().unwrap_or_default(),
            count: 1,
            last: time,
            last_write: time,
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &written.namespace);
        api.create(&PostParams::default(), &event).await?;
        if self.written.len() >= REMEMBERED {
            self.written
                .retain(|_, old| time.duration_since(old.last) < AGGREGATE);
            if self.written.len() >= REMEMBERED {
                self.written.clear();
            }
        }
        self.written.insert(key, written);
        Ok(())
    }

    fn event(&mut self, time: Timestamp, record: Record) -> Event {
        let about = record.about;
        let name = about.name.as_deref().unwrap_or("unknown");
        let component = record.component.name();
        let host = match record.component {
            Component::Kubelet => Some(self.node_name.clone()),
            Component::Scheduler | Component::VolumeController => None,
        };
        // Cluster-wide objects report into the default namespace.
        let namespace = about.namespace.clone().unwrap_or_else(|| "default".into());
        Event {
            metadata: ObjectMeta {
                // Names sort by time, so that events are listed as they happened.
                name: Some(format!("{name}.{:016x}", self.times.next(time))),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            involved_object: about,
            type_: Some(record.severity.name().into()),
            reason: Some(record.reason.into()),
            message: Some(record.message),
            source: Some(EventSource {
                component: Some(component.into()),
                host,
            }),
            reporting_component: Some(component.into()),
            reporting_instance: Some(match record.component {
                Component::Kubelet => self.node_name.clone(),
                Component::Scheduler | Component::VolumeController => String::new(),
            }),
            first_timestamp: Some(Time(time)),
            last_timestamp: Some(Time(time)),
            count: Some(1),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_api::TestApi;

    fn record(message: &str) -> Record {
        Record {
            about: ObjectReference {
                kind: Some("Pod".into()),
                name: Some("p".into()),
                namespace: Some("ns".into()),
                uid: Some("u".into()),
                ..ObjectReference::default()
            },
            component: Component::Kubelet,
            severity: Severity::Warning,
            reason: "BackOff",
            message: message.into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn repetitions_are_counted_and_written_seldom() {
        let api = TestApi::new();
        let (clock, hand) = Clock::manual("2026-01-01T00:00:00Z".parse().unwrap());
        let (recorder, writer) = Recorder::new(api.client(), "n", clock);
        for seconds in [0, 1, 1, 20, 1] {
            hand.advance(SignedDuration::from_secs(seconds));
            recorder.record(record("again"));
        }
        recorder.record(record("other"));
        drop(recorder);
        writer.run(Shutdown::new()).await;
        let mut events = api.list("/api/v1/namespaces/ns/events/");
        events.sort_by_key(|event| event["message"].to_string());
        assert_eq!(events.len(), 2);
        assert_eq!(
            events[0]["count"], 4,
            "the fifth came too soon after the fourth"
        );
        assert_eq!(events[0]["firstTimestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(events[0]["lastTimestamp"], "2026-01-01T00:00:22Z");
        assert_eq!(events[0]["source"]["host"], "n");
        assert_eq!(events[0]["type"], "Warning");
        assert_eq!(api.writes().len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_queued_is_written_before_the_end() {
        let api = TestApi::new();
        let (recorder, writer) = Recorder::new(api.client(), "n", Clock::system());
        let shutdown = Shutdown::new();
        for number in 0..5 {
            recorder.record(record(&number.to_string()));
        }
        shutdown.trigger();
        writer.run(shutdown).await;
        let mut events = api.list("/api/v1/namespaces/ns/events/");
        events.sort_by_key(|event| event["metadata"]["name"].to_string());
        let messages: Vec<_> = events.iter().map(|event| &event["message"]).collect();
        assert_eq!(messages, ["0", "1", "2", "3", "4"], "names sort by time");
    }

    #[tokio::test]
    async fn what_is_too_much_is_dropped_without_waiting() {
        let (recorder, mut writer) = Recorder::new(TestApi::new().client(), "n", Clock::system());
        for number in 0..QUEUE + 10 {
            recorder.record(record(&number.to_string()));
        }
        drop(recorder);
        let mut kept = Vec::new();
        while let Some((_, _, record)) = writer.records.recv().await {
            kept.push(record.message);
        }
        let first: Vec<String> = (0..QUEUE).map(|number| number.to_string()).collect();
        assert_eq!(kept, first);
    }
}
