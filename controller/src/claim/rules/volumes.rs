//! `volumeClaimTemplates`: volumes a claim brings along.

use std::collections::BTreeSet;

use agent_sandbox_crds::VolumeClaimTemplate;
use agent_sandbox_crds::condition::reason;
use agent_sandbox_crds::template::VolumeClaimTemplatesPolicy;

use super::Rejection;

fn rejected(message: impl Into<String>) -> Rejection {
    Rejection::new(reason::VOLUME_CLAIM_TEMPLATES_ERROR, message)
}

/// The volume claim templates of a cold sandbox: the template's and the claim's, as the policy
/// allows.
///
/// # Errors
/// When an entry has no name or a name used before in its list, or the policy forbids it.
pub fn merged(
    template: &[VolumeClaimTemplate],
    claim: &[VolumeClaimTemplate],
    policy: &VolumeClaimTemplatesPolicy,
) -> Result<Vec<VolumeClaimTemplate>, Rejection> {
    check("the template's volumeClaimTemplates", template)?;
    if claim.is_empty() {
        return Ok(template.to_vec());
    }
    check("spec.volumeClaimTemplates", claim)?;
    let overrides = match policy {
        VolumeClaimTemplatesPolicy::Allowed => false,
        VolumeClaimTemplatesPolicy::Overrides => true,
        _ => {
            return Err(rejected(
                "spec.volumeClaimTemplates: the template does not allow volumes (volumeClaimTemplatesPolicy is Disallowed)",
            ));
        }
    };
    let mut merged = template.to_vec();
    for (index, entry) in claim.iter().enumerate() {
        match merged.iter_mut().find(|known| known.name() == entry.name()) {
            Some(known) if overrides => *known = entry.clone(),
            Some(_) => {
                return Err(rejected(format!(
                    "spec.volumeClaimTemplates[{index}].metadata.name: {:?} is defined by the template and volumeClaimTemplatesPolicy is Allowed, not Overrides",
                    entry.name()
                )));
            }
            None => merged.push(entry.clone()),
        }
    }
    Ok(merged)
}

fn check(whose: &str, list: &[VolumeClaimTemplate]) -> Result<(), Rejection> {
    let mut seen = BTreeSet::new();
    for (index, entry) in list.iter().enumerate() {
        let path = format!("{whose}[{index}].metadata.name");
        if entry.name().is_empty() {
            return Err(rejected(format!("{path}: a name is required")));
        }
        if !seen.insert(entry.name()) {
            return Err(rejected(format!(
                "{path}: {:?} is used twice",
                entry.name()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn list(value: Value) -> Vec<VolumeClaimTemplate> {
        serde_json::from_value(value).unwrap()
    }

    fn entry(name: &str, size: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"resources": {"requests": {"storage": size}}}})
    }

    fn names(list: &[VolumeClaimTemplate]) -> Vec<&str> {
        list.iter().map(VolumeClaimTemplate::name).collect()
    }

    #[test]
    fn policies_decide_what_a_claim_may_bring() {
        use VolumeClaimTemplatesPolicy::{Allowed, Disallowed, Overrides};
        let template = list(json!([entry("data", "1Gi"), entry("logs", "1Gi")]));
        let extra = list(json!([entry("more", "2Gi")]));
        let clash = list(json!([entry("logs", "9Gi"), entry("more", "2Gi")]));

        assert_eq!(
            names(&merged(&template, &[], &Disallowed).unwrap()),
            ["data", "logs"]
        );
        let refused = merged(&template, &extra, &Disallowed).unwrap_err();
        assert_eq!(refused.reason, "VolumeClaimTemplatesError");
        assert_eq!(
            names(&merged(&template, &extra, &Allowed).unwrap()),
            ["data", "logs", "more"]
        );
        assert!(
            merged(&template, &clash, &Allowed)
                .unwrap_err()
                .message
                .contains("logs")
        );
        let replaced = merged(&template, &clash, &Overrides).unwrap();
        assert_eq!(names(&replaced), ["data", "logs", "more"]);
        assert!(replaced[1].spec.text().contains("9Gi"));
    }

    #[test]
    fn unnamed_and_repeated_entries_are_refused_in_both_lists() {
        let policy = VolumeClaimTemplatesPolicy::Overrides;
        let good = list(json!([entry("a", "1Gi")]));
        for bad in [
            json!([entry("", "1Gi")]),
            json!([entry("b", "1Gi"), entry("b", "1Gi")]),
        ] {
            let bad = list(bad);
            let in_claim = merged(&good, &bad, &policy).unwrap_err();
            assert!(
                in_claim.message.starts_with("spec.volumeClaimTemplates["),
                "{in_claim:?}"
            );
            let in_template = merged(&bad, &[], &policy).unwrap_err();
            assert!(
                in_template.message.starts_with("the template's"),
                "{in_template:?}"
            );
        }
    }
}
