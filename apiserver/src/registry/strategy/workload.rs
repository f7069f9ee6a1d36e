//! Workloads: defaults of their own and of the pod template inside, and selectors that stay.

use serde_json::{Value, json};

use super::{Context, NameRule, Strategy, child, default, items_mut, pod_spec};
use crate::meta;
use crate::schema::FieldError;

/// Implements the hooks of a workload from a function that completes its spec.
macro_rules! workload {
    ($name:ident, $complete:path, $immutable:expr) => {
        #[derive(Debug)]
        pub(super) struct $name;

        impl Strategy for $name {
            fn prepare_create(&self, _ctx: &Context<'_>, object: &mut Value) {
                $complete(object);
            }

            fn prepare_update(
                &self,
                _ctx: &Context<'_>,
                subresource: &str,
                new: &mut Value,
                _old: &Value,
            ) {
                if subresource.is_empty() {
                    $complete(new);
                }
            }

            fn validate(
                &self,
                _ctx: &Context<'_>,
                new: &Value,
                old: Option<&Value>,
            ) -> Vec<FieldError> {
                old.map(|old| unchanged(&$immutable, new, old))
                    .unwrap_or_default()
            }
        }
    };
}

workload!(Deployment, deployment, ["selector"]);
workload!(ReplicaSet, replica_set, ["selector"]);
workload!(
    StatefulSet,
    stateful_set,
    [
        "selector",
        "serviceName",
        "podManagementPolicy",
        "volumeClaimTemplates"
    ]
);
workload!(DaemonSet, daemon_set, ["selector"]);
workload!(Job, job, ["selector", "completionMode"]);
workload!(ReplicationController, replication_controller, NOTHING);

const NOTHING: [&str; 0] = [];

/// Cron jobs: the template of a template, and a name that leaves room for a time.
#[derive(Debug)]
pub(super) struct CronJob;

impl Strategy for CronJob {
    fn prepare_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        cron_job(object);
    }

    fn prepare_update(&self, _ctx: &Context<'_>, subresource: &str, new: &mut Value, _old: &Value) {
        if subresource.is_empty() {
            cron_job(new);
        }
    }

    fn validate(&self, ctx: &Context<'_>, _new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        if old.is_none() && ctx.name.len() > 52 {
            let problem = "must be no more than 52 characters";
            return vec![FieldError::invalid(
                "metadata.name",
                &json!(ctx.name),
                problem,
            )];
        }
        Vec::new()
    }
}

/// A stored pod template.
#[derive(Debug)]
pub(super) struct PodTemplate;

impl Strategy for PodTemplate {
    fn prepare_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        template(object);
    }

    fn prepare_update(&self, _ctx: &Context<'_>, _sub: &str, new: &mut Value, _old: &Value) {
        template(new);
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }
}

fn template(owner: &mut Value) {
    let spec = owner
        .get_mut("template")
        .and_then(|template| template.get_mut("spec"));
    if let Some(spec) = spec.filter(|spec| spec.is_object()) {
        pod_spec::complete(spec);
    }
}

fn deployment(object: &mut Value) {
    let Some(spec) = child(object, "spec") else {
        return;
    };
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    if let Some(strategy) = child(spec, "strategy") {
        default(strategy, "type", "RollingUpdate");
        if strategy.get("type").and_then(Value::as_str) == Some("RollingUpdate")
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            default(rolling, "maxUnavailable", "25%");
            default(rolling, "maxSurge", "25%");
        }
    }
    template(spec);
}

fn replica_set(object: &mut Value) {
    let Some(spec) = child(object, "spec") else {
        return;
    };
    default(spec, "replicas", 1);
    template(spec);
}

fn replication_controller(object: &mut Value) {
    let Some(spec) = child(object, "spec") else {
        return;
    };
    default(spec, "replicas", 1);
    let labels = ["template", "metadata", "labels"].map(ToOwned::to_owned);
    if let Some(labels) = meta::at(spec, &labels).cloned() {
        default(spec, "selector", labels);
    }
    template(spec);
}

fn stateful_set(object: &mut Value) {
    let Some(spec) = child(object, "spec") else {
        return;
    };
    default(spec, "replicas", 1);
    default(spec, "podManagementPolicy", "OrderedReady");
    default(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = child(spec, "updateStrategy") {
        default(strategy, "type", "RollingUpdate");
        if strategy.get("type").and_then(Value::as_str) == Some("RollingUpdate")
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            default(rolling, "partition", 0);
        }
    }
    default(
        spec,
        "persistentVolumeClaimRetentionPolicy",
        json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }),
    );
    for claim in items_mut(spec, "volumeClaimTemplates") {
        default(claim, "apiVersion", "v1");
        default(claim, "kind", "PersistentVolumeClaim");
        super::volume::complete_claim(claim);
    }
    template(spec);
}

fn daemon_set(object: &mut Value) {
    let Some(spec) = child(object, "spec") else {
        return;
    };
    default(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = child(spec, "updateStrategy") {
        default(strategy, "type", "RollingUpdate");
        if strategy.get("type").and_then(Value::as_str) == Some("RollingUpdate")
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            default(rolling, "maxUnavailable", 1);
            default(rolling, "maxSurge", 0);
        }
    }
    template(spec);
}

fn job(object: &mut Value) {
    let uid = meta::text(object, "uid").to_owned();
    let name = meta::text(object, "name").to_owned();
    let Some(spec) = child(object, "spec") else {
        return;
    };
    job_spec(spec);
    let manual = spec.get("manualSelector").and_then(Value::as_bool) == Some(true);
    if manual || uid.is_empty() {
        return;
    }
    // A job recognises its pods by labels nobody else uses.
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
}

fn job_spec(spec: &mut Value) {
    default(spec, "parallelism", 1);
    // A work queue has no fixed number of completions; everything else completes once.
    if spec.get("parallelism").and_then(Value::as_i64) == Some(1) {
        default(spec, "completions", 1);
    }
    default(spec, "backoffLimit", 6);
    default(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    default(spec, "manualSelector", false);
    default(spec, "podReplacementPolicy", "TerminatingOrFailed");
    template(spec);
}

fn cron_job(object: &mut Value) {
    let Some(spec) = child(object, "spec") else {
        return;
    };
    default(spec, "concurrencyPolicy", "Allow");
    default(spec, "suspend", false);
    default(spec, "successfulJobsHistoryLimit", 3);
    default(spec, "failedJobsHistoryLimit", 1);
    let template = spec
        .get_mut("jobTemplate")
        .and_then(|template| template.get_mut("spec"));
    if let Some(job) = template.and_then(|job| job.get_mut("template")) {
        let spec = job.get_mut("spec").filter(|spec| spec.is_object());
        if let Some(spec) = spec {
            pod_spec::complete(spec);
        }
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
