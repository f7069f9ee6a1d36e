//! Servers on one journal, one after the other.

use agent_sandbox_apiserver::Server;
use serde_json::json;

use crate::harness::*;

#[tokio::test]
async fn a_second_server_has_what_the_first_one_had() {
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("objects");
    let first = Api::with(Server::builder().journal(&journal));
    first.define(&definition()).await;
    let mut object = thing("a", 1);
    object["spec"]["color"] = "blue".into();
    object["metadata"]["labels"] = json!({"l": "1"});
    first.post(THINGS, &object).await.ok();
    first.post(THINGS, &thing("gone", 1)).await.ok();
    first.delete(&format!("{THINGS}/gone")).await.ok();
    let stored = first.get(&format!("{THINGS}/a")).await.ok();
    let owner = first.post(CONFIG_MAPS, &config_map("owner")).await.ok();
    let mut child = config_map("child");
    child["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap",
        "name": "owner", "uid": owner["metadata"]["uid"]}]);
    first.post(CONFIG_MAPS, &child).await.ok();
    let revision = first.revision();
    first.stop().await;

    let second = Api::with(Server::builder().journal(&journal));
    assert!(second.revision() >= revision);
    assert_eq!(
        second.get(&format!("{THINGS}/a")).await.ok(),
        stored,
        "served at once"
    );
    let selected = second
        .get(&format!(
            "{THINGS}?fieldSelector=spec.color%3Dblue&labelSelector=l"
        ))
        .await
        .ok();
    assert_eq!(names(&selected), ["a"]);
    assert!(!second.exists(&format!("{THINGS}/gone")).await);
    let mut watch = second
        .watch(&format!("{THINGS}?resourceVersion={}", revision - 1))
        .await;
    assert_eq!(watch.next().await.unwrap()["object"]["code"], 410);
    second.delete(&format!("{CONFIG_MAPS}/owner")).await.ok();
    second.gone(&format!("{CONFIG_MAPS}/child")).await;
    let next = second
        .merge(&format!("{THINGS}/a"), &json!({"spec": {"size": 2}}))
        .await
        .ok();
    assert_eq!(next["metadata"]["generation"], 2);
}

#[tokio::test]
async fn the_published_certificate_is_that_of_the_latest_start() {
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("objects");
    let path = format!("{CONFIG_MAPS}/kube-root-ca.crt");
    for pem in ["first", "second"] {
        let api = Api::with(Server::builder().journal(&journal).root_ca(pem));
        eventually("the certificate is published", || async {
            api.get(&path).await.body["data"]["ca.crt"] == pem
        })
        .await;
        api.stop().await;
    }
}

#[tokio::test]
async fn two_servers_cannot_share_a_journal() {
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("objects");
    let api = Api::with(Server::builder().journal(&journal));
    let shutdown = agent_sandbox_service::shutdown::Shutdown::new();
    let error = Server::builder()
        .journal(&journal)
        .start(&shutdown)
        .unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("in use by another process"), "{cause}");
    api.stop().await;
}
