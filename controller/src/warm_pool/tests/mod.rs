//! The pure parts of the pool controller.

mod desired;
mod plan;
mod staleness;
mod status;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::fixtures::{owner, row, uid};
use crate::ident::{Key, Uid};
use crate::objects::{Labels, Make, NodeHealth, PodRow, PoolRow, SandboxRow, TemplateRow};
use crate::sandbox::policy::Policy;
use crate::store::{Around, PoolId, Roll, Rolls};
use crate::warm_pool::plan::Observed;

/// A member and what it depends on.
#[derive(Clone)]
struct Member {
    row: Arc<SandboxRow>,
    pod: Option<Arc<PodRow>>,
    node: NodeHealth,
}

/// What is known of a pool.
#[derive(Clone)]
struct Seen {
    pool: Arc<PoolRow>,
    template: Option<Arc<TemplateRow>>,
    policy: Policy,
    members: Vec<Member>,
}

impl Seen {
    fn decide<T>(&self, decide: impl FnOnce(&Observed<'_>) -> T) -> T {
        let mut rolls = Rolls::default();
        for member in &self.members {
            let around = Around {
                pod: member.pod.as_deref(),
                node: None,
                health: member.node,
                node_since: None,
                retiring: false,
            };
            rolls.update(&member.row, around);
        }
        let nobody = Roll::default();
        let id = PoolId::new(&Key::new("n", "p"), Uid::parse(&uid(40)));
        let roll = rolls.of(&id).unwrap_or(&nobody);
        let is_stale = |make: &Arc<Make>| make.ref_hash.as_deref() == Some(STALE);
        let makes = roll.groups().map(|(make, _)| make.clone());
        let stale: BTreeSet<Arc<Make>> = makes.filter(is_stale).collect();
        decide(&Observed {
            pool: &self.pool,
            template: self.template.as_deref(),
            policy: &self.policy,
            roll,
            stale: &stale,
        })
    }
}

/// Marks members that are out of date.
const STALE: &str = "stale";

fn stale(mut member: Member) -> Member {
    let mut row = SandboxRow::clone(&member.row);
    let key = agent_sandbox_crds::labels::SANDBOX_TEMPLATE_REF_HASH;
    row.labels = Arc::new(Labels::from_iter([(key.into(), STALE.into())]));
    member.row = Arc::new(row);
    member
}

fn stranded(mut member: Member) -> Member {
    member.node = NodeHealth::Sick;
    member
}

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
        node: NodeHealth::Fine,
    }
}

fn with_pod(mut member: Member, status: Value) -> Member {
    member.pod = Some(row::<PodRow>(
        json!({"metadata": {"name": "x"}, "status": status}),
    ));
    member
}

fn observed(pool: Arc<PoolRow>, members: Vec<Member>) -> Seen {
    Seen {
        pool,
        template: Some(template(json!({}))),
        policy: Policy::NotNeeded,
        members,
    }
}
