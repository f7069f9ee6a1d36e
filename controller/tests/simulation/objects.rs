//! Reading objects as the server keeps them.

use agent_sandbox_crds::{allocation, annotations, names};
use jiff::Timestamp;
use serde_json::Value;

use crate::kube_model::{Id, State, is_deleting};
use crate::world::{NAMESPACE, id};

pub(crate) fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub(crate) fn sandbox(name: &str) -> Id {
    Id::new("sandboxes", NAMESPACE, name)
}

/// The UID of the controller, if it is of this kind.
pub(crate) fn controller<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|it| it["controller"] == true)?;
    (owner["kind"] == kind).then(|| owner["uid"].as_str().unwrap_or_default())
}

pub(crate) fn controller_kind(object: &Value) -> Option<&str> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|it| it["controller"] == true)?["kind"].as_str()
}

pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|it| it["type"] == kind)
}

/// The sandbox a claim's status names.
pub(crate) fn bound(claim: &Value) -> Option<&str> {
    claim["status"]["sandbox"]["name"].as_str()
}

/// An entry of a pool's allocation record.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Allocation<'a> {
    /// The claim's UID.
    pub(crate) claim: &'a str,
    /// The sandbox's UID.
    pub(crate) sandbox: &'a str,
    /// The sandbox's name.
    pub(crate) name: &'a str,
}

/// The entries of a pool's allocation record.
pub(crate) fn allocations(pool: &Value) -> impl Iterator<Item = Allocation<'_>> {
    let entries = pool["status"]["allocations"].as_array();
    entries.into_iter().flatten().map(|it| {
        let text = it.as_str().expect("entries are texts");
        let entry = allocation::Allocation::parse(text).expect("entries are whole");
        Allocation {
            claim: entry.claim.uid,
            sandbox: entry.sandbox.uid,
            name: entry.sandbox.name,
        }
    })
}

/// The claim that a pool's record gives a sandbox to.
pub(crate) fn given_to<'a>(state: &'a State, sandbox: &str) -> Option<&'a str> {
    let entries = state
        .list("sandboxwarmpools")
        .flat_map(|it| allocations(it));
    let mut claims = entries.filter(|it| it.sandbox == sandbox);
    claims.next().map(|it| it.claim)
}

/// The claim that a sandbox belongs to: the one that controls it, else the one it was given to.
pub(crate) fn claim_of<'a>(state: &'a State, sandbox: &'a Value) -> Option<&'a str> {
    controller(sandbox, "SandboxClaim").or_else(|| given_to(state, uid(sandbox)))
}

pub(crate) fn size(pool: &Value) -> i64 {
    pool["spec"]["replicas"].as_i64().unwrap_or(1)
}

pub(crate) fn template_of(sandbox: &Value) -> Option<&str> {
    sandbox["metadata"]["annotations"][annotations::SANDBOX_TEMPLATE_REF].as_str()
}

/// Whether a sandbox's pod was promised a policy when the sandbox was made.
pub(crate) fn requires_policy(sandbox: &Value) -> bool {
    sandbox["metadata"]["annotations"]["agents.x-k8s.io/required-network-policy"].is_string()
}

pub(crate) fn is_managed(template: &Value) -> bool {
    template["spec"]["networkPolicyManagement"] != "Unmanaged"
}

/// The template a policy was made for.
pub(crate) fn policy_template(policy: &Value) -> Option<&str> {
    policy["metadata"]["annotations"]["agents.x-k8s.io/policy-of-template"].as_str()
}

pub(crate) fn policy_of<'a>(state: &'a State, template: &str) -> Option<&'a Value> {
    let found = state.get(&id("networkpolicies", &names::network_policy(template)))?;
    (policy_template(found) == Some(template) && !is_deleting(found)).then_some(&**found)
}

pub(crate) fn is_past(time: Option<&Value>, now: Timestamp) -> bool {
    let time = time.and_then(Value::as_str);
    time.and_then(|it| it.parse::<Timestamp>().ok())
        .is_some_and(|it| it <= now)
}

/// Whether a claim or a sandbox is past its time, or a sandbox is suspended.
pub(crate) fn is_stopped(object: &Value, now: Timestamp) -> bool {
    let spec = &object["spec"];
    let lifecycle = &spec["lifecycle"];
    let ttl = lifecycle["ttlSecondsAfterFinished"].as_i64();
    let finished = condition(object, "Finished")
        .filter(|it| it["status"] == "True")
        .and_then(|it| it["lastTransitionTime"].as_str()?.parse::<Timestamp>().ok());
    let outlived = ttl
        .zip(finished)
        .is_some_and(|(ttl, since)| since + jiff::SignedDuration::from_secs(ttl) <= now);
    outlived
        || is_past(spec.get("shutdownTime"), now)
        || is_past(lifecycle.get("shutdownTime"), now)
        || spec["operatingMode"] == "Suspended"
        || spec["replicas"] == 0
}

/// When an object expires by its spec alone.
pub(crate) fn shutdown_time(object: &Value) -> Option<Timestamp> {
    let spec = &object["spec"];
    let time = spec["lifecycle"]["shutdownTime"].as_str();
    time.or_else(|| spec["shutdownTime"].as_str())?.parse().ok()
}
