//! The annotations that are written on a claim when wanted: what is missing, and not a byte more.

use agent_sandbox_crds::annotations;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{CLAIM, claim_with};
use crate::claim::memory::Note;
use crate::claim::report::annotation_patch;
use crate::fixtures::{at, uid};

const SEEN: &str = "2026-01-01T00:00:01.5Z";
const READY: &str = "2026-01-01T00:00:02Z";

fn note() -> Note {
    Note {
        first_ready: Some(at(READY)),
        first_seen: Some(at(SEEN)),
        sandbox: Some("p-1".into()),
        since: Instant::now(),
    }
}

/// The patch of a note on a claim with these annotations.
fn patch(known: Value, note: &Note) -> Value {
    let claim = claim_with(json!({"annotations": known}), json!({}), json!({}));
    annotation_patch(&claim, note)
}

fn only(marks: Value) -> Value {
    json!({"metadata": {"uid": uid(CLAIM), "annotations": marks}})
}

#[tokio::test]
async fn a_note_patches_the_keys_that_are_missing_and_nothing_else() {
    let all = json!({
        annotations::CLAIM_FIRST_READY_AT: READY,
        annotations::CONTROLLER_FIRST_OBSERVED_AT: SEEN,
        annotations::SANDBOX_NAME: "p-1",
    });
    let others = json!({"note": "mine", annotations::CLIENT_FIRST_REQUESTED_AT: SEEN});
    assert_eq!(patch(others, &note()), only(all));
    let known = json!({
        annotations::CONTROLLER_FIRST_OBSERVED_AT: "2026-01-01T00:00:00Z",
        annotations::SANDBOX_NAME: "p-1",
    });
    let missing = json!({annotations::CLAIM_FIRST_READY_AT: READY});
    assert_eq!(patch(known, &note()), only(missing));
    let nothing_measured = Note {
        first_ready: None,
        first_seen: None,
        sandbox: None,
        ..note()
    };
    let unknown = json!({annotations::CLAIM_FIRST_READY_AT: "unknown"});
    assert_eq!(patch(json!({}), &nothing_measured), only(unknown));
}
