//! What a server fills in.

use agent_sandbox_crds::PodSpecSchema;
use anyhow::Result;
use serde_json::json;

use super::{CLAIM, POOL, SANDBOX, TEMPLATE, blueprint};
use crate::target::{Target, with};

#[tokio::test(flavor = "multi_thread")]
async fn of_our_own_fields() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    let sandbox = SANDBOX.create(target, "a", &blueprint(|_| {})).await?;
    let expected = blueprint(|spec| {
        spec["operatingMode"] = json!("Running");
        spec["replicas"] = json!(1);
        spec["shutdownPolicy"] = json!("Retain");
    });
    assert_eq!(sandbox, expected);

    let template = TEMPLATE.create(target, "a", &blueprint(|_| {})).await?;
    let expected = blueprint(|spec| {
        spec["networkPolicyManagement"] = json!("Managed");
        spec["envVarsInjectionPolicy"] = json!("Disallowed");
        spec["volumeClaimTemplatesPolicy"] = json!("Disallowed");
    });
    assert_eq!(template, expected);

    let spec = json!({ "warmPoolRef": { "name": "p" } });
    assert_eq!(CLAIM.create(target, "a", &spec).await?, spec);
    let spec = json!({ "warmPoolRef": { "name": "p" }, "lifecycle": {} });
    let expected =
        json!({ "warmPoolRef": { "name": "p" }, "lifecycle": { "shutdownPolicy": "Retain" } });
    assert_eq!(CLAIM.create(target, "b", &spec).await?, expected);
    let spec = json!({ "sandboxTemplateRef": { "name": "t" } });
    assert_eq!(CLAIM.create(target, "c", &spec).await?, spec);

    let spec = json!({ "sandboxTemplateRef": { "name": "t" } });
    let expected = json!({ "sandboxTemplateRef": { "name": "t" }, "replicas": 1 });
    assert_eq!(POOL.create(target, "a", &spec).await?, expected);
    let spec =
        json!({ "sandboxTemplateRef": { "name": "t" }, "replicas": 0, "updateStrategy": {} });
    let expected = json!({
        "sandboxTemplateRef": { "name": "t" },
        "replicas": 0,
        "updateStrategy": { "type": "OnReplenish" },
    });
    assert_eq!(POOL.create(target, "b", &spec).await?, expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_pod_spec_in_full() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Full).await?;
    let written =
        blueprint(|spec| spec["podTemplate"]["spec"] = everything_that_is_filled_in(false));
    let filled = everything_that_is_filled_in(true);
    for kind in [SANDBOX, TEMPLATE] {
        let spec = kind.create(target, "a", &written).await?;
        assert_eq!(spec["podTemplate"]["spec"], filled, "{}", kind.kind);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_lean_pod_spec_are_none() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    let written =
        blueprint(|spec| spec["podTemplate"]["spec"] = everything_that_is_filled_in(false));
    let spec = SANDBOX.create(target, "a", &written).await?;
    assert_eq!(spec["podTemplate"], written["podTemplate"]);
    Ok(())
}

/// A pod spec with every place that has a default, with or without the defaults.
fn everything_that_is_filled_in(filled: bool) -> serde_json::Value {
    let or_empty = |value: serde_json::Value| if filled { value } else { json!({}) };
    let nameless = || or_empty(json!({ "name": "" }));
    let with = |base, filled_in| if filled { with(base, filled_in) } else { base };
    let key_ref = || with(json!({ "key": "k" }), json!({ "name": "" }));
    let grpc = || json!({ "grpc": with(json!({ "port": 1 }), json!({ "service": "" })) });
    let container = |name: &str| {
        json!({
            "name": name,
            "ports": [with(json!({ "containerPort": 80 }), json!({ "protocol": "TCP" }))],
            "env": [
                { "name": "A", "valueFrom": { "configMapKeyRef": key_ref() } },
                { "name": "B", "valueFrom": { "secretKeyRef": key_ref() } },
                { "name": "C", "valueFrom": { "fileKeyRef": with(
                    json!({ "key": "k", "path": "p", "volumeName": "v" }),
                    json!({ "optional": false }),
                ) } },
            ],
            "envFrom": [{ "configMapRef": nameless() }, { "secretRef": nameless() }],
            "livenessProbe": grpc(),
            "readinessProbe": grpc(),
            "startupProbe": grpc(),
        })
    };
    let monitored = |image: bool| {
        let mut source = json!({ "monitors": ["m"], "secretRef": nameless() });
        if image {
            source["image"] = json!("i");
        }
        source
    };
    json!({
        "containers": [container("a")],
        "initContainers": [container("b")],
        "ephemeralContainers": [container("c")],
        "imagePullSecrets": [nameless()],
        "volumes": [
            { "name": "azureDisk", "azureDisk": with(
                json!({ "diskName": "d", "diskURI": "u" }),
                json!({ "fsType": "ext4", "readOnly": false }),
            ) },
            { "name": "cephfs", "cephfs": monitored(false) },
            { "name": "cinder", "cinder": { "volumeID": "v", "secretRef": nameless() } },
            { "name": "configMap", "configMap": nameless() },
            { "name": "csi", "csi": { "driver": "d", "nodePublishSecretRef": nameless() } },
            { "name": "flexVolume", "flexVolume": { "driver": "d", "secretRef": nameless() } },
            { "name": "iscsi", "iscsi": with(
                json!({ "iqn": "i", "lun": 0, "targetPortal": "t", "secretRef": nameless() }),
                json!({ "iscsiInterface": "default" }),
            ) },
            { "name": "projected", "projected": { "sources": [
                { "configMap": nameless() },
                { "secret": nameless() },
            ] } },
            { "name": "rbd", "rbd": with(
                monitored(true),
                json!({ "pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring" }),
            ) },
            { "name": "scaleIO", "scaleIO": with(
                json!({ "gateway": "g", "system": "s", "secretRef": nameless() }),
                json!({ "fsType": "xfs", "storageMode": "ThinProvisioned" }),
            ) },
            { "name": "storageos", "storageos": { "secretRef": nameless() } },
        ],
    })
}
