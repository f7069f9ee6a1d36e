//! Kinds that a server stores and nobody acts on. A cluster without the controllers of, say,
//! Deployments accepts them all the same; whoever creates one is told, so that nobody waits for pods
//! that never come.

use std::collections::BTreeSet;

use crate::registry::Descriptor;

/// A set of kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unattended(BTreeSet<(String, String)>);

impl Unattended {
    /// Adds a kind by its group and name.
    pub fn add(&mut self, group: impl Into<String>, kind: impl Into<String>) {
        self.0.insert((group.into(), kind.into()));
    }

    /// The warning for a new object of this kind, if it is one of them.
    pub fn warning(&self, descriptor: &Descriptor) -> Option<String> {
        let Descriptor { group, kind, .. } = descriptor;
        self.0
            .contains(&(group.clone(), kind.clone()))
            .then(|| format!("this cluster stores {kind} objects, but nothing in it acts on them"))
    }
}
