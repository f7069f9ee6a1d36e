//! Commands at a terminal.

use agent_sandbox_runtime::proto::process::v1::{Pty, ResizeTtyRequest};

use super::{Client, EOF, client, config, input, sh, start, write};
use crate::harness::start as serve;

const SIZE: Option<Pty> = Some(Pty { cols: 80, rows: 24 });

async fn resize(client: &mut Client, process_id: i32, cols: u32, rows: u32) {
    let request = ResizeTtyRequest {
        process_id,
        cols,
        rows,
    };
    client.resize_tty(request).await.unwrap();
}

#[tokio::test]
async fn the_first_instruction_sees_the_size() {
    let server = serve().await;
    let mut client = client(&server).await;
    for _ in 0..20 {
        let seen = start(&mut client, config(&["stty", "size"]), SIZE)
            .await
            .finish()
            .await;
        assert_eq!(
            (seen.stdout.as_slice(), seen.exit),
            (&b"24 80\r\n"[..], Some(0))
        );
    }
    let large = Some(Pty {
        cols: 70_000,
        rows: 0,
    });
    let seen = start(&mut client, config(&["stty", "size"]), large)
        .await
        .finish()
        .await;
    assert_eq!(seen.stdout, b"0 65535\r\n");
}

#[tokio::test]
async fn it_is_a_terminal_with_job_control_and_a_name() {
    let server = serve().await;
    let mut client = client(&server).await;
    let script = "test -t 0 && test -t 1 && test -t 2 && tty >/dev/null && echo $TERM && : </dev/tty && echo controlled";
    let seen = start(&mut client, sh(script), SIZE).await.finish().await;
    assert_eq!(
        String::from_utf8_lossy(&seen.stdout),
        "xterm\r\ncontrolled\r\n"
    );
    assert_eq!((seen.stderr.len(), seen.exit), (0, Some(0)));
}

#[tokio::test]
async fn a_new_size_is_told_and_seen() {
    let server = serve().await;
    let mut client = client(&server).await;
    let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut shell = start(&mut client, sh(script), SIZE).await;
    shell.until("ready").await;
    resize(&mut client, shell.id, 132, 50).await;
    shell.until("50 132").await;
}

#[tokio::test]
async fn the_end_of_input_is_the_key_and_hangs_nobody_up() {
    let server = serve().await;
    let mut client = client(&server).await;
    // The terminal echoes, then `cat` repeats. The end after an open line only hands that over, so
    // the key is pressed twice.
    let mut cat = start(&mut client, config(&["cat"]), SIZE).await;
    write(&mut client, cat.id, input("line\n")).await.unwrap();
    cat.until("line\r\nline\r\n").await;
    write(&mut client, cat.id, input("open")).await.unwrap();
    cat.until("open").await;
    write(&mut client, cat.id, EOF).await.unwrap();
    let seen = cat.finish().await;
    assert_eq!(
        (String::from_utf8_lossy(&seen.stdout).as_ref(), seen.exit),
        ("open", Some(0))
    );
    // Who reads on after the end gets more.
    let script = "cat >/dev/null; echo again; read line; echo got $line";
    let mut twice = start(&mut client, sh(script), SIZE).await;
    write(&mut client, twice.id, EOF).await.unwrap();
    twice.until("again").await;
    write(&mut client, twice.id, input("more\n")).await.unwrap();
    twice.until("got more").await;
    assert_eq!(twice.finish().await.exit, Some(0));
}

#[tokio::test]
async fn the_tail_of_the_output_is_never_lost() {
    let server = serve().await;
    let mut client = client(&server).await;
    for round in 0..20 {
        let script = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); done; exit 5";
        let seen = start(&mut client, sh(script), SIZE).await.finish().await;
        let text = String::from_utf8(seen.stdout).unwrap();
        assert_eq!(text.lines().count(), 400, "round {round}");
        assert!(text.ends_with("line 399\r\n"), "round {round}");
        assert_eq!(seen.exit, Some(5));
    }
}

#[tokio::test]
async fn keys_that_nobody_reads_stop_nobody_else() {
    let server = serve().await;
    let mut client = client(&server).await;
    let mut sleeper = start(
        &mut client,
        sh("stty raw -echo; echo ready; sleep 1000"),
        SIZE,
    )
    .await;
    sleeper.until("ready").await;
    let mut request = tonic::Request::new(super::WriteStdinRequest {
        process_id: sleeper.id,
        payload: input(&"x".repeat(1 << 20)),
    });
    request.set_timeout(std::time::Duration::from_secs(5));
    let mut other = client.clone();
    let (written, answer) = tokio::join!(
        client.write_stdin(request),
        super::execute(&mut other, config(&["echo", "on"])),
    );
    assert_eq!(written.unwrap_err().code(), tonic::Code::DeadlineExceeded);
    assert_eq!(answer.unwrap().stdout, "on\n");
}

#[tokio::test]
async fn interrupts_typed_at_it_reach_the_foreground() {
    let server = serve().await;
    let mut client = client(&server).await;
    let mut sleeper = start(&mut client, sh("echo ready; exec sleep 1000"), SIZE).await;
    sleeper.until("ready").await;
    write(&mut client, sleeper.id, input("\u{3}"))
        .await
        .unwrap();
    assert_eq!(sleeper.finish().await.exit, Some(130));
}
