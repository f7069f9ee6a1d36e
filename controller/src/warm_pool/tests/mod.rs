//! The pure parts of the pool controller.

mod desired;
mod plan;
mod staleness;
mod status;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::fixtures::{owner, row, uid};
use crate::objects::{PodRow, PoolRow, SandboxRow, TemplateRow};
use crate::sandbox::plan::Policy;
use crate::warm_pool::plan::{Member, Observed};

fn pool(spec: Value) -> Arc<PoolRow> {
    let mut object = json!({
        "metadata": {"name": "p", "uid": uid(40), "generation": 2},
        "spec": {"sandboxTemplateRef": {"name": "t"}},
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    row(object)
}

fn template(spec: Value) -> Arc<TemplateRow> {
    let mut object = json!({
        "metadata": {"name": "t", "uid": uid(30)},
        "spec": {"podTemplate": {"spec": {"containers": [{"name": "main", "image": "a"}]}}},
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    row(object)
}

/// A member made at 12:00:00 plus `n` seconds.
fn member(n: u64, metadata: Value, spec: Value, conditions: Value) -> Member {
    let mut object = json!({
        "metadata": {
            "name": format!("p-{n}"), "uid": uid(100 + n), "resourceVersion": (100 + n).to_string(),
            "creationTimestamp": format!("2026-01-01T12:00:{n:02}Z"),
            "ownerReferences": owner("SandboxWarmPool", "p", &uid(40)),
        },
        "spec": spec, "status": {"conditions": conditions},
    });
    for (key, value) in metadata.as_object().unwrap() {
        object["metadata"][key] = value.clone();
    }
    Member {
        row: row::<SandboxRow>(object),
        pod: None,
        stale: false,
    }
}

fn with_pod(mut member: Member, status: Value) -> Member {
    member.pod = Some(row::<PodRow>(
        json!({"metadata": {"name": "x"}, "status": status}),
    ));
    member
}

fn observed(pool: Arc<PoolRow>, members: Vec<Member>) -> Observed {
    Observed {
        pool,
        template: Some(template(json!({}))),
        policy: Policy::InPlace,
        members,
    }
}
