//! The API server is killed or paused, through the program that the cluster is controlled with.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::Arena;

const CONTROL: &str = "AGENT_SANDBOX_TEST_CLUSTER_CONTROL";
const SERVER: &str = "kube-apiserver";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster whose API server can be stopped: cargo xtask e2e faults --cluster-control FILE"]
async fn an_api_server_killed_during_a_burst_loses_nothing() -> Result<()> {
    let arena = Arena::start().await?;
    let stopped = async {
        arena.some_are_ready(5).await;
        control(&["kill", SERVER]).await?;
        control(&["up"]).await
    };
    let ((), stopped) = tokio::join!(arena.burst(), stopped);
    stopped?;
    arena.settles().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster whose API server can be stopped: cargo xtask e2e faults --cluster-control FILE"]
async fn an_api_server_paused_during_a_burst_loses_nothing() -> Result<()> {
    let mut arena = Arena::start().await?;
    let (leader, _) = arena.leads().await;
    tokio::join!(arena.burst(), arena.some_are_ready(5));
    control(&["pause", SERVER]).await?;
    // Nothing but time ends it for the operator: the lease cannot be renewed, so its holder ends.
    arena.ended("the leader has lost its lease", leader).await;
    control(&["resume", SERVER]).await?;
    arena.settles().await
}

/// Runs the control program.
async fn control(arguments: &[&str]) -> Result<()> {
    let program = std::env::var_os(CONTROL).map(PathBuf::from);
    let program = program.with_context(|| format!("{CONTROL} names no program"))?;
    let output = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("starting {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} {}: {}",
        program.display(),
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
