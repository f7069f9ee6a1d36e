//! Counting writes: the API server's own counter and the operator's, read as Prometheus text.

use std::collections::BTreeMap;

/// How often each kind of write was made, as in `PATCH sandboxes/status`. Fractional because the
/// source's numbers are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Writes(pub BTreeMap<String, f64>);

/// Kinds that change by themselves as time passes.
const HEARTBEATS: [&str; 2] = ["leases", "nodes/status"];

impl Writes {
    /// Everybody's writes, from the API server's metrics.
    pub fn of_server(metrics: &str) -> Self {
        let mut writes = Self::default();
        for sample in samples(metrics, "apiserver_request_total") {
            let label = |name| sample.labels.get(name).map_or("", |value| value.as_str());
            let verb = match label("verb") {
                "APPLY" => "PATCH",
                "DELETECOLLECTION" => "DELETE",
                verb @ ("POST" | "PUT" | "PATCH" | "DELETE") => verb,
                _ => continue,
            };
            let subresource = label("subresource");
            let resource = match (label("resource"), subresource) {
                ("", _) => continue,
                (resource, "") => resource.to_owned(),
                (resource, subresource) => format!("{resource}/{subresource}"),
            };
            // Reviews are questions, whatever their verb.
            if resource.ends_with("reviews") || HEARTBEATS.contains(&resource.as_str()) {
                continue;
            }
            writes.add(verb, &resource, sample.value);
        }
        writes
    }

    /// The operator's writes, from its metrics.
    pub fn of_controller(metrics: &str) -> Self {
        let mut writes = Self::default();
        for sample in samples(metrics, "agent_sandbox_api_requests_total") {
            let label = |name| sample.labels.get(name).map_or("", |value| value.as_str());
            let (verb, status) = match label("verb") {
                "create" => ("POST", ""),
                "update" => ("PUT", ""),
                "patch" => ("PATCH", ""),
                "patch_status" => ("PATCH", "/status"),
                "delete" => ("DELETE", ""),
                _ => continue,
            };
            let resource = format!("{}{status}", label("resource"));
            // A write that was not allowed to leave is none.
            if label("code") != "fenced" && !HEARTBEATS.contains(&resource.as_str()) {
                writes.add(verb, &resource, sample.value);
            }
        }
        writes
    }

    fn add(&mut self, verb: &str, resource: &str, count: f64) {
        *self.0.entry(format!("{verb} {resource}")).or_default() += count;
    }

    /// What was written since `before`; kinds that were not are left out.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let counts = self.0.iter().filter_map(|(kind, count)| {
            let more = count - before.0.get(kind).copied().unwrap_or_default();
            (more > 0.0).then(|| (kind.clone(), more))
        });
        Self(counts.collect())
    }

    /// These without those: what the rest of the world wrote.
    #[must_use]
    pub fn without(&self, others: &Self) -> Self {
        self.since(others)
    }

    /// All kinds together.
    pub fn total(&self) -> f64 {
        // The sum of no numbers is -0, which people do not write.
        self.0.values().sum::<f64>() + 0.0
    }

    /// Per one of `count`.
    #[must_use]
    pub fn per(&self, count: u32) -> Self {
        let each = |(kind, sum): (&String, &f64)| (kind.clone(), sum / f64::from(count.max(1)));
        Self(self.0.iter().map(each).collect())
    }
}

struct Sample {
    labels: BTreeMap<String, String>,
    value: f64,
}

/// The samples of one metric.
fn samples(text: &str, metric: &str) -> impl Iterator<Item = Sample> {
    text.lines().filter_map(move |line| {
        let rest = line.strip_prefix(metric)?.strip_prefix('{')?;
        let (labels, value) = rest.rsplit_once('}')?;
        Some(Sample {
            labels: parse_labels(labels),
            value: value.split_whitespace().next()?.parse().ok()?,
        })
    })
}

/// `a="b",c="d"`; the values of the metrics read here contain neither quotes nor backslashes.
fn parse_labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let Some((value, after)) = after.split_once('"') else {
            break;
        };
        labels.insert(
            name.trim_start_matches(',').trim().to_owned(),
            value.to_owned(),
        );
        rest = after;
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(counts: &[(&str, f64)]) -> Writes {
        let owned = counts
            .iter()
            .map(|(kind, count)| ((*kind).to_owned(), *count));
        Writes(owned.collect())
    }

    #[test]
    fn no_writes_are_zero() {
        assert_eq!(writes(&[]).total().to_string(), "0");
    }

    #[test]
    fn the_servers_counter_is_summed_over_codes_and_versions() {
        let text = "\
# TYPE apiserver_request_total counter
apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"agents.x-k8s.io\",resource=\"sandboxes\",scope=\"resource\",subresource=\"status\",verb=\"PATCH\",version=\"v1beta1\"} 7
apiserver_request_total{code=\"409\",component=\"apiserver\",dry_run=\"\",group=\"agents.x-k8s.io\",resource=\"sandboxes\",scope=\"resource\",subresource=\"status\",verb=\"PATCH\",version=\"v1beta1\"} 1
apiserver_request_total{code=\"201\",resource=\"pods\",subresource=\"\",verb=\"POST\"} 2
apiserver_request_total{code=\"200\",resource=\"pods\",subresource=\"\",verb=\"APPLY\"} 3
apiserver_request_total{code=\"0\",resource=\"pods\",subresource=\"\",verb=\"WATCH\"} 30
apiserver_request_total{code=\"200\",resource=\"leases\",subresource=\"\",verb=\"PUT\"} 40
apiserver_request_total{code=\"201\",resource=\"subjectaccessreviews\",subresource=\"\",verb=\"POST\"} 5
apiserver_request_total{code=\"404\",resource=\"\",subresource=\"/x\",verb=\"POST\"} 5
apiserver_request_total_other{resource=\"pods\",verb=\"POST\"} 9
";
        let expected = [
            ("PATCH pods", 3.0),
            ("PATCH sandboxes/status", 8.0),
            ("POST pods", 2.0),
        ];
        assert_eq!(Writes::of_server(text), writes(&expected));
    }

    #[test]
    fn the_operators_reads_and_fenced_writes_do_not_count() {
        let text = "\
agent_sandbox_api_requests_total{code=\"2xx\",resource=\"sandboxclaims\",verb=\"patch_status\"} 4
agent_sandbox_api_requests_total{code=\"conflict\",resource=\"sandboxes\",verb=\"patch\"} 1
agent_sandbox_api_requests_total{code=\"fenced\",resource=\"sandboxes\",verb=\"patch\"} 6
agent_sandbox_api_requests_total{code=\"2xx\",resource=\"sandboxes\",verb=\"watch\"} 2
agent_sandbox_api_requests_total{code=\"2xx\",resource=\"leases\",verb=\"update\"} 2
agent_sandbox_api_requests_total{code=\"2xx\",resource=\"events\",verb=\"create\"} 2
";
        let expected = [
            ("PATCH sandboxclaims/status", 4.0),
            ("PATCH sandboxes", 1.0),
            ("POST events", 2.0),
        ];
        assert_eq!(Writes::of_controller(text), writes(&expected));
    }

    #[test]
    fn differences_name_only_what_changed() {
        let before = writes(&[("POST pods", 2.0), ("PATCH pods", 5.0)]);
        let after = writes(&[
            ("POST pods", 8.0),
            ("PATCH pods", 5.0),
            ("DELETE pods", 2.0),
        ]);
        let spent = after.since(&before);
        assert_eq!(spent, writes(&[("DELETE pods", 2.0), ("POST pods", 6.0)]));
        assert_eq!(
            spent.without(&writes(&[("POST pods", 6.0)])),
            writes(&[("DELETE pods", 2.0)])
        );
        assert!((spent.per(4).total() - 2.0).abs() < 1e-9);
        assert!((spent.per(0).total() - 8.0).abs() < 1e-9);
    }
}
