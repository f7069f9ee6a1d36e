//! Error answers: codes, reasons, words and details.

use anyhow::Result;
use http::Method;
use serde_json::json;

use crate::target::{Patch, Target, config_map, pod, text};

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist() -> Result<()> {
    let target = Target::new().await?;
    let status = target
        .get(&target.config_maps("none"))
        .await?
        .error(404, "NotFound");
    assert_eq!(
        status,
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "configmaps \"none\" not found", "reason": "NotFound",
            "details": {"name": "none", "kind": "configmaps"}, "code": 404,
        })
    );
    let deployment = target.path("/apis/apps/v1", "deployments/none");
    let status = target.get(&deployment).await?.error_saying(
        404,
        "NotFound",
        "deployments.apps \"none\" not found",
    );
    assert_eq!(
        status["details"],
        json!({"name": "none", "group": "apps", "kind": "deployments"})
    );
    for path in [
        "/api/v1/gizmos".to_owned(),
        "/apis/none.example.com/v1/gizmos".to_owned(),
        target.path("/api/v1", "gizmos/a"),
        target.path("/apis/apps/v9", "deployments"),
    ] {
        let answer = target.get(&path).await?;
        assert_eq!(answer.status.as_u16(), 404, "{path}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_allowed_on_a_path() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    let answer = target.put(&maps, &config_map("a", json!({}))).await?;
    answer.error_saying(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    );
    let namespaces = target.delete("/api/v1/namespaces").await?;
    namespaces.error(405, "MethodNotAllowed");
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    target.get(reviews).await?.error(405, "MethodNotAllowed");
    let accept = [("accept", "application/xml")];
    let answer = target.call(Method::GET, &maps, &accept, None).await?;
    assert_eq!(answer.status.as_u16(), 406);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_fit() -> Result<()> {
    let target = Target::new().await?;
    let maps = target.config_maps("");
    for (body, message) in [
        (
            json!({"metadata": {"name": "a"}, "data": {"k": 1}}),
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal \
             number into Go struct field ConfigMap.data of type string",
        ),
        (
            json!({"metadata": {"name": "a", "labels": {"k": true}}}),
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal \
             bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
    ] {
        target
            .post(&maps, &body)
            .await?
            .error_saying(400, "BadRequest", message);
    }
    for (api_version, kind) in [
        ("v2", "ConfigMap"),
        ("v1", "Secret"),
        ("apps/v1", "Deployment"),
    ] {
        let body = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}});
        let status = target.post(&maps, &body).await?.error(400, "BadRequest");
        let message = text(&status, "/message");
        let version = api_version.rsplit('/').next().unwrap_or_default();
        let start = format!("{kind} in version \"{version}\" cannot be handled as a ConfigMap: ");
        assert!(message.starts_with(&start), "{message}");
    }
    // The published answer, although the fault is the client's.
    let body = json!({"metadata": {"name": "a", "resourceVersion": "5"}});
    let answer = target.post(&maps, &body).await?;
    assert_eq!(
        (answer.status.as_u16(), text(&answer.body, "/message")),
        (
            500,
            "resourceVersion should not be set on objects to be created"
        )
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_objects_list_their_causes() -> Result<()> {
    let target = Target::new().await?;
    let mut wrong = pod("p");
    wrong["spec"]["containers"] = json!([{"name": "a"}]);
    let status = target
        .post(&target.path("/api/v1", "pods"), &wrong)
        .await?
        .error_saying(
            422,
            "Invalid",
            "Pod \"p\" is invalid: spec.containers[0].image: Required value",
        );
    assert_eq!(
        status["details"],
        json!({"name": "p", "kind": "Pod", "causes": [{
            "reason": "FieldValueRequired", "message": "Required value",
            "field": "spec.containers[0].image"}]})
    );
    wrong["spec"]["containers"] = json!([{"name": "a", "image": "b", "ports": [{"containerPort": 0}]}, {"name": "a", "image": "b"}]);
    target
        .post(&target.path("/api/v1", "pods"), &wrong)
        .await?
        .error_saying(
            422,
            "Invalid",
            "Pod \"p\" is invalid: [spec.containers[0].ports[0].containerPort: Required value, \
             spec.containers[1].name: Duplicate value: \"a\"]",
        );
    let status = target
        .post(
            &target.path("/apis/apps/v1", "deployments"),
            &json!({"metadata": {"name": "d"}}),
        )
        .await?;
    let status = status.error(422, "Invalid");
    assert!(
        text(&status, "/message").starts_with("Deployment.apps \"d\" is invalid: ["),
        "{status}"
    );
    assert_eq!(status["details"]["group"], "apps");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_version_need_no_object() -> Result<()> {
    let target = Target::new().await?;
    for path in ["/healthz", "/livez", "/readyz"] {
        let answer = target.get(path).await?;
        assert_eq!(
            (answer.status.as_u16(), answer.body),
            (200, json!("ok")),
            "{path}"
        );
    }
    let version = target.get("/version").await?.ok()?;
    assert_eq!(
        (text(&version, "/major"), text(&version, "/minor")),
        ("1", "36")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_make_no_sense() -> Result<()> {
    let target = Target::new().await?;
    target
        .create(&target.config_maps(""), &config_map("a", json!({})))
        .await?;
    let path = target.config_maps("a");
    let wrong = target
        .delete_with(&path, json!({"propagationPolicy": "Sideways"}))
        .await?;
    let status = wrong.error(422, "Invalid");
    assert!(
        text(&status, "/message").contains("propagationPolicy"),
        "{status}"
    );
    let both = json!({"propagationPolicy": "Background", "orphanDependents": true});
    target.delete_with(&path, both).await?.error(422, "Invalid");
    let long = "m".repeat(129);
    let status = target
        .patch(
            Patch::Merge,
            &format!("{path}?fieldManager={long}"),
            &json!({}),
        )
        .await?
        .error(422, "Invalid");
    assert!(
        text(&status, "/message").contains("fieldManager"),
        "{status}"
    );
    let wrong = format!("{path}?fieldValidation=Maybe");
    let status = target
        .patch(Patch::Merge, &wrong, &json!({}))
        .await?
        .error(422, "Invalid");
    assert!(
        text(&status, "/message").contains("fieldValidation"),
        "{status}"
    );
    Ok(())
}
