//! The leading replica is killed or paused.

use anyhow::Result;
use jiff::Timestamp;

use super::Arena;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with real nodes: cargo xtask e2e faults"]
async fn a_leader_killed_during_a_burst_loses_nothing() -> Result<()> {
    let mut arena = Arena::start().await?;
    let (leader, other) = arena.leads().await;
    tokio::join!(arena.burst(), arena.some_are_ready(5));
    let stopped = Timestamp::now();
    arena.replicas[leader].kill()?;
    arena.taken_over_by(other, stopped).await;
    arena.settles().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster with real nodes: cargo xtask e2e faults"]
async fn a_leader_paused_during_a_burst_does_no_harm_when_it_goes_on() -> Result<()> {
    let mut arena = Arena::start().await?;
    let (leader, other) = arena.leads().await;
    tokio::join!(arena.burst(), arena.some_are_ready(5));
    let stopped = Timestamp::now();
    arena.replicas[leader].pause()?;
    arena.taken_over_by(other, stopped).await;
    // It goes on amid its successor's work, believing for a moment that it leads; then it ends.
    arena.replicas[leader].resume()?;
    arena.ended("the former leader has ended", leader).await;
    arena.settles().await
}
