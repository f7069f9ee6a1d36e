//! Every reason our controllers give. Clients match on them, so a published one never changes its text.

/// Ready: pod, addresses and Service (where one is wanted) are there.
pub const DEPENDENCIES_READY: &str = "DependenciesReady";
/// Ready: something is still missing.
pub const DEPENDENCIES_NOT_READY: &str = "DependenciesNotReady";
/// Ready: suspended, or on the way there.
pub const SANDBOX_SUSPENDED: &str = "SandboxSuspended";
/// Ready, Finished: the pod completed.
pub const POD_SUCCEEDED: &str = "PodSucceeded";
/// Ready, Finished: the pod failed.
pub const POD_FAILED: &str = "PodFailed";
/// Ready: `shutdownTime` has passed.
pub const SANDBOX_EXPIRED: &str = "SandboxExpired";
/// Ready: the Sandbox controls more than one pod.
pub const MULTIPLE_PODS: &str = "MultiplePods";
/// Ready: a fault that is retried.
pub const RECONCILER_ERROR: &str = "ReconcilerError";
/// Ready: the API server refused a child for good.
pub const INVALID_CONFIGURATION: &str = "InvalidConfiguration";

/// Suspended: the pod is gone.
pub const POD_TERMINATED: &str = "PodTerminated";
/// Suspended: the mode is not Suspended.
pub const NOT_SUSPENDED: &str = "NotSuspended";
/// Suspended: the pod is on its way out.
pub const POD_TERMINATING: &str = "PodTerminating";
/// Suspended: the pod belongs to somebody else.
pub const POD_NOT_OWNED: &str = "PodNotOwned";
/// Suspended: the pod could not be looked up.
pub const POD_STATE_UNKNOWN: &str = "PodStateUnknown";

/// PodScheduled: the pod says so without a reason of its own.
pub const POD_SCHEDULED: &str = "PodScheduled";
/// PodScheduled: nobody knows yet.
pub const POD_SCHEDULING_UNKNOWN: &str = "PodSchedulingUnknown";

/// Claim Ready: the template does not exist. Clients give up on it.
pub const TEMPLATE_NOT_FOUND: &str = "TemplateNotFound";
/// Claim Ready: the pool does not exist. Clients give up on it.
pub const WARM_POOL_NOT_FOUND: &str = "WarmPoolNotFound";
/// Claim Ready: another claim was faster; retried.
pub const ADOPTION_CONFLICT: &str = "AdoptionConflict";
/// Claim Ready: the sandbox was created and is not visible yet; retried.
pub const SANDBOX_CREATE_PENDING: &str = "SandboxCreatePending";
/// Claim Ready: `additionalPodMetadata` breaks a rule.
pub const INVALID_METADATA: &str = "InvalidMetadata";
/// Claim Ready: the template does not allow the claim's `env`.
pub const ENV_VARS_INJECTION_REJECTED: &str = "EnvVarsInjectionRejected";
/// Claim Ready: the claim's `volumeClaimTemplates` break a rule.
pub const VOLUME_CLAIM_TEMPLATES_ERROR: &str = "VolumeClaimTemplatesError";
/// Claim Ready: the claim's time is over.
pub const CLAIM_EXPIRED: &str = "ClaimExpired";
/// Claim Ready: there is no sandbox.
pub const SANDBOX_MISSING: &str = "SandboxMissing";
/// Claim Ready: the sandbox has not said anything yet.
pub const SANDBOX_NOT_READY: &str = "SandboxNotReady";

/// `PodOutdated`: `spec.podTemplate.spec` was edited after the pod was created.
pub const POD_SPEC_CHANGED: &str = "PodSpecChanged";

/// `NetworkPolicyReady` True: the policy is there and as the template has it.
pub const MANAGED: &str = "Managed";
/// `NetworkPolicyReady` True: the template is Unmanaged by now, and pods from before are still covered.
pub const RETAINED: &str = "Retained";
/// `NetworkPolicyReady` False: the template is Unmanaged; its author looks after policies.
pub const UNMANAGED: &str = "Unmanaged";
/// `NetworkPolicyReady` False: somebody else's policy has the name. No pod starts.
pub const CONFLICT: &str = "Conflict";
/// `NetworkPolicyReady` False: another template's name has the same hash and was first. No pod starts.
pub const HASH_COLLISION: &str = "HashCollision";
/// `NetworkPolicyReady` False: the policy could not be written; retried.
pub const FAILED: &str = "Failed";

/// `NetworkPolicyReady` False, on a Sandbox: its template is gone, and with it the rules of its policy.
pub const RULES_LOST: &str = "RulesLost";

/// Stands in for a reason that the CRDs would refuse.
pub const UNKNOWN: &str = "Unknown";
