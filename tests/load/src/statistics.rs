//! Figures from samples: percentiles, medians and the times of a Poisson process. Pure.

use std::time::Duration;

use serde::Serialize;

/// The distribution of some latencies, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latencies {
    /// How many there are.
    pub count: usize,
    /// Half are at most this.
    pub p50: f64,
    /// Nine in ten are at most this.
    pub p90: f64,
    /// 99 in a hundred are at most this.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Latencies {
    /// `None` without samples.
    pub fn of(samples: &[Duration]) -> Option<Self> {
        let mut sorted: Vec<f64> = samples
            .iter()
            .map(|sample| sample.as_secs_f64() * 1000.0)
            .collect();
        sorted.sort_by(f64::total_cmp);
        let at = |percent| percentile(&sorted, percent);
        Some(Self {
            count: sorted.len(),
            p50: at(50)?,
            p90: at(90)?,
            p99: at(99)?,
            max: at(100)?,
        })
    }
}

/// The smallest value that at least `percent` in a hundred of the sorted values do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// Several rounds of one measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// `None` without rounds.
    pub fn of(rounds: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = rounds.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let upper = *sorted.get(sorted.len() / 2)?;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(*sorted.get(sorted.len() / 2 - 1)?, upper)
        } else {
            upper
        };
        Some(Self {
            median,
            min: *sorted.first()?,
            max: *sorted.last()?,
        })
    }
}

/// When each of `count` arrivals of a Poisson process is due, from the start of the process. The same
/// seed gives the same times, so that rounds are comparable.
pub fn arrivals(per_second: f64, count: u32, seed: u64) -> Vec<Duration> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut at = 0.0;
    (0..count)
        .map(|_| {
            at -= (1.0 - random.f64()).ln() / per_second;
            Duration::from_secs_f64(at)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let found = Latencies::of(&samples).unwrap();
        let expected = Latencies {
            count: 200,
            p50: 100.0,
            p90: 180.0,
            p99: 198.0,
            max: 200.0,
        };
        assert_eq!(found, expected);
        let one = Latencies::of(&[Duration::from_millis(7)]).unwrap();
        assert_eq!(
            (one.p50.to_bits(), one.p99.to_bits()),
            (7f64.to_bits(), 7f64.to_bits())
        );
        assert_eq!(Latencies::of(&[]), None);
    }

    #[test]
    fn a_spread_takes_the_middle() {
        let odd = Spread::of([9.0, 1.0, 2.0]).unwrap();
        assert_eq!(
            odd,
            Spread {
                median: 2.0,
                min: 1.0,
                max: 9.0
            }
        );
        let even = Spread::of([4.0, 1.0, 2.0, 8.0]).unwrap();
        assert_eq!(
            even,
            Spread {
                median: 3.0,
                min: 1.0,
                max: 8.0
            }
        );
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn arrivals_have_the_rate_and_repeat() {
        let times = arrivals(20.0, 20_000, 7);
        assert!(times.is_sorted());
        // The mean of 20,000 exponential gaps is within 5 % of the truth for nearly every seed; this
        // one is fixed.
        let last = times.last().unwrap().as_secs_f64();
        assert!((950.0..1050.0).contains(&last), "{last}");
        // Exponential gaps: about 63 % are shorter than the mean, where even ones have none.
        let mut short = 0;
        let mut before = Duration::ZERO;
        for at in &times {
            short += usize::from(at.saturating_sub(before) < Duration::from_millis(50));
            before = *at;
        }
        assert!((12_300..12_900).contains(&short), "{short}");
        assert_eq!(arrivals(20.0, 20_000, 7), times);
        assert_ne!(arrivals(20.0, 20_000, 8), times);
    }
}
