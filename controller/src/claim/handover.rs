//! Making a claim the owner of the sandbox that its pool's record gave it, after the claim's status has
//! told of it.
//!
//! It is not needed for the claim to be served, so it yields to claims that wait. With the owner reference
//! come the claim's labels and annotations and its trace, and the pod is told apart from the pool's. Every
//! pass of a claim that finds its sandbox without the reference queues it again, so none is forgotten.

use std::sync::Arc;

use super::act::{self, Attempt};
use super::{Learned, desired, next_after, observe, plan};
use crate::context::Context;
use crate::ident::Key;
use crate::objects::ClaimRow;
use crate::queue::Next;
use crate::store::Work;

/// Hands sandboxes over.
#[derive(Debug)]
pub struct Handovers {
    cx: Arc<Context>,
}

impl Handovers {
    /// A reconciler.
    pub fn new(cx: Arc<Context>) -> Self {
        Self { cx }
    }

    /// Hands the claim's sandbox over, if that is still to be done.
    pub async fn reconcile(&self, key: &Key) -> Next {
        let cx = &*self.cx;
        if self.due(key).is_none() {
            return Next::Done;
        }
        let _lane = cx.lanes.background().await;
        // What is written is what is true when its turn has come.
        let Some((claim, sandbox, patch)) = self.due(key) else {
            return Next::Done;
        };
        // Not the claim's own pass: what comes of this is news to it.
        let by = Work::Handover(key.clone());
        match act::hand_over(cx, &by, &claim, &sandbox, &patch).await {
            Ok(Attempt::Won) => Next::Done,
            // It has changed, which the store knows by now, or is somebody else's, which the claim's own
            // pass finds out.
            Ok(Attempt::Lost) => Next::Retry,
            Err(fault) => {
                tracing::warn!(claim = %key, %fault, "sandbox not handed over");
                next_after(&fault)
            }
        }
    }

    /// The sandbox to hand over, and the patch that does. What a claim that changed meanwhile asks for
    /// may be refused; its own pass says so, and comes again when it has been mended.
    fn due(&self, key: &Key) -> Option<(Arc<ClaimRow>, Key, serde_json::Value)> {
        let store = &self.cx.store;
        let observed = store.read(|state| observe::observe(state, key, &Learned::default()))?;
        let claim = observed.claim;
        let sandbox = plan::primary(&claim, &observed.bound)?;
        let is_due = !claim.head.is_deleting()
            && !sandbox.head.is_deleting()
            && !sandbox.head.is_controlled_by(claim.head.uid)
            && claim.bound.name.as_ref() == Some(&sandbox.head.key.name);
        if !is_due {
            return None;
        }
        let template = observed.template.row().map(|row| &**row);
        let patch = desired::binding(&claim, sandbox, template).ok()?;
        Some((claim, sandbox.head.key.clone(), patch))
    }
}
