//! The bench of claims: how soon a claim is served, how many at once, at what cost, beside what a
//! plain client reaches with the same calls in the same run.
//!
//! `bench-claims` calls [`run`]; `cargo xtask bench claims` builds and starts it. The operator runs as
//! a process of its own against the cluster that `KUBECONFIG` names. Whatever happens, what was made
//! in the cluster is removed. A claim that is not served, or a sandbox handed out twice, voids the
//! run: a wrong answer has no speed.

pub mod args;
pub mod claims;
pub mod client;
pub mod closed_loop;
pub mod counters;
pub mod fill;
pub mod floor;
pub mod follow;
pub mod ledger;
pub mod members;
pub mod objects;
pub mod operator;
pub mod pace;
pub mod report;
pub mod rows;
pub mod scale;
pub mod scene;
pub mod watcher;

use agent_sandbox_load::machine;
use agent_sandbox_service::shutdown::{self, Shutdown};
use anyhow::{Context, Result, bail};

pub use args::Args;
use args::Leg;
use operator::Operator;
use report::Report;
use scene::Scene;

/// Measures, prints the table, writes the JSON.
///
/// # Errors
/// When the cluster cannot be used, or the run is void.
pub async fn run(args: Args) -> Result<()> {
    let plan = args.plan()?;
    let json = plan.json.clone();
    let scene = Scene::set(plan).await?;
    let signalled = shutdown::signals(&Shutdown::new()).context("cannot listen for signals")?;
    let mut report = Report {
        processors: std::thread::available_parallelism()?.get(),
        ..Report::default()
    };
    let outcome = tokio::select! {
        biased;
        signal = signalled => Err(anyhow::anyhow!("interrupted by {signal}")),
        outcome = legs(&scene, &mut report) => outcome,
    };
    say("removing what was created");
    let removed = scene
        .strike()
        .await
        .context("cannot remove what was created");
    match (outcome, removed) {
        (Err(error), Err(second)) => bail!("{error:#}; moreover: {second:#}"),
        (Err(error), Ok(())) => {
            say("void; until then:");
            print(&report.text()?);
            return Err(error);
        }
        (Ok(()), removed) => removed?,
    }
    report.conclude();
    print(&report.text()?);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

async fn legs(scene: &Scene, report: &mut Report) -> Result<()> {
    let plan = &scene.plan;
    if !scene.processes.knows(machine::API_SERVER) {
        say(
            "no process kube-apiserver here, or more than one: its time is not measured; --apiserver-pid names it",
        );
    }
    if plan.legs.contains(&Leg::Scale) {
        scene.look_around(report).await?;
        report.scale = Some(scene.scale(say).await?);
    }
    if plan.legs.contains(&Leg::Floor) {
        scene.look_around(report).await?;
        report.floors = Some(scene.floor(say).await?);
        for (rate, seed) in plan.rates.iter().zip(1..) {
            scene.look_around(report).await?;
            say(&format!(
                "floor, {} claims at {}/s",
                rate.claims, rate.per_second
            ));
            report.paced.push(scene.pace(*rate, seed).await?);
        }
    }
    let has = |leg| plan.legs.contains(&leg);
    let bursts = if has(Leg::Burst) { plan.rounds } else { 0 };
    let fills = if has(Leg::Fill) { plan.rounds } else { 0 };
    let is_idle = fills + bursts == 0 && plan.rates.is_empty() && plan.workers.is_empty();
    if is_idle && !has(Leg::Recovery) {
        return Ok(());
    }
    let mut operator = Operator::start(plan, &scene.log).await?;
    operator.ready().await?;
    for round in 1..=fills {
        if round > 1 {
            scene.delete_pool().await?;
        }
        scene.settle().await?;
        scene.look_around(report).await?;
        say(&format!(
            "filling a pool of {}, round {round} of {fills}",
            plan.pool
        ));
        report
            .fills
            .push(scene.fill(&operator, 0, plan.pool).await?);
    }
    if fills == 0 {
        say(&format!("a pool of {}", plan.pool));
        scene.create_pool(plan.pool).await?;
    }
    for (rate, seed) in plan.rates.iter().zip(1..) {
        scene.at_rest(plan.pool).await?;
        scene.look_around(report).await?;
        say(&format!("{} claims at {}/s", rate.claims, rate.per_second));
        let found = scene.open_loop(&operator, *rate, seed).await?;
        report.open_loop.push(found);
    }
    for workers in &plan.workers {
        scene.at_rest(plan.pool).await?;
        scene.look_around(report).await?;
        say(&format!("closed loop, {workers} at a time"));
        let found = scene.closed_loop(&operator, *workers).await?;
        report.closed_loops.push(found);
    }
    for round in 1..=bursts {
        scene.at_rest(plan.pool).await?;
        scene.look_around(report).await?;
        say(&format!(
            "burst of {}, round {round} of {bursts}",
            plan.burst
        ));
        report.bursts.push(scene.burst(&operator, round).await?);
    }
    if has(Leg::Recovery) {
        scene.resize_pool(plan.small_pool).await?;
        scene.at_rest(plan.small_pool).await?;
        scene.look_around(report).await?;
        report.depletion = scene.depletion(&operator, say).await?;
    }
    scene.delete_pool().await?;
    operator.stop().await
}

/// One line per step, before the step starts.
#[expect(clippy::print_stdout, reason = "the program's terminal")]
fn say(step: &str) {
    println!("==> {step}");
}

#[expect(clippy::print_stdout, reason = "the program's result")]
fn print(text: &str) {
    println!("\n{text}");
}
