//! Readiness as the conjunction of named gates.
//!
//! Each part that must be up before traffic may come registers a gate and opens it; `/readyz` lists
//! the gates that are still closed and why. A gate that is dropped stays as it was: a part that died
//! before it became ready keeps the program unready.
//!
//! ```
//! use agent_sandbox_service::readiness::Readiness;
//!
//! let readiness = Readiness::new();
//! let caches = readiness.register("caches");
//! assert_eq!(readiness.check(), Err(vec!["caches: not started".to_owned()]));
//! caches.set_ready();
//! assert_eq!(readiness.check(), Ok(()));
//! ```

use std::sync::Arc;

use parking_lot::RwLock;

/// The gates of one program. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    gates: Arc<RwLock<Vec<State>>>,
}

#[derive(Debug)]
struct State {
    name: &'static str,
    closed: Option<String>,
}

/// One condition of readiness, closed until its owner opens it.
#[derive(Clone, Debug)]
pub struct Gate {
    index: usize,
    gates: Arc<RwLock<Vec<State>>>,
}

impl Readiness {
    /// No gates: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a closed gate.
    pub fn register(&self, name: &'static str) -> Gate {
        let mut gates = self.gates.write();
        gates.push(State {
            name,
            closed: Some("not started".to_owned()),
        });
        Gate {
            index: gates.len() - 1,
            gates: self.gates.clone(),
        }
    }

    /// `Ok` when every gate is open, else one `name: reason` line per closed gate.
    ///
    /// # Errors
    /// The closed gates.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let closed: Vec<String> = self
            .gates
            .read()
            .iter()
            .filter_map(|gate| {
                gate.closed
                    .as_ref()
                    .map(|why| format!("{}: {why}", gate.name))
            })
            .collect();
        if closed.is_empty() {
            Ok(())
        } else {
            Err(closed)
        }
    }
}

impl Gate {
    /// Opens the gate.
    pub fn set_ready(&self) {
        self.set(None);
    }

    /// Closes the gate, for the reason given.
    pub fn set_not_ready(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    fn set(&self, closed: Option<String>) {
        if let Some(state) = self.gates.write().get_mut(self.index) {
            state.closed = closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Readiness;

    #[test]
    fn every_gate_must_open_and_closed_ones_say_why() {
        let readiness = Readiness::new();
        assert_eq!(readiness.check(), Ok(()));
        let caches = readiness.register("caches");
        let lease = readiness.register("lease");
        caches.set_ready();
        lease.set_not_ready("held by another replica");
        assert_eq!(
            readiness.check(),
            Err(vec!["lease: held by another replica".to_owned()])
        );
        lease.set_ready();
        drop(lease);
        assert_eq!(readiness.check(), Ok(()));
    }
}
