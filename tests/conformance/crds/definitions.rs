//! The definitions as objects, and what clients learn from them: discovery, OpenAPI, tables.

use agent_sandbox_crds::{PodSpecSchema, crd};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{CLAIM, CORE, EXTENSIONS, POOL, SANDBOX, TEMPLATE, blueprint, condition};
use crate::target::{Patch, Target, text};

#[tokio::test(flavor = "multi_thread")]
async fn are_accepted_without_reservation() -> Result<()> {
    for pod_spec in [PodSpecSchema::Full, PodSpecSchema::Lean] {
        let target = &Target::with_crds(pod_spec).await?;
        for crd in crd::all(pod_spec) {
            let name = crd.metadata.name.unwrap();
            let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
            // Served a moment before it is said to be.
            let what = format!("{name} to have conditions");
            let status = target
                .eventually(&what, async || {
                    let status = target.get(&path).await?.ok()?["status"].clone();
                    let conditions = status["conditions"].as_array();
                    let is_said = conditions.is_some_and(|it| it.len() >= 2);
                    Ok(is_said.then_some(status))
                })
                .await?;
            let mut conditions: Vec<_> = status["conditions"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| format!("{}={}", text(c, "/type"), text(c, "/status")))
                .collect();
            conditions.sort();
            // A schema that is not structural would add a condition of its own.
            assert_eq!(
                conditions,
                ["Established=True", "NamesAccepted=True"],
                "{name}"
            );
            assert_eq!(status["storedVersions"], json!(["v1beta1"]), "{name}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn show_in_discovery() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    for group in [CORE, EXTENSIONS] {
        let found = target.get(&format!("/apis/{group}")).await?.ok()?;
        assert_eq!(text(&found, "/preferredVersion/version"), "v1beta1");
        let versions: Vec<_> = found["versions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| text(v, "/version"))
            .collect();
        assert_eq!(versions, ["v1beta1", "v1alpha1"]);
    }
    let resources = async |group_version: &str| -> Result<Vec<String>> {
        let list = target.get(&format!("/apis/{group_version}")).await?.ok()?;
        let mut names: Vec<_> = list["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| {
                let short = r["shortNames"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str);
                let short: Vec<_> = short.collect();
                format!(
                    "{}:{}:{}",
                    text(r, "/name"),
                    text(r, "/kind"),
                    short.join(",")
                )
            })
            .collect();
        names.sort();
        Ok(names)
    };
    assert_eq!(
        resources("agents.x-k8s.io/v1beta1").await?,
        ["sandboxes/status:Sandbox:", "sandboxes:Sandbox:sandbox"]
    );
    assert_eq!(
        resources("agents.x-k8s.io/v1alpha1").await?,
        [
            "sandboxes/scale:Scale:",
            "sandboxes/status:Sandbox:",
            "sandboxes:Sandbox:sandbox"
        ]
    );
    for version in ["v1beta1", "v1alpha1"] {
        assert_eq!(
            resources(&format!("{EXTENSIONS}/{version}")).await?,
            [
                "sandboxclaims/status:SandboxClaim:",
                "sandboxclaims:SandboxClaim:sandboxclaim",
                "sandboxtemplates/status:SandboxTemplate:",
                "sandboxtemplates:SandboxTemplate:sandboxtemplate",
                "sandboxwarmpools/scale:Scale:",
                "sandboxwarmpools/status:SandboxWarmPool:",
                "sandboxwarmpools:SandboxWarmPool:swp",
            ]
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_their_fields() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    let schema = async |group: &str, kind: &str| -> Result<Value> {
        let document = target
            .get(&format!("/openapi/v3/apis/{group}/v1beta1"))
            .await?
            .ok()?;
        let schemas = document["components"]["schemas"]
            .as_object()
            .unwrap()
            .clone();
        let expected = json!([{ "group": group, "version": "v1beta1", "kind": kind }]);
        schemas
            .into_iter()
            .map(|(_, schema)| schema)
            .find(|schema| schema["x-kubernetes-group-version-kind"] == expected)
            .with_context(|| format!("no schema of {kind}"))
    };
    let template = schema(EXTENSIONS, "SandboxTemplate").await?;
    let pod_spec =
        &template["properties"]["spec"]["properties"]["podTemplate"]["properties"]["spec"];
    assert_eq!(pod_spec["properties"].as_object().unwrap().len(), 42);
    assert_eq!(
        pod_spec["properties"]["containers"]["x-kubernetes-list-type"],
        "map"
    );
    let policy = &template["properties"]["spec"]["properties"]["envVarsInjectionPolicy"];
    assert_eq!(
        policy["enum"],
        json!(["Allowed", "Overrides", "Disallowed"])
    );
    assert!(
        text(policy, "/description").contains("claim's env"),
        "{policy}"
    );

    let sandbox = schema(CORE, "Sandbox").await?;
    let pod_spec =
        &sandbox["properties"]["spec"]["properties"]["podTemplate"]["properties"]["spec"];
    assert_eq!(pod_spec["x-kubernetes-preserve-unknown-fields"], true);
    assert_eq!(pod_spec["properties"].as_object().unwrap().len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn print_their_columns() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    let ready =
        json!({ "conditions": [condition("Ready", &json!({ "reason": "DependenciesReady" }))] });
    let mut claimed = ready.clone();
    claimed["sandbox"] = json!({ "name": "box" });
    let pool_spec = json!({ "sandboxTemplateRef": { "name": "t" }, "replicas": 3 });
    let claim_spec = json!({ "warmPoolRef": { "name": "p" } });
    for (kind, spec, status, columns, cells) in [
        (
            SANDBOX,
            blueprint(|_| {}),
            Some(ready),
            "Name Ready Reason Age",
            json!(["a", "True", "DependenciesReady"]),
        ),
        (
            SANDBOX.deprecated(),
            blueprint(|_| {}),
            None,
            "Name Age",
            json!(["a"]),
        ),
        (
            CLAIM,
            claim_spec,
            Some(claimed),
            "Name Ready Sandbox Reason Age",
            json!(["a", "True", "box", "DependenciesReady"]),
        ),
        (
            TEMPLATE,
            blueprint(|_| {}),
            Some(json!({ "conditions": [
                condition("NetworkPolicyReady", &json!({ "reason": "Managed" })),
            ] })),
            "Name NetworkPolicy Age",
            json!(["a", "Managed"]),
        ),
        (
            POOL,
            pool_spec,
            Some(json!({ "readyReplicas": 2 })),
            "Name Ready Desired Age",
            json!(["a", 2, 3]),
        ),
    ] {
        let path = kind.path(target, "a");
        if target.get(&path).await?.status.as_u16() == 404 {
            kind.create(target, "a", &spec).await?;
        }
        if let Some(status) = status {
            target
                .patch(
                    Patch::Merge,
                    &format!("{path}/status"),
                    &json!({ "status": status }),
                )
                .await?
                .ok()?;
        }
        let table = target.table(&kind.collection(target)).await?.ok()?;
        let found: Vec<_> = table["columnDefinitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| text(c, "/name"))
            .collect();
        assert_eq!(found.join(" "), columns, "{} {}", kind.kind, kind.version);
        let row = table["rows"][0]["cells"].as_array().unwrap();
        let (age, cells_but_age) = row.split_last().unwrap();
        assert_eq!(
            json!(cells_but_age),
            cells,
            "{} {}",
            kind.kind,
            kind.version
        );
        assert!(age.as_str().is_some_and(|age| age.ends_with('s')), "{age}");
    }
    Ok(())
}
