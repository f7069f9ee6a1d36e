use serde_json::Value;

use super::*;

fn version<'a>(
    crd: &'a CustomResourceDefinition,
    name: &str,
) -> &'a CustomResourceDefinitionVersion {
    crd.spec.versions.iter().find(|v| v.name == name).unwrap()
}

fn schema(crd: &CustomResourceDefinition, name: &str) -> Value {
    serde_json::to_value(version(crd, name).schema.as_ref().unwrap()).unwrap()["openAPIV3Schema"]
        .clone()
}

fn columns(crd: &CustomResourceDefinition, name: &str) -> Vec<String> {
    version(crd, name)
        .additional_printer_columns
        .iter()
        .flatten()
        .map(|c| format!("{}: {}: {}", c.name, c.type_, c.json_path))
        .collect()
}

#[test]
fn names_versions_and_warnings() {
    let all = all(PodSpecSchema::Lean);
    let found: Vec<_> = all
        .iter()
        .map(|crd| {
            let names = &crd.spec.names;
            let short = names.short_names.clone().unwrap().join(",");
            format!(
                "{} {} {} {} {short}",
                crd.metadata.name.as_deref().unwrap(),
                names.kind,
                names.list_kind.as_deref().unwrap(),
                names.singular.as_deref().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            "sandboxes.agents.x-k8s.io Sandbox SandboxList sandbox sandbox",
            "sandboxclaims.extensions.agents.x-k8s.io SandboxClaim SandboxClaimList sandboxclaim sandboxclaim",
            "sandboxtemplates.extensions.agents.x-k8s.io SandboxTemplate SandboxTemplateList sandboxtemplate sandboxtemplate",
            "sandboxwarmpools.extensions.agents.x-k8s.io SandboxWarmPool SandboxWarmPoolList sandboxwarmpool swp",
        ]
    );
    for crd in &all {
        let (group, kind) = (&crd.spec.group, &crd.spec.names.kind);
        assert_eq!(crd.spec.scope, "Namespaced");
        assert_eq!(crd.spec.conversion, None);
        assert_eq!(
            crd.spec.names.categories.clone().unwrap_or_default(),
            [""; 0]
        );
        let stored = version(crd, "v1beta1");
        assert!(stored.served && stored.storage && stored.deprecated.is_none());
        let deprecated = version(crd, "v1alpha1");
        assert!(deprecated.served && !deprecated.storage);
        assert_eq!(
            deprecated.deprecation_warning.as_deref(),
            Some(
                format!(
                    "{group}/v1alpha1 {kind} is deprecated; use {group}/v1beta1 {kind} instead"
                )
                .as_str()
            )
        );
    }
}

#[test]
fn printer_columns() {
    let ready = "Ready: string: .status.conditions[?(@.type=='Ready')].status";
    let reason = "Reason: string: .status.conditions[?(@.type=='Ready')].reason";
    let age = "Age: date: .metadata.creationTimestamp";
    assert_eq!(
        columns(&sandbox(PodSpecSchema::Lean), "v1beta1"),
        [ready, reason, age]
    );
    assert_eq!(columns(&sandbox(PodSpecSchema::Lean), "v1alpha1"), [""; 0]);
    for name in ["v1beta1", "v1alpha1"] {
        assert_eq!(
            columns(&claim(), name),
            [ready, "Sandbox: string: .status.sandbox.name", reason, age]
        );
        assert_eq!(
            columns(&template(), name),
            [
                "NetworkPolicy: string: .status.conditions[?(@.type=='NetworkPolicyReady')].reason",
                age
            ]
        );
        assert_eq!(
            columns(&warm_pool(), name),
            [
                "Ready: integer: .status.readyReplicas",
                "Desired: integer: .spec.replicas",
                age
            ]
        );
    }
}

#[test]
fn subresources() {
    let found = |crd: &CustomResourceDefinition, name| {
        let subresources = version(crd, name).subresources.as_ref();
        (
            subresources.is_some_and(|s| s.status.is_some()),
            subresources.is_some_and(|s| s.scale.is_some()),
        )
    };
    let sandbox = sandbox(PodSpecSchema::Lean);
    assert_eq!(found(&sandbox, "v1beta1"), (true, false));
    assert_eq!(found(&sandbox, "v1alpha1"), (true, true));
    for name in ["v1beta1", "v1alpha1"] {
        assert_eq!(found(&claim(), name), (true, false));
        assert_eq!(found(&template(), name), (true, false));
        assert_eq!(found(&warm_pool(), name), (true, true));
    }
}

/// Conversion changes nothing but `apiVersion`, so a field that only one version knew would be lost through the other.
#[test]
fn both_versions_have_the_same_schema_but_for_one_default() {
    for crd in all(PodSpecSchema::Full) {
        let (stored, mut deprecated) = (schema(&crd, "v1beta1"), schema(&crd, "v1alpha1"));
        if crd.spec.names.kind == "SandboxClaim" {
            let warmpool =
                deprecated["properties"]["spec"]["properties"]["warmpool"].as_object_mut();
            assert_eq!(
                warmpool.unwrap().shift_remove("default"),
                Some(Value::from("default"))
            );
        }
        assert!(stored == deprecated, "{}", crd.spec.names.kind);
    }
}

#[test]
fn spec_and_status_fields() {
    let fields = |crd: &CustomResourceDefinition, part: &str| {
        let schema = schema(crd, "v1beta1");
        let Some(properties) = schema["properties"][part]["properties"].as_object() else {
            return String::new();
        };
        properties.keys().cloned().collect::<Vec<_>>().join(" ")
    };
    let sandbox = sandbox(PodSpecSchema::Lean);
    assert_eq!(
        fields(&sandbox, "spec"),
        "operatingMode podTemplate replicas service shutdownPolicy shutdownTime volumeClaimTemplates"
    );
    assert_eq!(
        fields(&sandbox, "status"),
        "conditions nodeName podIPs replicas selector service serviceFQDN"
    );
    assert_eq!(
        fields(&claim(), "spec"),
        "additionalPodMetadata env lifecycle sandboxTemplateRef volumeClaimTemplates warmPoolRef warmpool"
    );
    assert_eq!(fields(&claim(), "status"), "conditions sandbox");
    assert_eq!(
        fields(&template(), "spec"),
        "envVarsInjectionPolicy networkPolicy networkPolicyManagement podTemplate service \
         volumeClaimTemplates volumeClaimTemplatesPolicy"
    );
    assert_eq!(
        fields(&template(), "status"),
        "conditions observedGeneration"
    );
    assert_eq!(
        fields(&warm_pool(), "spec"),
        "replicas sandboxTemplateRef updateStrategy"
    );
    assert_eq!(
        fields(&warm_pool(), "status"),
        "allocations conditions observedGeneration readyReplicas replicas retiring selector \
         settledResourceVersion"
    );
}

#[test]
fn defaults_enumerations_and_minimums_of_our_own_fields() {
    let (sandbox, claim, template, pool) = (
        sandbox(PodSpecSchema::Lean),
        claim(),
        template(),
        warm_pool(),
    );
    for (crd, field, expected) in [
        (
            &sandbox,
            "operatingMode",
            json!({"type": "string", "enum": ["Running", "Suspended"], "default": "Running"}),
        ),
        (
            &sandbox,
            "shutdownPolicy",
            json!({"type": "string", "enum": ["Delete", "Retain"], "default": "Retain"}),
        ),
        (
            &sandbox,
            "replicas",
            json!({"type": "integer", "format": "int32", "minimum": 0.0, "maximum": 1.0, "default": 1}),
        ),
        (&sandbox, "service", json!({"type": "boolean"})),
        (
            &claim,
            "lifecycle/properties/shutdownPolicy",
            json!({"type": "string", "enum": ["Delete", "DeleteForeground", "Retain"], "default": "Retain"}),
        ),
        (
            &claim,
            "lifecycle/properties/ttlSecondsAfterFinished",
            json!({"type": "integer", "format": "int32", "minimum": 0.0}),
        ),
        (
            &claim,
            "warmPoolRef",
            json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "minLength": 1}}}),
        ),
        (&claim, "warmpool", json!({"type": "string"})),
        (
            &claim,
            "env",
            json!({"type": "array", "x-kubernetes-list-type": "atomic", "items": {"type": "object", "required": ["name", "value"], "properties": {
            "containerName": {"type": "string"}, "name": {"type": "string", "pattern": "^[ -<>-~]*$"}, "value": {"type": "string"}}}}),
        ),
        (
            &template,
            "networkPolicyManagement",
            json!({"type": "string", "enum": ["Managed", "Unmanaged"], "default": "Managed"}),
        ),
        (
            &template,
            "envVarsInjectionPolicy",
            json!({"type": "string", "enum": ["Allowed", "Overrides", "Disallowed"], "default": "Disallowed"}),
        ),
        (
            &template,
            "volumeClaimTemplatesPolicy",
            json!({"type": "string", "enum": ["Disallowed", "Allowed", "Overrides"], "default": "Disallowed"}),
        ),
        (
            &pool,
            "replicas",
            json!({"type": "integer", "format": "int32", "minimum": 0.0, "default": 1}),
        ),
        (
            &pool,
            "updateStrategy",
            json!({"type": "object", "properties": {"type": {"type": "string", "enum": ["Recreate", "OnReplenish"], "default": "OnReplenish"}}}),
        ),
    ] {
        let schema = schema(crd, "v1beta1");
        let mut found = schema
            .pointer(&format!("/properties/spec/properties/{field}"))
            .cloned()
            .unwrap();
        drop_descriptions(&mut found);
        assert_eq!(found, expected, "{field}");
    }
    for (crd, expected) in [
        (&sandbox, json!(["podTemplate"])),
        (&claim, Value::Null),
        (&template, json!(["podTemplate"])),
        (&pool, json!(["sandboxTemplateRef"])),
    ] {
        assert_eq!(
            schema(crd, "v1beta1")["properties"]["spec"]
                .get("required")
                .cloned()
                .unwrap_or_default(),
            expected
        );
    }
}

fn drop_descriptions(schema: &mut Value) {
    let Some(keywords) = schema.as_object_mut() else {
        return;
    };
    keywords.shift_remove("description");
    for inner in keywords.values_mut() {
        drop_descriptions(inner);
    }
}

#[test]
fn our_own_fields_are_described_and_those_of_kubernetes_are_not() {
    for crd in all(PodSpecSchema::Full) {
        let schema = schema(&crd, "v1beta1");
        for part in ["spec", "status"] {
            let properties = schema["properties"][part]["properties"].as_object();
            for (name, property) in properties.into_iter().flatten() {
                assert!(property["description"].is_string(), "{part}.{name}");
            }
        }
        let text = schema.to_string();
        assert!(
            !text.contains('`') && !text.contains("List of containers"),
            "{text}"
        );
    }
}

#[test]
fn only_the_sandbox_has_a_lean_form() {
    let (lean, full) = (all(PodSpecSchema::Lean), all(PodSpecSchema::Full));
    assert_eq!(lean[1..], full[1..]);
    let pod_spec = |crd| {
        schema(crd, "v1beta1")["properties"]["spec"]["properties"]["podTemplate"]["properties"]["spec"].clone()
    };
    assert_eq!(
        pod_spec(&lean[0])["x-kubernetes-preserve-unknown-fields"],
        true
    );
    assert_eq!(pod_spec(&lean[0])["required"], json!(["containers"]));
    assert_eq!(pod_spec(&full[0]), pod_spec(&full[2]));
    assert_eq!(
        pod_spec(&full[0])["properties"].as_object().unwrap().len(),
        42
    );
}
