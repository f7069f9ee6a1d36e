//! Discovery and OpenAPI: what clients read before anything else.

use anyhow::Result;
use http::Method;
use http::StatusCode;
use serde_json::{Value, json};

use crate::target::{Target, any_fields, text};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
    application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

fn find<'a>(list: &'a Value, field: &str, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| item[field] == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_documents() -> Result<()> {
    let target = Target::new().await?;
    let versions = target.get("/api").await?.ok()?;
    assert_eq!(
        (text(&versions, "/kind"), &versions["versions"]),
        ("APIVersions", &json!(["v1"]))
    );
    let groups = target.get("/apis").await?.ok()?;
    let apps = find(&groups["groups"], "name", "apps").expect("the apps group");
    assert_eq!(
        apps["preferredVersion"],
        json!({"groupVersion": "apps/v1", "version": "v1"})
    );
    let group = target.get("/apis/apps").await?.ok()?;
    assert_eq!(
        (text(&group, "/kind"), text(&group, "/name")),
        ("APIGroup", "apps")
    );

    let core = target.get("/api/v1").await?.ok()?;
    for (name, kind, short, verbs) in [
        ("pods", "Pod", json!(["po"]), 8),
        ("namespaces", "Namespace", json!(["ns"]), 7),
        ("pods/status", "Pod", Value::Null, 3),
        ("pods/eviction", "Eviction", Value::Null, 1),
        ("serviceaccounts/token", "TokenRequest", Value::Null, 1),
    ] {
        let resource = find(&core["resources"], "name", name).expect(name);
        assert_eq!(
            (text(resource, "/kind"), &resource["shortNames"]),
            (kind, &short),
            "{name}"
        );
        assert_eq!(
            resource["verbs"].as_array().map(Vec::len),
            Some(verbs),
            "{name}"
        );
    }
    target.get("/apis/apps/v9").await?.error(404, "NotFound");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregated_documents() -> Result<()> {
    let target = Target::new().await?;
    let accept = [("accept", AGGREGATED)];
    let answer = target.call(Method::GET, "/apis", &accept, None).await?;
    let media = answer
        .headers
        .get("content-type")
        .and_then(|v| v.to_str().ok())
        .map(str::to_owned);
    assert_eq!(
        media.as_deref(),
        Some("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
    );
    let groups = answer.ok()?;
    let apps = groups["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|g| text(g, "/metadata/name") == "apps");
    let apps = apps.expect("the apps group");
    let deployments = find(&apps["versions"][0]["resources"], "resource", "deployments");
    let deployments = deployments.expect("deployments");
    assert_eq!(deployments["scope"], "Namespaced");
    assert_eq!(deployments["categories"], json!(["all"]));
    let scale = find(&deployments["subresources"], "subresource", "scale").expect("scale");
    assert_eq!(
        scale["responseKind"],
        json!({"group": "autoscaling", "version": "v1", "kind": "Scale"})
    );
    let core = target
        .call(Method::GET, "/api", &accept, None)
        .await?
        .ok()?;
    assert_eq!(core["items"].as_array().map(Vec::len), Some(1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_shows_up_everywhere() -> Result<()> {
    let target = Target::new().await?;
    let custom = target
        .define("Novelty", json!({"scope": "Namespaced", "names": {"shortNames": ["nov"], "categories": ["all"]},
            "versions": [
            {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
             "schema": {"openAPIV3Schema": {"type": "object", "description": "Something new.", "properties": {
                "spec": {"type": "object", "description": "What it should be.", "required": ["size"], "properties": {
                    "size": {"type": "integer", "description": "How large it is."}}}}}}},
            {"name": "v2alpha1", "served": true, "storage": false,
             "schema": any_fields()},
            {"name": "v1alpha1", "served": false, "storage": false,
             "schema": any_fields()}]}))
        .await?;
    let group = target
        .answers(&format!("/apis/{}", custom.group), StatusCode::OK)
        .await?;
    let versions: Vec<&str> = group["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|v| text(v, "/version"))
        .collect();
    assert_eq!(
        versions,
        ["v1", "v2alpha1"],
        "stable before alpha, and only what is served"
    );
    let resources = target
        .get(&format!("/apis/{}/v1", custom.group))
        .await?
        .ok()?;
    let resource = find(&resources["resources"], "name", &custom.plural).expect("the resource");
    assert_eq!(
        (&resource["shortNames"], &resource["categories"]),
        (&json!(["nov"]), &json!(["all"]))
    );
    assert!(
        find(
            &resources["resources"],
            "name",
            &format!("{}/status", custom.plural)
        )
        .is_some()
    );

    let path = format!("apis/{}/v1", custom.group);
    let url = target
        .eventually("the OpenAPI document", async || {
            let index = target.get("/openapi/v3").await?.ok()?;
            Ok(index["paths"]
                .get(&path)
                .map(|entry| text(entry, "/serverRelativeURL").to_owned()))
        })
        .await?;
    assert!(url.contains("?hash="), "{url}");
    let document = target.get(&url).await?.ok()?;
    let schemas = document["components"]["schemas"]
        .as_object()
        .expect("schemas");
    let (_, schema) = schemas
        .iter()
        .find(|(name, _)| name.ends_with(".v1.Novelty"))
        .expect("the schema");
    assert_eq!(
        schema["x-kubernetes-group-version-kind"],
        json!([{"group": custom.group, "kind": "Novelty", "version": "v1"}])
    );
    assert_eq!(
        text(schema, "/properties/spec/properties/size/description"),
        "How large it is."
    );
    let item = format!(
        "/apis/{}/v1/namespaces/{{namespace}}/{}/{{name}}",
        custom.group, custom.plural
    );
    let patch = &document["paths"][&item]["patch"];
    assert_eq!(patch["x-kubernetes-action"], "patch");
    let parameters: Vec<&str> = patch["parameters"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|p| text(p, "/name"))
        .collect();
    for parameter in ["dryRun", "fieldManager", "fieldValidation", "force"] {
        assert!(parameters.contains(&parameter), "{parameters:?}");
    }

    target.delete(&custom.definition).await?.ok()?;
    target
        .eventually("the group to go", async || {
            Ok((target.get(&format!("/apis/{}", custom.group)).await?.status == 404).then_some(()))
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn built_in_documents_describe_their_kinds() -> Result<()> {
    let target = Target::new().await?;
    let index = target.get("/openapi/v3").await?.ok()?;
    for (path, schema, field) in [
        ("api/v1", "io.k8s.api.core.v1.PodSpec", "containers"),
        (
            "apis/apps/v1",
            "io.k8s.api.apps.v1.DeploymentSpec",
            "template",
        ),
        (
            "apis/batch/v1",
            "io.k8s.api.batch.v1.CronJobSpec",
            "schedule",
        ),
    ] {
        let url = text(&index["paths"][path], "/serverRelativeURL");
        let document = target.get(url).await?.ok()?;
        assert_eq!(document["openapi"], "3.0.0");
        let schema = &document["components"]["schemas"][schema];
        assert!(schema["properties"].get(field).is_some(), "{path}");
        assert!(
            schema["required"]
                .as_array()
                .is_some_and(|r| r.iter().any(|name| name == field))
        );
    }
    Ok(())
}
