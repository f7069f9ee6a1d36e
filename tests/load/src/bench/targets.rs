//! The targets: what was found beside what is aimed at, and what holds each figure where it is.

use std::fmt::Write as _;

use serde::Serialize;

use super::report::{short, spread, write_aligned};
use crate::statistics::Spread;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// What is aimed at.
    pub target: String,
    /// What was found.
    pub found: String,
    /// Whether the median meets the target; `None` when it cannot be, because noise is all there is.
    pub met: Option<bool>,
    /// What the best peers have.
    pub peers: String,
    /// What holds the figure where it is.
    pub limit: String,
}

impl Row {
    /// The line for what was found.
    pub fn new(what: String, target: Target, found: &Spread, peers: String, limit: String) -> Self {
        Self {
            what,
            target: target.text(),
            found: spread(found),
            met: target.is_met(found.median),
            peers,
            limit,
        }
    }
}

/// Which side of the target is right.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Target {
    /// Nothing takes less than no time.
    fn is_met(self, found: f64) -> Option<bool> {
        let met = match self {
            Self::AtLeast(least) => found >= least,
            Self::AtMost(most) => found <= most,
        };
        (found >= 0.0).then_some(met)
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!(">= {}", short(least)),
            Self::AtMost(most) => format!("<= {}", short(most)),
        }
    }
}

/// The lines as a table.
pub fn write(out: &mut String, rows: &[Row]) -> std::fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    let titles = ["", "measure", "target", "found", "peers", "limit"];
    let mut lines = vec![titles.map(str::to_owned).to_vec()];
    for row in rows {
        let mark = match row.met {
            Some(true) => "met",
            Some(false) => "MISS",
            None => "noise",
        };
        lines.push(vec![
            mark.to_owned(),
            row.what.clone(),
            row.target.clone(),
            row.found.clone(),
            row.peers.clone(),
            row.limit.clone(),
        ]);
    }
    writeln!(out)?;
    write_aligned(out, &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_on_one_side_or_noise() {
        let row = |target, median| {
            let found = Spread {
                median,
                min: median,
                max: median,
            };
            Row::new(String::new(), target, &found, String::new(), String::new())
        };
        let met = [
            row(Target::AtMost(100.0), -5.0),
            row(Target::AtMost(100.0), 100.0),
            row(Target::AtLeast(100.0), 99.0),
        ];
        let seen: Vec<Option<bool>> = met.iter().map(|row| row.met).collect();
        assert_eq!(seen, [None, Some(true), Some(false)]);
        let mut text = String::new();
        write(&mut text, &met).unwrap();
        for mark in ["met", "MISS", "noise", "<= 100", ">= 100"] {
            assert!(text.contains(mark), "{mark}: {text}");
        }
    }
}
