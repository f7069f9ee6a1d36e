//! The table: what was found beside what is aimed at, and what holds each figure where it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::claims::Outcome;
use super::closed_loop::ClosedLoop;
use super::fill::Fill;
use super::floor::Floor;
use super::pace::Paced;
use super::report::Report;
use super::scale::Scale;
use super::scene::Cost;
use agent_sandbox_load::statistics::Spread;

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// What is aimed at.
    pub target: &'static str,
    /// What was found.
    pub found: String,
    /// What a plain client reaches, where that can be said.
    pub floor: String,
    /// Whether the target is met, where there is one.
    pub met: Option<bool>,
    /// What holds the figure where it is.
    pub limit: String,
}

/// The table of everything that was measured.
pub fn of(report: &Report) -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(burst_row(report));
    rows.extend(report.open_loop.iter().map(|leg| latency_row(report, leg)));
    rows.extend(write_rows(report));
    rows.extend(fill_row(&report.fills));
    rows.extend(report.closed_loops.iter().map(closed_loop_row));
    rows.extend(refill_row(&report.bursts));
    rows.extend(report.depletion.iter().map(depletion_row));
    if let Some(scale) = &report.scale {
        rows.extend(scale_rows(scale));
    }
    rows
}

fn floor<'a>(report: &'a Report, pattern: &str) -> Option<&'a Floor> {
    report.floors.as_ref()?.patterns.get(pattern)
}

fn burst_row(report: &Report) -> Option<Row> {
    let rate = Spread::of(report.bursts.iter().map(|burst| burst.reached_per_second))?;
    let one = report.bursts.first()?;
    let cold: usize = report.bursts.iter().map(|burst| burst.cold).sum();
    let mut found = format!("{}/s", spread(&rate));
    if cold > 0 {
        write!(found, ", {cold} cold").ok()?;
    }
    let floor = floor(report, "record").map_or_else(String::new, |floor| {
        format!("{}/s", spread(&floor.per_second))
    });
    Some(Row {
        what: format!("burst of {}, claims ready", one.latencies.count),
        target: ">= 300/s",
        found,
        floor,
        met: Some(rate.median >= 300.0),
        limit: processors(&usual_shares(
            report.bursts.iter().map(|burst| &burst.shares),
        )),
    })
}

fn latency_row(report: &Report, leg: &Outcome) -> Row {
    let latencies = &leg.latencies;
    let (target, p50, p99) = match leg.asked_per_second {
        Some(rate) if rate <= 5.0 => ("p50 <= 10, p99 <= 30 ms", 10.0, 30.0),
        Some(rate) if rate <= 20.0 => ("p50 <= 15, p99 <= 60 ms (at 20/s)", 15.0, 60.0),
        _ => ("keeps up (knee >= 45/s)", f64::INFINITY, f64::INFINITY),
    };
    // A system that falls behind has more and more in flight.
    let asked = leg.asked_per_second.unwrap_or_default();
    let keeps_up = leg.reached_per_second >= 0.9 * asked;
    Row {
        what: format!("create to Ready at {}", leg.name),
        target,
        found: format!(
            "p50 {:.1}, p90 {:.1}, p99 {:.1} ms, {:.1}/s, {} cold, n {}",
            latencies.p50,
            latencies.p90,
            latencies.p99,
            leg.reached_per_second,
            leg.cold,
            latencies.count
        ),
        floor: latency_floor(report, leg),
        met: Some(keeps_up && latencies.p50 <= p50 && latencies.p99 <= p99),
        limit: processors(&leg.shares),
    }
}

/// What a plain client reached at the same rate, or else with one claim after the other.
fn latency_floor(report: &Report, leg: &Outcome) -> String {
    let mut paced = report.paced.iter();
    let paced = paced.find(|it| Some(it.asked_per_second) == leg.asked_per_second);
    if let Some(Paced {
        latencies,
        reached_per_second,
        ..
    }) = paced
    {
        return format!(
            "p50 {:.1}, p99 {:.1} ms, {reached_per_second:.1}/s",
            latencies.p50, latencies.p99
        );
    }
    floor(report, "record").map_or_else(String::new, |floor| {
        format!("p50 {:.1} ms one by one", floor.serial_ms.median)
    })
}

/// Writes and processor time per claim. Writes hardly depend on the machine.
fn write_rows(report: &Report) -> Vec<Row> {
    let legs = || report.open_loop.iter().chain(report.bursts.first());
    let mut rows: Vec<Row> = legs()
        .flat_map(|leg| claim_writes(&leg.name, &leg.cycle))
        .collect();
    let text = |value: Option<f64>| {
        value.map_or_else(
            || "not measured".to_owned(),
            |value| format!("{value:.1} ms"),
        )
    };
    if let Some(Outcome { name, cycle, .. }) = legs().next() {
        rows.push(Row {
            what: format!("processor time a claim, whole cycle, {name}"),
            target: "operator <= 0.5 ms",
            found: format!(
                "operator {}, API server {}, etcd {}",
                text(cycle.controller_ms),
                text(cycle.api_server_ms),
                text(cycle.etcd_ms)
            ),
            floor: String::new(),
            met: Some(cycle.controller_ms.is_some_and(|time| time <= 0.5)),
            limit: "operator: connections, wake-ups and watch events of every step of every pod"
                .to_owned(),
        });
    }
    rows
}

/// The claim's own writes, and those of the whole cycle.
fn claim_writes(name: &str, cost: &Cost) -> [Row; 2] {
    let count = |kind: &str| cost.operator_writes.get(kind).copied().unwrap_or_default();
    let record = count("PATCH sandboxwarmpools/status");
    let before = record + count("PATCH sandboxclaims/status");
    let all = before + count("PATCH sandboxes") + count("PATCH pods");
    let whole = cost.operator_writes_total;
    [
        Row {
            what: format!("operator writes for a claim, {name}"),
            target: "2 before Ready, 3 in all",
            found: format!("{before:.2} before Ready, {all:.2} in all"),
            floor: String::new(),
            met: Some(before <= 2.005 && all <= 3.005),
            limit: format!(
                "{record:.2} are the pool's record and counts, which claims of the same moment share"
            ),
        },
        Row {
            what: format!("operator writes a claim, whole cycle, {name}"),
            target: "<= 9",
            found: format!("{whole:.2}"),
            floor: String::new(),
            met: Some(whole <= 9.005),
            limit: format!(
                "{:.2} are the refill's; Kubernetes itself writes {:.1}",
                whole - all,
                cost.kubernetes_writes_total
            ),
        },
    ]
}

fn fill_row(fills: &[Fill]) -> Option<Row> {
    let rate = Spread::of(fills.iter().map(|fill| fill.per_second))?;
    let writes = Spread::of(fills.iter().map(|fill| fill.cost.operator_writes_total))?;
    let mut found = format!("{}/s, {:.1} writes a sandbox", spread(&rate), writes.median);
    if let Some(time) = Spread::of(fills.iter().filter_map(Fill::api_server_ms)) {
        write!(found, ", API server {:.1} ms", time.median).ok()?;
    }
    Some(Row {
        what: format!("filling a pool of {}", fills.first()?.to),
        target: "",
        found,
        floor: String::new(),
        met: None,
        limit: processors(&usual_shares(fills.iter().map(|fill| &fill.shares))),
    })
}

fn closed_loop_row(found: &ClosedLoop) -> Row {
    Row {
        what: format!("closed loop of {}, to the end of the pod", found.workers),
        target: "",
        found: format!(
            "{:.1}/s, ready p50 {:.1}, p99 {:.1}, gone p50 {:.0} ms, {} cold, n {}",
            found.per_second,
            found.ready.p50,
            found.ready.p99,
            found.gone.p50,
            found.cold,
            found.claims
        ),
        floor: String::new(),
        met: None,
        limit: processors(&found.shares),
    }
}

fn refill_row(bursts: &[Outcome]) -> Option<Row> {
    let times = bursts.iter().filter_map(|burst| burst.refill_ms);
    let time = Spread::of(times)?;
    Some(Row {
        what: format!(
            "pool full again after a burst of {}",
            bursts.first()?.latencies.count
        ),
        target: "",
        found: format!("{} ms after its last claim", spread(&time)),
        floor: String::new(),
        met: None,
        limit: "handing over, and what filling a pool is limited by".to_owned(),
    })
}

fn depletion_row(found: &Outcome) -> Row {
    Row {
        what: format!("claims at once, {}", found.name),
        target: "",
        found: format!(
            "{:.0} % warm, p50 {:.0}, p99 {:.0} ms, full again {:.0} ms after",
            found.warm_share() * 100.0,
            found.latencies.p50,
            found.latencies.p99,
            found.refill_ms.unwrap_or_default()
        ),
        floor: String::new(),
        met: None,
        limit: processors(&found.shares),
    }
}

fn scale_rows(scale: &Scale) -> Vec<Row> {
    let mebibytes = |bytes: u64| bytes / 1024 / 1024;
    let mut rows: Vec<Row> = scale
        .memory
        .iter()
        .map(|memory| {
            let allowed = 15 * 1024 * 1024 + 2048 * u64::from(memory.sandboxes);
            Row {
                what: format!("operator memory, {} sandboxes", memory.sandboxes),
                target: "15 MiB + 2 KiB a sandbox",
                found: format!("{} MiB", mebibytes(memory.bytes)),
                floor: String::new(),
                met: Some(memory.bytes <= allowed),
                limit: format!("allowed are {} MiB", mebibytes(allowed)),
            }
        })
        .collect();
    rows.push(Row {
        what: format!(
            "restart, {} sandboxes",
            scale.memory_after_restart.sandboxes
        ),
        target: "<= 1200 ms, 0 writes",
        found: format!(
            "ready {:.0} ms, first claim {:.0} ms, {} writes, {} MiB",
            scale.restart_to_ready_ms,
            scale.restart_to_served_ms,
            scale.restart_writes,
            mebibytes(scale.memory_after_restart.bytes)
        ),
        floor: format!("{:.0} ms for the lists alone", scale.plain_lists_ms),
        met: Some(scale.restart_to_served_ms <= 1200.0 && scale.restart_writes == 0.0),
        limit: "lists: the API server encodes every object".to_owned(),
    });
    rows
}

/// Median and range.
pub fn spread(spread: &Spread) -> String {
    let Spread { median, min, max } = spread;
    let digits = usize::from(*max < 100.0);
    format!("{median:.digits$} ({min:.digits$}-{max:.digits$})")
}

/// The median share of each process.
fn usual_shares<'a>(
    rounds: impl Iterator<Item = &'a BTreeMap<String, f64>>,
) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, share) in rounds.flatten() {
        sums.entry(name.clone()).or_default().push(*share);
    }
    sums.into_iter()
        .filter_map(|(name, shares)| Some((name, Spread::of(shares)?.median)))
        .collect()
}

/// Who used the processors: when hardly anything was left, they are the limit; else waiting for one
/// call after the other is.
fn processors(shares: &BTreeMap<String, f64>) -> String {
    let busy: f64 = shares.values().sum();
    let mut most: Vec<(&String, &f64)> = shares.iter().collect();
    most.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let most: Vec<String> = most
        .iter()
        .take(4)
        .map(|(name, share)| format!("{name} {:.0} %", **share * 100.0))
        .collect();
    let verdict = if busy >= 0.85 {
        "processors are used up"
    } else {
        "calls one after the other; processors have room"
    };
    format!("{verdict}: {}", most.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::scale::Memory;
    use super::*;
    use agent_sandbox_load::statistics::Latencies;

    fn outcome(asked: Option<f64>, reached: f64, p50: f64, writes: f64) -> Outcome {
        let record = if asked.is_some() { 1.0 } else { 0.0 };
        Outcome {
            name: asked.map_or_else(|| "burst 1".to_owned(), |rate| format!("{rate}/s")),
            asked_per_second: asked,
            reached_per_second: reached,
            latencies: Latencies {
                count: 500,
                p50,
                p90: p50,
                p99: p50,
                max: p50,
            },
            cold: 0,
            cycle: Cost {
                operator_writes: BTreeMap::from([
                    ("PATCH sandboxes".to_owned(), 1.0),
                    ("PATCH pods".to_owned(), 1.0),
                    ("PATCH sandboxclaims/status".to_owned(), 1.0),
                    ("PATCH sandboxwarmpools/status".to_owned(), record),
                    ("POST pods".to_owned(), writes - 3.0 - record),
                ]),
                operator_writes_total: writes,
                kubernetes_writes: BTreeMap::new(),
                kubernetes_writes_total: 7.0,
                api_server_ms: Some(30.0),
                controller_ms: Some(0.4),
                etcd_ms: None,
            },
            until_ready_ms: BTreeMap::new(),
            shares: BTreeMap::from([
                ("kube-apiserver".to_owned(), 0.5),
                ("other".to_owned(), 0.4),
            ]),
            refill_ms: asked.is_none().then_some(reached),
        }
    }

    fn verdicts(report: &Report) -> Vec<(&str, Option<bool>)> {
        report
            .rows
            .iter()
            .map(|row| (row.what.as_str(), row.met))
            .collect()
    }

    #[test]
    fn targets_are_judged() {
        let mut report = Report {
            open_loop: vec![
                outcome(Some(4.0), 4.0, 9.0, 9.0),
                outcome(Some(20.0), 19.5, 16.0, 9.5),
                outcome(Some(40.0), 30.0, 500.0, 9.0),
            ],
            bursts: vec![
                outcome(None, 290.0, 9.0, 9.0),
                outcome(None, 310.0, 9.0, 9.0),
                outcome(None, 320.0, 9.0, 9.0),
            ],
            fills: vec![Fill {
                from: 0,
                to: 300,
                seconds: 5.0,
                per_second: 60.0,
                until_ready_ms: BTreeMap::from([("kube-apiserver".to_owned(), 25.0)]),
                shares: BTreeMap::new(),
                cost: outcome(None, 0.0, 0.0, 3.5).cycle,
            }],
            closed_loops: vec![ClosedLoop {
                workers: 8,
                claims: 500,
                per_second: 20.0,
                ready: outcome(None, 0.0, 9.0, 9.0).latencies,
                gone: outcome(None, 0.0, 300.0, 9.0).latencies,
                cold: 0,
                shares: BTreeMap::new(),
                cycle: outcome(None, 0.0, 0.0, 9.0).cycle,
            }],
            depletion: vec![Outcome {
                cold: 250,
                ..outcome(None, 80.0, 9.0, 9.0)
            }],
            scale: Some(Scale {
                fills: Vec::new(),
                memory: vec![
                    Memory {
                        sandboxes: 0,
                        bytes: 15 << 20,
                    },
                    Memory {
                        sandboxes: 1000,
                        bytes: 18 << 20,
                    },
                ],
                memory_after_restart: Memory {
                    sandboxes: 1000,
                    bytes: 16 << 20,
                },
                restart_to_ready_ms: 900.0,
                restart_to_served_ms: 1000.0,
                plain_lists_ms: 400.0,
                restart_writes: 1.0,
            }),
            ..Report::default()
        };
        report.conclude();
        let (met, missed) = (Some(true), Some(false));
        let expected = [
            ("burst of 500, claims ready", met),
            ("create to Ready at 4/s", met),
            ("create to Ready at 20/s", missed),
            ("create to Ready at 40/s", missed),
            ("operator writes for a claim, 4/s", missed),
            ("operator writes a claim, whole cycle, 4/s", met),
            ("operator writes for a claim, 20/s", missed),
            ("operator writes a claim, whole cycle, 20/s", missed),
            ("operator writes for a claim, 40/s", missed),
            ("operator writes a claim, whole cycle, 40/s", met),
            ("operator writes for a claim, burst 1", met),
            ("operator writes a claim, whole cycle, burst 1", met),
            ("processor time a claim, whole cycle, 4/s", met),
            ("filling a pool of 300", None),
            ("closed loop of 8, to the end of the pod", None),
            ("pool full again after a burst of 500", None),
            ("claims at once, burst 1", None),
            ("operator memory, 0 sandboxes", met),
            ("operator memory, 1000 sandboxes", missed),
            ("restart, 1000 sandboxes", missed),
        ];
        assert_eq!(verdicts(&report), expected);
        let text = report.text().unwrap();
        assert!(text.contains("MISS create to Ready at 20/s"), "{text}");
        for found in [
            "2.00 before Ready, 4.00 in all",
            "60.0 (60.0-60.0)/s, 3.5 writes a sandbox, API server 25.0 ms",
            "310 (290-320) ms after its last claim",
            "50 % warm",
            "400 ms for the lists alone",
        ] {
            assert!(text.contains(found), "{found} is not in {text}");
        }
        assert!(
            text.contains("processors are used up: kube-apiserver 50 %"),
            "{text}"
        );
    }
}
