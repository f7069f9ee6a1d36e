//! What a record should say next, given how its entries stand and what is asked for. Pure.

use std::collections::BTreeSet;

use crate::ident::Uid;
use crate::objects::{Allocation, AllocationRecord, Named};
use crate::store::End;

/// How many entries a record may have. An entry takes some 200 bytes, a Kubernetes object at most a
/// megabyte and a half, and every write carries all of them.
pub const MOST_ENTRIES: usize = 1000;

/// What is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// A member for a claim.
    Allocate(Allocation),
    /// That a member is given to nobody any more, because it is to be deleted.
    Retire(Named),
}

impl Request {
    /// The member it is about.
    pub fn sandbox(&self) -> &Named {
        match self {
            Self::Allocate(allocation) => &allocation.sandbox,
            Self::Retire(sandbox) => sandbox,
        }
    }

    /// Whether a record grants it.
    pub fn is_granted_by(&self, record: &AllocationRecord) -> bool {
        match self {
            Self::Allocate(allocation) => record.allocations.contains(allocation),
            Self::Retire(sandbox) => record.retiring.contains(sandbox),
        }
    }
}

/// What a request can expect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outlook {
    /// The next record grants it.
    Granted,
    /// No record will.
    Refused,
    /// The record has no room for now.
    Full,
}

/// The next record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Draft {
    /// What it says.
    pub record: AllocationRecord,
    /// What it means for each request.
    pub outlook: Vec<Outlook>,
}

/// Drafts the record that follows `record`. `end_of` says how the entry of a sandbox stands, `is_free`
/// whether a sandbox is a member that nobody else has a hold on.
pub fn draft<'a>(
    record: &AllocationRecord,
    requests: impl IntoIterator<Item = &'a Request>,
    end_of: impl Fn(Uid) -> Option<End>,
    is_free: impl Fn(&Named) -> bool,
) -> Draft {
    let mut next = tidy(record, end_of);
    let mut taken: BTreeSet<Uid> = members(&next).collect();
    let mut served: BTreeSet<Uid> = next.allocations.iter().map(|it| it.claim.uid).collect();
    let mut outlook = Vec::new();
    for request in requests {
        let sandbox = request.sandbox();
        outlook.push(if request.is_granted_by(&next) {
            Outlook::Granted
        } else if taken.contains(&sandbox.uid) || !is_free(sandbox) {
            Outlook::Refused
        } else if taken.len() >= MOST_ENTRIES {
            Outlook::Full
        } else {
            match request {
                // One member for a claim; what it has is observed, and the claim goes on with that.
                Request::Allocate(allocation) if !served.insert(allocation.claim.uid) => {
                    Outlook::Refused
                }
                Request::Allocate(allocation) => {
                    taken.insert(sandbox.uid);
                    next.allocations.push(allocation.clone());
                    Outlook::Granted
                }
                Request::Retire(sandbox) => {
                    taken.insert(sandbox.uid);
                    next.retiring.push(sandbox.clone());
                    Outlook::Granted
                }
            }
        });
    }
    Draft {
        record: next,
        outlook,
    }
}

/// The record without the entries that have served.
pub fn tidy(record: &AllocationRecord, end_of: impl Fn(Uid) -> Option<End>) -> AllocationRecord {
    let mut settled = record.settled;
    let mut stays = |sandbox: &Named| match end_of(sandbox.uid) {
        Some(End::Open) => true,
        Some(End::Settled(revision)) => {
            settled = settled.max(revision);
            false
        }
        Some(End::Void) | None => false,
    };
    let mut allocations = record.allocations.clone();
    allocations.retain(|it| stays(&it.sandbox));
    let mut retiring = record.retiring.clone();
    retiring.retain(&mut stays);
    AllocationRecord {
        allocations,
        retiring,
        settled,
    }
}

fn members(record: &AllocationRecord) -> impl Iterator<Item = Uid> {
    let allocations = record.allocations.iter().map(|it| it.sandbox.uid);
    allocations.chain(record.retiring.iter().map(|it| it.uid))
}

#[cfg(test)]
mod tests {
    use super::Outlook::{Granted, Refused};
    use super::*;
    use crate::ident::Revision;

    fn named(n: u64) -> Named {
        Named {
            name: format!("x{n}").into(),
            uid: Uid::parse(&crate::fixtures::uid(n)),
        }
    }

    fn allocation(claim: u64, sandbox: u64) -> Allocation {
        Allocation {
            claim: named(claim),
            sandbox: named(sandbox),
        }
    }

    fn record(allocations: &[(u64, u64)], retiring: &[u64]) -> AllocationRecord {
        AllocationRecord {
            allocations: allocations
                .iter()
                .map(|(claim, sandbox)| allocation(*claim, *sandbox))
                .collect(),
            retiring: retiring.iter().map(|n| named(*n)).collect(),
            settled: Revision(5),
        }
    }

    #[test]
    fn a_member_is_granted_once_and_a_claim_gets_one() {
        let before = record(&[(1, 21)], &[22]);
        let requests = [
            Request::Allocate(allocation(2, 21)),
            Request::Allocate(allocation(2, 22)),
            Request::Allocate(allocation(2, 23)),
            Request::Allocate(allocation(3, 23)),
            Request::Allocate(allocation(2, 24)),
            Request::Allocate(allocation(1, 21)),
            Request::Allocate(allocation(1, 25)),
            Request::Retire(named(23)),
            Request::Retire(named(26)),
            Request::Retire(named(22)),
            Request::Allocate(allocation(4, 26)),
            Request::Allocate(allocation(4, 27)),
        ];
        let draft = draft(
            &before,
            &requests,
            |_| Some(End::Open),
            |sandbox| *sandbox != named(27),
        );
        let expected = [
            Refused, // another claim's
            Refused, // on its way out
            Granted, // free
            Refused, // given a moment ago
            Refused, // the claim has one
            Granted, // it is there already
            Refused, // the claim has one
            Refused, // given a moment ago
            Granted, // free
            Granted, // it is there already
            Refused, // on its way out
            Refused, // not free for other reasons
        ];
        assert_eq!(draft.outlook, expected);
        assert_eq!(draft.record, record(&[(1, 21), (2, 23)], &[22, 26]));
    }

    #[test]
    fn entries_leave_on_evidence_and_the_record_tells_how_new_it_was() {
        let before = record(&[(1, 21), (2, 22), (3, 23), (4, 24)], &[25, 26]);
        let end_of = |uid: Uid| match uid {
            uid if uid == named(21).uid => Some(End::Settled(Revision(9))),
            uid if uid == named(22).uid => Some(End::Settled(Revision(7))),
            uid if uid == named(23).uid => Some(End::Void),
            uid if uid == named(26).uid => Some(End::Void),
            _ => Some(End::Open),
        };
        let mut after = record(&[(4, 24)], &[25]);
        after.settled = Revision(9);
        assert_eq!(tidy(&before, end_of), after);
        // An end without an owner says nothing of sandboxes that must have been seen.
        let end_of = |_| Some(End::Void);
        assert_eq!(tidy(&before, end_of), record(&[], &[]));
    }

    #[test]
    fn a_full_record_asks_for_patience_and_still_grants_what_it_has() {
        let entries: Vec<(u64, u64)> = (0..MOST_ENTRIES as u64).map(|n| (n, 10_000 + n)).collect();
        let before = record(&entries, &[]);
        let requests = [
            Request::Allocate(allocation(5000, 20_000)),
            Request::Allocate(allocation(7, 10_007)),
            Request::Retire(named(20_001)),
        ];
        let draft = draft(&before, &requests, |_| Some(End::Open), |_| true);
        let expected = [Outlook::Full, Granted, Outlook::Full];
        assert_eq!(draft.outlook, expected);
        assert_eq!(draft.record, before);
    }
}
