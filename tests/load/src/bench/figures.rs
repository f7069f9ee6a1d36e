//! Figures as the legs find them: a measure, and what each peer had in each round. Pure.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::statistics::Spread;

/// Who is measured in a bench.
pub trait Peer: Copy + Ord + Serialize {
    /// The one that the bench is about.
    const OURS: Self;
    /// What JSON calls its ratios to the others.
    const RATIOS: &'static str;

    /// The name in tables.
    fn name(self) -> &'static str;

    /// Whether it is ours in one form or another: it is not compared with itself, and a wrong answer
    /// of it ends the run.
    fn is_ours(self) -> bool;
}

/// What is measured: within a leg, a setting and a quantity.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Measure<L> {
    /// The leg that measures it.
    pub leg: L,
    /// Under which conditions.
    pub setting: &'static str,
    /// The quantity, with its unit.
    pub quantity: &'static str,
}

/// What all peers had of one measure; rounds are aligned.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure<P> {
    /// Rounds of each peer.
    pub rounds: BTreeMap<P, Vec<Option<f64>>>,
}

/// All measures, in the order in which they were first noted.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures<L, P> {
    order: Vec<Measure<L>>,
    by_measure: BTreeMap<Measure<L>, Figure<P>>,
}

/// One measure with all its figures, as the JSON has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<L, P> {
    /// What was measured.
    pub measure: Measure<L>,
    /// Median, smallest and largest of each peer.
    pub peers: BTreeMap<P, Spread>,
    /// Ours through each other peer, round by round, then median, smallest and largest.
    pub ratios: BTreeMap<P, Spread>,
    /// The rounds themselves.
    pub figure: Figure<P>,
}

impl<L: Serialize, P: Peer> Serialize for Entry<L, P> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = serializer.serialize_map(Some(6))?;
        all.serialize_entry("leg", &self.measure.leg)?;
        all.serialize_entry("setting", self.measure.setting)?;
        all.serialize_entry("quantity", self.measure.quantity)?;
        all.serialize_entry("peers", &self.peers)?;
        all.serialize_entry(P::RATIOS, &self.ratios)?;
        all.serialize_entry("rounds", &self.figure.rounds)?;
        all.end()
    }
}

impl<L, P> Default for Figures<L, P> {
    fn default() -> Self {
        Self {
            order: Vec::new(),
            by_measure: BTreeMap::new(),
        }
    }
}

impl<P> Default for Figure<P> {
    fn default() -> Self {
        Self {
            rounds: BTreeMap::new(),
        }
    }
}

impl<L: Copy + Ord, P: Peer> Figures<L, P> {
    /// Notes what a peer had in a round, counted from 0.
    pub fn note(&mut self, measure: Measure<L>, peer: P, round: usize, value: f64) {
        if !self.by_measure.contains_key(&measure) {
            self.order.push(measure);
        }
        let rounds = self
            .by_measure
            .entry(measure)
            .or_default()
            .rounds
            .entry(peer)
            .or_default();
        if rounds.len() <= round {
            rounds.resize(round + 1, None);
        }
        if let Some(slot) = rounds.get_mut(round) {
            *slot = Some(value);
        }
    }

    /// One of them.
    pub fn figure(&self, measure: Measure<L>) -> Option<&Figure<P>> {
        self.by_measure.get(&measure)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Measure<L>, &Figure<P>)> {
        self.order
            .iter()
            .filter_map(|measure| Some((*measure, self.by_measure.get(measure)?)))
    }

    /// All of them with what follows from them.
    pub fn entries(&self) -> Vec<Entry<L, P>> {
        self.iter()
            .map(|(measure, figure)| Entry {
                measure,
                peers: figure
                    .rounds
                    .keys()
                    .filter_map(|peer| Some((*peer, figure.spread(*peer)?)))
                    .collect(),
                ratios: figure
                    .rounds
                    .keys()
                    .filter(|peer| !peer.is_ours())
                    .filter_map(|peer| Some((*peer, figure.ratio(P::OURS, *peer)?)))
                    .collect(),
                figure: figure.clone(),
            })
            .collect()
    }
}

impl<P: Peer> Figure<P> {
    /// A peer's rounds.
    pub fn spread(&self, peer: P) -> Option<Spread> {
        Spread::of(self.rounds.get(&peer)?.iter().copied().flatten())
    }

    /// One peer through another, in each round that both have.
    pub fn ratio(&self, peer: P, other: P) -> Option<Spread> {
        let (ours, theirs) = (self.rounds.get(&peer)?, self.rounds.get(&other)?);
        let both = ours.iter().zip(theirs).filter_map(|(our, their)| {
            let their = (*their)?;
            (their > 0.0).then_some((*our)? / their)
        });
        Spread::of(both)
    }
}

/// A count as a number to calculate with.
#[expect(
    clippy::cast_precision_loss,
    reason = "figures are rounded to a few digits anyway"
)]
pub fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router_bench::args::Leg;
    use crate::router_bench::peers::Kind;

    const MEASURE: Measure<Leg> = Measure {
        leg: Leg::Throughput,
        setting: "c=50",
        quantity: "requests/s",
    };

    #[test]
    fn ratios_are_made_within_a_round() {
        let mut figures = Figures::default();
        for (round, (ours, theirs)) in [(10.0, 20.0), (30.0, 30.0), (90.0, 60.0)]
            .into_iter()
            .enumerate()
        {
            figures.note(MEASURE, Kind::Router, round, ours);
            figures.note(MEASURE, Kind::Nginx, round, theirs);
        }
        // A peer that was void in the first round is not shifted.
        figures.note(MEASURE, Kind::Go, 2, 9.0);
        let figure = figures.figure(MEASURE).unwrap();
        let ratio = figure.ratio(Kind::Router, Kind::Nginx).unwrap();
        assert_eq!((ratio.min, ratio.median, ratio.max), (0.5, 1.0, 1.5));
        let ratio = figure.ratio(Kind::Router, Kind::Go).unwrap();
        assert_eq!((ratio.min, ratio.max), (10.0, 10.0));
        assert_eq!(figure.ratio(Kind::Router, Kind::Python), None);
        assert_eq!(figure.spread(Kind::Python), None);
        let entries = figures.entries();
        assert_eq!(entries.len(), 1);
        let others: Vec<Kind> = entries[0].ratios.keys().copied().collect();
        assert_eq!(others, [Kind::Nginx, Kind::Go]);
    }
}
