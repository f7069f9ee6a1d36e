//! The resources the operator reads and writes, and their URL paths.

/// A resource of the Kubernetes API.
#[derive(Debug, Eq, PartialEq)]
pub struct Resource {
    /// API group, empty for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Plural, as in URLs.
    pub plural: &'static str,
    /// Kind, as in objects.
    pub kind: &'static str,
}

macro_rules! resources {
    ($($(#[$doc:meta])* $name:ident = $group:expr, $version:expr, $plural:expr, $kind:expr;)*) => {
        $(
            $(#[$doc])*
            pub static $name: Resource = Resource {
                group: $group,
                version: $version,
                plural: $plural,
                kind: $kind,
            };
        )*
    };
}

resources! {
    /// Sandboxes.
    SANDBOXES = agent_sandbox_crds::CORE_GROUP, agent_sandbox_crds::STORED_VERSION, "sandboxes", "Sandbox";
    /// Claims.
    CLAIMS = agent_sandbox_crds::EXTENSIONS_GROUP, agent_sandbox_crds::STORED_VERSION, "sandboxclaims", "SandboxClaim";
    /// Templates.
    TEMPLATES = agent_sandbox_crds::EXTENSIONS_GROUP, agent_sandbox_crds::STORED_VERSION, "sandboxtemplates", "SandboxTemplate";
    /// Warm pools.
    POOLS = agent_sandbox_crds::EXTENSIONS_GROUP, agent_sandbox_crds::STORED_VERSION, "sandboxwarmpools", "SandboxWarmPool";
    /// Pods.
    PODS = "", "v1", "pods", "Pod";
    /// Services.
    SERVICES = "", "v1", "services", "Service";
    /// Volume claims.
    VOLUME_CLAIMS = "", "v1", "persistentvolumeclaims", "PersistentVolumeClaim";
    /// Nodes.
    NODES = "", "v1", "nodes", "Node";
    /// Network policies.
    POLICIES = "networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy";
    /// Events.
    EVENTS = "events.k8s.io", "v1", "events", "Event";
    /// Leases.
    LEASES = "coordination.k8s.io", "v1", "leases", "Lease";
}

impl Resource {
    /// The field manager that creates objects of this kind. What a sandbox is made of (all of it in the
    /// core group, and nothing else of ours is) has the one that other implementations use for it.
    pub fn creator(&self) -> &'static str {
        if self.group.is_empty() {
            "sandbox-controller"
        } else {
            "agent-sandbox-controller"
        }
    }

    /// `group/version`, or the version alone for core.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The path of the collection; `None` spans all namespaces (or the cluster).
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_api_conventions() {
        assert_eq!(PODS.path(Some("n")), "/api/v1/namespaces/n/pods");
        assert_eq!(NODES.path(None), "/api/v1/nodes");
        assert_eq!(
            CLAIMS.path(Some("n")),
            "/apis/extensions.agents.x-k8s.io/v1beta1/namespaces/n/sandboxclaims"
        );
        assert_eq!(SANDBOXES.api_version(), "agents.x-k8s.io/v1beta1");
        assert_eq!(PODS.api_version(), "v1");
    }

    #[test]
    fn what_a_sandbox_is_made_of_has_a_field_manager_of_its_own() {
        for resource in [&PODS, &SERVICES, &VOLUME_CLAIMS] {
            assert_eq!(resource.creator(), "sandbox-controller");
        }
        for resource in [&SANDBOXES, &POLICIES, &EVENTS, &LEASES] {
            assert_eq!(resource.creator(), "agent-sandbox-controller");
        }
    }
}
