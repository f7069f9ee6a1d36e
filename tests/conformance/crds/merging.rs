//! How lists merge when several managers apply their parts.

use agent_sandbox_crds::PodSpecSchema;
use anyhow::Result;
use serde_json::{Value, json};

use super::{SANDBOX, TEMPLATE, blueprint, condition};
use crate::target::{Patch, Target, text};

#[tokio::test(flavor = "multi_thread")]
async fn items_of_a_template_belong_to_those_who_applied_them() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    let path = TEMPLATE.path(target, "a");
    let first = TEMPLATE.object(
        "a",
        &blueprint(|spec| {
            spec["podTemplate"]["spec"]["containers"][0]["env"] =
                json!([{ "name": "ONE", "value": "1" }]);
            spec["podTemplate"]["spec"]["containers"][0]["ports"] =
                json!([{ "containerPort": 80, "name": "web" }]);
        }),
    );
    target
        .patch(Patch::Apply, &format!("{path}?fieldManager=first"), &first)
        .await?
        .created()?;
    let second = json!({ "podTemplate": { "spec": { "containers": [
            { "name": "main", "env": [{ "name": "TWO", "value": "2" }], "ports": [{ "containerPort": 80, "protocol": "UDP" }] },
            { "name": "helper" },
        ] } } });
    let merged = target
        .patch(
            Patch::Apply,
            &format!("{path}?fieldManager=second"),
            &TEMPLATE.object("a", &second),
        )
        .await?
        .ok()?;
    let names = |list: &Value| -> Vec<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|item| text(item, "/name").to_owned())
            .collect()
    };
    let containers = &merged["spec"]["podTemplate"]["spec"]["containers"];
    assert_eq!(names(containers), ["main", "helper"]);
    assert_eq!(names(&containers[0]["env"]), ["ONE", "TWO"]);
    assert_eq!(
        containers[0]["ports"],
        json!([
            { "containerPort": 80, "name": "web", "protocol": "TCP" },
            { "containerPort": 80, "protocol": "UDP" },
        ])
    );

    // What a manager no longer applies goes, and nothing else.
    let less = json!({ "podTemplate": { "spec": { "containers": [{ "name": "main" }] } } });
    let merged = target
        .patch(
            Patch::Apply,
            &format!("{path}?fieldManager=second"),
            &TEMPLATE.object("a", &less),
        )
        .await?
        .ok()?;
    let containers = &merged["spec"]["podTemplate"]["spec"]["containers"];
    assert_eq!(names(containers), ["main"]);
    assert_eq!(names(&containers[0]["env"]), ["ONE"]);

    // What another manager set is not taken by the way.
    let other =
        blueprint(|spec| spec["podTemplate"]["spec"]["containers"][0]["image"] = json!("other"));
    let reply = target
        .patch(
            Patch::Apply,
            &format!("{path}?fieldManager=second"),
            &TEMPLATE.object("a", &other),
        )
        .await?;
    assert_eq!(
        (reply.status.as_u16(), &reply.body["reason"]),
        (409, &json!("Conflict")),
        "{}",
        reply.body
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_of_two_managers_stay_side_by_side() -> Result<()> {
    let target = &Target::with_crds(PodSpecSchema::Lean).await?;
    SANDBOX.create(target, "a", &blueprint(|_| {})).await?;
    let path = format!("{}/status", SANDBOX.path(target, "a"));
    for (manager, type_) in [("one", "Ready"), ("two", "example.com/Audited")] {
        let status = json!({
            "apiVersion": "agents.x-k8s.io/v1beta1",
            "kind": "Sandbox",
            "metadata": { "name": "a" },
            "status": { "conditions": [condition(type_, &json!({}))] },
        });
        target
            .patch(
                Patch::Apply,
                &format!("{path}?fieldManager={manager}"),
                &status,
            )
            .await?
            .ok()?;
    }
    let found = target.get(&path).await?.ok()?;
    let types: Vec<_> = found["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| text(c, "/type"))
        .collect();
    assert_eq!(types, ["Ready", "example.com/Audited"]);
    Ok(())
}
