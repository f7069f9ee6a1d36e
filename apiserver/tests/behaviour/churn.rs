//! Many writers and many watchers at once: a list and the watch that follows it leave no gap.
//!
//! Each object has one writer, which counts its writes in the object and derives from the count
//! whether the object is labelled. So for every object and selector it is known which event comes
//! next, and a watcher that saw anything else has lost an event or was shown one too many.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::harness::*;

const OBJECTS: usize = 6;
const WRITES: u64 = 61;
/// Watchers of each selector.
const WATCHERS: usize = 3;

/// Whether the object carries the label after this many writes. It does after the last.
fn labelled(count: u64) -> bool {
    !count.is_multiple_of(3)
}

/// What a watcher asks for.
#[derive(Debug, Clone, Copy)]
enum Selection {
    Everything,
    Namespace,
    Labelled,
    /// One object by its name.
    Named(usize),
}

impl Selection {
    fn query(self) -> String {
        match self {
            Self::Everything => "/api/v1/configmaps?fieldSelector=".to_owned(),
            Self::Namespace => format!("{CONFIG_MAPS}?labelSelector="),
            Self::Labelled => format!("{CONFIG_MAPS}?labelSelector=on%3Dyes"),
            Self::Named(at) => format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dc{at}"),
        }
    }

    fn shows(self, count: u64) -> bool {
        !matches!(self, Self::Labelled) || labelled(count)
    }

    /// The next event of an object after `count` writes that this selection shows, with the count of
    /// the object in it.
    fn next(self, count: u64) -> (&'static str, u64) {
        match (self.shows(count), self.shows(count + 1)) {
            (true, true) => ("MODIFIED", count + 1),
            // An object that leaves is shown as it was.
            (true, false) => ("DELETED", count),
            (false, true) => ("ADDED", count + 1),
            (false, false) => self.next(count + 1),
        }
    }
}

/// What a watcher knows of an object.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Known {
    At(u64),
    /// It left the selection after this many writes.
    LeftAt(u64),
}

#[test]
fn a_list_and_its_watch_leave_no_gap() {
    let runtime = Runtime::new().unwrap();
    let api = runtime.block_on(async {
        let api = Api::start();
        for at in 0..OBJECTS {
            api.post(CONFIG_MAPS, &object(at, 0)).await.ok();
        }
        api
    });
    let (api, handle) = (&api, runtime.handle());
    std::thread::scope(|threads| {
        for at in 0..OBJECTS {
            threads.spawn(move || handle.block_on(write(api, at)));
        }
        for selection in [
            Selection::Everything,
            Selection::Namespace,
            Selection::Labelled,
            Selection::Named(0),
            Selection::Named(OBJECTS - 1),
        ] {
            for seed in 0..WATCHERS {
                threads.spawn(move || handle.block_on(follow(api, selection, seed)));
            }
        }
    });
}

async fn write(api: &Api, at: usize) {
    for count in 1..=WRITES {
        let path = format!("{CONFIG_MAPS}/c{at}");
        api.put(&path, &object(at, count)).await.ok();
    }
}

/// Lists, watches for a while, and starts again from what was seen last, until the last write of
/// every object has been seen.
async fn follow(api: &Api, selection: Selection, seed: usize) {
    let query = selection.query();
    let expected = match selection {
        Selection::Named(_) => 1,
        _ => OBJECTS,
    };
    let done = |known: &BTreeMap<String, Known>| {
        known.len() == expected && known.values().all(|known| *known == Known::At(WRITES))
    };
    let mut round = seed;
    'list: loop {
        let list = api.get(&query).await.ok();
        let mut known = BTreeMap::new();
        for item in list["items"].as_array().unwrap() {
            if let Some((name, count)) = counted(item) {
                assert!(
                    selection.shows(count),
                    "{selection:?} lists {name} at {count}"
                );
                known.insert(name, Known::At(count));
            }
        }
        let mut revision = text(&list["metadata"]["resourceVersion"]);
        while !done(&known) {
            round += 1;
            let path = format!("{query}&resourceVersion={revision}");
            let mut watch = api.watch(&path).await;
            for _ in 0..=round % 7 {
                if done(&known) {
                    break;
                }
                let event = watch.next().await.expect("the watch goes on");
                revision = text(&event["object"]["metadata"]["resourceVersion"]);
                if let Some((name, count)) = counted(&event["object"]) {
                    let kind = text(&event["type"]);
                    check(selection, known.get(&name).copied(), &name, (&kind, count));
                    let now = match &*kind {
                        "DELETED" => Known::LeftAt(count),
                        _ => Known::At(count),
                    };
                    known.insert(name, now);
                }
            }
            if round.is_multiple_of(5) && !done(&known) {
                continue 'list;
            }
        }
        return;
    }
}

/// Asserts that an event is the one that comes after what is known.
#[track_caller]
fn check(selection: Selection, known: Option<Known>, name: &str, event: (&str, u64)) {
    let expected = match known {
        Some(Known::At(count)) => selection.next(count),
        // It is away for one write.
        Some(Known::LeftAt(count)) => selection.next(count + 1),
        // The list did not show it, so it can only come.
        None => {
            assert!(
                !selection.shows(event.1 - 1),
                "{selection:?}: {name} {event:?}"
            );
            ("ADDED", event.1)
        }
    };
    assert_eq!(event, expected, "{selection:?}: {name} after {known:?}");
}

fn object(at: usize, count: u64) -> Value {
    let labels = if labelled(count) {
        json!({"on": "yes"})
    } else {
        json!({})
    };
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("c{at}"), "labels": labels},
        "data": {"count": count.to_string()},
    })
}

/// The name and count of one of the test's objects.
fn counted(object: &Value) -> Option<(String, u64)> {
    let count = object["data"]["count"].as_str()?.parse().unwrap();
    Some((text(&object["metadata"]["name"]), count))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
