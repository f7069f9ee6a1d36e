//! A command by `POST /execute`, over a connection that is kept.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::floor::Task;
use crate::bench::client::Connection;

/// What one series of commands may take.
const SERIES: Duration = Duration::from_secs(300);

/// The bytes of a request.
pub fn request(address: SocketAddr, line: &str) -> Vec<u8> {
    let body = json!({"command": line}).to_string();
    format!(
        "POST /execute HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// How long each of so many takes, one after the other.
pub async fn one_at_a_time(address: SocketAddr, task: Task, runs: usize) -> Result<Vec<Duration>> {
    let request = request(address, &task.words.join(" "));
    let mut connection = Connection::open(address).await?;
    // The first on a connection pays for the connection.
    once(&mut connection, &request, task.output).await?;
    timeout(SERIES, async {
        let mut samples = Vec::with_capacity(runs);
        for _ in 0..runs {
            let start = Instant::now();
            once(&mut connection, &request, task.output).await?;
            samples.push(start.elapsed());
        }
        Ok(samples)
    })
    .await
    .with_context(|| format!("not within {} s", SERIES.as_secs()))?
}

/// How many are done in at least this time, with so many in flight, and how long that took.
pub async fn closed_loop(
    address: SocketAddr,
    task: Task,
    connections: usize,
    time: Duration,
) -> Result<(u64, Duration)> {
    let request = request(address, &task.words.join(" "));
    let open = try_join_all((0..connections).map(|_| Connection::open(address))).await?;
    let start = Instant::now();
    let loops = open.into_iter().map(|mut connection| {
        let request = &request;
        async move {
            let mut done = 0_u64;
            while start.elapsed() < time || done == 0 {
                once(&mut connection, request, task.output).await?;
                done += 1;
            }
            anyhow::Ok(done)
        }
    });
    let done = timeout(SERIES, try_join_all(loops))
        .await
        .with_context(|| format!("not within {} s", SERIES.as_secs()))??;
    Ok((done.iter().sum(), start.elapsed()))
}

/// Runs one, and fails unless it went well and wrote what it should.
async fn once(connection: &mut Connection, request: &[u8], output: &str) -> Result<()> {
    connection.send(request).await?;
    let (status, text) = connection.text().await?;
    ensure!(status == 200, "answered {status}: {text}");
    ensure!(is_right(&text, output), "answered {text}");
    Ok(())
}

/// Whether an answer says that a command went well and wrote this.
fn is_right(answer: &str, output: &str) -> bool {
    serde_json::from_str::<Value>(answer).is_ok_and(|answer| {
        answer.get("exit_code").and_then(Value::as_i64) == Some(0)
            && answer.get("stdout").and_then(Value::as_str) == Some(output)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_right_or_not() {
        assert!(is_right(
            r#"{"stdout":"hi\n","stderr":"","exit_code":0}"#,
            "hi\n"
        ));
        for wrong in [
            r#"{"stdout":"hi\n","stderr":"","exit_code":1}"#,
            r#"{"stdout":"","stderr":"","exit_code":0}"#,
            r#"{"stdout":"hi\n"}"#,
            "hi\n",
        ] {
            assert!(!is_right(wrong, "hi\n"), "{wrong}");
        }
    }

    #[test]
    fn a_line_is_quoted() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let bytes = request(address, r#"sh -c 'tr "\0" a'"#);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, r#"{"command":"sh -c 'tr \"\\0\" a'"}"#);
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
    }
}
