//! What to do next with the containers of a pod.
//!
//! Pure: the worker calls [`plan`] after every change and carries out what it says. Order of start:
//! init containers one after the other, each sidecar before what follows it, then all others at
//! once. Order of end: all others at once, then sidecars in reverse.

use jiff::Timestamp;

use super::phase::{ContainerState, Current, Retry, Role};
use super::restart::RestartPolicy;

/// The facts a plan is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation<'a> {
    /// In the order of `phase::containers`.
    pub(crate) containers: &'a [ContainerState],
    pub(crate) policy: RestartPolicy,
    /// Everything must end, whatever the restart policy says.
    pub(crate) ending: bool,
    /// Initialisation was complete at some time.
    pub(crate) initialized: bool,
    pub(crate) now: Timestamp,
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Containers to start now.
    pub(crate) start: Vec<usize>,
    /// Containers that must end; repeated until they have.
    pub(crate) stop: Vec<usize>,
    /// When to plan again if nothing happens before.
    pub(crate) wake: Option<Timestamp>,
    /// Initialisation is complete.
    pub(crate) initialized: bool,
    /// No container will be started again.
    pub(crate) finishing: bool,
    /// Nothing runs and nothing will.
    pub(crate) finished: bool,
}

/// Decides what is next.
pub(crate) fn plan(situation: Situation<'_>) -> Plan {
    let mut plan = Plan {
        initialized: situation.initialized || is_initialized(situation.containers),
        ..Plan::default()
    };
    plan.finishing = situation.ending || is_over(situation);
    if plan.finishing {
        plan.stop = to_stop(situation.containers);
        plan.finished = !situation.containers.iter().any(ContainerState::is_alive);
        return plan;
    }
    for (index, container) in situation.containers.iter().enumerate() {
        let turn = match container.role {
            Role::Init | Role::Sidecar => true,
            Role::App => plan.initialized,
        };
        if !turn {
            break;
        }
        if container.role == Role::Init && plan.initialized {
            continue;
        }
        consider(&mut plan, index, container, situation.now);
        if !plan.initialized && blocks(container) {
            break;
        }
    }
    plan
}

/// Starts a waiting container if its time has come, else remembers when it comes.
fn consider(plan: &mut Plan, index: usize, container: &ContainerState, now: Timestamp) {
    let Current::Waiting(waiting) = &container.current else {
        return;
    };
    match waiting.retry {
        Retry::Now => plan.start.push(index),
        Retry::At(time) if time <= now => plan.start.push(index),
        Retry::At(time) => plan.wake = Some(plan.wake.map_or(time, |wake| wake.min(time))),
        Retry::Never => {}
    }
}

/// Whether what comes after an init container has to wait for it.
fn blocks(container: &ContainerState) -> bool {
    match container.role {
        Role::Init => container.final_code() != Some(0),
        Role::Sidecar => !container.is_started(),
        Role::App => false,
    }
}

fn is_initialized(containers: &[ContainerState]) -> bool {
    !containers.iter().any(blocks)
}

/// Whether the pod has come to its own end: an init container failed for good, or every app
/// container ended for good.
fn is_over(situation: Situation<'_>) -> bool {
    let failed = situation.containers.iter().any(|container| {
        let code = container.final_code();
        container.role == Role::Init && code.is_some_and(|code| code != 0)
    });
    let mut apps = situation
        .containers
        .iter()
        .filter(|container| container.role == Role::App);
    let all_ended = apps.all(|container| {
        container
            .final_code()
            .is_some_and(|code| !container.restarts_after(code, situation.policy))
    });
    failed || all_ended
}

/// Everything but sidecars at once; then the last sidecar that is alive.
fn to_stop(containers: &[ContainerState]) -> Vec<usize> {
    let alive = |sidecar: bool| {
        containers
            .iter()
            .enumerate()
            .filter(move |(_, container)| {
                container.is_alive() && (container.role == Role::Sidecar) == sidecar
            })
            .map(|(index, _)| index)
    };
    let others: Vec<usize> = alive(false).collect();
    if others.is_empty() {
        alive(true).next_back().into_iter().collect()
    } else {
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::phase::{Ended, Reason, Running, Waiting};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A container in shorthand: role `i`, `s` or `a`, then its state: `w` waiting, `l` waiting
    /// until second 50, `n` waiting for a change, `b` starting, `r` running, `R` running and
    /// started, `0` ended well, `1` ended badly.
    fn container(text: &str) -> ContainerState {
        let (role, state) = text.split_at(1);
        let role = match role {
            "i" => Role::Init,
            "s" => Role::Sidecar,
            _ => Role::App,
        };
        let waiting = |retry| {
            Current::Waiting(Waiting {
                reason: Reason::Creating,
                message: String::new(),
                retry,
            })
        };
        let running = |started| {
            Current::Running(Running {
                id: String::new(),
                since: at(0),
                started,
                ready: started,
            })
        };
        let ended = |exit_code| {
            Current::Ended(Ended {
                id: String::new(),
                exit_code,
                reason: "",
                message: String::new(),
                started: at(0),
                finished: at(0),
            })
        };
        ContainerState {
            current: match state {
                "w" => waiting(Retry::Now),
                "l" => waiting(Retry::At(at(50))),
                "n" => waiting(Retry::Never),
                "b" => Current::Starting,
                "r" => running(false),
                "R" => running(true),
                "0" => ended(0),
                _ => ended(1),
            },
            ..ContainerState::new(text, role)
        }
    }

    fn planned(text: &str, policy: RestartPolicy, ending: bool, now: i64) -> Plan {
        let containers: Vec<_> = text.split_whitespace().map(container).collect();
        plan(Situation {
            containers: &containers,
            policy,
            ending,
            initialized: false,
            now: at(now),
        })
    }

    #[test]
    fn containers_start_in_their_order() {
        for (text, expected) in [
            ("aw aw", vec![0, 1]),
            ("iw iw aw", vec![0]),
            ("ib iw aw", vec![]),
            ("iR iw aw", vec![]),
            ("i0 iw aw", vec![1]),
            ("i0 i0 aw aw", vec![2, 3]),
            ("sw iw aw", vec![0]),
            ("sr iw aw", vec![]),
            ("sR iw aw", vec![1]),
            ("sR i0 sw aw", vec![2]),
            ("sR i0 sR aw", vec![3]),
            // A sidecar that failed during initialisation is started again before what follows.
            ("sw i0 aw", vec![0]),
            ("an aw", vec![1]),
            ("al aw", vec![1]),
        ] {
            let plan = planned(text, RestartPolicy::Always, false, 10);
            assert_eq!(plan.start, expected, "{text}");
            assert!(plan.stop.is_empty() && !plan.finished, "{text}");
        }
    }

    #[test]
    fn an_initialized_pod_does_not_wait_for_its_sidecars_again() {
        let containers: Vec<_> = ["sw", "i0", "aw"].map(container).into();
        let plan = plan(Situation {
            containers: &containers,
            policy: RestartPolicy::Always,
            ending: false,
            initialized: true,
            now: at(0),
        });
        assert_eq!(plan.start, [0, 2]);
    }

    #[test]
    fn delays_are_kept_and_the_earliest_wakes() {
        let plan = planned("al", RestartPolicy::Always, false, 10);
        assert_eq!((plan.start.as_slice(), plan.wake), (&[][..], Some(at(50))));
        let plan = planned("al", RestartPolicy::Always, false, 50);
        assert_eq!((plan.start.as_slice(), plan.wake), (&[0][..], None));
    }

    #[test]
    fn a_pod_ends_by_itself_and_takes_its_sidecars_along() {
        use RestartPolicy::{Always, Never, OnFailure};
        for (text, policy, stop, finished) in [
            ("a0 a1", Never, vec![], true),
            ("a0 aR", Never, vec![], false),
            ("a0 a0", OnFailure, vec![], true),
            ("i1 aw", Never, vec![], true),
            ("sR i1 aw", Never, vec![0], false),
            ("sR sR a0", Never, vec![1], false),
            ("sR s0 a0", Never, vec![0], false),
            ("s0 s0 a0", Never, vec![], true),
            ("aR", Always, vec![], false),
        ] {
            let plan = planned(text, policy, false, 0);
            assert_eq!(
                (plan.stop.clone(), plan.finished),
                (stop, finished),
                "{text}"
            );
            assert!(plan.start.is_empty() || !plan.finishing, "{text}: {plan:?}");
        }
    }

    #[test]
    fn an_ending_pod_starts_nothing_and_stops_sidecars_last() {
        for (text, stop, finished) in [
            ("aR ab aw", vec![0, 1], false),
            ("sR aR a0", vec![1], false),
            ("sR sR a0 aw", vec![1], false),
            ("sR s1 a0 aw", vec![0], false),
            ("s1 s1 a0 aw", vec![], true),
            ("iR aw", vec![0], false),
        ] {
            let plan = planned(text, RestartPolicy::Always, true, 0);
            assert_eq!((plan.stop, plan.finished), (stop, finished), "{text}");
            assert!(plan.start.is_empty() && plan.finishing, "{text}");
        }
    }
}
