//! Containers of a pod: starting them, noticing their end, deciding whether they start again.
//!
//! Everything that takes time is handed to the worker as work; the methods here take in how it
//! went.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::super::launch::{self, Inputs, Prepared};
use super::super::phase::{self, Current, Ended, Reason, Retry, Role, Running};
use super::super::probe::Answer;
use super::hooks::{Hook, run_hook};
use super::prepare::Preparation;
use super::probes::Armed;
use super::stop::Stop;
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
    pub(super) stop: Option<Stop>,
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
                let question = Hook::of(handler, spec, self.pod_ip());
                let context = self.context.clone();
                self.work.push(Box::pin(async move {
                    let answer = run_hook(&context, question, &container, &process, None).await;
                    Done::PostStarted(index, run, answer)
                }));
            }
        }
        self.publisher.touch_and_settle();
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

    /// Whether a message is about the run that is going on.
    pub(super) fn is_run(&self, index: usize, run: u64) -> bool {
        let live = self.live.get(index).and_then(Option::as_ref);
        live.is_some_and(|live| live.run == run)
    }
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
