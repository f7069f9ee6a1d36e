//! Network policies that older controllers made per claim. They carry no label, so they are not watched: the
//! operator looks for them once, when it begins to lead, and the claims they belong to delete them. It
//! writes nothing itself.

use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_crds::{labels, names};

use crate::api::{ApiError, POLICIES};
use crate::context::Context;
use crate::objects::{OwnerKind, PolicyRow, Row};

/// Delay after the first failure; it doubles up to the longest one.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// Looks until all policies were seen once.
pub async fn find_policies(cx: Arc<Context>) {
    let mut delay = FIRST_DELAY;
    while let Err(error) = look(&cx).await {
        tracing::warn!(%error, "network policies of older controllers not listed; trying again");
        tokio::time::sleep(error.retry_after().unwrap_or(delay)).await;
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

async fn look(cx: &Context) -> Result<(), ApiError> {
    let unlabelled = format!("!{}", labels::SANDBOX_TEMPLATE_REF_HASH);
    let namespace = cx.config.namespace.as_deref();
    let policies = cx
        .api
        .list_all::<<PolicyRow as Row>::Wire>(&POLICIES, namespace, &unlabelled)
        .await?;
    for wire in policies {
        match PolicyRow::from_wire(wire, cx.store.interner()) {
            Ok(row) if is_of_a_claim(&row) => cx.store.note_legacy_policy(row),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "an object was skipped"),
        }
    }
    Ok(())
}

/// Whether a policy is named after the claim that controls it. Whether that claim exists, its own pass sees.
fn is_of_a_claim(row: &PolicyRow) -> bool {
    row.head.owner.as_ref().is_some_and(|owner| {
        owner.kind == OwnerKind::Claim
            && *row.head.key.name == *names::legacy_claim_network_policy(&owner.name)
    })
}
