//! Containers of a pod: starting them, noticing their end, ending them.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as ContainerSpec, LifecycleHandler};
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use super::super::launch::{self, Inputs, Prepared};
use super::super::phase::{self, Current, Ended, Reason, Retry, Role, Running};
use super::super::probe::Answer;
use super::super::probe::ask::Question;
use super::prepare::Preparation;
use super::probes::Armed;
use super::{Done, Worker, spec_of};
use crate::context::Context;
use crate::events::Severity;
use crate::process::container::{Container, StartError};
use crate::process::init::message::Process;
use crate::process::logs::{Log, LogWriter};

/// Bytes of a termination message; the kubelet's own bound.
const MAX_MESSAGE: usize = 4096;

/// How long the last lines of a log may take after a container's end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Time a container has to end when a hook has used up its grace period.
const MINIMUM_GRACE: SignedDuration = SignedDuration::from_secs(2);

/// How long to wait before a container that could not be created is tried again.
const CREATE_AGAIN: SignedDuration = SignedDuration::from_secs(5);

/// A container with a process.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) run: u64,
    pub(super) container: Arc<Container>,
    /// How further programs run inside: hooks and probes.
    pub(super) process: Arc<Process>,
    pub(super) probes: Vec<Armed>,
    /// The image it was started from.
    pub(super) image: Option<String>,
    since: Timestamp,
    id: String,
    log: Log,
    termination_log: PathBuf,
    directory: PathBuf,
    stop: Option<Stop>,
}

/// An end that has begun.
#[derive(Debug)]
struct Stop {
    deadline: Timestamp,
    /// Ends the waiting when the container has ended or must end sooner.
    over: CancellationToken,
}

/// What came of starting a container.
pub(super) struct Launched {
    outcome: Result<Container, StartError>,
    process: Arc<Process>,
    image: Option<String>,
    log: Option<(LogWriter, Log)>,
    output: Option<(OwnedFd, OwnedFd)>,
    termination_log: PathBuf,
    directory: PathBuf,
}

impl Worker {
    /// Starts a container.
    pub(super) fn start(&mut self, index: usize, now: Timestamp) {
        let run = match self.runs.get_mut(index) {
            Some(runs) => {
                *runs += 1;
                *runs
            }
            None => return,
        };
        let name = self.container_name(index);
        let directory = self
            .directory()
            .join("containers")
            .join(&name)
            .join(run.to_string());
        let pod = self.pod.clone();
        let spec = spec_of(&pod);
        let Some((_, container)) = phase::containers(spec).into_iter().nth(index) else {
            return;
        };
        let Preparation::Ready { material, .. } = &self.preparation else {
            return;
        };
        let prepared = launch::prepare(&Inputs {
            facts: self.facts(),
            spec,
            container,
            images: &self.context.images,
            isolation: &self.context.isolation,
            snapshot: &material.snapshot,
            volumes: &material.volumes,
            directory: &directory,
        });
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => {
                let retry = if refusal.is_final {
                    Retry::Never
                } else {
                    Retry::At(now.saturating_add(CREATE_AGAIN).unwrap_or(Timestamp::MAX))
                };
                let message = format!("Error: {}", refusal.message);
                self.record(Severity::Warning, "Failed", Some(index), message);
                self.wait_because(index, refusal.reason, refusal.message, retry);
                return;
            }
        };
        if !prepared.skipped_env.is_empty() {
            let message = format!(
                "Keys [{}] were skipped since they are not usable as environment variables",
                prepared.skipped_env.join(", ")
            );
            self.record(
                Severity::Warning,
                "InvalidEnvironmentVariableNames",
                Some(index),
                message,
            );
        }
        if run == 1 {
            let image = container.image.as_deref().unwrap_or_default();
            let message = format!("Container image \"{image}\" already present on machine");
            self.record(Severity::Normal, "Pulled", Some(index), message);
        }
        if let Some(state) = self.containers.get_mut(index) {
            state.current = Current::Starting;
        }
        self.publisher.touch();
        let log = self
            .directory()
            .join("logs")
            .join(&name)
            .join(format!("{run}.log"));
        let label = format!("{}/{}/{name}", self.id.namespace, self.id.name);
        let image = container.image.clone();
        let context = self.context.clone();
        self.work.push(Box::pin(async move {
            let launched = launch(&context, &label, prepared, image, directory, &log).await;
            Done::Launched(index, run, Box::new(launched))
        }));
    }

    /// A start has come to its end, one way or the other.
    pub(super) fn launched(&mut self, index: usize, run: u64, launched: Launched) {
        let now = self.context.clock.now();
        let Launched {
            outcome,
            process,
            image,
            log,
            output,
            termination_log,
            directory,
        } = launched;
        let (container, writer, log, output) = match (outcome, log, output) {
            (Ok(container), Some((writer, log)), Some(output)) => (container, writer, log, output),
            (Ok(_), ..) => return,
            (Err(error), ..) => {
                remove_later(directory);
                self.not_launched(index, &error, now);
                return;
            }
        };
        let name = self.container_name(index);
        self.record(
            Severity::Normal,
            "Created",
            Some(index),
            format!("Created container: {name}"),
        );
        self.record(
            Severity::Normal,
            "Started",
            Some(index),
            format!("Started container {name}"),
        );
        self.entry.begin_log(&name, log.clone());
        let container = Arc::new(container);
        let id = container_id();
        let pod = self.pod.clone();
        let spec = spec_of(&pod);
        let hook = phase::containers(spec)
            .into_iter()
            .nth(index)
            .and_then(|(_, spec)| Some((spec, spec.lifecycle.as_ref()?.post_start.as_ref()?)));
        if let Some(state) = self.containers.get_mut(index) {
            state.current = Current::Running(Running {
                id: id.clone(),
                since: now,
                started: false,
                ready: false,
            });
        }
        if let Some(slot) = self.live.get_mut(index) {
            *slot = Some(Live {
                run,
                container: container.clone(),
                process: process.clone(),
                probes: Vec::new(),
                image,
                since: now,
                id,
                log,
                termination_log,
                directory,
                stop: None,
            });
        }
        let exit = watch_exit(container.clone(), writer, output);
        self.work.push(Box::pin(
            async move { Done::Exited(index, run, exit.await) },
        ));
        match hook {
            None => self.hooks_done(index),
            Some((spec, handler)) => {
                let question = hook_question(handler, spec, self.pod_ip());
                let context = self.context.clone();
                self.work.push(Box::pin(async move {
                    let answer = run_hook(&context, question, &container, &process, None).await;
                    Done::PostStarted(index, run, answer)
                }));
            }
        }
        self.publisher.touch_and_settle(tokio::time::Instant::now());
    }

    fn not_launched(&mut self, index: usize, error: &StartError, now: Timestamp) {
        let message = error.to_string();
        self.record(
            Severity::Warning,
            "Failed",
            Some(index),
            format!("Error: {message}"),
        );
        let name = self.container_name(index);
        if let StartError::Exec(_) = error {
            self.conclude(
                index,
                Ended {
                    id: container_id(),
                    exit_code: 128,
                    reason: "StartError",
                    message: format!("failed to start container {name:?}: {message}"),
                    started: now,
                    finished: now,
                },
            );
        } else {
            let again = now.saturating_add(CREATE_AGAIN).unwrap_or(Timestamp::MAX);
            self.wait_because(
                index,
                Reason::CreateContainerError,
                message,
                Retry::At(again),
            );
        }
    }

    /// The post-start hook has ended; probes begin if it succeeded.
    pub(super) fn post_started(&mut self, index: usize, run: u64, answer: &Answer) {
        if !self.is_run(index, run) {
            return;
        }
        match answer {
            Answer::Success => self.hooks_done(index),
            Answer::Failure(why) => {
                let message = format!("PostStartHook failed: {why}");
                self.record(
                    Severity::Warning,
                    "FailedPostStartHook",
                    Some(index),
                    message,
                );
                let name = self.container_name(index);
                let why = format!("Container {name} failed its post-start hook");
                self.stop(index, &why, None);
            }
        }
    }

    /// A container has ended.
    pub(super) fn exited(&mut self, index: usize, run: u64, code: u8) {
        if !self.is_run(index, run) {
            return;
        }
        let Some(live) = self.live.get_mut(index).and_then(Option::take) else {
            return;
        };
        if let Some(stop) = &live.stop {
            stop.over.cancel();
        }
        let pod = self.pod.clone();
        let spec = spec_of(&pod);
        let container = phase::containers(spec).into_iter().nth(index);
        let from_log = container.is_some_and(|(_, spec)| {
            spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
        });
        let mut message = read_message(&live.termination_log);
        if message.is_empty() && code != 0 && from_log {
            message = live.log.tail();
        }
        remove_later(live.directory.clone());
        self.conclude(
            index,
            Ended {
                id: live.id.clone(),
                exit_code: code.into(),
                reason: if code == 0 { "Completed" } else { "Error" },
                message,
                started: live.since,
                finished: self.context.clock.now(),
            },
        );
    }

    /// Decides whether a container that ended is started again.
    fn conclude(&mut self, index: usize, ended: Ended) {
        let policy = self.policy;
        let ending = self.ending.is_some() || self.is_finishing(index);
        let Some(state) = self.containers.get_mut(index) else {
            return;
        };
        let restart = !ending && state.restarts_after(ended.exit_code, policy);
        state.end(ended, restart);
        let crashing = matches!(&state.current, Current::Waiting(waiting)
            if waiting.reason == Reason::CrashLoopBackOff);
        if crashing {
            let id = &self.id;
            let message = format!(
                "Back-off restarting failed container {} in pod {}_{}({})",
                state.name, id.name, id.namespace, id.uid
            );
            self.record(Severity::Warning, "BackOff", Some(index), message);
        }
        self.publisher.touch();
    }

    /// Whether a container ends because the pod has come to its end.
    fn is_finishing(&self, index: usize) -> bool {
        let sidecar = self
            .containers
            .get(index)
            .is_some_and(|c| c.role == Role::Sidecar);
        sidecar
            && self
                .containers
                .iter()
                .filter(|container| container.role == Role::App)
                .all(|container| container.final_code().is_some())
    }

    /// Ends a container: hook, signal, grace period, kill. Does nothing when that has begun.
    pub(super) fn stop(&mut self, index: usize, why: &str, grace: Option<SignedDuration>) {
        let now = self.context.clock.now();
        let grace = grace.unwrap_or_else(|| self.grace());
        let after_grace = now.saturating_add(grace).unwrap_or(Timestamp::MAX);
        let deadline = match self.ending_deadline {
            // What waited for others still gets a moment of its own.
            Some(end) if self.is_last_sidecar(index) && grace > MINIMUM_GRACE => {
                let moment = now.saturating_add(MINIMUM_GRACE).unwrap_or(end);
                end.max(moment)
            }
            Some(end) => end,
            None => after_grace,
        };
        let stopping = self.live.get(index).and_then(Option::as_ref);
        let Some(live) = stopping.filter(|live| live.stop.is_none()) else {
            return;
        };
        tracing::debug!(pod = %self.id, container = index, why, "stopping a container");
        let container = live.container.clone();
        let process = live.process.clone();
        self.record(Severity::Normal, "Killing", Some(index), why.to_owned());
        let pod = self.pod.clone();
        let spec = spec_of(&pod);
        let found = phase::containers(spec).into_iter().nth(index);
        let lifecycle = found.and_then(|(_, spec)| Some((spec, spec.lifecycle.as_ref()?)));
        let hook = lifecycle.and_then(|(spec, lifecycle)| {
            Some(hook_question(
                lifecycle.pre_stop.as_ref()?,
                spec,
                self.pod_ip(),
            ))
        });
        let signal = lifecycle
            .and_then(|(_, lifecycle)| lifecycle.stop_signal.as_deref())
            .and_then(signal_named)
            .unwrap_or(Signal::TERM);
        let order = Order {
            hook,
            signal,
            deadline,
        };
        self.order_stop(index, container, process, order);
    }

    fn order_stop(
        &mut self,
        index: usize,
        container: Arc<Container>,
        process: Arc<Process>,
        order: Order,
    ) {
        let over = CancellationToken::new();
        let context = self.context.clone();
        let token = over.clone();
        let deadline = order.deadline;
        self.work.push(Box::pin(async move {
            let stopping = carry_out_stop(&context, &container, &process, order);
            token.run_until_cancelled(stopping).await;
            Done::Stopped
        }));
        if let Some(live) = self.live.get_mut(index).and_then(Option::as_mut) {
            live.stop = Some(Stop { deadline, over });
            live.probes.clear();
        }
    }

    /// Makes ends that have begun come sooner, after the deadline has moved.
    pub(super) fn hasten(&mut self) {
        let Some(deadline) = self.ending_deadline else {
            return;
        };
        for index in 0..self.live.len() {
            let Some(live) = self.live.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            let Some(stop) = live.stop.as_ref().filter(|stop| deadline < stop.deadline) else {
                continue;
            };
            stop.over.cancel();
            let (container, process) = (live.container.clone(), live.process.clone());
            let order = Order {
                hook: None,
                signal: Signal::TERM,
                deadline,
            };
            self.order_stop(index, container, process, order);
        }
    }

    fn is_last_sidecar(&self, index: usize) -> bool {
        self.containers
            .get(index)
            .is_some_and(|c| c.role == Role::Sidecar)
    }

    /// Whether a message is about the run that is going on.
    pub(super) fn is_run(&self, index: usize, run: u64) -> bool {
        let live = self.live.get(index).and_then(Option::as_ref);
        live.is_some_and(|live| live.run == run)
    }
}

/// How a container is to be ended.
struct Order {
    hook: Option<Result<Hook, String>>,
    signal: Signal,
    deadline: Timestamp,
}

/// A lifecycle hook.
enum Hook {
    Ask(Question),
    Sleep(Duration),
}

fn hook_question(
    handler: &LifecycleHandler,
    container: &ContainerSpec,
    ip: Option<std::net::IpAddr>,
) -> Result<Hook, String> {
    if let Some(action) = &handler.exec {
        return Ok(Hook::Ask(Question::of_exec(action)));
    }
    if let Some(action) = &handler.sleep {
        return Ok(Hook::Sleep(Duration::from_secs(
            action.seconds.unsigned_abs(),
        )));
    }
    match (&handler.http_get, ip) {
        (Some(action), Some(ip)) => Question::of_http(action, container, ip).map(Hook::Ask),
        _ => Err("the hook has no action that this node knows".into()),
    }
}

async fn run_hook(
    context: &Context,
    hook: Result<Hook, String>,
    container: &Container,
    process: &Process,
    limit: Option<Duration>,
) -> Answer {
    let limit = limit.unwrap_or(Duration::MAX);
    match hook {
        Err(message) => Answer::Failure(message),
        Ok(Hook::Sleep(time)) => {
            tokio::time::sleep(time.min(limit)).await;
            Answer::Success
        }
        Ok(Hook::Ask(question)) => {
            context
                .asker
                .ask(&question, limit, container, process)
                .await
        }
    }
}

async fn carry_out_stop(context: &Context, container: &Container, process: &Process, order: Order) {
    let left = |deadline: Timestamp| {
        let left = deadline.duration_since(context.clock.now());
        left.max(SignedDuration::ZERO)
    };
    let mut deadline = order.deadline;
    let mut grace = left(deadline);
    if let Some(hook) = order.hook.filter(|_| !grace.is_zero()) {
        let limit = Some(grace.unsigned_abs());
        let answer = run_hook(context, hook, container, process, limit).await;
        if let Answer::Failure(why) = answer {
            tracing::debug!(why, "a pre-stop hook failed");
        }
        // A hook that took all the time leaves the program a moment to notice the signal.
        let now = context.clock.now();
        deadline = deadline.max(now.saturating_add(MINIMUM_GRACE).unwrap_or(deadline));
        grace = left(deadline);
    }
    if !grace.is_zero() {
        container.signal(order.signal);
        tokio::time::sleep(grace.unsigned_abs()).await;
    }
    container.kill();
}

/// Prepares files and pipes and starts the process.
async fn launch(
    context: &Context,
    label: &str,
    prepared: Prepared,
    image: Option<String>,
    directory: PathBuf,
    log: &Path,
) -> Launched {
    let Prepared {
        launch,
        termination_log,
        ..
    } = prepared;
    let process = Arc::new(launch.process.clone());
    let mut launched = Launched {
        outcome: Err(StartError::Setup("not started".into())),
        process,
        image,
        log: None,
        output: None,
        termination_log,
        directory,
    };
    let files = || -> io::Result<_> {
        fs::create_dir_all(&launch.root.directory)?;
        fs::write(&launched.termination_log, "")?;
        fs::set_permissions(&launched.termination_log, Permissions::from_mode(0o666))?;
        let log = LogWriter::create(log, context.clock.clone())?;
        Ok((log, io::pipe()?, io::pipe()?))
    };
    match files() {
        Err(error) => launched.outcome = Err(StartError::Files(error)),
        Ok((log, (stdout, stdout_end), (stderr, stderr_end))) => {
            launched.log = Some(log);
            launched.output = Some((stdout.into(), stderr.into()));
            let ends = (stdout_end.into(), stderr_end.into());
            launched.outcome = context
                .spawner
                .launch(label, &launch, ends.0, ends.1, &context.records)
                .await;
        }
    }
    launched
}

/// Waits for the end of a container while keeping its log; the log is complete when this returns,
/// unless something outside the container holds its pipes.
async fn watch_exit(
    container: Arc<Container>,
    writer: LogWriter,
    (stdout, stderr): (OwnedFd, OwnedFd),
) -> u8 {
    let mut collecting = pin!(writer.collect(stdout, stderr));
    let mut exit = pin!(container.wait());
    let mut collected = false;
    loop {
        tokio::select! {
            () = &mut collecting, if !collected => collected = true,
            code = &mut exit => {
                if !collected {
                    tokio::time::timeout(LAST_LINES, collecting).await.ok();
                }
                return code;
            }
        }
    }
}

/// The message a container left; bounded, and lossless where it is text.
fn read_message(path: &Path) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    // The file may have been replaced by anything: never follow, never block.
    let flags = rustix::fs::OFlags::RDONLY
        | rustix::fs::OFlags::NOFOLLOW
        | rustix::fs::OFlags::NONBLOCK
        | rustix::fs::OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, rustix::fs::Mode::empty());
    let read = opened.map_err(io::Error::from).and_then(|fd| {
        let limit = MAX_MESSAGE as u64;
        fs::File::from(fd).take(limit).read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => {
            tracing::debug!(%error, "reading a termination message failed");
            String::new()
        }
    }
}

/// Removes the files of a run without making anybody wait.
fn remove_later(directory: PathBuf) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = crate::state_dir::remove_tree(&directory) {
            tracing::warn!(path = %directory.display(), %error, "removing a container failed");
        }
    });
}

/// An id that looks like those of container runtimes.
pub(super) fn container_id() -> String {
    let words: Vec<String> = (0..4)
        .map(|_| format!("{:016x}", fastrand::u64(..)))
        .collect();
    words.concat()
}

/// A signal by its name in the API.
fn signal_named(name: &str) -> Option<Signal> {
    Some(match name {
        "SIGHUP" => Signal::HUP,
        "SIGINT" => Signal::INT,
        "SIGQUIT" => Signal::QUIT,
        "SIGUSR1" => Signal::USR1,
        "SIGUSR2" => Signal::USR2,
        "SIGTERM" => Signal::TERM,
        "SIGKILL" => Signal::KILL,
        "SIGWINCH" => Signal::WINCH,
        "SIGABRT" => Signal::ABORT,
        "SIGALRM" => Signal::ALARM,
        "SIGCONT" => Signal::CONT,
        _ => return None,
    })
}
