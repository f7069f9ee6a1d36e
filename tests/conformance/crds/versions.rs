//! Objects written through one version and read and changed through the other.

use agent_sandbox_crds::claim::{ClaimSource, Warmth};
use agent_sandbox_crds::{PodSpecSchema, Sandbox, SandboxClaim};
use anyhow::Result;
use serde_json::{Value, json};

use super::{CLAIM, POOL, Resource, SANDBOX, TEMPLATE, blueprint, volume_claim};
use crate::target::Target;

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_either_version_survive_both() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    let sandbox = blueprint(|spec| {
        spec["operatingMode"] = json!("Suspended");
        spec["replicas"] = json!(0);
        spec["shutdownPolicy"] = json!("Delete");
        spec["shutdownTime"] = json!("2030-01-01T00:00:00Z");
        spec["service"] = json!(false);
        spec["volumeClaimTemplates"] = json!([volume_claim("data", "1Gi")]);
    });
    let template = blueprint(|spec| {
        spec["volumeClaimTemplatesPolicy"] = json!("Overrides");
        spec["envVarsInjectionPolicy"] = json!("Allowed");
        spec["networkPolicyManagement"] = json!("Unmanaged");
        spec["networkPolicy"] = json!({ "ingress": [], "egress": [{ "ports": [{ "port": 53 }] }] });
    });
    let new_claim = json!({
        "warmPoolRef": { "name": "p" },
        "volumeClaimTemplates": [volume_claim("data", "1Gi")],
        "env": [{ "name": "A", "value": "1", "containerName": "main" }],
        "additionalPodMetadata": { "labels": { "a": "b" }, "annotations": { "c": "d" } },
        "lifecycle": { "shutdownPolicy": "DeleteForeground", "ttlSecondsAfterFinished": 0 },
    });
    let old_claim = json!({ "sandboxTemplateRef": { "name": "t" }, "warmpool": "none" });
    let pool = json!({ "sandboxTemplateRef": { "name": "t" }, "replicas": 2, "updateStrategy": { "type": "Recreate" } });
    for (kind, name, spec) in [
        (SANDBOX, "s", &sandbox),
        (TEMPLATE, "t", &template),
        (CLAIM, "new", &new_claim),
        (CLAIM, "old", &old_claim),
        (POOL, "p", &pool),
    ] {
        for writer in [kind, kind.deprecated()] {
            let name = format!("{name}-{}", writer.version);
            writer.create(target, &name, spec).await?;
            let mut changed = spec.clone();
            if writer.version == "v1alpha1" && name.starts_with("new") {
                changed["warmpool"] = json!("default");
            }
            for reader in [kind, kind.deprecated()] {
                assert_eq!(
                    reader.spec(target, &name).await?,
                    changed,
                    "{name} {}",
                    reader.version
                );
                // A full update by a client of this version, which sends back what it read.
                let path = reader.path(target, &name);
                let mut object = target.get(&path).await?.ok()?;
                object["metadata"]["labels"] = json!({ "touched-by": reader.version });
                let updated = target.put(&path, &object).await?.ok()?;
                if reader.version == "v1alpha1" && name.starts_with("new") {
                    changed["warmpool"] = json!("default");
                }
                assert_eq!(updated["spec"], changed, "{name} {}", reader.version);
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deprecated_version_fills_in_the_pool_of_a_claim_and_nobody_else_does() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    let old = json!({ "sandboxTemplateRef": { "name": "t" } });
    let kept = CLAIM.deprecated().create(target, "old", &old).await?;
    assert_eq!(kept["warmpool"], "default");

    let new = json!({ "warmPoolRef": { "name": "p" } });
    CLAIM.create(target, "new", &new).await?;
    for reader in [CLAIM, CLAIM.deprecated()] {
        assert_eq!(reader.spec(target, "new").await?, new, "{}", reader.version);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_type_reads_both() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    let old = json!({ "sandboxTemplateRef": { "name": "t" }, "warmpool": "none" });
    CLAIM.deprecated().create(target, "old", &old).await?;
    CLAIM
        .create(target, "new", &json!({ "warmPoolRef": { "name": "p" } }))
        .await?;
    let claim = async |kind: Resource, name: &str| -> Result<SandboxClaim> {
        let claim = target.get(&kind.path(target, name)).await?.ok()?;
        Ok(serde_json::from_value(claim)?)
    };
    for kind in [CLAIM, CLAIM.deprecated()] {
        let old = claim(kind, "old").await?;
        let expected = ClaimSource::Template {
            name: "t",
            warmth: Warmth::Cold,
        };
        assert_eq!(old.spec.source(), Some(expected));
        let new = claim(kind, "new").await?;
        assert_eq!(new.spec.source(), Some(ClaimSource::Pool("p")));
    }

    for (name, mode, replicas, runs) in [
        ("a", "Running", 1, true),
        ("b", "Running", 0, false),
        ("c", "Suspended", 1, false),
    ] {
        let spec = blueprint(|spec| {
            spec["operatingMode"] = json!(mode);
            spec["replicas"] = json!(replicas);
        });
        SANDBOX.deprecated().create(target, name, &spec).await?;
        let read = target.get(&SANDBOX.path(target, name)).await?.ok()?;
        let sandbox: Sandbox = serde_json::from_value(read).unwrap();
        assert_eq!(sandbox.spec.wants_running(), runs, "{name}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deprecated_version_says_so() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    for kind in [SANDBOX, CLAIM, TEMPLATE, POOL] {
        let reply = target.get(&kind.collection(target)).await?;
        assert_eq!(reply.warnings(), [""; 0], "{}", kind.kind);
        let reply = target.get(&kind.deprecated().collection(target)).await?;
        let (group, kind) = (kind.group, kind.kind);
        let text =
            format!("{group}/v1alpha1 {kind} is deprecated; use {group}/v1beta1 {kind} instead");
        assert_eq!(reply.warnings(), [text]);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_in_either_version_has_every_object() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    SANDBOX
        .deprecated()
        .create(target, "old", &blueprint(|_| {}))
        .await?;
    SANDBOX.create(target, "new", &blueprint(|_| {})).await?;
    for kind in [SANDBOX, SANDBOX.deprecated()] {
        let list = target.get(&kind.collection(target)).await?.ok()?;
        let found: Vec<_> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| (item["metadata"]["name"].clone(), item["apiVersion"].clone()))
            .collect();
        let version = Value::from(kind.group_version());
        assert_eq!(
            found,
            [(json!("new"), version.clone()), (json!("old"), version)]
        );
    }
    Ok(())
}
