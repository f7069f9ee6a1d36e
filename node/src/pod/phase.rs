//! Where a pod and its containers are in their lives, and which phase that adds up to.
//!
//! Pure data and rules; the worker moves containers from state to state, `plan` says which move is
//! next, `status` shows the result.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::restart::{Backoff, RestartPolicy};

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before anything after it starts.
    Init,
    /// An init container that keeps running (`restartPolicy: Always`).
    Sidecar,
    /// What the pod is for.
    App,
}

/// The state of one container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Current {
    /// Not running, and why.
    Waiting(Waiting),
    /// Being started; shown as waiting.
    Starting,
    Running(Running),
    /// Ended for good.
    Ended(Ended),
}

/// Why a container does not run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) retry: Retry,
}

/// When a waiting container may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// As soon as its turn comes.
    Now,
    /// Not before this time.
    At(Timestamp),
    /// Not before the pod is changed.
    Never,
}

/// Reasons as the kubelet and container runtimes name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its turn has not come; shown as `PodInitializing` or `ContainerCreating`.
    Creating,
    CrashLoopBackOff,
    CreateContainerConfigError,
    CreateContainerError,
    ErrImagePull,
    InvalidImageName,
}

impl Reason {
    /// The reason in a status; `None` where it depends on the rest of the pod.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Creating => None,
            Self::CrashLoopBackOff => Some("CrashLoopBackOff"),
            Self::CreateContainerConfigError => Some("CreateContainerConfigError"),
            Self::CreateContainerError => Some("CreateContainerError"),
            Self::ErrImagePull => Some("ErrImagePull"),
            Self::InvalidImageName => Some("InvalidImageName"),
        }
    }
}

/// A running container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Running {
    pub(crate) id: String,
    pub(crate) since: Timestamp,
    /// Its post-start hook and startup probe, if any, have succeeded.
    pub(crate) started: bool,
    pub(crate) ready: bool,
}

/// A container that has ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ended {
    pub(crate) id: String,
    pub(crate) exit_code: i32,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) started: Timestamp,
    pub(crate) finished: Timestamp,
}

/// One container with its history.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContainerState {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) current: Current,
    pub(crate) last: Option<Ended>,
    pub(crate) restarts: u32,
    pub(crate) backoff: Backoff,
}

impl ContainerState {
    /// A container that has never run.
    pub(crate) fn new(name: &str, role: Role) -> Self {
        Self {
            name: name.to_owned(),
            role,
            current: Current::Waiting(Waiting {
                reason: Reason::Creating,
                message: String::new(),
                retry: Retry::Now,
            }),
            last: None,
            restarts: 0,
            backoff: Backoff::default(),
        }
    }

    /// Whether a process of it exists or is coming.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.current, Current::Starting | Current::Running(_))
    }

    /// The running state, if it runs.
    pub(crate) fn running(&self) -> Option<&Running> {
        match &self.current {
            Current::Running(running) => Some(running),
            _ => None,
        }
    }

    /// Whether it runs and has started.
    pub(crate) fn is_started(&self) -> bool {
        self.running().is_some_and(|running| running.started)
    }

    /// Whether it runs and is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.running().is_some_and(|running| running.ready)
    }

    /// The status with which it ended for good.
    pub(crate) fn final_code(&self) -> Option<i32> {
        match &self.current {
            Current::Ended(ended) => Some(ended.exit_code),
            _ => None,
        }
    }

    /// Whether it is started again after ending with `exit_code`, by its own rules.
    pub(crate) fn restarts_after(&self, exit_code: i32, policy: RestartPolicy) -> bool {
        match self.role {
            Role::Sidecar => true,
            Role::App => policy.restarts(exit_code),
            Role::Init => exit_code != 0 && policy != RestartPolicy::Never,
        }
    }

    /// The container ended. `restart` says whether another run follows.
    pub(crate) fn end(&mut self, ended: Ended, restart: bool) {
        if !restart {
            self.current = Current::Ended(ended);
            return;
        }
        let earliest = self.backoff.after_end(ended.started, ended.finished);
        let waits = earliest > ended.finished;
        let delay = Backoff::describe(earliest, ended.finished);
        self.current = Current::Waiting(Waiting {
            reason: if waits {
                Reason::CrashLoopBackOff
            } else {
                Reason::Creating
            },
            message: if waits {
                format!("back-off {delay} restarting failed container={}", self.name)
            } else {
                String::new()
            },
            retry: if waits {
                Retry::At(earliest)
            } else {
                Retry::Now
            },
        });
        self.last = Some(ended);
        self.restarts = self.restarts.saturating_add(1);
    }
}

/// Every container of a pod with its role: init containers and sidecars in their order, then the
/// others.
pub(crate) fn containers(spec: &PodSpec) -> Vec<(Role, &Container)> {
    let init = spec.init_containers.iter().flatten().map(|container| {
        let role = match container.restart_policy.as_deref() {
            Some("Always") => Role::Sidecar,
            _ => Role::Init,
        };
        (role, container)
    });
    let apps = spec
        .containers
        .iter()
        .map(|container| (Role::App, container));
    init.chain(apps).collect()
}

/// The phase of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PodPhase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl PodPhase {
    /// The phase in a status.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// Whether nothing follows.
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// The phase that the states of all containers add up to, by the rules of
/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase>.
pub(crate) fn phase(containers: &[ContainerState], policy: RestartPolicy) -> PodPhase {
    let phase = outcome(containers, policy);
    // Nothing has come to its end while sidecars are still being stopped.
    let alive = containers.iter().any(ContainerState::is_alive);
    if phase.is_terminal() && alive {
        return PodPhase::Running;
    }
    phase
}

fn outcome(containers: &[ContainerState], policy: RestartPolicy) -> PodPhase {
    let init = containers
        .iter()
        .filter(|container| container.role == Role::Init);
    for container in init {
        match container.final_code() {
            Some(0) => {}
            Some(_) if policy == RestartPolicy::Never => return PodPhase::Failed,
            _ => return PodPhase::Pending,
        }
    }
    let apps = || {
        containers
            .iter()
            .filter(|container| container.role == Role::App)
    };
    // A container between two runs counts as running: the pod has been up.
    let waiting = apps().any(|container| match &container.current {
        Current::Waiting(_) | Current::Starting => container.last.is_none(),
        _ => false,
    });
    if waiting {
        return PodPhase::Pending;
    }
    let codes: Option<Vec<i32>> = apps().map(ContainerState::final_code).collect();
    match codes {
        None => PodPhase::Running,
        Some(codes) if codes.iter().all(|code| *code == 0) => PodPhase::Succeeded,
        Some(_) => PodPhase::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ended(exit_code: i32) -> Ended {
        Ended {
            id: "x".into(),
            exit_code,
            reason: "Completed",
            message: String::new(),
            started: at(0),
            finished: at(1),
        }
    }

    fn container(role: Role, current: Current) -> ContainerState {
        ContainerState {
            current,
            ..ContainerState::new("c", role)
        }
    }

    fn running() -> Current {
        Current::Running(Running {
            id: "x".into(),
            since: at(0),
            started: true,
            ready: true,
        })
    }

    fn waiting() -> Current {
        ContainerState::new("c", Role::App).current
    }

    #[test]
    fn the_phase_follows_from_the_containers() {
        use PodPhase::{Failed, Pending, Running, Succeeded};
        use RestartPolicy::{Always, Never};
        let done = |code| Current::Ended(ended(code));
        let crashing = ContainerState {
            last: Some(ended(1)),
            ..container(Role::App, waiting())
        };
        let app = |current| container(Role::App, current);
        let init = |current| container(Role::Init, current);
        let sidecar = |current| container(Role::Sidecar, current);
        for (containers, policy, expected) in [
            (vec![app(waiting())], Always, Pending),
            (vec![app(Current::Starting)], Always, Pending),
            (vec![app(running())], Always, Running),
            (vec![app(running()), app(waiting())], Always, Pending),
            (vec![app(running()), app(done(1))], Never, Running),
            (vec![crashing.clone()], Always, Running),
            (vec![crashing, app(waiting())], Always, Pending),
            (vec![app(done(0)), app(done(0))], Never, Succeeded),
            (vec![app(done(0)), app(done(2))], Never, Failed),
            (vec![init(running()), app(waiting())], Always, Pending),
            (vec![init(done(0)), app(running())], Always, Running),
            (vec![init(done(1)), app(waiting())], Never, Failed),
            (vec![init(done(1)), app(waiting())], Always, Pending),
            (vec![sidecar(running()), app(waiting())], Always, Pending),
            (vec![sidecar(running()), app(done(0))], Never, Running),
            (vec![sidecar(done(137)), app(done(0))], Never, Succeeded),
        ] {
            assert_eq!(phase(&containers, policy), expected, "{containers:?}");
        }
    }

    #[test]
    fn each_role_restarts_by_its_own_rules() {
        use RestartPolicy::{Always, Never, OnFailure};
        for (role, policy, success, failure) in [
            (Role::App, Always, true, true),
            (Role::App, OnFailure, false, true),
            (Role::App, Never, false, false),
            (Role::Init, Always, false, true),
            (Role::Init, OnFailure, false, true),
            (Role::Init, Never, false, false),
            (Role::Sidecar, Never, true, true),
        ] {
            let container = container(role, running());
            assert_eq!(
                container.restarts_after(0, policy),
                success,
                "{role:?} {policy:?}"
            );
            assert_eq!(
                container.restarts_after(1, policy),
                failure,
                "{role:?} {policy:?}"
            );
        }
    }

    #[test]
    fn a_crashing_container_waits_longer_each_time() {
        let mut container = container(Role::App, running());
        container.end(ended(1), true);
        assert!(
            matches!(&container.current, Current::Waiting(w) if w.retry == Retry::Now),
            "the first restart is free"
        );
        container.end(ended(1), true);
        let Current::Waiting(waiting) = &container.current else {
            panic!("{container:?}")
        };
        assert_eq!(waiting.reason.name(), Some("CrashLoopBackOff"));
        assert_eq!(
            waiting.message,
            "back-off 10s restarting failed container=c"
        );
        assert_eq!(waiting.retry, Retry::At(at(11)));
        assert_eq!(
            (container.restarts, container.last.clone()),
            (2, Some(ended(1)))
        );
        container.end(ended(0), false);
        assert_eq!((container.final_code(), container.restarts), (Some(0), 2));
    }
}
