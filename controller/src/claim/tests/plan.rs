//! Decisions about claims.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{CLAIM, bound, claim, claim_with, sandbox, template};
use crate::claim::plan::{
    Candidate, Found, Observed, PoolRef, Rules, Step, Verdict, plan, primary,
};
use crate::error::Fault;
use crate::fixtures::{at, condition, owner, row, uid};
use crate::ident::{Key, Uid};
use crate::objects::{ClaimRow, PoolRow, SandboxRow};

const NOW: &str = "2026-01-01T12:00:00Z";

fn pool() -> Arc<PoolRow> {
    row(
        json!({"metadata": {"name": "p", "uid": uid(40)}, "spec": {"sandboxTemplateRef": {"name": "t"}}}),
    )
}

fn pool_ref() -> PoolRef {
    PoolRef {
        key: Key::new("n", "p"),
        uid: Uid::parse(&uid(40)),
    }
}

/// A claim whose pool and template exist and that has no sandbox.
fn unbound(claim: Arc<ClaimRow>) -> Observed {
    Observed {
        claim,
        bound: Vec::new(),
        unseen: None,
        unconfirmed: None,
        asked_for: false,
        namesake: None,
        legacy_policy: None,
        pool: Found::Here(pool()),
        pools: vec![pool_ref()],
        template: Found::Here(template(json!({}))),
        candidate: Candidate::Unasked,
        confirmed: false,
        fault: None,
        conflicts: 0,
    }
}

fn step(observed: &Observed) -> Step {
    let domains = ["sandbox.users.io".to_owned()];
    plan(
        observed,
        at(NOW),
        Rules {
            label_domains: &domains,
            resolvers: &[],
            most_conflicts: 3,
        },
    )
}

fn reason(observed: &Observed) -> String {
    match step(observed) {
        Step::Settle(Verdict::Rejected(rejection)) => rejection.reason.to_owned(),
        Step::Settle(Verdict::Missing { reason, .. }) => reason.to_owned(),
        other => panic!("{other:?}"),
    }
}

fn member() -> Arc<SandboxRow> {
    sandbox(
        json!({"ownerReferences": owner("SandboxWarmPool", "p", &uid(40))}),
        json!({}),
        Some(("True", "R")),
    )
}

#[test]
fn a_deleting_claim_is_left_alone() {
    let object = claim_with(
        json!({"deletionTimestamp": NOW}),
        json!({"lifecycle": {"shutdownTime": NOW}}),
        json!({}),
    );
    assert_eq!(step(&unbound(object)), Step::Leave);
}

#[test]
fn a_warm_claim_chooses_and_binds_without_asking_anybody() {
    let mut seen = unbound(claim(json!({})));
    assert_eq!(step(&seen), Step::Choose(vec![pool_ref()]));
    seen.candidate = Candidate::Chosen(member());
    assert!(matches!(step(&seen), Step::Allocate { .. }));
    // The template is not needed to bind.
    seen.template = Found::Unseen(Key::new("n", "t"));
    assert!(matches!(step(&seen), Step::Allocate { .. }));
    seen.conflicts = 3;
    assert_eq!(step(&seen), Step::Settle(Verdict::Contended));
}

#[test]
fn an_empty_pool_means_cold_and_a_filling_one_a_short_wait() {
    let young = claim_with(
        json!({"creationTimestamp": "2026-01-01T11:59:59Z"}),
        json!({}),
        json!({}),
    );
    let mut seen = unbound(young);
    seen.candidate = Candidate::None { soon: true };
    assert_eq!(
        step(&seen),
        Step::Settle(Verdict::Waiting(Duration::from_millis(500)))
    );
    seen.candidate = Candidate::None { soon: false };
    assert_eq!(step(&seen), Step::ConfirmClaim);
    seen.confirmed = true;
    assert!(matches!(step(&seen), Step::Create(_)));
    let old = claim_with(
        json!({"creationTimestamp": "2026-01-01T11:59:58Z"}),
        json!({}),
        json!({}),
    );
    let mut seen = unbound(old);
    seen.candidate = Candidate::None { soon: true };
    assert_eq!(step(&seen), Step::ConfirmClaim);
}

#[test]
fn requests_a_running_sandbox_cannot_meet_skip_the_pool() {
    for more in [
        json!({"env": [{"name": "A", "value": "1"}]}),
        json!({"volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {}}]}),
    ] {
        let mut seen = unbound(claim(more));
        seen.template = Found::Here(template(
            json!({"envVarsInjectionPolicy": "Allowed", "volumeClaimTemplatesPolicy": "Allowed"}),
        ));
        assert_eq!(step(&seen), Step::ConfirmClaim);
        seen.template = Found::Here(template(json!({})));
        assert!(matches!(step(&seen), Step::Settle(Verdict::Rejected(_))));
    }
}

#[test]
fn what_is_missing_is_confirmed_before_it_is_said() {
    let key = |name: &str| Key::new("n", name);
    let mut seen = unbound(claim(json!({})));
    seen.pool = Found::Unseen(key("p"));
    assert_eq!(step(&seen), Step::ConfirmPool(key("p")));
    seen.pool = Found::Missing(key("p"));
    assert_eq!(reason(&seen), "WarmPoolNotFound");
    let mut seen = unbound(claim(json!({})));
    seen.candidate = Candidate::None { soon: false };
    seen.template = Found::Unseen(key("t"));
    assert_eq!(step(&seen), Step::ConfirmTemplate(key("t")));
    seen.template = Found::Missing(key("t"));
    assert_eq!(reason(&seen), "TemplateNotFound");
}

#[test]
fn a_namesake_is_waited_for_or_reported() {
    let mut seen = unbound(claim(json!({})));
    seen.candidate = Candidate::None { soon: false };
    seen.namesake = Some(sandbox(
        json!({"name": "c", "ownerReferences": []}),
        json!({}),
        None,
    ));
    assert_eq!(reason(&seen), "InvalidConfiguration");
    seen.namesake = Some(sandbox(
        json!({"name": "c", "deletionTimestamp": NOW}),
        json!({}),
        None,
    ));
    assert_eq!(step(&seen), Step::Settle(Verdict::NamePending));
    // It does not stand in the way of a warm one.
    seen.candidate = Candidate::Chosen(member());
    assert!(matches!(step(&seen), Step::Allocate { .. }));
}

#[test]
fn a_bound_claim_keeps_its_sandbox_whatever_its_references_say() {
    let mut seen = unbound(claim(json!({})));
    seen.bound = vec![bound()];
    seen.pool = Found::Unseen(Key::new("n", "p"));
    seen.template = Found::NotNamed;
    let Step::Update(sandbox, ..) = step(&seen) else {
        panic!("metadata out of line");
    };
    assert_eq!(&*sandbox.name, "p-1");
    let deleting = super::sandbox(json!({"deletionTimestamp": NOW}), json!({}), None);
    seen.bound = vec![deleting];
    assert!(matches!(step(&seen), Step::Settle(Verdict::Bound(_))));
}

fn in_line() -> Value {
    json!({"podTemplate": {"metadata": {"labels": {"agents.x-k8s.io/claim-uid": uid(CLAIM)}}}})
}

#[test]
fn a_policy_an_older_controller_made_for_the_claim_goes() {
    let mut seen = unbound(claim(json!({})));
    seen.template = Found::NotNamed;
    seen.bound = vec![sandbox(json!({}), in_line(), None)];
    let policy = json!({"metadata": {"name": "c-network-policy", "uid": uid(60)}, "spec": {}});
    seen.legacy_policy = Some(row(policy));
    assert_eq!(
        step(&seen),
        Step::DeletePolicy(Key::new("n", "c-network-policy"), Uid::parse(&uid(60)))
    );
}

#[test]
fn surplus_sandboxes_go_once_the_one_that_counts_is_recorded() {
    let named = |name: &str| claim_with(json!({}), json!({}), json!({"sandbox": {"name": name}}));
    let one = sandbox(json!({"name": "one", "uid": uid(21)}), in_line(), None);
    let two = sandbox(json!({"name": "two", "uid": uid(22)}), in_line(), None);
    let mut seen = unbound(named("two"));
    seen.template = Found::NotNamed;
    seen.bound = vec![one.clone(), two.clone()];
    assert_eq!(step(&seen), Step::ConfirmClaim);
    seen.confirmed = true;
    assert_eq!(step(&seen), Step::ConfirmBound(two.head.key.clone()));
    seen.asked_for = true;
    assert_eq!(
        step(&seen),
        Step::DeleteSandbox(one.head.key.clone(), one.head.uid)
    );
    seen.claim = named("");
    assert_eq!(
        step(&seen),
        Step::Settle(Verdict::Bound(one.head.key.clone()))
    );
    let going = sandbox(
        json!({"name": "two", "uid": uid(22), "deletionTimestamp": NOW}),
        in_line(),
        None,
    );
    assert_eq!(
        primary(&named("two"), &[one.clone(), going])
            .unwrap()
            .head
            .uid,
        one.head.uid
    );
}

#[test]
fn an_expired_claim_says_so_before_anything_goes() {
    let lifecycle =
        |policy: &str| json!({"lifecycle": {"shutdownTime": NOW, "shutdownPolicy": policy}});
    let marked = json!({"conditions": [condition("Ready", "False", "ClaimExpired")]});
    let mut seen = unbound(claim(lifecycle("Delete")));
    seen.bound = vec![bound()];
    assert!(matches!(
        step(&seen),
        Step::Settle(Verdict::Expired { done: false, .. })
    ));
    for (policy, expected) in [
        ("Delete", Step::Delete { foreground: false }),
        ("DeleteForeground", Step::Delete { foreground: true }),
        (
            "Retain",
            Step::DeleteSandbox(Key::new("n", "p-1"), Uid::parse(&uid(20))),
        ),
    ] {
        seen.claim = claim_with(json!({}), lifecycle(policy), marked.clone());
        assert_eq!(step(&seen), expected);
    }
    seen.bound = vec![];
    assert!(matches!(
        step(&seen),
        Step::Settle(Verdict::Expired {
            done: true,
            spared: None
        })
    ));
    let mut status = marked;
    status["sandbox"] = json!({"name": "c"});
    seen.claim = claim_with(json!({}), lifecycle("Retain"), status);
    seen.namesake = Some(sandbox(
        json!({"name": "c", "ownerReferences": []}),
        json!({}),
        None,
    ));
    let Step::Settle(Verdict::Expired {
        spared: Some(why), ..
    }) = step(&seen)
    else {
        panic!("the foreign sandbox is spared");
    };
    assert!(why.contains("\"c\""));
}

#[test]
fn faults_and_bad_metadata_end_the_pass() {
    let mut seen = unbound(claim(
        json!({"additionalPodMetadata": {"labels": {"x": "y"}}}),
    ));
    assert_eq!(reason(&seen), "InvalidMetadata");
    seen.fault = Some(Fault::Refused("x".to_owned()));
    assert!(matches!(step(&seen), Step::Settle(Verdict::Failed(_))));
}

#[test]
fn only_what_nobody_announces_is_looked_at_again_by_time() {
    let missing = Verdict::Missing {
        reason: "TemplateNotFound",
        message: String::new(),
    };
    assert_eq!(missing.recheck(), Some(Duration::from_secs(60)));
    assert_eq!(Verdict::Bound(Key::new("n", "s")).recheck(), None);
    let over = Verdict::Expired {
        done: true,
        spared: None,
    };
    assert_eq!(over.recheck(), None);
}

#[test]
fn the_sandbox_that_the_status_names_is_asked_for_before_another_is_kept() {
    let object = claim_with(json!({}), json!({}), json!({"sandbox": {"name": "told"}}));
    let mut seen = unbound(object);
    seen.bound = vec![member()];
    seen.unconfirmed = Some(Key::new("n", "told"));
    let asked = Step::ConfirmBound(Key::new("n", "told"));
    assert_eq!(step(&seen), asked);
    seen.unconfirmed = None;
    assert!(matches!(step(&seen), Step::Settle(Verdict::Bound(_))));
}

#[test]
fn a_claim_that_is_refused_keeps_the_sandbox_that_its_status_names_until_it_is_known_to_be_gone() {
    let refused = json!({"additionalPodMetadata": {"labels": {"kubernetes.io/x": "y"}}});
    let object = claim_with(json!({}), refused, json!({"sandbox": {"name": "told"}}));
    let mut seen = unbound(object);
    seen.unconfirmed = Some(Key::new("n", "told"));
    assert_eq!(step(&seen), Step::ConfirmBound(Key::new("n", "told")));
    seen.unconfirmed = None;
    assert_eq!(reason(&seen), "InvalidMetadata");
}

#[test]
fn a_claim_that_expires_keeps_the_sandbox_that_its_status_names_until_it_is_known_to_be_gone() {
    let over = json!({"lifecycle": {"shutdownTime": NOW, "shutdownPolicy": "Retain"}});
    let object = claim_with(json!({}), over, json!({"sandbox": {"name": "told"}}));
    let mut seen = unbound(object);
    seen.unconfirmed = Some(Key::new("n", "told"));
    assert_eq!(step(&seen), Step::ConfirmBound(Key::new("n", "told")));
    seen.unconfirmed = None;
    assert!(matches!(
        step(&seen),
        Step::Settle(Verdict::Expired { done: false, .. })
    ));
}
