//! Many commands: at once, and one after the other.

use std::sync::Arc;

use super::{Runtime, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`cargo xtask test load` builds the programs it needs"]
async fn a_thousand_commands_run_at_once_and_each_gets_its_own_output() {
    let runtime = Arc::new(Runtime::start(&[]).await);
    let gate = runtime.path("go");
    let calls: Vec<_> = (0..1000)
        .map(|number| {
            let runtime = runtime.clone();
            tokio::spawn(async move {
                let script = format!(
                    "sh -c 'echo {number}; while [ ! -e go ]; do sleep 1; done; exit {}'",
                    number % 200
                );
                let answer = runtime.execute(&script, 280.0).await;
                assert_eq!(answer["stdout"], format!("{number}\n"));
                assert_eq!(answer["exit_code"], number % 200);
            })
        })
        .collect();
    until("a thousand run", async || runtime.running().await == 1000).await;
    println!("1,000 commands run: {} MiB", runtime.memory());
    assert!(runtime.memory() < 128, "{} MiB", runtime.memory());
    // Others are served meanwhile.
    assert_eq!(runtime.execute("echo on", 60.0).await["stdout"], "on\n");
    std::fs::write(&gate, "").unwrap();
    for call in calls {
        call.await.unwrap();
    }
    until("nothing is left", async || {
        runtime.running().await == 0 && runtime.zombies() == 0
    })
    .await;
    Arc::into_inner(runtime).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`cargo xtask test load` builds the programs it needs"]
async fn ten_thousand_short_commands_leave_nothing_behind() {
    let runtime = Arc::new(Runtime::start(&[]).await);
    let rounds = |count: usize| {
        let workers = (0..16).map(|_| {
            let runtime = runtime.clone();
            tokio::spawn(async move {
                for _ in 0..count / 16 {
                    let answer = runtime.execute("echo done", 60.0).await;
                    assert_eq!(answer["stdout"], "done\n");
                }
            })
        });
        workers.collect::<Vec<_>>()
    };
    for worker in rounds(1600) {
        worker.await.unwrap();
    }
    let descriptors = || runtime.program.descriptors().unwrap();
    let settled = async || {
        let mut looks = (0, 0);
        until("its descriptors stay", async || {
            let now = descriptors();
            looks = if looks.0 == now {
                (now, looks.1 + 1)
            } else {
                (now, 0)
            };
            looks.1 == 20
        })
        .await;
        looks.0
    };
    let (before, memory) = (settled().await, runtime.memory());
    for worker in rounds(10_000) {
        worker.await.unwrap();
    }
    let after = settled().await;
    println!(
        "10,000 commands: {memory} to {} MiB, {before} to {after} descriptors",
        runtime.memory()
    );
    assert_eq!(runtime.zombies(), 0);
    assert_eq!(runtime.running().await, 0);
    assert!(after <= before, "{before} to {after} descriptors");
    assert!(
        runtime.memory() <= memory + 8,
        "{memory} to {} MiB",
        runtime.memory()
    );
    Arc::into_inner(runtime).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`cargo xtask test load` builds the programs it needs"]
async fn more_commands_than_allowed_are_refused_and_the_rest_unharmed() {
    let runtime = Arc::new(Runtime::start(&["--max-processes=50"]).await);
    let mut accepted = Vec::new();
    for _ in 0..50 {
        accepted.push(
            runtime
                .detach(serde_json::json!({"argv": ["sleep", "1000"]}))
                .await,
        );
    }
    for _ in 0..50 {
        let body = serde_json::json!({"argv": ["sleep", "1000"]});
        let (status, answer) = runtime
            .call(http::Method::POST, "/v1/processes", Some(body))
            .await;
        assert_eq!(status, 503, "{answer}");
    }
    assert_eq!(runtime.members().len(), 50);
    let began = tokio::time::Instant::now();
    for id in accepted {
        runtime.forget(id).await;
    }
    println!("50 trees ended in {:?}", began.elapsed());
    assert_eq!(runtime.members(), Vec::<i32>::new());
    Arc::into_inner(runtime).unwrap().stop().await;
}
