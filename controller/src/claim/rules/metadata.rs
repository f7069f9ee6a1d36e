//! `additionalPodMetadata`: which labels and annotations a claim may put on its pod, and how they
//! join the template's.

use std::collections::BTreeMap;

use agent_sandbox_crds::condition::reason;
use agent_sandbox_crds::{annotations, labels};

use super::Rejection;
use crate::objects::{ClaimRow, PodBlueprint, TemplateRow};

/// Domains whose annotation keys claims must not use; subdomains included.
const RESTRICTED: [&str; 3] = ["kubernetes.io", "k8s.io", "agents.x-k8s.io"];

/// Labels and annotations for a pod template.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodMetadata {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

fn rejected(message: impl Into<String>) -> Rejection {
    Rejection::new(reason::INVALID_METADATA, message)
}

/// Checks the claim's own labels and annotations. `domains` are the label domains allowed.
///
/// # Errors
/// Names the key and the rule it breaks.
pub fn check(claim: &ClaimRow, domains: &[String]) -> Result<(), Rejection> {
    for (key, value) in claim.pod_labels.iter() {
        let path = format!("spec.additionalPodMetadata.labels[{key:?}]");
        let domain = qualified_name(key)
            .map_err(|why| rejected(format!("{path}: {why}")))?
            .ok_or_else(|| {
                rejected(format!(
                    "{path}: the key needs a domain; allowed: {}",
                    domains.join(", ")
                ))
            })?
            .to_lowercase();
        if !domains.iter().any(|allowed| is_within(&domain, allowed)) {
            return Err(rejected(format!(
                "{path}: domain {domain:?} is not allowed; allowed: {}",
                domains.join(", ")
            )));
        }
        if !is_label_value(value) {
            return Err(rejected(format!(
                "{path}: {:?} is not a label value: expected at most 63 of letters, digits, '-', '_' and '.', with a letter or digit at both ends",
                &**value
            )));
        }
    }
    for (key, _) in claim.pod_annotations.iter() {
        let path = format!("spec.additionalPodMetadata.annotations[{key:?}]");
        let domain = qualified_name(key).map_err(|why| rejected(format!("{path}: {why}")))?;
        let restricted = domain.is_some_and(|domain| {
            let domain = domain.to_lowercase();
            RESTRICTED.iter().any(|root| is_within(&domain, root))
        });
        if restricted && key != annotations::SAFE_TO_EVICT {
            return Err(rejected(format!(
                "{path}: keys of {} and their subdomains are reserved",
                RESTRICTED.join(", ")
            )));
        }
    }
    Ok(())
}

/// The pod template metadata of a claimed sandbox: the template's, the operator's, the claim's. When
/// the template is out of reach, what the sandbox has now stands in for the template's.
///
/// A `safe-to-evict: "true"` is dropped wherever it comes from, unless the claim itself says so: it
/// was meant for pods that hold nobody's work.
///
/// # Errors
/// When the claim sets a key the template sets differently.
pub fn merged(
    claim: &ClaimRow,
    template: Option<&TemplateRow>,
    current: &PodBlueprint,
) -> Result<PodMetadata, Rejection> {
    let mut merged = match template {
        Some(template) => {
            let mut base = PodMetadata {
                labels: template.spec.pod_template.labels().clone(),
                annotations: template.spec.pod_template.annotations().clone(),
            };
            base.labels.insert(
                labels::SANDBOX_TEMPLATE_REF_HASH.to_owned(),
                template.ref_hash.to_string(),
            );
            base
        }
        None => PodMetadata {
            labels: to_map(&current.labels),
            annotations: to_map(&current.annotations),
        },
    };
    if merged
        .annotations
        .get(annotations::SAFE_TO_EVICT)
        .is_some_and(|value| value == "true")
    {
        merged.annotations.remove(annotations::SAFE_TO_EVICT);
    }
    for key in [
        labels::WARM_POOL_SANDBOX,
        labels::SANDBOX_TEMPLATE_HASH,
        labels::SANDBOX_POD_TEMPLATE_HASH,
        labels::CREATED_BY,
    ] {
        merged.labels.remove(key);
    }
    merged
        .labels
        .insert(labels::CLAIM_UID.to_owned(), claim.head.uid.to_string());
    if let Some(creator) = &claim.created_by {
        merged
            .labels
            .insert(labels::CREATED_BY.to_owned(), creator.to_string());
    }
    let strict = template.is_some();
    join("label", &mut merged.labels, &claim.pod_labels, strict)?;
    join(
        "annotation",
        &mut merged.annotations,
        &claim.pod_annotations,
        strict,
    )?;
    Ok(merged)
}

fn to_map(set: &crate::objects::Labels) -> BTreeMap<String, String> {
    set.iter()
        .map(|(key, value)| (key.to_owned(), value.to_string()))
        .collect()
}

fn join(
    what: &str,
    base: &mut BTreeMap<String, String>,
    added: &crate::objects::Labels,
    strict: bool,
) -> Result<(), Rejection> {
    for (key, value) in added.iter() {
        match base.get(key) {
            Some(known) if strict && **known != **value => {
                return Err(rejected(format!(
                    "additionalPodMetadata {what} {key:?}: value {:?} conflicts with the template's {known:?}",
                    &**value
                )));
            }
            _ => {
                base.insert(key.to_owned(), value.to_string());
            }
        }
    }
    Ok(())
}

fn is_within(domain: &str, root: &str) -> bool {
    domain == root
        || domain
            .strip_suffix(root)
            .is_some_and(|rest| rest.ends_with('.'))
}

/// The domain of a qualified name, if it has one.
fn qualified_name(key: &str) -> Result<Option<&str>, String> {
    let (domain, name) = match key.split_once('/') {
        Some((domain, name)) => (Some(domain), name),
        None => (None, key),
    };
    if let Some(domain) = domain
        && !is_subdomain(domain)
    {
        return Err(format!("{domain:?} is not a DNS subdomain"));
    }
    if name.is_empty() || !is_label_value(name) {
        return Err(format!(
            "{name:?} is not a name: expected 1 to 63 of letters, digits, '-', '_' and '.', with a letter or digit at both ends"
        ));
    }
    Ok(domain)
}

fn is_subdomain(domain: &str) -> bool {
    !domain.is_empty()
        && domain.len() <= 253
        && domain.split('.').all(|label| {
            let bytes = label.as_bytes();
            let end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
            end(bytes.first())
                && end(bytes.last())
                && bytes
                    .iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        })
}

/// Whether `value` is empty or a label value.
fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    if bytes.is_empty() {
        return true;
    }
    let end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && end(bytes.first())
        && end(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}
