//! The rolls of pools under changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::{condition, owner, row, uid};
use crate::ident::{Key, Uid};
use crate::objects::{NodeHealth, SandboxRow};
use crate::store::{Around, PoolId, Roll, Rolls, Standing};

fn pool(n: u64) -> PoolId {
    PoolId::new(&Key::new("n", "p"), Uid::parse(&uid(n)))
}

fn member(n: u64, pool: u64, make: u8, kind: u8) -> Arc<SandboxRow> {
    let mut object = json!({
        "metadata": {
            "name": format!("m{n}"), "uid": uid(n), "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", n % 60),
            "ownerReferences": owner("SandboxWarmPool", "p", &uid(pool)),
        },
        "spec": {"podTemplate": {"spec": {"hostname": format!("make-{make}")}}},
        "status": {"conditions": []},
    });
    let said = |kind: &str, status: &str| json!([condition(kind, status, "R")]);
    match kind {
        0 => object["status"]["conditions"] = said("Ready", "True"),
        1 => object["status"]["conditions"] = said("Finished", "True"),
        2 => object["spec"]["operatingMode"] = json!("Suspended"),
        3 => object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
        4 => object["metadata"]["ownerReferences"] = owner("SandboxClaim", "c", &uid(9)),
        _ => {}
    }
    row(object)
}

fn around(health: NodeHealth) -> Around<'static> {
    Around {
        pod: None,
        node: None,
        health,
        node_since: None,
        retiring: false,
    }
}

/// What a roll says, from nothing but its members.
fn counted_anew(roll: &Roll, rows: &BTreeMap<u64, Arc<SandboxRow>>) -> Value {
    let members: Vec<_> = rows
        .keys()
        .filter_map(|n| roll.member(Uid::parse(&uid(*n))))
        .collect();
    let count =
        |is: &dyn Fn(Standing) -> bool| members.iter().filter(|member| is(member.standing)).count();
    let ready = rows
        .values()
        .filter(|row| {
            let member = roll.member(row.head.uid);
            member.is_some_and(|member| member.standing != Standing::Terminating) && row.is_ready()
        })
        .count();
    json!({
        "len": members.len(),
        "staying": members.len() - count(&|it| it == Standing::Terminating),
        "ready": ready,
        "drifted": count(&|it| it == Standing::Drifted),
        "stranded": count(&|it| it == Standing::Stranded),
        "finished": count(&|it| matches!(it, Standing::Finished { .. })),
        "starting": count(&|it| matches!(it, Standing::Starting { .. })),
        "in groups": count(&|it| {
            !matches!(it, Standing::Terminating | Standing::Drifted | Standing::Stranded)
        }),
    })
}

fn said(roll: &Roll) -> Value {
    let grouped = roll
        .groups()
        .map(|(_, group)| group.ready.len() + group.unready.len());
    json!({
        "len": roll.len(),
        "staying": roll.staying(),
        "ready": roll.ready(),
        "drifted": roll.drifted().len(),
        "stranded": roll.stranded().len(),
        "finished": roll.finished().len(),
        "starting": roll.starting().len(),
        "in groups": grouped.sum::<usize>(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    /// However members come, change, move between pools and go, every count and every set is what one
    /// would get by counting them anew.
    #[test]
    fn the_books_always_balance(ops in prop::collection::vec(
        (0..10_u64, 100..102_u64, 0..2_u8, 0..7_u8, any::<bool>(), any::<bool>()), 1..60,
    )) {
        let mut rolls = Rolls::default();
        let mut rows: BTreeMap<u64, Arc<SandboxRow>> = BTreeMap::new();
        for (n, in_pool, make, kind, sick, goes) in ops {
            if goes {
                rolls.remove(Uid::parse(&uid(n)));
                rows.remove(&n);
            } else {
                let row = member(n, in_pool, make, kind);
                let health = if sick { NodeHealth::Sick } else { NodeHealth::Fine };
                rolls.update(&row, around(health));
                prop_assert!(!rolls.update(&row, around(health)), "the same news is no news");
                rows.insert(n, row);
            }
            let mut members = 0;
            for in_pool in [100, 101] {
                let Some(roll) = rolls.of(&pool(in_pool)) else {
                    continue;
                };
                prop_assert_eq!(said(roll), counted_anew(roll, &rows));
                members += roll.len();
            }
            let owned = rows.values().filter(|row| PoolId::of_member(row).is_some());
            prop_assert_eq!(members, owned.count());
        }
    }
}

#[test]
fn standings_are_told_apart_and_the_node_has_its_say() {
    let on = |kind: u8, health| Standing::of(&member(1, 100, 0, kind), around(health));
    let (fine, sick) = (NodeHealth::Fine, NodeHealth::Sick);
    assert_eq!(on(0, fine), Standing::Ready);
    assert_eq!(on(0, NodeHealth::Leaving), Standing::Ready);
    assert_eq!(on(0, sick), Standing::Stranded);
    assert_eq!(on(5, sick), Standing::Stranded);
    for health in [fine, sick] {
        assert!(matches!(on(1, health), Standing::Finished { .. }));
        assert_eq!(on(2, health), Standing::Drifted);
        assert_eq!(on(3, health), Standing::Terminating);
    }
    assert!(matches!(
        on(5, fine),
        Standing::Starting { has_pod: false, .. }
    ));
}

#[test]
fn a_node_that_came_back_gives_its_members_time() {
    let back = crate::fixtures::at("2026-01-02T00:00:00Z");
    let around = Around {
        node_since: Some(back),
        ..around(NodeHealth::Fine)
    };
    let standing = Standing::of(&member(1, 100, 0, 5), around);
    assert!(matches!(standing, Standing::Starting { since, .. } if since == back));
}

#[test]
fn members_on_a_node_are_known_by_it() {
    let mut rolls = Rolls::default();
    let node = "a".into();
    let here = Around {
        node: Some(&node),
        ..around(NodeHealth::Fine)
    };
    rolls.update(&member(1, 100, 0, 0), here);
    rolls.update(&member(2, 100, 0, 0), around(NodeHealth::Fine));
    assert_eq!(rolls.on_node("a"), [Key::new("n", "m1")]);
    rolls.update(&member(1, 100, 0, 0), around(NodeHealth::Fine));
    assert_eq!(rolls.on_node("a"), []);
}
