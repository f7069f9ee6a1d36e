//! An operator against the model. Time is paused and moves by itself when nobody has anything to do,
//! so waiting costs nothing and the wall clock the operator sees follows along.
//!
//! A sleep is therefore not a race against the machine: it ends when everybody else waits for a
//! later moment, which makes [`Harness::pass`] and [`Harness::settle`] exact.

use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_controller::{Builder, Config, Controller, ControllerError};
use agent_sandbox_service::clock::Clock;
use agent_sandbox_service::metrics::Metrics;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::model::Model;

/// How long anything may take, in paused time.
const PATIENCE: Duration = Duration::from_secs(600);

/// One running operator.
pub(crate) struct Operator {
    pub(crate) shutdown: Shutdown,
    /// Ends it without any chance to tidy up.
    pub(crate) life: AbortHandle,
    ended: Option<oneshot::Receiver<Result<(), ControllerError>>>,
}

/// A model and what runs against it.
pub(crate) struct Harness {
    pub(crate) model: Model,
    clock: Clock,
    tasks: Tasks,
    operators: Vec<Operator>,
    /// Metrics of the operator that was started last.
    pub(crate) metrics: Metrics,
}

pub(crate) const START: &str = "2026-01-01T00:00:00Z";

impl Harness {
    /// A model without an operator.
    pub(crate) fn new() -> Self {
        let start: Timestamp = START.parse().unwrap();
        let model = Model::new(start);
        let (clock, hand) = Clock::manual(start);
        let tasks = Tasks::new("harness");
        let server = model.clone();
        tasks.spawn("clock", async move {
            let began = Instant::now();
            loop {
                tokio::time::sleep(Duration::from_millis(20)).await;
                let passed = SignedDuration::try_from(began.elapsed()).unwrap();
                let now = start.checked_add(passed).unwrap();
                hand.set(now);
                server.set_time(now);
            }
        });
        Self {
            model,
            clock,
            tasks,
            operators: Vec::new(),
            metrics: Metrics::new(),
        }
    }

    /// A model with one operator.
    pub(crate) fn start() -> Self {
        let mut harness = Self::new();
        harness.run(Config::default());
        harness
    }

    /// Starts an operator.
    pub(crate) fn run(&mut self, config: Config) {
        let client = self.model.client();
        self.run_with(client, config, |builder| builder);
    }

    /// Starts an operator that is made to order.
    pub(crate) fn run_with(
        &mut self,
        client: Client,
        config: Config,
        order: impl FnOnce(Builder) -> Builder,
    ) {
        self.metrics = Metrics::new();
        let builder = Controller::builder(client, config)
            .clock(self.clock.clone())
            .metrics(&self.metrics);
        let controller = order(builder).build().unwrap();
        let shutdown = Shutdown::new();
        let (sender, ended) = oneshot::channel();
        let stop = shutdown.clone();
        let life = self.tasks.spawn("operator", async move {
            let result = controller.run(stop).await;
            drop(sender.send(result));
        });
        self.operators.push(Operator {
            shutdown,
            life,
            ended: Some(ended),
        });
    }

    /// Ends the operator that was started first of those still running, as a crash would.
    pub(crate) async fn stop(&mut self) {
        let mut operator = self.operators.remove(0);
        operator.shutdown.trigger();
        operator.ended.take().unwrap().await.unwrap().unwrap();
    }

    /// Drops the operator that was started first, which was killed.
    pub(crate) fn bury_first(&mut self) {
        self.operators.remove(0);
    }

    /// As [`Self::metric`], in whole units.
    pub(crate) fn count(&self, name: &str, labels: &[&str]) -> u64 {
        format!("{:.0}", self.metric(name, labels)).parse().unwrap()
    }

    /// The sum of a metric's samples, over those label sets that contain all of `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.metrics.encode();
        let samples = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let set = series.strip_prefix(name)?;
            let is_it = set.is_empty() || set.starts_with('{');
            (is_it && labels.iter().all(|label| set.contains(label))).then_some(value)
        });
        samples.fold(0.0, |sum, value| sum + value.parse::<f64>().unwrap())
    }

    /// The operator that was started first of those still running.
    pub(crate) fn first(&mut self) -> &mut Operator {
        self.operators.first_mut().unwrap()
    }

    /// Waits until that operator has ended by itself, and says how.
    pub(crate) async fn ended(&mut self) -> Result<(), ControllerError> {
        let mut operator = self.operators.remove(0);
        operator.ended.take().unwrap().await.unwrap()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Waits until `check` holds.
    pub(crate) async fn eventually(&self, what: &str, mut check: impl FnMut(&Model) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !check(&self.model) {
            assert!(
                Instant::now() < deadline,
                "not within {PATIENCE:?}: {what}; sandboxes {:#?}, claims {:#?}",
                self.model.list("sandboxes"),
                self.model.list("sandboxclaims"),
            );
            self.model.tick().await;
        }
    }

    /// Waits until a named object is Ready.
    pub(crate) async fn until_ready(&self, resource: &str, name: &str) {
        self.eventually(&format!("{resource} {name} is Ready"), |model| {
            ready(model, resource, name)
        })
        .await;
    }

    /// The name of the sandbox that a claim has been given.
    pub(crate) fn sandbox_of(&self, claim: &str) -> String {
        let claim = self.model.get("sandboxclaims", claim).unwrap();
        let name = &claim["status"]["sandbox"]["name"];
        name.as_str().unwrap().to_owned()
    }

    /// Another pod that looks like that of the sandbox `s`, but for what `differ` makes of it.
    pub(crate) fn create_twin(&self, differ: impl FnOnce(&mut Value)) {
        let mut twin = self.model.get("pods", "s").unwrap();
        twin["metadata"]["name"] = json!("twin");
        let metadata = twin["metadata"].as_object_mut().unwrap();
        metadata.remove("resourceVersion");
        differ(&mut twin);
        self.model.create("pods", twin);
    }

    /// A claim `c` with this lifecycle that has a sandbox.
    pub(crate) async fn ready_claim(&self, lifecycle: Value) {
        let mut object = claim("c", "p");
        object["spec"]["lifecycle"] = lifecycle;
        self.model.create("sandboxclaims", object);
        self.until_ready("sandboxclaims", "c").await;
    }

    /// The most sandboxes of some sort that there ever were at once.
    pub(crate) fn most_sandboxes(&self, sort: impl Fn(&Value) -> bool) -> usize {
        let counts = |object: Option<Arc<Value>>| usize::from(object.is_some_and(|it| sort(&it)));
        let (mut there, mut most) = (0, 0);
        for (old, new) in self.model.history("sandboxes") {
            there = there + counts(new) - counts(old);
            most = most.max(there);
        }
        most
    }

    /// Waits until all claims are Ready.
    pub(crate) async fn until_claims_ready(&self) {
        self.eventually("all claims are Ready", |model| {
            model.list("sandboxclaims").iter().all(is_ready)
        })
        .await;
    }

    /// Lets model time pass.
    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Lets so much time pass that everything has settled.
    pub(crate) async fn settle(&self) {
        self.pass(Duration::from_secs(5)).await;
    }

    /// Everything has settled, and from now on nothing is written.
    pub(crate) async fn assert_at_rest(&self) {
        self.settle().await;
        self.model.take_writes();
        self.settle().await;
        assert_eq!(self.model.take_writes(), []);
    }

    /// Claims of the pool `p`, named by a prefix and a number from 0.
    pub(crate) fn claim_many(&self, prefix: &str, number: usize) {
        for index in 0..number {
            let claim = claim(&format!("{prefix}{index}"), "p");
            self.model.create("sandboxclaims", claim);
        }
    }

    /// A template `t`, and its network policy in place.
    pub(crate) async fn covered_template(&self) {
        self.model
            .create("sandboxtemplates", template("t", json!({})));
        self.eventually("the policy", |model| {
            !model.list("networkpolicies").is_empty()
        })
        .await;
    }

    /// A template `t` and a pool of it, still empty.
    pub(crate) fn declare_pool(&self, name: &str, replicas: usize) {
        self.model
            .create("sandboxtemplates", template("t", json!({})));
        self.model
            .create("sandboxwarmpools", warm_pool(name, "t", replicas));
    }

    /// A template `t` and a full pool of it.
    pub(crate) async fn pool(&self, name: &str, replicas: usize) {
        self.declare_pool(name, replicas);
        self.full(name, replicas).await;
    }

    /// Waits until a pool is full and everything has settled.
    pub(crate) async fn full(&self, name: &str, replicas: usize) {
        self.eventually("the pool is full", |model| {
            let pool = model.get("sandboxwarmpools", name).unwrap();
            pool["status"]["readyReplicas"].as_u64().unwrap_or(0) == replicas as u64
        })
        .await;
        self.settle().await;
        self.model.take_writes();
    }
}

pub(crate) fn template(name: &str, more: Value) -> Value {
    let mut spec = json!({"podTemplate": {"spec": {"containers": [
        {"name": "main", "image": "python", "ports": [{"containerPort": 8888, "protocol": "TCP"}]},
    ]}}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

pub(crate) fn warm_pool(name: &str, template: &str, replicas: usize) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "sandboxTemplateRef": {"name": template}},
    })
}

pub(crate) fn claim(name: &str, pool: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"warmPoolRef": {"name": pool}}})
}

pub(crate) fn sandbox(name: &str, more: Value) -> Value {
    let mut spec =
        json!({"podTemplate": {"spec": {"containers": [{"name": "main", "image": "x"}]}}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

/// A condition of an object.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

/// Status and reason of a condition, or dashes.
pub(crate) fn said(object: &Value, kind: &str) -> (String, String) {
    let text = |member: &str| {
        condition(object, kind)
            .and_then(|condition| condition[member].as_str())
            .unwrap_or("-")
            .to_owned()
    };
    (text("status"), text("reason"))
}

pub(crate) fn is_ready(object: &Value) -> bool {
    said(object, "Ready").0 == "True"
}

/// Whether a named object is Ready.
pub(crate) fn ready(model: &Model, resource: &str, name: &str) -> bool {
    model
        .get(resource, name)
        .is_some_and(|object| is_ready(&object))
}

/// How many events of a reason there are.
pub(crate) fn told(harness: &Harness, reason: &str) -> usize {
    let events = harness.model.list("events");
    events
        .iter()
        .filter(|event| event["reason"] == reason)
        .count()
}
