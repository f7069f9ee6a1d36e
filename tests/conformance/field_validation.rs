//! Unknown and duplicate fields: refused, warned about or ignored, as the client chooses.

use anyhow::Result;
use http::Method;
use serde_json::json;

use crate::target::{Answer, Patch, Target, only_v1, text};

async fn post(target: &Target, query: &str, body: &str) -> Result<Answer> {
    let path = format!("{}{query}", target.config_maps(""));
    let json = [("content-type", "application/json")];
    target
        .call_raw(Method::POST, &path, &json, body.as_bytes().to_vec())
        .await
}

const TYPO: &str = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "lables": {}}, "dta": {}}"#;
const TWICE: &str = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"k": "1", "k": "2"}, "immutable": false, "immutable": false}"#;

#[tokio::test(flavor = "multi_thread")]
async fn strict_refuses() -> Result<()> {
    let target = Target::new().await?;
    post(&target, "?fieldValidation=Strict", TYPO)
        .await?
        .error_saying(
            400,
            "BadRequest",
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: \
             unknown field \"metadata.lables\", unknown field \"dta\"",
        );
    post(&target, "?fieldValidation=Strict", TWICE)
        .await?
        .error_saying(
            400,
            "BadRequest",
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: \
             duplicate field \"data.k\", duplicate field \"immutable\"",
        );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn warn_is_the_default_and_says_so() -> Result<()> {
    let target = Target::new().await?;
    let answer = post(&target, "", TYPO).await?;
    assert_eq!(
        answer.warnings(),
        ["unknown field \"metadata.lables\"", "unknown field \"dta\""]
    );
    let created = answer.created()?;
    assert!(created.get("dta").is_none(), "unknown fields are dropped");
    let answer = post(&target, "?fieldValidation=Warn", TWICE).await?;
    assert_eq!(
        answer.warnings(),
        [
            "duplicate field \"data.k\"",
            "duplicate field \"immutable\""
        ]
    );
    assert_eq!(
        text(&answer.created()?, "/data/k"),
        "2",
        "the last one wins"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ignore_is_silent() -> Result<()> {
    let target = Target::new().await?;
    let answer = post(&target, "?fieldValidation=Ignore", TYPO).await?;
    assert_eq!(answer.warnings(), Vec::<String>::new());
    answer.created()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_fields_are_named_by_path() -> Result<()> {
    let target = Target::new().await?;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"schedulerName": "none",
        "containers": [{"name": "a", "image": "b", "imagePolicy": "Always", "ports": [{"containerPort": 1, "protcol": "TCP"}]}],
        "volumes": [{"name": "v", "emptydir": {}}]}});
    let path = target.path("/api/v1", "pods?fieldValidation=Strict");
    target.post(&path, &pod).await?.error_saying(
        400,
        "BadRequest",
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \
         \"spec.containers[0].imagePolicy\", unknown field \
         \"spec.containers[0].ports[0].protcol\", unknown field \"spec.volumes[0].emptydir\"",
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_are_checked_by_their_result() -> Result<()> {
    let target = Target::new().await?;
    post(&target, "?fieldValidation=Ignore", TYPO)
        .await?
        .created()?;
    let path = format!("{}?fieldValidation=Strict", target.config_maps("a"));
    let typo = json!({"dta": {"k": "v"}});
    let status = target
        .patch(Patch::Merge, &path, &typo)
        .await?
        .error(422, "Invalid");
    assert!(
        text(&status, "/message").contains("strict decoding error: unknown field \"dta\""),
        "{status}"
    );
    let warned = target
        .patch(Patch::Merge, &target.config_maps("a"), &typo)
        .await?;
    assert_eq!(warned.warnings(), ["unknown field \"dta\""]);
    warned.ok()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources_are_pruned_to_their_schema() -> Result<()> {
    let target = Target::new().await?;
    let custom = target
        .define("Strict", only_v1(json!({"schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"a": {"type": "string"}, "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}}})))
        .await?;
    let object = |name: &str| {
        custom.object(
            name,
            json!({"spec": {"a": "1", "b": "2", "free": {"c": {"d": 1}}}}),
        )
    };
    let path = custom.path(&target, "v1", "");
    let answer = target.post(&path, &object("x")).await?;
    assert_eq!(answer.warnings(), ["unknown field \"spec.b\""]);
    assert_eq!(
        answer.created()?["spec"],
        json!({"a": "1", "free": {"c": {"d": 1}}})
    );
    let status = target
        .post(&format!("{path}?fieldValidation=Strict"), &object("y"))
        .await?;
    let status = status.error(400, "BadRequest");
    assert!(
        text(&status, "/message").contains("unknown field \"spec.b\""),
        "{status}"
    );
    Ok(())
}
