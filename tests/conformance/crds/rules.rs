//! The validation rules in the definitions, with their messages.

use agent_sandbox_crds::PodSpecSchema;
use anyhow::Result;
use serde_json::{Value, json};

use super::{CLAIM, Resource, SANDBOX, blueprint, volume_claim};
use crate::target::{Patch, Target};

#[tokio::test(flavor = "multi_thread")]
async fn volume_claim_templates_of_a_sandbox_are_immutable() -> Result<()> {
    for pod_spec in [PodSpecSchema::Full, PodSpecSchema::Lean] {
        let target = &Target::with_crds(pod_spec).await?;
        let with =
            blueprint(|spec| spec["volumeClaimTemplates"] = json!([volume_claim("data", "1Gi")]));
        SANDBOX.create(target, "with", &with).await?;
        SANDBOX
            .create(target, "without", &blueprint(|_| {}))
            .await?;
        for kind in [SANDBOX, SANDBOX.deprecated()] {
            for (name, templates) in [
                ("with", json!([volume_claim("data", "2Gi")])),
                (
                    "with",
                    json!([volume_claim("data", "1Gi"), volume_claim("more", "1Gi")]),
                ),
                ("with", json!([])),
                ("with", Value::Null),
                ("without", json!([volume_claim("data", "1Gi")])),
                ("without", json!([])),
            ] {
                let change = json!({ "spec": { "volumeClaimTemplates": templates } });
                let reply = target
                    .patch(Patch::Merge, &kind.path(target, name), &change)
                    .await?;
                reply.refused("spec", "volumeClaimTemplates is immutable");
            }
            for name in ["with", "without"] {
                let change =
                    json!({ "spec": { "operatingMode": "Suspended", "shutdownPolicy": "Delete" } });
                target
                    .patch(Patch::Merge, &kind.path(target, name), &change)
                    .await?
                    .ok()?;
            }
            let same = json!({ "spec": { "volumeClaimTemplates": [volume_claim("data", "1Gi")] } });
            target
                .patch(Patch::Merge, &kind.path(target, "with"), &same)
                .await?
                .ok()?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_names_exactly_one_source() -> Result<()> {
    const ONE: &str = "exactly one of warmPoolRef and sandboxTemplateRef must be set";
    const TOGETHER: &str = "warmpool may only be set together with sandboxTemplateRef";
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    let (pool, template) = (json!({ "name": "p" }), json!({ "name": "t" }));
    for kind in [CLAIM, CLAIM.deprecated()] {
        let create = async |spec: Value| {
            target
                .post(&kind.collection(target), &kind.object("refused", &spec))
                .await
        };
        create(json!({})).await?.refused("spec", ONE);
        create(json!({ "warmPoolRef": pool, "sandboxTemplateRef": template }))
            .await?
            .refused("spec", ONE);
        create(json!({ "warmPoolRef": pool, "warmpool": "p" }))
            .await?
            .refused("spec.warmpool", TOGETHER);
        create(json!({ "warmPoolRef": pool, "warmpool": "none" }))
            .await?
            .refused("spec.warmpool", TOGETHER);
        let accepted = [
            json!({ "warmPoolRef": pool }),
            json!({ "warmPoolRef": pool, "warmpool": "default" }),
            json!({ "sandboxTemplateRef": template }),
            json!({ "sandboxTemplateRef": template, "warmpool": "none" }),
            json!({ "sandboxTemplateRef": template, "warmpool": "p" }),
        ];
        for (at, spec) in accepted.iter().enumerate() {
            kind.create(target, &format!("{}-{at}", kind.version), spec)
                .await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_claim_asked_for_is_fixed_once_it_has_a_sandbox() -> Result<()> {
    const SOURCE: &str =
        "warmPoolRef, sandboxTemplateRef and warmpool are immutable once the claim has a sandbox";
    const ENV: &str = "env is immutable once the claim has a sandbox";
    const CLAIMS: &str = "volumeClaimTemplates is immutable once the claim has a sandbox";
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    let env = json!([{ "name": "A", "value": "1" }]);
    let claims = json!([volume_claim("data", "1Gi")]);
    let by_pool = json!({ "warmPoolRef": { "name": "p" } });
    let by_template = json!({ "sandboxTemplateRef": { "name": "t" }, "env": env, "volumeClaimTemplates": claims });
    let changes = [
        ("pool", json!({ "warmPoolRef": { "name": "q" } }), SOURCE),
        (
            "pool",
            json!({ "warmPoolRef": null, "sandboxTemplateRef": { "name": "t" } }),
            SOURCE,
        ),
        (
            "template",
            json!({ "sandboxTemplateRef": { "name": "u" } }),
            SOURCE,
        ),
        (
            "template",
            json!({ "sandboxTemplateRef": null, "warmPoolRef": { "name": "p" } }),
            SOURCE,
        ),
        ("template", json!({ "warmpool": "none" }), SOURCE),
        ("pool", json!({ "env": env }), ENV),
        ("template", json!({ "env": null }), ENV),
        (
            "template",
            json!({ "env": [{ "name": "A", "value": "2" }] }),
            ENV,
        ),
        ("pool", json!({ "volumeClaimTemplates": claims }), CLAIMS),
        (
            "template",
            json!({ "volumeClaimTemplates": [volume_claim("data", "2Gi")] }),
            CLAIMS,
        ),
        ("template", json!({ "volumeClaimTemplates": [] }), CLAIMS),
    ];

    // Before: everything may change. A dry run leaves the claim as it was for the next change.
    CLAIM.create(target, "pool", &by_pool).await?;
    CLAIM.create(target, "template", &by_template).await?;
    for (name, change, _) in &changes {
        let path = format!("{}?dryRun=All", CLAIM.path(target, name));
        target
            .patch(Patch::Merge, &path, &json!({ "spec": change }))
            .await?
            .ok()?;
    }

    bind(target, CLAIM, "pool").await?;
    bind(target, CLAIM, "template").await?;
    for (name, change, message) in &changes {
        let reply = target
            .patch(
                Patch::Merge,
                &CLAIM.path(target, name),
                &json!({ "spec": change }),
            )
            .await?;
        let field = match *message {
            ENV => "spec.env",
            CLAIMS => "spec.volumeClaimTemplates",
            _ => "spec",
        };
        reply.refused(field, message);
    }

    // What has no bearing on the sandbox's making may change, also through the version that fills in `warmpool`.
    for kind in [CLAIM, CLAIM.deprecated()] {
        for name in ["pool", "template"] {
            let change = json!({ "spec": {
                    "lifecycle": { "shutdownPolicy": "Delete", "ttlSecondsAfterFinished": 1 },
                    "additionalPodMetadata": { "annotations": { "version": kind.version } },
                } });
            target
                .patch(Patch::Merge, &kind.path(target, name), &change)
                .await?
                .ok()?;
        }
    }
    let empty = json!({ "spec": { "env": [] } });
    target
        .patch(Patch::Merge, &CLAIM.path(target, "pool"), &empty)
        .await?
        .ok()?;

    // An unbound claim is free again.
    let unbound = json!({ "status": { "sandbox": null } });
    target
        .patch(
            Patch::Merge,
            &format!("{}/status", CLAIM.path(target, "pool")),
            &unbound,
        )
        .await?
        .ok()?;
    let change = json!({ "spec": { "warmPoolRef": { "name": "q" } } });
    target
        .patch(Patch::Merge, &CLAIM.path(target, "pool"), &change)
        .await?
        .ok()?;
    Ok(())
}

async fn bind(target: &Target, kind: Resource, name: &str) -> Result<()> {
    let status = json!({ "status": { "sandbox": { "name": "box", "podIPs": ["10.0.0.1"] } } });
    target
        .patch(
            Patch::Merge,
            &format!("{}/status", kind.path(target, name)),
            &status,
        )
        .await?
        .ok()?;
    Ok(())
}
