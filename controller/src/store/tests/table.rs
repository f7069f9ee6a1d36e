//! Whatever the order in which watch events, write results and lists arrive, the table never goes
//! back in time and ends up as the server is.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use crate::ident::{Key, Revision, Uid};
use crate::intern::Interner;
use crate::objects::{Row, VolumeClaimRow};
use crate::store::{Delta, Seen, Table};

/// One state of one object on the server.
#[derive(Clone, Debug)]
struct State {
    name: u8,
    uid: u64,
    revision: u64,
}

fn row(state: &State) -> VolumeClaimRow {
    let wire = serde_json::from_value(json!({"metadata": {
        "name": state.name.to_string(), "namespace": "n", "uid": crate::fixtures::uid(state.uid),
        "resourceVersion": state.revision.to_string(),
    }}))
    .unwrap();
    VolumeClaimRow::from_wire(wire, &Interner::default()).unwrap()
}

fn key(name: u8) -> Key {
    Key::new("n", name.to_string())
}

fn parse(uid: u64) -> Uid {
    Uid::parse(&crate::fixtures::uid(uid))
}

/// A change on the server.
#[derive(Clone, Debug)]
enum Change {
    Set(State),
    Gone(State),
}

/// What a test does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The server creates or changes an object; we may be the writer and learn of it at once, later,
    /// or only through the watch.
    Write { name: u8, ours: bool, late: bool },
    /// The server deletes an object; the same.
    Delete { name: u8, ours: bool },
    /// The watch delivers its next event.
    Deliver,
    /// A late answer to a write of ours arrives.
    Answer,
    /// The watch breaks and everything is listed anew.
    Relist,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u8, any::<bool>(), any::<bool>())
            .prop_map(|(name, ours, late)| Step::Write { name, ours, late }),
        2 => (0..4_u8, any::<bool>()).prop_map(|(name, ours)| Step::Delete { name, ours }),
        4 => Just(Step::Deliver),
        2 => Just(Step::Answer),
        1 => Just(Step::Relist),
    ]
}

#[derive(Default)]
struct World {
    table: Table<VolumeClaimRow>,
    server: BTreeMap<u8, State>,
    revision: u64,
    uids: u64,
    log: Vec<Change>,
    delivered: usize,
    answers: Vec<State>,
    /// The highest revision of each incarnation that was ever visible.
    seen: BTreeMap<(u8, Uid), u64>,
}

impl World {
    fn run(&mut self, step: Step) {
        match step {
            Step::Write { name, ours, late } => {
                self.revision += 1;
                let uid = self.server.get(&name).map_or_else(
                    || {
                        self.uids += 1;
                        self.uids
                    },
                    |state| state.uid,
                );
                let state = State {
                    name,
                    uid,
                    revision: self.revision,
                };
                self.server.insert(name, state.clone());
                self.log.push(Change::Set(state.clone()));
                if ours && late {
                    self.answers.push(state);
                } else if ours {
                    self.table.assume(row(&state));
                    let shown = self.table.get(&key(name)).unwrap();
                    assert_eq!(
                        shown.head.revision,
                        Revision(self.revision),
                        "own writes are visible"
                    );
                }
            }
            Step::Delete { name, ours } => {
                let Some(mut state) = self.server.remove(&name) else {
                    return;
                };
                self.revision += 1;
                let uid = state.uid;
                state.revision = self.revision;
                self.log.push(Change::Gone(state));
                if ours {
                    self.table.assume_deleted(&key(name), parse(uid));
                    let shown = self.table.get(&key(name));
                    assert!(shown.is_none_or(|row| row.head.uid != parse(uid)));
                }
            }
            Step::Deliver => {
                if let Some(change) = self.log.get(self.delivered).cloned() {
                    self.delivered += 1;
                    self.deliver(&change);
                }
            }
            Step::Answer => {
                if !self.answers.is_empty() {
                    let state = self.answers.remove(0);
                    self.table.assume(row(&state));
                }
            }
            Step::Relist => {
                let listed: BTreeSet<Key> = self.server.keys().map(|name| key(*name)).collect();
                for state in self.server.values() {
                    self.table.observe(row(state), Seen::InList);
                }
                self.table.finish_list(Revision(self.revision), &listed);
                self.delivered = self.log.len();
            }
        }
        for shown in self.table.iter() {
            let name: u8 = shown.head.key.name.parse().unwrap();
            let highest = self.seen.entry((name, shown.head.uid)).or_default();
            assert!(shown.head.revision.0 >= *highest, "went back in time");
            *highest = shown.head.revision.0;
        }
    }

    fn deliver(&mut self, change: &Change) {
        match change {
            Change::Set(state) => {
                self.table.observe(row(state), Seen::InWatch);
            }
            Change::Gone(state) => {
                let revision = Revision(state.revision);
                self.table
                    .observe_deleted(&key(state.name), parse(state.uid), revision);
            }
        }
    }

    /// Everything outstanding arrives: the table must be the server.
    fn settle(&mut self) {
        while !self.answers.is_empty() {
            self.run(Step::Answer);
        }
        while self.delivered < self.log.len() {
            self.run(Step::Deliver);
        }
        let shown: Vec<(String, Uid, u64)> = self
            .table
            .iter()
            .map(|row| {
                (
                    row.head.key.name.to_string(),
                    row.head.uid,
                    row.head.revision.0,
                )
            })
            .collect();
        let truth: Vec<(String, Uid, u64)> = self
            .server
            .values()
            .map(|state| (state.name.to_string(), parse(state.uid), state.revision))
            .collect();
        assert_eq!(shown, truth);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_table_never_goes_back_and_converges(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::default();
        world.run(Step::Relist);
        for step in steps {
            world.run(step);
        }
        world.settle();
    }
}

fn state(name: u8, uid: u64, revision: u64) -> State {
    State {
        name,
        uid,
        revision,
    }
}

#[test]
fn the_echo_of_an_own_write_is_no_change() {
    let mut table: Table<VolumeClaimRow> = Table::default();
    table.finish_list(Revision(1), &BTreeSet::new());
    assert!(matches!(
        table.assume(row(&state(1, 1, 5))),
        Delta::Set { .. }
    ));
    assert!(matches!(
        table.observe(row(&state(1, 1, 5)), Seen::InWatch),
        Delta::None
    ));
    assert!(matches!(
        table.observe(row(&state(1, 1, 6)), Seen::InWatch),
        Delta::Set { .. }
    ));
}

#[test]
fn an_answer_that_arrives_after_the_deletion_raises_no_ghost() {
    let mut table: Table<VolumeClaimRow> = Table::default();
    table.finish_list(Revision(1), &BTreeSet::new());
    table.observe(row(&state(1, 1, 2)), Seen::InWatch);
    table.observe_deleted(&key(1), parse(1), Revision(4));
    assert!(matches!(table.assume(row(&state(1, 1, 3))), Delta::None));
    assert!(table.is_empty());
}

#[test]
fn a_deleted_object_does_not_come_back_with_its_late_events() {
    let mut table: Table<VolumeClaimRow> = Table::default();
    table.finish_list(Revision(1), &BTreeSet::new());
    table.assume(row(&state(1, 1, 2)));
    table.assume_deleted(&key(1), parse(1));
    table.observe(row(&state(1, 1, 2)), Seen::InWatch);
    table.observe(row(&state(1, 1, 3)), Seen::InWatch);
    assert!(table.is_empty());
    table.observe_deleted(&key(1), parse(1), Revision(4));
    table.observe(row(&state(1, 2, 5)), Seen::InWatch);
    assert_eq!(table.get(&key(1)).unwrap().head.uid, parse(2));
}

#[test]
fn a_list_removes_what_it_lacks_but_not_what_we_made_since() {
    let mut table: Table<VolumeClaimRow> = Table::default();
    table.finish_list(Revision(1), &BTreeSet::new());
    table.observe(row(&state(1, 1, 2)), Seen::InWatch);
    table.assume(row(&state(2, 2, 9)));
    let gone = table.finish_list(Revision(8), &BTreeSet::new());
    assert_eq!(gone.len(), 1);
    assert!(table.get(&key(1)).is_none() && table.get(&key(2)).is_some());
}
