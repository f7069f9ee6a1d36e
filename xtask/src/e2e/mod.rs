//! `cargo xtask e2e`: the suites, unchanged, against a Kubernetes cluster that is already there. The
//! platform's programs run on this machine, outside the cluster. Whatever happens, they are ended and
//! what was created in the cluster is deleted; a cluster that has our kinds already is left alone.

mod cluster;
mod image;
mod platform;
mod rust;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use signal_hook::consts::{SIGINT, SIGTERM};

use self::cluster::Cluster;
use crate::suites::Count;
use crate::{cargo, report, suites};

/// What to run, and against what.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The suites, all when none is named
    #[arg(value_enum)]
    suites: Vec<Suite>,
    /// The cluster's kubeconfig
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<OsString>,
    /// Program that stops and starts the cluster's parts, for the suite `faults`: it is called as
    /// `FILE kill|pause|resume kube-apiserver`, and as `FILE up` to start what was killed
    #[arg(long, env = "AGENT_SANDBOX_TEST_CLUSTER_CONTROL", value_name = "FILE")]
    cluster_control: Option<PathBuf>,
    /// Handler of the nodes' container runtime that a sandbox's runtime class may name
    #[arg(
        long,
        env = "AGENT_SANDBOX_TEST_RUNTIME_HANDLER",
        default_value = "runc",
        value_name = "NAME"
    )]
    runtime_handler: String,
}

/// A suite, in the order they run.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Suite {
    /// The API server behaves as the embedded one does
    Conformance,
    /// The platform's behaviour, as in one process
    E2e,
    /// What only real nodes show: isolation, volumes, runtime classes, autoscaling
    Nodes,
    /// Bursts of claims while the operator and the API server are killed and paused
    Faults,
    /// The unmodified Python SDK
    Sdk,
    /// The unmodified Python SDK of the older API version
    OldSdk,
    /// What of the SDK needs a real cluster: its tunnel through the API server, and the images with Python
    SdkCluster,
}

/// Runs the suites, all of them even after a failure; fails if any test did, or if something could
/// not be removed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Args {
        suites,
        kubeconfig,
        cluster_control,
        runtime_handler,
    } = args;
    let kubeconfig = kubeconfig
        .clone()
        .filter(|value| !value.is_empty())
        .context("no cluster is named: set KUBECONFIG, or give --kubeconfig FILE")?;
    let cluster = Cluster {
        kubeconfig: absolute(&kubeconfig)?,
    };
    cluster.check()?;
    let has_namespace = cluster.has_system_namespace()?;
    let interrupted = interruptions()?;

    report::step("building the programs");
    cargo::run(&["build", "--workspace", "--bins"])?;
    let target = cargo::target_directory()?;
    let run = Run {
        cluster: &cluster,
        control: cluster_control
            .as_deref()
            .map(std::path::absolute)
            .transpose()?,
        runtime_handler,
        programs: target.join("debug"),
        logs: target.join("xtask").join("e2e"),
        interrupted,
    };
    let suites = if suites.is_empty() {
        Suite::value_variants()
    } else {
        suites
    };
    let outcome = run.suites(suites);
    let removed = cluster.remove_objects();
    let removed = removed.and_then(|()| cluster.remove_kinds());
    let removed = removed.and_then(|()| {
        if has_namespace {
            return Ok(());
        }
        cluster.remove_system_namespace()
    });
    match (outcome, removed) {
        (Err(error), Err(second)) => {
            report::failure(&second);
            Err(error)
        }
        (outcome, removed) => outcome.and(removed),
    }
}

/// Everything one run needs.
struct Run<'a> {
    cluster: &'a Cluster,
    control: Option<PathBuf>,
    runtime_handler: &'a str,
    programs: PathBuf,
    logs: PathBuf,
    interrupted: Arc<AtomicBool>,
}

impl Run<'_> {
    /// From the kinds to the total count.
    fn suites(&self, suites: &[Suite]) -> Result<()> {
        report::step("kinds");
        self.cluster.apply_kinds()?;
        // Asked again after a failure: `kubectl wait` gives up on a kind so new that it has no
        // conditions at all.
        self.until("the kinds to be established", || {
            Ok(self.cluster.has_kinds())
        })?;
        std::fs::create_dir_all(&self.logs)
            .with_context(|| format!("cannot create {}", self.logs.display()))?;
        if suites.iter().any(|suite| *suite != Suite::Conformance) {
            self.try_image()?;
        }
        let mut total = Count::default();
        let mut broken = Vec::new();
        for suite in suites {
            let name = suite.name();
            report::step(&format!("suite {name}"));
            match self.suite(*suite) {
                Ok((count, sound)) => {
                    report::line(&format!("suite {name}: {count}"));
                    if !sound || !count.is_success() {
                        broken.push(name);
                    }
                    total.add(count);
                }
                Err(error) => {
                    report::failure(&error.context(format!("suite {name}")));
                    broken.push(name);
                }
            }
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
        }
        report::line(&total.to_string());
        if !broken.is_empty() {
            report::line(&format!(
                "the programs' logs are in {}",
                self.logs.display()
            ));
            bail!("failed: {}", broken.join(", "));
        }
        Ok(())
    }

    fn suite(&self, suite: Suite) -> Result<(Count, bool)> {
        match suite {
            Suite::Conformance => self.conformance(),
            Suite::E2e => self.e2e(),
            Suite::Nodes => self.nodes(),
            Suite::Faults => self.faults(),
            Suite::Sdk => self.sdk(&suites::SDK),
            Suite::OldSdk => self.sdk(&suites::OLD_SDK),
            Suite::SdkCluster => self.sdk(&suites::SDK_CLUSTER),
        }
    }

    fn watch(&self, command: &mut Command) -> Result<(Count, bool)> {
        suites::watch_unless(command, &self.interrupted)
    }

    fn until(&self, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        for _ in 0..ATTEMPTS {
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if done()? {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        bail!("waited in vain for {what}")
    }
}

impl Suite {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// The same files, wherever a program starts that reads them.
fn absolute(kubeconfig: &OsStr) -> Result<OsString> {
    let paths: Vec<PathBuf> = std::env::split_paths(kubeconfig)
        .filter(|path| !path.as_os_str().is_empty())
        .map(std::path::absolute)
        .collect::<std::io::Result<_>>()
        .context("the current directory is gone")?;
    Ok(std::env::join_paths(paths)?)
}

/// Becomes true at the first SIGINT or SIGTERM; a second one ends the process at once.
fn interruptions() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&interrupted))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted)))
            .context("cannot listen for signals")?;
    }
    Ok(interrupted)
}

/// Three minutes in all.
const ATTEMPTS: u32 = 600;
const PAUSE: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_a_kubeconfig_becomes_absolute() {
        let all = absolute(OsStr::new("one:/two/config:")).unwrap();
        let all = all.to_str().unwrap();
        assert!(
            all.starts_with('/') && all.ends_with("/one:/two/config"),
            "{all}"
        );
    }

    #[test]
    fn a_cluster_must_be_named() {
        for kubeconfig in [None, Some(OsString::new())] {
            let args = Args {
                suites: Vec::new(),
                kubeconfig,
                cluster_control: None,
                runtime_handler: "runc".to_owned(),
            };
            let error = run(&args).unwrap_err().to_string();
            assert!(error.contains("KUBECONFIG"), "{error}");
        }
    }
}
