//! When a member is out of date.

use agent_sandbox_crds::labels;
use serde_json::{Value, json};

use super::template;
use crate::fixtures::row;
use crate::objects::{Make, SandboxRow, TemplateRow};
use crate::warm_pool::Staleness;

/// A member made from `template` the way the pool makes it, then edited.
fn made_from(template: &TemplateRow, edit: impl FnOnce(&mut Value)) -> Make {
    let pool = super::pool(json!({}));
    let mut object = crate::warm_pool::desired::member(&pool, template, "p-a", true, &[]);
    edit(&mut object);
    Make::of(&row::<SandboxRow>(object))
}

#[test]
fn hashes_answer_first_and_meaning_decides() {
    let judge = Staleness::new(Vec::new());
    let old = template(json!({}));
    assert!(!judge.is_stale(&old, &made_from(&old, |_| {})));
    let new = template(
        json!({"podTemplate": {"spec": {"containers": [{"name": "main", "image": "b"}]}}}),
    );
    assert!(judge.is_stale(&new, &made_from(&old, |_| {})));
    // A hash by another implementation, or none, is no reason to replace what means the same.
    let judge = Staleness::new(Vec::new());
    let rehashed = made_from(&old, |it| {
        it["metadata"]["labels"][labels::SANDBOX_TEMPLATE_HASH] = json!("deadbeef");
    });
    assert!(!judge.is_stale(&old, &rehashed));
    let unhashed = made_from(&old, |it| {
        let set = it["metadata"]["labels"].as_object_mut().unwrap();
        set.remove(labels::SANDBOX_TEMPLATE_HASH);
    });
    assert!(!judge.is_stale(&old, &unhashed));
    let other_template = made_from(&old, |it| {
        it["metadata"]["labels"][labels::SANDBOX_TEMPLATE_REF_HASH] = json!("00000000");
    });
    assert!(
        judge.is_stale(&old, &other_template),
        "a renamed reference makes every member stale"
    );
}

#[test]
fn what_the_operator_adds_is_no_drift_and_explicit_differences_are() {
    let judge = Staleness::new(vec![[8, 8, 8, 8].into()]);
    let plain = template(json!({}));
    let pool = super::pool(json!({}));
    let object =
        crate::warm_pool::desired::member(&pool, &plain, "p-a", true, &[[8, 8, 8, 8].into()]);
    let unhashed = |mut object: Value| {
        object["metadata"]["labels"][labels::SANDBOX_TEMPLATE_HASH] = json!("deadbeef");
        Make::of(&row::<SandboxRow>(object))
    };
    assert!(!judge.is_stale(&plain, &unhashed(object.clone())));
    let mut mounts = object.clone();
    mounts["spec"]["podTemplate"]["spec"]["automountServiceAccountToken"] = json!(true);
    assert!(judge.is_stale(&plain, &unhashed(mounts)));
    let mut labelled = object;
    labelled["spec"]["podTemplate"]["metadata"]["labels"]["x"] = json!("y");
    assert!(!judge.is_stale(&plain, &unhashed(labelled)));
}
