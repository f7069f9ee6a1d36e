//! Laws that hold for every history: random requests against one server, checked against a model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::harness::*;

/// Runs a law for random inputs, each in a namespace of its own on one server.
fn law<T, F>(cases: u32, strategy: impl Strategy<Value = T>, check: F)
where
    T: std::fmt::Debug,
    F: Fn(&Runtime, &Api, &str, T) -> Result<(), TestCaseError>,
{
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let api = runtime.block_on(Api::with_things());
    let count = AtomicU32::new(0);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&strategy, |input| {
        let namespace = format!("n{}", count.fetch_add(1, Ordering::Relaxed));
        let object = json!({"metadata": {"name": namespace}});
        runtime.block_on(async { api.post("/api/v1/namespaces", &object).await.ok() });
        check(&runtime, &api, &namespace, input)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// One random request for one of few objects.
#[derive(Debug, Clone)]
enum Step {
    Create { id: u8, on: bool },
    Label { id: u8, on: bool },
    Resize { id: u8, size: u8 },
    Status { id: u8, phase: u8 },
    Delete { id: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..4u8, any::<bool>()).prop_map(|(id, on)| Step::Create { id, on }),
        (0..4u8, any::<bool>()).prop_map(|(id, on)| Step::Label { id, on }),
        (0..4u8, 0..3u8).prop_map(|(id, size)| Step::Resize { id, size }),
        (0..4u8, 0..3u8).prop_map(|(id, phase)| Step::Status { id, phase }),
        (0..4u8).prop_map(|id| Step::Delete { id }),
    ];
    proptest::collection::vec(step, 1..30)
}

fn collection(namespace: &str) -> String {
    format!("/apis/example.org/v1/namespaces/{namespace}/things")
}

async fn perform(api: &Api, namespace: &str, step: &Step) -> Answer {
    let things = collection(namespace);
    let path = |id: &u8| format!("{things}/t{id}");
    let labels = |on: &bool| json!({"on": on.to_string()});
    match step {
        Step::Create { id, on } => {
            let mut object = thing(&format!("t{id}"), 0);
            object["metadata"]["labels"] = labels(on);
            api.post(&things, &object).await
        }
        Step::Label { id, on } => {
            api.merge(&path(id), &json!({"metadata": {"labels": labels(on)}}))
                .await
        }
        Step::Resize { id, size } => api.merge(&path(id), &json!({"spec": {"size": size}})).await,
        Step::Status { id, phase } => {
            let patch = json!({"status": {"phase": phase.to_string()}});
            api.merge(&format!("{}/status", path(id)), &patch).await
        }
        Step::Delete { id } => api.delete(&path(id)).await,
    }
}

/// A watcher that applies what it is told.
async fn follow(watch: &mut Watch, until: u64) -> Result<BTreeMap<String, Value>, TestCaseError> {
    let mut seen = BTreeMap::new();
    loop {
        let event = watch.next().await.unwrap();
        let object = event["object"].clone();
        let name = object["metadata"]["name"].as_str().unwrap_or("").to_owned();
        let revision: u64 = object["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        match event["type"].as_str().unwrap() {
            "ADDED" => prop_assert!(
                seen.insert(name.clone(), object).is_none(),
                "{} twice",
                name
            ),
            "MODIFIED" => prop_assert!(seen.insert(name.clone(), object).is_some(), "{} new", name),
            "DELETED" => prop_assert!(seen.remove(&name).is_some(), "{} unknown", name),
            _ => {}
        }
        if revision >= until {
            return Ok(seen);
        }
    }
}

#[test]
fn a_selecting_watch_always_knows_what_a_selecting_list_would_show() {
    law(24, steps(), |runtime, api, namespace, steps| {
        runtime.block_on(async {
            let things = collection(namespace);
            let query = "labelSelector=on%3Dtrue";
            let mut watch = api.watch(&format!("{things}?{query}")).await;
            for step in &steps {
                perform(api, namespace, step).await;
            }
            // A last object that passes the selector marks the end.
            let mut last = thing("zz", 1);
            last["metadata"]["labels"] = json!({"on": "true"});
            let last = api.post(&things, &last).await.ok();
            let until = last["metadata"]["resourceVersion"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap();
            let seen = follow(&mut watch, until).await?;
            let list = api.get(&format!("{things}?{query}")).await.ok();
            let listed: Vec<Value> = list["items"].as_array().unwrap().clone();
            prop_assert_eq!(seen.into_values().collect::<Vec<_>>(), listed);
            Ok(())
        })
    });
}

#[test]
fn versions_move_with_every_change_and_only_with_changes() {
    law(24, steps(), |runtime, api, namespace, steps| {
        runtime.block_on(async {
            for step in &steps {
                let (Step::Create { id, .. }
                | Step::Label { id, .. }
                | Step::Resize { id, .. }
                | Step::Status { id, .. }
                | Step::Delete { id }) = step;
                let path = format!("{}/t{id}", collection(namespace));
                let before = api.get(&path).await;
                let revision = api.revision();
                let answer = perform(api, namespace, step).await;
                let after = api.get(&path).await;
                let wrote = api.revision() - revision;
                prop_assert!(wrote <= 1);
                if !answer.status.is_success() {
                    prop_assert_eq!((wrote, before.body), (0, after.body));
                    continue;
                }
                if !(before.status.is_success() && after.status.is_success()) {
                    prop_assert_eq!(wrote, 1, "a creation or deletion");
                    continue;
                }
                let part = |object: &Value, field: &str| object[field].clone();
                let changed = |field| part(&before.body, field) != part(&after.body, field);
                let labels = before.body["metadata"]["labels"] != after.body["metadata"]["labels"];
                let any = changed("spec") || changed("status") || labels;
                prop_assert_eq!(wrote, u64::from(any), "{:?}", step);
                let generation =
                    |object: &Value| object["metadata"]["generation"].as_i64().unwrap();
                let grew = generation(&after.body) - generation(&before.body);
                prop_assert_eq!(grew, i64::from(changed("spec")));
            }
            Ok(())
        })
    });
}

/// Owners of each object (earlier ones only), and which objects are deleted.
fn families() -> impl Strategy<Value = (Vec<BTreeSet<usize>>, BTreeSet<usize>)> {
    let owners = (1..8usize).prop_flat_map(|count| {
        (0..count)
            .map(|at| proptest::collection::btree_set(0..at.max(1), 0..=at.min(2)))
            .collect::<Vec<_>>()
    });
    owners.prop_flat_map(|owners| {
        let count = owners.len();
        (
            Just(owners),
            proptest::collection::btree_set(0..count, 0..=count),
        )
    })
}

#[test]
fn what_is_left_has_an_owner_or_never_had_one() {
    law(
        16,
        families(),
        |runtime, api, namespace, (owners, deleted)| {
            runtime.block_on(async {
                let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
                let mut objects: Vec<Value> = Vec::new();
                for (at, owners) in owners.iter().enumerate() {
                    let references: Vec<Value> = owners
                        .iter()
                        .filter(|owner| **owner < at)
                        .map(|owner| {
                            let owner = &objects[*owner];
                            json!({"apiVersion": "v1", "kind": "ConfigMap",
                            "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]})
                        })
                        .collect();
                    let mut object = labelled(&format!("o{at}"), json!({"family": "1"}));
                    object["metadata"]["ownerReferences"] = references.into();
                    objects.push(api.post(&maps, &object).await.ok());
                }
                for at in &deleted {
                    api.delete(&format!("{maps}/o{at}")).await;
                }
                let mut left = BTreeSet::new();
                for (at, owners) in owners.iter().enumerate() {
                    let had: Vec<usize> =
                        owners.iter().copied().filter(|owner| *owner < at).collect();
                    let kept = had.is_empty() || had.iter().any(|owner| left.contains(owner));
                    if kept && !deleted.contains(&at) {
                        left.insert(at);
                    }
                }
                let expected: Vec<String> = left.iter().map(|at| format!("o{at}")).collect();
                eventually("exactly these are left", || async {
                    let list = api.get(&format!("{maps}?labelSelector=family")).await.ok();
                    names(&list) == expected
                })
                .await;
                // The references that are left lead to objects that are left.
                eventually("no reference leads nowhere", || async {
                    let list = api.get(&format!("{maps}?labelSelector=family")).await.ok();
                    list["items"].as_array().unwrap().iter().all(|item| {
                        let references = item["metadata"]["ownerReferences"].as_array();
                        references.into_iter().flatten().all(|reference| {
                            expected
                                .iter()
                                .any(|name| reference["name"] == name.as_str())
                        })
                    })
                })
                .await;
                Ok(())
            })
        },
    );
}

#[test]
fn pages_together_are_the_list() {
    let input = (
        proptest::collection::btree_set("[a-f]{1,3}", 0..20),
        1..6usize,
    );
    law(16, input, |runtime, api, namespace, (wanted, limit)| {
        runtime.block_on(async {
            let things = collection(namespace);
            for name in &wanted {
                api.post(&things, &thing(name, 1)).await.ok();
            }
            let mut seen: Vec<String> = Vec::new();
            let mut token = String::new();
            loop {
                let page = api
                    .get(&format!("{things}?limit={limit}&continue={token}"))
                    .await
                    .ok();
                let items = names(&page);
                prop_assert!(items.len() <= limit);
                seen.extend(items.into_iter().map(ToOwned::to_owned));
                match page["metadata"]["continue"].as_str() {
                    Some(next) => token = next.to_owned(),
                    None => break,
                }
            }
            prop_assert_eq!(seen, wanted.into_iter().collect::<Vec<_>>());
            Ok(())
        })
    });
}
