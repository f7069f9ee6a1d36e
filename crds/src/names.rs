//! Names derived from other names. Every program that needs to find an object by convention asks here.
//!
//! A derived name that would be longer than Kubernetes allows is cut and ends in the [`name_hash`] of the whole, so
//! that it stays unique and can be computed again. Names that fit are the plain concatenation other implementations use.

use crate::hash::name_hash;
use crate::labels;

/// The longest name of an object whose name is a DNS subdomain (RFC 1123): Pod, PVC, NetworkPolicy and our kinds.
pub const MAX_NAME: usize = 253;

/// The lease that elects the acting controller.
pub const LEADER_LEASE: &str = "a3317529.agent-sandbox.x-k8s.io";
/// The namespace the system is installed into.
pub const SYSTEM_NAMESPACE: &str = "agent-sandbox-system";
/// The router's Service.
pub const ROUTER_SERVICE: &str = "sandbox-router-svc";
/// Value of the `app` label on the router's pods.
pub const ROUTER_APP: &str = "sandbox-router";

/// The volume claim of one template of one Sandbox.
pub fn volume_claim(template: &str, sandbox: &str) -> String {
    bounded(format!("{template}-{sandbox}"))
}

/// The network policy of a SandboxTemplate.
pub fn network_policy(template: &str) -> String {
    bounded(format!("{template}-network-policy"))
}

/// The network policy that older controllers made per claim; deleted on sight.
pub fn legacy_claim_network_policy(claim: &str) -> String {
    format!("{claim}-network-policy")
}

/// `generateName` of a pool's Sandboxes. The API server cuts it where it is too long.
pub fn pool_member_prefix(pool: &str) -> String {
    format!("{pool}-")
}

/// The DNS name of a Service.
pub fn service_fqdn(service: &str, namespace: &str, cluster_domain: &str) -> String {
    format!("{service}.{namespace}.svc.{cluster_domain}")
}

/// The selector of a Sandbox's pod, as its status publishes it.
pub fn sandbox_selector(sandbox: &str) -> String {
    format!("{}={}", labels::SANDBOX_NAME_HASH, name_hash(sandbox))
}

/// The selector of the pods of a pool's members, as its status publishes it.
pub fn warm_pool_selector(pool: &str) -> String {
    format!("{}={}", labels::WARM_POOL_SANDBOX, name_hash(pool))
}

/// Cuts a name that is too long and ends it in the hash of the whole.
fn bounded(name: String) -> String {
    if name.len() <= MAX_NAME {
        return name;
    }
    let hash = name_hash(&name);
    let room = MAX_NAME - hash.len() - 1;
    let kept: String = name
        .char_indices()
        .take_while(|(at, c)| at + c.len_utf8() <= room)
        .map(|(_, c)| c)
        .collect();
    // A subdomain must not have `.-` or `--` pile up at the seam, nor a label that ends in a dash before a dot.
    format!("{}-{hash}", kept.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit_are_plain_concatenations() {
        assert_eq!(volume_claim("data", "my-sandbox"), "data-my-sandbox");
        assert_eq!(network_policy("python"), "python-network-policy");
        assert_eq!(pool_member_prefix("pool"), "pool-");
        assert_eq!(
            service_fqdn("a", "ns", "cluster.local"),
            "a.ns.svc.cluster.local"
        );
        assert_eq!(
            sandbox_selector("my-sandbox"),
            "agents.x-k8s.io/sandbox-name-hash=374de8f5"
        );
        assert_eq!(
            warm_pool_selector("test-warmpool"),
            "agents.x-k8s.io/warm-pool-sandbox=abdcc27b"
        );
    }

    #[test]
    fn the_longest_name_that_fits_is_kept() {
        let sandbox = "s".repeat(MAX_NAME - "data-".len());
        assert_eq!(volume_claim("data", &sandbox), format!("data-{sandbox}"));
    }

    #[test]
    fn longer_names_are_cut_stay_distinct_and_are_valid_subdomains() {
        let (a, b) = ("s".repeat(252) + "a", "s".repeat(252) + "b");
        let (first, second) = (volume_claim("data", &a), volume_claim("data", &b));
        assert_eq!(first.len(), MAX_NAME);
        assert_ne!(first, second);
        assert_eq!(first, volume_claim("data", &a));

        // The cut falls right behind separators.
        let awkward = format!("{}.-{}", "x".repeat(242), "y".repeat(30));
        let name = network_policy(&awkward);
        assert!(name.starts_with(&format!("{}-", "x".repeat(242))), "{name}");
        assert!(
            name.len() <= MAX_NAME && !name.contains(".-") && !name.contains("--"),
            "{name}"
        );
    }
}
