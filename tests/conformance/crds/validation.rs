//! What a server refuses, each with the field at fault.
//!
//! Cases are lines of the form `field = value | field at fault | part of the message`: the field of the spec (a path
//! for a nested one) is set to the JSON value, and the object must be refused in both versions. The field at fault is
//! below `spec`.

use agent_sandbox_crds::{PodSpecSchema, SandboxSpec};
use anyhow::Result;
use serde_json::{Value, json};

use super::{CLAIM, POOL, Resource, SANDBOX, TEMPLATE, blueprint, condition};
use crate::target::{Patch, Target};

#[tokio::test(flavor = "multi_thread")]
async fn of_a_sandbox() -> Result<()> {
    // The last two instants pass for date-times with the API server, and no client could read them.
    const CASES: &str = r#"
        podTemplate    = {}                           | podTemplate.spec | Required value
        podTemplate    = null                         | podTemplate | Required value
        operatingMode  = "Paused"                     | operatingMode | Unsupported value
        shutdownPolicy = "DeleteForeground"           | shutdownPolicy | Unsupported value
        replicas       = 2                            | replicas | less than or equal to 1
        replicas       = -1                           | replicas | greater than or equal to 0
        service        = "yes"                        | service | must be of type boolean
        volumeClaimTemplates = [{}]                   | volumeClaimTemplates[0].spec | Required value
        volumeClaimTemplates = [{"metadata": {"name": "Data"}, "spec": {}}] | volumeClaimTemplates[0].metadata.name | should match
        shutdownTime   = "tomorrow"                   | shutdownTime | must be of type date-time
        shutdownTime   = "2026-01-01"                 | shutdownTime | must be of type date-time
        shutdownTime   = "2026-01-01T00:00:00+99:99"  | shutdownTime | should match
        shutdownTime   = "2026-01-01T00:00:00x1Z"     | shutdownTime | should match
    "#;
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    refused(target, SANDBOX, &blueprint(|_| {}), CASES).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_claim() -> Result<()> {
    const CASES: &str = r#"
        warmPoolRef        = {}                                 | warmPoolRef.name | Required value
        warmPoolRef        = {"name": ""}                       | warmPoolRef.name | at least 1 chars long
        sandboxTemplateRef = {"name": ""}                       | sandboxTemplateRef.name | at least 1 chars long
        lifecycle          = {"shutdownPolicy": "Keep"}         | lifecycle.shutdownPolicy | Unsupported value
        lifecycle          = {"ttlSecondsAfterFinished": -1}    | lifecycle.ttlSecondsAfterFinished | greater than or equal to 0
        lifecycle          = {"shutdownTime": "2026-01-01"}     | lifecycle.shutdownTime | must be of type date-time
        env                = [{"name": "A"}]                    | env[0].value | Required value
        env                = [{"value": "A"}]                   | env[0].name | Required value
        env                = [{"name": "A", "value": 1}]        | env[0].value | must be of type string
        env                = [{"name": "A", "value": ""}, {"name": "A=B", "value": ""}] | env[1].name | should match
        env                = [{"name": "Ä", "value": ""}]       | env[0].name | should match
        volumeClaimTemplates = [{"metadata": {"name": "-a"}, "spec": {}}]  | volumeClaimTemplates[0].metadata.name | should match
        volumeClaimTemplates = [{"metadata": {"name": "a.b"}, "spec": {}}] | volumeClaimTemplates[0].metadata.name | should match
        additionalPodMetadata = {"labels": {"a": 1}}            | additionalPodMetadata.labels.a | must be of type string
    "#;
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    refused(
        target,
        CLAIM,
        &json!({ "warmPoolRef": { "name": "p" } }),
        CASES,
    )
    .await?;
    Ok(())
}

/// What the controllers refuse with reasons that clients know is theirs to refuse.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_missing_or_taken_twice_are_left_to_the_controllers() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    let volume = |name: &str| json!({ "metadata": { "name": name }, "spec": {} });
    let claim = json!({
        "warmPoolRef": { "name": "p" },
        "env": [
            { "name": "", "value": "1" },
            { "name": "a.b-c/d e", "value": "1" },
            { "name": "a.b-c/d e", "value": "2" },
        ],
        "volumeClaimTemplates": [{ "spec": {} }, volume(""), volume("a"), volume("a"), volume("a-1")],
    });
    CLAIM.create(target, "odd", &claim).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_template() -> Result<()> {
    const CASES: &str = r#"
        networkPolicyManagement    = "Off"      | networkPolicyManagement | Unsupported value
        envVarsInjectionPolicy     = "allowed"  | envVarsInjectionPolicy | Unsupported value
        volumeClaimTemplatesPolicy = ""         | volumeClaimTemplatesPolicy | Unsupported value
        networkPolicy = {"egress": [{"to": [{"ipBlock": {}}]}]} | networkPolicy.egress[0].to[0].ipBlock.cidr | Required value
        networkPolicy = {"ingress": {}}         | networkPolicy.ingress | must be of type array
        volumeClaimTemplates = [{"metadata": {"name": "a_b"}, "spec": {}}] | volumeClaimTemplates[0].metadata.name | should match
        volumeClaimTemplates = [{"metadata": {"name": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}, "spec": {}}] | volumeClaimTemplates[0].metadata.name | may not be more than 63
    "#;
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    refused(target, TEMPLATE, &blueprint(|_| {}), CASES).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_pool() -> Result<()> {
    const CASES: &str = r#"
        sandboxTemplateRef = {}                         | sandboxTemplateRef.name | Required value
        sandboxTemplateRef = {"name": ""}               | sandboxTemplateRef.name | at least 1 chars long
        replicas           = -1                         | replicas | greater than or equal to 0
        replicas           = "3"                        | replicas | must be of type integer
        updateStrategy     = {"type": "RollingUpdate"}  | updateStrategy.type | Unsupported value
    "#;
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    refused(
        target,
        POOL,
        &json!({ "sandboxTemplateRef": { "name": "t" } }),
        CASES,
    )
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_pod_spec_in_full() -> Result<()> {
    const CASES: &str = r#"
        podTemplate/spec             = {}                                   | podTemplate.spec.containers | Required value
        podTemplate/spec/containers  = [{"image": "i"}]                     | podTemplate.spec.containers[0].name | Required value
        podTemplate/spec/containers  = [{"name": "a"}, {"name": "a"}]       | podTemplate.spec.containers[1] | Duplicate value
        podTemplate/spec/volumes     = [{"name": "a"}, {"name": "a"}]       | podTemplate.spec.volumes[1] | Duplicate value
        podTemplate/spec/hostNetwork = "no"                                 | podTemplate.spec.hostNetwork | must be of type boolean
        podTemplate/spec/containers/0/env = [{"name": "A"}, {"name": "A"}]  | podTemplate.spec.containers[0].env[1] | Duplicate value
        podTemplate/spec/containers/0/ports = [{"containerPort": 1}, {"containerPort": 1, "protocol": "TCP"}] | podTemplate.spec.containers[0].ports[1] | Duplicate value
        podTemplate/spec/containers/0/resources = {"limits": {"memory": "1 GB"}} | podTemplate.spec.containers[0].resources.limits.memory | should match
        podTemplate/spec/containers/0/resources = {"limits": {"cpu": true}} | podTemplate.spec.containers[0].resources.limits.cpu | must be of type
        podTemplate/spec/containers/0/readinessProbe = {"httpGet": {"path": "/"}} | podTemplate.spec.containers[0].readinessProbe.httpGet.port | Required value
    "#;
    let target = &Target::with_crds(PodSpecSchema::Full).await?;
    for kind in [SANDBOX, TEMPLATE] {
        refused(target, kind, &blueprint(|_| {}), CASES).await?;
    }
    let accepted = blueprint(|spec| {
        spec["podTemplate"]["spec"]["containers"][0]["resources"] = json!({
            "limits": { "cpu": 1, "memory": "1.5Gi", "x": "500m", "y": "12e6", "z": "-1" },
        });
    });
    TEMPLATE.create(target, "accepted", &accepted).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_lean_pod_spec_is_about_containers_only() -> Result<()> {
    const CASES: &str = r#"
        podTemplate/spec = {}                                | podTemplate.spec.containers | Required value
        podTemplate/spec = {"containers": "a"}               | podTemplate.spec.containers | must be of type array
        podTemplate/spec = {"containers": [{"image": "i"}]}  | podTemplate.spec.containers[0].name | Required value
    "#;
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    refused(target, SANDBOX, &blueprint(|_| {}), CASES).await?;
    let odd = json!({ "podTemplate": { "spec": {
            "containers": [{ "name": "a", "env": 1 }],
            "volumes": "odd",
        } } });
    let kept = SANDBOX.create(target, "accepted", &odd).await?;
    assert_eq!(kept["podTemplate"], odd["podTemplate"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_beyond_their_type_are_refused() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    let spec = json!({
        "warmPoolRef": { "name": "p" },
        "lifecycle": { "ttlSecondsAfterFinished": 1_i64 << 40 },
    });
    let object = CLAIM.object("refused", &spec);
    let reply = target.post(&CLAIM.collection(target), &object).await?;
    // The field is in the message only.
    let message = reply.body["message"].as_str().unwrap_or_default();
    let named = message.contains("spec.lifecycle.ttlSecondsAfterFinished");
    assert!(reply.status.as_u16() == 422 && named, "{}", reply.body);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_without_what_is_required_are_refused() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    for (kind, required) in [
        (SANDBOX, Some("podTemplate")),
        (CLAIM, None),
        (TEMPLATE, Some("podTemplate")),
        (POOL, Some("sandboxTemplateRef")),
    ] {
        let mut object = kind.object("refused", &json!({}));
        if let Some(field) = required {
            let reply = target.post(&kind.collection(target), &object).await?;
            reply.refused(&format!("spec.{field}"), "Required value");
        }
        object.as_object_mut().unwrap().shift_remove("spec");
        let reply = target.post(&kind.collection(target), &object).await?;
        reply.refused("spec", "Required value");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn instants_are_accepted_in_every_form_clients_write() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    for (at, instant) in [
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00.123456789Z",
        "2026-01-01T00:00:00.5+02:00",
        "2026-12-31T23:59:59-11:30",
        "2026-01-01t00:00:00z",
    ]
    .into_iter()
    .enumerate()
    {
        let spec = blueprint(|spec| spec["shutdownTime"] = json!(instant));
        let kept = SANDBOX.create(target, &format!("s{at}"), &spec).await?;
        assert_eq!(kept["shutdownTime"], instant);
        // What the server lets pass, the programs can read.
        serde_json::from_value::<SandboxSpec>(kept).unwrap();
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_conditions() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    SANDBOX.create(target, "a", &blueprint(|_| {})).await?;
    let claim = json!({ "warmPoolRef": { "name": "p" } });
    CLAIM.create(target, "a", &claim).await?;
    for kind in [SANDBOX, CLAIM] {
        conditions(target, kind).await?;
    }
    Ok(())
}

async fn conditions(target: &Target, kind: Resource) -> Result<()> {
    let path = format!("{}/status", kind.path(target, "a"));
    let write = async |conditions: Value| {
        let status = json!({ "status": { "conditions": conditions } });
        target.patch(Patch::Merge, &path, &status).await
    };
    for (field, value, message) in [
        ("status", json!("Maybe"), "Unsupported value"),
        ("reason", json!(""), "at least 1 chars long"),
        ("reason", json!("has spaces"), "should match"),
        ("type", json!("has spaces"), "should match"),
        ("message", json!("x".repeat(32_769)), "Too long"),
        (
            "observedGeneration",
            json!(-1),
            "greater than or equal to 0",
        ),
        (
            "lastTransitionTime",
            json!("now"),
            "must be of type date-time",
        ),
    ] {
        let mut change = json!({});
        change[field] = value;
        let reply = write(json!([condition("Ready", &change)])).await?;
        reply.refused(&format!("status.conditions[0].{field}"), message);
    }
    for missing in ["lastTransitionTime", "message", "reason", "status"] {
        let mut incomplete = condition("Ready", &json!({}));
        incomplete.as_object_mut().unwrap().shift_remove(missing);
        let reply = write(json!([incomplete])).await?;
        reply.refused(&format!("status.conditions[0].{missing}"), "Required value");
    }
    let one = condition("Ready", &json!({}));
    let twice = write(json!([one, one])).await?;
    twice.refused("status.conditions[1]", "Duplicate value");

    let longest = json!({ "message": "ä".repeat(32_768), "observedGeneration": 3 });
    let accepted = json!([
        condition("Ready", &longest),
        condition("example.com/Own", &json!({})),
    ]);
    write(accepted).await?.ok()?;
    Ok(())
}

/// Creates `base` with the change of each case, in both versions, and expects to be refused.
async fn refused(target: &Target, kind: Resource, base: &Value, cases: &str) -> Result<()> {
    for case in cases.lines().map(str::trim).filter(|case| !case.is_empty()) {
        let (change, expected) = case.split_once(" | ").unwrap();
        let (path, value) = change.split_once('=').unwrap();
        let (field, message) = expected.split_once(" | ").unwrap();
        let mut spec = base.clone();
        let (parent, name) = match path.trim().rsplit_once('/') {
            Some((parent, name)) => (format!("/{parent}"), name),
            None => (String::new(), path.trim()),
        };
        spec.pointer_mut(&parent).unwrap()[name] = serde_json::from_str(value).unwrap();
        for kind in [kind, kind.deprecated()] {
            let object = kind.object("refused", &spec);
            let reply = target.post(&kind.collection(target), &object).await?;
            reply.refused(&format!("spec.{field}"), message.trim());
        }
    }
    Ok(())
}
