//! In which order peers are measured, and when.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::machine::Processes;

/// Idle at least this much, the machine is quiet.
pub const QUIET: f64 = 0.93;

/// The order of a round: every peer once, each round beginning with another one.
pub fn order(peers: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..peers).map(move |place| (place + round) % peers)
}

/// Waits for the machine to be quiet, but not longer than some time in all.
#[derive(Debug)]
pub struct Gate {
    patience: Duration,
    look: Duration,
}

impl Gate {
    /// With this much time to spend, each look taking so long.
    pub fn new(patience: Duration, look: Duration) -> Self {
        Self { patience, look }
    }

    /// Whether something that took this long and was disturbed may be done again.
    pub fn again(&mut self, took: Duration) -> bool {
        let may = !self.patience.is_zero();
        self.patience = self.patience.saturating_sub(took);
        may
    }

    /// Waits, and returns how idle the machine was in the end. Looking costs nothing of the patience,
    /// looking again does.
    pub async fn pass(&mut self) -> Result<f64> {
        loop {
            let start = Instant::now();
            let idle = idle_share(self.look).await?;
            if idle >= QUIET || self.patience.is_zero() {
                return Ok(idle);
            }
            self.patience = self.patience.saturating_sub(start.elapsed());
        }
    }
}

async fn idle_share(time: Duration) -> Result<f64> {
    let machine = Processes::default();
    let before = machine.times()?;
    sleep(time).await;
    Ok(machine.times()?.since(&before).idle_share())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_begins_with_another() {
        let rounds: Vec<Vec<usize>> = (0..4).map(|round| order(3, round).collect()).collect();
        assert_eq!(
            rounds,
            [vec![0, 1, 2], vec![1, 2, 0], vec![2, 0, 1], vec![0, 1, 2]]
        );
        assert_eq!(order(0, 3).count(), 0);
    }

    #[tokio::test]
    async fn patience_ends() {
        const LOOK: Duration = Duration::from_millis(1);
        let mut gate = Gate::new(Duration::ZERO, LOOK);
        let idle = gate.pass().await.unwrap();
        assert!((0.0..=1.0).contains(&idle), "{idle}");
        assert!(!gate.again(LOOK));
        let mut gate = Gate::new(LOOK, LOOK);
        assert!(gate.again(2 * LOOK));
        assert!(!gate.again(LOOK));
    }
}
