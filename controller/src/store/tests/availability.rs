//! Order and uniqueness of picks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::{condition, owner, row, uid};
use crate::ident::{Key, Uid};
use crate::objects::{NodeHealth, SandboxRow};
use crate::store::{Availability, Class, PoolId};

const POOL: u64 = 1000;

fn member(n: u64, created: &str, node: Option<&str>, ready: bool) -> Arc<SandboxRow> {
    let status = if ready { "True" } else { "False" };
    changed(
        n,
        created,
        json!({}),
        json!({
            "podIPs": ["10.0.0.1"],
            "nodeName": node,
            "conditions": [condition("Ready", status, "R")],
        }),
    )
}

fn changed(n: u64, created: &str, spec: Value, status: Value) -> Arc<SandboxRow> {
    row(json!({
        "metadata": {
            "name": format!("m{n}"), "uid": uid(n), "creationTimestamp": created,
            "ownerReferences": owner("SandboxWarmPool", "p", &uid(POOL)),
        },
        "spec": spec,
        "status": status,
    }))
}

fn pool() -> PoolId {
    PoolId::new(&Key::new("n", "p"), Uid::parse(&uid(POOL)))
}

/// Takes note of a member whose pod lives on a node that is fine.
fn put(index: &mut Availability, row: &SandboxRow) {
    index.update(row, true, NodeHealth::Fine);
}

fn claim(n: u64) -> Uid {
    Uid::parse(&uid(5000 + n))
}

fn picks(index: &mut Availability, count: u64) -> Vec<String> {
    (0..count)
        .map_while(|n| index.pick(&pool(), claim(n), |_| true))
        .map(|pick| pick.key.name.to_string())
        .collect()
}

#[test]
fn ready_goes_before_unready_and_old_before_young() {
    let mut index = Availability::default();
    put(&mut index, &member(1, "2026-01-01T00:00:03Z", None, true));
    put(&mut index, &member(2, "2026-01-01T00:00:01Z", None, false));
    put(&mut index, &member(3, "2026-01-01T00:00:02Z", None, true));
    assert_eq!(picks(&mut index, 9), ["m3", "m1", "m2"]);
}

#[test]
fn healthy_nodes_go_before_others() {
    let mut index = Availability::default();
    index.update(
        &member(1, "2026-01-01T00:00:01Z", Some("bad"), true),
        true,
        NodeHealth::Leaving,
    );
    index.update(
        &member(4, "2026-01-01T00:00:00Z", Some("lost"), true),
        true,
        NodeHealth::Sick,
    );
    put(
        &mut index,
        &member(2, "2026-01-01T00:00:02Z", Some("good"), true),
    );
    put(
        &mut index,
        &member(3, "2026-01-01T00:00:03Z", Some("good"), false),
    );
    assert_eq!(picks(&mut index, 9), ["m2", "m1", "m3"]);
}

#[test]
fn the_node_with_the_most_members_goes_first() {
    let mut index = Availability::default();
    for (n, node) in [(1, "a"), (2, "b"), (3, "b"), (4, "b"), (5, "a")] {
        put(
            &mut index,
            &member(n, &format!("2026-01-01T00:00:0{n}Z"), Some(node), true),
        );
    }
    // b has 3, then both have 2 and a's oldest is older, then b, then a, ...
    assert_eq!(picks(&mut index, 9), ["m2", "m1", "m3", "m4", "m5"]);
}

#[test]
fn members_nobody_should_get_are_not_in_the_index() {
    let ips = json!({"podIPs": ["10.0.0.1"], "conditions": [condition("Ready", "True", "R")]});
    let created = "2026-01-01T00:00:00Z";
    for (name, candidate, class) in [
        (
            "fit",
            changed(1, created, json!({}), ips.clone()),
            Some(Class::Ready),
        ),
        (
            "suspended",
            changed(
                1,
                created,
                json!({"operatingMode": "Suspended"}),
                ips.clone(),
            ),
            None,
        ),
        (
            "dying",
            changed(
                1,
                created,
                json!({"shutdownTime": "2027-01-01T00:00:00Z"}),
                ips.clone(),
            ),
            None,
        ),
        (
            "finished",
            changed(
                1,
                created,
                json!({}),
                json!({"podIPs": ["10.0.0.1"], "conditions": [condition("Finished", "True", "PodFailed")]}),
            ),
            None,
        ),
        (
            "no address",
            changed(1, created, json!({}), json!({})),
            Some(Class::Waiting),
        ),
        (
            "unowned",
            row(json!({"metadata": {}, "spec": {}, "status": ips})),
            None,
        ),
        (
            "claimed",
            row(
                json!({"metadata": {"ownerReferences": owner("SandboxClaim", "c", &uid(9))}, "spec": {}, "status": ips}),
            ),
            None,
        ),
        (
            "deleting",
            row(json!({"metadata": {
                "ownerReferences": owner("SandboxWarmPool", "p", &uid(POOL)),
                "deletionTimestamp": "2026-01-01T00:00:00Z",
            }, "spec": {}, "status": ips})),
            None,
        ),
    ] {
        assert_eq!(
            Class::of(&candidate, true, NodeHealth::Fine),
            class,
            "{name}"
        );
    }
}

#[test]
fn a_reservation_holds_until_it_is_released_or_the_member_is_gone() {
    let mut index = Availability::default();
    let one = member(1, "2026-01-01T00:00:00Z", Some("a"), true);
    put(&mut index, &one);
    let pick = index.pick(&pool(), claim(1), |_| true).unwrap();
    assert_eq!(index.reserved_for(claim(1)), Some(pick.clone()));
    assert_eq!(index.pick(&pool(), claim(2), |_| true), None);
    // A new state of the member keeps the reservation.
    put(
        &mut index,
        &member(1, "2026-01-01T00:00:00Z", Some("b"), true),
    );
    assert_eq!(index.pick(&pool(), claim(2), |_| true), None);
    index.release(claim(1));
    assert_eq!(index.pick(&pool(), claim(2), |_| true), Some(pick));
    index.remove(one.head.uid);
    assert_eq!(index.reserved_for(claim(2)), None);
}

#[test]
fn a_dead_pod_makes_a_member_wait_and_a_lost_node_takes_it_out() {
    let one = member(1, "2026-01-01T00:00:00Z", Some("a"), true);
    for (lives, node, class) in [
        (true, NodeHealth::Fine, Some(Class::Ready)),
        (true, NodeHealth::Leaving, Some(Class::ReadyElsewhere)),
        (true, NodeHealth::Sick, None),
        (false, NodeHealth::Fine, Some(Class::Waiting)),
        (false, NodeHealth::Sick, None),
    ] {
        assert_eq!(Class::of(&one, lives, node), class, "{lives} {node:?}");
    }
    let mut index = Availability::default();
    index.update(&one, false, NodeHealth::Fine);
    assert!(index.has_waiting(&pool()) && index.available(&pool()) == 0);
    assert!(
        index.update(&one, true, NodeHealth::Fine),
        "newly available"
    );
    assert!(!index.has_waiting(&pool()) && index.available(&pool()) == 1);
}

#[test]
fn reserved_members_are_not_waited_for() {
    let mut index = Availability::default();
    put(&mut index, &member(1, "2026-01-01T00:00:00Z", None, true));
    index.pick(&pool(), claim(1), |_| true).unwrap();
    assert!(!index.has_waiting(&pool()));
    assert_eq!(index.available(&pool()), 0);
}

#[test]
fn a_reference_from_another_namespace_makes_no_member() {
    let mut index = Availability::default();
    let planted = row(json!({
        "metadata": {
            "name": "m1", "namespace": "other", "uid": uid(1),
            "ownerReferences": owner("SandboxWarmPool", "p", &uid(POOL)),
        },
        "spec": {},
        "status": {"podIPs": ["10.0.0.1"], "conditions": [condition("Ready", "True", "R")]},
    }));
    put(&mut index, &planted);
    assert_eq!(index.pick(&pool(), claim(1), |_| true), None);
}

fn made_of(n: u64, spec: &str) -> Arc<SandboxRow> {
    row(json!({
        "metadata": {
            "name": format!("m{n}"), "uid": uid(n), "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": owner("SandboxWarmPool", "p", &uid(POOL)),
        },
        "spec": {"podTemplate": {"spec": {"hostname": spec}}},
        "status": {"podIPs": ["10.0.0.1"], "conditions": [condition("Ready", "True", "R")]},
    }))
}

#[test]
fn members_of_a_make_that_may_not_be_had_cost_a_pick_one_question() {
    const STALE: u64 = 6_000;
    let mut index = Availability::default();
    for n in 0..STALE {
        put(&mut index, &made_of(n, "old"));
    }
    put(&mut index, &made_of(STALE, "new"));
    let mut asked = 0;
    let mut pick = |index: &mut Availability, n: u64| {
        index.pick(&pool(), claim(n), |make| {
            asked += 1;
            make.pod_spec.contains("new")
        })
    };
    let first = pick(&mut index, 1).unwrap();
    assert_eq!(&*first.key.name, format!("m{STALE}"));
    assert_eq!(pick(&mut index, 2), None);
    assert_eq!(asked, 3, "one question for each make on the shelves");
    assert_eq!(index.available(&pool()), usize::try_from(STALE).unwrap());
    // A claim that holds a member is offered the same one again.
    assert_eq!(index.pick(&pool(), claim(1), |_| true), Some(first.clone()));
    // But not when it may no longer have it.
    let other = index.pick(&pool(), claim(1), |make| make.pod_spec.contains("old"));
    assert_ne!(other.unwrap(), first);
    assert_eq!(
        index.pick(&pool(), claim(2), |make| make.pod_spec.contains("new")),
        Some(first)
    );
}

#[derive(Clone, Debug)]
enum Op {
    Put { n: u64, node: u8, ready: bool },
    Remove(u64),
    Pick(u64),
    Release(u64),
    Bind(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1..12_u64, 0..3_u8, any::<bool>()).prop_map(|(n, node, ready)| Op::Put { n, node, ready }),
        1 => (1..12_u64).prop_map(Op::Remove),
        4 => (0..8_u64).prop_map(Op::Pick),
        2 => (0..8_u64).prop_map(Op::Release),
        2 => (0..8_u64).prop_map(Op::Bind),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    /// However members come, change and go, no member is reserved for two claims, nothing is lost and
    /// nothing is handed out that is not there.
    #[test]
    fn one_claim_per_member(ops in prop::collection::vec(op(), 1..80)) {
        let mut index = Availability::default();
        let mut there: BTreeSet<u64> = BTreeSet::new();
        let mut held: BTreeMap<u64, Uid> = BTreeMap::new();
        for op in ops {
            match op {
                Op::Put { n, node, ready } => {
                    let created = format!("2026-01-01T00:00:{n:02}Z");
                    let node = format!("node-{node}");
                    put(&mut index, &member(n, &created, Some(&node), ready));
                    there.insert(n);
                }
                Op::Remove(n) => {
                    let gone = Uid::parse(&uid(n));
                    index.remove(gone);
                    there.remove(&n);
                    held.retain(|_, member| *member != gone);
                }
                Op::Pick(c) => {
                    let picked = index.pick(&pool(), claim(c), |_| true);
                    // Asking anew lets go of what was held before.
                    if let Some(pick) = picked {
                        held.remove(&c);
                        prop_assert!(held.values().all(|other| *other != pick.uid));
                        held.insert(c, pick.uid);
                    }
                }
                Op::Release(c) => {
                    index.release(claim(c));
                    held.remove(&c);
                }
                Op::Bind(c) => {
                    if let Some(member) = held.remove(&c) {
                        index.remove(member);
                        there.retain(|n| Uid::parse(&uid(*n)) != member);
                    }
                }
            }
            prop_assert_eq!(index.available(&pool()), there.len() - held.len());
            for (c, member) in &held {
                prop_assert_eq!(index.reserved_for(claim(*c)).map(|pick| pick.uid), Some(*member));
            }
        }
    }
}
