//! The cluster itself: nodes, namespaces, events, leases, classes and access rules.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::{Kind, age, at, condition, items, name, number, number_column, since, text};
use super::{text_column, text_or, wide_column};

/// Kinds without columns of their own.
pub(super) static ANYTHING: Kind = Kind {
    columns: &[text_column("Name"), ("Created At", "date", 0)],
    cells: |object, _now| {
        vec![
            name(object),
            text_or(object, "metadata.creationTimestamp", "<unknown>").into(),
        ]
    },
};

pub(super) static NAMESPACES: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Status"),
        text_column("Age"),
    ],
    cells: |object, now| {
        vec![
            name(object),
            text(object, "status.phase").into(),
            age(object, now),
        ]
    },
};

pub(super) static NODES: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Status"),
        text_column("Roles"),
        text_column("Age"),
        text_column("Version"),
        wide_column("Internal-IP"),
        wide_column("External-IP"),
        wide_column("OS-Image"),
        wide_column("Kernel-Version"),
        wide_column("Container-Runtime"),
    ],
    cells: |object, now| {
        let info = at(object, "status.nodeInfo");
        let kernel = text_or(info, "kernelVersion", "<unknown>");
        let kernel = match text(info, "architecture") {
            "" => kernel.to_owned(),
            architecture => format!("{kernel} ({architecture})"),
        };
        vec![
            name(object),
            node_status(object).into(),
            node_roles(object).into(),
            age(object, now),
            text(info, "kubeletVersion").into(),
            node_address(object, "InternalIP").into(),
            node_address(object, "ExternalIP").into(),
            text_or(info, "osImage", "<unknown>").into(),
            kernel.into(),
            text_or(info, "containerRuntimeVersion", "<unknown>").into(),
        ]
    },
};

pub(super) static EVENTS: Kind = Kind {
    columns: &[
        text_column("Last Seen"),
        text_column("Type"),
        text_column("Reason"),
        text_column("Object"),
        wide_column("Subobject"),
        wide_column("Source"),
        text_column("Message"),
        wide_column("First Seen"),
        wide_column("Count"),
        wide_column("Name"),
    ],
    cells: event,
};

pub(super) static LEASES: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Holder"),
        text_column("Age"),
    ],
    cells: |object, now| {
        vec![
            name(object),
            text(object, "spec.holderIdentity").into(),
            age(object, now),
        ]
    },
};

pub(super) static PRIORITY_CLASSES: Kind = Kind {
    columns: &[
        text_column("Name"),
        number_column("Value"),
        ("Global-Default", "boolean", 0),
        text_column("Age"),
        text_column("PreemptionPolicy"),
    ],
    cells: |object, now| {
        vec![
            name(object),
            number(object, "value").into(),
            (at(object, "globalDefault") == true).into(),
            age(object, now),
            text(object, "preemptionPolicy").into(),
        ]
    },
};

pub(super) static RUNTIME_CLASSES: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Handler"),
        text_column("Age"),
    ],
    cells: |object, now| {
        vec![
            name(object),
            text(object, "handler").into(),
            age(object, now),
        ]
    },
};

pub(super) static ROLE_BINDINGS: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Role"),
        text_column("Age"),
        wide_column("Users"),
        wide_column("Groups"),
        wide_column("ServiceAccounts"),
    ],
    cells: |object, now| {
        let subjects = |kind: &str| -> Value {
            let names: Vec<String> = items(object, "subjects")
                .iter()
                .filter(|subject| text(subject, "kind") == kind)
                .map(|subject| match text(subject, "namespace") {
                    "" => text(subject, "name").to_owned(),
                    namespace => format!("{namespace}/{}", text(subject, "name")),
                })
                .collect();
            names.join(", ").into()
        };
        let role = at(object, "roleRef");
        vec![
            name(object),
            format!("{}/{}", text(role, "kind"), text(role, "name")).into(),
            age(object, now),
            subjects("User"),
            subjects("Group"),
            subjects("ServiceAccount"),
        ]
    },
};

fn node_status(node: &Value) -> String {
    let ready = match condition(node, "Ready") {
        None => "Unknown",
        Some(condition) if text(condition, "status") == "True" => "Ready",
        Some(_) => "NotReady",
    };
    let suffix = if at(node, "spec.unschedulable") == true {
        ",SchedulingDisabled"
    } else {
        ""
    };
    format!("{ready}{suffix}")
}

fn node_roles(node: &Value) -> String {
    let labels = at(node, "metadata.labels").as_object();
    let roles: BTreeSet<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() {
        return "<none>".to_owned();
    }
    roles.into_iter().collect::<Vec<_>>().join(",")
}

fn node_address<'a>(node: &'a Value, r#type: &str) -> &'a str {
    items(node, "status.addresses")
        .iter()
        .find(|address| text(address, "type") == r#type)
        .map_or("<none>", |address| text(address, "address"))
}

/// An event in either of its two forms, whose fields have different names.
fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let either = |core: &str, events: &str| match at(event, core) {
        Value::Null => at(event, events).clone(),
        value => value.clone(),
    };
    let moment = |core: &str, events: &str| either(core, events).as_str().map(str::to_owned);
    let observed = moment("eventTime", "eventTime");
    let first = moment("firstTimestamp", "deprecatedFirstTimestamp").or(observed);
    let mut last = moment("lastTimestamp", "deprecatedLastTimestamp").or_else(|| first.clone());
    let mut count = either("count", "deprecatedCount")
        .as_i64()
        .filter(|count| *count > 0)
        .unwrap_or(1);
    let series = at(event, "series");
    if series.is_object() {
        last = series
            .get("lastObservedTime")
            .and_then(Value::as_str)
            .map(str::to_owned);
        count = number(series, "count");
    }
    let shown = |time: Option<String>| since(&time.unwrap_or_default(), now);
    let subject = either("involvedObject", "regarding");
    let kind = text(&subject, "kind").to_lowercase();
    let target = match text(&subject, "name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source = either("source", "deprecatedSource");
    let controller = either("reportingComponent", "reportingController");
    let component = text_or(
        &source,
        "component",
        controller.as_str().unwrap_or_default(),
    );
    let instance = text_or(&source, "host", text(event, "reportingInstance"));
    let origin = if instance.is_empty() {
        component.to_owned()
    } else {
        format!("{component}, {instance}")
    };
    vec![
        shown(last).into(),
        text(event, "type").into(),
        text(event, "reason").into(),
        target.into(),
        text(&subject, "fieldPath").into(),
        origin.into(),
        either("message", "note")
            .as_str()
            .unwrap_or_default()
            .trim()
            .into(),
        shown(first).into(),
        count.into(),
        name(event),
    ]
}
