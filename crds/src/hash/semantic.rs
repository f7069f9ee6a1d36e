//! Whether two blueprints make the same sandbox, whatever their hashes say.

use serde_json::Value;

use super::canonical::{Quantities, render};
use crate::json_object::JsonObject;
use crate::pod_template::{Blueprint, PodTemplate};

/// Whether a sandbox made from one blueprint is what the other asks for.
///
/// Pod specs and claim specs are compared as Kubernetes does: quantities by value, an empty list or map like an absent
/// one. Claim templates are compared in order, by name and spec. `service` unset differs from `false`. Labels and
/// annotations do not count: they can change on a running pod.
pub fn same_blueprint(a: &Blueprint, b: &Blueprint) -> bool {
    // Whoever adds a field decides here whether it makes a sandbox stale.
    let Blueprint {
        pod_template: PodTemplate { metadata: _, spec },
        volume_claim_templates: _,
        service,
    } = a;
    let (claims_a, claims_b) = (a.claim_templates(), b.claim_templates());
    *service == b.service
        && same_spec("PodSpec", spec, &b.pod_template.spec)
        && claims_a.len() == claims_b.len()
        && claims_a.iter().zip(claims_b).all(|(a, b)| {
            a.name() == b.name() && same_spec("PersistentVolumeClaimSpec", &a.spec, &b.spec)
        })
}

fn same_spec(structure: &str, a: &JsonObject, b: &JsonObject) -> bool {
    let text = |spec: &JsonObject| {
        render(
            structure,
            &Value::Object(spec.to_map()),
            Quantities::ByValue,
        )
    };
    a.text() == b.text() || text(a) == text(b)
}
