//! The table under every order of events that watches can produce.

use std::collections::{BTreeMap, BTreeSet};

use http::HeaderMap;
use proptest::prelude::*;

use super::*;

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

/// A ready pod of the sandbox that has its name.
fn pod(name: &str, pod_uid: &str, ip: &str) -> PodFacts {
    PodFacts {
        uid: uid(pod_uid),
        namespace: "ns".into(),
        name: name.into(),
        sandbox_uid: uid(&format!("s-{name}")),
        sandbox_name: name.into(),
        addresses: Addresses::new([ip.parse().unwrap()]),
        ready: true,
        deleting: false,
        pooled: false,
    }
}

fn sandbox(name: &str) -> SandboxFacts {
    SandboxFacts {
        uid: uid(&format!("s-{name}")),
        namespace: "ns".into(),
        name: name.into(),
        pod_name: None,
        phase: Phase::Running,
        pooled: false,
    }
}

fn pods_only() -> Table {
    let table = Table::new(Trust::Pods, None);
    table.set_loaded(Kind::Pods);
    table
}

fn both() -> Table {
    let table = Table::new(Trust::Sandboxes, None);
    table.set_loaded(Kind::Pods);
    table.set_loaded(Kind::Sandboxes);
    table
}

fn address(row: Option<Arc<Row>>) -> Option<String> {
    row?.addresses.primary().map(|ip| ip.to_string())
}

fn by_name(table: &Table, name: &str) -> Option<String> {
    address(table.by_name("ns", name))
}

fn by_uid(table: &Table, name: &str) -> Option<String> {
    address(table.by_uid(&uid(&format!("s-{name}"))))
}

#[test]
fn readiness_and_addresses_are_followed() {
    let table = pods_only();
    table.update(|index| index.apply_pod(pod("a", "p1", "10.0.0.1")));
    assert_eq!(by_name(&table, "a").as_deref(), Some("10.0.0.1"));
    assert_eq!(by_uid(&table, "a").as_deref(), Some("10.0.0.1"));
    table.update(|index| index.apply_pod(pod("a", "p1", "10.0.0.2")));
    assert_eq!(by_name(&table, "a").as_deref(), Some("10.0.0.2"));
    let mut unready = pod("a", "p1", "10.0.0.2");
    unready.ready = false;
    table.update(|index| index.apply_pod(unready));
    assert_eq!(by_name(&table, "a"), None);
    assert_eq!(table.by_name("ns", "a").unwrap().state, State::Starting);
    table.update(|index| index.delete_pod(&uid("p1")));
    assert!(table.by_name("ns", "a").is_none() && table.is_empty());
}

#[test]
fn a_terminating_pod_is_not_routed_to_even_while_ready() {
    let table = pods_only();
    let mut terminating = pod("a", "p1", "10.0.0.1");
    terminating.deleting = true;
    table.update(|index| index.apply_pod(terminating));
    assert_eq!(by_name(&table, "a"), None);
}

#[test]
fn an_unclaimed_pool_pod_is_found_by_uid_only() {
    let table = pods_only();
    let claimed = pod("a", "p1", "10.0.0.1");
    let mut pooled = claimed.clone();
    pooled.pooled = true;
    for (facts, nameable) in [(&pooled, false), (&claimed, true), (&pooled, false)] {
        table.update(|index| index.apply_pod(facts.clone()));
        assert_eq!(by_name(&table, "a").is_some(), nameable);
        assert!(by_uid(&table, "a").is_some());
    }
}

#[test]
fn a_pool_member_given_to_a_claim_is_found_by_name_and_stays_so() {
    let give = |namespace: &str, names: &[&str]| PoolFacts {
        uid: uid("pool"),
        namespace: namespace.into(),
        given: names.iter().map(|name| uid(&format!("s-{name}"))).collect(),
    };
    let table = both();
    let apply = |name: &str| {
        let (mut pod, mut sandbox) = (pod(name, &format!("p-{name}"), "10.0.0.1"), sandbox(name));
        pod.pooled = true;
        sandbox.pooled = true;
        table.update(|index| {
            index.apply_sandbox(sandbox);
            index.apply_pod(pod);
        });
    };
    apply("a");
    // Another namespace's pool has nothing to give here.
    table.update(|index| index.apply_pool(give("other", &["a"])));
    assert_eq!(by_name(&table, "a"), None);
    table.update(|index| index.apply_pool(give("ns", &["a", "b"])));
    assert!(by_name(&table, "a").is_some());
    // One that is seen after its record, and one whose record has dropped it already.
    apply("b");
    assert!(by_name(&table, "b").is_some());
    table.update(|index| index.apply_pool(give("ns", &[])));
    apply("a");
    assert!(by_name(&table, "a").is_some() && by_name(&table, "b").is_some());
    // A pool that is gone gives nothing any more.
    table.update(|index| {
        index.apply_pool(give("ns", &["c"]));
        index.delete_pool(&uid("pool"));
    });
    apply("c");
    assert_eq!(by_name(&table, "c"), None);
}

#[test]
fn a_late_delete_of_the_old_pod_leaves_its_successor() {
    let table = pods_only();
    table.update(|index| {
        index.apply_pod(pod("a", "old", "10.0.0.1"));
        let mut successor = pod("a", "new", "10.0.0.2");
        // Recreated together with its Sandbox, under the same name.
        successor.sandbox_uid = uid("s-a-2");
        index.apply_pod(successor);
    });
    assert_eq!(by_name(&table, "a").as_deref(), Some("10.0.0.2"));
    table.update(|index| index.delete_pod(&uid("old")));
    assert_eq!(by_name(&table, "a").as_deref(), Some("10.0.0.2"));
    assert_eq!(by_uid(&table, "a"), None);
}

#[test]
fn delete_then_add_converges() {
    let table = pods_only();
    table.update(|index| index.apply_pod(pod("a", "p1", "10.0.0.1")));
    table.update(|index| index.delete_pod(&uid("p1")));
    table.update(|index| index.apply_pod(pod("a", "p2", "10.0.0.2")));
    assert_eq!(by_name(&table, "a").as_deref(), Some("10.0.0.2"));
}

#[test]
fn a_uid_under_a_new_name_leaves_no_old_name() {
    let table = pods_only();
    table.update(|index| index.apply_pod(pod("a", "p1", "10.0.0.1")));
    let mut renamed = pod("b", "p1", "10.0.0.1");
    renamed.sandbox_uid = uid("s-a");
    table.update(|index| index.apply_pod(renamed));
    assert_eq!(by_name(&table, "a"), None);
    assert_eq!(by_name(&table, "b").as_deref(), Some("10.0.0.1"));
}

#[test]
fn a_pod_name_of_an_older_controller_leads_to_its_sandbox() {
    let table = both();
    let mut facts = sandbox("claimed");
    facts.pod_name = Some("pool-x7k2".into());
    let mut adopted = pod("claimed", "p1", "10.0.0.1");
    adopted.name = "pool-x7k2".into();
    table.update(|index| {
        index.apply_sandbox(facts);
        index.apply_pod(adopted);
    });
    assert_eq!(by_name(&table, "claimed").as_deref(), Some("10.0.0.1"));
    assert_eq!(by_name(&table, "pool-x7k2").as_deref(), Some("10.0.0.1"));
    // A Sandbox that really has the name comes first.
    table.update(|index| {
        index.apply_sandbox(sandbox("pool-x7k2"));
        index.apply_pod(pod("pool-x7k2", "p2", "10.0.0.2"));
    });
    assert_eq!(by_name(&table, "pool-x7k2").as_deref(), Some("10.0.0.2"));
    table.update(|index| {
        index.delete_pod(&uid("p1"));
        index.delete_sandbox(&uid("s-claimed"));
        index.delete_pod(&uid("p2"));
        index.delete_sandbox(&uid("s-pool-x7k2"));
    });
    assert_eq!(by_name(&table, "pool-x7k2"), None);
}

#[test]
fn only_the_pod_of_a_known_sandbox_routes() {
    let table = both();
    table.update(|index| index.apply_pod(pod("a", "p1", "10.0.0.1")));
    assert!(table.by_name("ns", "a").is_none() && table.by_uid(&uid("s-a")).is_none());
    let mut forged = pod("a", "p2", "10.6.6.6");
    forged.name = "not-a".into();
    table.update(|index| {
        index.apply_sandbox(sandbox("a"));
        index.apply_pod(forged);
    });
    assert_eq!(by_name(&table, "a").as_deref(), Some("10.0.0.1"));
}

#[test]
fn unchanged_facts_keep_the_row_and_what_was_noted_on_it() {
    let table = pods_only();
    table.update(|index| index.apply_pod(pod("a", "p1", "10.0.0.1")));
    let before = table.by_name("ns", "a").unwrap();
    assert!(before.set_unreachable(1, 100));
    assert!(!before.set_unreachable(2, 100), "not news any more");
    table.update(|index| index.apply_pod(pod("a", "p1", "10.0.0.1")));
    let same = table.by_name("ns", "a").unwrap();
    assert!(
        Arc::ptr_eq(&before, &same) && same.is_unreachable(|| 99) && !same.is_unreachable(|| 100)
    );
    table.update(|index| index.apply_pod(pod("a", "p1", "10.0.0.2")));
    let moved = table.by_name("ns", "a").unwrap();
    assert!(!moved.is_unreachable(|| 0));
    // A verdict about the old address cannot reach the new row.
    before.set_unreachable(1, u64::MAX);
    assert!(!table.by_name("ns", "a").unwrap().is_unreachable(|| 0));
    assert!(Arc::ptr_eq(&before.load, &moved.load), "limits carry over");
}

#[test]
fn a_relist_forgets_what_it_does_not_confirm() {
    let table = both();
    table.update(|index| {
        for name in ["a", "b"] {
            index.apply_sandbox(sandbox(name));
            index.apply_pod(pod(name, &format!("p-{name}"), "10.0.0.1"));
        }
    });
    table.update(|index| {
        index.begin_list(Kind::Pods);
        index.apply_pod(pod("a", "p-a", "10.0.0.1"));
        index.end_list(Kind::Pods);
    });
    assert!(by_name(&table, "a").is_some());
    assert_eq!(table.by_name("ns", "b").unwrap().state, State::Starting);
    table.update(|index| {
        index.begin_list(Kind::Sandboxes);
        index.apply_sandbox(sandbox("a"));
        index.end_list(Kind::Sandboxes);
    });
    assert!(by_name(&table, "a").is_some());
    assert!(table.by_name("ns", "b").is_none());
    assert_eq!(table.len(), 1);
}

#[test]
fn a_deleted_sandbox_is_remembered_as_gone() {
    let table = both();
    table.update(|index| index.apply_sandbox(sandbox("a")));
    table.update(|index| index.delete_sandbox(&uid("s-a")));
    let mut headers = HeaderMap::new();
    headers.insert("x-sandbox-namespace", "ns".parse().unwrap());
    headers.insert("x-sandbox-id", "a".parse().unwrap());
    let target = Target::parse(&headers).unwrap();
    assert_eq!(table.lookup(&target).unwrap_err(), Absence::Gone);
    headers.insert("x-sandbox-id", "b".parse().unwrap());
    let target = Target::parse(&headers).unwrap();
    assert_eq!(table.lookup(&target).unwrap_err(), Absence::Unknown);
}

#[test]
fn texts_of_deleted_sandboxes_are_let_go() {
    let table = both();
    for n in 0..1000 {
        let name = format!("box-{n}");
        table.update(|index| {
            let interned = index.intern(&name);
            let mut facts = sandbox(&name);
            facts.name = interned;
            index.apply_sandbox(facts);
        });
        table.update(|index| index.delete_sandbox(&uid(&format!("s-{name}"))));
    }
    let index = table.index.lock();
    assert!(
        index.is_empty() && index.interned() < 200,
        "{}",
        index.interned()
    );
}

/// One thing a watch can say about one of a few objects.
#[derive(Clone, Debug)]
enum Event {
    Pod {
        pod: u8,
        owner: u8,
        name: u8,
        ip: u8,
        ready: bool,
        deleting: bool,
        pooled: bool,
    },
    PodGone(u8),
    Sandbox {
        uid: u8,
        name: u8,
        phase: Phase,
        pooled: bool,
    },
    SandboxGone(u8),
    RelistPods,
    RelistSandboxes,
}

fn event() -> impl Strategy<Value = Event> {
    let phase = prop_oneof![
        4 => Just(Phase::Running),
        1 => Just(Phase::Suspended),
        1 => Just(Phase::Finished),
        1 => Just(Phase::Gone),
    ];
    prop_oneof![
        6 => (0..5_u8, 0..4_u8, 0..3_u8, 1..5_u8, any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.3))
            .prop_map(|(pod, owner, name, ip, ready, deleting, pooled)| Event::Pod {
                pod, owner, name, ip, ready, deleting, pooled,
            }),
        2 => (0..5_u8).prop_map(Event::PodGone),
        4 => (0..4_u8, 0..3_u8, phase, prop::bool::weighted(0.3))
            .prop_map(|(uid, name, phase, pooled)| Event::Sandbox { uid, name, phase, pooled }),
        2 => (0..4_u8).prop_map(Event::SandboxGone),
        1 => Just(Event::RelistPods),
        1 => Just(Event::RelistSandboxes),
    ]
}

/// What exists, and nothing else.
#[derive(Debug, Default)]
struct World {
    pods: BTreeMap<Uid, PodFacts>,
    sandboxes: BTreeMap<Uid, SandboxFacts>,
}

impl World {
    fn apply(&mut self, event: &Event, index: &mut Index) {
        match *event {
            Event::Pod {
                pod,
                owner,
                name,
                ip,
                ready,
                deleting,
                pooled,
            } => {
                let facts = PodFacts {
                    uid: uid(&format!("p{pod}")),
                    namespace: "ns".into(),
                    name: format!("n{name}").into(),
                    sandbox_uid: uid(&format!("s{owner}")),
                    sandbox_name: format!("n{name}").into(),
                    addresses: Addresses::new([[10, 0, 0, ip].into()]),
                    ready,
                    deleting,
                    pooled,
                };
                self.pods.insert(facts.uid.clone(), facts.clone());
                index.apply_pod(facts);
            }
            Event::PodGone(pod) => {
                let uid = uid(&format!("p{pod}"));
                self.pods.remove(&uid);
                index.delete_pod(&uid);
            }
            Event::Sandbox {
                uid: number,
                name,
                phase,
                pooled,
            } => {
                let facts = SandboxFacts {
                    uid: uid(&format!("s{number}")),
                    namespace: "ns".into(),
                    name: format!("n{name}").into(),
                    pod_name: None,
                    phase,
                    pooled,
                };
                self.sandboxes.insert(facts.uid.clone(), facts.clone());
                index.apply_sandbox(facts);
            }
            Event::SandboxGone(number) => {
                let uid = uid(&format!("s{number}"));
                self.sandboxes.remove(&uid);
                index.delete_sandbox(&uid);
            }
            Event::RelistPods => {
                index.begin_list(Kind::Pods);
                for facts in self.pods.values() {
                    index.apply_pod(facts.clone());
                }
                index.end_list(Kind::Pods);
            }
            Event::RelistSandboxes => {
                index.begin_list(Kind::Sandboxes);
                for facts in self.sandboxes.values() {
                    index.apply_sandbox(facts.clone());
                }
                index.end_list(Kind::Sandboxes);
            }
        }
    }

    /// Addresses a sandbox may be reached at.
    fn routable(&self, trust: Trust, sandbox: &Uid) -> BTreeSet<String> {
        let facts = self.sandboxes.get(sandbox);
        if trust == Trust::Sandboxes && facts.is_none()
            || facts.is_some_and(|facts| matches!(facts.phase, Phase::Suspended | Phase::Gone))
        {
            return BTreeSet::new();
        }
        self.pods
            .values()
            .filter(|pod| pod.sandbox_uid == *sandbox && pod.ready && !pod.deleting)
            .filter(|pod| facts.is_none_or(|facts| facts.name == pod.name))
            .filter_map(|pod| pod.addresses.primary())
            .map(|ip| ip.to_string())
            .collect()
    }
}

fn check(trust: Trust, events: &[Event], batches: &[usize]) -> Result<(), TestCaseError> {
    let table = Table::new(trust, None);
    let mut world = World::default();
    let mut rest = events;
    let mut batches = batches.iter().cycle();
    while !rest.is_empty() {
        let size = (*batches.next().unwrap()).min(rest.len());
        let (now, later) = rest.split_at(size);
        rest = later;
        table.update(|index| {
            for event in now {
                world.apply(event, index);
            }
        });
        for number in 0..4 {
            let uid = uid(&format!("s{number}"));
            let row = table.by_uid(&uid);
            let expected = world.routable(trust, &uid);
            match address(row.clone()) {
                Some(ip) => {
                    prop_assert!(expected.contains(&ip), "{uid:?} at {ip}, not {expected:?}");
                }
                None => {
                    prop_assert!(expected.is_empty(), "{uid:?} nowhere, not {expected:?}");
                }
            }
            let exists = world.sandboxes.contains_key(&uid)
                || trust == Trust::Pods && world.pods.values().any(|pod| pod.sandbox_uid == uid);
            prop_assert_eq!(row.is_some(), exists);
        }
        for name in ["n0", "n1", "n2"] {
            let found = table.by_name("ns", name);
            if let Some(row) = &found {
                let current = table.by_uid(&row.uid).expect("a name leads to a known row");
                prop_assert!(Arc::ptr_eq(row, &current), "{name} leads to an old row");
                if let Some(facts) = world.sandboxes.get(&row.uid) {
                    prop_assert!(!facts.pooled && *facts.name == *name);
                }
            }
            // A ready sandbox of this name that may be named is never hidden by one that is not.
            let ready = world.sandboxes.values().any(|facts| {
                *facts.name == *name
                    && !facts.pooled
                    && !world.routable(trust, &facts.uid).is_empty()
            });
            if ready {
                let row = found.expect("a ready sandbox has its name");
                prop_assert_eq!(row.state, State::Ready);
            }
        }
    }
    // When all is gone, nothing is left behind.
    table.update(|index| {
        for pod in world.pods.keys() {
            index.delete_pod(pod);
        }
        for sandbox in world.sandboxes.keys() {
            index.delete_sandbox(sandbox);
        }
    });
    prop_assert!(table.index.lock().is_spotless());
    for name in ["n0", "n1", "n2"] {
        prop_assert!(table.by_name("ns", name).is_none());
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_order_of_events_ends_in_the_state_of_the_world(
        events in prop::collection::vec(event(), 1..60),
        batches in prop::collection::vec(1_usize..8, 1..5),
    ) {
        check(Trust::Sandboxes, &events, &batches)?;
        check(Trust::Pods, &events, &batches)?;
    }
}

#[test]
fn an_address_that_did_not_answer_is_noted_once_and_not_against_its_successor() {
    let table = pods_only();
    table.update(|index| index.apply_pod(pod("a", "p1", "10.0.0.1")));
    let failed = table.by_name("ns", "a").unwrap();
    assert!(failed.set_unreachable(10, 20), "news");
    assert!(!failed.set_unreachable(11, 21), "no news");
    assert!(table.by_name("ns", "a").unwrap().is_unreachable(|| 15));
    assert!(
        !table.by_name("ns", "a").unwrap().is_unreachable(|| 30),
        "only for a while"
    );
    // The pod after it may even have the same address: a late failure says nothing about it.
    table.update(|index| {
        index.delete_pod(&uid("p1"));
        index.apply_pod(pod("a", "p2", "10.0.0.1"));
    });
    failed.set_unreachable(15, 100);
    assert!(!table.by_name("ns", "a").unwrap().is_unreachable(|| 16));
}
