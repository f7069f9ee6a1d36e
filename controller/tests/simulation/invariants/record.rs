//! What must hold of the pools' allocation records: who is given what, and that it stays so.

use std::collections::BTreeSet;

use agent_sandbox_crds::allocation::Reference;
use jiff::Timestamp;
use serde_json::Value;

use super::{Checker, Commit, VIEW, Verdict, broken};
use crate::kube_model::{Entry, is_deleting};
use crate::objects::{
    Allocation, allocations, claim_of, condition, controller, is_stopped, name, uid,
};

impl Checker {
    /// What a pool's record says is never taken back: a member is given to one claim, once, while it is the
    /// pool's, and its entry leaves when it has said so itself or is gone. One that is about to be deleted
    /// is given to nobody, and nobody else's is condemned.
    pub(super) fn record_is_kept(&mut self, commit: &Commit<'_>) -> Verdict {
        const RULE: &str = "what a record says is kept";
        let Entry { id, old, new, .. } = commit.entry;
        let Some(pool) = new.as_deref() else {
            return Ok(());
        };
        let before: BTreeSet<Allocation<'_>> = old.iter().flat_map(|it| allocations(it)).collect();
        let after: BTreeSet<Allocation<'_>> = allocations(pool).collect();
        let found = |wanted: &str| commit.state.list("sandboxes").find(|it| uid(it) == wanted);
        let given: BTreeSet<&str> = after.iter().map(|it| it.sandbox).collect();
        if given.len() != after.len() {
            return broken(RULE, format!("{} gives a member to two claims", id.name));
        }
        let retiring = pool["status"]["retiring"].as_array();
        let retiring = retiring.into_iter().flatten();
        let retiring = retiring.filter_map(Value::as_str);
        let mut retiring = retiring.filter_map(|it| Some(Reference::parse(it)?.uid));
        if let Some(both) = retiring.find(|it| given.contains(it)) {
            return broken(RULE, format!("{both} is given and condemned"));
        }
        for entry in after.difference(&before) {
            let claims = self.claims_of.entry(entry.sandbox.to_owned()).or_default();
            claims.insert(entry.claim.to_owned());
            if claims.len() > 1 {
                let detail = format!("{} was given to {claims:?}", entry.name);
                return broken(RULE, detail);
            }
            let names = self
                .claims_of_name
                .entry(entry.name.to_owned())
                .or_default();
            names.insert(entry.claim.to_owned());
            // It may have gone a moment ago, and the claim will be told so.
            let Some(member) = found(entry.sandbox) else {
                continue;
            };
            if controller(member, "SandboxWarmPool") != Some(uid(pool)) {
                let detail = format!("{} is given away and is not the pool's", entry.name);
                return broken(RULE, detail);
            }
            self.is_fit(member)?;
            self.gives_one_member_per_claim(commit, member, entry.claim)?;
        }
        for entry in before.difference(&after) {
            if let Some(member) = found(entry.sandbox)
                && !is_deleting(member)
                && controller(member, "SandboxWarmPool") == Some(uid(pool))
            {
                let detail = format!("{} is {}'s no more", entry.name, entry.claim);
                return broken(RULE, detail);
            }
        }
        Ok(())
    }

    /// A member that is given away is fit, as far as an operator can know.
    fn is_fit(&self, member: &Value) -> Verdict {
        let unfit = self.unfit.get(uid(member));
        if unfit.is_some_and(|since| since.elapsed() > VIEW) {
            return broken(
                "only fit members are given away",
                format!("{} is given away although it is unfit", name(member)),
            );
        }
        Ok(())
    }

    /// An operator that took one member for a claim takes no other, whatever it heard of the first. (One
    /// that was started after a crash cannot know what is still under way.)
    fn gives_one_member_per_claim(
        &mut self,
        commit: &Commit<'_>,
        member: &Value,
        claim: &str,
    ) -> Verdict {
        let bound = self.bindings.entry(claim.to_owned()).or_default();
        let other = bound.iter().find(|(other, by)| {
            let lives = |it: &Value| {
                uid(it) == other
                    && uid(it) != uid(member)
                    && !is_deleting(it)
                    && claim_of(commit.state, it) == Some(claim)
            };
            *by == commit.actor && commit.state.list("sandboxes").any(|it| lives(it))
        });
        if let Some((other, _)) = other {
            let detail = format!("{} goes to {claim}, which has {other}", name(member));
            return broken("an operator gives one member to a claim", detail);
        }
        bound.push((uid(member).to_owned(), commit.actor));
        Ok(())
    }
}

/// Whether a sandbox must not be handed out.
pub(super) fn is_unfit(sandbox: &Value, now: Timestamp) -> bool {
    is_deleting(sandbox)
        || condition(sandbox, "Finished").is_some()
        || is_stopped(sandbox, now)
        || sandbox["spec"]["shutdownTime"].is_string()
}

/// A claim gets a member that suits it, from the pool that it names.
pub(super) fn hands_over_what_suits(commit: &Commit<'_>) -> Verdict {
    const RULE: &str = "members go to claims that ask for them";
    let Entry { id, old, new, .. } = commit.entry;
    let (Some(old), Some(new)) = (old, new) else {
        return Ok(());
    };
    let (Some(pool), Some(owner)) = (
        controller(old, "SandboxWarmPool"),
        controller(new, "SandboxClaim"),
    ) else {
        return Ok(());
    };
    // The record of a pool that is gone is gone too; what it said holds.
    let lives = commit
        .state
        .list("sandboxwarmpools")
        .any(|it| uid(it) == pool);
    if lives && claim_of(commit.state, old) != Some(owner) {
        return broken(
            RULE,
            format!("{} goes to {owner}, which was not given it", id.name),
        );
    }
    let claim = commit
        .state
        .list("sandboxclaims")
        .find(|it| uid(it) == owner);
    let Some(claim) = claim else {
        return Ok(());
    };
    let spec = &claim["spec"];
    let wants_fresh = !spec["env"].is_null() || !spec["volumeClaimTemplates"].is_null();
    let named = commit
        .state
        .list("sandboxwarmpools")
        .find(|it| uid(it) == pool);
    let names_another = named.is_some_and(|pool| {
        let by_pool = spec["warmPoolRef"]["name"].as_str();
        let by_template = spec["sandboxTemplateRef"]["name"].as_str();
        by_pool.is_some_and(|by_pool| by_pool != name(pool))
            || by_template.is_some() && spec["warmpool"] == "none"
    });
    if wants_fresh || names_another {
        return broken(RULE, format!("{} does not suit {}", id.name, name(claim)));
    }
    Ok(())
}
