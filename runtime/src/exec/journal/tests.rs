//! Numbers, limits and the two kinds of followers.

use futures::FutureExt;
use proptest::prelude::*;

use super::*;

fn journal(limit: usize) -> Arc<Journal> {
    Arc::new(Journal::new(limit))
}

/// Polls a future once: appending and reading never wait unless they say so.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    future.now_or_never()
}

fn text(item: Option<Item>) -> String {
    match item {
        Some(Item::Entry(entry)) => String::from_utf8(entry.bytes.to_vec()).unwrap(),
        Some(Item::Missed { entries }) => format!("-{entries}"),
        None => "end".to_owned(),
    }
}

const ROOM_FOR_TWO: usize = 2 * (ENTRY_COST + 1);

#[test]
fn entries_are_numbered_over_both_streams() {
    let journal = journal(1 << 20);
    now(journal.append(Stream::Stdout, Bytes::from_static(b"a"))).unwrap();
    now(journal.append(Stream::Stderr, Bytes::from_static(b"b"))).unwrap();
    now(journal.append(Stream::Stdout, Bytes::new())).unwrap();
    let mut follow = journal.follow(1);
    assert_eq!(
        now(follow.next()).unwrap(),
        Some(Item::Entry(Entry {
            number: 1,
            stream: Stream::Stderr,
            bytes: Bytes::from_static(b"b")
        }))
    );
    assert!(now(follow.next()).is_none(), "nothing more for now");
    journal.end();
    assert_eq!(now(follow.next()).unwrap(), None);
    now(journal.append(Stream::Stdout, Bytes::from_static(b"late"))).unwrap();
    assert_eq!(journal.next_number(), 2, "output after the end is nobody's");
}

#[test]
fn without_holders_the_oldest_make_room_and_readers_are_told() {
    let journal = journal(ROOM_FOR_TWO);
    let mut slow = journal.follow(0);
    for letter in ["a", "b", "c", "d"] {
        now(journal.append(Stream::Stdout, letter.into())).unwrap();
    }
    journal.end();
    let seen: Vec<String> = (0..4).map(|_| text(now(slow.next()).unwrap())).collect();
    assert_eq!(seen, ["-2", "c", "d", "end"]);
}

#[test]
fn a_holder_holds_the_writer_back_until_it_reads_or_leaves() {
    let journal = journal(ROOM_FOR_TWO);
    let mut holder = journal.follow_holding();
    for letter in ["a", "b"] {
        now(journal.append(Stream::Stdout, letter.into())).unwrap();
    }
    let mut third = Box::pin(journal.append(Stream::Stdout, "c".into()));
    assert!((&mut third).now_or_never().is_none(), "full");
    assert_eq!(text(now(holder.next()).unwrap()), "a");
    assert!((&mut third).now_or_never().is_some(), "room for one");
    let mut fourth = Box::pin(journal.append(Stream::Stdout, "d".into()));
    assert!((&mut fourth).now_or_never().is_none(), "full again");
    drop(holder);
    assert!((&mut fourth).now_or_never().is_some(), "nobody holds");
}

#[test]
fn the_end_releases_a_waiting_writer() {
    let journal = journal(1);
    let _holder = journal.follow_holding();
    now(journal.append(Stream::Stdout, "a".into())).unwrap();
    let mut waiting = Box::pin(journal.append(Stream::Stdout, "b".into()));
    assert!((&mut waiting).now_or_never().is_none());
    journal.end();
    assert!((&mut waiting).now_or_never().is_some());
}

proptest! {
    /// Whatever the interleaving, a follower's items are consecutive, the journal stays within its
    /// limit (or one entry), and a holding follower misses nothing.
    #[test]
    fn followers_see_consecutive_entries_within_the_limit(
        limit in 1usize..600,
        steps in proptest::collection::vec((0u8..3, 1usize..100), 1..120),
    ) {
        let journal = journal(limit);
        let mut holder = journal.follow_holding();
        let mut loose = journal.follow(0);
        let (mut held_next, mut loose_next) = (0, 0);
        for (step, size) in steps {
            match step {
                0 => { now(journal.append(Stream::Stdout, vec![0; size].into())); }
                1 => match now(holder.next()) {
                    Some(Some(Item::Entry(entry))) => {
                        prop_assert_eq!(entry.number, held_next);
                        held_next += 1;
                    }
                    Some(other) => prop_assert!(false, "a holder misses nothing: {:?}", other),
                    None => prop_assert_eq!(held_next, journal.next_number()),
                },
                _ => match now(loose.next()) {
                    Some(Some(Item::Entry(entry))) => {
                        prop_assert_eq!(entry.number, loose_next);
                        loose_next += 1;
                    }
                    Some(Some(Item::Missed { entries })) => loose_next += entries,
                    Some(None) => prop_assert!(false, "nobody ended it"),
                    None => prop_assert_eq!(loose_next, journal.next_number()),
                },
            }
            let state = journal.state.lock();
            prop_assert!(state.bytes <= limit || state.entries.len() == 1);
            let real: usize = state.entries.iter().map(|entry| entry.bytes.len() + ENTRY_COST).sum();
            prop_assert_eq!(state.bytes, real);
        }
    }
}
