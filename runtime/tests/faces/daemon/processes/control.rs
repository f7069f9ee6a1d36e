//! Input, signals, sizes.

use serde_json::json;

use super::text;
use crate::harness::{eventually, sleepers, start};

#[tokio::test]
async fn input_is_written_in_pieces_and_ended() {
    let server = start().await;
    let id = server
        .detach(&json!({"argv": ["cat"], "stdin": true}))
        .await;
    let stdin = format!("/v1/processes/{id}/stdin");
    assert_eq!(server.post(&stdin, "", "one\n").await.status, 204);
    let large = "x".repeat(200_000) + "\n";
    assert_eq!(server.post(&stdin, "", large.clone()).await.status, 204);
    assert_eq!(
        server
            .post(&format!("{stdin}?eof=true"), "", "end")
            .await
            .status,
        204
    );
    let lines = server.lines(id, "").await;
    assert_eq!(text(&lines, "stdout"), format!("one\n{large}end"));
    let answer = server.post(&stdin, "", "late").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["code"]),
        (409, &json!("CONFLICT"))
    );
    let answer = server.post(&format!("{stdin}?eof=maybe"), "", "").await;
    assert_eq!(answer.status, 400);
    // One that was started without.
    let id = server.shell("sleep 1000").await;
    let answer = server
        .post(&format!("/v1/processes/{id}/stdin"), "", "x")
        .await;
    assert_eq!(answer.status, 409);
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("without an open standard input"),
        "{message}"
    );
}

#[tokio::test]
async fn signals_go_by_name_or_number_to_the_whole_tree() {
    let server = start().await;
    for (signal, code) in [
        (json!("SIGTERM"), 143),
        (json!("KILL"), 137),
        (json!(1), 129),
    ] {
        let id = server
            .shell("setsid sleep 1000 & (setsid sleep 1000 &); exec sleep 1000")
            .await;
        eventually("all three sleep", || sleepers(&server).len() == 3).await;
        let answer = server
            .ask(
                &format!("/v1/processes/{id}/signal"),
                &json!({"signal": signal}),
            )
            .await;
        assert_eq!(answer.status, 204, "{answer:?}");
        let lines = server.lines(id, "").await;
        assert_eq!(lines.last().unwrap()["exit"]["exit_code"], code);
        eventually("all are gone", || sleepers(&server).is_empty()).await;
        let answer = server
            .ask(
                &format!("/v1/processes/{id}/signal"),
                &json!({"signal": signal}),
            )
            .await;
        assert_eq!(answer.status, 409, "it has ended");
    }
    let id = server.shell("sleep 1000").await;
    for (body, words) in [
        (json!({"signal": "SIGNAL"}), "\"signal\" is \"SIGNAL\""),
        (json!({"signal": 0}), "\"signal\" is \"0\""),
        (json!({}), "\"signal\" is missing"),
        (
            json!({"signal": 15, "group": true}),
            "\"group\" is not known",
        ),
    ] {
        let answer = server
            .ask(&format!("/v1/processes/{id}/signal"), &body)
            .await;
        assert_eq!(answer.status, 400, "{answer:?}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test]
async fn a_terminal_has_a_size_that_can_change() {
    let server = start().await;
    let script = "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.05; done";
    let request = json!({"shell": script, "pty": {"cols": 100, "rows": 30}});
    let id = server.detach(&request).await;
    let process = server.runtime.processes().list().pop().unwrap();
    eventually("the first size", || process.journal().next_number() > 0).await;
    let resize = format!("/v1/processes/{id}/resize");
    let answer = server.ask(&resize, &json!({"cols": 120, "rows": 40})).await;
    assert_eq!(answer.status, 204);
    let lines = server.lines(id, "").await;
    assert_eq!(text(&lines, "stdout"), "30 100\r\n40 120\r\n");
    assert_eq!(
        server
            .ask(&resize, &json!({"cols": 1, "rows": 1}))
            .await
            .status,
        409
    );
    let id = server.shell("sleep 1000").await;
    let resize = format!("/v1/processes/{id}/resize");
    let answer = server.ask(&resize, &json!({"cols": 1, "rows": 1})).await;
    assert_eq!(answer.status, 409);
}
