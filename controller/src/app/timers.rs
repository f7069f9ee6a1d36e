//! What makes work when time passes: retries of the queues, and the deadlines of claims and sandboxes.

use std::sync::Arc;

use super::Background;
use crate::context::Context;
use crate::expiry::{Deadlines, Target};
use crate::queue::Priority;
use crate::store::Queues;

pub(super) fn start_timers(
    cx: &Arc<Context>,
    queues: &Queues,
    deadlines: &Deadlines,
    background: &Background,
) {
    for queue in [
        &queues.sandboxes,
        &queues.claims,
        &queues.handovers,
        &queues.templates,
        &queues.pools,
    ] {
        let queue = queue.clone();
        background.spawn("queue-timers", async move { queue.run_timers().await });
    }
    let (deadlines, clock, targets) = (deadlines.clone(), cx.clock.clone(), queues.clone());
    background.spawn("deadlines", async move {
        let fire = move |target| {
            let (queue, key) = match target {
                Target::Claim(key) => (&targets.claims, key),
                Target::Sandbox(key) => (&targets.sandboxes, key),
            };
            // It expires now, however often it failed before.
            queue.forgive(&key);
            queue.add(key, Priority::High);
        };
        deadlines.run(clock, fire).await;
    });
}
