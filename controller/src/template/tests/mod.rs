//! The pure parts of the template controller.

mod status;

use std::sync::Arc;

use agent_sandbox_crds::labels;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::desired;
use super::plan::{Asked, LINGER, Observed, Plan, PolicyStep, plan, protects};
use crate::config::PolicySettings;
use crate::fixtures::{at, owner, row, uid};
use crate::names;
use crate::objects::{PolicyRow, TemplateRow};
use crate::store::Rival;

fn template(spec: Value) -> Arc<TemplateRow> {
    let mut object = json!({
        "metadata": {"name": "t", "uid": uid(30), "labels": {
            labels::SANDBOX_TEMPLATE_REF_HASH: agent_sandbox_crds::hash::name_hash("t"),
        }},
        "spec": {"podTemplate": {"spec": {}}},
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    row(object)
}

fn policy_of(template: &TemplateRow, settings: &PolicySettings) -> Value {
    let mut policy = desired::policy(template, settings);
    policy["metadata"]["uid"] = json!(uid(31));
    policy
}

/// Noon, as the moment of every decision.
const NOW: &str = "2026-01-01T12:00:00Z";

fn observed(template: Option<Arc<TemplateRow>>, policy: Option<Value>, used: bool) -> Observed {
    Observed {
        key: crate::ident::Key::new("n", "t"),
        template,
        policy_name: "t-network-policy".to_owned(),
        policy: policy.map(row::<PolicyRow>),
        asked: Asked {
            name: false,
            pods: true,
        },
        fallen: None,
        used,
        idle: LINGER,
        pods: used.then(|| (at("2026-01-01T11:00:00Z"), at("2026-01-01T11:30:00Z"))),
        promised: false,
        rival: None,
    }
}

fn decide_on(observed: &Observed) -> Plan {
    plan(observed, &PolicySettings::default(), at(NOW))
}

fn decide(template: Option<Arc<TemplateRow>>, policy: Option<Value>, used: bool) -> Plan {
    decide_on(&observed(template, policy, used))
}

fn unmanaged() -> Arc<TemplateRow> {
    template(json!({"networkPolicyManagement": "Unmanaged"}))
}

#[test]
fn the_default_policy_lets_the_router_in_and_the_internet_out() {
    let spec = desired::policy_spec(
        &template(json!({})),
        &PolicySettings {
            legacy_ranges: true,
            ..PolicySettings::default()
        },
    );
    assert_eq!(
        spec,
        json!({
            "podSelector": {"matchLabels": {labels::SANDBOX_TEMPLATE_REF_HASH: agent_sandbox_crds::hash::name_hash("t")}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "agent-sandbox-system"}},
                "podSelector": {"matchLabels": {"app": "sandbox-router"}},
            }]}],
            "egress": [{"to": [
                {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"]}},
                {"ipBlock": {"cidr": "::/0", "except": ["fc00::/7", "fe80::/10"]}},
            ]}],
        })
    );
}

#[test]
fn gaps_are_closed_by_default_and_more_can_be_blocked() {
    let settings = PolicySettings {
        blocked: vec!["203.0.113.7/32".to_owned(), "2001:db8::/32".to_owned()],
        resolvers: vec!["10.96.0.10".parse().unwrap(), "1.1.1.1".parse().unwrap()],
        ..PolicySettings::default()
    };
    let egress = desired::policy_spec(&template(json!({})), &settings)["egress"].clone();
    let except = |peer: usize| egress[0]["to"][peer]["ipBlock"]["except"].to_string();
    for range in ["100.64.0.0/10", "203.0.113.7/32"] {
        assert!(except(0).contains(range), "{range}");
    }
    for range in ["64:ff9b::/96", "2001:db8::/32"] {
        assert!(except(1).contains(range), "{range}");
    }
    assert_eq!(
        egress[1],
        json!({
            "to": [{"ipBlock": {"cidr": "10.96.0.10/32"}}],
            "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
        }),
        "a resolver inside is reachable for names and nothing else"
    );
}

#[test]
fn without_ipv6_the_rules_name_no_such_range() {
    let settings = PolicySettings {
        ipv4_only: true,
        blocked: vec!["203.0.113.7/32".to_owned(), "2001:db8::/32".to_owned()],
        resolvers: vec!["10.96.0.10".parse().unwrap(), "fd00::53".parse().unwrap()],
        ..PolicySettings::default()
    };
    let spec = desired::policy_spec(&template(json!({})), &settings);
    assert!(!spec["egress"].to_string().contains("::"), "{spec}");
    assert_eq!(spec["egress"][0]["to"].as_array().map(Vec::len), Some(1));
    assert!(
        spec["egress"][1].to_string().contains("10.96.0.10/32"),
        "{spec}"
    );
    assert_eq!(
        spec["policyTypes"],
        json!(["Ingress", "Egress"]),
        "so nothing goes over IPv6"
    );
}

#[test]
fn a_resolver_in_any_blocked_range_stays_reachable() {
    let named = |settings: &PolicySettings| {
        let egress = desired::policy_spec(&template(json!({})), settings)["egress"].clone();
        let peers = egress[1]["to"].as_array().cloned().unwrap_or_default();
        let ranges: Vec<String> = peers
            .iter()
            .map(|peer| peer["ipBlock"]["cidr"].as_str().unwrap().to_owned())
            .collect();
        ranges
    };
    let settings = PolicySettings {
        blocked: vec!["203.0.113.0/25".to_owned(), "2001:db8::/32".to_owned()],
        resolvers: [
            "203.0.113.127",
            "203.0.113.128",
            "2001:db8:ffff::1",
            "2001:db9::1",
            "198.18.0.53",
            "100.64.0.10",
            "fd00::53",
            "8.8.8.8",
        ]
        .map(|address| address.parse().unwrap())
        .into(),
        ..PolicySettings::default()
    };
    assert_eq!(
        named(&settings),
        [
            "203.0.113.127/32",
            "2001:db8:ffff::1/128",
            "198.18.0.53/32",
            "100.64.0.10/32",
            "fd00::53/128"
        ]
    );
    let legacy = PolicySettings {
        legacy_ranges: true,
        ..settings
    };
    assert_eq!(
        named(&legacy),
        ["203.0.113.127/32", "2001:db8:ffff::1/128", "fd00::53/128"],
        "what is not blocked needs no rule"
    );
}

#[test]
fn an_empty_set_of_rules_denies_everything() {
    let spec = desired::policy_spec(
        &template(json!({"networkPolicy": {}})),
        &PolicySettings::default(),
    );
    assert_eq!(
        (&spec["ingress"], &spec["egress"]),
        (&json!([]), &json!([]))
    );
    assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
}

#[test]
fn a_managed_policy_is_created_kept_and_repaired() {
    let settings = PolicySettings::default();
    let managed = template(json!({}));
    assert!(matches!(
        decide(Some(managed.clone()), None, false).policy,
        PolicyStep::Create(_)
    ));
    let good = policy_of(&managed, &settings);
    assert_eq!(
        decide(Some(managed.clone()), Some(good.clone()), true),
        Plan::default()
    );
    let mut bent = good.clone();
    bent["spec"]["egress"] = json!([{}]);
    let PolicyStep::Patch(_, patch) = decide(Some(managed.clone()), Some(bent), true).policy else {
        panic!("not repaired");
    };
    assert!(patch["spec"]["egress"][0]["to"].is_array());
    assert_eq!(patch["metadata"]["resourceVersion"], "10");
    let mut going = good;
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(
        decide(Some(managed), Some(going), true).policy,
        PolicyStep::None
    );
}

#[test]
fn a_policy_of_an_older_controller_or_an_earlier_template_is_taken_over() {
    let settings = PolicySettings::default();
    let managed = template(json!({}));
    let mut owned = policy_of(&managed, &settings);
    owned["metadata"]["annotations"] = json!({});
    owned["metadata"]["ownerReferences"] = owner("SandboxTemplate", "t", &uid(30));
    let PolicyStep::Patch(_, patch) = decide(Some(managed.clone()), Some(owned), true).policy
    else {
        panic!("not taken over");
    };
    assert!(patch["metadata"].as_object().unwrap()["ownerReferences"].is_null());
    assert!(patch["metadata"]["annotations"].is_object());
    let mut earlier = policy_of(&managed, &settings);
    earlier["metadata"]["annotations"][names::POLICY_TEMPLATE_UID] = json!(uid(99));
    assert!(matches!(
        decide(Some(managed), Some(earlier), true).policy,
        PolicyStep::Patch(..)
    ));
}

#[test]
fn somebody_elses_policy_is_left_alone() {
    let foreign = json!({"metadata": {"name": "t-network-policy"}, "spec": {"podSelector": {}}});
    let managed = decide(Some(template(json!({}))), Some(foreign.clone()), true);
    assert!(matches!(managed.policy, PolicyStep::Clash));
    assert_eq!(
        decide(Some(unmanaged()), Some(foreign.clone()), true).policy,
        PolicyStep::None
    );
    assert_eq!(decide(None, Some(foreign), false).policy, PolicyStep::None);
}

#[test]
fn the_policy_goes_when_nothing_needs_it() {
    let settings = PolicySettings::default();
    let policy = policy_of(&template(json!({})), &settings);
    assert_eq!(
        decide(None, Some(policy.clone()), true).policy,
        PolicyStep::None
    );
    assert!(matches!(
        decide(None, Some(policy.clone()), false).policy,
        PolicyStep::Delete(..)
    ));
    // That of a template that has become Unmanaged says so before.
    let PolicyStep::Mark(_, patch) = decide(Some(unmanaged()), Some(policy.clone()), false).policy
    else {
        panic!("the moment is not recorded");
    };
    let until = &patch["metadata"]["annotations"][names::POLICY_KEPT_FOR];
    assert_eq!(until, NOW);
    let mut kept = policy;
    kept["metadata"]["annotations"][names::POLICY_KEPT_FOR] = until.clone();
    assert!(matches!(
        decide(Some(unmanaged()), Some(kept), false).policy,
        PolicyStep::Delete(..)
    ));
}

#[test]
fn no_pod_starts_under_a_policy_whose_deletion_may_be_on_its_way() {
    let template = template(json!({}));
    let policy = policy_of(&template, &PolicySettings::default());
    let protects = |change: &dyn Fn(&mut Value)| {
        let mut policy = policy.clone();
        change(&mut policy["metadata"]);
        let seen = observed(Some(template.clone()), Some(policy), false);
        protects(&seen.policy.unwrap(), &template)
    };
    assert!(protects(&|_| ()));
    let annotate = |name: &'static str, value: String| {
        move |metadata: &mut Value| metadata["annotations"][name] = json!(value)
    };
    // Kept for earlier pods; made for an earlier template; a stand-in; going.
    assert!(!protects(&annotate(names::POLICY_KEPT_FOR, NOW.to_owned())));
    assert!(!protects(&annotate(names::POLICY_TEMPLATE_UID, uid(99))));
    assert!(!protects(&annotate(
        names::POLICY_STANDS_IN,
        "true".to_owned()
    )));
    assert!(!protects(
        &|metadata| metadata["deletionTimestamp"] = json!(NOW)
    ));
}

#[test]
fn no_policy_goes_before_pods_that_are_not_watched_were_looked_for() {
    let policy = policy_of(&template(json!({})), &PolicySettings::default());
    let mut kept = policy.clone();
    kept["metadata"]["annotations"][names::POLICY_KEPT_FOR] = json!("2026-01-01T11:30:00Z");
    for (template, policy) in [
        (None, policy),
        (None, kept.clone()),
        (Some(unmanaged()), kept),
    ] {
        let mut seen = observed(template, Some(policy), false);
        seen.asked.pods = false;
        assert_eq!(decide_on(&seen).policy, PolicyStep::Search);
        seen.asked.pods = true;
        assert!(matches!(decide_on(&seen).policy, PolicyStep::Delete(..)));
        // What was found is among the pods.
        seen.used = true;
        seen.pods = Some((at("2026-01-01T11:00:00Z"), at("2026-01-01T11:00:00Z")));
        assert!(!matches!(decide_on(&seen).policy, PolicyStep::Delete(..)));
    }
}

#[test]
fn an_unmanaged_template_keeps_its_policy_for_the_pods_from_before() {
    let policy = policy_of(&template(json!({})), &PolicySettings::default());
    let mut seen = observed(Some(unmanaged()), Some(policy.clone()), true);
    let PolicyStep::Mark(_, patch) = decide_on(&seen).policy else {
        panic!("the moment is not recorded");
    };
    assert_eq!(
        patch["metadata"]["annotations"][names::POLICY_KEPT_FOR],
        NOW
    );
    // The API server's clock may be ahead, and the youngest pod still counts.
    seen.pods = Some((at("2026-01-01T11:00:00Z"), at("2026-01-01T12:00:07Z")));
    let PolicyStep::Mark(_, patch) = decide_on(&seen).policy else {
        panic!("the moment is not recorded");
    };
    assert_eq!(
        patch["metadata"]["annotations"][names::POLICY_KEPT_FOR],
        "2026-01-01T12:00:07Z"
    );
    let mut kept = policy;
    kept["metadata"]["annotations"][names::POLICY_KEPT_FOR] = json!("2026-01-01T11:30:00Z");
    for template in [Some(unmanaged()), None] {
        let mut seen = observed(template, Some(kept.clone()), true);
        for (oldest, stays) in [
            ("2026-01-01T11:00:00Z", true),
            ("2026-01-01T11:30:00Z", true),
            ("2026-01-01T11:30:01Z", false),
        ] {
            seen.pods = Some((at(oldest), at("2026-01-01T11:59:00Z")));
            let step = decide_on(&seen).policy;
            assert_eq!(step == PolicyStep::None, stays, "{oldest}: {step:?}");
            assert_eq!(matches!(step, PolicyStep::Delete(..)), !stays, "{oldest}");
        }
        seen.pods = None;
        assert!(matches!(decide_on(&seen).policy, PolicyStep::Delete(..)));
    }
    let PolicyStep::Patch(_, patch) = decide(Some(template(json!({}))), Some(kept), true).policy
    else {
        panic!("managed again, and still marked as kept");
    };
    let annotations = patch["metadata"]["annotations"].as_object().unwrap();
    assert!(annotations[names::POLICY_KEPT_FOR].is_null());
}

#[test]
fn a_policy_that_fell_with_nothing_left_to_tell_its_rules_is_made_again() {
    let custom = template(json!({"networkPolicy": {"egress": [{"ports": [{"port": 53}]}]}}));
    let policy = policy_of(&custom, &PolicySettings::default());
    let mut seen = observed(None, None, true);
    assert_eq!(decide_on(&seen), Plan::default());
    seen.fallen = Some(row(policy.clone()));
    let PolicyStep::Create(again) = decide_on(&seen).policy else {
        panic!("not made again");
    };
    let (before, after): (Arc<PolicyRow>, Arc<PolicyRow>) = (row(policy), row(*again));
    assert_eq!(before.spec, after.spec);
    assert_eq!(before.template, after.template);
    assert_eq!(before.ref_hash(), after.ref_hash());
    assert!(after.ref_hash().is_some());
    seen.used = false;
    assert_eq!(decide_on(&seen), Plan::default());
}

#[test]
fn a_policy_kept_for_earlier_pods_is_not_made_again_for_later_ones() {
    let mut kept = policy_of(&template(json!({})), &PolicySettings::default());
    kept["metadata"]["annotations"][names::POLICY_KEPT_FOR] = json!("2026-01-01T11:30:00Z");
    let mut seen = observed(None, None, true);
    seen.fallen = Some(row(kept));
    let newest = at("2026-01-01T11:59:00Z");
    seen.pods = Some((at("2026-01-01T11:00:00Z"), newest));
    assert!(matches!(decide_on(&seen).policy, PolicyStep::Create(_)));
    for pods in [Some((at("2026-01-01T11:40:00Z"), newest)), None] {
        seen.pods = pods;
        assert_eq!(decide_on(&seen), Plan::default(), "{pods:?}");
    }
}

#[test]
fn pods_of_which_nothing_tells_the_rules_are_shut_in() {
    let mut seen = observed(None, None, true);
    seen.promised = true;
    let PolicyStep::Create(made) = decide_on(&seen).policy else {
        panic!("left without a policy");
    };
    assert_eq!(made["spec"]["egress"], json!([]));
    assert!(
        made["spec"]["ingress"]
            .to_string()
            .contains("sandbox-router")
    );
    let mut good = *made;
    good["metadata"]["uid"] = json!(uid(31));
    let stand_in: Arc<PolicyRow> = row(good.clone());
    assert!(stand_in.stands_in);
    let again: Arc<PolicyRow> = row(desired::policy_again(&stand_in));
    assert!(again.stands_in, "when that falls too");
    seen.policy = Some(stand_in);
    assert_eq!(decide_on(&seen), Plan::default());
    good["spec"]["egress"] = json!([{}]);
    seen.policy = Some(row(good.clone()));
    let PolicyStep::Patch(_, patch) = decide_on(&seen).policy else {
        panic!("left open");
    };
    assert_eq!(patch["spec"], json!({"egress": null}));
    // A template of the name knows better.
    let taken = decide(Some(template(json!({}))), Some(good), true).policy;
    let PolicyStep::Patch(_, patch) = taken else {
        panic!("not taken over");
    };
    let annotations = patch["metadata"]["annotations"].as_object().unwrap();
    assert_eq!(annotations[names::POLICY_STANDS_IN], Value::Null);
    assert!(patch["spec"]["egress"][0]["to"].is_array());
}

#[test]
fn a_kept_policy_stays_for_whoever_started_under_it_however_late() {
    let mut kept = policy_of(&template(json!({})), &PolicySettings::default());
    kept["metadata"]["annotations"][names::POLICY_KEPT_FOR] = json!("2026-01-01T10:00:00Z");
    let mut seen = observed(Some(unmanaged()), Some(kept), true);
    assert!(matches!(decide_on(&seen).policy, PolicyStep::Delete(..)));
    seen.promised = true;
    assert_eq!(decide_on(&seen).policy, PolicyStep::None);
}

#[test]
fn a_policy_lingers_for_pods_that_are_on_their_way() {
    let policy = policy_of(&template(json!({})), &PolicySettings::default());
    let mut seen = observed(None, Some(policy), false);
    for (idle, rest) in [(0, 30), (29, 1)] {
        seen.idle = SignedDuration::from_secs(idle);
        let rest = std::time::Duration::from_secs(rest);
        assert_eq!(decide_on(&seen).policy, PolicyStep::DeleteLater(rest));
    }
    for idle in [30, 99] {
        seen.idle = SignedDuration::from_secs(idle);
        assert!(matches!(decide_on(&seen).policy, PolicyStep::Delete(..)));
    }
}

#[test]
fn a_template_that_came_second_to_its_hash_gets_no_policy() {
    let mut seen = observed(Some(template(json!({}))), None, true);
    seen.rival = Some(Rival {
        template: "u".into(),
        is_gone: false,
    });
    assert_eq!(decide_on(&seen), Plan::default());
    let mut bent = policy_of(&template(json!({})), &PolicySettings::default());
    bent["spec"]["egress"] = json!([]);
    seen.policy = Some(row(bent));
    assert_eq!(decide_on(&seen), Plan::default(), "what is there stays");
}

#[test]
fn the_template_is_labelled_once() {
    let bare: Arc<TemplateRow> = row(
        json!({"metadata": {"name": "t", "uid": uid(30)}, "spec": {"podTemplate": {"spec": {}}}}),
    );
    let patch = decide(Some(bare), None, false).label.unwrap();
    assert_eq!(
        patch["metadata"]["labels"][labels::SANDBOX_TEMPLATE_REF_HASH],
        agent_sandbox_crds::hash::name_hash("t")
    );
    assert_eq!(decide(Some(template(json!({}))), None, false).label, None);
}
