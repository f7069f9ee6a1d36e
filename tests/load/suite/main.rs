//! The suite of load: the router in short forms (`cargo xtask soak router` runs the long ones), and the
//! runtime at its edges. Minutes altogether on two cores.
//!
//! Ignored unless asked for, because the programs must be built with optimisation beforehand, which
//! `cargo xtask test load` does.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, tells how far it is, and joins what it spawns"
)]

mod runtime;

use std::time::Duration;

use agent_sandbox_load::{bodies, many, soak};

fn say(text: &str) {
    println!("{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`cargo xtask test load` builds the programs it needs"]
async fn ten_thousand_idle_websockets_and_a_thousand_streams_are_carried_at_once() {
    let plan = many::Plan {
        websockets: 10_000,
        streams: 1_000,
    };
    let report = many::run(plan, say).await.unwrap();
    say(&report.to_string());
    report.verdict().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`cargo xtask test load` builds the programs it needs"]
async fn memory_follows_neither_the_size_nor_the_pace_of_bodies() {
    let plan = bodies::Plan {
        large: 1 << 30,
        slow: 20,
    };
    let report = bodies::run(plan, say).await.unwrap();
    report.verdict().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`cargo xtask test load` builds the programs it needs"]
async fn no_request_reaches_the_wrong_sandbox_while_pods_are_replaced_and_nothing_leaks() {
    let plan = soak::Plan {
        rounds: 3,
        round: Duration::from_secs(11),
        clients: 48,
        sandboxes: 16,
        seed: fastrand::u64(..),
    };
    say(&format!("seed {}", plan.seed));
    let report = soak::run(plan, say).await.unwrap();
    say(&report.to_string());
    report.verdict().unwrap();
}
