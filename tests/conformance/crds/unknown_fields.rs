//! Fields that no schema names: kept where a pod spec is lean, pruned and reported elsewhere.

use agent_sandbox_crds::PodSpecSchema;
use anyhow::Result;
use serde_json::{Value, json};

use super::{CLAIM, POOL, Resource, SANDBOX, TEMPLATE, blueprint};
use crate::target::{Patch, Target};

#[tokio::test(flavor = "multi_thread")]
async fn of_a_pod_survive_in_a_sandbox() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    let spec = blueprint(|spec| {
        spec["podTemplate"]["spec"]["notYet"] = json!({ "deep": [1, { "x": true }] });
        spec["podTemplate"]["spec"]["containers"][0]["alsoNotYet"] = json!("kept");
    });
    for kind in [SANDBOX, SANDBOX.deprecated()] {
        let path = format!("{}?fieldValidation=Strict", kind.collection(target));
        let reply = target
            .post(&path, &kind.object(kind.version, &spec))
            .await?;
        assert_eq!(reply.created()?["spec"]["podTemplate"], spec["podTemplate"]);
        for reader in [SANDBOX, SANDBOX.deprecated()] {
            let read = reader.spec(target, kind.version).await?;
            assert_eq!(read["podTemplate"], spec["podTemplate"]);
        }
        let change =
            json!({ "spec": { "podTemplate": { "metadata": { "labels": { "a": "b" } } } } });
        let updated = target
            .patch(Patch::Merge, &kind.path(target, kind.version), &change)
            .await?
            .ok()?;
        assert_eq!(
            updated["spec"]["podTemplate"]["spec"],
            spec["podTemplate"]["spec"]
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn are_refused_warned_of_or_pruned_as_the_client_wishes() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    let claim = json!({ "warmPoolRef": { "name": "p" }, "typo": 1 });
    let pool = json!({ "sandboxTemplateRef": { "name": "t", "typo": 1 } });
    let sandbox = blueprint(|spec| spec["podTemplate"]["metadata"] = json!({ "typo": 1 }));
    let template =
        blueprint(|spec| spec["podTemplate"]["spec"]["containers"][0]["typo"] = json!(1));
    for (kind, spec, field) in [
        (CLAIM, claim, "spec.typo"),
        (POOL, pool, "spec.sandboxTemplateRef.typo"),
        (SANDBOX, sandbox, "spec.podTemplate.metadata.typo"),
        (
            TEMPLATE,
            template,
            "spec.podTemplate.spec.containers[0].typo",
        ),
    ] {
        unknown_field(target, kind, &spec, field).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_pod_are_reported_where_the_pod_spec_is_checked_in_full() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Full).await?;
    let spec = blueprint(|spec| spec["podTemplate"]["spec"]["typo"] = json!(1));
    unknown_field(target, SANDBOX, &spec, "spec.podTemplate.spec.typo").await?;
    Ok(())
}

async fn unknown_field(target: &Target, kind: Resource, spec: &Value, field: &str) -> Result<()> {
    let create = async |mode: &str| {
        let path = format!("{}?fieldValidation={mode}", kind.collection(target));
        target
            .post(&path, &kind.object(&mode.to_lowercase(), spec))
            .await
    };
    let unknown = format!("unknown field \"{field}\"");

    let strict = create("Strict").await?;
    let message = strict.body["message"].as_str().unwrap_or_default();
    assert!(
        strict.status.as_u16() == 400 && message.contains(&unknown),
        "{}",
        strict.body
    );

    let warned = create("Warn").await?;
    assert!(
        warned.warnings().iter().any(|w| w.contains(&unknown)),
        "{warned:?}"
    );
    assert!(!warned.created()?.to_string().contains("typo"));

    let ignored = create("Ignore").await?;
    assert_eq!(ignored.warnings(), [""; 0]);
    assert!(!ignored.created()?.to_string().contains("typo"));
    Ok(())
}
