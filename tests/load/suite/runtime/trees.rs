//! Trees of processes that do their best to stay.

use agent_sandbox_runtime::proto::process::v1::{ExecuteRequest, ProcessConfig};
use serde_json::json;

use super::{Runtime, processes, until};

/// Leaves session, group and parents behind, closes its streams, and ignores what can be ignored.
const STUBBORN: &str = "trap '' HUP INT TERM QUIT; \
    setsid sh -c 'setsid sleep 1000 & setsid sleep 1000' & \
    ( ( sh -c 'sleep 1000 & exec sleep 1000' >/dev/null 2>&1 </dev/null & ) & ) ; \
    ( ( ( setsid sleep 1000 & ) & ) & ) ; \
    nohup sleep 1000 >/dev/null 2>&1 & \
    sleep 1000";
/// How many sleep in the end.
const SLEEPERS: usize = 7;

fn stubborn() -> ProcessConfig {
    ProcessConfig {
        command: ["/bin/sh", "-c", STUBBORN].map(str::to_owned).to_vec(),
        ..ProcessConfig::default()
    }
}

fn sleepers(runtime: &Runtime) -> usize {
    let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm"));
    let is_sleep = |pid: &i32| name(pid).is_ok_and(|name| name == "sleep\n");
    runtime.members().iter().filter(|pid| is_sleep(pid)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`cargo xtask test load` builds the programs it needs"]
async fn whatever_a_command_started_is_gone_after_a_cancel_a_deadline_and_a_deletion() {
    let runtime = Runtime::start(&[]).await;
    for round in 0..10 {
        let mut client = runtime.grpc().await;
        let call = tokio::spawn(async move {
            let config = Some(stubborn());
            client.execute(ExecuteRequest { config }).await
        });
        until("all sleep", async || sleepers(&runtime) == SLEEPERS).await;
        call.abort();
        until("all are gone after a cancel", async || {
            runtime.members().is_empty()
        })
        .await;

        let id = runtime
            .detach(json!({"shell": STUBBORN, "timeout_seconds": 2.0}))
            .await;
        until("the deadline", async || {
            runtime.process(id).await["ended_by"] == "timeout"
        })
        .await;
        until("all are gone after a deadline", async || {
            runtime.members().is_empty()
        })
        .await;

        let id = runtime.detach(json!({"shell": STUBBORN})).await;
        until("all sleep", async || sleepers(&runtime) == SLEEPERS).await;
        runtime.forget(id).await;
        assert_eq!(
            runtime.members(),
            Vec::<i32>::new(),
            "after a deletion in round {round}"
        );
    }
    until("nobody waits to be reaped", async || runtime.zombies() == 0).await;
    runtime.stop().await;
}

/// Forks for as long as it is let, and tries again when it is not. A shell would give up.
const BOMB: &str = "\
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.02)
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`cargo xtask test load` builds the programs it needs"]
async fn a_fork_bomb_stays_under_its_cap_and_ends_with_its_command() {
    /// Nobody else's, so that what is counted is the bomb.
    const USER: u32 = 424_242;
    const CAP: usize = 200;
    assert!(
        rustix::process::geteuid().is_root(),
        "only root can run commands as another user, whose processes the kernel then counts"
    );
    let runtime = Runtime::start(&[]).await;
    let bombs = || {
        let uid = format!("Uid:\t{USER}\t");
        processes(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            status.is_ok_and(|status| status.contains(&uid))
        })
    };
    let bomb = |script: &str, seconds: f64| {
        json!({
            "shell": script, "user": format!("{USER}:{USER}"), "timeout_seconds": seconds,
            "limits": {"nproc": CAP},
        })
    };
    // Its leader is one of them, and time runs out.
    let id = runtime
        .detach(bomb(&format!("exec python3 -c '{BOMB}'"), 20.0))
        .await;
    until("the cap is reached", async || bombs().len() >= CAP - 5).await;
    let began = tokio::time::Instant::now();
    assert_eq!(runtime.execute("echo on", 60.0).await["stdout"], "on\n");
    println!("beside the bomb a command took {:?}", began.elapsed());
    assert!(bombs().len() <= CAP);
    until("the deadline", async || {
        runtime.process(id).await["ended_by"] == "timeout"
    })
    .await;
    until("nothing is left of it", async || bombs().is_empty()).await;
    // Its leader is gone at once, and what it left is ended with the command's record.
    let id = runtime
        .detach(bomb(&format!("python3 -c '{BOMB}' & exit 0"), 60.0))
        .await;
    until("the cap is reached", async || bombs().len() >= CAP - 5).await;
    assert_eq!(runtime.process(id).await["state"], "exited");
    runtime.forget(id).await;
    until("nothing is left of it", async || bombs().is_empty()).await;
    assert_eq!(runtime.execute("echo on", 60.0).await["stdout"], "on\n");
    until("nobody waits to be reaped", async || runtime.zombies() == 0).await;
    runtime.stop().await;
}
