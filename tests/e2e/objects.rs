//! Objects the tests create, and ways to look at them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use agent_sandbox_crds::{Sandbox, SandboxClaim, SandboxTemplate, SandboxWarmPool};
use agent_sandbox_tests::cluster::IMAGE;
use agent_sandbox_tests::eventually;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) fn claims(client: &Client) -> Api<SandboxClaim> {
    Api::default_namespaced(client.clone())
}

pub(crate) fn sandboxes(client: &Client) -> Api<Sandbox> {
    Api::default_namespaced(client.clone())
}

pub(crate) fn pools(client: &Client) -> Api<SandboxWarmPool> {
    Api::default_namespaced(client.clone())
}

pub(crate) fn templates(client: &Client) -> Api<SandboxTemplate> {
    Api::default_namespaced(client.clone())
}

pub(crate) fn pods(client: &Client) -> Api<Pod> {
    Api::default_namespaced(client.clone())
}

/// Deletes an object, which must exist.
pub(crate) async fn delete<K>(api: &Api<K>, name: &str)
where
    K: Clone + DeserializeOwned + Debug,
{
    api.delete(name, &DeleteParams::default()).await.unwrap();
}

/// Waits until there is no object of this name.
pub(crate) async fn gone<K>(api: &Api<K>, name: &str)
where
    K: Clone + DeserializeOwned + Debug,
{
    eventually(&format!("{name} is gone"), || async {
        let found = api.get_opt(name).await.ok()?;
        found.is_none().then_some(())
    })
    .await;
}

/// Creates or changes a template.
pub(crate) async fn template(client: &Client, name: &str, spec: Value) {
    apply(&templates(client), "SandboxTemplate", name, spec).await;
}

/// Creates or changes a pool, and waits until its members are ready.
pub(crate) async fn pool(client: &Client, name: &str, template: &str, replicas: usize) {
    let spec = json!({"replicas": replicas, "sandboxTemplateRef": {"name": template}});
    apply(&pools(client), "SandboxWarmPool", name, spec).await;
    if replicas > 0 {
        pool_ready(client, name, replicas).await;
    }
}

async fn apply<K>(api: &Api<K>, kind: &str, name: &str, spec: Value)
where
    K: Clone + DeserializeOwned + Debug,
{
    let object = json!({
        "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    });
    let parameters = PatchParams::apply("tests").force();
    api.patch(name, &parameters, &Patch::Apply(&object))
        .await
        .unwrap();
}

/// Creates a template named `template` whose pods do nothing, and a pool of it.
pub(crate) async fn template_and_pool(client: &Client, name: &str, replicas: usize) {
    let spec = json!({"podTemplate": {"spec": {"containers": [{"name": "main", "image": IMAGE}]}}});
    template(client, "template", spec).await;
    pool(client, name, "template", replicas).await;
}

/// Suspends a sandbox, or has it run.
pub(crate) async fn set_mode(client: &Client, sandbox: &str, mode: &str) {
    let patch = json!({"spec": {"operatingMode": mode}});
    sandboxes(client)
        .patch(sandbox, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
}

/// Waits until the pool reports this many ready members and no others.
pub(crate) async fn pool_ready(client: &Client, pool: &str, replicas: usize) {
    let replicas = i32::try_from(replicas).unwrap();
    let api = pools(client);
    eventually("the pool is ready", || async {
        let status = api.get_status(pool).await.ok()?.status?;
        let count = |number: Option<i32>| number.unwrap_or(0);
        let settled = count(Some(status.ready_replicas)) == replicas
            && count(Some(status.replicas)) == replicas;
        settled.then_some(())
    })
    .await;
}

/// Waits until the pool has its members again behind claims: this many sandboxes exist in all.
pub(crate) async fn refilled(client: &Client, pool: &str, replicas: usize, sandboxes: usize) {
    eventually("the pool is refilled", || async {
        (sandbox_names(client).await.len() == sandboxes).then_some(())
    })
    .await;
    pool_ready(client, pool, replicas).await;
}

/// A claim on a pool; `extra` is merged into its spec.
pub(crate) fn claim(name: &str, pool: &str, extra: &Value) -> SandboxClaim {
    let mut object = json!({
        "apiVersion": "extensions.agents.x-k8s.io/v1beta1",
        "kind": "SandboxClaim",
        "metadata": {"name": name},
        "spec": {"warmPoolRef": {"name": pool}},
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

/// Creates a claim on a pool.
pub(crate) async fn create_claim(client: &Client, name: &str, pool: &str, extra: Value) {
    claims(client)
        .create(
            &kube::api::PostParams::default(),
            &claim(name, pool, &extra),
        )
        .await
        .unwrap();
}

/// Status and reason of the claim's Ready condition.
pub(crate) async fn claim_ready(client: &Client, name: &str) -> Option<(String, String)> {
    let status = claims(client).get_status(name).await.ok()?.status?;
    let condition = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")?;
    Some((condition.status.clone(), condition.reason.clone()))
}

/// Waits until the claim is Ready and returns the name of its sandbox.
pub(crate) async fn bound(client: &Client, name: &str) -> String {
    eventually("the claim is ready", || async {
        let ready = claim_ready(client, name).await?;
        if ready.0 != "True" {
            return None;
        }
        let status = claims(client).get_status(name).await.ok()?.status?;
        status.sandbox.map(|sandbox| sandbox.name)
    })
    .await
}

/// Waits for the last write that a warm claim causes: its pod loses the label of the pool.
pub(crate) async fn pod_left_pool(client: &Client, sandbox: &str) {
    eventually("the pod has lost its pool label", || async {
        let pod = pods(client).get(sandbox).await.ok()?;
        let labelled = pod
            .labels()
            .contains_key("agents.x-k8s.io/warm-pool-sandbox");
        (!labelled).then_some(())
    })
    .await;
}

/// The object's controller.
pub(crate) fn controller<K: ResourceExt>(object: &K) -> Option<OwnerReference> {
    let owners = object.owner_references();
    let controller = owners.iter().find(|owner| owner.controller == Some(true));
    controller.cloned()
}

/// The claims that are Ready, and the sandboxes that they name.
pub(crate) fn given(claims: impl IntoIterator<Item = SandboxClaim>) -> BTreeMap<String, String> {
    let ready = claims.into_iter().filter_map(|claim| {
        let name = claim.name_any();
        let status = claim.status?;
        let ready = status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        ready.then_some((name, status.sandbox?.name))
    });
    ready.collect()
}

/// Waits until each of these claims owns the sandbox that it was given, and no claim owns another: that
/// follows when a claim is Ready.
pub(crate) async fn handed_over(client: &Client, given: &BTreeMap<String, String>) {
    let expected: BTreeSet<(String, String)> = given.clone().into_iter().collect();
    eventually(
        "each claim owns the sandbox that it names, and no other",
        || async {
            let list = ListParams::default();
            let claims = claims(client).list(&list).await.ok()?;
            let names: BTreeMap<Option<String>, String> = claims
                .iter()
                .map(|claim| (claim.uid(), claim.name_any()))
                .collect();
            let sandboxes = sandboxes(client).list(&list).await.ok()?;
            let owned = sandboxes.iter().filter_map(|sandbox| {
                let owner = controller(sandbox)?;
                let claim = names.get(&Some(owner.uid))?;
                Some((claim.clone(), sandbox.name_any()))
            });
            (owned.collect::<BTreeSet<_>>() == expected).then_some(())
        },
    )
    .await;
}

/// Waits until the pool's record names nothing any more: what it gave away says itself whose it is.
pub(crate) async fn record_is_empty(client: &Client, pool: &str) {
    eventually("the pool's record is empty", || async {
        let status = pools(client).get_status(pool).await.ok()?.status?;
        (status.allocations.is_empty() && status.retiring.is_empty()).then_some(())
    })
    .await;
}

/// Waits until the claim reports this reason.
pub(crate) async fn reason(client: &Client, name: &str, expected: &str) {
    eventually(&format!("the claim says {expected}"), || async {
        claim_ready(client, name)
            .await
            .filter(|(_, reason)| reason == expected)
    })
    .await;
}

/// Waits until no claim, sandbox or pod is left.
pub(crate) async fn nothing_left(client: &Client) {
    eventually("nothing is left", || async {
        let list = ListParams::default();
        let empty = claims(client).list(&list).await.ok()?.items.is_empty()
            && sandboxes(client).list(&list).await.ok()?.items.is_empty()
            && pods(client).list(&list).await.ok()?.items.is_empty();
        empty.then_some(())
    })
    .await;
}

/// Names of all sandboxes.
pub(crate) async fn sandbox_names(client: &Client) -> Vec<String> {
    let list = sandboxes(client)
        .list(&ListParams::default())
        .await
        .unwrap();
    list.items.iter().map(ResourceExt::name_any).collect()
}
