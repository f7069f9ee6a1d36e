//! What must hold once everything has come to rest.

use std::collections::BTreeSet;

use agent_sandbox_crds::hash;
use serde_json::Value;

use crate::kube_model::{State, is_deleting};
use crate::objects::{
    bound, condition, controller, controller_kind, is_managed, is_stopped, name, policy_of,
    policy_template, requires_policy, sandbox, size, template_of, uid,
};
use crate::world::{Inner, id};

/// Why not everything has come to rest as it should; `None` when it has.
pub(crate) fn unsettled(inner: &Inner) -> Option<String> {
    let state = &inner.state;
    let alive: BTreeSet<&str> = state.all().map(|(_, object)| uid(object)).collect();
    for (resource, object) in state.all() {
        if is_deleting(object) {
            return Some(format!("{resource} {} is being deleted", name(object)));
        }
        let owners = object["metadata"]["ownerReferences"].as_array();
        for owner in owners.into_iter().flatten() {
            if !alive.contains(owner["uid"].as_str().unwrap_or_default()) {
                return Some(format!("{resource} {} is an orphan", name(object)));
            }
        }
    }
    state
        .list("sandboxclaims")
        .find_map(|claim| claim_unsettled(state, claim))
        .or_else(|| {
            state
                .list("sandboxes")
                .find_map(|it| sandbox_unsettled(state, it))
        })
        .or_else(|| {
            state
                .list("sandboxwarmpools")
                .find_map(|it| pool_unsettled(state, it))
        })
        .or_else(|| {
            state
                .list("sandboxtemplates")
                .find_map(|it| template_unsettled(state, it))
        })
        .or_else(|| {
            let policies = state.list("networkpolicies");
            policies
                .into_iter()
                .find_map(|it| policy_unsettled(state, it))
        })
}

/// Reasons with which a claim may rest although it is not Ready.
const TERMINAL: [&str; 12] = [
    "InvalidMetadata",
    "EnvVarsInjectionRejected",
    "VolumeClaimTemplatesError",
    "ClaimExpired",
    "SandboxExpired",
    "InvalidConfiguration",
    "PodFailed",
    "PodSucceeded",
    "TemplateNotFound",
    "WarmPoolNotFound",
    "SandboxSuspended",
    "MultiplePods",
];

fn claim_unsettled(state: &State, claim: &Value) -> Option<String> {
    let claim_name = name(claim);
    let Some(ready) = condition(claim, "Ready") else {
        return Some(format!("claim {claim_name} has no Ready"));
    };
    let reason = ready["reason"].as_str().unwrap_or_default();
    let owned: Vec<&str> = state
        .list("sandboxes")
        .filter(|it| controller(it, "SandboxClaim") == Some(uid(claim)))
        .map(|it| name(it))
        .collect();
    if owned.len() > 1 {
        return Some(format!("claim {claim_name} has {owned:?}"));
    }
    if bound(claim) != owned.first().copied() {
        return Some(format!(
            "claim {claim_name} says {:?} and has {owned:?}",
            bound(claim)
        ));
    }
    let is_ready = ready["status"] == "True";
    let shut_out = || {
        let sandbox = owned.first().and_then(|it| state.get(&sandbox(it)));
        sandbox.is_some_and(|it| is_shut_out(state, it))
    };
    if !is_ready && !TERMINAL.contains(&reason) && !shut_out() {
        let message = &ready["message"];
        return Some(format!("claim {claim_name} rests with {reason}: {message}"));
    }
    let refers = claim
        .pointer("/spec/warmPoolRef/name")
        .and_then(Value::as_str);
    if reason == "WarmPoolNotFound"
        && refers.is_some_and(|it| state.get(&id("sandboxwarmpools", it)).is_some())
    {
        return Some(format!("claim {claim_name} does not see its pool"));
    }
    let sandbox = state.get(&sandbox(owned.first()?))?;
    let theirs = condition(sandbox, "Ready").map(|it| it["status"].clone());
    if is_ready && theirs.as_ref() != Some(&ready["status"]) {
        return Some(format!(
            "claim {claim_name} is Ready and its sandbox is not"
        ));
    }
    if !is_ready && theirs == Some("True".into()) && is_forwarded(reason) {
        return Some(format!(
            "claim {claim_name} is not Ready and its sandbox is"
        ));
    }
    if sandbox.pointer("/status/podIPs") != claim.pointer("/status/sandbox/podIPs") {
        return Some(format!(
            "claim {claim_name} has other addresses than its sandbox"
        ));
    }
    None
}

fn is_forwarded(reason: &str) -> bool {
    matches!(
        reason,
        "SandboxSuspended" | "PodFailed" | "PodSucceeded" | "MultiplePods"
    )
}

fn sandbox_unsettled(state: &State, sandbox: &Value) -> Option<String> {
    let sandbox_name = name(sandbox);
    let ready = condition(sandbox, "Ready");
    let Some(ready) = ready else {
        return Some(format!("sandbox {sandbox_name} has no Ready"));
    };
    let ahead = sandbox["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|it| it["observedGeneration"].as_i64() > sandbox["metadata"]["generation"].as_i64());
    if let Some(ahead) = ahead {
        return Some(format!(
            "sandbox {sandbox_name} is ahead of itself: {ahead}"
        ));
    }
    let pods: Vec<_> = state
        .list("pods")
        .filter(|pod| controller(pod, "Sandbox") == Some(uid(sandbox)))
        .collect();
    let stopped = is_stopped(sandbox, state.now);
    let reason = ready["reason"].as_str().unwrap_or_default();
    if stopped {
        let suspended = condition(sandbox, "Suspended").is_some_and(|it| it["status"] == "True");
        let said = suspended || reason == "SandboxExpired";
        return (!pods.is_empty() || !said).then(|| {
            format!(
                "sandbox {sandbox_name} is stopped, with {} pods",
                pods.len()
            )
        });
    }
    match reason {
        "InvalidConfiguration" | "MultiplePods" | "PodFailed" | "PodSucceeded" => None,
        "DependenciesReady" => {
            let pod = pods.first();
            let serves = pod.is_some_and(|pod| {
                condition(pod, "Ready").is_some_and(|it| it["status"] == "True")
            });
            let told = sandbox.pointer("/status/podIPs/0");
            let has = pod.and_then(|pod| pod.pointer("/status/podIPs/0/ip"));
            if !serves || told != has {
                return Some(format!(
                    "sandbox {sandbox_name} says Ready with {told:?}, pod has {has:?}"
                ));
            }
            let foreign = [
                agent_sandbox_crds::labels::WARM_POOL_SANDBOX,
                agent_sandbox_crds::labels::SANDBOX_TEMPLATE_REF_HASH,
            ];
            let pod = pod?;
            foreign.into_iter().find_map(|key| {
                let label = |object: &Value| object["metadata"]["labels"][key].clone();
                (controller_kind(sandbox).is_some() && label(sandbox) != label(pod))
                    .then(|| format!("pod {sandbox_name} differs from its sandbox in {key}"))
            })
        }
        // A pool gives up on such a member in its time.
        "DependenciesNotReady"
            if is_shut_out(state, sandbox)
                && pods.is_empty()
                && controller_kind(sandbox) != Some("SandboxWarmPool") =>
        {
            None
        }
        reason => Some(format!(
            "sandbox {sandbox_name} rests with {reason}: {}",
            ready["message"]
        )),
    }
}

/// Whether a sandbox waits for a template of its own's name, because nothing else knows the rules that its pod
/// was promised: users are told that no pod starts until then (`docs/network-policy.md`).
fn is_shut_out(state: &State, sandbox: &Value) -> bool {
    let waits_for = template_of(sandbox).filter(|_| requires_policy(sandbox));
    waits_for.is_some_and(|it| state.get(&id("sandboxtemplates", it)).is_none())
}

fn pool_unsettled(state: &State, pool: &Value) -> Option<String> {
    let template = pool.pointer("/spec/sandboxTemplateRef/name")?.as_str()?;
    state.get(&id("sandboxtemplates", template))?;
    let members: Vec<_> = state
        .list("sandboxes")
        .filter(|it| controller(it, "SandboxWarmPool") == Some(uid(pool)))
        .collect();
    let count = |path: &str| pool.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let ready = members
        .iter()
        .filter(|it| condition(it, "Ready").is_some_and(|it| it["status"] == "True"))
        .count();
    let (size, total) = (u64::try_from(size(pool)).unwrap_or(0), members.len() as u64);
    if total != size || ready as u64 != size {
        let detail = format!("has {total} members, {ready} ready");
        return Some(format!("pool {} of {size} {detail}", name(pool)));
    }
    if count("/status/replicas") != total || count("/status/readyReplicas") != ready as u64 {
        return Some(format!("pool {} counts {}", name(pool), pool["status"]));
    }
    let entries = |member: &str| pool["status"][member].as_array().map_or(0, Vec::len);
    if entries("allocations") + entries("retiring") > 0 {
        return Some(format!("pool {} keeps {}", name(pool), pool["status"]));
    }
    None
}

fn template_unsettled(state: &State, template: &Value) -> Option<String> {
    let policy = policy_of(state, name(template));
    match (is_managed(template), policy) {
        (true, None) => Some(format!("template {} has no policy", name(template))),
        _ => None,
    }
}

fn policy_unsettled(state: &State, policy: &Value) -> Option<String> {
    let template = policy_template(policy)?;
    let wanted = state.get(&id("sandboxtemplates", template)).is_some();
    let ref_hash = hash::name_hash(template);
    let carries = |object: &Value| {
        object["metadata"]["labels"][agent_sandbox_crds::labels::SANDBOX_TEMPLATE_REF_HASH]
            == *ref_hash
    };
    let used =
        state.list("sandboxes").any(|it| carries(it)) || state.list("pods").any(|it| carries(it));
    // One that somebody hid when nothing else told of it is not the operators' to find.
    (!wanted && !used && carries(policy))
        .then(|| format!("policy {} is of no more use", name(policy)))
}
