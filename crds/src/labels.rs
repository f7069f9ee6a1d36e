//! Label keys, the values our programs give them, and the rules for keys that belong to the system.

/// Prefix of the labels and annotations of the core group; a key with it is the system's.
pub const CORE_PREFIX: &str = "agents.x-k8s.io/";
/// Prefix of the labels and annotations of the extension group; a key with it is the system's.
pub const EXTENSIONS_PREFIX: &str = "extensions.agents.x-k8s.io/";

/// On Pod, Service and PVC: the hash of the Sandbox's name. The Service selects by it.
pub const SANDBOX_NAME_HASH: &str = "agents.x-k8s.io/sandbox-name-hash";
/// On a pool's Sandboxes and their pods: the hash of the pool's name. Removed when a claim takes the Sandbox.
pub const WARM_POOL_SANDBOX: &str = "agents.x-k8s.io/warm-pool-sandbox";
/// On SandboxTemplate, Sandbox and Pod: the hash of the template's name. The NetworkPolicy selects by it.
pub const SANDBOX_TEMPLATE_REF_HASH: &str = "agents.x-k8s.io/sandbox-template-ref-hash";
/// On a pool's Sandboxes: the hash of the template's blueprint.
pub const SANDBOX_TEMPLATE_HASH: &str = "agents.x-k8s.io/sandbox-template-hash";
/// On a pool's Sandboxes: the hash of the template's pod template alone. Written for external readers.
pub const SANDBOX_POD_TEMPLATE_HASH: &str = "agents.x-k8s.io/sandbox-pod-template-hash";
/// On a Sandbox: [`LAUNCH_TYPE_COLD`] or [`LAUNCH_TYPE_WARM`].
pub const LAUNCH_TYPE: &str = "agents.x-k8s.io/launch-type";
/// On claim, Sandbox and Pod: who asked; see [`normalised_creator`].
pub const CREATED_BY: &str = "agents.x-k8s.io/created-by";
/// On a claimed Sandbox and its pod: the UID of the claim.
pub const CLAIM_UID: &str = "agents.x-k8s.io/claim-uid";
/// On a Pod, Service or PVC made by a user: `"true"` lets a Sandbox of the matching name take it over.
pub const ADOPTABLE: &str = "agents.x-k8s.io/adoptable";

/// [`LAUNCH_TYPE`] of a Sandbox made for its claim.
pub const LAUNCH_TYPE_COLD: &str = "cold";
/// [`LAUNCH_TYPE`] of a Sandbox made by a pool.
pub const LAUNCH_TYPE_WARM: &str = "warm";
/// [`CREATED_BY`] of a pool's Sandboxes.
pub const CREATED_BY_CONTROLLER: &str = "controller";

/// Whether a label key belongs to the system: in a pod template it is skipped, never copied to the pod.
pub fn is_reserved(key: &str) -> bool {
    key.starts_with(CORE_PREFIX) || key.starts_with(EXTENSIONS_PREFIX)
}

/// The [`CREATED_BY`] value for pods and metrics: one of a known few, or `unknown`, so that it stays bounded.
pub fn normalised_creator(value: &str) -> &'static str {
    match value {
        "go-client" => "go-client",
        "python-client" => "python-client",
        CREATED_BY_CONTROLLER => CREATED_BY_CONTROLLER,
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_keys_are_those_of_both_groups_and_nothing_near() {
        for key in [
            CLAIM_UID,
            "extensions.agents.x-k8s.io/x",
            "agents.x-k8s.io/",
        ] {
            assert!(is_reserved(key), "{key}");
        }
        for key in [
            "agents.x-k8s.io",
            "my.agents.x-k8s.io/x",
            "podsnapshot.gke.io/ps-name",
            "app",
            "opentelemetry.io/trace-context",
        ] {
            assert!(!is_reserved(key), "{key}");
        }
    }

    #[test]
    fn creators_are_normalised() {
        for known in ["go-client", "python-client", "controller"] {
            assert_eq!(normalised_creator(known), known);
        }
        for other in ["", "Go-Client", "curl"] {
            assert_eq!(normalised_creator(other), "unknown");
        }
    }
}
