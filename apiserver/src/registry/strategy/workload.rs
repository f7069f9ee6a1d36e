//! Workloads: what is derived when they are created, and what must stay.

use serde_json::{Value, json};

use super::{Context, Strategy, child, default, items_mut};
use crate::meta;
use crate::registry::rules;
use crate::schema::FieldError;

/// Implements the hooks of a workload: a function that completes it, the rules of its kind, and the
/// fields of its spec that cannot change.
macro_rules! workload {
    ($name:ident, $complete:expr, $rules:path, $immutable:expr) => {
        #[derive(Debug)]
        pub(super) struct $name;

        impl Strategy for $name {
            fn prepare_create(&self, _ctx: &Context<'_>, object: &mut Value) {
                $complete(object);
            }

            fn prepare_update(&self, ctx: &Context<'_>, new: &mut Value, _old: &Value) {
                if ctx.subresource.is_empty() {
                    $complete(new);
                }
            }

            fn validate(
                &self,
                _ctx: &Context<'_>,
                new: &Value,
                old: Option<&Value>,
            ) -> Vec<FieldError> {
                let fields: &[&str] = &$immutable;
                let mut errors = $rules(new);
                errors.extend(
                    old.map(|old| unchanged(fields, new, old))
                        .unwrap_or_default(),
                );
                errors
            }
        }
    };
}

workload!(Deployment, nothing, rules::deployment, ["selector"]);
workload!(ReplicaSet, nothing, rules::replica_set, ["selector"]);
workload!(
    StatefulSet,
    name_claims,
    rules::stateful_set,
    [
        "selector",
        "serviceName",
        "podManagementPolicy",
        "volumeClaimTemplates"
    ]
);
workload!(DaemonSet, nothing, rules::daemon_set, ["selector"]);
workload!(
    Job,
    select_own_pods,
    rules::job,
    ["selector", "completionMode"]
);
workload!(PodTemplate, nothing, rules::pod_template, []);

/// Cron jobs: a name that leaves room for a time.
#[derive(Debug)]
pub(super) struct CronJob;

impl Strategy for CronJob {
    fn validate(&self, ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = rules::cron_job(new);
        if old.is_none() && ctx.name.len() > 52 {
            let problem = "must be no more than 52 characters";
            errors.push(FieldError::invalid(
                "metadata.name",
                &json!(ctx.name),
                problem,
            ));
        }
        errors
    }
}

fn nothing(_object: &mut Value) {}

/// Claim templates are whole objects and say so.
fn name_claims(object: &mut Value) {
    let Some(spec) = child(object, "spec") else {
        return;
    };
    for claim in items_mut(spec, "volumeClaimTemplates") {
        default(claim, "apiVersion", "v1");
        default(claim, "kind", "PersistentVolumeClaim");
    }
}

/// A job recognises its pods by labels nobody else uses.
fn select_own_pods(object: &mut Value) {
    let uid = meta::text(object, "uid").to_owned();
    let name = meta::text(object, "name").to_owned();
    let Some(spec) = child(object, "spec") else {
        return;
    };
    let manual = spec.get("manualSelector").and_then(Value::as_bool) == Some(true);
    if manual || uid.is_empty() {
        return;
    }
    let labels = [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ];
    for (label, value) in labels {
        let path = ["template", "metadata", "labels", label].map(ToOwned::to_owned);
        if meta::at(spec, &path).is_none() {
            meta::put(spec, &path, Some(value.as_str().into()));
        }
    }
    let selector = json!({ "matchLabels": { "batch.kubernetes.io/controller-uid": uid } });
    default(spec, "selector", selector);
    // A job without labels has those of its template.
    let labels = ["template", "metadata", "labels"].map(ToOwned::to_owned);
    let labels = meta::at(spec, &labels).cloned().unwrap_or_default();
    if let Some(metadata) = object.get_mut("metadata") {
        default(metadata, "labels", labels);
    }
}

/// One error per field of the spec that must stay and did not.
fn unchanged(fields: &[&str], new: &Value, old: &Value) -> Vec<FieldError> {
    let of = |object: &Value, field: &str| {
        object
            .get("spec")
            .and_then(|spec| spec.get(field))
            .cloned()
            .unwrap_or(Value::Null)
    };
    fields
        .iter()
        .filter(|field| of(new, field) != of(old, field))
        .map(|field| {
            let path = format!("spec.{field}");
            FieldError::invalid(path, &of(new, field), "field is immutable")
        })
        .collect()
}
