//! Services: defaults, and a cluster address that is allocated once.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use super::{Context, NameRule, Strategy, default, items, items_mut, text};
use crate::registry::rules;
use crate::schema::FieldError;

/// Cluster addresses are 10.96.x.y, as in a cluster set up by kubeadm. Nothing routes them here
/// unless a node chooses to.
const NETWORK: u32 = 0x0A60_0000;
const HOSTS: u32 = 0xFFFF;

#[derive(Debug)]
pub(super) struct Service;

impl Strategy for Service {
    fn prepare_create(&self, ctx: &Context<'_>, object: &mut Value) {
        allocate(ctx, object);
        default(object, "status", json!({ "loadBalancer": {} }));
    }

    fn prepare_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        if !ctx.subresource.is_empty() {
            return;
        }
        forget_former_type(new, old);
        keep_address(new, old);
        allocate(ctx, new);
    }

    fn validate(&self, ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let Some(spec) = new.get("spec") else {
            return errors;
        };
        let address = text(spec, "clusterIP");
        let before = old.and_then(|old| old.get("spec"));
        let was = before.map_or("", |spec| text(spec, "clusterIP"));
        let external = text(spec, "type") == "ExternalName"
            || before.is_some_and(|spec| text(spec, "type") == "ExternalName");
        if !was.is_empty() && address != was && !external {
            let value = json!([address]);
            errors.push(FieldError::invalid(
                "spec.clusterIPs[0]",
                &value,
                "may not change once set",
            ));
        }
        if was != address && !matches!(address, "" | "None") {
            if address.parse::<IpAddr>().is_err() {
                errors.push(FieldError::invalid(
                    "spec.clusterIPs[0]",
                    &json!(address),
                    rules::NOT_AN_ADDRESS,
                ));
            } else if !is_of_network(address) {
                let problem = format!(
                    "failed to allocate IP {address}: the provided network does not match the \
                     current range"
                );
                errors.push(FieldError::invalid(
                    "spec.clusterIPs",
                    &json!([address]),
                    problem,
                ));
            } else if is_taken(ctx, address) {
                let problem =
                    format!("failed to allocate IP {address}: provided IP is already allocated");
                errors.push(FieldError::invalid(
                    "spec.clusterIPs",
                    &json!([address]),
                    problem,
                ));
            }
        }
        // Where nothing is selected nobody knows the family, so that is not a wish for both.
        let selects = spec.get("selector").is_some_and(|s| *s != json!({}));
        let both = text(spec, "ipFamilyPolicy") == "RequireDualStack";
        if both && (selects || address != "None") {
            errors.push(FieldError::invalid(
                "spec.ipFamilyPolicy",
                &json!("RequireDualStack"),
                "this cluster is not configured for dual-stack services",
            ));
        }
        errors.extend(rules::service(new));
        errors
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }
}

/// Takes away what only the former type of a service needed, unless the client changed it as well.
fn forget_former_type(new: &mut Value, old: &Value) {
    let (Some(new), Some(old)) = (new.get_mut("spec"), old.get("spec")) else {
        return;
    };
    let is = |spec: &Value, kind: &str| text(spec, "type") == kind;
    let external = |spec: &Value| {
        is(spec, "NodePort")
            || is(spec, "LoadBalancer")
            || items(spec, "externalIPs").next().is_some()
    };
    let mut former: Vec<&str> = Vec::new();
    if is(new, "ExternalName") && !is(old, "ExternalName") {
        former.extend([
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "internalTrafficPolicy",
        ]);
    }
    if external(old) && !external(new) {
        former.push("externalTrafficPolicy");
    }
    if is(old, "LoadBalancer") && !is(new, "LoadBalancer") {
        former.push("allocateLoadBalancerNodePorts");
    }
    let without_node_ports = !is(new, "NodePort") && !is(new, "LoadBalancer");
    if let Some(new) = new.as_object_mut() {
        for field in former {
            if new.get(field) == old.get(field) {
                new.shift_remove(field);
            }
        }
    }
    if without_node_ports {
        for port in items_mut(new, "ports") {
            let unchanged = items(old, "ports").any(|before| {
                before.get("port") == port.get("port")
                    && before.get("nodePort") == port.get("nodePort")
            });
            if unchanged && let Some(port) = port.as_object_mut() {
                port.shift_remove("nodePort");
            }
        }
    }
}

/// A client that leaves the allocated address out means to keep it.
fn keep_address(new: &mut Value, old: &Value) {
    let (Some(new), Some(old)) = (new.get_mut("spec"), old.get("spec")) else {
        return;
    };
    if [&*new, old]
        .iter()
        .any(|spec| text(spec, "type") == "ExternalName")
    {
        return;
    }
    if text(new, "clusterIP").is_empty() {
        new.as_object_mut()
            .map(|spec| spec.shift_remove("clusterIP"));
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if let Some(value) = old.get(field) {
            default(new, field, value.clone());
        }
    }
}

/// Gives a service its address and what follows from it.
fn allocate(ctx: &Context<'_>, service: &mut Value) {
    let Some(spec) = service.get_mut("spec") else {
        return;
    };
    if text(spec, "type") == "ExternalName" {
        return;
    }
    if text(spec, "clusterIP").is_empty() {
        let listed = items(spec, "clusterIPs")
            .next()
            .and_then(Value::as_str)
            .map(str::to_owned);
        let address = listed.unwrap_or_else(|| free_address(ctx));
        if let Some(map) = spec.as_object_mut() {
            map.insert("clusterIP".to_owned(), address.into());
        }
    }
    let address = text(spec, "clusterIP").to_owned();
    let family = if address.contains(':') {
        "IPv6"
    } else {
        "IPv4"
    };
    default(spec, "clusterIPs", json!([address]));
    let selects = spec
        .get("selector")
        .and_then(Value::as_object)
        .is_some_and(|s| !s.is_empty());
    if address == "None" && !selects {
        // Nobody knows what such a service will point to, so it may be either family.
        default(spec, "ipFamilies", json!(["IPv4", "IPv6"]));
        default(spec, "ipFamilyPolicy", "RequireDualStack");
    }
    default(spec, "ipFamilies", json!([family]));
    default(spec, "ipFamilyPolicy", "SingleStack");
}

/// The first free address after a place that depends on the name, so that a service which is
/// deleted and created again tends to keep its address.
fn free_address(ctx: &Context<'_>) -> String {
    let start = format!("{}/{}", ctx.namespace, ctx.name)
        .bytes()
        .fold(0x811C_9DC5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
    (0..HOSTS)
        .map(|step| (start.wrapping_add(step)) & HOSTS)
        // The first addresses are for the API server and DNS.
        .filter(|host| (11..HOSTS).contains(host))
        .map(|host| Ipv4Addr::from(NETWORK | host).to_string())
        .find(|address| !is_taken(ctx, address))
        .unwrap_or_default()
}

fn is_of_network(address: &str) -> bool {
    address
        .parse::<Ipv4Addr>()
        .is_ok_and(|address| u32::from(address) & !HOSTS == NETWORK)
}

fn is_taken(ctx: &Context<'_>, address: &str) -> bool {
    ctx.any("services", |object| {
        object.fields().get("spec.clusterIP") == address
            && (object.namespace(), object.name()) != (ctx.namespace, ctx.name)
    })
}
