//! Statuses by example.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::pod::phase::{Reason, Retry, Running};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

fn running(started: bool, ready: bool) -> Current {
    Current::Running(Running {
        id: "c0ffee".into(),
        since: at(1),
        started,
        ready,
    })
}

fn ended(exit_code: i32) -> Ended {
    Ended {
        id: "dead".into(),
        exit_code,
        reason: if exit_code == 0 { "Completed" } else { "Error" },
        message: String::new(),
        started: at(1),
        finished: at(2),
    }
}

struct Case {
    pod: Pod,
    containers: Vec<ContainerState>,
    phase: PodPhase,
    initialized: bool,
    pod_ip: Option<IpAddr>,
    previous: Vec<PodCondition>,
    verdict: Option<(&'static str, &'static str)>,
}

impl Case {
    #[allow(
        clippy::needless_pass_by_value,
        reason = "cases read better with literals"
    )]
    fn new(spec: Value, containers: Vec<(&str, Role, Current)>, phase: PodPhase) -> Self {
        let pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "generation": 3},
            "spec": spec,
        }))
        .unwrap();
        let container = |(name, role, current): (&str, Role, Current)| ContainerState {
            current,
            ..ContainerState::new(name, role)
        };
        Self {
            pod,
            containers: containers.into_iter().map(container).collect(),
            phase,
            initialized: true,
            pod_ip: Some("127.100.0.9".parse().unwrap()),
            previous: vec![],
            verdict: None,
        }
    }

    fn status(&self) -> PodStatus {
        pod_status(&Facts {
            pod: &self.pod,
            spec: self.pod.spec.as_ref().unwrap(),
            containers: &self.containers,
            phase: self.phase,
            verdict: self.verdict,
            initialized: self.initialized,
            started: at(0),
            host_ip: "127.0.0.1".parse().unwrap(),
            pod_ip: self.pod_ip,
            previous: &self.previous,
            now: at(5),
        })
    }

    /// Conditions as `Type=Status reason message`.
    fn conditions(&self) -> Vec<String> {
        let conditions = self.status().conditions.unwrap();
        let line = |condition: PodCondition| {
            let rest = [condition.reason, condition.message];
            let rest: Vec<String> = rest.into_iter().flatten().collect();
            let head = format!("{}={}", condition.type_, condition.status);
            [head, rest.join(": ")].join(" ").trim().to_owned()
        };
        conditions.into_iter().map(line).collect()
    }
}

fn spec() -> Value {
    json!({"containers": [{"name": "main", "image": "busybox:1"}]})
}

#[test]
fn a_ready_pod_reads_as_on_a_real_node() {
    let case = Case::new(
        spec(),
        vec![("main", Role::App, running(true, true))],
        PodPhase::Running,
    );
    insta::assert_json_snapshot!(case.status(), @r#"
    {
      "conditions": [
        {
          "lastTransitionTime": "2026-01-01T00:00:05Z",
          "observedGeneration": 3,
          "status": "True",
          "type": "PodReadyToStartContainers"
        },
        {
          "lastTransitionTime": "2026-01-01T00:00:05Z",
          "observedGeneration": 3,
          "status": "True",
          "type": "Initialized"
        },
        {
          "lastTransitionTime": "2026-01-01T00:00:05Z",
          "observedGeneration": 3,
          "status": "True",
          "type": "Ready"
        },
        {
          "lastTransitionTime": "2026-01-01T00:00:05Z",
          "observedGeneration": 3,
          "status": "True",
          "type": "ContainersReady"
        },
        {
          "lastTransitionTime": "2026-01-01T00:00:05Z",
          "observedGeneration": 3,
          "status": "True",
          "type": "PodScheduled"
        }
      ],
      "containerStatuses": [
        {
          "containerID": "process://c0ffee",
          "image": "busybox:1",
          "imageID": "process://busybox:1",
          "lastState": {},
          "name": "main",
          "ready": true,
          "restartCount": 0,
          "started": true,
          "state": {
            "running": {
              "startedAt": "2026-01-01T00:00:01Z"
            }
          }
        }
      ],
      "hostIP": "127.0.0.1",
      "hostIPs": [
        {
          "ip": "127.0.0.1"
        }
      ],
      "observedGeneration": 3,
      "phase": "Running",
      "podIP": "127.100.0.9",
      "podIPs": [
        {
          "ip": "127.100.0.9"
        }
      ],
      "qosClass": "BestEffort",
      "startTime": "2026-01-01T00:00:00Z"
    }
    "#);
}

#[test]
fn conditions_say_what_is_missing() {
    let waiting = ContainerState::new("", Role::App).current;
    let spec = json!({
        "initContainers": [{"name": "setup", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}],
    });
    let mut case = Case::new(
        spec,
        vec![
            ("setup", Role::Init, running(true, false)),
            ("a", Role::App, waiting.clone()),
            ("b", Role::App, waiting),
        ],
        PodPhase::Pending,
    );
    case.initialized = false;
    case.pod_ip = None;
    let unready = "ContainersNotReady: containers with unready status: [a b]";
    assert_eq!(
        case.conditions(),
        [
            "PodReadyToStartContainers=False".to_owned(),
            "Initialized=False ContainersNotInitialized: containers with incomplete status: [setup]"
                .to_owned(),
            format!("Ready=False {unready}"),
            format!("ContainersReady=False {unready}"),
            "PodScheduled=True".to_owned(),
        ]
    );
    let status = case.status();
    let reasons: Vec<_> = status
        .container_statuses
        .unwrap()
        .into_iter()
        .map(|container| container.state.unwrap().waiting.unwrap().reason.unwrap())
        .collect();
    assert_eq!(reasons, ["PodInitializing", "PodInitializing"]);
}

#[test]
fn finished_pods_keep_their_story() {
    for (code, phase, initialized, ready) in [
        (
            0,
            PodPhase::Succeeded,
            "Initialized=True PodCompleted",
            "Ready=False PodCompleted",
        ),
        (
            3,
            PodPhase::Failed,
            "Initialized=True",
            "Ready=False PodFailed",
        ),
    ] {
        let current = Current::Ended(ended(code));
        let case = Case::new(spec(), vec![("main", Role::App, current)], phase);
        let conditions = case.conditions();
        assert_eq!(conditions[0], "PodReadyToStartContainers=False");
        assert_eq!(
            (conditions[1].as_str(), conditions[2].as_str()),
            (initialized, ready)
        );
        let container = case.status().container_statuses.unwrap().remove(0);
        let state = container.state.unwrap().terminated.unwrap();
        assert_eq!(
            (state.exit_code, container.ready, container.started),
            (code, false, Some(false))
        );
    }
    let mut case = Case::new(
        spec(),
        vec![("main", Role::App, Current::Ended(ended(137)))],
        PodPhase::Failed,
    );
    case.verdict = Some(("DeadlineExceeded", "too long"));
    let status = case.status();
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
    assert_eq!(status.message.as_deref(), Some("too long"));
}

#[test]
fn waiting_reasons_and_last_states_are_shown() {
    let mut case = Case::new(
        spec(),
        vec![(
            "main",
            Role::App,
            Current::Waiting(Waiting {
                reason: Reason::CrashLoopBackOff,
                message: "back-off".into(),
                retry: Retry::Never,
            }),
        )],
        PodPhase::Running,
    );
    case.containers[0].last = Some(ended(1));
    case.containers[0].restarts = 4;
    let container = case.status().container_statuses.unwrap().remove(0);
    let waiting = container.state.unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(waiting.message.as_deref(), Some("back-off"));
    assert_eq!(container.restart_count, 4);
    assert_eq!(
        container.last_state.unwrap().terminated.unwrap().exit_code,
        1
    );
    assert_eq!(container.container_id.as_deref(), Some("process://dead"));
}

#[test]
fn readiness_gates_hold_a_pod_back() {
    let mut spec = spec();
    spec["readinessGates"] = json!([{"conditionType": "example.com/gate"}]);
    let mut case = Case::new(
        spec,
        vec![("main", Role::App, running(true, true))],
        PodPhase::Running,
    );
    let conditions = case.conditions();
    assert!(
        conditions[2].contains("ReadinessGatesNotReady"),
        "{conditions:?}"
    );
    assert_eq!(conditions[3], "ContainersReady=True");
    let gate = |status: &str| {
        serde_json::from_value(json!({
            "conditions": [{"type": "example.com/gate", "status": status}]
        }))
        .unwrap()
    };
    case.pod.status = Some(gate("False"));
    assert!(case.conditions()[2].contains("is not \"True\", but False"));
    case.pod.status = Some(gate("True"));
    assert_eq!(case.conditions()[2], "Ready=True");
}

#[test]
fn transition_times_move_only_with_the_status() {
    let mut case = Case::new(
        spec(),
        vec![("main", Role::App, running(true, false))],
        PodPhase::Running,
    );
    let condition = |kind: &str, status: &str| PodCondition {
        type_: kind.into(),
        status: status.into(),
        last_transition_time: Some(Time(at(-100))),
        ..PodCondition::default()
    };
    case.previous = vec![condition("Ready", "True"), condition("Initialized", "True")];
    let conditions = case.status().conditions.unwrap();
    let time = |kind: &str| {
        let found = conditions.iter().find(|condition| condition.type_ == kind);
        found.unwrap().last_transition_time.clone().unwrap().0
    };
    assert_eq!((time("Initialized"), time("Ready")), (at(-100), at(5)));
}

#[test]
fn quality_of_service_follows_requests_and_limits() {
    let class = |resources: &[Value]| {
        let container = |resources: &Value| json!({"name": "c", "resources": resources});
        let containers: Vec<_> = resources.iter().map(container).collect();
        let spec = serde_json::from_value(json!({"containers": containers})).unwrap();
        qos_class(&spec)
    };
    let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
    let equal = json!({
        "limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"},
    });
    let less = json!({
        "limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"},
    });
    for (resources, expected) in [
        (vec![json!({})], "BestEffort"),
        (vec![json!({"requests": {"cpu": "0"}})], "BestEffort"),
        (vec![json!({"requests": {"cpu": "1"}})], "Burstable"),
        (vec![full.clone()], "Guaranteed"),
        (vec![equal], "Guaranteed"),
        (vec![less], "Burstable"),
        (vec![full, json!({})], "Burstable"),
    ] {
        assert_eq!(class(&resources), expected, "{resources:?}");
    }
}

#[test]
fn a_patch_holds_only_what_changed() {
    let mut case = Case::new(
        spec(),
        vec![("main", Role::App, running(true, false))],
        PodPhase::Running,
    );
    let before = case.status();
    assert_eq!(difference(&before, &before), None);
    case.previous = before.conditions.clone().unwrap();
    case.containers[0].current = running(true, true);
    let patch = difference(&before, &case.status()).unwrap();
    let keys: Vec<_> = patch["status"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["conditions", "containerStatuses"]);
    let conditions = patch["status"]["conditions"].as_array().unwrap();
    assert_eq!(conditions.len(), 2);
    // What no longer applies is removed, not left behind.
    assert!(
        conditions
            .iter()
            .all(|c| c["status"] == "True" && c["reason"].is_null())
    );
    assert!(
        conditions
            .iter()
            .all(|c| c.as_object().unwrap().contains_key("message"))
    );
    case.pod_ip = None;
    let patch = difference(&before, &case.status()).unwrap();
    assert_eq!(patch["status"]["podIP"], Value::Null);
    assert!(patch["status"].as_object().unwrap().contains_key("podIP"));
}

#[test]
fn conditions_of_others_do_not_count_as_written() {
    let status = serde_json::from_value(json!({"conditions": [
        {"type": "Ready", "status": "True"}, {"type": "example.com/x", "status": "True"},
    ]}))
    .unwrap();
    let own = own(Some(&status)).conditions.unwrap();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].type_, "Ready");
}
