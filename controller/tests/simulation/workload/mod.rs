//! What users do: reasonable things, mistakes, and things nobody should do, drawn from the seed.

mod mischief;

use std::time::Duration;

use fastrand::Rng;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::{self, FAILS, SUCCEEDS};
use crate::kube_model::is_deleting;
use crate::objects::{controller, name};
use crate::trace::Actor;
use crate::world::{Crash, MISSPELT, NAMESPACE, World, id};

/// A user, and whoever else pulls strings from outside.
pub(crate) struct Workload {
    world: World,
    rng: Rng,
    claims: u32,
    /// Names of objects that stand in the operators' way.
    foreign: Vec<(&'static str, String)>,
    /// Until then users take their time: what was done to an operator takes as long.
    slow_until: Instant,
}

const NODES: [&str; 3] = ["node-0", "node-1", "node-2"];
const TEMPLATES: [&str; 2] = ["t0", "t1"];
/// Kinds of which an operator may hear nothing for a while.
const HEARD_OF: [&str; 6] = [
    "sandboxes",
    "sandboxclaims",
    "sandboxwarmpools",
    "sandboxtemplates",
    "pods",
    "networkpolicies",
];
const POOLS: [&str; 2] = ["p0", "p1"];

impl Workload {
    pub(crate) fn new(world: &World, seed: u64) -> Self {
        Self {
            world: world.clone(),
            rng: Rng::with_seed(seed.wrapping_mul(16).wrapping_add(3)),
            claims: 0,
            foreign: Vec::new(),
            slow_until: Instant::now(),
        }
    }

    /// What there is before anything happens.
    pub(crate) fn prepare(&mut self) {
        for node in NODES {
            let ready = json!({"type": "Ready", "status": "True"});
            let node =
                json!({"metadata": {"name": node}, "spec": {}, "status": {"conditions": [ready]}});
            self.world.step(Actor::Node, "joins".to_owned(), |state| {
                state.create("nodes", "", node).expect("a new node");
            });
        }
        self.create("sandboxtemplates", template("t0", "python"));
        let size = self.rng.i64(0..5);
        let pool = self.pool("p0", "t0", size);
        self.create("sandboxwarmpools", pool);
        if self.rng.bool() {
            self.create("sandboxtemplates", template("t1", "node"));
            let template = *self.pick(&TEMPLATES);
            let size = self.rng.i64(0..4);
            let pool = self.pool("p1", template, size);
            self.create("sandboxwarmpools", pool);
        }
    }

    /// Does things one after the other.
    pub(crate) async fn run(&mut self, actions: usize) {
        for _ in 0..actions {
            let pause = match self.rng.u8(0..10) {
                _ if self.slow_until > Instant::now() => self.rng.u64(200..2_500),
                0..=3 => 0,
                4..=7 => self.rng.u64(1..400),
                _ => self.rng.u64(400..4_000),
            };
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.act();
        }
    }

    fn act(&mut self) {
        match self.rng.u32(0..100) {
            0..=27 => self.claim(),
            28..=33 => self.delete_claim(),
            34..=40 => self.scale(),
            41..=45 => self.edit_template(),
            46..=48 => self.replace_template(),
            49..=51 => self.edit_pool(),
            52..=58 => self.suspend_or_resume(),
            59..=61 => self.expire_sandbox(),
            62..=66 => self.kill_pod(),
            67..=69 => self.edit_claim(),
            70..=73 => self.bare_sandbox(),
            74..=76 => self.stand_in_the_way(),
            77..=79 => self.tamper(),
            80..=83 => self.trouble_node(),
            84..=88 => self.delete_something(),
            _ => self.trouble_operator(),
        }
    }

    /// Ends what would keep things from coming to rest.
    pub(crate) fn tidy(&mut self) {
        for node in NODES {
            self.patch("nodes", node, json!({"spec": {"unschedulable": null}}));
            cluster::set_node_health(&self.world, node, true);
        }
        for template in TEMPLATES {
            // What waits for a template that is gone goes on now, or goes on waiting.
            if self.rng.bool() {
                self.create("sandboxtemplates", self::template(template, "python"));
            }
            // A pool of pods that end by themselves never rests.
            self.patch(
                "sandboxtemplates",
                template,
                pod_spec(&json!({"name": "main", "image": "python"})),
            );
        }
        for (resource, name) in std::mem::take(&mut self.foreign) {
            let foreign = self.world.lock().get(resource, &name).is_some_and(|it| {
                it["metadata"]["labels"]["foreign"] == "yes" && controller(it, "Sandbox").is_none()
            });
            if foreign {
                self.delete(resource, &name, "Background");
            }
        }
    }

    /// Objects whose time comes while nothing goes wrong.
    pub(crate) fn leave_deadlines(&mut self) {
        for policy in ["Delete", "DeleteForeground", "Retain"] {
            let at = self.in_seconds(5..9);
            let mut claim = self.new_claim("p0");
            claim["spec"]["lifecycle"] = json!({"shutdownTime": at, "shutdownPolicy": policy});
            self.create("sandboxclaims", claim);
        }
        for (name, policy) in [("ends", "Delete"), ("stays", "Retain")] {
            let at = self.in_seconds(5..9);
            let mut sandbox = sandbox(name);
            sandbox["spec"]["shutdownTime"] = json!(at);
            sandbox["spec"]["shutdownPolicy"] = json!(policy);
            self.create("sandboxes", sandbox);
        }
    }

    // ---- single actions

    fn new_claim(&mut self, pool: &str) -> Value {
        self.claims += 1;
        json!({
            "metadata": {"name": format!("c{}", self.claims)},
            "spec": {"warmPoolRef": {"name": pool}},
        })
    }

    fn claim(&mut self) {
        let pool = if self.rng.u8(0..4) == 0 { "p1" } else { "p0" };
        let mut claim = self.new_claim(pool);
        match self.rng.u8(0..20) {
            0 => claim["spec"]["env"] = json!([{"name": "A", "value": "1"}]),
            1 => {
                claim["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "more"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
            }
            2 => {
                let warmpool = *self.pick(&["none", "default", "p0", "missing"]);
                claim["spec"] = json!({"sandboxTemplateRef": {"name": "t0"}, "warmpool": warmpool});
            }
            3 => claim["spec"] = json!({"sandboxTemplateRef": {"name": "t1"}}),
            4 => claim["spec"]["warmPoolRef"]["name"] = json!("missing"),
            5 => {
                claim["spec"]["additionalPodMetadata"] =
                    json!({"labels": {"agents.x-k8s.io/mine": "x"}});
            }
            6 | 7 => {
                claim["spec"]["additionalPodMetadata"] =
                    json!({"annotations": {"note": "mine"}, "labels": {"sandbox.users.io/a": "b"}});
            }
            8 | 9 => {
                let policy = *self.pick(&["Delete", "DeleteForeground", "Retain"]);
                let at = self.in_seconds(0..15);
                claim["spec"]["lifecycle"] = json!({"shutdownTime": at, "shutdownPolicy": policy});
            }
            10 => {
                let policy = *self.pick(&["Delete", "Retain"]);
                let ttl = self.rng.u32(0..5);
                claim["spec"]["lifecycle"] =
                    json!({"ttlSecondsAfterFinished": ttl, "shutdownPolicy": policy});
            }
            11 => {
                // A name that was used before.
                let old = self.rng.u32(1..=self.claims);
                claim["metadata"]["name"] = json!(format!("c{old}"));
            }
            12 => {
                let burst = self.rng.u32(2..6);
                for _ in 0..burst {
                    let claim = self.new_claim(pool);
                    self.create("sandboxclaims", claim);
                }
            }
            _ => {}
        }
        self.create("sandboxclaims", claim);
    }

    fn delete_claim(&mut self) {
        if let Some(claim) = self.any("sandboxclaims") {
            let how = if self.rng.u8(0..3) == 0 {
                "Foreground"
            } else {
                "Background"
            };
            self.delete("sandboxclaims", &claim, how);
            if self.rng.u8(0..3) == 0 {
                let again = json!({
                    "metadata": {"name": claim}, "spec": {"warmPoolRef": {"name": "p0"}},
                });
                self.create("sandboxclaims", again);
            }
        }
    }

    fn scale(&mut self) {
        let pool = *self.pick(&POOLS);
        let size = self.rng.i64(0..6);
        self.patch(
            "sandboxwarmpools",
            pool,
            json!({"spec": {"replicas": size}}),
        );
    }

    fn edit_template(&mut self) {
        let template = *self.pick(&TEMPLATES);
        let version = self.rng.u32(0..4).to_string();
        let patch = match self.rng.u8(0..9) {
            0 => json!({"spec": {"networkPolicyManagement": "Unmanaged"}}),
            1 => json!({"spec": {"networkPolicyManagement": null}}),
            2 => {
                json!({"spec": {"envVarsInjectionPolicy": "Allowed", "volumeClaimTemplatesPolicy": "Allowed"}})
            }
            3 => json!({"spec": {"podTemplate": {"metadata": {"labels": {"version": version}}}}}),
            4 => json!({"spec": {"service": true}}),
            5 => pod_spec(&json!({"name": "main", "image": SUCCEEDS})),
            6 => pod_spec(&json!({"name": "main", "image": FAILS})),
            _ => pod_spec(&json!({
                "name": "main", "image": "python",
                "env": [{"name": "VERSION", "value": version}],
            })),
        };
        self.patch("sandboxtemplates", template, patch);
    }

    fn replace_template(&mut self) {
        let name = *self.pick(&TEMPLATES);
        self.delete("sandboxtemplates", name, "Background");
        if self.rng.bool() {
            let mut template = template(name, "python");
            if self.rng.u8(0..4) == 0 {
                template["spec"]["networkPolicyManagement"] = json!("Unmanaged");
            }
            self.create("sandboxtemplates", template);
        }
    }

    fn edit_pool(&mut self) {
        let name = *self.pick(&POOLS);
        match self.rng.u8(0..4) {
            0 => {
                let template = *self.pick(&TEMPLATES);
                let patch = json!({"spec": {"sandboxTemplateRef": {"name": template}}});
                self.patch("sandboxwarmpools", name, patch);
            }
            1 => {
                self.delete("sandboxwarmpools", name, "Background");
                let (template, size) = (*self.pick(&TEMPLATES), self.rng.i64(0..4));
                let pool = self.pool(name, template, size);
                self.create("sandboxwarmpools", pool);
            }
            2 => self.delete("sandboxwarmpools", name, "Background"),
            _ => {
                let (template, size) = (*self.pick(&TEMPLATES), self.rng.i64(0..4));
                let pool = self.pool(name, template, size);
                self.create("sandboxwarmpools", pool);
            }
        }
    }

    fn suspend_or_resume(&mut self) {
        if let Some(sandbox) = self.any("sandboxes") {
            let patch = match self.rng.u8(0..6) {
                0..=1 => json!({"operatingMode": "Suspended"}),
                2 => json!({"replicas": 0}),
                _ => json!({"operatingMode": "Running", "replicas": null}),
            };
            self.patch("sandboxes", &sandbox, json!({"spec": patch}));
        }
    }

    fn expire_sandbox(&mut self) {
        if let Some(sandbox) = self.any("sandboxes") {
            let at = self.in_seconds(0..10);
            let patch = match self.rng.u8(0..3) {
                0 => json!({"shutdownTime": at, "shutdownPolicy": "Delete"}),
                1 => json!({"shutdownTime": at}),
                _ => json!({"shutdownTime": null}),
            };
            self.patch("sandboxes", &sandbox, json!({"spec": patch}));
        }
    }

    fn kill_pod(&mut self) {
        if let Some(pod) = self.any("pods") {
            match self.rng.u8(0..4) {
                0 => cluster::end_pod(&self.world, &id("pods", &pod), "Succeeded"),
                1 => cluster::end_pod(&self.world, &id("pods", &pod), "Failed"),
                _ => self.delete("pods", &pod, "Background"),
            }
        }
    }

    fn edit_claim(&mut self) {
        if let Some(claim) = self.any("sandboxclaims") {
            let value = self.rng.u32(0..3).to_string();
            let at = self.in_seconds(0..12);
            let patch = match self.rng.u8(0..4) {
                0 => json!({"additionalPodMetadata": {"annotations": {"note": value}}}),
                1 => json!({"additionalPodMetadata": null}),
                2 => json!({"lifecycle": {"shutdownTime": at, "shutdownPolicy": "Delete"}}),
                _ => json!({"lifecycle": null}),
            };
            self.patch("sandboxclaims", &claim, json!({"spec": patch}));
        }
    }

    fn bare_sandbox(&mut self) {
        let name = format!("s{}", self.rng.u8(0..3));
        let mut sandbox = sandbox(&name);
        match self.rng.u8(0..5) {
            0 => sandbox["spec"]["service"] = json!(true),
            1 => {
                sandbox["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
            }
            2 => sandbox["spec"]["podTemplate"]["spec"]["containers"][0][MISSPELT] = json!("x"),
            3 => sandbox["spec"]["operatingMode"] = json!("Suspended"),
            _ => {}
        }
        self.create("sandboxes", sandbox);
    }

    fn trouble_node(&mut self) {
        let node = *self.pick(&NODES);
        match self.rng.u8(0..4) {
            0 => self.patch("nodes", node, json!({"spec": {"unschedulable": true}})),
            1 => cluster::set_node_health(&self.world, node, false),
            _ => {
                self.patch("nodes", node, json!({"spec": {"unschedulable": null}}));
                cluster::set_node_health(&self.world, node, true);
            }
        }
    }

    fn delete_something(&mut self) {
        let resource = *self.pick(&[
            "sandboxes",
            "services",
            "persistentvolumeclaims",
            "networkpolicies",
        ]);
        if let Some(name) = self.any(resource) {
            let how = if self.rng.u8(0..4) == 0 {
                "Foreground"
            } else {
                "Background"
            };
            self.delete(resource, &name, how);
        }
    }

    fn trouble_operator(&mut self) {
        let running = self.world.running();
        if running.is_empty() {
            return;
        }
        let pid = *self.pick(&running);
        match self.rng.u8(0..12) {
            0 | 1 => self.world.kill(pid),
            2 => self.world.stop(pid),
            3 | 4 => {
                let time = Duration::from_millis(self.rng.u64(500..30_000));
                self.world.pause(pid, time);
            }
            5 | 6 => self.trouble_leader(),
            7 | 8 => {
                let time = Duration::from_millis(self.rng.u64(2_000..20_000));
                let of = self.rng.usize(0..=HEARD_OF.len());
                let kinds = HEARD_OF.get(of..=of).unwrap_or(&HEARD_OF);
                self.world.deafen(pid, kinds, time);
                self.slow_until = Instant::now() + time / 2;
            }
            _ => self.world.crash_at(Crash {
                at_write: self.world.writes() + self.rng.u64(1..12),
                after: self.rng.bool(),
            }),
        }
    }

    /// Whoever leads is held, or cut off from its lease, for as long as the others need to take over, while
    /// there is work.
    fn trouble_leader(&mut self) {
        let Some(leader) = self.world.leader() else {
            return;
        };
        let time = Duration::from_millis(self.rng.u64(15_000..25_000));
        if self.rng.bool() {
            self.world.pause(leader, time);
        } else {
            self.world.cut_off_from_lease(leader, time);
        }
        self.slow_until = Instant::now() + time;
        for _ in 0..self.rng.u32(1..4) {
            let claim = self.new_claim("p0");
            self.create("sandboxclaims", claim);
        }
    }

    // ---- means

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.rng.usize(0..from.len())]
    }

    /// The name of some object.
    fn any(&mut self, resource: &str) -> Option<String> {
        let names: Vec<String> = {
            let inner = self.world.lock();
            let objects = inner.state.list(resource);
            objects
                .filter(|it| !is_deleting(it))
                .map(|it| name(it).to_owned())
                .collect()
        };
        (!names.is_empty()).then(|| self.pick(&names).clone())
    }

    fn in_seconds(&mut self, range: std::ops::Range<i64>) -> String {
        let at = self.world.now() + SignedDuration::from_secs(self.rng.i64(range));
        at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    fn pool(&mut self, name: &str, template: &str, size: i64) -> Value {
        let mut pool = json!({
            "metadata": {"name": name},
            "spec": {"replicas": size, "sandboxTemplateRef": {"name": template}},
        });
        if self.rng.u8(0..3) == 0 {
            pool["spec"]["updateStrategy"] = json!({"type": "Recreate"});
        }
        pool
    }

    fn create(&mut self, resource: &str, object: Value) {
        let what = format!("create {resource} {}: {}", name(&object), object["spec"]);
        self.world.step(Actor::User, what, |state| {
            drop(state.create(resource, NAMESPACE, object));
        });
    }

    fn patch(&mut self, resource: &str, name: &str, patch: Value) {
        let what = format!("patch {resource} {name}: {patch}");
        self.world.step(Actor::User, what, |state| {
            drop(state.patch(&id(resource, name), &patch, false));
        });
    }

    fn delete(&mut self, resource: &str, name: &str, propagation: &str) {
        let what = format!("delete {resource} {name} ({propagation})");
        self.world.step(Actor::User, what, |state| {
            let options = json!({"propagationPolicy": propagation});
            drop(state.delete(&id(resource, name), &options));
        });
    }
}

fn pod_spec(container: &Value) -> Value {
    json!({"spec": {"podTemplate": {"spec": {"containers": [container]}}}})
}

fn template(name: &str, image: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"podTemplate": {"spec": {"containers": [
        {"name": "main", "image": image, "ports": [{"containerPort": 8888, "protocol": "TCP"}]},
    ]}}}})
}

fn sandbox(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"podTemplate": {"spec": {"containers": [
        {"name": "main", "image": "python"},
    ]}}}})
}
