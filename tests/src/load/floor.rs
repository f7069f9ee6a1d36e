//! The floor: what the API server allows a plain client that makes the same calls and nothing else.
//!
//! Kinds of writes are measured alone, and together in the patterns in which a member can be given to a
//! claim. The operator does not run meanwhile.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::client::Kind;
use super::ledger::Ledger;
use super::objects::{self, Entry, Version, fresh};
use super::scene::{Scene, until};
use agent_sandbox_load::machine::{API_SERVER, Times};
use agent_sandbox_load::statistics::Spread;

/// The writes of an operator, in patterns.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
enum Pattern {
    /// The user's write alone.
    Post,
    /// The user's write and one status write: the least any operator can do.
    PostStatus,
    /// The Sandbox's new owner, then the claim's status; the pod's labels afterwards.
    Bind,
    /// The pool's allocation record, written for all claims that wait, then the claim's status;
    /// Sandboxes and pods when all claims have theirs: what the operator does.
    Record,
}

/// One pattern's result over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Floor {
    /// Claims per second.
    pub per_second: Spread,
    /// The API server's time per claim until the last status was written, in milliseconds.
    pub api_server_ms: Option<Spread>,
    /// The same with what follows afterwards.
    pub api_server_whole_ms: Option<Spread>,
    /// One claim after the other: the median from the first call to the last answer, in milliseconds.
    pub serial_ms: Spread,
    /// Claims that shared a write of the record, on average.
    pub claims_a_record: Option<Spread>,
}

/// Everything the floor found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Floors {
    /// By pattern.
    pub patterns: BTreeMap<String, Floor>,
    /// The API server's time for one write, in milliseconds, by kind of write.
    pub writes: BTreeMap<String, Spread>,
}

/// One round of one pattern.
#[derive(Clone, Copy, Debug)]
struct Round {
    per_second: f64,
    api_server_ms: Option<f64>,
    whole_ms: Option<f64>,
    serial_ms: f64,
    claims_a_record: Option<f64>,
}

/// A pool's member.
#[derive(Clone, Debug)]
pub struct Member {
    /// It.
    pub sandbox: Version,
    /// Its pod.
    pub pod: Version,
}

impl Pattern {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn has_members(self) -> bool {
        matches!(self, Self::Bind | Self::Record)
    }
}

impl Scene {
    /// Measures everything; `say` hears of each step.
    pub async fn floor(&self, mut say: impl FnMut(&str)) -> Result<Floors> {
        let patterns = Pattern::value_variants();
        let mut rounds: BTreeMap<Pattern, Vec<Round>> = BTreeMap::new();
        let mut writes: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        for round in 0..self.plan.rounds {
            say(&format!(
                "floor, round {} of {}",
                round + 1,
                self.plan.rounds
            ));
            // Interleaved, and each time in another order: a neighbour that wakes up hits all alike.
            for offset in 0..patterns.len() {
                let turn = (offset + usize::try_from(round)?) % patterns.len();
                let Some(pattern) = patterns.get(turn) else {
                    continue;
                };
                let found = self.pattern(*pattern).await?;
                rounds.entry(*pattern).or_default().push(found);
            }
            for (kind, cost) in self.single_writes().await? {
                writes.entry(kind).or_default().push(cost);
            }
        }
        let mut floors = Floors::default();
        for (pattern, rounds) in rounds {
            let spread =
                |value: fn(&Round) -> Option<f64>| Spread::of(rounds.iter().filter_map(value));
            floors.patterns.insert(
                pattern.name(),
                Floor {
                    per_second: spread(|round| Some(round.per_second)).context("no round")?,
                    api_server_ms: spread(|round| round.api_server_ms),
                    api_server_whole_ms: spread(|round| round.whole_ms),
                    serial_ms: spread(|round| Some(round.serial_ms)).context("no round")?,
                    claims_a_record: spread(|round| round.claims_a_record),
                },
            );
        }
        for (kind, costs) in writes {
            if let Some(spread) = Spread::of(costs) {
                floors.writes.insert(kind.to_owned(), spread);
            }
        }
        Ok(floors)
    }

    /// A burst in one pattern, then some claims one after the other.
    async fn pattern(&self, pattern: Pattern) -> Result<Round> {
        let count = self.plan.burst;
        let members: Vec<Option<Member>> = if pattern.has_members() {
            let members = self.members(count + SERIAL).await?;
            members.into_iter().map(Some).collect()
        } else {
            (0..count + SERIAL).map(|_| None).collect()
        };
        let (burst, serial) = members.split_at(usize::try_from(count)?);
        let ledger = self.ledger(count + SERIAL).await?;
        self.settle().await?;

        let before = self.processes.times()?;
        let start = Instant::now();
        let permits = Semaphore::new(WORKERS);
        let claims = self
            .at_once(burst.len(), burst, |member| {
                self.claim(pattern, member.as_ref(), &ledger, &permits)
            })
            .await?;
        let took = start.elapsed();
        let until_ready = self.processes.times()?.since(&before);
        let records = ledger.writes().await;
        let pairs: Vec<_> = claims.iter().zip(burst.iter().flatten()).collect();
        self.at_once(BACKGROUND, &pairs, |(claim, member)| {
            self.follow(pattern, claim, member, &ledger)
        })
        .await?;
        if pattern == Pattern::Record {
            ledger.tidy(&self.plain).await?;
        }
        let whole = self.processes.times()?.since(&before);

        let mut times = Vec::new();
        for member in serial {
            let start = Instant::now();
            let claim = self
                .claim(pattern, member.as_ref(), &ledger, &permits)
                .await?;
            times.push(start.elapsed().as_secs_f64() * 1000.0);
            if let Some(member) = member {
                self.follow(pattern, &claim, member, &ledger).await?;
            }
        }
        self.clear().await?;
        let each = |times: &Times| {
            let time = times.of(API_SERVER)?;
            Some(time.as_secs_f64() * 1000.0 / f64::from(count))
        };
        Ok(Round {
            per_second: f64::from(count) / took.as_secs_f64(),
            api_server_ms: each(&until_ready),
            whole_ms: each(&whole),
            serial_ms: Spread::of(times).context("no serial claim")?.median,
            claims_a_record: (records > 0).then(|| f64::from(count) / f64::from(records)),
        })
    }

    /// One claim from its creation to its status.
    async fn claim(
        &self,
        pattern: Pattern,
        member: Option<&Member>,
        ledger: &Ledger,
        permits: &Semaphore,
    ) -> Result<Version> {
        let Self { plain, .. } = self;
        let claim = self.post().await?;
        if pattern == Pattern::Post {
            return Ok(claim);
        }
        // An operator has so many workers.
        let _permit = permits.acquire().await?;
        let mut name = "s";
        if let Some(Member { sandbox, .. }) = member {
            name = &sandbox.name;
            if pattern == Pattern::Record {
                let entry = Entry {
                    claim: claim.clone(),
                    member: sandbox.clone(),
                };
                ledger.commit(plain, entry).await?;
            } else {
                let patch = objects::binding(&claim, sandbox, true);
                plain.patch(Kind::Sandbox, name, &patch).await?;
            }
        }
        let status = objects::claim_status(&claim, name);
        plain
            .patch_status(Kind::Claim, &claim.name, &status)
            .await?;
        Ok(claim)
    }

    /// What nobody waits for once the claim has its status.
    async fn follow(
        &self,
        pattern: Pattern,
        claim: &Version,
        member: &Member,
        ledger: &Ledger,
    ) -> Result<()> {
        let Member { sandbox, pod } = member;
        if pattern == Pattern::Record {
            let patch = objects::binding(claim, sandbox, true);
            let owned = self
                .plain
                .patched(Kind::Sandbox, &sandbox.name, patch)
                .await?;
            ledger.settle(owned);
        }
        let patch = objects::relabelling(claim, pod, true);
        self.plain
            .patched(Kind::Pod, &pod.name, patch)
            .await
            .map(drop)
    }

    /// The record of a pool of its own, of which the operator knows nothing.
    pub async fn ledger(&self, replicas: u32) -> Result<Ledger> {
        let body = objects::pool(&fresh(), replicas);
        let pool = self.plain.made(Kind::Pool, body).await?;
        let status = objects::pool_status(&pool, replicas);
        let pool = self
            .plain
            .patched_status(Kind::Pool, &pool.name, status)
            .await?;
        Ok(Ledger::new(pool, replicas))
    }

    /// The API server's time for each kind of write alone.
    async fn single_writes(&self) -> Result<Vec<(&'static str, f64)>> {
        let count = self.plan.burst;
        let names: Vec<String> = (0..count).map(|_| fresh()).collect();
        let mut costs = Vec::new();
        let claims = self
            .timed("claim create", &mut costs, &names, |_| self.post())
            .await?;
        let members = self
            .timed("sandbox create", &mut costs, &names, |name| {
                self.plain.made(Kind::Sandbox, objects::member(name))
            })
            .await?;
        let members = self
            .timed("sandbox status patch", &mut costs, &members, |member| {
                self.plain.patched_status(
                    Kind::Sandbox,
                    &member.name,
                    objects::member_status(member),
                )
            })
            .await?;
        let pods = self
            .timed("pod create", &mut costs, &names, |name| {
                self.plain.made(Kind::Pod, objects::pod(name))
            })
            .await?;
        let halves = count / 2;
        let pairs: Vec<(&Version, &Version)> = claims.iter().zip(&members).collect();
        let (tracked, untracked) = pairs.split_at(usize::try_from(halves)?);
        for (kind, pairs, clear) in [
            ("sandbox bind patch, fields tracked", tracked, false),
            ("sandbox bind patch", untracked, true),
        ] {
            self.timed(kind, &mut costs, pairs, |(claim, member)| {
                let patch = objects::binding(claim, member, clear);
                self.plain.patched(Kind::Sandbox, &member.name, patch)
            })
            .await?;
        }
        self.timed(
            "claim status patch",
            &mut costs,
            &pairs,
            |(claim, member)| {
                let status = objects::claim_status(claim, &member.name);
                self.plain.patched_status(Kind::Claim, &claim.name, status)
            },
        )
        .await?;
        let pairs: Vec<(&Version, &Version)> = claims.iter().zip(&pods).collect();
        let (tracked, untracked) = pairs.split_at(usize::try_from(halves)?);
        for (kind, pairs, clear) in [
            ("pod relabel patch, fields tracked", tracked, false),
            ("pod relabel patch", untracked, true),
        ] {
            self.timed(kind, &mut costs, pairs, |(claim, pod)| {
                self.plain.patched(
                    Kind::Pod,
                    &pod.name,
                    objects::relabelling(claim, pod, clear),
                )
            })
            .await?;
        }
        let entries: Vec<Entry> = claims
            .iter()
            .zip(&members)
            .map(|(claim, member)| Entry {
                claim: claim.clone(),
                member: member.clone(),
            })
            .collect();
        for (kind, length) in [
            ("pool status, record of 1", 1),
            ("pool status, record of 20", 20),
            ("pool status, record of 100", 100),
        ] {
            let ledger = self.ledger(count).await?;
            self.settle().await?;
            let before = self.processes.times()?;
            // Compare-and-swap is serial by nature. Each write says something new.
            let windows: Vec<&[Entry]> = entries.windows(length).take(RECORDS).collect();
            for window in &windows {
                ledger.replace(&self.plain, window).await?;
            }
            self.note(kind, &mut costs, &before, windows.len())?;
        }
        self.timed("claim delete", &mut costs, &claims, |claim| {
            self.plain.delete(Kind::Claim, &claim.name)
        })
        .await?;
        self.clear().await?;
        Ok(costs)
    }

    /// Makes one call for each item and notes what each cost the API server.
    async fn timed<'a, I, T, F>(
        &'a self,
        kind: &'static str,
        costs: &mut Vec<(&'static str, f64)>,
        items: &'a [I],
        call: impl Fn(&'a I) -> F,
    ) -> Result<Vec<T>>
    where
        F: Future<Output = Result<T>>,
    {
        self.settle().await?;
        let before = self.processes.times()?;
        let answers = self.at_once(WRITERS, items, call).await?;
        self.note(kind, costs, &before, items.len())?;
        Ok(answers)
    }

    fn note(
        &self,
        kind: &'static str,
        costs: &mut Vec<(&'static str, f64)>,
        before: &Times,
        count: usize,
    ) -> Result<()> {
        let spent = self.processes.times()?.since(before);
        if let Some(time) = spent.of(API_SERVER) {
            let count = f64::from(u32::try_from(count.max(1))?);
            costs.push((kind, time.as_secs_f64() * 1000.0 / count));
        }
        Ok(())
    }

    async fn at_once<'a, I, T, F>(
        &self,
        width: usize,
        items: &'a [I],
        call: impl Fn(&'a I) -> F,
    ) -> Result<Vec<T>>
    where
        F: Future<Output = Result<T>>,
    {
        stream::iter(items.iter().map(call))
            .buffered(width)
            .try_collect()
            .await
    }

    async fn post(&self) -> Result<Version> {
        self.plain.made(Kind::Claim, objects::claim(&fresh())).await
    }

    /// Members that are ready, as a pool would have them.
    async fn members(&self, count: u32) -> Result<Vec<Member>> {
        let names: Vec<String> = (0..count).map(|_| fresh()).collect();
        self.at_once(WRITERS, &names, |name| async move {
            let made = self
                .plain
                .made(Kind::Sandbox, objects::member(name))
                .await?;
            let status = objects::member_status(&made);
            Ok(Member {
                sandbox: self
                    .plain
                    .patched_status(Kind::Sandbox, name, status)
                    .await?,
                pod: self.plain.made(Kind::Pod, objects::pod(name)).await?,
            })
        })
        .await
    }

    /// Removes what a round made.
    pub async fn clear(&self) -> Result<()> {
        let kinds = [Kind::Claim, Kind::Pool, Kind::Sandbox, Kind::Pod];
        for kind in kinds {
            self.plain.delete_all(kind).await?;
        }
        for kind in [Kind::Claim, Kind::Sandbox, Kind::Pod] {
            until(&format!("{kind} to be gone"), CLEARING, || async {
                Ok((self.plain.count(kind).await? == 0).then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}

/// As many claim workers as the operator has by default.
const WORKERS: usize = 50;
/// As many writes that nobody waits for as the operator has under way by default.
pub const BACKGROUND: usize = 16;
/// Writers when one kind of write is measured.
pub const WRITERS: usize = 16;
/// Writes of a record of one length.
const RECORDS: usize = 100;
/// Claims one after the other, per round.
const SERIAL: u32 = 30;
const CLEARING: Duration = Duration::from_secs(120);
