//! Giving members of a pool to claims: the commit point of a binding.
//!
//! A member is a claim's from the moment the pool's *allocation record* says so: three members of
//! `SandboxWarmPool.status` that are written by compare-and-swap on the pool. One write serves every claim
//! that asked while the one before was under way, which makes a burst several times faster than one write
//! of a Sandbox for each claim would (docs/decisions/0001). The claim's status follows, then, when no other
//! claim waits, the Sandbox's owner reference, and with it the entry may leave the record.
//!
//! Why no member is ever given away twice, whoever believes to be the leader, and no clock is trusted:
//!
//! * Giving a member away and condemning it to deletion are both writes of the record, each conditional on
//!   the record as it was read. Of two replicas that differ about a member, one finds the record changed.
//! * A member whose entry has left the record says of itself whose it is. A replica that is behind with
//!   the Sandboxes could still take it for free, so the record tells how far one must have seen them
//!   (`settledResourceVersion`); whoever has not asks for each Sandbox before giving it away.
//! * An entry leaves only on evidence: the Sandbox as seen with its new owner, or its end. That it is
//!   unknown is no evidence.
//! * The owner reference is written on condition that the Sandbox is still the pool's as it was seen. A
//!   binding by anybody who does not know the record is found out there, and the claim starts again.
//!
//! The record is where the pool is, not where the operator is, so operators that know nothing of each
//! other meet in it too.

pub mod act;
pub mod record;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use self::record::Request;
use crate::error::Fault;
use crate::store::PoolId;

/// What became of a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The record says so.
    Granted,
    /// It does not, and the store knows why: the member is somebody's, or no member any more.
    Refused,
    /// Unknown, or not now. The member must not be given to anybody else before this is settled.
    Failed(Fault),
}

/// Where requests for the record of each pool come together.
#[derive(Debug, Default)]
pub struct Desks {
    desks: Mutex<BTreeMap<PoolId, Arc<Desk>>>,
}

/// The desk of one pool.
#[derive(Debug, Default)]
struct Desk {
    /// Held by whoever writes the pool's status.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Requests that go with the next write.
    waiting: Mutex<Vec<Arc<Slip>>>,
}

/// The requests of one caller, and their answers once there are any.
#[derive(Debug)]
struct Slip {
    requests: Vec<Request>,
    answers: Mutex<Option<Vec<Answer>>>,
}

impl Slip {
    fn new(requests: Vec<Request>) -> Self {
        Self {
            requests,
            answers: Mutex::default(),
        }
    }
}

impl Desks {
    /// Waits until nobody in this process writes the pool's status, and keeps others from it until the
    /// guard is dropped.
    pub async fn turn(&self, pool: &PoolId) -> OwnedMutexGuard<()> {
        self.of(pool).turn.clone().lock_owned().await
    }

    /// Drops what is kept for a pool that is gone.
    pub fn forget(&self, pool: &PoolId) {
        self.desks.lock().remove(pool);
    }

    fn of(&self, pool: &PoolId) -> Arc<Desk> {
        self.desks.lock().entry(pool.clone()).or_default().clone()
    }
}
