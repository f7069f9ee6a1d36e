//! Pods: graceful deletion, binding, eviction, and the accounts they run as.

use serde_json::{Value, json};

use crate::harness::*;

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn running(api: &Api, name: &str) -> Value {
    api.post(PODS, &pod(name)).await.ok();
    let target = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "node1"}});
    let answer = api.post(&format!("{PODS}/{name}/binding"), &target).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.ok()["status"], "Success");
    api.get(&format!("{PODS}/{name}")).await.ok()
}

#[tokio::test]
async fn a_new_pod_is_complete_and_pending() {
    let api = Api::start();
    let pod = api.post(PODS, &pod("p")).await.ok();
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(pod["status"]["qosClass"], "BestEffort");
    let spec = &pod["spec"];
    assert_eq!(
        (&spec["restartPolicy"], &spec["dnsPolicy"]),
        (&json!("Always"), &json!("ClusterFirst"))
    );
    assert_eq!(spec["terminationGracePeriodSeconds"], 30);
    assert_eq!(spec["containers"][0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(spec["serviceAccountName"], "default");
}

#[tokio::test]
async fn a_pod_needs_its_account() {
    let api = Api::start();
    let mut object = pod("p");
    object["spec"]["serviceAccountName"] = "robot".into();
    let message = api.post(PODS, &object).await.refused(403, "Forbidden");
    assert!(
        message.contains("serviceaccount \"robot\" not found"),
        "{message}"
    );
    let account = json!({"metadata": {"name": "robot"}});
    api.post("/api/v1/namespaces/default/serviceaccounts", &account)
        .await
        .ok();
    api.post(PODS, &object).await.ok();
}

#[tokio::test]
async fn binding_schedules_once() {
    let api = Api::start();
    let pod = running(&api, "p").await;
    assert_eq!(pod["spec"]["nodeName"], "node1");
    assert_eq!(
        pod["metadata"]["generation"], 1,
        "its author asked for nothing new"
    );
    let nameless = json!({"target": {"kind": "Node", "name": "node2"}});
    api.post(&format!("{PODS}/p/binding"), &nameless)
        .await
        .refused(400, "BadRequest");
    assert_eq!(
        condition(&pod["status"]["conditions"], "PodScheduled").as_deref(),
        Some("True")
    );
    let target = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "node2"}});
    api.post(&format!("{PODS}/p/binding"), &target)
        .await
        .refused(409, "Conflict");
    let selected = api
        .get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dnode1"))
        .await
        .ok();
    assert_eq!(names(&selected), ["p"]);
}

#[tokio::test]
async fn a_running_pod_ends_when_its_node_says_so() {
    let api = Api::start();
    running(&api, "p").await;
    let path = format!("{PODS}/p");
    let marked = api.delete(&path).await.ok();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let shorter = api
        .delete(&format!("{path}?gracePeriodSeconds=5"))
        .await
        .ok();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let longer = api
        .delete(&format!("{path}?gracePeriodSeconds=50"))
        .await
        .ok();
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 5);
    let status = json!({"status": {"phase": "Failed"}});
    api.merge(&format!("{path}/status"), &status).await.ok();
    assert!(
        api.exists(&path).await,
        "status writes do not finish a deletion"
    );
    let gone = api
        .delete(&format!("{path}?gracePeriodSeconds=0"))
        .await
        .ok();
    assert_eq!(gone["kind"], "Pod");
    assert!(!api.exists(&path).await);
}

#[tokio::test]
async fn a_pod_nobody_runs_goes_at_once() {
    let api = Api::start();
    api.post(PODS, &pod("p")).await.ok();
    api.delete(&format!("{PODS}/p")).await.ok();
    assert!(!api.exists(&format!("{PODS}/p")).await);
}

#[tokio::test]
async fn eviction_is_a_deletion() {
    let api = Api::start();
    running(&api, "p").await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"},
        "deleteOptions": {"gracePeriodSeconds": 3}});
    api.post(&format!("{PODS}/p/eviction"), &eviction)
        .await
        .ok();
    let pod = api.get(&format!("{PODS}/p")).await.ok();
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 3);
}

#[tokio::test]
async fn the_spec_of_a_pod_stays() {
    let api = Api::start();
    api.post(PODS, &pod("p")).await.ok();
    let path = format!("{PODS}/p");
    let strategic = "application/strategic-merge-patch+json";
    let image = json!({"spec": {"containers": [{"name": "main", "image": "busybox:2"}]}});
    let pod = api.patch(&path, strategic, &image).await.ok();
    assert_eq!(pod["spec"]["containers"][0]["image"], "busybox:2");
    let command = json!({"spec": {"containers": [{"name": "main", "command": ["x"]}]}});
    let message = api
        .patch(&path, strategic, &command)
        .await
        .refused(422, "Invalid");
    assert!(
        message.contains("pod updates may not change fields"),
        "{message}"
    );
}

#[tokio::test]
async fn accounts_get_tokens_that_reviews_recognise() {
    let api = Api::start();
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    eventually("the account exists", || api.exists(account)).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": ["a"], "expirationSeconds": 600}});
    let answer = api.post(&format!("{account}/token"), &request).await.ok();
    let token = answer["status"]["token"].as_str().unwrap();
    let review = |token: &str| {
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token}})
    };
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let status = api.post(reviews, &review(token)).await.ok()["status"].clone();
    assert_eq!(status["authenticated"], true);
    assert_eq!(
        status["user"]["username"],
        "system:serviceaccount:default:default"
    );
    let status = api.post(reviews, &review("x.y.z")).await.ok()["status"].clone();
    assert_eq!(status["authenticated"], false);
    let short = json!({"spec": {"expirationSeconds": 5}});
    api.post(&format!("{account}/token"), &short)
        .await
        .refused(422, "Invalid");
    let can_i = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(api.post(path, &can_i).await.ok()["status"]["allowed"], true);
    api.get(path).await.refused(405, "MethodNotAllowed");
}

#[tokio::test]
async fn events_are_one_resource_under_two_groups() {
    let api = Api::start();
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c",
        "reportingInstance": "i", "action": "a", "reason": "Because", "type": "Normal",
        "note": "hello", "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    api.post("/apis/events.k8s.io/v1/namespaces/default/events", &event)
        .await
        .ok();
    let core = "/api/v1/namespaces/default/events";
    let list = api
        .get(&format!("{core}?fieldSelector=involvedObject.name%3Dp"))
        .await
        .ok();
    assert_eq!(list["items"][0]["message"], "hello");
    assert_eq!(list["items"][0]["involvedObject"]["name"], "p");
    let new = "/apis/events.k8s.io/v1/namespaces/default/events";
    let list = api
        .get(&format!("{new}?fieldSelector=regarding.name%3Dp"))
        .await
        .ok();
    assert_eq!(
        (&list["items"][0]["note"], &list["apiVersion"]),
        (&json!("hello"), &json!("events.k8s.io/v1"))
    );
    assert!(
        names(
            &api.get(&format!("{new}?fieldSelector=regarding.name%3Dq"))
                .await
                .ok()
        )
        .is_empty()
    );
    api.delete(&format!("{core}/e")).await.ok();
    assert!(!api.exists(&format!("{new}/e")).await);
}
