//! The validation rules in the definitions, with their messages.

use agent_sandbox_crds::PodSpecSchema;
use serde_json::{Value, json};

use super::{CLAIM, Resource, SANDBOX, blueprint, volume_claim};
use crate::scope::{Scope, with_crds};

#[tokio::test]
async fn volume_claim_templates_of_a_sandbox_are_immutable() {
    for pod_spec in [PodSpecSchema::Full, PodSpecSchema::Lean] {
        with_crds(pod_spec, async |scope| {
            let with = blueprint(|spec| spec["volumeClaimTemplates"] = json!([volume_claim("data", "1Gi")]));
            SANDBOX.create(scope, "with", &with).await;
            SANDBOX.create(scope, "without", &blueprint(|_| {})).await;
            for kind in [SANDBOX, SANDBOX.deprecated()] {
                for (name, templates) in [
                    ("with", json!([volume_claim("data", "2Gi")])),
                    ("with", json!([volume_claim("data", "1Gi"), volume_claim("more", "1Gi")])),
                    ("with", json!([])),
                    ("with", Value::Null),
                    ("without", json!([volume_claim("data", "1Gi")])),
                    ("without", json!([])),
                ] {
                    let change = json!({ "spec": { "volumeClaimTemplates": templates } });
                    let reply = scope.merge(&kind.path(scope, name), &change).await;
                    reply.refused("spec", "volumeClaimTemplates is immutable");
                }
                for name in ["with", "without"] {
                    let change = json!({ "spec": { "operatingMode": "Suspended", "shutdownPolicy": "Delete" } });
                    scope.merge(&kind.path(scope, name), &change).await.ok();
                }
                let same = json!({ "spec": { "volumeClaimTemplates": [volume_claim("data", "1Gi")] } });
                scope.merge(&kind.path(scope, "with"), &same).await.ok();
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_claim_names_exactly_one_source() {
    with_crds(PodSpecSchema::Lean, async |scope| {
        const ONE: &str = "exactly one of warmPoolRef and sandboxTemplateRef must be set";
        const TOGETHER: &str = "warmpool may only be set together with sandboxTemplateRef";
        let (pool, template) = (json!({ "name": "p" }), json!({ "name": "t" }));
        for kind in [CLAIM, CLAIM.deprecated()] {
            let create = async |spec: Value| {
                scope
                    .post(&kind.collection(scope), &kind.object("refused", &spec))
                    .await
            };
            create(json!({})).await.refused("spec", ONE);
            create(json!({ "warmPoolRef": pool, "sandboxTemplateRef": template }))
                .await
                .refused("spec", ONE);
            create(json!({ "warmPoolRef": pool, "warmpool": "p" }))
                .await
                .refused("spec.warmpool", TOGETHER);
            create(json!({ "warmPoolRef": pool, "warmpool": "none" }))
                .await
                .refused("spec.warmpool", TOGETHER);
            let accepted = [
                json!({ "warmPoolRef": pool }),
                json!({ "warmPoolRef": pool, "warmpool": "default" }),
                json!({ "sandboxTemplateRef": template }),
                json!({ "sandboxTemplateRef": template, "warmpool": "none" }),
                json!({ "sandboxTemplateRef": template, "warmpool": "p" }),
            ];
            for (at, spec) in accepted.iter().enumerate() {
                kind.create(scope, &format!("{}-{at}", kind.version), spec)
                    .await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_claim_asked_for_is_fixed_once_it_has_a_sandbox() {
    with_crds(PodSpecSchema::Lean, async |scope| {
        const SOURCE: &str = "warmPoolRef, sandboxTemplateRef and warmpool are immutable once the claim has a sandbox";
        const ENV: &str = "env is immutable once the claim has a sandbox";
        const CLAIMS: &str = "volumeClaimTemplates is immutable once the claim has a sandbox";
        let env = json!([{ "name": "A", "value": "1" }]);
        let claims = json!([volume_claim("data", "1Gi")]);
        let by_pool = json!({ "warmPoolRef": { "name": "p" } });
        let by_template = json!({ "sandboxTemplateRef": { "name": "t" }, "env": env, "volumeClaimTemplates": claims });
        let changes = [
            ("pool", json!({ "warmPoolRef": { "name": "q" } }), SOURCE),
            ("pool", json!({ "warmPoolRef": null, "sandboxTemplateRef": { "name": "t" } }), SOURCE),
            ("template", json!({ "sandboxTemplateRef": { "name": "u" } }), SOURCE),
            ("template", json!({ "sandboxTemplateRef": null, "warmPoolRef": { "name": "p" } }), SOURCE),
            ("template", json!({ "warmpool": "none" }), SOURCE),
            ("pool", json!({ "env": env }), ENV),
            ("template", json!({ "env": null }), ENV),
            ("template", json!({ "env": [{ "name": "A", "value": "2" }] }), ENV),
            ("pool", json!({ "volumeClaimTemplates": claims }), CLAIMS),
            ("template", json!({ "volumeClaimTemplates": [volume_claim("data", "2Gi")] }), CLAIMS),
            ("template", json!({ "volumeClaimTemplates": [] }), CLAIMS),
        ];

        // Before: everything may change. A dry run leaves the claim as it was for the next change.
        CLAIM.create(scope, "pool", &by_pool).await;
        CLAIM.create(scope, "template", &by_template).await;
        for (name, change, _) in &changes {
            let path = format!("{}?dryRun=All", CLAIM.path(scope, name));
            scope.merge(&path, &json!({ "spec": change })).await.ok();
        }

        bind(scope, CLAIM, "pool").await;
        bind(scope, CLAIM, "template").await;
        for (name, change, message) in &changes {
            let reply = scope.merge(&CLAIM.path(scope, name), &json!({ "spec": change })).await;
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
                scope.merge(&kind.path(scope, name), &change).await.ok();
            }
        }
        let empty = json!({ "spec": { "env": [] } });
        scope.merge(&CLAIM.path(scope, "pool"), &empty).await.ok();

        // An unbound claim is free again.
        let unbound = json!({ "status": { "sandbox": null } });
        scope.merge(&format!("{}/status", CLAIM.path(scope, "pool")), &unbound).await.ok();
        let change = json!({ "spec": { "warmPoolRef": { "name": "q" } } });
        scope.merge(&CLAIM.path(scope, "pool"), &change).await.ok();
    })
    .await;
}

async fn bind(scope: &Scope, kind: Resource, name: &str) {
    let status = json!({ "status": { "sandbox": { "name": "box", "podIPs": ["10.0.0.1"] } } });
    scope
        .merge(&format!("{}/status", kind.path(scope, name)), &status)
        .await
        .ok();
}
