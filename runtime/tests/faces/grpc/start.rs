//! `Start` with its companions: events, input, signals.

use std::time::Duration;

use agent_sandbox_runtime::proto::process::v1::start_response::Event;
use agent_sandbox_runtime::proto::process::v1::{
    ResizeTtyRequest, SendSignalRequest, StartRequest,
};
use tonic::{Code, Request, Status};

use super::{Client, EOF, Seen, client, config, input, next, sh, start, write};
use crate::harness::start as serve;
use crate::harness::{eventually, runs, sleepers};

async fn signal(client: &mut Client, process_id: i32, signal: i32) -> Result<(), Status> {
    let request = SendSignalRequest { process_id, signal };
    client.send_signal(request).await.map(drop)
}

#[tokio::test]
async fn a_number_comes_first_then_each_output_then_the_exit() {
    let server = serve().await;
    let mut client = client(&server).await;
    for expected in 1..=3 {
        let started = start(&mut client, sh("echo out; echo err >&2; exit 7"), None).await;
        assert_eq!(started.id, expected);
        let seen = started.finish().await;
        let expected = Seen {
            stdout: b"out\n".to_vec(),
            stderr: b"err\n".to_vec(),
            exit: Some(7),
        };
        assert_eq!(seen, expected);
    }
    assert_eq!(server.runtime.processes().running(), 0);
}

#[tokio::test]
async fn pieces_are_as_small_as_configured_and_nothing_is_lost() {
    let server = crate::harness::start_with(|config| config.stream_chunk_bytes = Some(1000)).await;
    let mut client = client(&server).await;
    let script = "seq 20000; seq 300 >&2";
    let mut events = start(&mut client, sh(script), None).await.events;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(event) = next(&mut events).await {
        match event {
            Event::Stdout(bytes) => {
                assert!(bytes.len() <= 1000);
                stdout.extend_from_slice(&bytes);
            }
            Event::Stderr(bytes) => {
                assert!(bytes.len() <= 1000);
                stderr.extend_from_slice(&bytes);
            }
            Event::Exit(exit) => assert_eq!(exit.exit_code, 0),
            Event::Init(_) => panic!("a second number"),
        }
    }
    let lines = |last: u32| {
        let mut lines: Vec<String> = (1..=last).map(|line| line.to_string()).collect();
        lines.push(String::new());
        lines.join("\n")
    };
    assert_eq!(stdout, lines(20_000).as_bytes());
    assert_eq!(stderr, lines(300).as_bytes());
}

#[tokio::test]
async fn input_is_echoed_until_its_end() {
    let server = serve().await;
    let mut client = client(&server).await;
    let mut cat = start(&mut client, config(&["cat"]), None).await;
    write(&mut client, cat.id, input("first\n")).await.unwrap();
    assert_eq!(cat.until("\n").await, "first\n");
    // Nothing to write is nothing done.
    write(&mut client, cat.id, None).await.unwrap();
    write(&mut client, cat.id, input("")).await.unwrap();
    let large = "x".repeat(1 << 20);
    let (written, read) = tokio::join!(write(&mut client, cat.id, input(&large)), async {
        let mut bytes = 0;
        while bytes < large.len() {
            bytes += cat.until("x").await.len();
        }
        bytes
    });
    written.unwrap();
    assert_eq!(read, large.len());
    write(&mut client, cat.id, EOF).await.unwrap();
    let id = cat.id;
    assert_eq!(cat.finish().await.exit, Some(0));
    let status = write(&mut client, id, input("late")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn input_that_is_not_taken_is_an_error_and_never_hangs() {
    let server = serve().await;
    let mut client = client(&server).await;
    let mut deaf = start(&mut client, sh("echo ready; sleep 1000"), None).await;
    deaf.until("ready").await;
    let mut request = Request::new(super::WriteStdinRequest {
        process_id: deaf.id,
        payload: input(&"x".repeat(1 << 20)),
    });
    request.set_timeout(Duration::from_millis(300));
    let status = client.write_stdin(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    write(&mut client, deaf.id, EOF).await.unwrap();
    for payload in [EOF, input("more")] {
        let status = write(&mut client, deaf.id, payload).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    }
    let mut closed = start(&mut client, sh("exec <&-; echo ready; sleep 1000"), None).await;
    closed.until("ready").await;
    let status = write(&mut client, closed.id, input("x")).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
}

#[tokio::test]
async fn signals_reach_every_process_of_the_command() {
    let server = serve().await;
    let mut client = client(&server).await;
    for (number, code) in [(15, 143), (9, 137), (2, 130), (1, 129)] {
        let script = "setsid sleep 1000 & (setsid sleep 1000 &); echo ready; exec sleep 1000";
        let mut sleeper = start(&mut client, sh(script), None).await;
        sleeper.until("ready").await;
        eventually("all three sleep", || sleepers(&server).len() == 3).await;
        signal(&mut client, sleeper.id, number).await.unwrap();
        // A shell starts what it sends to the background with SIGINT ignored.
        if number != 2 {
            eventually("all are gone", || sleepers(&server).is_empty()).await;
        }
        assert_eq!(sleeper.finish().await.exit, Some(code));
        for pid in sleepers(&server) {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
    }
}

#[tokio::test]
async fn numbers_and_signals_that_are_none_are_refused() {
    let server = serve().await;
    let mut client = client(&server).await;
    let mut sleeper = start(&mut client, sh("echo ready; sleep 1000"), None).await;
    sleeper.until("ready").await;
    for number in [0, -1, 65, 1000] {
        let status = signal(&mut client, sleeper.id, number).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{number}");
    }
    for id in [0, -1, sleeper.id + 1, i32::MAX] {
        let resize = ResizeTtyRequest {
            process_id: id,
            ..ResizeTtyRequest::default()
        };
        for status in [
            signal(&mut client, id, 15).await.unwrap_err(),
            write(&mut client, id, input("x")).await.unwrap_err(),
            client.resize_tty(resize).await.unwrap_err(),
        ] {
            assert_eq!(status.code(), Code::NotFound, "{id}");
        }
    }
    let resize = ResizeTtyRequest {
        process_id: sleeper.id,
        cols: 80,
        rows: 24,
    };
    let status = client.resize_tty(resize).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn ending_the_call_ends_the_command_and_all_its_children() {
    let server = serve().await;
    let mut client = client(&server).await;
    let script = "trap '' TERM HUP; setsid sleep 1000 & (sleep 1000 &); echo ready; sleep 1000";
    let mut sleeper = start(&mut client, sh(script), None).await;
    sleeper.until("ready").await;
    eventually("all three sleep", || sleepers(&server).len() == 3).await;
    drop(sleeper);
    eventually("all are gone", || {
        sleepers(&server).is_empty() && server.runtime.processes().running() == 0
    })
    .await;
}

#[tokio::test]
async fn a_deadline_ends_the_command_also_when_nobody_reads() {
    let server = serve().await;
    let mut client = client(&server).await;
    let mut request = Request::new(StartRequest {
        config: sh("setsid sleep 1000 & yes"),
        pty: None,
    });
    request.set_timeout(Duration::from_millis(700));
    let call = client.start(request).await.unwrap();
    let mut events = call.into_inner();
    assert!(next(&mut events).await.is_some());
    eventually("all are gone", || {
        sleepers(&server).is_empty() && server.runtime.processes().running() == 0
    })
    .await;
    let status = loop {
        match events.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the call ended as if the command had exited"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_reader_that_stops_holds_the_command_back_and_misses_nothing() {
    let server = serve().await;
    let mut client = client(&server).await;
    // More than any buffer between the two.
    let script = "head -c 64000000 /dev/zero; touch written; echo end >&2";
    let mut writer = start(&mut client, sh(script), None).await;
    assert!(next(&mut writer.events).await.is_some());
    let process = server.runtime.processes().list().pop().unwrap();
    let mut last = 0;
    crate::harness::settled("its output stops", || {
        let now = process.journal().next_number();
        std::mem::replace(&mut last, now) == now
    })
    .await;
    assert!(!server.root().join("written").exists(), "it is held back");
    assert!(runs(process.leader().as_raw_nonzero().get()));
    let seen = writer.finish().await;
    assert!(seen.stdout.len() > 63_000_000, "{}", seen.stdout.len());
    assert_eq!(
        (seen.stderr.as_slice(), seen.exit),
        (&b"end\n"[..], Some(0))
    );
}

#[tokio::test]
async fn a_shutdown_ends_commands_and_their_streams_with_an_exit() {
    let server = serve().await;
    let mut client = client(&server).await;
    let mut polite = start(&mut client, sh("echo ready; exec sleep 1000"), None).await;
    let mut stubborn = start(
        &mut client,
        sh("trap '' TERM; echo ready; while :; do sleep 1000; done"),
        None,
    )
    .await;
    polite.until("ready").await;
    stubborn.until("ready").await;
    server.shutdown.trigger();
    assert_eq!(polite.finish().await.exit, Some(143));
    assert_eq!(stubborn.finish().await.exit, Some(137));
    eventually("the server stops", || server.serving.is_finished()).await;
    assert_eq!(sleepers(&server), Vec::<i32>::new());
}

#[tokio::test]
async fn numbers_rise_by_one_also_for_many_at_once() {
    let server = serve().await;
    let client = client(&server).await;
    let calls = (0..100).map(|_| {
        let mut client = client.clone();
        async move {
            let started = start(&mut client, config(&["true"]), None).await;
            let id = started.id;
            assert_eq!(started.finish().await.exit, Some(0));
            id
        }
    });
    let mut ids = futures::future::join_all(calls).await;
    ids.sort_unstable();
    assert_eq!(ids, (1..=100).collect::<Vec<i32>>());
    assert_eq!(server.runtime.processes().running(), 0);
}

#[tokio::test]
async fn a_signal_for_a_command_that_has_ended_does_nothing() {
    let server = serve().await;
    let mut client = client(&server).await;
    // One that is known after its end.
    let id = server.shell("exit 3").await;
    server.lines(id, "").await;
    let number = i32::try_from(id).unwrap();
    signal(&mut client, number, 9).await.unwrap();
    assert_eq!(server.process(id).await["exit_code"], 3);
}
