//! `cargo xtask e2e`: the SDK suite, unchanged, against a Kubernetes cluster that is already there.
//! The operator and the router run as children of this command, outside the cluster. Whatever
//! happens, the children are ended and what was created in the cluster is deleted; a cluster that has
//! our kinds already is left alone.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::children::Child;
use crate::{cargo, python, report, suites};

/// What to run against.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The cluster's kubeconfig
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<OsString>,
}

/// Runs the suite and fails if any test did, or if something could not be removed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { kubeconfig } = args;
    let kubeconfig = kubeconfig
        .clone()
        .filter(|value| !value.is_empty())
        .context("no cluster is named: set KUBECONFIG, or give --kubeconfig FILE")?;
    let cluster = Cluster {
        kubeconfig: absolute(&kubeconfig)?,
    };
    cluster.check()?;
    let interrupted = interruptions()?;

    report::step("building the operator and the router");
    cargo::run(&[
        "build",
        "--package",
        "agent-sandbox-controller",
        "--package",
        "agent-sandbox-router",
        "--bins",
    ])?;
    let python = python::environment(suites::PYTHON_PACKAGES)?;
    let target = cargo::target_directory()?;
    let run = Run {
        cluster: &cluster,
        programs: target.join("debug"),
        logs: target.join("xtask").join("e2e"),
        python,
        interrupted,
    };
    let mut children = Vec::new();
    let outcome = run.suite(&mut children);
    if outcome.is_err() {
        report::line(&format!("the programs' logs are in {}", run.logs.display()));
    }
    // The operator still runs: it helps to take its objects apart.
    let removed = cluster.remove_objects();
    drop(children);
    let removed = removed.and_then(|()| cluster.remove_kinds());
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
    programs: PathBuf,
    logs: PathBuf,
    python: PathBuf,
    interrupted: Arc<AtomicBool>,
}

impl Run<'_> {
    /// From the kinds to the suite's count. Leaves the children it started to the caller.
    fn suite(&self, children: &mut Vec<Child>) -> Result<()> {
        report::step("kinds");
        self.cluster
            .kubectl(&["apply", "--server-side", "--filename", KINDS])?;
        // Once more after a failure: `kubectl wait` gives up on a kind so new that it has no
        // conditions at all.
        self.until("the kinds to be established", || {
            let condition = "--for=condition=Established";
            let waited =
                self.cluster
                    .kubectl(&["wait", condition, "--timeout=10s", "--filename", KINDS]);
            Ok(waited.is_ok())
        })?;
        // The operator comes after the objects on purpose: it must find what was there before it.
        self.cluster.kubectl(&["apply", "--filename", PLATFORM])?;

        report::step("operator and router");
        std::fs::create_dir_all(&self.logs)
            .with_context(|| format!("cannot create {}", self.logs.display()))?;
        let [operator_health, router_health, router] = free_ports()?;
        let health = format!("--health-probe-bind-address=127.0.0.1:{operator_health}");
        children.push(self.start(
            "agent-sandbox-controller",
            &[
                "--extensions",
                "--leader-elect=false",
                "--metrics-bind-address=0",
                &health,
            ],
        )?);
        let http = format!("--http-bind-address=127.0.0.1:{router}");
        let health = format!("--health-probe-bind-address=127.0.0.1:{router_health}");
        children.push(self.start(
            "agent-sandbox-router",
            &[
                "--authz-mode=allow-all",
                "--metrics-bind-address=",
                "--shutdown-delay=0s",
                &http,
                &health,
            ],
        )?);
        for (child, port) in children.iter_mut().zip([operator_health, router_health]) {
            self.until(&format!("{} to become ready", child.name()), || {
                child.check()?;
                Ok(crate::children::answers_ready(port))
            })?;
        }

        report::step("warm pool");
        self.until("the pool `warm` to fill", || self.pool_is_full())?;

        report::step("suite sdk");
        let mut command = Command::new(&self.python);
        suites::pytest(&mut command, "tests/sdk")?
            .env("KUBECONFIG", &self.cluster.kubeconfig)
            .env("SANDBOX_ROUTER_URL", format!("http://127.0.0.1:{router}"));
        let (count, sound) = suites::watch_unless(&mut command, &self.interrupted)?;
        report::line(&format!("suite sdk: {count}"));
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        if !sound || !count.is_success() {
            bail!("failed: sdk");
        }
        for child in children {
            child.check()?;
        }
        Ok(())
    }

    fn start(&self, name: &'static str, arguments: &[&str]) -> Result<Child> {
        let mut command = Command::new(self.programs.join(name));
        command
            .args(arguments)
            .env("KUBECONFIG", &self.cluster.kubeconfig);
        Child::start(name, command, &self.logs.join(format!("{name}.log")))
    }

    /// Whether every member of the pool is ready. An image that no node has ends the wait.
    fn pool_is_full(&self) -> Result<bool> {
        let pods = self
            .cluster
            .json(&["pods", "--selector", OURS, "--namespace", NAMESPACE])?;
        if let Some(trouble) = image_trouble(&pods) {
            bail!(
                "{trouble}: the nodes do not have the image that {PLATFORM} names; load it into \
                 their image store first, such as with `ctr --namespace k8s.io images import`, \
                 `kind load` or `minikube image load`"
            );
        }
        let pool = self
            .cluster
            .json(&["sandboxwarmpool", "warm", "--namespace", NAMESPACE])?;
        let wanted = pool.pointer("/spec/replicas").and_then(Value::as_u64);
        let ready = pool
            .pointer("/status/readyReplicas")
            .and_then(Value::as_u64);
        Ok(wanted.is_some() && ready == wanted)
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

/// The cluster, through `kubectl`.
struct Cluster {
    kubeconfig: OsString,
}

impl Cluster {
    /// That it answers and is free for us.
    fn check(&self) -> Result<()> {
        self.kubectl(&["get", "--raw", "/readyz"]).context(
            "the cluster that KUBECONFIG names is not ready; check it with `kubectl get nodes`",
        )?;
        let kinds = self.kubectl(&[
            "get",
            "--ignore-not-found",
            "--output=name",
            "--filename",
            KINDS,
        ])?;
        if !kinds.is_empty() {
            bail!(
                "the cluster has our kinds already, and this command deletes every object of them \
                 in the end; use another cluster, or remove them and all their objects with \
                 `kubectl delete --filename {KINDS}`"
            );
        }
        Ok(())
    }

    /// Deletes what the suite left, and waits until the cluster has collected what it owned.
    fn remove_objects(&self) -> Result<()> {
        report::step("removing what was created");
        let installed = self.kubectl(&["api-resources", "--output=name"])?;
        // Claims first, so that nothing is claimed again; pools before sandboxes, so that nothing is
        // refilled.
        for kind in REMOVAL_ORDER {
            if installed.lines().any(|name| name == kind) {
                self.kubectl(&["delete", kind, "--all", "--namespace", NAMESPACE, TIMEOUT])?;
            }
        }
        // An owner whose kind is gone is not collected, so this comes before the kinds.
        self.kubectl(&[
            "wait",
            "--for=delete",
            "pods,services,networkpolicies",
            "--selector",
            OURS,
            "--namespace",
            NAMESPACE,
            TIMEOUT,
        ])?;
        Ok(())
    }

    fn remove_kinds(&self) -> Result<()> {
        self.kubectl(&["delete", "--ignore-not-found", "--filename", KINDS, TIMEOUT])?;
        Ok(())
    }

    fn json(&self, what: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "--output=json"], what].concat())?;
        serde_json::from_str(&text).context("`kubectl get` did not print JSON")
    }

    /// Runs `kubectl` and returns what it printed; its complaint is the error.
    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("kubectl")
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .current_dir(cargo::root()?)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound => anyhow!(
                    "kubectl is not on the PATH; install it from https://kubernetes.io/docs/tasks/tools/"
                ),
                _ => anyhow!(error).context("kubectl does not start"),
            })?;
        if !output.status.success() {
            bail!(
                "`kubectl {}` failed: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
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

/// Ports nobody listens on. All are held until all are known, so that they differ.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let listeners: Vec<TcpListener> = (0..N)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<std::io::Result<_>>()
        .context("no port is free")?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// The first container among these pods whose image cannot be had, and why.
fn image_trouble(pods: &Value) -> Option<String> {
    let texts = |value: &Value, path: &str| {
        let text = value.pointer(path).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let pods = pods.pointer("/items")?.as_array()?;
    pods.iter().find_map(|pod| {
        let containers = pod.pointer("/status/containerStatuses")?.as_array()?;
        containers.iter().find_map(|container| {
            let reason = texts(container, "/state/waiting/reason");
            IMAGE_TROUBLES.contains(&reason.as_str()).then(|| {
                format!(
                    "pod {} waits with {reason} for {}",
                    texts(pod, "/metadata/name"),
                    texts(container, "/image"),
                )
            })
        })
    })
}

const KINDS: &str = "charts/agent-sandbox/crds";
const PLATFORM: &str = "tests/sdk/platform.yaml";
const NAMESPACE: &str = "default";
/// What the operator labels everything with that it makes for a sandbox.
const OURS: &str = "agents.x-k8s.io/sandbox-name-hash";
const REMOVAL_ORDER: [&str; 4] = [
    "sandboxclaims.extensions.agents.x-k8s.io",
    "sandboxwarmpools.extensions.agents.x-k8s.io",
    "sandboxtemplates.extensions.agents.x-k8s.io",
    "sandboxes.agents.x-k8s.io",
];
const IMAGE_TROUBLES: [&str; 4] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
];
/// How long `kubectl` may wait for a deletion.
const TIMEOUT: &str = "--timeout=180s";
/// Three minutes in all.
const ATTEMPTS: u32 = 600;
const PAUSE: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_image_nobody_has_is_told_from_a_slow_start() {
        let pods = |reason: &str| {
            json!({"items": [
                {"metadata": {"name": "new"}, "status": {}},
                {"metadata": {"name": "a"}, "status": {"containerStatuses": [
                    {"image": "some:1", "state": {"waiting": {"reason": reason}}},
                ]}},
            ]})
        };
        assert_eq!(image_trouble(&pods("ContainerCreating")), None);
        let trouble = image_trouble(&pods("ImagePullBackOff")).unwrap();
        assert_eq!(trouble, "pod a waits with ImagePullBackOff for some:1");
        assert_eq!(image_trouble(&json!({"items": []})), None);
    }

    #[test]
    fn ports_differ_and_are_free() {
        // Any other program may take a port between the two looks, but not every time.
        let free = (0..20).any(|_| {
            let [one, two, three] = free_ports().unwrap();
            assert!(one != two && two != three && one != three);
            TcpListener::bind(("127.0.0.1", one)).is_ok()
        });
        assert!(free);
    }

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
            let error = run(&Args { kubeconfig }).unwrap_err().to_string();
            assert!(error.contains("KUBECONFIG"), "{error}");
        }
    }
}
