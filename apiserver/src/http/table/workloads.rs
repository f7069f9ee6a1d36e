//! What keeps pods running: workloads, jobs, autoscalers and budgets.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Kind, age, at, has_condition, is_deleting, items, labels, name, number, number_column,
};
use super::{selector, shortened, since, text, text_column, text_or, wide_column};
use crate::format::time;

pub(super) static DEPLOYMENTS: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Ready"),
        text_column("Up-to-date"),
        text_column("Available"),
        text_column("Age"),
        wide_column("Containers"),
        wide_column("Images"),
        wide_column("Selector"),
    ],
    cells: |object, now| {
        let [names, images] = containers(object, "spec.template.spec.containers");
        // Unlike the other workloads, an empty selector is not spelled out.
        let selector = match selector(at(object, "spec.selector")) {
            none if none == "<none>" => String::new(),
            selector => selector,
        };
        vec![
            name(object),
            ready(object),
            number(object, "status.updatedReplicas").into(),
            number(object, "status.availableReplicas").into(),
            age(object, now),
            names,
            images,
            selector.into(),
        ]
    },
};

pub(super) static REPLICA_SETS: Kind = Kind {
    columns: &[
        text_column("Name"),
        number_column("Desired"),
        number_column("Current"),
        number_column("Ready"),
        text_column("Age"),
        wide_column("Containers"),
        wide_column("Images"),
        wide_column("Selector"),
    ],
    cells: |object, now| {
        let [names, images] = containers(object, "spec.template.spec.containers");
        vec![
            name(object),
            number(object, "spec.replicas").into(),
            number(object, "status.replicas").into(),
            number(object, "status.readyReplicas").into(),
            age(object, now),
            names,
            images,
            selector(at(object, "spec.selector")).into(),
        ]
    },
};

pub(super) static STATEFUL_SETS: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Ready"),
        text_column("Age"),
        wide_column("Containers"),
        wide_column("Images"),
    ],
    cells: |object, now| {
        let [names, images] = containers(object, "spec.template.spec.containers");
        vec![name(object), ready(object), age(object, now), names, images]
    },
};

pub(super) static DAEMON_SETS: Kind = Kind {
    columns: &[
        text_column("Name"),
        number_column("Desired"),
        number_column("Current"),
        number_column("Ready"),
        number_column("Up-to-date"),
        number_column("Available"),
        text_column("Node Selector"),
        text_column("Age"),
        wide_column("Containers"),
        wide_column("Images"),
        wide_column("Selector"),
    ],
    cells: |object, now| {
        let [names, images] = containers(object, "spec.template.spec.containers");
        vec![
            name(object),
            number(object, "status.desiredNumberScheduled").into(),
            number(object, "status.currentNumberScheduled").into(),
            number(object, "status.numberReady").into(),
            number(object, "status.updatedNumberScheduled").into(),
            number(object, "status.numberAvailable").into(),
            labels(at(object, "spec.template.spec.nodeSelector")).into(),
            age(object, now),
            names,
            images,
            selector(at(object, "spec.selector")).into(),
        ]
    },
};

pub(super) static POD_TEMPLATES: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Containers"),
        text_column("Images"),
        text_column("Pod Labels"),
    ],
    cells: |object, _now| {
        let [names, images] = containers(object, "template.spec.containers");
        vec![
            name(object),
            names,
            images,
            labels(at(object, "template.metadata.labels")).into(),
        ]
    },
};

pub(super) static CONTROLLER_REVISIONS: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Controller"),
        text_column("Revision"),
        text_column("Age"),
    ],
    cells: |object, now| {
        let owners = items(object, "metadata.ownerReferences");
        let controller = owners.iter().find(|owner| at(owner, "controller") == true);
        let controller = controller.map_or_else(
            || "<none>".to_owned(),
            |owner| {
                let kind = text(owner, "kind").to_lowercase();
                match text(owner, "apiVersion").split_once('/') {
                    Some((group, _)) => format!("{kind}.{group}/{}", text(owner, "name")),
                    None => format!("{kind}/{}", text(owner, "name")),
                }
            },
        );
        vec![
            name(object),
            controller.into(),
            number(object, "revision").into(),
            age(object, now),
        ]
    },
};

pub(super) static JOBS: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Status"),
        text_column("Completions"),
        text_column("Duration"),
        text_column("Age"),
        wide_column("Containers"),
        wide_column("Images"),
        wide_column("Selector"),
    ],
    cells: |object, now| {
        let [names, images] = containers(object, "spec.template.spec.containers");
        vec![
            name(object),
            job_status(object).into(),
            completions(object).into(),
            job_duration(object, now).into(),
            age(object, now),
            names,
            images,
            selector(at(object, "spec.selector")).into(),
        ]
    },
};

pub(super) static CRON_JOBS: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Schedule"),
        text_column("Timezone"),
        ("Suspend", "boolean", 0),
        number_column("Active"),
        text_column("Last Schedule"),
        text_column("Age"),
        wide_column("Containers"),
        wide_column("Images"),
        wide_column("Selector"),
    ],
    cells: |object, now| {
        let [names, images] = containers(object, "spec.jobTemplate.spec.template.spec.containers");
        let suspend = match at(object, "spec.suspend").as_bool() {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        let last = match text(object, "status.lastScheduleTime") {
            "" => "<none>".to_owned(),
            time => since(time, now),
        };
        vec![
            name(object),
            text(object, "spec.schedule").into(),
            text_or(object, "spec.timeZone", "<none>").into(),
            suspend.into(),
            items(object, "status.active").len().into(),
            last.into(),
            age(object, now),
            names,
            images,
            selector(at(object, "spec.jobTemplate.spec.selector")).into(),
        ]
    },
};

pub(super) static AUTOSCALERS: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Reference"),
        text_column("Targets"),
        text_column("MinPods"),
        text_column("MaxPods"),
        text_column("Replicas"),
        text_column("Age"),
    ],
    cells: |object, now| {
        let target = at(object, "spec.scaleTargetRef");
        let min = at(object, "spec.minReplicas").as_i64();
        vec![
            name(object),
            format!("{}/{}", text(target, "kind"), text(target, "name")).into(),
            metrics(object).into(),
            min.map_or_else(|| "<unset>".to_owned(), |min| min.to_string())
                .into(),
            number(object, "spec.maxReplicas").into(),
            number(object, "status.currentReplicas").into(),
            age(object, now),
        ]
    },
};

pub(super) static DISRUPTION_BUDGETS: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Min Available"),
        text_column("Max Unavailable"),
        number_column("Allowed Disruptions"),
        text_column("Age"),
    ],
    cells: |object, now| {
        let share = |path: &str| match at(object, path) {
            Value::String(text) => Value::from(text.as_str()),
            Value::Number(number) => number.to_string().into(),
            _ => "N/A".into(),
        };
        vec![
            name(object),
            share("spec.minAvailable"),
            share("spec.maxUnavailable"),
            number(object, "status.disruptionsAllowed").into(),
            age(object, now),
        ]
    },
};

/// Ready out of wanted replicas.
fn ready(object: &Value) -> Value {
    let (ready, wanted) = (
        number(object, "status.readyReplicas"),
        number(object, "spec.replicas"),
    );
    format!("{ready}/{wanted}").into()
}

/// The names and the images of the containers at a path.
fn containers(object: &Value, path: &str) -> [Value; 2] {
    ["name", "image"].map(|field| {
        let texts: Vec<&str> = items(object, path)
            .iter()
            .map(|container| text(container, field))
            .collect();
        texts.join(",").into()
    })
}

fn job_status(job: &Value) -> &'static str {
    if has_condition(job, "Complete") {
        "Complete"
    } else if has_condition(job, "Failed") {
        "Failed"
    } else if is_deleting(job) {
        "Terminating"
    } else if has_condition(job, "Suspended") {
        "Suspended"
    } else if has_condition(job, "FailureTarget") {
        "FailureTarget"
    } else if has_condition(job, "SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let succeeded = number(job, "status.succeeded");
    if let Some(wanted) = at(job, "spec.completions").as_i64() {
        return format!("{succeeded}/{wanted}");
    }
    match number(job, "spec.parallelism") {
        parallelism if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    }
}

fn job_duration(job: &Value, now: Timestamp) -> String {
    let Some(start) = time::parse(text(job, "status.startTime")) else {
        return String::new();
    };
    let end = time::parse(text(job, "status.completionTime")).unwrap_or(now);
    time::human_age(start, end)
}

/// Current and wanted values of an autoscaler's metrics.
fn metrics(autoscaler: &Value) -> String {
    let specs = items(autoscaler, "spec.metrics");
    if specs.is_empty() {
        return "<none>".to_owned();
    }
    let statuses = items(autoscaler, "status.currentMetrics");
    let texts: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| metric(spec, statuses.get(index).unwrap_or(&Value::Null)))
        .collect();
    shortened(&texts, 2, ", ")
}

fn metric(spec: &Value, status: &Value) -> String {
    let (source, named) = match text(spec, "type") {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (
        at(at(spec, source), "target"),
        at(at(status, source), "current"),
    );
    let average = text(target, "averageValue");
    let resource = text(at(spec, source), "name");
    match (named, average) {
        (true, "") => {
            let percent = |value: &Value, absent: &str| {
                value
                    .as_i64()
                    .map_or_else(|| absent.to_owned(), |value| format!("{value}%"))
            };
            format!(
                "{resource}: {}/{}",
                percent(at(current, "averageUtilization"), "<unknown>"),
                percent(at(target, "averageUtilization"), "<auto>")
            )
        }
        (true, average) => {
            format!(
                "{resource}: {}/{average}",
                text_or(current, "averageValue", "<unknown>")
            )
        }
        (false, "") => {
            format!(
                "{}/{}",
                text_or(current, "value", "<unknown>"),
                text(target, "value")
            )
        }
        (false, average) => {
            let note = if source == "pods" { "" } else { " (avg)" };
            format!(
                "{}/{average}{note}",
                text_or(current, "averageValue", "<unknown>")
            )
        }
    }
}
