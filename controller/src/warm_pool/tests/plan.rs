//! How many, and which.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Member, Seen, member, observed, pool, stale, stranded, with_pod};
use crate::config::PoolSettings;
use crate::fixtures::{at, condition};
use crate::warm_pool::plan::{self, Plan, Why};

const NOW: &str = "2026-01-01T12:01:00Z";

fn ready(n: u64) -> Member {
    member(
        n,
        json!({}),
        json!({}),
        json!([condition("Ready", "True", "R")]),
    )
}

fn unready(n: u64) -> Member {
    member(n, json!({}), json!({}), json!([]))
}

fn plan(seen: &Seen, settings: &PoolSettings, now: jiff::Timestamp) -> Plan {
    seen.decide(|observed| plan::plan(observed, settings, now))
}

fn decide(seen: &Seen) -> Plan {
    plan(seen, &PoolSettings::default(), at(NOW))
}

fn sized(replicas: i32, members: Vec<Member>) -> Plan {
    decide(&observed(pool(json!({"replicas": replicas})), members))
}

fn doomed(plan: &Plan) -> Vec<(String, Why)> {
    plan.delete
        .iter()
        .map(|it| (it.key.name.to_string(), it.why))
        .collect()
}

#[test]
fn a_pool_gets_its_size() {
    assert_eq!(
        decide(&observed(pool(json!({})), vec![])).create,
        1,
        "one by default"
    );
    assert_eq!(sized(3, vec![ready(1)]).create, 2);
    let exact = sized(2, vec![ready(1), unready(2)]);
    assert_eq!((exact.create, exact.delete.len()), (0, 0));
    assert_eq!(sized(0, vec![ready(1), ready(2)]).delete.len(), 2);
}

#[test]
fn terminating_members_count_until_they_are_gone() {
    let going = member(1, json!({"deletionTimestamp": NOW}), json!({}), json!([]));
    let plan = sized(2, vec![going.clone(), ready(2)]);
    assert_eq!((plan.create, plan.delete.len(), plan.total), (0, 0, 2));
    assert_eq!(sized(1, vec![going, ready(2)]).delete, []);
}

#[test]
fn the_unready_and_the_newest_go_first_and_only_as_they_were_seen() {
    let plan = sized(1, vec![ready(1), unready(2), ready(3), unready(4)]);
    assert_eq!(
        doomed(&plan),
        [
            ("p-4".to_owned(), Why::Excess),
            ("p-2".to_owned(), Why::Excess),
            ("p-3".to_owned(), Why::Excess)
        ]
    );
    assert_eq!(plan.delete[0].revision.0, 104);
}

#[test]
fn nothing_is_made_without_a_template_but_excess_still_goes() {
    let mut seen = observed(pool(json!({"replicas": 3})), vec![ready(1)]);
    seen.template = None;
    assert_eq!(decide(&seen).create, 0);
    let mut seen = observed(pool(json!({"replicas": 0})), vec![ready(1)]);
    seen.template = None;
    assert_eq!(decide(&seen).delete.len(), 1);
}

#[test]
fn recreate_surges_before_it_deletes() {
    let recreate = |replicas: i32, members: Vec<Member>| {
        let pool = pool(json!({"replicas": replicas, "updateStrategy": {"type": "Recreate"}}));
        decide(&observed(pool, members))
    };
    let all_stale: Vec<Member> = (1..=8).map(|n| stale(ready(n))).collect();
    let first = recreate(8, all_stale.clone());
    assert_eq!((first.create, first.delete.len()), (2, 0));
    let mut surged = all_stale.clone();
    surged.extend([unready(20), unready(21)]);
    let waiting = recreate(8, surged);
    assert_eq!(
        (waiting.create, waiting.delete.len()),
        (0, 0),
        "the new ones are not ready yet"
    );
    let mut up = all_stale;
    up.extend([ready(20), ready(21)]);
    let replaced = recreate(8, up);
    assert_eq!(
        doomed(&replaced),
        [
            ("p-1".to_owned(), Why::Stale),
            ("p-2".to_owned(), Why::Stale)
        ],
        "the oldest go first"
    );
    let broken = recreate(
        4,
        vec![
            stale(unready(1)),
            stale(unready(2)),
            stale(ready(3)),
            stale(ready(4)),
        ],
    );
    assert_eq!(
        doomed(&broken),
        [("p-1".to_owned(), Why::Stale)],
        "unready ones a few at a time"
    );
    let one = recreate(1, vec![stale(ready(1))]);
    assert_eq!((one.create, one.delete.len()), (1, 0));
}

#[test]
fn on_replenish_leaves_stale_members_alone_but_drops_them_first() {
    let plan = sized(2, vec![stale(ready(1)), stale(ready(2))]);
    assert_eq!((plan.create, plan.delete.len()), (0, 0));
    let plan = sized(1, vec![stale(ready(1)), ready(2)]);
    assert_eq!(doomed(&plan), [("p-1".to_owned(), Why::Excess)]);
}

fn since(kind: &str, status: &str, reason: &str, time: &str) -> Value {
    let mut it = condition(kind, status, reason);
    it["lastTransitionTime"] = json!(time);
    it
}

#[test]
fn the_grace_counts_from_the_last_transition() {
    let at_time = |member: &Member, now: &str| {
        plan(
            &observed(pool(json!({})), vec![member.clone()]),
            &PoolSettings::default(),
            at(now),
        )
    };
    let young = unready(0);
    let plan_young = at_time(&young, "2026-01-01T12:04:00Z");
    assert_eq!(plan_young.delete, []);
    assert_eq!(plan_young.recheck, Some(Duration::from_secs(61)));
    assert_eq!(
        doomed(&at_time(&young, "2026-01-01T12:05:00Z")),
        [("p-0".to_owned(), Why::Stuck)]
    );
    // Ready for days, then one failed probe a minute ago.
    let flapped = member(
        0,
        json!({}),
        json!({}),
        json!([since("Ready", "False", "R", "2026-01-05T12:00:00Z")]),
    );
    assert_eq!(at_time(&flapped, "2026-01-05T12:01:00Z").delete, []);
    // Unschedulable for an hour, then scheduled a minute ago.
    let placed = with_pod(
        young.clone(),
        json!({"conditions": [since("PodScheduled", "True", "", "2026-01-01T13:00:00Z")]}),
    );
    assert_eq!(at_time(&placed, "2026-01-01T13:01:00Z").delete, []);
    assert_eq!(at_time(&placed, "2026-01-01T13:05:00Z").delete.len(), 1);
}

#[test]
fn unschedulable_members_are_kept() {
    let conditions = json!([since(
        "PodScheduled",
        "False",
        "Unschedulable",
        "2026-01-01T12:00:00Z"
    )]);
    let held = with_pod(unready(0), json!({"conditions": conditions}));
    let plan = plan(
        &observed(pool(json!({})), vec![held]),
        &PoolSettings::default(),
        at("2026-01-01T13:00:00Z"),
    );
    assert_eq!((plan.delete.len(), plan.create), (0, 0));
    assert_eq!(plan.recheck, Some(Duration::from_secs(60)));
}

#[test]
fn members_that_ended_or_were_tampered_with_are_replaced() {
    let ended = |time: &str| {
        member(
            0,
            json!({}),
            json!({}),
            json!([since("Finished", "True", "PodFailed", time)]),
        )
    };
    assert_eq!(
        sized(1, vec![ended("2026-01-01T12:00:45Z")]).delete,
        [],
        "not in a tight loop"
    );
    assert_eq!(
        doomed(&sized(1, vec![ended("2026-01-01T12:00:30Z")])),
        [("p-0".to_owned(), Why::Finished)]
    );
    for spec in [
        json!({"operatingMode": "Suspended"}),
        json!({"shutdownTime": "2030-01-01T00:00:00Z"}),
        json!({"replicas": 0}),
    ] {
        let drifted = member(0, json!({}), spec, json!([condition("Ready", "True", "R")]));
        let plan = sized(1, vec![drifted]);
        assert_eq!(doomed(&plan), [("p-0".to_owned(), Why::Drifted)]);
        assert_eq!(plan.create, 0, "its place is filled when it is gone");
    }
}

#[test]
fn the_cap_and_the_batch_bound_a_pass() {
    let settings = PoolSettings {
        replica_cap: 5,
        max_batch: 2,
        ..PoolSettings::default()
    };
    let grown = plan(
        &observed(pool(json!({"replicas": 2_000_000_000})), vec![]),
        &settings,
        at(NOW),
    );
    assert_eq!(grown.create, 5);
    let members = (1..=9).map(ready).collect();
    let shrunk = plan(
        &observed(pool(json!({"replicas": 0})), members),
        &settings,
        at(NOW),
    );
    assert_eq!(shrunk.delete.len(), 2);
}

#[test]
fn a_lost_node_is_made_up_for_as_fast_as_replacements_start() {
    let on_lost_node = || (1..=2).map(|n| stranded(ready(n)));
    let rest = || (3..=8).map(ready);
    let lost: Vec<Member> = on_lost_node().chain(rest()).collect();
    let first = sized(8, lost.clone());
    assert_eq!((first.create, first.delete.len()), (2, 0));
    let mut waiting = lost.clone();
    waiting.extend([unready(20), unready(21)]);
    let second = sized(8, waiting);
    assert_eq!((second.create, second.delete.len()), (0, 0));
    let mut one_up = lost.clone();
    one_up.extend([ready(20), unready(21)]);
    let third = sized(8, one_up);
    assert_eq!(doomed(&third), [("p-1".to_owned(), Why::Stranded)]);
    let mut both_up = lost;
    both_up.extend([ready(20), ready(21)]);
    assert_eq!(
        doomed(&sized(8, both_up.clone())),
        [
            ("p-1".to_owned(), Why::Stranded),
            ("p-2".to_owned(), Why::Stranded)
        ]
    );
    // The node came back instead.
    let back: Vec<Member> = (1..=2).map(ready).chain(both_up.split_off(2)).collect();
    assert_eq!(
        doomed(&sized(8, back)),
        [
            ("p-21".to_owned(), Why::Excess),
            ("p-20".to_owned(), Why::Excess)
        ]
    );
}

#[test]
fn a_cluster_that_drops_out_loses_no_member_however_long_it_lasts() {
    let mut members: Vec<Member> = (1..=8).map(|n| stranded(unready(n))).collect();
    let late = "2026-01-02T12:00:00Z";
    let first = plan(
        &observed(pool(json!({"replicas": 8})), members.clone()),
        &PoolSettings::default(),
        at(late),
    );
    assert_eq!((first.create, first.delete.len()), (2, 0));
    // The replacements find no node that would start them.
    let nowhere = json!([since("PodScheduled", "False", "Unschedulable", late)]);
    for n in [20, 21] {
        members.push(with_pod(unready(n), json!({"conditions": nowhere})));
    }
    let later = plan(
        &observed(pool(json!({"replicas": 8})), members),
        &PoolSettings::default(),
        at("2026-01-03T12:00:00Z"),
    );
    assert_eq!((later.create, later.delete.len()), (0, 0));
}

#[test]
fn a_shrinking_pool_lets_go_of_stranded_members_first() {
    let members = vec![ready(1), stranded(ready(2)), unready(3), ready(4)];
    let shrunk = sized(0, members);
    assert_eq!(doomed(&shrunk).len(), 4);
    assert_eq!(doomed(&shrunk)[0], ("p-2".to_owned(), Why::Stranded));
    let mut no_template = observed(pool(json!({"replicas": 2})), vec![stranded(ready(1))]);
    no_template.template = None;
    let plan = decide(&no_template);
    assert_eq!((plan.create, plan.delete.len()), (0, 0));
}

#[test]
fn a_pass_looks_at_nobody_while_claims_flow_through_a_healthy_pool() {
    const SIZE: u64 = 6_000;
    let object = |n: u64, ready: &str| {
        member(
            0,
            json!({"name": format!("p-{n}"), "uid": crate::fixtures::uid(1000 + n)}),
            json!({}),
            json!([condition("Ready", ready, "R")]),
        )
    };
    let full: Vec<Member> = (0..SIZE).map(|n| object(n, "True")).collect();
    let size = i32::try_from(SIZE).unwrap();
    let at_rest = sized(size, full.clone());
    assert_eq!((at_rest.create, at_rest.looked_at), (0, 0));
    // A burst took three hundred, and half of their replacements are starting.
    let mut burst = full.clone();
    burst.truncate(5_700);
    burst.extend((0..150).map(|n| object(SIZE + n, "False")));
    let refill = sized(size, burst);
    assert_eq!((refill.create, refill.delete.len()), (150, 0));
    assert_eq!(refill.looked_at, 1, "the one that has been unready longest");
    // A rollout in progress looks at those it replaces, not at those it will replace one day.
    let old: Vec<Member> = full.into_iter().map(stale).collect();
    let recreate = pool(json!({"replicas": size, "updateStrategy": {"type": "Recreate"}}));
    let rollout = decide(&observed(recreate, old));
    assert_eq!((rollout.create, rollout.looked_at), (1_500, 0));
    let scaled = sized(5_900, (0..SIZE).map(|n| object(n, "True")).collect());
    assert_eq!((scaled.delete.len(), scaled.looked_at), (100, 200));
}
