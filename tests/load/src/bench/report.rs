//! What a bench says: what it ran on, a table for each leg, the targets, and everything as JSON.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::figures::{Entry, Figures, Peer};
use super::rounds::QUIET;
use super::targets::{self, Row};
use super::watch::TOLERATED;
use crate::statistics::Spread;

/// One of the benches.
pub trait Bench {
    /// Its parts.
    type Leg: Copy + Debug + Ord + Serialize;
    /// Who is measured.
    type Peer: Peer;
    /// Quantities whose ratios say something.
    const RATIOS: &'static [&'static str];

    /// The targets beside what was found.
    fn rows(figures: &Figures<Self::Leg, Self::Peer>) -> Vec<Row>;
}

/// Everything found.
#[derive(Debug)]
pub struct Report<B: Bench> {
    /// The figures.
    pub figures: Figures<B::Leg, B::Peer>,
    /// What the bench ran on and with.
    about: Vec<(&'static str, String)>,
    /// Peers that are not there, and why.
    absent: BTreeMap<B::Peer, String>,
    /// What is void, and why.
    void: Vec<Void<B::Leg, B::Peer>>,
    /// How idle the machine was before each round.
    idle: Vec<f64>,
    /// What others used of the machine while something was measured.
    foreign: Vec<f64>,
    /// How often something was measured again, because others worked.
    discarded: usize,
}

#[derive(Debug, Serialize)]
struct Void<L, P> {
    peer: P,
    leg: L,
    why: String,
}

impl<B: Bench> Default for Report<B> {
    fn default() -> Self {
        Self {
            figures: Figures::default(),
            about: Vec::new(),
            absent: BTreeMap::new(),
            void: Vec::new(),
            idle: Vec::new(),
            foreign: Vec::new(),
            discarded: 0,
        }
    }
}

impl<B: Bench> Report<B> {
    /// Notes a circumstance.
    pub fn about(&mut self, what: &'static str, text: String) {
        self.about.push((what, text));
    }

    /// Notes a peer that is not there.
    pub fn absent(&mut self, peer: B::Peer, why: &str) {
        self.absent.insert(peer, why.to_owned());
    }

    /// Notes what a peer failed at.
    pub fn void(&mut self, peer: B::Peer, leg: B::Leg, why: &str) {
        let why = why.to_owned();
        self.void.push(Void { peer, leg, why });
    }

    /// Notes how idle the machine was before a round.
    pub fn idle(&mut self, share: f64) {
        self.idle.push(share);
    }

    /// Notes what others used of the machine while something was measured.
    pub fn foreign(&mut self, share: f64) {
        self.foreign.push(share);
    }

    /// Notes that something is measured again, because others worked.
    pub fn discarded(&mut self) {
        self.discarded += 1;
    }

    /// The tables.
    ///
    /// # Errors
    /// Never: writing to a string succeeds.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        self.write_about(&mut text)?;
        let entries = self.figures.entries();
        for part in entries.chunk_by(|one, next| {
            (one.measure.leg, one.measure.setting) == (next.measure.leg, next.measure.setting)
        }) {
            write_table(&mut text, part, B::RATIOS)?;
        }
        for Void { peer, leg, why } in &self.void {
            writeln!(text, "\nvoid: {} in {leg:?}: {why}", peer.name())?;
        }
        targets::write(&mut text, &self.rows())?;
        Ok(text)
    }

    fn rows(&self) -> Vec<Row> {
        B::rows(&self.figures)
    }

    fn write_about(&self, out: &mut String) -> std::fmt::Result {
        for (what, text) in &self.about {
            writeln!(out, "{what}: {text}")?;
        }
        for (peer, why) in &self.absent {
            writeln!(out, "absent: {}: {why}", peer.name())?;
        }
        if let Some(idle) = Spread::of(self.idle.iter().copied()) {
            let busy = self.idle.iter().filter(|share| **share < QUIET).count();
            writeln!(
                out,
                "before: the machine was {} % idle; {busy} of {} rounds began although others worked",
                percent(idle),
                self.idle.len()
            )?;
        }
        if let Some(foreign) = Spread::of(self.foreign.iter().copied()) {
            let disturbed = self.foreign.iter().filter(|it| **it > TOLERATED).count();
            writeln!(
                out,
                "meanwhile: others used {} % of the machine; {disturbed} of {} measurements were disturbed, {} more were discarded{}",
                percent(foreign),
                self.foreign.len(),
                self.discarded,
                if disturbed == 0 {
                    ""
                } else {
                    ": times by the clock are too long, processor time and memory hold"
                }
            )?;
        }
        Ok(())
    }
}

impl<B: Bench> Serialize for Report<B> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let about: BTreeMap<_, _> = self.about.iter().map(|(what, text)| (what, text)).collect();
        let mut all = serializer.serialize_struct("Report", 8)?;
        all.serialize_field("about", &about)?;
        all.serialize_field("absent", &self.absent)?;
        all.serialize_field("idle", &self.idle)?;
        all.serialize_field("foreign", &self.foreign)?;
        all.serialize_field("discarded", &self.discarded)?;
        all.serialize_field("figures", &self.figures.entries())?;
        all.serialize_field("void", &self.void)?;
        all.serialize_field("targets", &self.rows())?;
        all.end()
    }
}

/// Quantities of one setting as lines, peers as columns.
fn write_table<L: Debug, P: Peer>(
    out: &mut String,
    entries: &[Entry<L, P>],
    ratios: &[&str],
) -> std::fmt::Result {
    let Some(first) = entries.first() else {
        return Ok(());
    };
    let peers: Vec<P> = {
        let mut peers: Vec<P> = entries
            .iter()
            .flat_map(|entry| entry.peers.keys().copied())
            .collect();
        peers.sort();
        peers.dedup();
        peers
    };
    let mut lines = vec![
        std::iter::once(first.measure.setting.to_owned())
            .chain(peers.iter().map(|peer| peer.name().to_owned()))
            .collect::<Vec<String>>(),
    ];
    for entry in entries {
        let cells = peers
            .iter()
            .map(|peer| entry.peers.get(peer).map_or_else(String::new, spread));
        lines.push(
            std::iter::once(format!("  {}", entry.measure.quantity))
                .chain(cells)
                .collect(),
        );
        if ratios.contains(&entry.measure.quantity) && !entry.ratios.is_empty() {
            let cells = peers.iter().map(|peer| {
                entry
                    .ratios
                    .get(peer)
                    .map_or_else(String::new, |ratio| format!("x {}", spread(ratio)))
            });
            lines.push(
                std::iter::once(format!("    {} to it", P::OURS.name()))
                    .chain(cells)
                    .collect(),
            );
        }
    }
    writeln!(out, "\n{:?}", first.measure.leg)?;
    write_aligned(out, &lines)
}

/// Lines of cells, columns as wide as their widest cell.
pub fn write_aligned(out: &mut String, lines: &[Vec<String>]) -> std::fmt::Result {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    for line in lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            write!(text, "{cell:width$}  ")?;
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

/// Median, and smallest and largest when there were several.
pub fn spread(spread: &Spread) -> String {
    let median = short(spread.median);
    let (min, max) = (short(spread.min), short(spread.max));
    if min == max {
        return median;
    }
    format!("{median} ({min}-{max})")
}

/// Shares in percent.
fn percent(shares: Spread) -> String {
    let [median, min, max] = [shares.median, shares.min, shares.max].map(|share| share * 100.0);
    format!("{median:.0} ({min:.0}-{max:.0})")
}

/// Three digits or so.
pub fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 1e4 => format!("{:.1}k", value / 1e3),
        large if large >= 1e3 => format!("{:.2}k", value / 1e3),
        middle if middle >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router_bench::args::Leg;
    use crate::router_bench::figures::Measure;
    use crate::router_bench::peers::Kind;
    use crate::router_bench::report::Report;

    #[test]
    fn numbers_are_short() {
        let all = [65_934.0, 1234.5, 456.7, 27.25, 1.2, 0.39, -3.0];
        let texts = all.map(short);
        assert_eq!(
            texts,
            ["65.9k", "1.23k", "457", "27.2", "1.20", "0.39", "-3.00"]
        );
    }

    #[test]
    fn the_table_has_ratios_and_what_is_missing_is_named() {
        let mut report = Report::default();
        let measure = Measure {
            leg: Leg::Throughput,
            setting: "2 B, c=50",
            quantity: "requests/CPU-s",
        };
        for (round, (ours, theirs)) in [(60e3, 66e3), (62e3, 64e3)].into_iter().enumerate() {
            report.figures.note(measure, Kind::Router, round, ours);
            report.figures.note(measure, Kind::Nginx, round, theirs);
        }
        report.absent(Kind::Haproxy, "apt-get install haproxy");
        report.void(Kind::Go, Leg::Idle, "answered 502");
        report.foreign(0.02);
        assert!(!report.text().unwrap().contains("too long"));
        report.foreign(0.5);
        report.idle(0.5);
        let text = report.text().unwrap();
        for part in [
            "61.0k (60.0k-62.0k)",
            "65.0k (64.0k-66.0k)",
            "x 0.94 (0.91-0.97)",
            "absent: haproxy: apt-get install haproxy",
            "void: go in Idle: answered 502",
            "1 of 1 rounds began although others worked",
            "1 of 2 measurements were disturbed, 0 more were discarded: times",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["figures"][0]["peers"]["router"]["median"], 61e3);
        assert_eq!(json["figures"][0]["quantity"], "requests/CPU-s");
        assert_eq!(json["absent"]["haproxy"], "apt-get install haproxy");
    }
}
