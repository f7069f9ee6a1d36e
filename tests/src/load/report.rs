//! What the bench says: a table beside the targets, what limits each figure, and everything as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::claims::Outcome;
use super::closed_loop::ClosedLoop;
use super::fill::Fill;
use super::floor::Floors;
use super::pace::Paced;
use super::rows::{self, Row, spread};
use super::scale::Scale;
use super::scene::Cost;
use agent_sandbox_load::statistics::Spread;

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
    /// The rounds of filling a pool.
    pub fills: Vec<Fill>,
    /// The closed loops.
    pub closed_loops: Vec<ClosedLoop>,
    /// Bursts on a small pool, until it was empty.
    pub depletion: Vec<Outcome>,
    /// What a plain client reaches.
    pub floors: Option<Floors>,
    /// What it reaches at the rates of the open-loop legs.
    pub paced: Vec<Paced>,
    /// Large pools.
    pub scale: Option<Scale>,
    /// The table.
    pub rows: Vec<Row>,
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
        self.rows = rows::of(self);
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
                if let Some(claims) = &floor.claims_a_record {
                    writeln!(
                        out,
                        "  {:14} {} claims in one write of the record",
                        "",
                        spread(claims)
                    )?;
                }
            }
            writeln!(out, "\nAPI server time for one write")?;
            for (kind, cost) in &floors.writes {
                writeln!(out, "  {kind:36} {} ms", spread(cost))?;
            }
        }
        for paced in &self.paced {
            let latencies = &paced.latencies;
            let time = paced.api_server_ms;
            writeln!(
                out,
                "\nfloor at {}/s: p50 {:.1}, p90 {:.1}, p99 {:.1} ms; {:.1}/s; API server {} a claim until the last had its status",
                paced.asked_per_second,
                latencies.p50,
                latencies.p90,
                latencies.p99,
                paced.reached_per_second,
                time.map_or_else(|| "not measured".to_owned(), |time| format!("{time:.1} ms")),
            )?;
        }
        self.write_claims(out)?;
        self.write_others(out)?;
        self.write_table(out)
    }

    fn write_claims(&self, out: &mut String) -> std::fmt::Result {
        let legs = self.open_loop.iter().chain(&self.bursts);
        for leg in legs.chain(&self.depletion) {
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
            if let Some(time) = leg.refill_ms {
                writeln!(
                    out,
                    "  the pool is full again {time:.0} ms after the last claim was ready"
                )?;
            }
            write_cost(out, &leg.cycle, "claim")?;
        }
        Ok(())
    }

    fn write_others(&self, out: &mut String) -> std::fmt::Result {
        let grown = self.scale.iter().flat_map(|scale| &scale.fills);
        for fill in self.fills.iter().chain(grown) {
            writeln!(
                out,
                "\npool from {} to {}: {:.2} s, {:.1}/s",
                fill.from, fill.to, fill.seconds, fill.per_second
            )?;
            writeln!(
                out,
                "  until ready, ms a sandbox: {}",
                pairs(&fill.until_ready_ms)
            )?;
            write_cost(out, &fill.cost, "sandbox")?;
        }
        for found in &self.closed_loops {
            let ClosedLoop { ready, gone, .. } = found;
            writeln!(
                out,
                "\nclosed loop of {}: {:.1}/s; ready p50 {:.1}, p90 {:.1}, p99 {:.1}, gone p50 {:.1}, p99 {:.1} ms; {} claims, {} cold",
                found.workers,
                found.per_second,
                ready.p50,
                ready.p90,
                ready.p99,
                gone.p50,
                gone.p99,
                found.claims,
                found.cold
            )?;
            write_cost(out, &found.cycle, "claim")?;
        }
        Ok(())
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
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
            let mark = match row.met {
                Some(true) => "met ",
                Some(false) => "MISS",
                None => "    ",
            };
            writeln!(
                out,
                "{mark} {:what$}  {:target$}  {:found$}  {:floor$}  {}",
                row.what, row.target, row.found, row.floor, row.limit
            )?;
        }
        Ok(())
    }
}

fn write_cost(out: &mut String, cost: &Cost, each: &str) -> std::fmt::Result {
    writeln!(
        out,
        "  operator's writes: {:.2} a {each}: {}",
        cost.operator_writes_total,
        pairs(&cost.operator_writes)
    )?;
    writeln!(
        out,
        "  Kubernetes' own: {:.2} a {each}: {}",
        cost.kubernetes_writes_total,
        pairs(&cost.kubernetes_writes)
    )
}

fn width<'a>(texts: impl Iterator<Item = &'a str>, title: &str) -> usize {
    texts
        .map(|text| text.chars().count())
        .max()
        .unwrap_or_default()
        .max(title.len())
}

/// What rounds to nothing is left out.
fn pairs(values: &BTreeMap<String, f64>) -> String {
    let all: Vec<String> = values
        .iter()
        .filter(|(_, value)| **value >= 0.005)
        .map(|(name, value)| format!("{name} {value:.2}"))
        .collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

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
