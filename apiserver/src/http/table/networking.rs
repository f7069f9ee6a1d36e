//! How pods are reached: services, endpoints, ingresses and policies.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Kind, age, at, items, labels, name, number, selector, shortened, text, text_column};
use super::{text_or, wide_column};

pub(super) static SERVICES: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Type"),
        text_column("Cluster-IP"),
        text_column("External-IP"),
        text_column("Port(s)"),
        text_column("Age"),
        wide_column("Selector"),
    ],
    cells: |object, now| {
        let address = items(object, "spec.clusterIPs")
            .first()
            .and_then(Value::as_str);
        vec![
            name(object),
            text(object, "spec.type").into(),
            address.unwrap_or("<none>").into(),
            external_addresses(object).into(),
            service_ports(object).into(),
            age(object, now),
            labels(at(object, "spec.selector")).into(),
        ]
    },
};

pub(super) static ENDPOINTS: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Endpoints"),
        text_column("Age"),
    ],
    cells: |object, now| vec![name(object), endpoints(object).into(), age(object, now)],
};

pub(super) static ENDPOINT_SLICES: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("AddressType"),
        text_column("Ports"),
        text_column("Endpoints"),
        text_column("Age"),
    ],
    cells: |object, now| {
        let ports: Vec<String> = items(object, "ports")
            .iter()
            .map(
                |port| match (at(port, "port").as_i64(), text(port, "name")) {
                    (Some(number), _) => number.to_string(),
                    (None, "") => "*".to_owned(),
                    (None, name) => name.to_owned(),
                },
            )
            .collect();
        let addresses: Vec<String> = items(object, "endpoints")
            .iter()
            .flat_map(|endpoint| items(endpoint, "addresses"))
            .filter_map(|address| address.as_str().map(str::to_owned))
            .collect();
        let listed = |parts: &[String]| {
            if parts.is_empty() {
                "<unset>".to_owned()
            } else {
                shortened(parts, 3, ",")
            }
        };
        vec![
            name(object),
            text(object, "addressType").into(),
            listed(&ports).into(),
            listed(&addresses).into(),
            age(object, now),
        ]
    },
};

pub(super) static INGRESSES: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Class"),
        text_column("Hosts"),
        text_column("Address"),
        text_column("Ports"),
        text_column("Age"),
    ],
    cells: |object, now| {
        let ports = if items(object, "spec.tls").is_empty() {
            "80"
        } else {
            "80, 443"
        };
        vec![
            name(object),
            text_or(object, "spec.ingressClassName", "<none>").into(),
            hosts(object).into(),
            balancer_addresses(object).join(",").into(),
            ports.into(),
            age(object, now),
        ]
    },
};

pub(super) static INGRESS_CLASSES: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Controller"),
        text_column("Parameters"),
        text_column("Age"),
    ],
    cells: |object, now| {
        let annotations = at(object, "metadata.annotations");
        let default = annotations
            .get("ingressclass.kubernetes.io/is-default-class")
            .is_some_and(|value| value == "true");
        let suffix = if default { " (default)" } else { "" };
        let parameters = at(object, "spec.parameters");
        let target = match text(parameters, "apiGroup") {
            _ if parameters.is_null() => "<none>".to_owned(),
            "" => format!("{}/{}", text(parameters, "kind"), text(parameters, "name")),
            group => format!(
                "{}.{group}/{}",
                text(parameters, "kind"),
                text(parameters, "name")
            ),
        };
        vec![
            format!("{}{suffix}", text(object, "metadata.name")).into(),
            text(object, "spec.controller").into(),
            target.into(),
            age(object, now),
        ]
    },
};

pub(super) static NETWORK_POLICIES: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Pod-Selector"),
        text_column("Age"),
    ],
    cells: |object, now| {
        vec![
            name(object),
            selector(at(object, "spec.podSelector")).into(),
            age(object, now),
        ]
    },
};

fn service_ports(service: &Value) -> String {
    let ports: Vec<String> = items(service, "spec.ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (number(port, "port"), text(port, "protocol"));
            match at(port, "nodePort").as_i64() {
                Some(node) if node > 0 => format!("{number}:{node}/{protocol}"),
                _ => format!("{number}/{protocol}"),
            }
        })
        .collect();
    if ports.is_empty() {
        "<none>".to_owned()
    } else {
        ports.join(",")
    }
}

fn external_addresses(service: &Value) -> String {
    let mut addresses: Vec<&str> = items(service, "spec.externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match text(service, "spec.type") {
        "ExternalName" => text(service, "spec.externalName").to_owned(),
        "LoadBalancer" => {
            addresses.splice(0..0, balancer_addresses(service));
            if addresses.is_empty() {
                "<pending>".to_owned()
            } else {
                addresses.join(",")
            }
        }
        "ClusterIP" | "NodePort" if addresses.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => addresses.join(","),
        _ => "<unknown>".to_owned(),
    }
}

/// The addresses a load balancer announced, sorted.
fn balancer_addresses(object: &Value) -> Vec<&str> {
    let addresses: BTreeSet<&str> = items(object, "status.loadBalancer.ingress")
        .iter()
        .map(|ingress| text_or(ingress, "ip", text(ingress, "hostname")))
        .filter(|address| !address.is_empty())
        .collect();
    addresses.into_iter().collect()
}

fn endpoints(object: &Value) -> String {
    let mut listed = Vec::new();
    for subset in items(object, "subsets") {
        let addresses = items(subset, "addresses")
            .iter()
            .map(|address| text(address, "ip"));
        let ports = items(subset, "ports");
        if ports.is_empty() {
            listed.extend(addresses.map(str::to_owned));
            continue;
        }
        for port in ports {
            let port = number(port, "port");
            let joined = addresses.clone().map(|ip| {
                if ip.contains(':') {
                    format!("[{ip}]:{port}")
                } else {
                    format!("{ip}:{port}")
                }
            });
            listed.extend(joined);
        }
    }
    if items(object, "subsets").is_empty() {
        "<none>".to_owned()
    } else {
        shortened(&listed, 3, ",")
    }
}

fn hosts(ingress: &Value) -> String {
    const MAX: usize = 3;
    let rules = items(ingress, "spec.rules");
    let mut hosts: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= hosts.len() == MAX;
        if !more && !text(rule, "host").is_empty() {
            hosts.push(text(rule, "host"));
        }
    }
    match (hosts.is_empty(), more) {
        (true, _) => "*".to_owned(),
        (false, false) => hosts.join(","),
        (false, true) => format!("{} + {} more...", hosts.join(","), rules.len() - MAX),
    }
}
