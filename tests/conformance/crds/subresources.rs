//! `status` and `scale`.

use agent_sandbox_crds::PodSpecSchema;
use anyhow::Result;
use serde_json::{Value, json};

use super::{CLAIM, POOL, SANDBOX, TEMPLATE, blueprint};
use crate::target::{Patch, Target};

#[tokio::test(flavor = "multi_thread")]
async fn status_and_spec_are_written_apart() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    for (kind, spec, status, spec_change) in [
        (
            SANDBOX,
            blueprint(|_| {}),
            json!({ "selector": "a=b" }),
            json!({ "operatingMode": "Suspended" }),
        ),
        (
            CLAIM,
            json!({ "warmPoolRef": { "name": "p" } }),
            json!({ "sandbox": { "name": "s" } }),
            json!({ "lifecycle": {} }),
        ),
        (
            POOL,
            json!({ "sandboxTemplateRef": { "name": "t" } }),
            json!({ "replicas": 1 }),
            json!({ "replicas": 5 }),
        ),
        (
            TEMPLATE,
            blueprint(|_| {}),
            json!({ "observedGeneration": 1 }),
            json!({ "networkPolicyManagement": "Unmanaged" }),
        ),
    ] {
        let mut object = kind.object("a", &spec);
        object["status"] = status.clone();
        let created = target.create(&kind.collection(target), &object).await?;
        assert_eq!(created.get("status"), None, "{}", kind.kind);

        let path = kind.path(target, "a");
        let both = json!({ "spec": spec_change, "status": status });
        let updated = target
            .patch(Patch::Merge, &format!("{path}/status"), &both)
            .await?
            .ok()?;
        assert_eq!(updated["status"], status, "{}", kind.kind);
        assert_eq!(updated["spec"], created["spec"], "{}", kind.kind);
        assert_eq!(updated["metadata"]["generation"], 1, "{}", kind.kind);

        let both = json!({ "spec": spec_change, "status": null });
        let updated = target.patch(Patch::Merge, &path, &both).await?.ok()?;
        assert_eq!(updated["status"], status, "{}", kind.kind);
        assert_ne!(updated["spec"], created["spec"], "{}", kind.kind);
        assert_eq!(updated["metadata"]["generation"], 2, "{}", kind.kind);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_scales() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    POOL.create(
        target,
        "a",
        &json!({ "sandboxTemplateRef": { "name": "t" } }),
    )
    .await?;
    let path = POOL.path(target, "a");
    let status = json!({ "status": { "replicas": 1, "readyReplicas": 1, "selector": "pool=a" } });
    target
        .patch(Patch::Merge, &format!("{path}/status"), &status)
        .await?
        .ok()?;

    let scale = target.get(&format!("{path}/scale")).await?.ok()?;
    assert_eq!(scale["spec"], json!({ "replicas": 1 }));
    assert_eq!(
        scale["status"],
        json!({ "replicas": 1, "selector": "pool=a" })
    );
    assert_eq!(
        (&scale["apiVersion"], &scale["kind"]),
        (&json!("autoscaling/v1"), &json!("Scale"))
    );

    for replicas in [7, 0] {
        let change = json!({ "spec": { "replicas": replicas } });
        target
            .patch(Patch::Merge, &format!("{path}/scale"), &change)
            .await?
            .ok()?;
        assert_eq!(POOL.spec(target, "a").await?["replicas"], replicas);
    }
    let reply = target
        .patch(
            Patch::Merge,
            &format!("{path}/scale"),
            &json!({ "spec": { "replicas": -1 } }),
        )
        .await?;
    reply.refused("spec.replicas", "greater than or equal to 0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_scales_between_none_and_one_in_the_deprecated_version_only() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    // Written through the stored version, where nothing mentions replicas.
    SANDBOX.create(target, "a", &blueprint(|_| {})).await?;
    let path = format!("{}/scale", SANDBOX.deprecated().path(target, "a"));
    let scale = target.get(&path).await?.ok()?;
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["replicas"]),
        (&json!(1), &json!(0))
    );

    let status = json!({ "status": { "replicas": 1, "selector": "name=a" } });
    target
        .patch(
            Patch::Merge,
            &format!("{}/status", SANDBOX.path(target, "a")),
            &status,
        )
        .await?
        .ok()?;
    let scale = target.get(&path).await?.ok()?;
    assert_eq!(
        scale["status"],
        json!({ "replicas": 1, "selector": "name=a" })
    );

    target
        .patch(Patch::Merge, &path, &json!({ "spec": { "replicas": 0 } }))
        .await?
        .ok()?;
    assert_eq!(SANDBOX.spec(target, "a").await?["replicas"], 0);
    let reply = target
        .patch(Patch::Merge, &path, &json!({ "spec": { "replicas": 2 } }))
        .await?;
    reply.refused("spec.replicas", "less than or equal to 1");

    let reply = target
        .get(&format!("{}/scale", SANDBOX.path(target, "a")))
        .await?;
    assert_eq!(reply.status.as_u16(), 404, "{}", reply.body);
    assert_eq!(reply.body.get("spec"), None::<&Value>);
    Ok(())
}
