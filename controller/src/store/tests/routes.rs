//! Which changes cause which work.

use serde_json::{Value, json};

use crate::expiry::Deadlines;
use crate::fixtures::{condition, owner, uid};
use crate::ident::{Key, Uid};
use crate::objects::{ClaimRow, NodeRow, PodRow, PoolRow, Row, SandboxRow, TemplateRow};
use crate::queue::Priority;
use crate::store::{PoolId, Queues, Seen, Standing, Store, Stored, Work};

struct Fixture {
    store: Store,
    queues: Queues,
    deadlines: Deadlines,
    revision: u64,
}

impl Fixture {
    fn new() -> Self {
        let queues = Queues::default();
        let deadlines = Deadlines::new();
        Self {
            store: Store::new(queues.clone(), deadlines.clone()),
            queues,
            deadlines,
            revision: 0,
        }
    }

    fn see<R: Stored>(&mut self, object: Value) {
        let wire = self.wire::<R>(object);
        self.store.observe::<R>(wire, Seen::InWatch).unwrap();
    }

    fn wire<R: Row>(&mut self, mut object: Value) -> R::Wire {
        self.revision += 1;
        object["metadata"]["namespace"] = json!("n");
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        serde_json::from_value(object).unwrap()
    }

    /// What was queued since the last look.
    fn queued(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for (kind, queue) in [
            ("claim", &self.queues.claims),
            ("pool", &self.queues.pools),
            ("sandbox", &self.queues.sandboxes),
            ("template", &self.queues.templates),
        ] {
            while queue.depth().ready > 0 {
                let key = block_on(queue.take());
                queue.finish(&key, crate::queue::Next::Done);
                all.push(format!("{kind} {}", key.name));
            }
        }
        all
    }
}

/// Runs a future that is ready.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn sandbox(owner: Value, status: Value) -> Value {
    json!({
        "metadata": {"name": "s", "uid": uid(1), "ownerReferences": owner},
        "spec": {}, "status": status,
    })
}

#[test]
fn a_sandbox_wakes_itself_and_whoever_owns_it_when_it_matters_to_them() {
    let mut fixture = Fixture::new();
    let claimed = owner("SandboxClaim", "c", &uid(7));
    fixture.see::<SandboxRow>(sandbox(claimed.clone(), json!({})));
    assert_eq!(fixture.queued(), ["claim c", "sandbox s"]);
    let scheduled = json!({"conditions": [condition("PodScheduled", "True", "R")]});
    fixture.see::<SandboxRow>(sandbox(claimed.clone(), scheduled));
    assert_eq!(
        fixture.queued(),
        ["sandbox s"],
        "a condition claims do not mirror"
    );
    let ready = json!({"conditions": [condition("Ready", "False", "A")]});
    fixture.see::<SandboxRow>(sandbox(claimed.clone(), ready));
    assert_eq!(fixture.queued(), ["claim c", "sandbox s"]);
    let reason = json!({"conditions": [condition("Ready", "False", "B")]});
    fixture.see::<SandboxRow>(sandbox(claimed, reason));
    assert_eq!(
        fixture.queued(),
        ["claim c", "sandbox s"],
        "a reason alone counts"
    );
    fixture.see::<SandboxRow>(sandbox(owner("SandboxWarmPool", "p", &uid(8)), json!({})));
    assert_eq!(
        fixture.queued(),
        ["claim c", "pool p", "sandbox s"],
        "old and new owner"
    );
}

#[test]
fn an_own_write_does_not_queue_its_author_but_everybody_else() {
    let mut fixture = Fixture::new();
    let by = Work::Sandbox(Key::new("n", "s"), Priority::High);
    let wire = fixture.wire::<SandboxRow>(sandbox(owner("SandboxClaim", "c", &uid(7)), json!({})));
    fixture.store.assume::<SandboxRow>(wire, Some(&by)).unwrap();
    assert_eq!(fixture.queued(), ["claim c"]);
}

#[test]
fn what_somebody_else_wrote_just_before_an_own_write_queues_its_author() {
    let pool = |replicas: i32, generation: i32, status: Value| {
        json!({
            "metadata": {"name": "p", "uid": uid(8), "generation": generation},
            "spec": {"replicas": replicas, "sandboxTemplateRef": {"name": "t"}},
            "status": status,
        })
    };
    let mut fixture = Fixture::new();
    fixture.see::<PoolRow>(pool(1, 1, json!({})));
    fixture.queued();
    let by = Work::Pool(Key::new("n", "p"));
    let wire = fixture.wire::<PoolRow>(pool(1, 1, json!({"replicas": 1})));
    fixture.store.assume::<PoolRow>(wire, Some(&by)).unwrap();
    assert_eq!(fixture.queued(), [""; 0], "the status is our own");
    let wire = fixture.wire::<PoolRow>(pool(4, 2, json!({"replicas": 1, "readyReplicas": 1})));
    fixture.store.assume::<PoolRow>(wire, Some(&by)).unwrap();
    assert_eq!(fixture.queued(), ["pool p"], "somebody scaled the pool");

    // A claim reads its sandbox, whose status its own reconciler has just written.
    let owned = owner("SandboxClaim", "c", &uid(7));
    fixture.see::<SandboxRow>(sandbox(owned.clone(), json!({})));
    fixture.queued();
    let ready = json!({"conditions": [condition("Ready", "True", "A")]});
    let wire = fixture.wire::<SandboxRow>(sandbox(owned, ready));
    let by = Work::Claim(Key::new("n", "c"));
    fixture.store.assume::<SandboxRow>(wire, Some(&by)).unwrap();
    assert_eq!(fixture.queued(), ["claim c", "sandbox s"]);

    let pod = |phase: &str| {
        json!({
            "metadata": {"name": "s", "uid": uid(4), "ownerReferences": owner("Sandbox", "s", &uid(1))},
            "status": {"phase": phase},
        })
    };
    fixture.see::<SandboxRow>(sandbox(json!([]), json!({})));
    fixture.queued();
    let by = Work::Sandbox(Key::new("n", "s"), Priority::High);
    let wire = fixture.wire::<PodRow>(pod("Pending"));
    fixture.store.assume::<PodRow>(wire, Some(&by)).unwrap();
    assert_eq!(fixture.queued(), [""; 0], "a pod just created");
    let wire = fixture.wire::<PodRow>(pod("Running"));
    fixture.store.assume::<PodRow>(wire, Some(&by)).unwrap();
    assert_eq!(fixture.queued(), ["sandbox s"], "the kubelet was faster");
}

#[test]
fn children_wake_their_sandbox_and_holders_of_its_name_do_too() {
    let mut fixture = Fixture::new();
    fixture.see::<SandboxRow>(sandbox(json!([]), json!({})));
    fixture.queued();
    fixture.see::<PodRow>(
        json!({"metadata": {"name": "other", "ownerReferences": owner("Sandbox", "s", &uid(1))}}),
    );
    assert_eq!(fixture.queued(), ["sandbox s"]);
    fixture.see::<PodRow>(json!({"metadata": {"name": "s", "uid": uid(4)}}));
    assert_eq!(fixture.queued(), ["sandbox s"]);
    fixture.see::<PodRow>(json!({"metadata": {"name": "unrelated", "uid": uid(5)}}));
    assert_eq!(fixture.queued(), [""; 0]);
}

#[test]
fn a_new_template_wakes_all_claims_and_a_changed_pool_only_unbound_ones() {
    let mut fixture = Fixture::new();
    let claim = |name: &str, bound: bool| {
        let status = if bound {
            json!({"sandbox": {"name": "x"}})
        } else {
            json!({})
        };
        json!({"metadata": {"name": name, "uid": uid(name.len() as u64)}, "spec": {"warmPoolRef": {"name": "p"}}, "status": status})
    };
    fixture.see::<ClaimRow>(claim("a", false));
    fixture.see::<ClaimRow>(claim("bb", true));
    let pool = |replicas: i32, generation: i64| {
        json!({"metadata": {"name": "p", "uid": uid(50), "generation": generation},
            "spec": {"replicas": replicas, "sandboxTemplateRef": {"name": "t"}}})
    };
    fixture.queued();
    fixture.see::<PoolRow>(pool(1, 1));
    assert_eq!(fixture.queued(), ["claim a", "pool p"]);
    fixture.see::<PoolRow>(pool(1, 1));
    assert_eq!(
        fixture.queued(),
        ["pool p"],
        "a status change wakes no claim"
    );
    fixture.see::<PoolRow>(pool(2, 2));
    assert_eq!(fixture.queued(), ["claim a", "pool p"]);
    fixture.see::<TemplateRow>(
        json!({"metadata": {"name": "t", "uid": uid(60)}, "spec": {"podTemplate": {"spec": {}}}}),
    );
    assert_eq!(
        fixture.queued(),
        ["claim a", "claim bb", "pool p", "template t"]
    );
}

#[test]
fn deadlines_follow_the_rows() {
    let mut fixture = Fixture::new();
    let claim = |time: Value| json!({"metadata": {"name": "c", "uid": uid(1)}, "spec": {"lifecycle": {"shutdownTime": time}}});
    fixture.see::<ClaimRow>(claim(json!("2026-01-01T00:00:00Z")));
    assert_eq!(fixture.deadlines.len(), 1);
    fixture.see::<ClaimRow>(claim(json!(null)));
    assert_eq!(fixture.deadlines.len(), 0);
    fixture.see::<SandboxRow>(json!({"metadata": {"name": "s", "uid": uid(2)}, "spec": {"shutdownTime": "2026-01-01T00:00:00Z"}}));
    assert_eq!(fixture.deadlines.len(), 1);
    let gone = fixture.wire::<SandboxRow>(json!({"metadata": {"name": "s", "uid": uid(2)}}));
    fixture.store.observe_deleted::<SandboxRow>(gone).unwrap();
    assert_eq!(fixture.deadlines.len(), 0);
}

#[test]
fn a_node_that_falls_ill_reorders_its_members() {
    let mut fixture = Fixture::new();
    let member = |n: u64, node: &str| {
        json!({
            "metadata": {"name": format!("m{n}"), "uid": uid(n), "creationTimestamp": format!("2026-01-01T00:00:0{n}Z"),
                "ownerReferences": owner("SandboxWarmPool", "p", &uid(9))},
            "status": {"podIPs": ["10.0.0.1"], "nodeName": node, "conditions": [condition("Ready", "True", "R")]},
        })
    };
    let pod = |n: u64, node: &str| {
        json!({"metadata": {"name": format!("m{n}"), "uid": uid(100 + n), "ownerReferences": owner("Sandbox", &format!("m{n}"), &uid(n))},
            "spec": {"nodeName": node}, "status": {"phase": "Running"}})
    };
    fixture.see::<SandboxRow>(member(1, "a"));
    fixture.see::<SandboxRow>(member(2, "b"));
    fixture.see::<PodRow>(pod(1, "a"));
    fixture.see::<PodRow>(pod(2, "b"));
    let node = json!({"metadata": {"name": "a", "resourceVersion": "99"}, "spec": {"unschedulable": true}});
    let wire = serde_json::from_value(node).unwrap();
    fixture
        .store
        .observe::<NodeRow>(wire, Seen::InWatch)
        .unwrap();
    let pool = PoolId::new(&Key::new("n", "p"), Uid::parse(&uid(9)));
    let claim = Uid::parse(&uid(77));
    let picked = fixture.store.pick(&pool, claim, |_| true).unwrap();
    assert_eq!(&*picked.head.key.name, "m2");
}

/// Two names whose hash is the same.
const TWINS: [&str; 2] = ["sandbox-0ac4t", "sandbox-yml5e"];

fn template(name: &str, number: u64, created: &str) -> Value {
    json!({
        "metadata": {"name": name, "uid": uid(number), "creationTimestamp": created},
        "spec": {"podTemplate": {"spec": {}}},
    })
}

/// A sandbox that a pool made from a template, and its pod.
fn made_from(template: &str, name: &str, number: u64) -> (Value, Value) {
    let hash = agent_sandbox_crds::hash::name_hash(template);
    let labels = json!({"agents.x-k8s.io/sandbox-template-ref-hash": hash});
    let sandbox = json!({"metadata": {
        "name": name, "uid": uid(number), "labels": labels,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {"agents.x-k8s.io/sandbox-template-ref": template},
        "ownerReferences": owner("SandboxWarmPool", "p", &uid(8)),
    }});
    let pod = json!({"metadata": {
        "name": name, "uid": uid(number + 1), "labels": labels,
        "ownerReferences": owner("Sandbox", name, &uid(number)),
    }});
    (sandbox, pod)
}

/// A Ready member of the pool `p` on the node `a`, and its pod.
fn member(fixture: &mut Fixture, n: u64) {
    let name = format!("m{n}");
    fixture.see::<SandboxRow>(json!({
        "metadata": {"name": name, "uid": uid(n), "creationTimestamp": format!("2026-01-01T00:00:{n:02}Z"),
            "ownerReferences": owner("SandboxWarmPool", "p", &uid(9))},
        "status": {"podIPs": ["10.0.0.1"], "nodeName": "a", "conditions": [condition("Ready", "True", "R")]},
    }));
    fixture.see::<PodRow>(pod_of(n, json!({"phase": "Running"})));
}

fn pod_of(n: u64, status: Value) -> Value {
    json!({
        "metadata": {"name": format!("m{n}"), "uid": uid(100 + n), "ownerReferences": owner("Sandbox", &format!("m{n}"), &uid(n))},
        "spec": {"nodeName": "a"},
        "status": status,
    })
}

fn see_node(fixture: &mut Fixture, ready: &str) {
    fixture.revision += 1;
    let node = json!({
        "metadata": {"name": "a", "resourceVersion": fixture.revision.to_string()},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    });
    let wire = serde_json::from_value(node).unwrap();
    fixture
        .store
        .observe::<NodeRow>(wire, Seen::InWatch)
        .unwrap();
}

#[test]
fn a_lost_node_wakes_the_pools_of_its_members_and_a_heartbeat_nobody() {
    let mut fixture = Fixture::new();
    see_node(&mut fixture, "True");
    member(&mut fixture, 1);
    fixture.queued();
    let pool = PoolId::new(&Key::new("n", "p"), Uid::parse(&uid(9)));
    let standing = |fixture: &Fixture| {
        fixture.store.read(|state| {
            let roll = state.roll(&pool).unwrap();
            roll.member(Uid::parse(&uid(1))).unwrap().standing
        })
    };
    see_node(&mut fixture, "True");
    assert_eq!(fixture.queued(), [""; 0]);
    assert_eq!(standing(&fixture), Standing::Ready);
    see_node(&mut fixture, "Unknown");
    assert_eq!(fixture.queued(), ["pool p"]);
    assert_eq!(standing(&fixture), Standing::Stranded);
    let claim = Uid::parse(&uid(77));
    assert!(fixture.store.pick(&pool, claim, |_| true).is_none());
    see_node(&mut fixture, "True");
    assert_eq!(fixture.queued(), ["pool p"]);
    assert!(fixture.store.pick(&pool, claim, |_| true).is_some());
}

#[test]
fn a_pod_that_ends_takes_its_member_off_the_shelf_at_once() {
    let mut fixture = Fixture::new();
    member(&mut fixture, 1);
    let pool = PoolId::new(&Key::new("n", "p"), Uid::parse(&uid(9)));
    let claim = Uid::parse(&uid(77));
    fixture.see::<PodRow>(pod_of(1, json!({"phase": "Failed"})));
    assert!(fixture.store.pick(&pool, claim, |_| true).is_none());
    fixture.see::<PodRow>(pod_of(1, json!({"phase": "Running"})));
    assert!(fixture.store.pick(&pool, claim, |_| true).is_some());
}

#[test]
fn a_member_that_a_record_gives_to_a_claim_is_the_pools_no_more() {
    let mut fixture = Fixture::new();
    let pool = PoolId::new(&Key::new("n", "p"), Uid::parse(&uid(9)));
    let (given, other) = (Uid::parse(&uid(1)), Uid::parse(&uid(2)));
    let counts = |fixture: &Fixture, whom| {
        fixture.store.read(|state| {
            let roll = state.roll(&pool);
            roll.is_some_and(|roll| roll.member(whom).is_some())
        })
    };
    member(&mut fixture, 1);
    member(&mut fixture, 2);
    assert!(counts(&fixture, given) && counts(&fixture, other));
    fixture.see::<PoolRow>(json!({
        "metadata": {"name": "p", "uid": uid(9)},
        "spec": {"sandboxTemplateRef": {"name": "t"}},
        "status": {"allocations": [format!("c/{}=m1/{}", uid(7), uid(1))]},
    }));
    let check = |fixture: &Fixture, when| {
        assert!(!counts(fixture, given) && counts(fixture, other), "{when}");
        // The older one would go first.
        let claim = Uid::parse(&uid(77));
        let picked = fixture.store.pick(&pool, claim, |_| true).unwrap();
        assert_eq!(picked.head.uid, other, "{when}");
        fixture.store.release(claim);
    };
    check(&fixture, "at once");
    member(&mut fixture, 1);
    check(&fixture, "whatever is heard of it");
}

#[test]
fn a_member_that_turns_up_wakes_the_claim_that_waited_longest_and_no_other() {
    let mut fixture = Fixture::new();
    let pool = PoolId::new(&Key::new("n", "p"), Uid::parse(&uid(9)));
    for (name, n, created) in [
        ("young", 1, "3"),
        ("old", 2, "1"),
        ("served", 3, "0"),
        ("gone", 4, "0"),
    ] {
        let claim = json!({"metadata": {"name": name, "uid": uid(50 + n),
            "creationTimestamp": format!("2026-01-01T00:00:0{created}Z")}});
        fixture.see::<ClaimRow>(claim);
        let row = fixture
            .store
            .read(|state| state.claim(&Key::new("n", name)));
        fixture.store.wait_for_member(pool.clone(), &row.unwrap());
    }
    let gone = fixture.wire::<ClaimRow>(json!({"metadata": {"name": "gone", "uid": uid(54)}}));
    fixture.store.observe_deleted::<ClaimRow>(gone).unwrap();
    fixture.see::<SandboxRow>(sandbox(
        owner("SandboxClaim", "served", &uid(53)),
        json!({}),
    ));
    fixture.queued();
    let woken = |fixture: &mut Fixture| {
        let mut queued = fixture.queued();
        queued.retain(|piece| piece.starts_with("claim"));
        queued
    };
    member(&mut fixture, 11);
    assert_eq!(woken(&mut fixture), ["claim old"]);
    member(&mut fixture, 12);
    assert_eq!(woken(&mut fixture), ["claim young"]);
    member(&mut fixture, 13);
    assert_eq!(woken(&mut fixture), [""; 0]);
}

#[test]
fn a_claim_is_woken_by_what_it_mirrors_and_by_the_end_of_its_sandbox() {
    let mut fixture = Fixture::new();
    let claimed = owner("SandboxClaim", "c", &uid(7));
    let mut seen = sandbox(claimed, json!({}));
    fixture.see::<SandboxRow>(seen.clone());
    fixture.queued();
    for (what, member, value, wakes) in [
        ("an address", "podIPs", json!(["10.0.0.1"]), true),
        ("a node", "nodeName", json!("a"), false),
        ("the Service", "serviceFQDN", json!("s.n.svc"), false),
        (
            "Suspended",
            "conditions",
            json!([condition("Suspended", "True", "R")]),
            false,
        ),
        (
            "the end",
            "conditions",
            json!([condition("Finished", "True", "PodSucceeded")]),
            true,
        ),
    ] {
        seen["status"][member] = value;
        fixture.see::<SandboxRow>(seen.clone());
        assert_eq!(
            fixture.queued().contains(&"claim c".to_owned()),
            wakes,
            "{what}"
        );
    }
    seen["metadata"]["labels"] = json!({"x": "y"});
    fixture.see::<SandboxRow>(seen.clone());
    assert_eq!(
        fixture.queued(),
        ["sandbox s"],
        "labels say nothing to a claim"
    );
    seen["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    fixture.see::<SandboxRow>(seen.clone());
    assert_eq!(fixture.queued(), ["claim c", "sandbox s"]);
    let gone = fixture.wire::<SandboxRow>(seen);
    fixture.store.observe_deleted::<SandboxRow>(gone).unwrap();
    assert!(fixture.queued().contains(&"claim c".to_owned()));
}

#[test]
fn a_template_is_in_use_while_a_sandbox_or_pod_carries_its_hash() {
    let mut fixture = Fixture::new();
    let used = |fixture: &Fixture| {
        fixture
            .store
            .read(|state| state.template_is_used(&Key::new("n", "t")))
    };
    let (sandbox, pod) = made_from("t", "s", 1);
    fixture.see::<SandboxRow>(sandbox.clone());
    fixture.see::<PodRow>(pod.clone());
    let sandbox = fixture.wire::<SandboxRow>(sandbox);
    fixture
        .store
        .observe_deleted::<SandboxRow>(sandbox)
        .unwrap();
    assert!(used(&fixture));
    let pod = fixture.wire::<PodRow>(pod);
    fixture.store.observe_deleted::<PodRow>(pod).unwrap();
    assert!(!used(&fixture));
}

#[test]
fn what_another_template_of_the_hash_needs_is_no_use_of_this_one() {
    let mut fixture = Fixture::new();
    let (sandbox, pod) = made_from(TWINS[1], "s", 1);
    fixture.see::<SandboxRow>(sandbox);
    fixture.see::<PodRow>(pod);
    let used = |fixture: &Fixture, name: &str| {
        fixture
            .store
            .read(|state| state.template_is_used(&Key::new("n", name)))
    };
    assert!(!used(&fixture, TWINS[0]) && used(&fixture, TWINS[1]));
    let (_, mut stray) = made_from(TWINS[1], "stray", 11);
    stray["metadata"]["ownerReferences"] = json!([]);
    fixture.see::<PodRow>(stray);
    assert!(used(&fixture, TWINS[0]), "it may be this one's");
}

#[test]
fn the_older_of_two_templates_has_their_hash_and_what_is_left_of_it_keeps_it() {
    let mut fixture = Fixture::new();
    let rival = |fixture: &Fixture, name: &str| {
        fixture.store.read(|state| {
            let row = state.template(&Key::new("n", name)).unwrap();
            state
                .rival(&row)
                .map(|it| (it.template.to_string(), it.is_gone))
        })
    };
    fixture.see::<TemplateRow>(template(TWINS[1], 21, "2026-01-01T00:00:00Z"));
    fixture.see::<TemplateRow>(template(TWINS[0], 20, "2026-01-01T01:00:00Z"));
    assert_eq!(rival(&fixture, TWINS[1]), None);
    assert_eq!(
        rival(&fixture, TWINS[0]),
        Some((TWINS[1].to_owned(), false))
    );

    let (sandbox, _) = made_from(TWINS[1], "s", 1);
    fixture.see::<SandboxRow>(sandbox.clone());
    fixture.queued();
    let gone = fixture.wire::<TemplateRow>(template(TWINS[1], 21, "2026-01-01T00:00:00Z"));
    fixture.store.observe_deleted::<TemplateRow>(gone).unwrap();
    assert_eq!(rival(&fixture, TWINS[0]), Some((TWINS[1].to_owned(), true)));
    assert!(
        fixture.queued().contains(&format!("template {}", TWINS[0])),
        "it may say something else now"
    );
    let gone = fixture.wire::<SandboxRow>(sandbox);
    fixture.store.observe_deleted::<SandboxRow>(gone).unwrap();
    assert_eq!(rival(&fixture, TWINS[0]), None);
    assert!(
        fixture.queued().contains(&format!("template {}", TWINS[0])),
        "its time has come"
    );
}

#[test]
fn a_templates_own_word_wakes_nobody_unless_it_changes_what_they_may_do() {
    let mut fixture = Fixture::new();
    let pool = json!({
        "metadata": {"name": "p", "uid": uid(8)},
        "spec": {"sandboxTemplateRef": {"name": "t"}},
    });
    fixture.see::<PoolRow>(pool);
    let (sandbox, _) = made_from("t", "s", 1);
    fixture.see::<SandboxRow>(sandbox);
    let mut row = template("t", 20, "2026-01-01T00:00:00Z");
    fixture.see::<TemplateRow>(row.clone());
    assert_eq!(fixture.queued(), ["pool p", "sandbox s", "template t"]);
    row["status"] = json!({"conditions": [condition("NetworkPolicyReady", "True", "Managed")]});
    fixture.see::<TemplateRow>(row.clone());
    assert_eq!(fixture.queued(), ["pool p", "sandbox s", "template t"]);
    row["status"]["observedGeneration"] = json!(1);
    fixture.see::<TemplateRow>(row.clone());
    assert_eq!(fixture.queued(), ["template t"]);
    row["spec"]["networkPolicyManagement"] = json!("Unmanaged");
    fixture.see::<TemplateRow>(row);
    assert_eq!(fixture.queued(), ["pool p", "sandbox s", "template t"]);
}

#[test]
fn a_sandbox_that_is_gone_is_looked_at_once_more() {
    let mut fixture = Fixture::new();
    let bare = json!({"metadata": {"name": "s", "uid": uid(1)}, "spec": {}});
    fixture.see::<SandboxRow>(bare.clone());
    fixture.queued();
    let gone = fixture.wire::<SandboxRow>(bare);
    fixture.store.observe_deleted::<SandboxRow>(gone).unwrap();
    assert_eq!(fixture.queued(), ["sandbox s"], "so that it is forgotten");
}
