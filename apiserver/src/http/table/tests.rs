//! Tables as a real server renders them, and the states of pods.
//!
//! `recorded.jsonl` holds, per kind, the columns a Kubernetes 1.36 API server sent and rows of cells
//! with the objects they were made from. Cells that depend on the time of the request are null.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::registry::{Column as Declared, builtin, strategy_for};

const RECORDED: &str = include_str!("recorded.jsonl");

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().expect("a time")
}

fn table(plural: &str, group: &str, objects: &[Value]) -> Value {
    let descriptor = builtin::descriptors()
        .into_iter()
        .find(|d| d.plural == plural && d.group == group)
        .expect("a built-in resource");
    let version = descriptor.versions[0].clone();
    render(
        &descriptor,
        &version,
        objects,
        &json!({}),
        IncludeObject::Metadata,
        true,
        now(),
    )
}

#[test]
fn tables_equal_those_of_a_real_server() {
    let mut rows = 0;
    for line in RECORDED.lines() {
        let case: Value = serde_json::from_str(line).expect("a line of JSON");
        let (group, plural) = (
            case["group"].as_str().expect("text"),
            case["plural"].as_str().expect("text"),
        );
        let objects: Vec<Value> = case["rows"]
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| row["object"].clone())
            .collect();
        let table = table(plural, group, &objects);
        let columns: Value = table["columnDefinitions"]
            .as_array()
            .expect("columns")
            .iter()
            .map(|column| {
                json!([
                    column["name"],
                    column["type"],
                    column["format"],
                    column["priority"]
                ])
            })
            .collect();
        assert_eq!(columns, case["columns"], "columns of {plural}");
        for (index, row) in case["rows"].as_array().expect("rows").iter().enumerate() {
            let cells = table["rows"][index]["cells"].as_array().expect("cells");
            let expected = row["cells"].as_array().expect("cells");
            assert_eq!(cells.len(), expected.len(), "{plural}");
            for (cell, expected) in cells.iter().zip(expected).filter(|(_, e)| !e.is_null()) {
                assert_eq!(
                    cell, expected,
                    "{plural} {}",
                    row["object"]["metadata"]["name"]
                );
            }
            rows += 1;
        }
    }
    assert!(rows > 45, "only {rows} rows were compared");
}

fn pod_row(spec: &Value, status: &Value) -> Vec<String> {
    let pod = json!({
        "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:55:00Z"},
        "spec": spec,
        "status": status,
    });
    cells_of(&pod)
}

fn cells_of(pod: &Value) -> Vec<String> {
    let table = table("pods", "", std::slice::from_ref(pod));
    let cells = table["rows"][0]["cells"].as_array().expect("cells");
    cells
        .iter()
        .map(|cell| cell.as_str().expect("text").to_owned())
        .collect()
}

#[test]
fn the_status_of_a_pod_sums_up_its_containers() {
    let one = json!({"containers": [{"name": "a"}]});
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let waiting =
        |reason: &str| json!({"state": {"waiting": {"reason": reason}}, "restartCount": 2});
    let running = json!({"state": {"running": {}}, "ready": true, "restartCount": 0});
    let ended = |code: i64, reason: &str| json!({"state": {"terminated": {"exitCode": code, "reason": reason}}, "restartCount": 0});
    let signal = json!({"state": {"terminated": {"exitCode": 137, "signal": 9}}});
    let ready = json!([{"type": "Ready", "status": "True"}]);
    for (spec, status, expected) in [
        (
            one.clone(),
            json!({"phase": "Pending"}),
            ["0/1", "Pending", "0"],
        ),
        (
            one.clone(),
            json!({"phase": "Pending", "containerStatuses": [waiting("ContainerCreating")]}),
            ["0/1", "ContainerCreating", "2"],
        ),
        (
            one.clone(),
            json!({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff")]}),
            ["0/1", "CrashLoopBackOff", "2"],
        ),
        (
            one.clone(),
            json!({"phase": "Running", "containerStatuses": [running], "conditions": ready}),
            ["1/1", "Running", "0"],
        ),
        (
            one.clone(),
            json!({"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]}),
            ["0/1", "Completed", "0"],
        ),
        (
            one.clone(),
            json!({"phase": "Failed", "containerStatuses": [ended(1, "Error")]}),
            ["0/1", "Error", "0"],
        ),
        (
            one.clone(),
            json!({"phase": "Failed", "containerStatuses": [signal]}),
            ["0/1", "Signal:9", "0"],
        ),
        (
            one.clone(),
            json!({"phase": "Failed", "containerStatuses": [ended(3, "")]}),
            ["0/1", "ExitCode:3", "0"],
        ),
        (
            one.clone(),
            json!({"phase": "Failed", "reason": "Evicted"}),
            ["0/1", "Evicted", "0"],
        ),
        (
            two.clone(),
            json!({"phase": "Running", "conditions": ready,
                   "containerStatuses": [ended(0, "Completed"), running]}),
            ["1/2", "Running", "0"],
        ),
        (
            two.clone(),
            json!({"phase": "Running", "containerStatuses": [ended(0, "Completed"), running]}),
            ["1/2", "NotReady", "0"],
        ),
        (
            two,
            json!({"phase": "Running", "containerStatuses": [ended(0, "Completed"), ended(2, "Error")]}),
            ["0/2", "Error", "0"],
        ),
        (
            one,
            json!({"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            ["0/1", "SchedulingGated", "0"],
        ),
    ] {
        let cells = pod_row(&spec, &status);
        assert_eq!(cells[1..4], expected, "{status}");
        assert_eq!((cells[0].as_str(), cells[4].as_str()), ("p", "5m"));
    }
}

#[test]
fn init_containers_show_their_progress() {
    let spec = json!({
        "initContainers": [{"name": "i"}, {"name": "side", "restartPolicy": "Always"}, {"name": "j"}],
        "containers": [{"name": "a"}],
    });
    let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}, "restartCount": 1});
    let started = json!({"name": "side", "started": true, "ready": true, "restartCount": 3,
                         "state": {"running": {}}});
    for (statuses, expected) in [
        (
            json!([{"name": "i", "state": {"running": {}}}]),
            ["0/2", "Init:0/3", "0"],
        ),
        (
            json!([done, started, {"name": "j", "state": {"running": {}}}]),
            ["1/2", "Init:2/3", "4"],
        ),
        (
            json!([done, started, {"name": "j", "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                                   "restartCount": 2}]),
            ["1/2", "Init:CrashLoopBackOff", "6"],
        ),
        (
            json!([{"name": "i", "state": {"waiting": {"reason": "PodInitializing"}}}]),
            ["0/2", "Init:0/3", "0"],
        ),
        (
            json!([{"name": "i", "state": {"terminated": {"exitCode": 2}}}]),
            ["0/2", "Init:ExitCode:2", "0"],
        ),
        (
            json!([{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]),
            ["0/2", "Init:Error", "0"],
        ),
    ] {
        let status = json!({"phase": "Pending", "initContainerStatuses": statuses});
        assert_eq!(pod_row(&spec, &status)[1..4], expected, "{statuses}");
    }
    // Once they are through, only those that keep running count.
    let through = json!([done, started, {"name": "j", "state": {"terminated": {"exitCode": 0}},
                                         "restartCount": 5}]);
    let running = json!([{"name": "a", "state": {"running": {}}, "ready": true, "restartCount": 1,
        "lastState": {"terminated": {"finishedAt": "2026-01-01T00:58:00Z"}}}]);
    let status =
        json!({"phase": "Running", "initContainerStatuses": through, "containerStatuses": running});
    assert_eq!(
        pod_row(&spec, &status)[1..4],
        ["2/2", "Running", "4 (2m ago)"]
    );
}

#[test]
fn pods_on_their_way_out_and_wide_cells() {
    let pod = |phase: &str, reason: &str| {
        json!({
            "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:59:00Z",
                         "deletionTimestamp": "2026-01-01T00:59:30Z"},
            "spec": {"containers": [{"name": "a"}], "nodeName": "n1",
                     "readinessGates": [{"conditionType": "x"}, {"conditionType": "y"}]},
            "status": {"phase": phase, "reason": reason, "nominatedNodeName": "n2",
                       "podIPs": [{"ip": "10.0.0.1"}, {"ip": "::1"}],
                       "conditions": [{"type": "x", "status": "True"}]},
        })
    };
    let cells = cells_of(&pod("Running", ""));
    assert_eq!(cells[2], "Terminating");
    assert_eq!(cells[5..], ["10.0.0.1", "n1", "n2", "1/2"]);
    assert_eq!(cells_of(&pod("Running", "NodeLost"))[2], "Unknown");
    assert_eq!(
        cells_of(&pod("Succeeded", ""))[2],
        "Succeeded",
        "what is over does not terminate"
    );

    let table = table("pods", "", &[pod("Failed", ""), pod("Running", "")]);
    assert_eq!(table["rows"][0]["conditions"][0]["reason"], "Failed");
    assert!(table["rows"][1].get("conditions").is_none());
}

#[test]
fn lists_are_cut_and_balancers_listed() {
    let service = |spec: Value, status: Value| {
        let object = json!({"metadata": {"name": "s"}, "spec": spec, "status": status});
        table("services", "", &[object])["rows"][0]["cells"].clone()
    };
    let ingress = json!({"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"hostname": "a.b"}]}});
    let balancer = json!({"type": "LoadBalancer", "externalIPs": ["9.9.9.9"]});
    assert_eq!(service(balancer.clone(), ingress)[3], "2.2.2.2,a.b,9.9.9.9");
    assert_eq!(
        service(json!({"type": "LoadBalancer"}), json!({}))[3],
        "<pending>"
    );
    assert_eq!(
        service(
            json!({"type": "ClusterIP", "externalIPs": ["1.1.1.1"]}),
            json!({})
        )[3],
        "1.1.1.1"
    );

    let addresses: Vec<Value> = (1..=5)
        .map(|n| json!({"ip": format!("10.0.0.{n}")}))
        .collect();
    let endpoints = json!({"metadata": {"name": "e"}, "subsets": [
        {"addresses": addresses, "ports": [{"port": 80}]}, {"addresses": [{"ip": "::1"}], "ports": [{"port": 1}]}]});
    assert_eq!(
        table("endpoints", "", &[endpoints])["rows"][0]["cells"][1],
        "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 3 more..."
    );
}

#[test]
fn events_read_the_same_in_both_groups() {
    let core = json!({
        "metadata": {"name": "e"}, "type": "Normal", "reason": "Started", "message": " it runs \n",
        "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"},
        "source": {"component": "kubelet", "host": "n1"}, "count": 3,
        "firstTimestamp": "2026-01-01T00:50:00Z", "lastTimestamp": "2026-01-01T00:59:00Z",
    });
    let expected = json!([
        "60s",
        "Normal",
        "Started",
        "pod/p",
        "spec.containers{a}",
        "kubelet, n1",
        "it runs",
        "10m",
        3,
        "e"
    ]);
    assert_eq!(table("events", "", &[core])["rows"][0]["cells"], expected);
    let view = json!({
        "metadata": {"name": "e"}, "type": "Normal", "reason": "Started", "note": "it runs",
        "regarding": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"},
        "deprecatedSource": {"component": "kubelet", "host": "n1"}, "deprecatedCount": 3,
        "deprecatedFirstTimestamp": "2026-01-01T00:50:00Z",
        "deprecatedLastTimestamp": "2026-01-01T00:59:00Z",
    });
    assert_eq!(
        table("events", "events.k8s.io", &[view])["rows"][0]["cells"],
        expected
    );
    let series = json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:50:00.000000Z",
        "regarding": {"kind": "Node"}, "reportingController": "c", "reportingInstance": "i",
        "series": {"count": 7, "lastObservedTime": "2026-01-01T00:59:30.000000Z"},
    });
    assert_eq!(
        table("events", "events.k8s.io", &[series])["rows"][0]["cells"],
        json!(["30s", "", "", "node", "", "c, i", "", "10m", 7, "e"])
    );
}

fn custom(columns: Vec<Declared>) -> (Descriptor, Version) {
    let mut descriptor = builtin::descriptors().swap_remove(0);
    descriptor.origin = Origin::Custom {
        uid: "u".to_owned(),
    };
    descriptor.strategy = strategy_for("example.com", "widgets");
    let mut version = Version::clone(&descriptor.versions[0]);
    version.columns = columns;
    descriptor.versions = vec![Arc::new(version.clone())];
    (descriptor, version)
}

#[test]
fn custom_resources_print_their_declared_columns() {
    let column = |name: &str, r#type: &str, path: &str| Declared {
        name: name.to_owned(),
        r#type: r#type.to_owned(),
        format: String::new(),
        description: String::new(),
        priority: i32::from(name == "Wide"),
        json_path: path.to_owned(),
    };
    let (descriptor, version) = custom(vec![
        column("Phase", "string", ".status.phase"),
        column(
            "Ready",
            "string",
            ".status.conditions[?(@.type=='Ready')].status",
        ),
        column("Replicas", "integer", ".spec.replicas"),
        column("Ratio", "number", ".spec.ratio"),
        column("On", "boolean", ".spec.on"),
        column("Since", "date", ".status.since"),
        column("Wide", "string", ".spec.labels"),
        column("Text", "string", ".spec.replicas"),
        column("Broken", "date", ".spec.replicas"),
    ]);
    let objects = [
        json!({
            "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "uid": "1"},
            "spec": {"replicas": 3, "ratio": 0.5, "on": false, "labels": {"a": "b"}},
            "status": {"phase": "Up", "since": "2026-01-01T00:00:00Z",
                       "conditions": [{"type": "Ready", "status": "True"}]},
        }),
        json!({"metadata": {"name": "empty"}, "status": {"since": "soon"}}),
    ];
    let render = |include, headers| {
        render(
            &descriptor,
            &version,
            &objects,
            &json!({"resourceVersion": "7"}),
            include,
            headers,
            now(),
        )
    };
    let table = render(IncludeObject::Metadata, true);
    assert_eq!(table["metadata"], json!({"resourceVersion": "7"}));
    assert_eq!(
        table["columnDefinitions"][1],
        json!({"name": "Phase", "type": "string", "format": "", "priority": 0,
               "description": "Custom resource definition column (in JSONPath format): .status.phase"})
    );
    assert_eq!(table["columnDefinitions"][7]["priority"], 1);
    assert_eq!(
        table["rows"][0]["cells"],
        json!([
            "w",
            "Up",
            "True",
            3,
            0.5,
            false,
            "60m",
            "{\"a\":\"b\"}",
            "3",
            null
        ])
    );
    assert_eq!(
        table["rows"][1]["cells"],
        json!([
            "empty",
            null,
            null,
            null,
            null,
            null,
            "<invalid>",
            null,
            null,
            null
        ])
    );
    assert_eq!(
        table["rows"][0]["object"],
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
               "metadata": {"name": "w", "uid": "1"}})
    );
    assert_eq!(
        render(IncludeObject::Object, true)["rows"][0]["object"],
        objects[0]
    );
    let bare = render(IncludeObject::None, false);
    assert_eq!(bare["rows"][0]["object"], Value::Null);
    assert_eq!(
        bare["columnDefinitions"],
        json!([]),
        "later events of a watch have no columns"
    );
}

#[test]
fn custom_resources_without_columns_print_their_age() {
    let (descriptor, version) = custom(Vec::new());
    let object = json!({"metadata": {"name": "w", "creationTimestamp": "2026-01-01T00:00:00Z"}});
    let table = render(
        &descriptor,
        &version,
        &[object],
        &json!({}),
        IncludeObject::None,
        true,
        now(),
    );
    assert_eq!(table["columnDefinitions"][1]["name"], "Age");
    assert_eq!(table["rows"][0]["cells"], json!(["w", "60m"]));
}
