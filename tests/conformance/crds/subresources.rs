//! `status` and `scale`.

use agent_sandbox_crds::PodSpecSchema;
use serde_json::{Value, json};

use super::{CLAIM, POOL, SANDBOX, TEMPLATE, blueprint};
use crate::scope::with_crds;

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    with_crds(PodSpecSchema::Lean, async |scope| {
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
        ] {
            let mut object = kind.object("a", &spec);
            object["status"] = status.clone();
            let created = scope.post(&kind.collection(scope), &object).await.created();
            assert_eq!(created.get("status"), None, "{}", kind.kind);

            let path = kind.path(scope, "a");
            let both = json!({ "spec": spec_change, "status": status });
            let updated = scope.merge(&format!("{path}/status"), &both).await.ok();
            assert_eq!(updated["status"], status, "{}", kind.kind);
            assert_eq!(updated["spec"], created["spec"], "{}", kind.kind);
            assert_eq!(updated["metadata"]["generation"], 1, "{}", kind.kind);

            let both = json!({ "spec": spec_change, "status": null });
            let updated = scope.merge(&path, &both).await.ok();
            assert_eq!(updated["status"], status, "{}", kind.kind);
            assert_ne!(updated["spec"], created["spec"], "{}", kind.kind);
            assert_eq!(updated["metadata"]["generation"], 2, "{}", kind.kind);
        }
        TEMPLATE.create(scope, "a", &blueprint(|_| {})).await;
        let path = format!("{}/status", TEMPLATE.path(scope, "a"));
        let reply = scope.merge(&path, &json!({ "status": {} })).await;
        assert_eq!(reply.code, 404, "{}", reply.body);
    })
    .await;
}

#[tokio::test]
async fn a_pool_scales() {
    with_crds(PodSpecSchema::Lean, async |scope| {
        POOL.create(
            scope,
            "a",
            &json!({ "sandboxTemplateRef": { "name": "t" } }),
        )
        .await;
        let path = POOL.path(scope, "a");
        let status =
            json!({ "status": { "replicas": 1, "readyReplicas": 1, "selector": "pool=a" } });
        scope.merge(&format!("{path}/status"), &status).await.ok();

        let scale = scope.get(&format!("{path}/scale")).await.ok();
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
            scope.merge(&format!("{path}/scale"), &change).await.ok();
            assert_eq!(POOL.spec(scope, "a").await["replicas"], replicas);
        }
        let reply = scope
            .merge(
                &format!("{path}/scale"),
                &json!({ "spec": { "replicas": -1 } }),
            )
            .await;
        reply.refused("spec.replicas", "greater than or equal to 0");
    })
    .await;
}

#[tokio::test]
async fn a_sandbox_scales_between_none_and_one_in_the_deprecated_version_only() {
    with_crds(PodSpecSchema::Lean, async |scope| {
        // Written through the stored version, where nothing mentions replicas.
        SANDBOX.create(scope, "a", &blueprint(|_| {})).await;
        let path = format!("{}/scale", SANDBOX.deprecated().path(scope, "a"));
        let scale = scope.get(&path).await.ok();
        assert_eq!(
            (&scale["spec"]["replicas"], &scale["status"]["replicas"]),
            (&json!(1), &json!(0))
        );

        let status = json!({ "status": { "replicas": 1, "selector": "name=a" } });
        scope
            .merge(&format!("{}/status", SANDBOX.path(scope, "a")), &status)
            .await
            .ok();
        let scale = scope.get(&path).await.ok();
        assert_eq!(
            scale["status"],
            json!({ "replicas": 1, "selector": "name=a" })
        );

        scope
            .merge(&path, &json!({ "spec": { "replicas": 0 } }))
            .await
            .ok();
        assert_eq!(SANDBOX.spec(scope, "a").await["replicas"], 0);
        let reply = scope
            .merge(&path, &json!({ "spec": { "replicas": 2 } }))
            .await;
        reply.refused("spec.replicas", "less than or equal to 1");

        let reply = scope
            .get(&format!("{}/scale", SANDBOX.path(scope, "a")))
            .await;
        assert_eq!(reply.code, 404, "{}", reply.body);
        assert_eq!(reply.body.get("spec"), None::<&Value>);
    })
    .await;
}
