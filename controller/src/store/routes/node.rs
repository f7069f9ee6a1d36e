//! Nodes: the pools' members on one that fell sick or got well.

use super::sandbox::tell_pool;
use super::{Routed, Stored};
use crate::objects::NodeRow;
use crate::store::{State, Table};

impl Stored for NodeRow {
    fn table(state: &mut State) -> &mut Table<Self> {
        &mut state.nodes
    }

    fn changed(state: &mut State, new: Option<&Self>, old: Option<&Self>, out: &mut Routed) {
        // A node tells of itself every few seconds, and hardly ever anything new.
        if let (Some(new), Some(old)) = (new, old)
            && new.is_as_healthy_as(old)
        {
            return;
        }
        let Some(name) = new.or(old).map(|row| row.head.key.name.clone()) else {
            return;
        };
        for key in state.rolls.on_node(&name) {
            if let Some(row) = state.sandboxes.get(&key).cloned() {
                tell_pool(state, &row, out);
            }
        }
    }
}
