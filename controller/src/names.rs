//! Names and keys that only the operator uses. Everything other programs or clients read is in
//! `agent_sandbox_crds`.

/// On a claimed Sandbox: the generation that the binding itself produced. Binding edits the pod
/// template's metadata, which bumps the generation; nobody asked for that change, so the status need
/// not be rewritten to acknowledge it, and the pool's conditions stay as they are.
pub const BINDING_GENERATION: &str = "agents.x-k8s.io/binding-generation";
/// On a managed NetworkPolicy: the template it belongs to. The policy has no owner reference, because
/// it must outlive its template for as long as pods of the template run.
pub const POLICY_TEMPLATE: &str = "agents.x-k8s.io/policy-of-template";
/// On a managed NetworkPolicy: the UID of that template.
pub const POLICY_TEMPLATE_UID: &str = "agents.x-k8s.io/policy-of-template-uid";
/// On a managed NetworkPolicy whose template has become Unmanaged: it stays for the pods created until
/// then.
pub const POLICY_KEPT_FOR: &str = "agents.x-k8s.io/policy-kept-for-pods-until";

/// On a managed NetworkPolicy, `true`: it stands in for one whose rules nobody knows any more, because
/// that one and its template are gone. It lets in the router and nothing out.
pub const POLICY_STANDS_IN: &str = "agents.x-k8s.io/policy-stands-in";
/// On a Sandbox made from a Managed template: the NetworkPolicy without which no pod of it may start. On
/// a Pod: the one it was started under, which it needs until its end. Neither template nor policy need
/// exist any more: this is what tells, after a restart, that they did.
pub const REQUIRED_POLICY: &str = "agents.x-k8s.io/required-network-policy";

/// On a Pod: the UID of its Sandbox. The Service selects by it beside the name's hash, which is short
/// enough for two names in one namespace to share.
pub const SANDBOX_UID: &str = "agents.x-k8s.io/sandbox-uid";

/// On a Pod: the fingerprint of the pod spec it was created from. A pod of another implementation has
/// none, and is never said to be out of date.
pub const POD_SPEC: &str = "agents.x-k8s.io/pod-spec-fingerprint";

/// `reportingController` of events on Sandboxes.
pub const SANDBOX_REPORTER: &str = "sandbox-controller";
/// `reportingController` of events on claims.
pub const CLAIM_REPORTER: &str = "sandboxclaim-controller";
/// `reportingController` of events on templates.
pub const TEMPLATE_REPORTER: &str = "sandboxtemplate-controller";
/// `reportingController` of events on pools.
pub const POOL_REPORTER: &str = "sandboxwarmpool-controller";
