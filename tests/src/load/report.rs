//! What the bench says: a table beside the targets, what limits each figure, and everything as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::claims::Outcome;
use super::floor::{Floor, Floors};
use super::scale::Scale;
use super::statistics::Spread;

/// Everything found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Processors of the machine.
    pub processors: usize,
    /// How idle the machine was before each leg.
    pub idle: Vec<f64>,
    /// The open-loop legs.
    pub open_loop: Vec<Outcome>,
    /// The rounds of the burst.
    pub bursts: Vec<Outcome>,
    /// What a plain client reaches.
    pub floors: Option<Floors>,
    /// Large pools.
    pub scale: Option<Scale>,
    /// The table.
    pub rows: Vec<Row>,
}

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
    /// Whether the target is met.
    pub met: bool,
    /// What holds the figure where it is.
    pub limit: String,
}

/// Below this the machine had other work, and times of the clock mean little.
const QUIET: f64 = 0.93;

impl Report {
    /// Notes how idle the machine was before a leg.
    pub fn idle(&mut self, share: f64) {
        self.idle.push(share);
    }

    /// Fills the table from what was found.
    pub fn conclude(&mut self) {
        let mut rows = Vec::new();
        rows.extend(self.burst_row());
        rows.extend(self.open_loop.iter().map(|leg| self.latency_row(leg)));
        rows.extend(self.write_rows());
        if let Some(scale) = &self.scale {
            rows.extend(scale_rows(scale));
        }
        self.rows = rows;
    }

    fn floor(&self, pattern: &str) -> Option<&Floor> {
        self.floors.as_ref()?.patterns.get(pattern)
    }

    fn burst_row(&self) -> Option<Row> {
        let rate = Spread::of(self.bursts.iter().map(|burst| burst.reached_per_second))?;
        let one = self.bursts.first()?;
        let cold: usize = self.bursts.iter().map(|burst| burst.cold).sum();
        let mut found = format!("{}/s", spread(&rate));
        if cold > 0 {
            write!(found, ", {cold} cold").ok()?;
        }
        let floor = self.floor("bind").map_or_else(String::new, |floor| {
            format!("{}/s", spread(&floor.per_second))
        });
        Some(Row {
            what: format!("burst of {}, claims ready", one.latencies.count),
            target: ">= 300/s",
            found,
            floor,
            met: rate.median >= 300.0,
            limit: processors(&mean_shares(&self.bursts)),
        })
    }

    fn latency_row(&self, leg: &Outcome) -> Row {
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
            floor: self.floor("bind").map_or_else(String::new, |floor| {
                format!("p50 {:.1} ms one by one", floor.serial_ms.median)
            }),
            met: keeps_up && latencies.p50 <= p50 && latencies.p99 <= p99,
            limit: processors(&leg.shares),
        }
    }

    /// Writes and processor time per claim, from the open-loop leg with the highest rate that has the
    /// least noise: writes do not depend on the machine, so any leg does.
    fn write_rows(&self) -> Vec<Row> {
        let Some(leg) = self.open_loop.iter().chain(&self.bursts).next() else {
            return Vec::new();
        };
        let mut rows: Vec<Row> = self
            .open_loop
            .iter()
            .chain(self.bursts.first())
            .map(|leg| {
                let cost = &leg.cycle;
                Row {
                    what: format!("operator writes a claim, whole cycle, {}", leg.name),
                    target: "<= 9",
                    found: format!("{:.2}", cost.operator_writes_total),
                    floor: "9".to_owned(),
                    met: cost.operator_writes_total <= 9.005,
                    limit: format!(
                        "Kubernetes itself writes {:.1}",
                        cost.kubernetes_writes_total
                    ),
                }
            })
            .collect();
        let text = |value: Option<f64>| {
            value.map_or_else(
                || "not measured".to_owned(),
                |value| format!("{value:.1} ms"),
            )
        };
        rows.push(Row {
            what: format!("processor time a claim, whole cycle, {}", leg.name),
            target: "operator <= 0.5 ms",
            found: format!(
                "operator {}, API server {}, etcd {}",
                text(leg.cycle.controller_ms),
                text(leg.cycle.api_server_ms),
                text(leg.cycle.etcd_ms)
            ),
            floor: String::new(),
            met: leg.cycle.controller_ms.is_some_and(|time| time <= 0.5),
            limit: "decoding what the watches deliver".to_owned(),
        });
        rows
    }

    /// The table and what else a reader wants to see.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        self.write(&mut text)?;
        Ok(text)
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let quietest = self.idle.iter().copied().fold(1.0, f64::min);
        writeln!(
            out,
            "{} processors; before the legs the machine was at least {:.0} % idle{}",
            self.processors,
            quietest * 100.0,
            if quietest < QUIET {
                ": others worked, so times by the clock are too long; counts and processor time hold"
            } else {
                ""
            }
        )?;
        if let Some(floors) = &self.floors {
            writeln!(
                out,
                "\nfloor: a plain client with the same calls; median (min-max)"
            )?;
            let milliseconds = |time: &Option<Spread>| {
                time.as_ref().map_or_else(
                    || "not measured".to_owned(),
                    |time| format!("{} ms", spread(time)),
                )
            };
            for (name, floor) in &floors.patterns {
                writeln!(
                    out,
                    "  {name:14} {:>18}/s   one by one {:>16} ms   API server a claim {:>18}, with what follows {:>18}",
                    spread(&floor.per_second),
                    spread(&floor.serial_ms),
                    milliseconds(&floor.api_server_ms),
                    milliseconds(&floor.api_server_whole_ms),
                )?;
            }
            writeln!(out, "\nAPI server time for one write")?;
            for (kind, cost) in &floors.writes {
                writeln!(out, "  {kind:36} {} ms", spread(cost))?;
            }
        }
        for leg in self.open_loop.iter().chain(&self.bursts) {
            let cost = &leg.cycle;
            writeln!(
                out,
                "\n{}: p50 {:.1}, p90 {:.1}, p99 {:.1}, max {:.1} ms; {:.1}/s; {} cold",
                leg.name,
                leg.latencies.p50,
                leg.latencies.p90,
                leg.latencies.p99,
                leg.latencies.max,
                leg.reached_per_second,
                leg.cold
            )?;
            writeln!(
                out,
                "  until ready, ms a claim: {}",
                pairs(&leg.until_ready_ms)
            )?;
            writeln!(
                out,
                "  operator's writes: {:.2} a claim: {}",
                cost.operator_writes_total,
                pairs(&cost.operator_writes)
            )?;
            writeln!(
                out,
                "  Kubernetes' own: {:.2} a claim: {}",
                cost.kubernetes_writes_total,
                pairs(&cost.kubernetes_writes)
            )?;
        }
        let what = width(self.rows.iter().map(|row| row.what.as_str()), "measure");
        let target = width(self.rows.iter().map(|row| row.target), "target");
        let found = width(self.rows.iter().map(|row| row.found.as_str()), "found");
        let floor = width(self.rows.iter().map(|row| row.floor.as_str()), "floor");
        writeln!(
            out,
            "\n     {:what$}  {:target$}  {:found$}  {:floor$}  limit",
            "measure", "target", "found", "floor"
        )?;
        for row in &self.rows {
            let mark = if row.met { "met " } else { "MISS" };
            writeln!(
                out,
                "{mark} {:what$}  {:target$}  {:found$}  {:floor$}  {}",
                row.what, row.target, row.found, row.floor, row.limit
            )?;
        }
        Ok(())
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
                met: memory.bytes <= allowed,
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
        floor: String::new(),
        met: scale.restart_to_served_ms <= 1200.0 && scale.restart_writes == 0.0,
        limit: "lists: the API server encodes every object".to_owned(),
    });
    rows
}

fn width<'a>(texts: impl Iterator<Item = &'a str>, title: &str) -> usize {
    texts
        .map(|text| text.chars().count())
        .max()
        .unwrap_or_default()
        .max(title.len())
}

fn spread(spread: &Spread) -> String {
    let Spread { median, min, max } = spread;
    let digits = usize::from(*max < 100.0);
    format!("{median:.digits$} ({min:.digits$}-{max:.digits$})")
}

fn pairs(values: &BTreeMap<String, f64>) -> String {
    let all: Vec<String> = values
        .iter()
        .map(|(name, value)| format!("{name} {value:.2}"))
        .collect();
    all.join(", ")
}

fn mean_shares(outcomes: &[Outcome]) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, share) in outcomes.iter().flat_map(|outcome| &outcome.shares) {
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
    use super::super::scene::Cost;
    use super::super::statistics::Latencies;
    use super::*;

    fn outcome(asked: Option<f64>, reached: f64, p50: f64, writes: f64) -> Outcome {
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
                operator_writes: BTreeMap::from([("PATCH sandboxes".to_owned(), writes)]),
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
        }
    }

    fn verdicts(report: &Report) -> Vec<(&str, bool)> {
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
            scale: Some(Scale {
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
                restart_writes: 1.0,
            }),
            ..Report::default()
        };
        report.conclude();
        let expected = [
            ("burst of 500, claims ready", true),
            ("create to Ready at 4/s", true),
            ("create to Ready at 20/s", false),
            ("create to Ready at 40/s", false),
            ("operator writes a claim, whole cycle, 4/s", true),
            ("operator writes a claim, whole cycle, 20/s", false),
            ("operator writes a claim, whole cycle, 40/s", true),
            ("operator writes a claim, whole cycle, burst 1", true),
            ("processor time a claim, whole cycle, 4/s", true),
            ("operator memory, 0 sandboxes", true),
            ("operator memory, 1000 sandboxes", false),
            ("restart, 1000 sandboxes", false),
        ];
        assert_eq!(verdicts(&report), expected);
        let text = report.text().unwrap();
        assert!(text.contains("MISS create to Ready at 20/s"), "{text}");
        assert!(
            text.contains("processors are used up: kube-apiserver 50 %"),
            "{text}"
        );
    }

    #[test]
    fn a_noisy_machine_is_told() {
        let mut report = Report {
            processors: 2,
            ..Report::default()
        };
        report.idle(0.98);
        assert!(!report.text().unwrap().contains("others worked"));
        report.idle(0.40);
        let text = report.text().unwrap();
        assert!(text.contains("40 % idle: others worked"), "{text}");
    }
}
