//! What a pod spec says about the pod as a whole.

use serde_json::Value;

use super::items;

/// The service class that a pod's requests and limits put it in.
pub(super) fn qos_class(spec: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for container in items(spec, "containers").chain(items(spec, "initContainers")) {
        let quantity = |list: &str, resource: &str| {
            container
                .get("resources")?
                .get(list)?
                .get(resource)
                .map(Value::to_string)
        };
        for resource in ["cpu", "memory"] {
            let (request, limit) = (quantity("requests", resource), quantity("limits", resource));
            any |= request.is_some() || limit.is_some();
            guaranteed &=
                limit.is_some() && request.as_ref().is_none_or(|r| Some(r) == limit.as_ref());
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_service_class_follows_requests_and_limits() {
        let class =
            |resources: Value| qos_class(&json!({"containers": [{"resources": resources}]}));
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(
            class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
            "Guaranteed"
        );
        let smaller = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}});
        assert_eq!(class(smaller), "Burstable");
    }
}
