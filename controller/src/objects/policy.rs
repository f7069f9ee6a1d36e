//! `NetworkPolicy` as kept: who it belongs to and whether its rules are the ones wanted.

use std::sync::Arc;

use agent_sandbox_crds::labels;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::{DecodeError, Head, Labels, Metadata, OwnerKind, Row};
use crate::ident::{Text, Uid};
use crate::intern::Interner;
use crate::names;

/// A network policy.
#[derive(Clone, Debug)]
pub struct PolicyRow {
    /// Identity.
    pub head: Head,
    /// Labels.
    pub labels: Arc<Labels>,
    /// The template named in the annotations, when the operator made this policy.
    pub template: Option<(Text, Uid)>,
    /// Set once the template has become Unmanaged: the policy stays for the pods created until then, if any, and
    /// no other may start under it.
    pub kept_for: Option<Timestamp>,
    /// Whether it stands in for a policy whose rules nobody knows any more.
    pub stands_in: bool,
    /// The spec in normal form, see [`normal_form`].
    pub spec: Text,
}

impl PolicyRow {
    /// Whether the operator made this policy for the template with this UID: recorded in the
    /// annotations, or, for policies of older controllers, as controlling owner.
    pub fn belongs_to(&self, template: Uid) -> bool {
        self.template
            .as_ref()
            .is_some_and(|(_, uid)| uid.is(template))
            || self.head.is_controlled_by(template)
    }

    /// The name of the template the operator made this policy for.
    pub fn template_name(&self) -> Option<&Text> {
        let recorded = self.template.as_ref().map(|(name, _)| name);
        recorded.or_else(|| {
            let owner = self.head.owner.as_ref()?;
            (owner.kind == OwnerKind::Template).then_some(&owner.name)
        })
    }

    /// The hash of the template whose pods the policy selects.
    pub fn ref_hash(&self) -> Option<&Text> {
        self.labels.get(labels::SANDBOX_TEMPLATE_REF_HASH)
    }
}

/// The members of a `NetworkPolicy` that are read.
#[derive(Clone, Debug, Deserialize)]
pub struct PolicyWire {
    metadata: Metadata,
    #[serde(default)]
    spec: Value,
}

impl Row for PolicyRow {
    type Wire = PolicyWire;
    const KIND: &'static str = "NetworkPolicy";

    fn from_wire(wire: PolicyWire, interner: &Interner) -> Result<Self, DecodeError> {
        let PolicyWire { metadata, spec } = wire;
        let annotation = |key: &str| {
            metadata
                .annotations
                .as_ref()
                .and_then(|map| map.get(key))
                .map(String::as_str)
        };
        let template = annotation(names::POLICY_TEMPLATE)
            .zip(annotation(names::POLICY_TEMPLATE_UID))
            .map(|(name, uid)| (interner.text(name), Uid::parse(uid)));
        let kept_for = annotation(names::POLICY_KEPT_FOR).and_then(|text| text.parse().ok());
        let stands_in = annotation(names::POLICY_STANDS_IN) == Some("true");
        Ok(Self {
            head: Head::read(Self::KIND, &metadata, interner)?,
            labels: Labels::read(metadata.labels.as_ref(), interner),
            template,
            kept_for,
            stands_in,
            spec: interner.text(&normal_form(spec)),
        })
    }

    fn head(&self) -> &Head {
        &self.head
    }
}

/// A policy spec as text in which equal policies are equal: members sorted, what the API server
/// defaults filled in, what it drops dropped. Custom rules without a protocol would otherwise never
/// compare equal to what is stored.
pub fn normal_form(mut spec: Value) -> String {
    for direction in ["ingress", "egress"] {
        let rules = spec.get_mut(direction).and_then(Value::as_array_mut);
        for rule in rules.into_iter().flatten() {
            let ports = rule.get_mut("ports").and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten() {
                if let Some(members) = port.as_object_mut() {
                    members
                        .entry("protocol")
                        .or_insert_with(|| Value::String("TCP".to_owned()));
                }
            }
        }
    }
    drop_empty(&mut spec);
    spec.sort_all_objects();
    spec.to_string()
}

/// Drops null members and empty lists. Empty objects stay: in a policy an empty selector selects
/// everything and an empty rule allows everything, while an absent one means something else.
fn drop_empty(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| {
                drop_empty(member);
                !member.is_null() && member.as_array().is_none_or(|list| !list.is_empty())
            });
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_defaults_or_drops_makes_no_difference() {
        let written = json!({
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"port": 80}], "from": []}],
            "egress": [],
            "podSelector": {"matchLabels": {"b": "1", "a": "2"}},
        });
        let stored = json!({
            "podSelector": {"matchLabels": {"a": "2", "b": "1"}},
            "ingress": [{"ports": [{"protocol": "TCP", "port": 80}]}],
            "policyTypes": ["Ingress", "Egress"],
        });
        assert_eq!(normal_form(written), normal_form(stored));
    }

    #[test]
    fn an_empty_rule_is_not_the_absence_of_rules() {
        let open = json!({"podSelector": {}, "ingress": [{}]});
        let closed = json!({"podSelector": {}, "ingress": []});
        assert_ne!(normal_form(open), normal_form(closed));
    }
}
