//! The scheduler of a cluster with one node: a pod goes to this node or is told why not.
//!
//! [`judge`] is pure. Requests for CPU and memory are not counted against the node: it is a
//! developer's machine, where a pool of idle sandboxes may ask for more than there is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{
    Binding, Node, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference, Pod, PodSpec, Taint,
    Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::json;

use crate::context::Context;
use crate::events::{Component, Record, Severity};
use crate::pod::PodId;

/// The scheduler whose pods are ours.
const NAME: &str = "default-scheduler";

/// Pause after a binding that failed.
const BIND_AGAIN: Duration = Duration::from_secs(1);

/// Bindings under way at once.
const CONCURRENCY: usize = 8;

/// What the scheduler knows about the node.
#[derive(Debug, Clone, Default, PartialEq)]
struct NodeView {
    name: String,
    labels: BTreeMap<String, String>,
    unschedulable: bool,
    taints: Vec<Taint>,
    max_pods: usize,
}

/// What is decided about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    Bind,
    /// It has to wait, for this reason.
    Wait(String),
    /// It is somebody else's, or not to be scheduled now.
    Ignore,
}

/// Schedules until the order to stop.
pub(crate) async fn run(context: Arc<Context>, max_pods: usize) {
    let scheduler = Scheduler {
        pending: HashMap::new(),
        bound: HashSet::new(),
        node: None,
        max_pods,
        context,
    };
    scheduler.run().await;
}

struct Scheduler {
    context: Arc<Context>,
    /// Pods without a node.
    pending: HashMap<PodId, Arc<Pod>>,
    /// Pods whose binding is under way.
    bound: HashSet<PodId>,
    node: Option<NodeView>,
    max_pods: usize,
}

enum Event {
    Pods(Box<watcher::Event<Pod>>),
    Node(Option<Box<Node>>),
}

impl Scheduler {
    async fn run(mut self) {
        let client = self.context.client.clone();
        let mut events = std::pin::pin!(events(client, &self.context.node_name));
        let mut writes = FuturesUnordered::new();
        let stopping = self.context.stopping.clone();
        let roster = self.context.roster.clone();
        loop {
            let room = writes.len() < CONCURRENCY;
            tokio::select! {
                event = events.next(), if room => match event {
                    Some(Ok(event)) => {
                        for write in self.observe(event) {
                            writes.push(write);
                        }
                    }
                    // The watch starts again after a pause of its own.
                    Some(Err(error)) => tracing::debug!(%error, "the scheduler's watch failed"),
                    None => return,
                },
                Some(done) = writes.next() => writes.extend(self.written(done)),
                () = roster.left(), if room => writes.extend(self.consider_all()),
                () = stopping.triggered() => return,
            }
        }
    }

    /// Takes in an event and returns the writes that follow from it.
    fn observe(&mut self, event: Event) -> Vec<Write> {
        match event {
            Event::Node(node) => {
                let view = node.map(|node| view(*node, self.max_pods));
                if self.node == view {
                    return Vec::new();
                }
                self.node = view;
                self.consider_all()
            }
            Event::Pods(event) => self.observe_pods(*event).into_iter().collect(),
        }
    }

    fn observe_pods(&mut self, event: watcher::Event<Pod>) -> Option<Write> {
        match event {
            watcher::Event::Init => self.pending.clear(),
            watcher::Event::InitDone => {}
            watcher::Event::Delete(pod) => {
                let id = PodId::of(&pod)?;
                self.pending.remove(&id);
                self.bound.remove(&id);
            }
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => {
                let id = PodId::of(&pod)?;
                let pod = Arc::new(pod);
                self.pending.insert(id, pod.clone());
                return self.consider(&pod);
            }
        }
        None
    }

    fn consider_all(&mut self) -> Vec<Write> {
        let pods: Vec<_> = self.pending.values().cloned().collect();
        pods.iter().filter_map(|pod| self.consider(pod)).collect()
    }

    fn consider(&mut self, pod: &Arc<Pod>) -> Option<Write> {
        let node = self.node.as_ref()?;
        let id = PodId::of(pod)?;
        if self.bound.contains(&id) {
            return None;
        }
        match judge(pod, node, self.context.roster.len() + self.bound.len()) {
            Decision::Ignore => None,
            Decision::Bind => {
                self.bound.insert(id.clone());
                Some(bind(self.context.clone(), id, pod.clone()))
            }
            Decision::Wait(message) if is_told(pod, &message) => None,
            Decision::Wait(message) => Some(tell(self.context.clone(), id, pod.clone(), message)),
        }
    }

    /// Takes in what came of a write and returns the one that follows from it.
    fn written(&mut self, done: Written) -> Option<Write> {
        match done {
            Written::Bound(id) | Written::Lost(id) => {
                self.pending.remove(&id);
                self.bound.remove(&id);
                None
            }
            Written::Failed(id) => {
                self.bound.remove(&id);
                // Gone from here if it was deleted or bound by somebody else meanwhile.
                let pod = self.pending.get(&id)?.clone();
                self.consider(&pod)
            }
            Written::Told => None,
        }
    }
}

/// What came of a write.
enum Written {
    Bound(PodId),
    /// The pod is gone, or somebody else's.
    Lost(PodId),
    /// Worth another attempt.
    Failed(PodId),
    Told,
}

type Write = futures::future::BoxFuture<'static, Written>;

fn events(client: Client, node: &str) -> impl Stream<Item = watcher::Result<Event>> + use<> {
    let unbound = watcher::Config::default().fields("spec.nodeName=");
    let pods = watcher(Api::<Pod>::all(client.clone()), unbound)
        .default_backoff()
        .map_ok(|event| Event::Pods(Box::new(event)));
    let node = watcher::watch_object(Api::<Node>::all(client), node)
        .default_backoff()
        .map_ok(|node| Event::Node(node.map(Box::new)));
    futures::stream::select(pods, node)
}

fn view(node: Node, max_pods: usize) -> NodeView {
    let spec = node.spec.unwrap_or_default();
    NodeView {
        name: node.metadata.name.unwrap_or_default(),
        labels: node.metadata.labels.unwrap_or_default(),
        unschedulable: spec.unschedulable == Some(true),
        taints: spec.taints.unwrap_or_default(),
        max_pods,
    }
}

fn bind(context: Arc<Context>, id: PodId, pod: Arc<Pod>) -> Write {
    Box::pin(async move {
        let api: Api<Pod> = Api::namespaced(context.client.clone(), &id.namespace);
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(id.name.clone()),
                namespace: Some(id.namespace.clone()),
                // Refused if another pod has taken the name.
                uid: Some(id.uid.clone()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Node".into()),
                name: Some(context.node_name.clone()),
                ..ObjectReference::default()
            },
        };
        let outcome: kube::Result<serde_json::Value> = api
            .create_subresource("binding", &id.name, &PostParams::default(), &binding)
            .await;
        match outcome {
            Ok(_) => {
                let message = format!("Successfully assigned {id} to {}", context.node_name);
                record(&context, &id, &pod, Severity::Normal, "Scheduled", message);
                Written::Bound(id)
            }
            // Gone, or bound by somebody else.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Written::Lost(id),
            Err(error) => {
                tracing::warn!(pod = %id, %error, "binding a pod failed");
                tokio::time::sleep(BIND_AGAIN).await;
                Written::Failed(id)
            }
        }
    })
}

/// Writes into the status why a pod is not scheduled.
fn tell(context: Arc<Context>, id: PodId, pod: Arc<Pod>, message: String) -> Write {
    Box::pin(async move {
        let api: Api<Pod> = Api::namespaced(context.client.clone(), &id.namespace);
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": context.clock.now(),
            "observedGeneration": pod.metadata.generation,
        });
        let patch = json!({
            "metadata": {"uid": id.uid},
            "status": {"conditions": [condition]},
        });
        let params = PatchParams::default();
        match api
            .patch_status(&id.name, &params, &Patch::Strategic(patch))
            .await
        {
            Ok(_) => {
                let warning = Severity::Warning;
                record(&context, &id, &pod, warning, "FailedScheduling", message);
            }
            Err(error) => tracing::debug!(pod = %id, %error, "writing a condition failed"),
        }
        Written::Told
    })
}

fn record(
    context: &Context,
    id: &PodId,
    pod: &Pod,
    severity: Severity,
    reason: &'static str,
    message: String,
) {
    context.recorder.record(Record {
        about: id.reference(pod),
        component: Component::Scheduler,
        severity,
        reason,
        message,
    });
}

/// Whether the pod's status says this already.
fn is_told(pod: &Pod, message: &str) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.message.as_deref() == Some(message)
    })
}

/// Decides about a pod without a node, `running` others being on the node.
fn judge(pod: &Pod, node: &NodeView, running: usize) -> Decision {
    let Some(spec) = &pod.spec else {
        return Decision::Ignore;
    };
    let name = spec.scheduler_name.as_deref().unwrap_or(NAME);
    let gated = spec
        .scheduling_gates
        .as_ref()
        .is_some_and(|gates| !gates.is_empty());
    let placed = spec
        .node_name
        .as_deref()
        .is_some_and(|node| !node.is_empty());
    if name != NAME || gated || placed || pod.metadata.deletion_timestamp.is_some() {
        return Decision::Ignore;
    }
    let problem = if node.unschedulable && !tolerates_unschedulable(spec) {
        Some("1 node(s) were unschedulable")
    } else if !tolerates(spec, &node.taints) {
        Some("1 node(s) had untolerated taint(s)")
    } else if !selects(spec, node) {
        Some("1 node(s) didn't match Pod's node affinity/selector")
    } else if running >= node.max_pods {
        Some("1 Too many pods")
    } else {
        None
    };
    match problem {
        None => Decision::Bind,
        Some(problem) => Decision::Wait(format!(
            "0/1 nodes are available: {problem}. preemption: 0/1 nodes are available: 1 \
             Preemption is not helpful for scheduling."
        )),
    }
}

fn tolerates_unschedulable(spec: &PodSpec) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    tolerates(spec, &[taint])
}

fn tolerates(spec: &PodSpec, taints: &[Taint]) -> bool {
    let repelling = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    taints.iter().filter(repelling).all(|taint| {
        let mut tolerations = spec.tolerations.iter().flatten();
        tolerations.any(|toleration| tolerates_one(toleration, taint))
    })
}

fn tolerates_one(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    if key.is_empty() {
        return exists;
    }
    key == taint.key
        && (exists
            || toleration.value.as_deref().unwrap_or_default()
                == taint.value.as_deref().unwrap_or_default())
}

fn selects(spec: &PodSpec, node: &NodeView) -> bool {
    let mut wanted = spec.node_selector.iter().flatten();
    if !wanted.all(|(key, value)| node.labels.get(key) == Some(value)) {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    required.is_none_or(|selector| {
        let mut terms = selector.node_selector_terms.iter();
        terms.any(|term| matches_term(term, node))
    })
}

/// An empty term matches nothing.
fn matches_term(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let expressions = term.match_expressions.iter().flatten();
    let fields = term.match_fields.iter().flatten();
    let empty = expressions.clone().next().is_none() && fields.clone().next().is_none();
    let label = |requirement: &NodeSelectorRequirement| {
        matches_requirement(
            requirement,
            node.labels.get(&requirement.key).map(String::as_str),
        )
    };
    let field = |requirement: &NodeSelectorRequirement| {
        requirement.key == "metadata.name" && matches_requirement(requirement, Some(&node.name))
    };
    !empty && expressions.clone().all(label) && fields.clone().all(field)
}

fn matches_requirement(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = || requirement.values.iter().flatten();
    let within = |found: &str| values().any(|value| value == found);
    let compare = |accept: fn(i64, i64) -> bool| {
        let bound = values().next().and_then(|value| value.parse::<i64>().ok());
        let found = found.and_then(|found| found.parse::<i64>().ok());
        matches!((found, bound), (Some(found), Some(bound)) if accept(found, bound))
    };
    match requirement.operator.as_str() {
        "In" => found.is_some_and(within),
        "NotIn" => !found.is_some_and(within),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compare(|found, bound| found > bound),
        "Lt" => compare(|found, bound| found < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn decide(spec: Value, edit: impl FnOnce(&mut NodeView)) -> Decision {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "c"}]);
        let pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec}));
        let mut node = NodeView {
            name: "local".into(),
            labels: [
                ("zone".to_owned(), "a".to_owned()),
                ("cores".to_owned(), "4".to_owned()),
            ]
            .into(),
            max_pods: 10,
            ..NodeView::default()
        };
        edit(&mut node);
        judge(&pod.unwrap(), &node, 3)
    }

    fn problem(spec: Value, edit: impl FnOnce(&mut NodeView)) -> Option<String> {
        match decide(spec, edit) {
            Decision::Bind => None,
            Decision::Wait(message) => {
                let message = message.strip_prefix("0/1 nodes are available: ").unwrap();
                Some(message.split(". ").next().unwrap().to_owned())
            }
            Decision::Ignore => panic!("ignored"),
        }
    }

    #[test]
    fn only_pods_of_the_default_scheduler_are_considered() {
        for spec in [
            json!({"schedulerName": "other"}),
            json!({"schedulingGates": [{"name": "g"}]}),
            json!({"nodeName": "elsewhere"}),
        ] {
            assert_eq!(decide(spec, |_| {}), Decision::Ignore);
        }
        let own = json!({"schedulerName": NAME, "schedulingGates": [], "nodeName": ""});
        assert_eq!(decide(own, |_| {}), Decision::Bind);
        assert_eq!(decide(json!({}), |_| {}), Decision::Bind);
    }

    #[test]
    fn selectors_and_affinity_must_match() {
        let required = |term: Value| {
            json!({"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
            }}})
        };
        let expression = |key: &str, operator: &str, values: &[&str]| {
            let wanted = json!({"key": key, "operator": operator, "values": values});
            required(json!({"matchExpressions": [wanted]}))
        };
        for (spec, fits) in [
            (json!({"nodeSelector": {"zone": "a"}}), true),
            (json!({"nodeSelector": {"zone": "b"}}), false),
            (json!({"nodeSelector": {"absent": ""}}), false),
            (expression("zone", "In", &["a", "b"]), true),
            (expression("zone", "NotIn", &["a"]), false),
            (expression("absent", "NotIn", &["a"]), true),
            (expression("zone", "Exists", &[]), true),
            (expression("zone", "DoesNotExist", &[]), false),
            (expression("cores", "Gt", &["3"]), true),
            (expression("cores", "Lt", &["4"]), false),
            (expression("zone", "Gt", &["3"]), false),
            (expression("zone", "Unknown", &["a"]), false),
            (required(json!({})), false),
            (
                required(json!({"matchFields": [
                    {"key": "metadata.name", "operator": "In", "values": ["local"]}]})),
                true,
            ),
        ] {
            let expected = "1 node(s) didn't match Pod's node affinity/selector";
            let expected = (!fits).then(|| expected.to_owned());
            assert_eq!(problem(spec.clone(), |_| {}), expected, "{spec}");
        }
    }

    #[test]
    fn a_cordoned_tainted_or_full_node_makes_pods_wait() {
        let cordoned = |node: &mut NodeView| node.unschedulable = true;
        let tainted = |node: &mut NodeView| {
            node.taints = vec![Taint {
                key: "k".into(),
                value: Some("v".into()),
                effect: "NoSchedule".into(),
                ..Taint::default()
            }];
        };
        let says = |text: &str| Some(text.to_owned());
        assert_eq!(
            problem(json!({}), cordoned),
            says("1 node(s) were unschedulable")
        );
        assert_eq!(
            problem(json!({}), tainted),
            says("1 node(s) had untolerated taint(s)")
        );
        assert_eq!(
            problem(json!({}), |node| node.max_pods = 3),
            says("1 Too many pods")
        );
        for (toleration, fits) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists"}), true),
            (
                json!({"key": "k", "value": "v", "effect": "NoSchedule"}),
                true,
            ),
            (json!({"key": "k", "value": "w"}), false),
            (
                json!({"key": "k", "value": "v", "effect": "NoExecute"}),
                false,
            ),
            (json!({"key": "other", "operator": "Exists"}), false),
        ] {
            let spec = json!({"tolerations": [toleration]});
            assert_eq!(problem(spec.clone(), tainted).is_none(), fits, "{spec}");
        }
        let everything = json!({"tolerations": [{"operator": "Exists"}]});
        assert_eq!(problem(everything, cordoned), None);
    }

    #[test]
    fn a_pod_is_told_once() {
        let pod = |message: &str| -> Pod {
            let condition = json!({
                "type": "PodScheduled", "status": "False", "message": message,
            });
            serde_json::from_value(json!({"status": {"conditions": [condition]}})).unwrap()
        };
        assert!(is_told(&pod("why"), "why"));
        assert!(!is_told(&pod("why"), "other"));
        assert!(!is_told(&Pod::default(), "why"));
    }
}
