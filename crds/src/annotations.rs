//! Annotation keys and the rules for keys that belong to the system.

use crate::labels;

/// On a claim: the assigned Sandbox.
pub const SANDBOX_NAME: &str = "agents.x-k8s.io/sandbox-name";
/// On a Sandbox: the name of its pod where that is not the Sandbox's. Read, no longer written.
pub const POD_NAME: &str = "agents.x-k8s.io/pod-name";
/// On a Sandbox: the name of the template it was made from.
pub const SANDBOX_TEMPLATE_REF: &str = "agents.x-k8s.io/sandbox-template-ref";
/// On a Sandbox, `true`: its volume claims outlive it.
pub const RETAIN_VOLUMES: &str = "agents.x-k8s.io/retain-volumes";
/// On a Pod: sorted, comma-joined keys of the labels copied from the pod template.
pub const PROPAGATED_LABELS: &str = "agents.x-k8s.io/propagated-labels";
/// On a Pod: sorted, comma-joined keys of the annotations copied from the pod template.
pub const PROPAGATED_ANNOTATIONS: &str = "agents.x-k8s.io/propagated-annotations";
/// On claim and Sandbox: a JSON object of W3C trace headers.
pub const TRACE_CONTEXT: &str = "opentelemetry.io/trace-context";
/// On a claim: when the controller first saw it, RFC 3339 with nanoseconds.
pub const CONTROLLER_FIRST_OBSERVED_AT: &str = "agents.x-k8s.io/controller-first-observed-at";
/// On a claim: when it first became Ready, RFC 3339 with nanoseconds.
/// Other controllers write `unknown` when it was Ready before they took note.
pub const CLAIM_FIRST_READY_AT: &str = "agents.x-k8s.io/claim-first-ready-at";
/// On a claim: when a user's admission webhook first saw it, RFC 3339 with nanoseconds.
pub const WEBHOOK_FIRST_OBSERVED_AT: &str = "agents.x-k8s.io/webhook-first-observed-at";
/// On a claim: when the client sent the request, RFC 3339.
pub const CLIENT_FIRST_REQUESTED_AT: &str = "agents.x-k8s.io/client-first-requested-at";
/// On pod template and Pod: whether the cluster autoscaler may evict the pod.
pub const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";

/// Whether an annotation key belongs to the system: in a pod template it is skipped, never copied to the pod.
pub fn is_reserved(key: &str) -> bool {
    labels::is_reserved(key) || key == TRACE_CONTEXT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_keys_are_the_labels_ones_and_the_trace_context() {
        assert!(is_reserved(TRACE_CONTEXT) && is_reserved(PROPAGATED_LABELS));
        assert!(!is_reserved("opentelemetry.io/other") && !is_reserved(SAFE_TO_EVICT));
    }
}
