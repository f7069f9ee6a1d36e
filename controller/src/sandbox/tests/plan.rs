//! Decisions.

use std::sync::Arc;

use agent_sandbox_crds::{annotations, labels};
use serde_json::{Value, json};

use super::{SANDBOX, observed, own_pod, running, sandbox, with_status};
use crate::error::Fault;
use crate::fixtures::{at, condition, owner, row, uid};
use crate::objects::{PodRow, SandboxRow, ServiceRow, VolumeClaimRow};
use crate::sandbox::desired;
use crate::sandbox::plan::{
    Converge, Holder, Observed, Plan, PodStep, Rejected, ServiceStep, VolumeStep, plan, tracked_pod,
};
use crate::sandbox::policy::Policy;

const NOW: &str = "2026-01-01T12:00:00Z";

fn converge(observed: &Observed) -> Converge {
    match plan(observed, at(NOW)) {
        Plan::Converge(steps) => steps,
        other => panic!("not a normal pass: {other:?}"),
    }
}

fn some_pod(metadata: Value) -> Arc<PodRow> {
    let mut object = json!({"metadata": {"name": "s", "uid": uid(9)}});
    for (key, value) in metadata.as_object().unwrap() {
        object["metadata"][key] = value.clone();
    }
    row(object)
}

#[test]
fn a_deleting_sandbox_is_left_to_garbage_collection() {
    let row = row(
        json!({"metadata": {"deletionTimestamp": NOW}, "spec": {"shutdownTime": "2020-01-01T00:00:00Z"}}),
    );
    assert_eq!(plan(&observed(row, vec![]), at(NOW)), Plan::Leave);
}

#[test]
fn expiry_is_exact_and_takes_two_passes() {
    let expired = |time: &str, status: Value| {
        let row = with_status(json!({"shutdownTime": time}), status);
        plan(&observed(row, vec![own_pod(json!({}), running())]), at(NOW))
    };
    assert!(matches!(
        expired("2026-01-01T12:00:01Z", json!({})),
        Plan::Converge(_)
    ));
    assert_eq!(expired(NOW, json!({})), Plan::MarkExpired);
    let marked = json!({"conditions": [condition("Ready", "False", "SandboxExpired")]});
    let Plan::TearDown(steps) = expired(NOW, marked) else {
        panic!("not torn down");
    };
    assert_eq!(steps.pods.len(), 1);
    assert!(!steps.sandbox, "retained by default");
}

#[test]
fn a_sandbox_that_stays_is_not_taken_down_before_a_pod_that_nobody_sees_was_looked_for() {
    let marked = |more: Value| {
        let mut status =
            json!({"conditions": [condition("Ready", "False", "SandboxExpired")], "replicas": 0});
        for (name, value) in more.as_object().unwrap() {
            status[name] = value.clone();
        }
        with_status(json!({"shutdownTime": NOW}), status)
    };
    let mut seen = observed(marked(json!({"selector": "a=b"})), vec![]);
    seen.pod_name = Holder::Unseen;
    let name = tracked_pod(&seen.sandbox);
    assert_eq!(plan(&seen, at(NOW)), Plan::LookUp(name));
    let hidden = own_pod(json!({}), running());
    seen.pod_name = Holder::Held(hidden.clone());
    let Plan::TearDown(steps) = plan(&seen, at(NOW)) else {
        panic!("not torn down");
    };
    assert_eq!(steps.pods, [(hidden.head.key.clone(), hidden.head.uid)]);
    seen.pod_name = Holder::Nobody;
    assert!(matches!(plan(&seen, at(NOW)), Plan::TearDown(_)));
    // Once it is taken down nothing is asked any more.
    seen.sandbox = marked(json!({}));
    seen.pod_name = Holder::Unseen;
    assert!(matches!(plan(&seen, at(NOW)), Plan::TearDown(_)));
}

#[test]
fn tear_down_spares_what_is_not_owned_or_already_going() {
    let marked = json!({"conditions": [condition("Ready", "False", "SandboxExpired")]});
    let row = with_status(
        json!({"shutdownTime": NOW, "shutdownPolicy": "Delete"}),
        marked,
    );
    let mut seen = observed(
        row,
        vec![own_pod(json!({"deletionTimestamp": NOW}), running())],
    );
    seen.service = Holder::Held(crate::fixtures::row(
        json!({"metadata": {"name": "s"}, "spec": {}}),
    ));
    let Plan::TearDown(steps) = plan(&seen, at(NOW)) else {
        panic!("not torn down");
    };
    assert!(steps.pods.is_empty() && steps.service.is_none() && steps.sandbox);
}

#[test]
fn a_running_sandbox_makes_exactly_one_pod() {
    let seen = observed(
        sandbox(json!({"podTemplate": {"spec": {"containers": []}}})),
        vec![],
    );
    assert!(matches!(converge(&seen).pod, PodStep::Create(_)));
    let waiting = observed(
        sandbox(json!({})),
        vec![own_pod(json!({"deletionTimestamp": NOW}), running())],
    );
    assert_eq!(converge(&waiting).pod, PodStep::None);
    let twins = vec![
        own_pod(json!({}), running()),
        own_pod(json!({"name": "t", "uid": uid(3)}), running()),
    ];
    let mut seen = observed(sandbox(json!({"service": true})), twins);
    assert_eq!(converge(&seen).pod, PodStep::Multiple(2));
    assert_eq!(
        converge(&seen).service,
        ServiceStep::None,
        "nothing else is touched"
    );
    seen.pods.truncate(1);
    assert!(matches!(converge(&seen).service, ServiceStep::Create(_)));
}

#[test]
fn the_pod_waits_for_its_policy_but_an_existing_one_does_not_mind() {
    let mut seen = observed(sandbox(json!({})), vec![]);
    seen.policy = Policy::Missing {
        name: "t-network-policy".to_owned(),
        template: "t".into(),
    };
    assert_eq!(converge(&seen).pod, PodStep::AwaitPolicy);
    seen.policy = Policy::Lost {
        name: "t-network-policy".to_owned(),
        template: "t".into(),
        stands_in: true,
    };
    assert_eq!(converge(&seen).pod, PodStep::AwaitPolicy);
    seen.policy = Policy::InPlace {
        name: "t-network-policy".to_owned(),
    };
    let PodStep::Create(pod) = converge(&seen).pod else {
        panic!("it is in place");
    };
    let record = &pod["metadata"]["annotations"][crate::names::REQUIRED_POLICY];
    assert_eq!(record, "t-network-policy", "and the pod says so");
    seen.pods = vec![own_pod(json!({}), running())];
    assert!(matches!(converge(&seen).pod, PodStep::Patch { .. }));
}

#[test]
fn what_was_refused_for_good_is_not_tried_again() {
    let refusal = Fault::Invalid("no".to_owned());
    let row = sandbox(
        json!({"service": true, "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {}}]}),
    );
    let mut seen = observed(row, vec![]);
    seen.rejected = Rejected {
        pod: Some(refusal.clone()),
        service: Some(refusal.clone()),
        volumes: Some(refusal.clone()),
    };
    let steps = converge(&seen);
    assert_eq!(steps.pod, PodStep::Fail(refusal.clone()));
    assert_eq!(steps.service, ServiceStep::Fail(refusal.clone()));
    assert_eq!(steps.volumes, [VolumeStep::Fail(refusal)]);
}

#[test]
fn a_held_name_is_judged_by_owner_and_label() {
    let job = owner("Job", "j", &uid(77));
    let hash = desired::name_hash(&sandbox(json!({})));
    let adopts = |step: &PodStep| matches!(step, PodStep::Patch { adopts: true, .. });
    let judged = |metadata: Value| {
        let mut seen = observed(sandbox(json!({})), vec![]);
        seen.pod_name = Holder::Held(some_pod(metadata));
        converge(&seen).pod
    };
    assert!(adopts(&judged(
        json!({"labels": {labels::ADOPTABLE: "true"}})
    )));
    assert!(adopts(&judged(
        json!({"labels": {labels::SANDBOX_NAME_HASH: hash}})
    )));
    for (metadata, said) in [
        (json!({}), labels::ADOPTABLE),
        (
            json!({"labels": {labels::ADOPTABLE: "somebody-else"}}),
            labels::ADOPTABLE,
        ),
        (
            json!({"ownerReferences": job, "labels": {labels::ADOPTABLE: "true"}}),
            "owned by Job/j",
        ),
        (
            json!({"labels": {labels::ADOPTABLE: "true"}, "deletionTimestamp": NOW}),
            "being deleted",
        ),
    ] {
        match judged(metadata.clone()) {
            PodStep::Fail(Fault::Refused(text)) => assert!(text.contains(said), "{text}"),
            other => panic!("{metadata}: {other:?}"),
        }
    }
}

#[test]
fn suspension_deletes_only_what_is_owned() {
    let suspended = |status: Value| with_status(json!({"operatingMode": "Suspended"}), status);
    let with_pod = observed(suspended(json!({})), vec![own_pod(json!({}), running())]);
    assert!(matches!(converge(&with_pod).pod, PodStep::Delete(_, _)));
    let going = observed(
        suspended(json!({})),
        vec![own_pod(json!({"deletionTimestamp": NOW}), running())],
    );
    assert_eq!(converge(&going).pod, PodStep::None);
    let mut none = observed(suspended(json!({})), vec![]);
    assert!(matches!(converge(&none).pod, PodStep::LookUp(_)));
    none.pod_name = Holder::Held(some_pod(json!({})));
    assert_eq!(converge(&none).pod, PodStep::Blocked);
    none.pod_name = Holder::Held(own_pod(json!({}), running()));
    assert!(
        matches!(converge(&none).pod, PodStep::Patch { adopts: true, .. }),
        "its own, but not watched: the label first"
    );
    none.pod_name = Holder::Nobody;
    assert_eq!(converge(&none).pod, PodStep::None);
    // Once confirmed at this generation, the API server is not asked again.
    let mut done = condition("Suspended", "True", "PodTerminated");
    done["observedGeneration"] = json!(3);
    let confirmed = observed(suspended(json!({"conditions": [done]})), vec![]);
    assert_eq!(converge(&confirmed).pod, PodStep::None);
}

#[test]
fn the_recorded_pod_name_of_older_controllers_is_honoured_and_then_forgotten() {
    let tracked = |spec: Value| -> Arc<SandboxRow> {
        row(json!({
            "metadata": {"name": "s", "uid": uid(SANDBOX), "annotations": {annotations::POD_NAME: "warm-1"}},
            "spec": spec,
        }))
    };
    let mut seen = observed(tracked(json!({})), vec![]);
    assert_eq!(
        converge(&seen).pod,
        PodStep::LookUp(seen.sandbox.head.key.sibling("warm-1"))
    );
    seen.pod_name = Holder::Nobody;
    let steps = converge(&seen);
    assert!(steps.forget_pod_name && matches!(steps.pod, PodStep::Create(_)));
    seen.pod_name = Holder::Held(some_pod(
        json!({"name": "warm-1", "ownerReferences": owner("Job", "j", "x")}),
    ));
    assert!(converge(&seen).forget_pod_name);
    // An owned pod wins over the record, whichever name it has.
    seen.pod_name = Holder::Unseen;
    seen.pods = vec![own_pod(json!({}), running())];
    assert!(converge(&seen).forget_pod_name);
    seen.pods = vec![own_pod(json!({"name": "warm-1"}), running())];
    assert!(!converge(&seen).forget_pod_name);
    let suspended = observed(tracked(json!({"operatingMode": "Suspended"})), vec![]);
    assert_eq!(
        converge(&suspended).pod,
        PodStep::LookUp(suspended.sandbox.head.key.sibling("warm-1"))
    );
}

#[test]
fn volumes_are_made_adopted_or_refused() {
    let row = sandbox(json!({"volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {}}]}));
    let step = |metadata: Option<Value>| {
        let mut seen = observed(row.clone(), vec![own_pod(json!({}), running())]);
        let holder = metadata.map_or(Holder::Unseen, |mut metadata| {
            metadata["name"] = json!("d-s");
            let claim: Arc<VolumeClaimRow> = crate::fixtures::row(json!({"metadata": metadata}));
            Holder::Held(claim)
        });
        seen.volume_claims = vec![("d-s".to_owned(), holder)];
        converge(&seen).volumes
    };
    assert!(matches!(step(None)[..], [VolumeStep::Create(..)]));
    assert!(
        step(Some(
            json!({"ownerReferences": owner("Sandbox", "s", &uid(SANDBOX))})
        ))
        .is_empty()
    );
    assert!(matches!(
        step(Some(json!({"labels": {labels::ADOPTABLE: "true"}})))[..],
        [VolumeStep::Adopt(..)]
    ));
    assert!(matches!(
        step(Some(json!({})))[..],
        [VolumeStep::Fail(Fault::Refused(_))]
    ));
    let predecessor = owner("Sandbox", "s", &uid(50));
    assert!(matches!(
        step(Some(json!({"ownerReferences": predecessor})))[..],
        [VolumeStep::Fail(Fault::Refused(_))]
    ));
    let namesake = owner("Sandbox", "other", &uid(50));
    assert!(matches!(
        step(Some(json!({"ownerReferences": namesake})))[..],
        [VolumeStep::Fail(Fault::Invalid(_))]
    ));
}

#[test]
fn no_pod_mounts_a_volume_of_somebody_else() {
    let row = sandbox(json!({"volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {}}]}));
    let step = |metadata: Value| {
        let mut seen = observed(row.clone(), vec![]);
        let claim: Arc<VolumeClaimRow> = crate::fixtures::row(json!({"metadata": metadata}));
        seen.volume_claims = vec![("d-s".to_owned(), Holder::Held(claim))];
        converge(&seen).pod
    };
    let own = owner("Sandbox", "s", &uid(SANDBOX));
    assert!(matches!(
        step(json!({"name": "d-s", "ownerReferences": own})),
        PodStep::Create(_)
    ));
    assert_eq!(step(json!({"name": "d-s"})), PodStep::AwaitVolumes);
}

#[test]
fn the_service_switch_has_three_positions() {
    let hash = desired::name_hash(&sandbox(json!({})));
    let none = || Holder::Unseen;
    let found = |metadata: Value, ip: &str| {
        let service: Arc<ServiceRow> =
            row(json!({"metadata": metadata, "spec": {"clusterIP": ip}}));
        Holder::Held(service)
    };
    let ours = || {
        found(
            json!({"ownerReferences": owner("Sandbox", "s", &uid(SANDBOX)), "labels": {labels::SANDBOX_NAME_HASH: hash}}),
            "None",
        )
    };
    let unowned = || found(json!({"labels": {labels::ADOPTABLE: "true"}}), "None");
    let plain = || found(json!({}), "None");
    let with_ip = || found(json!({"labels": {labels::ADOPTABLE: "true"}}), "10.0.0.9");
    let foreign = || {
        found(
            json!({"ownerReferences": owner("Job", "j", &uid(70))}),
            "None",
        )
    };
    let name = |step: ServiceStep| match step {
        ServiceStep::None => "none",
        ServiceStep::Create(_) => "create",
        ServiceStep::Patch(..) => "patch",
        ServiceStep::Delete(..) => "delete",
        ServiceStep::Fail(_) => "fail",
    };
    let table = [
        (json!(true), none(), "create"),
        (json!(true), ours(), "patch"),
        (json!(true), unowned(), "patch"),
        (json!(true), plain(), "fail"),
        (json!(true), with_ip(), "fail"),
        (json!(true), foreign(), "fail"),
        (json!(null), none(), "none"),
        (json!(null), ours(), "patch"),
        (json!(null), unowned(), "none"),
        (json!(null), foreign(), "fail"),
        (json!(false), none(), "none"),
        (json!(false), ours(), "delete"),
        (json!(false), unowned(), "none"),
        (json!(false), foreign(), "none"),
    ];
    for (index, (switch, holder, expected)) in table.into_iter().enumerate() {
        let mut seen = observed(
            sandbox(json!({"service": switch})),
            vec![own_pod(json!({}), running())],
        );
        seen.service = holder;
        assert_eq!(name(converge(&seen).service), expected, "row {index}");
    }
}

#[test]
fn volumes_that_are_to_outlive_the_sandbox_have_no_owner() {
    let retaining: Arc<SandboxRow> = row(json!({
        "metadata": {"name": "s", "uid": uid(SANDBOX), "annotations": {annotations::RETAIN_VOLUMES: "true"}},
        "spec": {"volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": {}}]},
    }));
    let steps = |metadata: Option<Value>| {
        let mut seen = observed(retaining.clone(), vec![own_pod(json!({}), running())]);
        let holder = metadata.map_or(Holder::Unseen, |mut metadata| {
            metadata["name"] = json!("d-s");
            let claim: Arc<VolumeClaimRow> = row(json!({"metadata": metadata}));
            Holder::Held(claim)
        });
        seen.volume_claims = vec![("d-s".to_owned(), holder)];
        converge(&seen).volumes
    };
    let [VolumeStep::Create(_, made)] = &steps(None)[..] else {
        panic!("not made");
    };
    assert!(made["metadata"]["ownerReferences"].is_null());
    let hash = desired::name_hash(&retaining);
    assert_eq!(made["metadata"]["labels"][labels::SANDBOX_NAME_HASH], hash);
    // What an earlier sandbox of the name left is used, and stays nobody's.
    let left = json!({"labels": {labels::SANDBOX_NAME_HASH: hash}});
    assert!(steps(Some(left)).is_empty());
    assert!(matches!(
        steps(Some(json!({})))[..],
        [VolumeStep::Fail(Fault::Refused(_))]
    ));
    let own = owner("Sandbox", "s", &uid(SANDBOX));
    let [VolumeStep::Release(_, patch)] = &steps(Some(json!({"ownerReferences": own})))[..] else {
        panic!("not released");
    };
    assert!(patch["metadata"].as_object().unwrap()["ownerReferences"].is_null());
    assert_eq!(patch["metadata"]["resourceVersion"], "10");
    let mut shared = own;
    let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": uid(60)});
    shared.as_array_mut().unwrap().push(other);
    assert!(matches!(
        steps(Some(json!({"ownerReferences": shared})))[..],
        [VolumeStep::Fail(Fault::Refused(_))]
    ));
}

#[test]
fn a_pod_under_another_name_is_deleted_by_its_owner() {
    let recorded = |spec: Value, status: Value| -> Arc<SandboxRow> {
        row(json!({
            "metadata": {"name": "s", "uid": uid(SANDBOX), "annotations": {annotations::POD_NAME: "warm-1"}},
            "spec": spec, "status": status,
        }))
    };
    let warm = || own_pod(json!({"name": "warm-1", "uid": uid(3)}), running());
    let suspended = json!({"operatingMode": "Suspended"});
    let steps = converge(&observed(
        recorded(suspended.clone(), json!({})),
        vec![warm()],
    ));
    let PodStep::Delete(key, _) = steps.pod else {
        panic!("not deleted");
    };
    assert_eq!(&*key.name, "warm-1");
    assert!(!steps.forget_pod_name, "it still names the pod");
    // Gone, or somebody else's: the record is of no more use.
    let job = some_pod(json!({"name": "warm-1", "ownerReferences": owner("Job", "j", "x")}));
    for holder in [
        Holder::Nobody,
        Holder::Held(job),
        Holder::Held(some_pod(json!({}))),
    ] {
        let mut seen = observed(recorded(suspended.clone(), json!({})), vec![]);
        seen.pod_name = holder;
        let steps = converge(&seen);
        assert!(steps.forget_pod_name);
        assert!(!matches!(steps.pod, PodStep::Delete(..)));
    }
    let marked = json!({"conditions": [condition("Ready", "False", "SandboxExpired")]});
    let expired = observed(recorded(json!({"shutdownTime": NOW}), marked), vec![warm()]);
    let Plan::TearDown(steps) = plan(&expired, at(NOW)) else {
        panic!("not torn down");
    };
    assert_eq!(&*steps.pods[0].0.name, "warm-1");
}

#[test]
fn an_empty_record_of_a_pod_name_is_none() {
    let row: Arc<SandboxRow> = row(json!({
        "metadata": {"name": "s", "uid": uid(SANDBOX), "annotations": {annotations::POD_NAME: ""}},
        "spec": {},
    }));
    let seen = observed(row, vec![]);
    assert_eq!(tracked_pod(&seen.sandbox), seen.sandbox.head.key);
    assert!(matches!(converge(&seen).pod, PodStep::Create(_)));
}

#[test]
fn a_pod_that_is_not_to_be_made_again_is_looked_for() {
    let tells = |status: Value| {
        let mut seen = observed(with_status(json!({}), status), vec![]);
        seen.policy = Policy::Missing {
            name: "t-network-policy".to_owned(),
            template: "t".into(),
        };
        seen
    };
    for status in [
        json!({"replicas": 1}),
        json!({"podIPs": ["10.0.0.1"]}),
        json!({"nodeName": "n1"}),
    ] {
        let mut seen = tells(status);
        assert_eq!(
            converge(&seen).pod,
            PodStep::LookUp(tracked_pod(&seen.sandbox))
        );
        seen.pod_name = Holder::Nobody;
        assert_eq!(converge(&seen).pod, PodStep::AwaitPolicy);
        seen.pod_name = Holder::Held(own_pod(json!({}), running()));
        assert!(matches!(converge(&seen).pod, PodStep::Patch { .. }));
        seen.pod_name = Holder::Unseen;
        seen.policy = Policy::NotNeeded;
        assert!(matches!(converge(&seen).pod, PodStep::Create(_)));
    }
    for status in [json!({}), json!({"replicas": 0, "selector": "a=b"})] {
        assert_eq!(converge(&tells(status)).pod, PodStep::AwaitPolicy);
    }
}
