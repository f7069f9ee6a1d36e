//! Metrics that are read off the queues, the deadlines and the census when they are asked for.

use agent_sandbox_crds::labels as keys;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use super::CONTROLLERS;
use crate::expiry::Deadlines;
use crate::queue::Queue;
use crate::store::{Census, Queues};

/// Figures computed when they are read.
#[derive(Debug)]
pub(super) struct Computed {
    census: Census,
    queues: [(&'static str, Queue); 4],
    deadlines: Deadlines,
    sandboxes: IntGaugeVec,
    armed: IntGauge,
    depth: IntGaugeVec,
    delayed: IntGaugeVec,
    unfinished: GaugeVec,
    longest: GaugeVec,
    adds: IntCounterVec,
    retries: IntCounterVec,
}

impl Computed {
    pub(super) fn new(
        census: Census,
        queues: Queues,
        deadlines: Deadlines,
    ) -> prometheus::Result<Self> {
        let labels = ["name", "controller"];
        let [sandbox, claim, template, pool] = CONTROLLERS;
        Ok(Self {
            census,
            queues: [
                (sandbox, queues.sandboxes),
                (claim, queues.claims),
                (template, queues.templates),
                (pool, queues.pools),
            ],
            deadlines,
            armed: IntGauge::new(
                "agent_sandbox_deadlines",
                "Claims and sandboxes with a time to expire.",
            )?,
            sandboxes: IntGaugeVec::new(
                Opts::new("agent_sandboxes", "Sandboxes by state and origin."),
                &[
                    "namespace",
                    "ready_condition",
                    "expired",
                    "launch_type",
                    "sandbox_template",
                    "owned_by",
                    "created_by",
                ],
            )?,
            depth: IntGaugeVec::new(
                Opts::new("workqueue_depth", "Keys waiting for a worker."),
                &labels,
            )?,
            delayed: IntGaugeVec::new(
                Opts::new(
                    "agent_sandbox_queue_delayed",
                    "Keys waiting for their time.",
                ),
                &labels,
            )?,
            unfinished: GaugeVec::new(
                Opts::new(
                    "workqueue_unfinished_work_seconds",
                    "How long the keys being worked on have been, in sum.",
                ),
                &labels,
            )?,
            longest: GaugeVec::new(
                Opts::new(
                    "workqueue_longest_running_processor_seconds",
                    "How long the key begun first has been worked on.",
                ),
                &labels,
            )?,
            adds: IntCounterVec::new(Opts::new("workqueue_adds_total", "Keys added."), &labels)?,
            retries: IntCounterVec::new(
                Opts::new(
                    "workqueue_retries_total",
                    "Keys added again after a failure.",
                ),
                &labels,
            )?,
        })
    }

    fn parts(&self) -> [&dyn Collector; 8] {
        [
            &self.sandboxes,
            &self.armed,
            &self.depth,
            &self.delayed,
            &self.unfinished,
            &self.longest,
            &self.adds,
            &self.retries,
        ]
    }

    fn count_sandboxes(&self) {
        self.sandboxes.reset();
        for (sort, count) in self.census.counts() {
            self.sandboxes
                .with_label_values(&[
                    &*sort.namespace,
                    sort.ready,
                    if sort.expired { "true" } else { "false" },
                    if sort.warm {
                        keys::LAUNCH_TYPE_WARM
                    } else {
                        keys::LAUNCH_TYPE_COLD
                    },
                    sort.template.as_deref().unwrap_or("unknown"),
                    sort.owner,
                    sort.creator,
                ])
                .set(count);
        }
    }

    fn look_at_queues(&self) {
        for (name, queue) in &self.queues {
            let depth = queue.depth();
            let labels = [*name, *name];
            let set = |gauge: &IntGaugeVec, value: usize| {
                gauge
                    .with_label_values(&labels)
                    .set(i64::try_from(value).unwrap_or(i64::MAX));
            };
            set(&self.depth, depth.ready);
            set(&self.delayed, depth.delayed);
            let raise = |counter: &IntCounterVec, to: u64| {
                let counter = counter.with_label_values(&labels);
                counter.inc_by(to.saturating_sub(counter.get()));
            };
            raise(&self.adds, depth.added);
            raise(&self.retries, depth.retries);
            self.unfinished
                .with_label_values(&labels)
                .set(depth.unfinished.as_secs_f64());
            self.longest
                .with_label_values(&labels)
                .set(depth.longest.as_secs_f64());
        }
    }
}

impl Collector for Computed {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.count_sandboxes();
        self.look_at_queues();
        let armed = i64::try_from(self.deadlines.len()).unwrap_or(i64::MAX);
        self.armed.set(armed);
        self.parts()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}
