//! CEL rules of custom resources.

use serde_json::json;

use crate::harness::*;

#[tokio::test]
async fn rules_judge_new_and_changed_values() {
    let api = Api::with_things().await;
    let message = api
        .post(THINGS, &thing("a", 101))
        .await
        .refused(422, "Invalid");
    assert!(message.contains("size must be at most 100"), "{message}");
    let mut object = thing("a", 1);
    object["spec"]["fixed"] = "x".into();
    api.post(THINGS, &object).await.ok();
    let path = format!("{THINGS}/a");
    let patch = json!({"spec": {"fixed": "y"}});
    let message = api.merge(&path, &patch).await.refused(422, "Invalid");
    assert!(message.contains("fixed is immutable"), "{message}");
    api.merge(&path, &json!({"spec": {"size": 2}})).await.ok();
}

#[tokio::test]
async fn a_rule_that_does_not_compile_refuses_the_definition() {
    let api = Api::start();
    let mut broken = definition();
    broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"]
        [0]["rule"] = "self.nothing(".into();
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let answer = api.post(path, &broken).await;
    let field = answer.body["details"]["causes"][0]["field"].clone();
    answer.refused(422, "Invalid");
    let expected = "spec.versions[0].schema.openAPIV3Schema";
    assert!(field.as_str().unwrap().starts_with(expected), "{field}");
}
