//! Events about a sandbox: what became of it since its status was last written. Ordinary events of pool
//! members that nobody has are left out. Called by the passes over a sandbox; decides nothing.

use agent_sandbox_crds::condition::{self, reason};

use super::status::{self, Outcome};
use super::{Sandboxes, is_unclaimed_member};
use crate::events::{Event, Importance, Regarding};
use crate::objects::{SandboxRow, SandboxStatus, ShutdownPolicy};

impl Sandboxes {
    pub(super) fn announce_expiry(&self, row: &SandboxRow) {
        if row.shutdown_policy == ShutdownPolicy::Retain {
            self.announce(row, Importance::Normal, "SandboxExpired", "Expiry", || {
                "Sandbox has expired".to_owned()
            });
        }
    }

    pub(super) fn announce_changes(
        &self,
        row: &SandboxRow,
        new: &SandboxStatus,
        outcome: &Outcome,
    ) {
        let old = &row.status.conditions;
        let became = |kind: &str, why: &str| {
            new.conditions.reason(kind) == Some(why) && old.reason(kind) != Some(why)
        };
        if let Some(count) = outcome.too_many_pods
            && became(condition::READY, reason::MULTIPLE_PODS)
        {
            self.announce(
                row,
                Importance::Warning,
                "MultiplePods",
                "Reconciling",
                || status::multiple_pods(count),
            );
        }
        if new.conditions.is_true(condition::READY) && !old.is_true(condition::READY) {
            self.announce(
                row,
                Importance::Normal,
                "SandboxReady",
                "Reconciling",
                || "Sandbox is ready".to_owned(),
            );
        }
        if became(condition::SUSPENDED, reason::POD_TERMINATED) {
            self.announce(
                row,
                Importance::Normal,
                "SandboxSuspended",
                "Reconciling",
                || "Sandbox is suspended".to_owned(),
            );
        }
        if became(condition::POD_OUTDATED, reason::POD_SPEC_CHANGED) {
            self.announce(
                row,
                Importance::Warning,
                "PodOutdated",
                "Reconciling",
                || status::OUTDATED.to_owned(),
            );
        }
        // Of a pool's members, their number would say nothing more.
        if became(condition::NETWORK_POLICY_READY, reason::RULES_LOST) && !is_unclaimed_member(row)
        {
            let lost = new.conditions.get(condition::NETWORK_POLICY_READY);
            self.announce(
                row,
                Importance::Warning,
                "NetworkPolicyLost",
                "Reconciling",
                || lost.map_or_else(String::new, |it| it.message.to_string()),
            );
        }
        if became(condition::FINISHED, reason::POD_SUCCEEDED) {
            self.announce(
                row,
                Importance::Normal,
                "PodSucceeded",
                "Reconciling",
                || "Pod completed successfully".to_owned(),
            );
        }
        if became(condition::FINISHED, reason::POD_FAILED) {
            self.announce(row, Importance::Warning, "PodFailed", "Reconciling", || {
                "Pod failed".to_owned()
            });
        }
    }

    /// Records an event. Ordinary events of unclaimed pool members are not worth a write each: the
    /// pool's status says the same.
    pub(super) fn announce(
        &self,
        row: &SandboxRow,
        importance: Importance,
        why: &'static str,
        action: &'static str,
        note: impl FnOnce() -> String,
    ) {
        if importance == Importance::Normal && is_unclaimed_member(row) {
            return;
        }
        self.cx.events.record(Event {
            regarding: Regarding::sandbox(&row.head),
            importance,
            reason: why,
            action,
            note: note(),
        });
    }
}
