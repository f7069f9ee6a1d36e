//! From a template to a sandbox: the secure defaults that templates get, and what to compare when a
//! sandbox may no longer be what its template describes. Pure; works on raw JSON so that fields newer
//! than our types take part.

use std::net::IpAddr;

use agent_sandbox_crds::template::NetworkPolicyManagement;
use agent_sandbox_crds::{Blueprint, PodTemplate, SandboxTemplateSpec};
use serde_json::{Map, Value, json};

use crate::objects::Make;

/// The template's pod spec with secure defaults: no service account token unless asked for, and,
/// under the default network policy (which shuts out the cluster's DNS), resolvers that can be
/// reached. The caller decides what else goes in.
pub fn secure_pod_spec(template: &SandboxTemplateSpec, resolvers: &[IpAddr]) -> Map<String, Value> {
    let mut spec = template.pod_template.spec.to_map();
    let unset = |spec: &Map<String, Value>, member: &str| {
        spec.get(member)
            .is_none_or(|value| value.is_null() || value.as_str() == Some(""))
    };
    if unset(&spec, "automountServiceAccountToken") {
        spec.insert("automountServiceAccountToken".to_owned(), json!(false));
    }
    let default_policy = template.network_policy_management != NetworkPolicyManagement::Unmanaged
        && template.network_policy.is_none();
    if default_policy && !resolvers.is_empty() && unset(&spec, "dnsPolicy") {
        let nameservers: Vec<String> = resolvers.iter().map(ToString::to_string).collect();
        spec.insert("dnsPolicy".to_owned(), json!("None"));
        spec.insert("dnsConfig".to_owned(), json!({"nameservers": nameservers}));
    }
    spec
}

/// What a sandbox made from this template today would be made of.
pub fn of_template(template: &SandboxTemplateSpec, resolvers: &[IpAddr]) -> Blueprint {
    Blueprint {
        pod_template: PodTemplate {
            spec: secure_pod_spec(template, resolvers).into(),
            metadata: None,
        },
        volume_claim_templates: template.volume_claim_templates.clone(),
        service: template.service,
    }
}

/// What a sandbox of this make is made of.
pub fn of_make(make: &Make) -> Blueprint {
    let spec: Map<String, Value> = serde_json::from_str(&make.pod_spec).unwrap_or_default();
    Blueprint {
        pod_template: PodTemplate {
            spec: spec.into(),
            metadata: None,
        },
        volume_claim_templates: make
            .volume_claim_templates
            .as_ref()
            .and_then(|text| serde_json::from_str(text).ok()),
        service: make.service,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(spec: Value) -> SandboxTemplateSpec {
        serde_json::from_value(spec).unwrap()
    }

    const RESOLVERS: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(9, 9, 9, 9))];

    #[test]
    fn secure_defaults_fill_gaps_and_never_override() {
        let pod = json!({"containers": [{"name": "a"}]});
        let plain = secure_pod_spec(&template(json!({"podTemplate": {"spec": pod}})), &RESOLVERS);
        assert_eq!(plain["automountServiceAccountToken"], json!(false));
        assert_eq!(plain["dnsPolicy"], json!("None"));
        assert_eq!(plain["dnsConfig"], json!({"nameservers": ["9.9.9.9"]}));

        let unmanaged = secure_pod_spec(
            &template(
                json!({"podTemplate": {"spec": pod}, "networkPolicyManagement": "Unmanaged"}),
            ),
            &RESOLVERS,
        );
        assert_eq!(unmanaged.get("dnsPolicy"), None);
        let custom = secure_pod_spec(
            &template(json!({"podTemplate": {"spec": pod}, "networkPolicy": {}})),
            &RESOLVERS,
        );
        assert_eq!(custom.get("dnsPolicy"), None);

        let explicit = secure_pod_spec(
            &template(json!({"podTemplate": {"spec": {
                "containers": [], "automountServiceAccountToken": true, "dnsPolicy": "ClusterFirst",
            }}})),
            &RESOLVERS,
        );
        assert_eq!(explicit["automountServiceAccountToken"], json!(true));
        assert_eq!(explicit["dnsPolicy"], json!("ClusterFirst"));
    }
}
