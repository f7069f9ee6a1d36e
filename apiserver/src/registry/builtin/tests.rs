//! The committed data is whole: every row has its schema, every reference resolves.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Value, json};

use super::*;
use crate::schema::{prune, unknown_fields, validate};
use crate::wire::typed;

fn find(plural: &str) -> Descriptor {
    descriptors()
        .into_iter()
        .find(|d| d.plural == plural)
        .expect("a built-in resource")
}

#[test]
fn every_kind_has_a_schema_of_its_own_group_version_and_kind() {
    let document = schemas::definitions();
    let mut definitions = Definitions::new(&document);
    for row in table::ROWS {
        let name = schemas::definition_name(row.group, row.version, row.kind);
        let text = schemas::text(&name).unwrap_or_else(|| panic!("no definition {name}"));
        let definition: Value = serde_json::from_str(text).expect("a definition is JSON");
        assert_eq!(
            definition["x-kubernetes-group-version-kind"],
            json!([{"group": row.group, "kind": row.kind, "version": row.version}]),
            "{name}"
        );
        let schema = schema_of(row, &mut definitions).expect("the schema resolves");
        for field in ["apiVersion", "kind", "metadata"] {
            assert!(schema.property(field).is_some(), "{name} has no {field}");
        }
        assert!(
            typed::is_known(row.group, row.version, row.kind),
            "{name} has no type"
        );
        for sub in row.subresources {
            let sub = subresource(row, *sub);
            if let (Some((group, version, kind)), false) =
                (&sub.body, matches!(sub.action, SubresourceAction::Connect))
            {
                assert!(typed::is_known(group, version, kind), "no type for {kind}");
            }
        }
    }
}

#[test]
fn every_reference_resolves_and_nothing_is_left_over() {
    let definitions = schemas::definitions();
    let names: BTreeSet<&str> = definitions
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    let mut referred = HashSet::new();
    for name in &names {
        for target in schemas::references(schemas::text(name).expect("present")) {
            assert!(
                names.contains(target),
                "{name} refers to {target}, which is not there"
            );
            referred.insert(target);
        }
        assert!(
            !schemas::text(name)
                .expect("present")
                .contains("\"description\":\""),
            "{name}"
        );
    }
    for name in &names {
        let definition: Value =
            serde_json::from_str(schemas::text(name).expect("present")).expect("JSON");
        let is_root = definition.get("x-kubernetes-group-version-kind").is_some()
            || name.starts_with("io.k8s.apimachinery");
        assert!(
            is_root || referred.contains(name),
            "nothing refers to {name}"
        );
    }
}

#[test]
fn rows_are_unique_and_named_as_discovery_expects() {
    let mut seen = HashSet::new();
    let mut short = HashSet::new();
    for descriptor in descriptors() {
        assert!(seen.insert((descriptor.group.clone(), descriptor.plural.clone())));
        assert_eq!(descriptor.singular, descriptor.kind.to_lowercase());
        let storage = descriptor
            .versions
            .iter()
            .filter(|version| version.storage)
            .count();
        assert_eq!(storage, 1, "{}", descriptor.plural);
        if descriptor.kind != "Event" {
            for name in &descriptor.short_names {
                assert!(short.insert(name.clone()), "{name} is taken twice");
            }
        }
    }
    assert!(seen.len() >= 35, "only {} resources", seen.len());
}

#[test]
fn a_pod_passes_its_schema_and_typos_are_found() {
    let pods = find("pods");
    let schema = &pods.versions[0].schema;
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"a": "b"}},
        "spec": {
            "containers": [{"name": "a", "image": "b", "ports": [{"containerPort": 80}],
                            "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
                            "livenessProbe": {"httpGet": {"port": "http"}}, "imagePolicy": "x"}],
            "volumes": [{"name": "v", "emptyDir": {}, "emptydir": {}}],
        },
    });
    assert_eq!(
        unknown_fields(schema, &pod),
        [
            "unknown field \"spec.containers[0].imagePolicy\"",
            "unknown field \"spec.volumes[0].emptydir\""
        ]
    );
    prune(schema, &mut pod);
    assert_eq!(validate(schema, &pod, None), []);
    typed::conform("", "v1", "Pod", &mut pod).expect("valid types");
    assert_eq!(
        validate(schema, &pod, None),
        [],
        "a conforming object passes its schema"
    );
}

#[test]
fn selectable_fields_read_where_their_notation_says() {
    let events = find("events");
    let source = events.versions[0]
        .selectable_fields
        .iter()
        .find(|field| field.label == "source")
        .expect("events can be selected by source");
    assert_eq!(
        source.value(&json!({"source": {"component": "a"}, "reportingComponent": "b"})),
        "a"
    );
    assert_eq!(
        source.value(&json!({"source": {}, "reportingComponent": "b"})),
        "b"
    );
}

#[test]
fn subresources_say_what_they_change() {
    let pods = find("pods");
    let names: Vec<&str> = pods.versions[0]
        .subresources
        .iter()
        .map(|sub| sub.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "attach",
            "binding",
            "ephemeralcontainers",
            "eviction",
            "exec",
            "log",
            "portforward",
            "resize",
            "status"
        ]
    );
    let status = pods.versions[0]
        .subresource("status")
        .expect("pods have a status");
    let SubresourceAction::Part { paths } = &status.action else {
        panic!("status is a part")
    };
    assert_eq!(*paths, [["status".to_owned()]]);
    assert!(
        find("deployments").versions[0]
            .subresource("scale")
            .is_some()
    );
}
