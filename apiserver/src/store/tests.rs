//! The store's promises: one revision, compare-and-swap, ordered watches, consistent pages.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const THINGS: &str = "things.test";

fn store() -> Store {
    Store::new(WindowLimits::default())
}

fn small(events: usize) -> Store {
    Store::new(WindowLimits {
        events,
        bytes: usize::MAX,
        watcher_backlog: 4,
    })
}

fn draft(namespace: &str, name: &str, n: u64) -> Draft {
    let object = json!({"metadata": {"name": name, "namespace": namespace}, "n": n});
    Draft::new(&object, Fields::default())
}

fn create(store: &Store, namespace: &str, name: &str) -> Arc<Object> {
    store
        .commit(THINGS, Change::Create(draft(namespace, name, 0)), None)
        .unwrap()
}

fn replace(store: &Store, old: &Object, n: u64) -> Result<Arc<Object>, CommitError> {
    let change = Change::Replace {
        expected: old.revision(),
        draft: draft(old.namespace(), old.name(), n),
    };
    store.commit(THINGS, change, None)
}

fn delete(store: &Store, old: &Object) -> Result<Arc<Object>, CommitError> {
    let change = Change::Delete {
        key: old.key().clone(),
        expected: old.revision(),
    };
    store.commit(THINGS, change, None)
}

fn all(store: &Store, revision: Option<Revision>) -> Result<Page, RevisionError> {
    let query = ListQuery {
        namespace: None,
        revision,
        after: None,
    };
    store.list(THINGS, query, None, |_| true)
}

fn drain(subscription: &mut Subscription) -> Vec<(EventKind, String, u64)> {
    std::iter::from_fn(|| subscription.try_next())
        .map(|event| {
            (
                event.kind,
                event.object.name().to_owned(),
                event.revision().get(),
            )
        })
        .collect()
}

#[test]
fn every_commit_takes_the_next_revision_of_one_counter() {
    let store = store();
    let a = create(&store, "x", "a");
    let other = store
        .commit("others", Change::Create(draft("", "o", 0)), None)
        .unwrap();
    let a2 = replace(&store, &a, 1).unwrap();
    let gone = delete(&store, &a2).unwrap();
    let seen = [&a, &other, &a2, &gone].map(|object| object.revision().get());
    assert_eq!(seen, [1, 2, 3, 4]);
    assert_eq!(store.revision().get(), 4);
}

#[test]
fn commits_are_compare_and_swap() {
    let store = store();
    let a = create(&store, "x", "a");
    assert_eq!(
        store
            .commit(THINGS, Change::Create(draft("x", "a", 1)), None)
            .unwrap_err(),
        CommitError::Exists
    );
    let a2 = replace(&store, &a, 1).unwrap();
    let stale = CommitError::Stale {
        expected: a.revision(),
        current: a2.revision(),
    };
    assert_eq!(replace(&store, &a, 2).unwrap_err(), stale);
    assert_eq!(delete(&store, &a).unwrap_err(), stale);
    delete(&store, &a2).unwrap();
    assert_eq!(delete(&store, &a2).unwrap_err(), CommitError::Missing);
    assert_eq!(replace(&store, &a2, 3).unwrap_err(), CommitError::Missing);
    assert_eq!(store.revision().get(), 3, "refused commits use no revision");
}

#[test]
fn a_guard_must_exist_and_not_be_deleting() {
    let store = store();
    let guard = Some(Guard {
        resource: "namespaces",
        name: "x",
    });
    let attempt = |name| store.commit(THINGS, Change::Create(draft("x", name, 0)), guard);
    assert_eq!(attempt("a").unwrap_err(), CommitError::GuardMissing);
    let namespace = store
        .commit("namespaces", Change::Create(draft("", "x", 0)), None)
        .unwrap();
    attempt("a").unwrap();
    let deleting = json!({"metadata": {"name": "x", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let change = Change::Replace {
        expected: namespace.revision(),
        draft: Draft::new(&deleting, Fields::default()),
    };
    store.commit("namespaces", change, None).unwrap();
    assert_eq!(attempt("b").unwrap_err(), CommitError::GuardDeleting);
}

#[test]
fn a_watch_from_the_past_sees_the_past_then_the_present() {
    let store = store();
    let a = create(&store, "x", "a");
    let a = replace(&store, &a, 1).unwrap();
    let mut watch = store
        .subscribe(THINGS, Scope::All, Revision::new(1))
        .unwrap();
    assert_eq!(watch.caught_up(), None);
    create(&store, "y", "b");
    delete(&store, &a).unwrap();
    assert_eq!(
        drain(&mut watch),
        [
            (EventKind::Modified, "a".to_owned(), 2),
            (EventKind::Added, "b".to_owned(), 3),
            (EventKind::Deleted, "a".to_owned(), 4),
        ]
    );
    assert_eq!(watch.caught_up(), Some(Revision::new(4)));
}

#[test]
fn a_deletion_carries_the_last_content_and_its_own_revision() {
    let store = store();
    let a = create(&store, "x", "a");
    let a = replace(&store, &a, 7).unwrap();
    let mut watch = store.subscribe(THINGS, Scope::All, a.revision()).unwrap();
    delete(&store, &a).unwrap();
    let event = watch.try_next().unwrap();
    let value = event.object.value("v1", "T");
    assert_eq!(
        (&value["n"], &value["metadata"]["resourceVersion"]),
        (&json!(7), &json!("3"))
    );
    assert_eq!(event.previous.as_ref().unwrap().revision().get(), 2);
}

#[test]
fn scopes_confine_watches() {
    let store = store();
    let mut namespace = store
        .subscribe(THINGS, Scope::Namespace("x".into()), Revision::ZERO)
        .unwrap();
    let one = Scope::Object(Key::new("x", "a"));
    let (page, mut single) = store.list_and_subscribe(THINGS, one).unwrap();
    assert!(page.objects.is_empty());
    create(&store, "x", "a");
    create(&store, "x", "b");
    create(&store, "y", "a");
    assert_eq!(drain(&mut namespace).len(), 2);
    assert_eq!(drain(&mut single), [(EventKind::Added, "a".to_owned(), 1)]);
    assert_eq!(single.caught_up(), Some(Revision::new(3)));
}

#[test]
fn a_watch_from_before_the_window_is_refused() {
    let store = small(3);
    for name in ["a", "b", "c", "d", "e"] {
        create(&store, "x", name);
    }
    let error = store
        .subscribe(THINGS, Scope::All, Revision::new(1))
        .unwrap_err();
    let expired = RevisionError::Expired {
        requested: Revision::new(1),
        oldest: Revision::new(2),
    };
    assert_eq!(error, expired);
    let mut watch = store
        .subscribe(THINGS, Scope::All, Revision::new(2))
        .unwrap();
    assert_eq!(drain(&mut watch).len(), 3);
    let future = store
        .subscribe(THINGS, Scope::All, Revision::new(6))
        .unwrap_err();
    assert!(matches!(future, RevisionError::Future { .. }));
}

#[test]
fn compaction_applies_to_resources_not_seen_yet() {
    let store = store();
    create(&store, "x", "a");
    store.compact(Revision::new(1));
    assert!(
        store
            .subscribe("others", Scope::All, Revision::ZERO)
            .is_err()
    );
    assert!(
        store
            .subscribe("others", Scope::All, Revision::new(1))
            .is_ok()
    );
    assert!(all(&store, Some(Revision::ZERO)).is_err());
}

#[tokio::test]
async fn a_watch_that_falls_behind_ends_without_a_gap() {
    let store = small(100);
    let mut watch = store.subscribe(THINGS, Scope::All, Revision::ZERO).unwrap();
    for n in 0..10 {
        create(&store, "x", &format!("o{n}"));
    }
    let mut seen = Vec::new();
    while let Some(event) = watch.next().await {
        seen.push(event.revision().get());
    }
    assert_eq!(seen, [1, 2, 3, 4]);
    assert_eq!(watch.caught_up(), None);
}

#[test]
fn pages_pin_the_revision_of_the_first() {
    let store = store();
    let mut objects: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| create(&store, "x", name))
        .into();
    let query = |revision, after| ListQuery {
        namespace: Some("x"),
        revision,
        after,
    };
    let first = store
        .list(THINGS, query(None, None), Some(2), |_| true)
        .unwrap();
    assert_eq!((first.objects.len(), first.remaining), (2, 2));
    // Everything that follows the first page changes before the second is read.
    delete(&store, &objects.remove(2)).unwrap();
    let d = replace(&store, &objects[2], 9).unwrap();
    create(&store, "x", "e");
    let after = first.objects[1].key().clone();
    let second = store
        .list(
            THINGS,
            query(Some(first.revision), Some(&after)),
            Some(2),
            |_| true,
        )
        .unwrap();
    let names: Vec<_> = second.objects.iter().map(|object| object.name()).collect();
    assert_eq!((names, second.remaining), (vec!["c", "d"], 0));
    assert!(second.objects[1].revision() < d.revision());
    assert_eq!(second.revision, first.revision);
}

#[test]
fn observers_see_what_is_there_and_what_comes() {
    struct Seen(Mutex<Vec<String>>);
    impl Observer for Seen {
        fn observe(&self, resource: &Arc<str>, event: &Event) {
            self.0.lock().push(format!(
                "{resource} {:?} {}",
                event.kind,
                event.object.name()
            ));
        }
    }
    let store = store();
    let a = create(&store, "x", "a");
    let seen = Arc::new(Seen(Mutex::default()));
    store.observe(seen.clone());
    delete(&store, &a).unwrap();
    assert_eq!(
        *seen.0.lock(),
        ["things.test Added a", "things.test Deleted a"]
    );
}

#[test]
fn a_rewrite_is_silent_and_loses_against_a_commit() {
    let store = store();
    let a = create(&store, "x", "a");
    let b = create(&store, "x", "b");
    let mut watch = store
        .subscribe(THINGS, Scope::All, store.revision())
        .unwrap();
    store.rewrite(THINGS, |object| {
        if object.name() == "b" {
            // A commit between reading and rewriting wins.
            replace(&store, &b, 5).unwrap();
        }
        Some(draft("x", object.name(), 42))
    });
    let n = |name| store.get(THINGS, "x", name).unwrap().value("", "")["n"].clone();
    assert_eq!((n("a"), n("b")), (json!(42), json!(5)));
    assert_eq!(
        store.get(THINGS, "x", "a").unwrap().revision(),
        a.revision()
    );
    assert_eq!(drain(&mut watch).len(), 1);
}

/// What a random history does.
#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Replace(u8),
    Delete(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..6u8).prop_map(Step::Create),
        (0..6u8).prop_map(Step::Replace),
        (0..6u8).prop_map(Step::Delete),
    ];
    proptest::collection::vec(step, 1..60)
}

fn perform(store: &Store, step: &Step, n: u64) {
    let name = |id: &u8| format!("o{id}");
    let current = |id: &u8| store.get(THINGS, "x", &name(id));
    match step {
        Step::Create(id) => {
            drop(store.commit(THINGS, Change::Create(draft("x", &name(id), n)), None));
        }
        Step::Replace(id) => drop(current(id).map(|old| replace(store, &old, n))),
        Step::Delete(id) => drop(current(id).map(|old| delete(store, &old))),
    }
}

fn contents(page: &Page) -> BTreeMap<String, u64> {
    let entry = |object: &Arc<Object>| (object.name().to_owned(), object.revision().get());
    page.objects.iter().map(entry).collect()
}

proptest! {
    /// A list at any past revision, brought up to date by a watch from it, is the present.
    #[test]
    fn list_then_watch_is_the_present(steps in steps(), pick in any::<prop::sample::Index>()) {
        let store = store();
        let mut history = vec![BTreeMap::new()];
        for (n, step) in steps.iter().enumerate() {
            let before = store.revision();
            perform(&store, step, n as u64);
            if store.revision() > before {
                history.push(contents(&all(&store, None).unwrap()));
            }
        }
        let at = pick.index(history.len());
        let revision = Revision::new(at as u64);
        let past = all(&store, Some(revision)).unwrap();
        prop_assert_eq!(&contents(&past), &history[at]);

        let mut model = contents(&past);
        let mut last = revision;
        let mut watch = store.subscribe(THINGS, Scope::All, revision).unwrap();
        while let Some(event) = watch.try_next() {
            prop_assert_eq!(event.revision(), last.next());
            last = event.revision();
            let name = event.object.name().to_owned();
            match event.kind {
                EventKind::Added => {
                    prop_assert_eq!(model.insert(name, last.get()), None);
                }
                EventKind::Modified => {
                    prop_assert!(model.insert(name, last.get()).is_some());
                }
                EventKind::Deleted => {
                    prop_assert!(model.remove(&name).is_some());
                }
            }
        }
        prop_assert_eq!(last, store.revision());
        prop_assert_eq!(&model, history.last().unwrap());
    }
}

#[test]
fn concurrent_writers_and_watchers_agree_on_one_order() {
    let store = store();
    let mut watches: Vec<_> = (0..4)
        .map(|_| store.subscribe(THINGS, Scope::All, Revision::ZERO).unwrap())
        .collect();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..200 {
                    let object = create(store, "x", &format!("w{writer}-{n}"));
                    if n % 3 == 0 {
                        delete(store, &object).unwrap();
                    }
                }
            });
        }
    });
    let expected: Vec<u64> = (1..=store.revision().get()).collect();
    for watch in &mut watches {
        let seen: Vec<u64> = drain(watch)
            .into_iter()
            .map(|(_, _, revision)| revision)
            .collect();
        assert_eq!(seen, expected);
    }
}
