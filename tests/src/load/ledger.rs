//! A pool's allocation record as a plain client keeps it: one write for all who wait, by compare-and-swap,
//! without anything that an operator has to know besides. The floor uses it.

use anyhow::{Context, Result};
use tokio::sync::Mutex;

use super::client::{Kind, Plain};
use super::objects::{self, Entry, Version};

/// The record of one pool. Whoever commits while a write is under way waits and goes with the next one.
#[derive(Debug)]
pub struct Ledger {
    replicas: u32,
    waiting: parking_lot::Mutex<Batch>,
    /// Held by whoever writes.
    record: Mutex<Record>,
}

/// What waits for the next write.
#[derive(Debug, Default)]
struct Batch {
    entries: Vec<Entry>,
    /// Members that have their new owner.
    settled: Vec<Version>,
    /// How many writes have begun.
    number: u64,
}

/// What was written last.
#[derive(Debug)]
struct Record {
    pool: Version,
    entries: Vec<Entry>,
    settled: Option<String>,
    writes: u32,
}

impl Ledger {
    /// The empty record of a full pool.
    pub fn new(pool: Version, replicas: u32) -> Self {
        Self {
            replicas,
            waiting: parking_lot::Mutex::default(),
            record: Mutex::new(Record {
                pool,
                entries: Vec::new(),
                settled: None,
                writes: 0,
            }),
        }
    }

    /// Returns once a write with this entry has been answered.
    pub async fn commit(&self, plain: &Plain, entry: Entry) -> Result<()> {
        let mine = {
            let mut waiting = self.waiting.lock();
            waiting.entries.push(entry);
            waiting.number
        };
        let mut record = self.record.lock().await;
        if self.waiting.lock().number != mine {
            // Somebody who came later has written it along, and has been answered.
            return Ok(());
        }
        self.write(plain, &mut record).await
    }

    /// Notes that a member has its new owner: its entry leaves with the next write.
    pub fn settle(&self, member: Version) {
        self.waiting.lock().settled.push(member);
    }

    /// Writes the record without the entries that have served.
    pub async fn tidy(&self, plain: &Plain) -> Result<()> {
        let mut record = self.record.lock().await;
        self.write(plain, &mut record).await
    }

    /// Writes a record with just these entries.
    pub async fn replace(&self, plain: &Plain, entries: &[Entry]) -> Result<()> {
        let mut record = self.record.lock().await;
        record.entries = entries.to_vec();
        self.write(plain, &mut record).await
    }

    /// How many writes have been made.
    pub async fn writes(&self) -> u32 {
        self.record.lock().await.writes
    }

    async fn write(&self, plain: &Plain, record: &mut Record) -> Result<()> {
        let batch = {
            let mut waiting = self.waiting.lock();
            let number = waiting.number + 1;
            std::mem::replace(
                &mut *waiting,
                Batch {
                    number,
                    ..Batch::default()
                },
            )
        };
        record.take(batch);
        let given = u32::try_from(record.entries.len())?;
        let patch = objects::allocations(
            &record.pool,
            &record.entries,
            self.replicas.saturating_sub(given),
            record.settled.as_deref(),
        );
        let name = record.pool.name.clone();
        let answer = plain.patch_status(Kind::Pool, &name, &patch).await?;
        record.pool = Version::of(&answer).context("the answer is no object")?;
        record.writes += 1;
        Ok(())
    }
}

impl Record {
    fn take(&mut self, batch: Batch) {
        for member in batch.settled {
            self.entries.retain(|entry| entry.member.uid != member.uid);
            self.settled = Some(member.revision);
        }
        self.entries.extend(batch.entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(name: &str, revision: &str) -> Version {
        Version {
            name: name.to_owned(),
            uid: format!("{name}-uid"),
            revision: revision.to_owned(),
        }
    }

    #[test]
    fn entries_leave_once_their_member_is_settled() {
        let entry = |n: u32| Entry {
            claim: version(&format!("c{n}"), "1"),
            member: version(&format!("s{n}"), "1"),
        };
        let mut record = Record {
            pool: version("p", "1"),
            entries: vec![entry(1), entry(2)],
            settled: None,
            writes: 0,
        };
        record.take(Batch {
            entries: vec![entry(3)],
            settled: vec![version("s1", "7")],
            number: 1,
        });
        let left: Vec<&str> = record
            .entries
            .iter()
            .map(|entry| entry.member.name.as_str())
            .collect();
        assert_eq!(left, ["s2", "s3"]);
        assert_eq!(record.settled.as_deref(), Some("7"));
        let patch = objects::allocations(&record.pool, &record.entries, 3, Some("7"));
        let second = "c3/c3-uid=s3/s3-uid";
        assert_eq!(patch["status"]["allocations"][1], second);
        let empty = objects::allocations(&record.pool, &[], 5, Some("7"));
        assert!(empty["status"]["allocations"].is_null());
    }
}
