//! wrk: how it is called, and what its report says.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use tokio::time::timeout;

use super::{Load, Order};
use crate::bench::figures::number;
use crate::bench::installed;

/// Its name.
pub const PROGRAM: &str = "wrk";
/// What an answer may take before wrk counts it as lost.
const ANSWER: u64 = 30;
/// What wrk may take besides the load.
const SLACK: u64 = 2 * ANSWER;
/// wrk rounds what it has read to three digits.
const ROUNDING: f64 = 0.99;

/// What wrk reports.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Report {
    requests: u64,
    seconds: f64,
    received: f64,
    p50: f64,
    p90: f64,
    p99: f64,
}

/// Runs wrk with one thread. It is killed when this is dropped.
pub(super) async fn run(order: &Order) -> Result<Load> {
    let seconds = order.time.as_secs().max(1);
    let program = installed::located(PROGRAM).context("wrk is not installed")?;
    let mut command = Command::new(program);
    command
        .args(["--threads", "1", "--latency"])
        .args(["--connections", &order.connections.to_string()])
        .args(["--duration", &format!("{seconds}s")])
        .args(["--timeout", &format!("{ANSWER}s")]);
    for (name, value) in &order.request.headers {
        command.args(["--header", &format!("{name}: {value}")]);
    }
    command
        .arg(format!(
            "http://{}{}",
            order.request.address, order.request.path
        ))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let limit = Duration::from_secs(seconds + SLACK);
    let output = timeout(limit, command.output())
        .await
        .with_context(|| format!("wrk did not end within {} s", limit.as_secs()))?
        .context("wrk does not start")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "wrk failed ({}): {text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let report = parse(&text)?;
    ensure!(
        report.received >= number(report.requests * order.length) * ROUNDING,
        "answers were short: {:.0} bytes in {} of {}",
        report.received,
        report.requests,
        order.length
    );
    Ok(Load {
        requests: report.requests,
        elapsed: Duration::from_secs_f64(report.seconds),
        p50: report.p50,
        p90: report.p90,
        p99: report.p99,
    })
}

/// Reads the report. What went wrong is an error.
fn parse(text: &str) -> Result<Report> {
    let mut report = Report::default();
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match *words.as_slice() {
            ["Non-2xx", ..] | ["Socket", "errors:", ..] => bail!("{line}"),
            [share, time] if share.ends_with('%') => {
                let time = microseconds(time).with_context(|| format!("wrk says {line:?}"))?;
                match share {
                    "50%" => report.p50 = time,
                    "90%" => report.p90 = time,
                    "99%" => report.p99 = time,
                    _ => {}
                }
            }
            [requests, "requests", "in", time, received, "read"] => {
                let time = microseconds(time.trim_end_matches(','));
                report.requests = requests.parse()?;
                report.seconds = time.with_context(|| format!("wrk says {line:?}"))? / 1e6;
                report.received = bytes(received).with_context(|| format!("wrk says {line:?}"))?;
            }
            _ => {}
        }
    }
    ensure!(report.seconds > 0.0, "wrk's report is incomplete: {text}");
    Ok(report)
}

/// A time such as `18.00us`, `1.24ms`, `2.00s` or `1.50m`.
fn microseconds(text: &str) -> Option<f64> {
    scaled(
        text,
        &[
            ("us", 1.0),
            ("ms", 1e3),
            ("s", 1e6),
            ("m", 6e7),
            ("h", 3.6e9),
        ],
    )
}

/// A size such as `512.00B`, `65.86MB` or `1.20GB`; wrk counts in powers of 1024.
fn bytes(text: &str) -> Option<f64> {
    let kibi = 1024.0;
    scaled(
        text,
        &[
            ("KB", kibi),
            ("MB", kibi * kibi),
            ("GB", kibi * kibi * kibi),
            ("TB", kibi * kibi * kibi * kibi),
            ("B", 1.0),
        ],
    )
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    units.iter().find_map(|(unit, scale)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(number * scale)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "Running 2s test @ http://127.0.0.1:18081/2
  1 threads and 50 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.02ms  360.12us   9.80ms   91.21%
    Req/Sec    49.21k     3.10k   55.67k    70.00%
  Latency Distribution
     50%  963.00us
     75%    1.10ms
     90%    1.29ms
     99%    2.31ms
  97912 requests in 2.00s, 14.57MB read
Requests/sec:  48912.44
Transfer/sec:      7.28MB
";

    #[test]
    fn a_report_is_read() {
        let expected = Report {
            requests: 97_912,
            seconds: 2.0,
            received: 14.57 * 1024.0 * 1024.0,
            p50: 963.0,
            p90: 1290.0,
            p99: 2310.0,
        };
        assert_eq!(parse(REPORT).unwrap(), expected);
    }

    #[test]
    fn wrong_answers_are_errors() {
        let failed = format!("{REPORT}  Non-2xx or 3xx responses: 12\n");
        let error = parse(&failed).unwrap_err().to_string();
        assert!(error.contains("Non-2xx or 3xx responses: 12"), "{error}");
        let lost = format!("{REPORT}  Socket errors: connect 0, read 3, write 0, timeout 1\n");
        let error = parse(&lost).unwrap_err().to_string();
        assert!(error.contains("read 3"), "{error}");
        assert!(
            parse("  0 requests in 1.01s, 0.00B read\n").is_ok_and(|report| report.requests == 0)
        );
        assert!(parse("unable to connect to 127.0.0.1:1").is_err());
    }

    #[test]
    fn units_are_known() {
        assert_eq!(microseconds("18.00us"), Some(18.0));
        assert_eq!(microseconds("2.00s"), Some(2e6));
        assert_eq!(microseconds("1.00m"), Some(6e7));
        assert_eq!(microseconds("fast"), None);
        assert_eq!(bytes("512.00B"), Some(512.0));
        assert_eq!(bytes("1.00KB"), Some(1024.0));
        assert_eq!(bytes("2.00GB"), Some(2.0 * 1024.0 * 1024.0 * 1024.0));
    }
}
