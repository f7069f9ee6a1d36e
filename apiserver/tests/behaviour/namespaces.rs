//! Namespaces: born with content, emptied before they go.

use agent_sandbox_apiserver::Server;
use serde_json::json;

use crate::harness::*;

const NAMESPACES: &str = "/api/v1/namespaces";

fn namespace(name: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

#[tokio::test]
async fn some_exist_from_the_start() {
    let api = Api::start();
    let list = api.get(NAMESPACES).await.ok();
    assert_eq!(
        names(&list),
        ["default", "kube-node-lease", "kube-public", "kube-system"]
    );
    let default = api.get("/api/v1/namespaces/default").await.ok();
    assert_eq!(default["status"]["phase"], "Active");
    assert_eq!(
        default["metadata"]["labels"]["kubernetes.io/metadata.name"],
        "default"
    );
}

#[tokio::test]
async fn each_gets_an_account_and_the_certificate() {
    let api = Api::with(Server::builder().root_ca("PEM"));
    api.post(NAMESPACES, &namespace("n")).await.ok();
    eventually("the account exists", || {
        api.exists("/api/v1/namespaces/n/serviceaccounts/default")
    })
    .await;
    let path = "/api/v1/namespaces/n/configmaps/kube-root-ca.crt";
    eventually("the certificate exists", || api.exists(path)).await;
    assert_eq!(api.get(path).await.ok()["data"]["ca.crt"], "PEM");
    api.delete(path).await.ok();
    eventually("the certificate comes back", || api.exists(path)).await;
}

#[tokio::test]
async fn a_deleted_one_loses_its_content_then_itself() {
    let api = Api::with_things().await;
    api.post(NAMESPACES, &namespace("n")).await.ok();
    let things = "/apis/example.org/v1/namespaces/n/things";
    let mut held = thing("held", 1);
    held["metadata"]["finalizers"] = json!(["example.org/hold"]);
    api.post(things, &held).await.ok();
    api.post(things, &thing("free", 1)).await.ok();
    api.post("/api/v1/namespaces/n/configmaps", &config_map("c"))
        .await
        .ok();
    let marked = api.delete("/api/v1/namespaces/n").await.ok();
    assert_eq!(marked["status"]["phase"], "Terminating");
    assert!(
        marked["metadata"]
            .get("deletionGracePeriodSeconds")
            .is_none()
    );
    api.gone(&format!("{things}/free")).await;
    api.gone("/api/v1/namespaces/n/configmaps/c").await;
    let answer = api
        .post("/api/v1/namespaces/n/configmaps", &config_map("d"))
        .await;
    assert_eq!(
        answer.body["details"]["causes"][0]["reason"],
        "NamespaceTerminating"
    );
    let message = answer.refused(403, "Forbidden");
    assert!(
        message.contains("because it is being terminated"),
        "{message}"
    );
    eventually("the namespace says what it waits for", || async {
        let conditions = api.get("/api/v1/namespaces/n").await.ok()["status"]["conditions"].clone();
        conditions[0]["message"]
            .as_str()
            .is_some_and(|text| text.contains("things.example.org has 1"))
    })
    .await;
    api.merge(
        &format!("{things}/held"),
        &json!({"metadata": {"finalizers": null}}),
    )
    .await
    .ok();
    api.gone("/api/v1/namespaces/n").await;
    assert!(api.exists("/api/v1/namespaces/default").await);
}

#[tokio::test]
async fn some_cannot_be_deleted() {
    let api = Api::start();
    let message = api
        .delete("/api/v1/namespaces/default")
        .await
        .refused(403, "Forbidden");
    assert_eq!(
        message,
        "namespaces \"default\" is forbidden: this namespace may not be deleted"
    );
    assert_eq!(
        api.get("/api/v1/namespaces/default").await.ok()["status"]["phase"],
        "Active"
    );
}

#[tokio::test]
async fn an_empty_one_goes_and_can_come_back() {
    let api = Api::start();
    for _ in 0..3 {
        api.post(NAMESPACES, &namespace("n")).await.ok();
        api.delete("/api/v1/namespaces/n").await.ok();
        api.gone("/api/v1/namespaces/n").await;
    }
}

#[tokio::test]
async fn spec_finalizers_are_emptied_only_through_finalize() {
    let api = Api::start();
    let created = api.post(NAMESPACES, &namespace("n")).await.ok();
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    let kept = api
        .merge("/api/v1/namespaces/n", &json!({"spec": {"finalizers": []}}))
        .await
        .ok();
    assert_eq!(kept["spec"]["finalizers"], json!(["kubernetes"]));
    let mut next = kept.clone();
    next["spec"]["finalizers"] = json!(["example.org/mine"]);
    let next = api.put("/api/v1/namespaces/n/finalize", &next).await.ok();
    assert_eq!(next["spec"]["finalizers"], json!(["example.org/mine"]));
    api.post(NAMESPACES, &namespace("Bad.Name"))
        .await
        .refused(422, "Invalid");
}
