//! Figures as the legs find them: a measure, and what each peer had in each round. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::args::Leg;
use super::peers::Kind;
use crate::statistics::Spread;

/// What is measured: within a leg, a setting and a quantity.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Measure {
    /// The leg that measures it.
    pub leg: Leg,
    /// Under which conditions.
    pub setting: &'static str,
    /// The quantity, with its unit.
    pub quantity: &'static str,
}

/// What all peers had of one measure; rounds are aligned.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figure {
    /// Rounds of each peer.
    pub rounds: BTreeMap<Kind, Vec<Option<f64>>>,
}

/// All measures, in the order in which they were first noted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    order: Vec<Measure>,
    by_measure: BTreeMap<Measure, Figure>,
}

/// One measure with all its figures, as the JSON has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    /// What was measured.
    #[serde(flatten)]
    pub measure: Measure,
    /// Median, smallest and largest of each peer.
    pub peers: BTreeMap<Kind, Spread>,
    /// Our router through each other peer, round by round, then median, smallest and largest.
    pub router_to: BTreeMap<Kind, Spread>,
    /// The rounds themselves.
    #[serde(flatten)]
    pub figure: Figure,
}

impl Figures {
    /// Notes what a peer had in a round, counted from 0.
    pub fn note(&mut self, measure: Measure, peer: Kind, round: usize, value: f64) {
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
    pub fn figure(&self, measure: Measure) -> Option<&Figure> {
        self.by_measure.get(&measure)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Measure, &Figure)> {
        self.order
            .iter()
            .filter_map(|measure| Some((*measure, self.by_measure.get(measure)?)))
    }

    /// All of them with what follows from them.
    pub fn entries(&self) -> Vec<Entry> {
        self.iter()
            .map(|(measure, figure)| Entry {
                measure,
                peers: figure
                    .rounds
                    .keys()
                    .filter_map(|peer| Some((*peer, figure.spread(*peer)?)))
                    .collect(),
                router_to: figure
                    .rounds
                    .keys()
                    .filter(|peer| !peer.is_ours())
                    .filter_map(|peer| Some((*peer, figure.ratio(Kind::Router, *peer)?)))
                    .collect(),
                figure: figure.clone(),
            })
            .collect()
    }
}

impl Figure {
    /// A peer's rounds.
    pub fn spread(&self, peer: Kind) -> Option<Spread> {
        Spread::of(self.rounds.get(&peer)?.iter().copied().flatten())
    }

    /// One peer through another, in each round that both have.
    pub fn ratio(&self, peer: Kind, other: Kind) -> Option<Spread> {
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

    const MEASURE: Measure = Measure {
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
        let others: Vec<Kind> = entries[0].router_to.keys().copied().collect();
        assert_eq!(others, [Kind::Nginx, Kind::Go]);
    }
}
