//! Much output, and nobody who reads it.

use std::time::Duration;

use agent_sandbox_runtime::proto::process::v1::start_response::Event;
use agent_sandbox_runtime::proto::process::v1::{ProcessConfig, StartRequest};
use serde_json::json;

use super::{Runtime, until};

const TEN_GIB: u64 = 10 << 30;
/// MiB over what it had, whatever a command writes.
const FLAT: u64 = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`cargo xtask test load` builds the programs it needs"]
async fn a_reader_that_stops_holds_ten_gibibytes_back_in_flat_memory_and_misses_nothing() {
    let runtime = Runtime::start(&[]).await;
    runtime.execute("true", 60.0).await;
    let before = runtime.memory();
    let command = format!("head -c {TEN_GIB} /dev/zero");
    let config = ProcessConfig {
        command: command.split(' ').map(str::to_owned).collect(),
        ..ProcessConfig::default()
    };
    let request = StartRequest {
        config: Some(config),
        pty: None,
    };
    let mut events = runtime
        .grpc()
        .await
        .start(request)
        .await
        .unwrap()
        .into_inner();
    let Some(Event::Init(init)) = events.message().await.unwrap().unwrap().event else {
        panic!("expected the number first");
    };
    let id = u64::try_from(init.process_id).unwrap();
    let mut looks = (0, 0);
    until("the command is held back", async || {
        let next = runtime.process(id).await["output"]["next_entry"]
            .as_u64()
            .unwrap();
        looks = if looks.0 == next {
            (next, looks.1 + 1)
        } else {
            (next, 0)
        };
        looks.1 == 50
    })
    .await;
    println!(
        "held back after {} entries: {before} to {} MiB",
        looks.0,
        runtime.memory()
    );
    assert!(runtime.memory() <= before + FLAT);
    assert_eq!(runtime.process(id).await["state"], "running");
    let (mut bytes, mut most, mut exit, mut next) = (0, 0, None, 0);
    while let Some(message) = events.message().await.unwrap() {
        match message.event.unwrap() {
            Event::Stdout(piece) => bytes += piece.len() as u64,
            Event::Exit(status) => exit = Some(status.exit_code),
            other => panic!("unexpected {other:?}"),
        }
        if bytes >= next {
            most = most.max(runtime.memory());
            next += 256 << 20;
        }
    }
    println!("{bytes} bytes read: at most {most} MiB");
    assert_eq!((bytes, exit), (TEN_GIB, Some(0)));
    assert!(most <= before + FLAT, "{before} to {most} MiB");
    runtime.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`cargo xtask test load` builds the programs it needs"]
async fn ten_gibibytes_collected_for_an_answer_keep_their_ends_in_flat_memory() {
    let runtime = Runtime::start(&["--max-output-bytes=1048576"]).await;
    runtime.execute("true", 60.0).await;
    let before = runtime.memory();
    let command = format!("sh -c 'echo begin; head -c {TEN_GIB} /dev/zero; echo end'");
    let answer = runtime.execute(&command, 280.0).await;
    assert_eq!(answer["exit_code"], 0);
    let text = answer["stdout"].as_str().unwrap();
    assert!(text.starts_with("begin\n") && text.ends_with("end\n"));
    let omitted = answer["stdout_omitted_bytes"].as_u64().unwrap();
    assert_eq!(omitted, TEN_GIB + 6 + 4 - (1 << 20));
    println!("{before} to {} MiB", runtime.memory());
    assert!(
        runtime.memory() <= before + FLAT,
        "{before} to {} MiB",
        runtime.memory()
    );
    runtime.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "`cargo xtask test load` builds the programs it needs"]
async fn what_all_commands_collect_together_is_bounded() {
    let runtime = std::sync::Arc::new(Runtime::start(&["--max-collected-bytes=16777216"]).await);
    runtime.execute("true", 60.0).await;
    let before = runtime.memory();
    let id = runtime.detach(json!({"argv": ["true"]})).await;
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let runtime = runtime.clone();
            tokio::spawn(async move {
                runtime
                    .execute(
                        "sh -c 'head -c 4000000 /dev/zero; sleep 1; echo end'",
                        280.0,
                    )
                    .await
            })
        })
        .collect();
    let mut most = 0;
    while !calls.iter().all(tokio::task::JoinHandle::is_finished) {
        most = most.max(runtime.memory());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(answer["exit_code"], 0, "{answer}");
        assert!(answer["stdout"].as_str().unwrap().ends_with("end\n"));
    }
    // The shared 16 MiB, 128 KiB of its own for each, and the answers being written, six times as long
    // because a NUL is six characters in JSON.
    println!("100 times 4 MB at once: {before} to {most} MiB");
    assert!(most <= before + 16 + 13 + 250, "{before} to {most} MiB");
    runtime.forget(id).await;
    std::sync::Arc::into_inner(runtime).unwrap().stop().await;
}
