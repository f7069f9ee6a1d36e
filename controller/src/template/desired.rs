//! The network policy of a template. Pure.

use std::net::IpAddr;

use agent_sandbox_crds::{annotations, hash, labels, names};
use serde_json::{Map, Value, json};

use crate::config::PolicySettings;
use crate::ident::Key;
use crate::names as own;
use crate::objects::{PolicyRow, TemplateRow};

/// Ranges a sandbox must not reach under the default policy: private and link-local networks.
const BLOCKED_V4: [&str; 4] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
];
/// More of the same: shared address space (pods and nodes of some providers, and a metadata service
/// at 100.100.100.200), protocol assignments, benchmarking.
const BLOCKED_V4_MORE: [&str; 3] = ["100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15"];
/// Unique-local and link-local networks.
const BLOCKED_V6: [&str; 2] = ["fc00::/7", "fe80::/10"];
/// Ranges that embed IPv4 addresses and so lead back to the private ones: NAT64, 6to4.
const BLOCKED_V6_MORE: [&str; 3] = ["64:ff9b::/96", "64:ff9b:1::/48", "2002::/16"];

/// The policy object for a template.
pub fn policy(template: &TemplateRow, settings: &PolicySettings) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": names::network_policy(&template.head.key.name),
            "namespace": &*template.head.key.namespace,
            "labels": {labels::SANDBOX_TEMPLATE_REF_HASH: &*template.ref_hash},
            "annotations": policy_annotations(template),
        },
        "spec": policy_spec(template, settings),
    })
}

/// A policy as it was before somebody deleted it.
pub fn policy_again(fallen: &PolicyRow) -> Value {
    let mut record = Map::new();
    if let Some((template, uid)) = &fallen.template {
        record.insert(own::POLICY_TEMPLATE.to_owned(), json!(&**template));
        record.insert(own::POLICY_TEMPLATE_UID.to_owned(), json!(uid.to_string()));
        record.insert(
            annotations::SANDBOX_TEMPLATE_REF.to_owned(),
            json!(&**template),
        );
    }
    if let Some(until) = fallen.kept_for {
        record.insert(own::POLICY_KEPT_FOR.to_owned(), json!(until.to_string()));
    }
    if fallen.stands_in {
        record.insert(own::POLICY_STANDS_IN.to_owned(), json!("true"));
    }
    let mut labels = Map::new();
    if let Some(hash) = fallen.ref_hash() {
        labels.insert(labels::SANDBOX_TEMPLATE_REF_HASH.to_owned(), json!(&**hash));
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": &*fallen.head.key.name,
            "namespace": &*fallen.head.key.namespace,
            "labels": labels,
            "annotations": record,
        },
        "spec": serde_json::from_str::<Value>(&fallen.spec).unwrap_or_default(),
    })
}

/// A policy for the pods of a template that is gone together with the rules they were started under. It
/// is named like the one it stands in for, so that a template of the name takes it over; the template it
/// belongs to has no UID any more.
pub fn stand_in(template: &Key, settings: &PolicySettings) -> Value {
    let ref_hash = hash::name_hash(&template.name);
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": names::network_policy(&template.name),
            "namespace": &*template.namespace,
            "labels": {labels::SANDBOX_TEMPLATE_REF_HASH: ref_hash},
            "annotations": {
                own::POLICY_TEMPLATE: &*template.name,
                own::POLICY_TEMPLATE_UID: "00000000-0000-0000-0000-000000000000",
                annotations::SANDBOX_TEMPLATE_REF: &*template.name,
                own::POLICY_STANDS_IN: "true",
            },
        },
        "spec": shut_in(&ref_hash, settings),
    })
}

/// The rules of a policy that stands in: in comes the router, without which a sandbox cannot be used at all,
/// and nothing else; nothing goes out.
pub fn shut_in(ref_hash: &str, settings: &PolicySettings) -> Value {
    json!({
        "podSelector": {"matchLabels": {labels::SANDBOX_TEMPLATE_REF_HASH: ref_hash}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": default_ingress(settings),
        "egress": [],
    })
}

/// The annotations that tie a policy to its template.
pub fn policy_annotations(template: &TemplateRow) -> Value {
    json!({
        own::POLICY_TEMPLATE: &*template.head.key.name,
        own::POLICY_TEMPLATE_UID: template.head.uid.to_string(),
        annotations::SANDBOX_TEMPLATE_REF: &*template.head.key.name,
    })
}

/// The policy's spec: the template's own rules, or the default ones.
pub fn policy_spec(template: &TemplateRow, settings: &PolicySettings) -> Value {
    let (ingress, egress) = match &template.spec.network_policy {
        Some(rules) => (
            json!(rules.ingress.as_deref().unwrap_or_default()),
            json!(rules.egress.as_deref().unwrap_or_default()),
        ),
        None => (default_ingress(settings), default_egress(settings)),
    };
    json!({
        "podSelector": {"matchLabels": {
            labels::SANDBOX_TEMPLATE_REF_HASH: &*template.ref_hash,
        }},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": egress,
    })
}

/// From the router and nobody else.
fn default_ingress(settings: &PolicySettings) -> Value {
    json!([{"from": [{
        "namespaceSelector": {"matchLabels": {
            "kubernetes.io/metadata.name": settings.router_namespace,
        }},
        "podSelector": {"matchLabels": {"app": settings.router_app}},
    }]}])
}

/// To the public internet, and to the configured resolvers where those are not public.
fn default_egress(settings: &PolicySettings) -> Value {
    let blocked = |base: &[&str], more: &[&str], v6: bool| {
        let mut ranges: Vec<String> = base.iter().map(ToString::to_string).collect();
        if !settings.legacy_ranges {
            ranges.extend(more.iter().map(ToString::to_string));
        }
        let configured = settings
            .blocked
            .iter()
            .filter(|range| range.contains(':') == v6);
        ranges.extend(configured.cloned());
        ranges
    };
    let v4 = blocked(&BLOCKED_V4, &BLOCKED_V4_MORE, false);
    let v6 = blocked(&BLOCKED_V6, &BLOCKED_V6_MORE, true);
    let is_blocked = |address: &&IpAddr| {
        let ranges = if address.is_ipv4() { &v4 } else { &v6 };
        ranges.iter().any(|range| contains(range, **address))
    };
    let mut anywhere = vec![json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": v4}})];
    if !settings.ipv4_only {
        anywhere.push(json!({"ipBlock": {"cidr": "::/0", "except": v6}}));
    }
    let mut rules = vec![json!({ "to": anywhere })];
    let inside: Vec<Value> = settings
        .resolvers
        .iter()
        .filter(is_blocked)
        .filter(|address| address.is_ipv4() || !settings.ipv4_only)
        .map(|address| {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            json!({"ipBlock": {"cidr": format!("{address}/{bits}")}})
        })
        .collect();
    if !inside.is_empty() {
        rules.push(json!({
            "to": inside,
            "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
        }));
    }
    Value::Array(rules)
}

/// Whether a range in CIDR notation contains an address. One that cannot be read contains nothing.
fn contains(range: &str, address: IpAddr) -> bool {
    let Some((network, length)) = range.split_once('/') else {
        return false;
    };
    let (Ok(network), Ok(length)) = (network.parse::<IpAddr>(), length.parse::<u32>()) else {
        return false;
    };
    let same = |differing: u128, bits: u32| {
        length <= bits && differing.checked_shr(bits - length).unwrap_or(0) == 0
    };
    match (network, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u128::from(a.to_bits() ^ b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits() ^ b.to_bits(), 128),
        _ => false,
    }
}
