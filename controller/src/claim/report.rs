//! What is told of claims beside their status: latencies, counters, events, and, where wanted,
//! annotations on the claim. All of it comes after the client has its answer.

use std::time::Duration;

use agent_sandbox_crds::claim::Warmth;
use agent_sandbox_crds::{annotations, labels};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::memory::Note;
use super::{Claims, Learned, act, next_after};
use crate::events::{Event, Importance, Regarding};
use crate::metrics;
use crate::objects::{ClaimRow, Expiry, SandboxRow, Source};
use crate::queue::Next;
use crate::store::Work;

/// In place of a time, on a claim that was Ready before anybody could tell since when.
const UNKNOWN: &str = "unknown";
/// How soon to look again whether a note can be written.
const QUIET: Duration = Duration::from_millis(20);

impl Claims {
    /// Counts a claim that came by its sandbox in this pass.
    pub(super) fn count_launch(&self, claim: &ClaimRow, sandbox: &SandboxRow, learned: &Learned) {
        let Some(launch) = learned.launched else {
            return;
        };
        let cx = &*self.cx;
        let pool = match &claim.source {
            Source::Pool(pool)
            | Source::Template {
                warmth: Warmth::Pool(pool),
                ..
            } => &**pool,
            Source::Template { .. } => "",
        };
        let creator = claim.created_by.as_deref().unwrap_or_default();
        cx.metrics.claim_created(sandbox, creator, launch, pool);
        let name = &*sandbox.head.key.name;
        if launch == labels::LAUNCH_TYPE_COLD {
            let note = format!("Created Sandbox {name:?}");
            self.announce(claim, "SandboxProvisioned", "Provisioning", note);
        } else if cx.config.claims.adoption_events {
            let note = format!("Adopted warm pool Sandbox {name:?}");
            self.announce(claim, "SandboxAdopted", "Adoption", note);
        }
    }

    /// Measures a claim that is Ready, `was_ready` aside, for the first time.
    ///
    /// Whether it is the first time is told by the claim's annotation where annotations are written.
    /// Where they are not, only a claim that this process has followed since before its first status is
    /// known not to have been Ready before; one that a restart or a flap brought here is not measured,
    /// because hours of service would count as the time of its start.
    pub(super) fn note_ready(
        &self,
        claim: &ClaimRow,
        sandbox: &SandboxRow,
        was_ready: bool,
        now: Timestamp,
    ) {
        let cx = &*self.cx;
        let annotates = cx.config.claims.annotations;
        let marked = claim.annotations.first_ready.is_some();
        let mut note = Note {
            first_ready: None,
            first_seen: None,
            sandbox: None,
            since: Instant::now(),
        };
        if !was_ready {
            let first_seen = self.memory.take_first_seen(claim);
            if marked || (first_seen.is_none() && !annotates) {
                return;
            }
            cx.metrics.claim_ready(claim, sandbox, first_seen, now);
            note.first_ready = Some(now);
            note.first_seen = first_seen;
        }
        if annotates && !marked {
            let warm = metrics::launch_type(sandbox) == labels::LAUNCH_TYPE_WARM;
            note.sandbox = warm.then(|| sandbox.head.key.name.clone());
            self.memory.keep(claim, note);
        }
    }

    /// Writes the annotations that wait for it, unless claims have right of way; then it is tried again
    /// soon. `next` is what the pass would otherwise end with.
    pub(super) async fn write_note(&self, by: &Work, claim: &ClaimRow, next: Next) -> Next {
        let Some(note) = self.memory.note(claim) else {
            return next;
        };
        if matches!(next, Next::Retry | Next::RetryAfter(_)) {
            return next;
        }
        let cx = &*self.cx;
        // A worker never waits here: it has claims to serve.
        let Some(_lane) = cx.lanes.try_background(note.since) else {
            return match next {
                Next::After(delay) => Next::After(delay.min(QUIET)),
                _ => Next::After(QUIET),
            };
        };
        let patch = annotation_patch(claim, &note);
        match act::annotate(cx, by, &claim.head.key, &patch).await {
            Ok(()) => {
                self.memory.drop_note(claim);
                next
            }
            Err(fault) if fault.is_retried() => next_after(&fault),
            Err(fault) => {
                tracing::warn!(claim = %claim.head.key, %fault, "annotations not written");
                self.memory.drop_note(claim);
                next
            }
        }
    }

    /// Says that an expired claim is being deleted.
    pub(super) fn announce_deletion(&self, claim: &ClaimRow) {
        let policy = match claim.expiry {
            Expiry::Delete => "Delete",
            Expiry::DeleteForeground => "DeleteForeground",
            Expiry::Retain => "Retain",
        };
        let note = format!("Deleting Claim (ShutdownPolicy={policy})");
        self.announce(claim, "ClaimExpired", "Deleting", note);
    }

    /// Records an event on a claim.
    pub(super) fn announce(
        &self,
        claim: &ClaimRow,
        why: &'static str,
        action: &'static str,
        note: String,
    ) {
        if self.cx.config.claims.events {
            self.cx.events.record(Event {
                regarding: Regarding::claim(&claim.head),
                importance: Importance::Normal,
                reason: why,
                action,
                note,
            });
        }
    }
}

/// The patch that writes a note: the annotations that are missing and nothing else.
pub(super) fn annotation_patch(claim: &ClaimRow, note: &Note) -> Value {
    let known = &claim.annotations;
    let mut marks = Map::new();
    let first_ready = note
        .first_ready
        .map_or_else(|| UNKNOWN.to_owned(), |at| at.to_string());
    marks.insert(
        annotations::CLAIM_FIRST_READY_AT.to_owned(),
        json!(first_ready),
    );
    if let (Some(at), None) = (note.first_seen, &known.controller_observed) {
        marks.insert(
            annotations::CONTROLLER_FIRST_OBSERVED_AT.to_owned(),
            json!(at.to_string()),
        );
    }
    if note.sandbox.is_some() && known.sandbox_name != note.sandbox {
        marks.insert(
            annotations::SANDBOX_NAME.to_owned(),
            json!(note.sandbox.as_deref()),
        );
    }
    json!({"metadata": {"uid": claim.head.uid.to_string(), "annotations": marks}})
}
