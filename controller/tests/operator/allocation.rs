//! How members of a pool are given to claims: the pool's record, and what becomes of it when whoever
//! writes it is stopped, replaced, late, or not alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent_sandbox_controller::Config;
use agent_sandbox_controller::config::LeaderElection;
use agent_sandbox_crds::allocation::{Allocation, Reference};
use serde_json::{Value, json};

use crate::faults::{assert_nothing_is_shared, is_commit, is_handover, is_told};
use crate::harness::{Harness, claim, condition, is_ready, ready, said, sandbox};
use crate::model::{Call, Link, Mischief, Model};

/// The record of the pool `p`: claims with their sandboxes, and sandboxes that are about to be deleted.
fn record(model: &Model) -> (Vec<(String, String)>, Vec<String>) {
    let pool = model.get("sandboxwarmpools", "p").unwrap();
    let list = |member: &str| {
        let listed = pool["status"][member].as_array().into_iter().flatten();
        listed.map(|it| it.as_str().unwrap())
    };
    let pair = |text: &str| {
        let entry = Allocation::parse(text).unwrap();
        (entry.claim.name.to_owned(), entry.sandbox.name.to_owned())
    };
    let name = |text: &str| Reference::parse(text).unwrap().name.to_owned();
    (
        list("allocations").map(pair).collect(),
        list("retiring").map(name).collect(),
    )
}

/// Who controls a sandbox.
fn owner(model: &Model, sandbox: &str) -> Option<String> {
    let sandbox = model.get("sandboxes", sandbox)?;
    let kind = &sandbox["metadata"]["ownerReferences"][0]["kind"];
    kind.as_str().map(str::to_owned)
}

/// No two claims were ever told of the same sandbox, not even for a moment.
fn assert_told_once(model: &Model) {
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    for (_, claim) in model.history("sandboxclaims") {
        let Some(claim) = claim else { continue };
        let Some(sandbox) = claim["status"]["sandbox"]["name"].as_str() else {
            continue;
        };
        let name = claim["metadata"]["name"].as_str().unwrap();
        let first = told
            .entry(sandbox.to_owned())
            .or_insert_with(|| name.to_owned());
        assert_eq!(first, name, "{sandbox}");
    }
}

/// Serves a claim `c` whose sandbox, which this names, cannot be handed over to it.
async fn serve_without_handover(harness: &Harness) -> String {
    harness.model.disturb(|call| is_handover(call).then(refuse));
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.sandbox_of("c")
}

fn refuse() -> Mischief {
    Mischief::Refuse(500, "InternalError", "not now".to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_burst_goes_into_the_record_in_a_few_writes_and_leaves_nothing_there() {
    let harness = Harness::start();
    harness.pool("p", 40).await;
    // As a server far away would be, so that claims gather while a write is under way.
    harness
        .model
        .disturb(|_| Some(Mischief::Delay(Duration::from_millis(5))));
    harness.claim_many("c", 40);
    harness.until_claims_ready().await;
    let writes = harness.model.take_writes();
    let commits = writes.iter().filter(|call| is_commit(call)).count();
    assert!(commits <= 8, "{commits} for 40 claims");
    harness.full("p", 40).await;
    assert_eq!(record(&harness.model), (vec![], vec![]));
    assert_nothing_is_shared(&harness);
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn entries_that_have_served_leave_the_record_although_nothing_else_is_to_be_written() {
    let harness = Harness::start();
    harness.pool("p", 1).await;
    // Nothing takes the place of what is taken: the template is gone.
    harness.model.delete("sandboxtemplates", "t");
    harness.settle().await;
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness
        .eventually("the record is empty", |model| {
            record(model) == (vec![], vec![])
        })
        .await;
    assert_nothing_is_shared(&harness);
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_is_told_before_its_sandbox_is_handed_over_and_keeps_it_when_that_fails() {
    let mut harness = Harness::start();
    harness.pool("p", 3).await;
    let name = serve_without_handover(&harness).await;
    harness.settle().await;
    assert_eq!(record(&harness.model).0, [("c".to_owned(), name.clone())]);
    assert_eq!(
        owner(&harness.model, &name).as_deref(),
        Some("SandboxWarmPool")
    );
    // The pool has its size without it, and nobody else gets it.
    harness.claim_many("d", 3);
    harness.until_claims_ready().await;
    let given: BTreeSet<String> = harness
        .model
        .list("sandboxclaims")
        .iter()
        .map(|claim| claim["status"]["sandbox"]["name"].to_string())
        .collect();
    assert_eq!(given.len(), 4);
    // Whoever comes next goes on from there.
    harness.stop().await;
    harness.model.calm();
    harness.run(Config::default());
    harness
        .eventually("it is handed over", |model| {
            owner(model, &name).as_deref() == Some("SandboxClaim")
        })
        .await;
    assert_eq!(harness.sandbox_of("c"), name);
    harness.full("p", 3).await;
    assert_nothing_is_shared(&harness);
}

/// The operator is killed at its nth write of one kind in a burst, before or after the write takes
/// effect; another one takes its place.
async fn survives_a_crash_at(nth: usize, is_it: fn(&Call) -> bool, after: bool) {
    let mut harness = Harness::new();
    harness.run(Config::default());
    harness.pool("p", 4).await;
    let life = harness.first().life.clone();
    let mut seen = 0;
    harness.model.disturb(move |call| {
        seen += usize::from(is_it(call));
        if seen == nth && is_it(call) {
            life.abort();
            // Whatever is done to the call, its answer finds nobody.
            return Some(if after {
                Mischief::LoseAnswer
            } else {
                refuse()
            });
        }
        None
    });
    harness.claim_many("c", 6);
    harness.settle().await;
    harness.bury_first();
    let told: Vec<(String, String)> = harness
        .model
        .list("sandboxclaims")
        .iter()
        .filter(|claim| is_ready(claim))
        .map(|claim| {
            let name = |value: &Value| value.as_str().unwrap().to_owned();
            (
                name(&claim["metadata"]["name"]),
                name(&claim["status"]["sandbox"]["name"]),
            )
        })
        .collect();
    harness.run(Config::default());
    harness.until_claims_ready().await;
    harness.full("p", 4).await;
    assert_nothing_is_shared(&harness);
    assert_told_once(&harness.model);
    for (claim, sandbox) in told {
        assert_eq!(
            harness.sandbox_of(&claim),
            sandbox,
            "{claim} keeps what it was told of"
        );
    }
    assert_eq!(record(&harness.model), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_write_of_a_burst_shares_nothing_and_takes_nothing_back() {
    for nth in 1..=3 {
        for after in [false, true] {
            survives_a_crash_at(nth, is_commit, after).await;
            survives_a_crash_at(nth, is_told, after).await;
            survives_a_crash_at(nth, is_handover, after).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn operators_that_know_nothing_of_each_other_give_no_member_away_twice() {
    let mut harness = Harness::new();
    harness.run(Config::default());
    harness.pool("p", 20).await;
    harness.run(Config::default());
    harness.settle().await;
    harness.claim_many("c", 20);
    harness.until_claims_ready().await;
    harness.settle().await;
    assert_nothing_is_shared(&harness);
    assert_told_once(&harness.model);
}

/// A replica that has heard of nothing since its pool of six was full, while three claims got theirs from
/// another one, by way of a link that is held now, and the record has forgotten them.
async fn one_is_behind(claims: [&str; 3]) -> (Harness, Link) {
    let mut harness = Harness::new();
    harness.run(Config::default());
    harness.pool("p", 6).await;
    // That goes for pods too: the two would put each other's labels right without end.
    for resource in ["sandboxes", "pods", "sandboxwarmpools", "sandboxclaims"] {
        harness.model.hold_watches_of(resource);
    }
    for name in claims {
        harness.model.create("sandboxclaims", claim(name, "p"));
    }
    let link = Link::new();
    let client = harness.model.client_through(&link);
    harness.run_with(client, Config::default(), |builder| builder);
    harness.until_claims_ready().await;
    harness
        .eventually("the record is empty", |model| {
            record(model) == (vec![], vec![])
        })
        .await;
    link.hold();
    (harness, link)
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_behind_takes_no_member_for_free_that_has_left_the_record() {
    let (harness, link) = one_is_behind(["c0", "c1", "c2"]).await;
    // It learns of the claims, and cannot ask for sandboxes: to it all members look free.
    harness.claim_many("d", 3);
    harness.model.disturb(|call| {
        let asks = call.verb == "get" && call.resource == "sandboxes";
        asks.then(refuse)
    });
    harness.model.expire_watches_of("sandboxclaims");
    harness.settle().await;
    harness.model.calm();
    harness.until_claims_ready().await;
    link.release();
    harness.model.release_watches();
    harness.settle().await;
    harness.until_claims_ready().await;
    assert_nothing_is_shared(&harness);
    assert_told_once(&harness.model);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_behind_makes_no_sandbox_for_a_claim_that_has_one() {
    let (harness, link) = one_is_behind(["c2", "c1", "c0"]).await;
    // It hears of the claims as they were made, oldest first, and finds the members that it chooses taken.
    harness.model.release_watches_of("sandboxclaims");
    harness.claim_many("d", 3);
    harness.until_claims_ready().await;
    link.release();
    harness.model.release_watches();
    harness.settle().await;
    harness.until_claims_ready().await;
    assert_nothing_is_shared(&harness);
    assert_told_once(&harness.model);
    for (_, sandbox) in harness.model.history("sandboxes") {
        let name = sandbox.map(|it| it["metadata"]["name"].to_string());
        assert!(name.is_none_or(|it| it.starts_with("\"p-")));
    }
}

/// A claim `c` that was served from a pool of one, which is full again; the claim and the name of its sandbox.
async fn serve_one(harness: &Harness) -> (Value, String) {
    harness.pool("p", 1).await;
    let claimed = harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.full("p", 1).await;
    (claimed, harness.sandbox_of("c"))
}

/// A sandbox that the claim controls.
fn controlled_by(claim: &Value, name: &str) -> Value {
    let mut sandbox = sandbox(name, json!({}));
    sandbox["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "extensions.agents.x-k8s.io/v1beta1", "kind": "SandboxClaim",
        "name": claim["metadata"]["name"], "uid": claim["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true,
    }]);
    sandbox
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_given_two_keeps_the_one_it_was_told_of() {
    let harness = Harness::start();
    let model = &harness.model;
    harness.pool("p", 1).await;
    for resource in ["sandboxclaims", "sandboxes", "sandboxwarmpools"] {
        model.hold_watches_of(resource);
    }
    // Somebody else made it a sandbox and told it, and the record gives it a member all the same.
    let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap().to_owned();
    let claimed = model.create("sandboxclaims", claim("c", "p"));
    let member = model.list("sandboxes").remove(0);
    model.create("sandboxes", controlled_by(&claimed, "c"));
    model.patch_status("sandboxclaims", "c", json!({"sandbox": {"name": "c"}}));
    let name = member["metadata"]["name"].as_str().unwrap();
    let entry = format!("c/{}={name}/{}", uid(&claimed), uid(&member));
    model.patch_status("sandboxwarmpools", "p", json!({"allocations": [entry]}));
    // The first time that it asks, it gets no answer.
    let mut asked = false;
    model.disturb(move |call| {
        let asks = call.verb == "get" && call.resource == "sandboxes" && call.name == "c";
        (asks && !std::mem::replace(&mut asked, true)).then(refuse)
    });
    model.release_watches_of("sandboxwarmpools");
    harness.settle().await;
    model.release_watches_of("sandboxclaims");
    harness.settle().await;
    model.release_watches();
    harness.until_ready("sandboxclaims", "c").await;
    harness.full("p", 1).await;
    assert!(model.get("sandboxes", name).is_none());
    for (_, claim) in model.history("sandboxclaims") {
        let told = claim.map(|it| it["status"]["sandbox"]["name"].clone());
        assert!(told.is_none_or(|it| it.is_null() || it == "c"));
    }
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_told_of_another_sandbox_keeps_that_one() {
    let harness = Harness::start();
    let model = &harness.model;
    let (claimed, first) = serve_one(&harness).await;
    // Somebody else gives it another one and tells it, which is not heard of here for a while.
    model.hold_watches_of("sandboxclaims");
    model.patch_status("sandboxclaims", "c", json!({"sandbox": {"name": "other"}}));
    model.create("sandboxes", controlled_by(&claimed, "other"));
    harness
        .eventually("the first one goes", |model| {
            model.get("sandboxes", &first).is_none()
        })
        .await;
    model.release_watches();
    harness.settle().await;
    assert!(model.get("sandboxes", "other").is_some());
    assert_eq!(harness.sandbox_of("c"), "other");
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_sandbox_went_unheard_of_keeps_the_other_one() {
    let harness = Harness::start();
    let model = &harness.model;
    let (claimed, first) = serve_one(&harness).await;
    // Somebody else gives it another one and tells it; before the first one may go, the claim is asked for.
    model.disturb(|call| {
        let asks = call.verb == "get" && call.resource == "sandboxclaims";
        asks.then(refuse)
    });
    model.create("sandboxes", controlled_by(&claimed, "other"));
    model.patch_status("sandboxclaims", "c", json!({"sandbox": {"name": "other"}}));
    harness.settle().await;
    // Meanwhile a user deletes the other one, which is not heard of.
    model.hold_watches_of("sandboxes");
    model.remove("sandboxes", "other");
    model.calm();
    harness
        .eventually("the claim is told of the one that is left", |model| {
            model.get("sandboxclaims", "c").unwrap()["status"]["sandbox"]["name"] == *first
        })
        .await;
    model.release_watches();
    harness.settle().await;
    assert!(model.get("sandboxes", &first).is_some());
    assert_eq!(harness.sandbox_of("c"), first);
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_expires_keeps_the_name_of_a_sandbox_that_is_not_heard_of() {
    let harness = Harness::start();
    let model = &harness.model;
    harness.pool("p", 0).await;
    model.hold_watches_of("sandboxes");
    model.hold_watches_of("sandboxclaims");
    // Somebody else serves it, and it expires before this replica hears of its sandbox.
    let mut expiring = claim("c", "p");
    let now = harness.now().to_string();
    expiring["spec"]["lifecycle"] = json!({"shutdownTime": now, "shutdownPolicy": "Retain"});
    let claimed = model.create("sandboxclaims", expiring);
    model.create("sandboxes", controlled_by(&claimed, "c"));
    model.patch_status("sandboxclaims", "c", json!({"sandbox": {"name": "c"}}));
    model.release_watches_of("sandboxclaims");
    harness
        .eventually("its sandbox goes", |model| {
            model.get("sandboxes", "c").is_none()
        })
        .await;
    model.release_watches();
    harness.settle().await;
    let history = model.history("sandboxclaims");
    let mut versions = history.into_iter().filter_map(|(_, claim)| claim);
    let first = versions.find(|it| said(it, "Ready").1 == "ClaimExpired");
    assert_eq!(first.unwrap()["status"]["sandbox"]["name"], "c");
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_a_former_leader_that_arrives_late_is_refused_or_honoured() {
    let leader = |identity: &str| Config {
        leader_election: Some(LeaderElection::new("n", identity)),
        ..Config::default()
    };
    let mut harness = Harness::new();
    let link = Link::new();
    let client = harness.model.client_through(&link);
    harness.run_with(client, leader("first"), |builder| builder);
    harness.pool("p", 10).await;
    harness.run(leader("second"));
    harness.settle().await;
    // The first commit gets no further than the wire.
    let pause = link.clone();
    harness.model.disturb(move |call| {
        if call.resource == "sandboxclaims" {
            pause.hold();
        }
        None
    });
    link.hold();
    harness.claim_many("c", 10);
    harness.until_claims_ready().await;
    harness.settle().await;
    link.release();
    harness.settle().await;
    assert_nothing_is_shared(&harness);
    assert_told_once(&harness.model);
    harness.full("p", 10).await;
    assert_eq!(record(&harness.model), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn what_a_claim_that_is_gone_was_given_is_nobodys() {
    let harness = Harness::start();
    harness.pool("p", 2).await;
    let name = serve_without_handover(&harness).await;
    harness.model.delete("sandboxclaims", "c");
    harness
        .eventually("its sandbox is gone", |model| {
            model.get("sandboxes", &name).is_none()
        })
        .await;
    harness.model.calm();
    harness.full("p", 2).await;
    assert_eq!(record(&harness.model), (vec![], vec![]));
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_somebody_bound_without_the_record_is_theirs() {
    let harness = Harness::start();
    harness.pool("p", 3).await;
    let stranger = json!([{
        "apiVersion": "extensions.agents.x-k8s.io/v1beta1", "kind": "SandboxClaim", "name": "other",
        "uid": "00000000-0000-4000-8000-00000000c1a1", "controller": true, "blockOwnerDeletion": true,
    }]);
    let mut done = false;
    harness.model.disturb(move |call| {
        if done || !is_handover(call) {
            return None;
        }
        done = true;
        let bound = json!({"metadata": {
            "labels": {"agents.x-k8s.io/warm-pool-sandbox": null},
            "ownerReferences": stranger,
        }});
        Some(Mischief::Precede("sandboxes", call.name.clone(), bound))
    });
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness.until_ready("sandboxclaims", "c").await;
    harness.settle().await;
    harness.model.release_watches();
    harness.settle().await;
    harness.until_ready("sandboxclaims", "c").await;
    let name = harness.sandbox_of("c");
    let sandboxes = harness.model.list("sandboxes");
    let of = |claim: &str| {
        let owned = sandboxes
            .iter()
            .find(|it| it["metadata"]["ownerReferences"][0]["name"] == claim);
        owned.unwrap()["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(of("c"), name);
    assert_ne!(of("other"), name);
    assert_eq!(record(&harness.model), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn members_are_deleted_after_the_record_says_so() {
    let harness = Harness::start();
    harness.pool("p", 4).await;
    harness
        .model
        .patch("sandboxwarmpools", "p", json!({"spec": {"replicas": 1}}));
    harness.settle().await;
    let writes = harness.model.take_writes();
    let first = |is_it: &dyn Fn(&Call) -> bool| writes.iter().position(is_it).unwrap();
    let deletion = first(&|call| call.verb == "delete" && call.resource == "sandboxes");
    assert!(first(&is_commit) < deletion, "{writes:?}");
    harness.full("p", 1).await;
    assert_eq!(record(&harness.model), (vec![], vec![]));
    harness.assert_at_rest().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_condemned_by_a_replica_that_died_is_given_to_nobody_and_goes() {
    let mut harness = Harness::start();
    harness.pool("p", 3).await;
    harness.model.disturb(|call| {
        let deletes = call.verb == "delete" && call.resource == "sandboxes";
        deletes.then(refuse)
    });
    harness
        .model
        .patch("sandboxwarmpools", "p", json!({"spec": {"replicas": 2}}));
    harness
        .eventually("one is condemned", |model| record(model).1.len() == 1)
        .await;
    let condemned = record(&harness.model).1.remove(0);
    harness.stop().await;
    // Wanted again, but it is too late for that one.
    harness
        .model
        .patch("sandboxwarmpools", "p", json!({"spec": {"replicas": 3}}));
    harness.run(Config::default());
    harness.claim_many("c", 3);
    harness.until_claims_ready().await;
    for name in ["c0", "c1", "c2"] {
        assert_ne!(harness.sandbox_of(name), condemned);
    }
    harness.model.calm();
    harness
        .eventually("it is gone", |model| {
            model.get("sandboxes", &condemned).is_none()
        })
        .await;
    harness.full("p", 3).await;
    assert_nothing_is_shared(&harness);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_whose_pools_have_no_record_is_told_so_and_nothing_is_given_away() {
    let harness = Harness::start();
    harness.pool("p", 2).await;
    harness
        .model
        .disturb(|call| is_commit(call).then_some(Mischief::Prune("allocations")));
    harness.model.create("sandboxclaims", claim("c", "p"));
    harness
        .eventually("the claim says so", |model| {
            let claim = model.get("sandboxclaims", "c").unwrap();
            let message = condition(&claim, "Ready").map(|it| it["message"].to_string());
            message.is_some_and(|it| it.contains("has no status.allocations"))
        })
        .await;
    assert!(!ready(&harness.model, "sandboxclaims", "c"));
    harness.model.calm();
    harness.until_ready("sandboxclaims", "c").await;
}

#[tokio::test(start_paused = true)]
async fn what_was_given_away_survives_the_end_of_its_pool() {
    let harness = Harness::start();
    harness.pool("p", 2).await;
    let name = serve_without_handover(&harness).await;
    // Garbage collection takes its time.
    harness.model.set_collects(false);
    harness.model.remove("sandboxwarmpools", "p");
    harness.model.calm();
    harness
        .eventually("it is handed over", |model| {
            owner(model, &name).as_deref() == Some("SandboxClaim")
        })
        .await;
    assert!(ready(&harness.model, "sandboxclaims", "c"));
}
