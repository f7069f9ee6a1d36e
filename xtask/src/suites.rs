//! `cargo xtask test`: every suite by name, its output as it comes, and one count at the end.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;

use crate::{cargo, children, demo, python, report};

/// Which suites to run.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The suites; when none is named, all but `scale`
    #[arg(value_enum)]
    suites: Vec<Suite>,
}

/// A suite, in the order they run: the quick and narrow first.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Suite {
    /// Unit and property tests beside the code
    Unit,
    /// Examples in the documentation comments
    Doc,
    /// The operator in a cluster where everything goes wrong, ten thousand times
    Simulation,
    /// The embedded API server behaves like a real one
    Conformance,
    /// The platform in one process
    E2e,
    /// `agent-sandbox` and `kubectl` as their user runs them
    Cli,
    /// The unmodified Python SDK against `agent-sandbox up`
    Sdk,
    /// The unmodified Python SDK of the older API version against `agent-sandbox up`
    OldSdk,
    /// The stock gRPC client of Python against its stock server and the runtime, through the router
    Grpc,
    /// The router under load: ten thousand tunnels, bodies of a gibibyte, pods replaced under mixed load;
    /// the runtime at its edges: a thousand commands, ten gibibytes of output, a fork bomb
    Load,
    /// Ten thousand idle sandboxes: memory and restart of the controller, in minutes; only when named
    Scale,
}

/// A suite of the Python SDK.
pub(crate) struct PythonSuite {
    /// The name of its virtual environment.
    pub(crate) environment: &'static str,
    /// What the environment holds.
    pub(crate) requirements: &'static str,
    /// The tests.
    pub(crate) directory: &'static str,
    /// The objects they work on.
    pub(crate) objects: &'static str,
}

/// The suite of today's SDK.
pub(crate) const SDK: PythonSuite = PythonSuite {
    environment: python::USUAL,
    requirements: PYTHON_PACKAGES,
    directory: "tests/sdk",
    objects: "tests/sdk/platform.yaml",
};
/// What of today's SDK works only against a cluster with real nodes.
pub(crate) const SDK_CLUSTER: PythonSuite = PythonSuite {
    environment: python::USUAL,
    requirements: PYTHON_PACKAGES,
    directory: "tests/sdk_cluster",
    objects: "tests/sdk_cluster/platform.yaml",
};
/// The suite of the SDK that speaks `v1alpha1`, which cannot be installed beside today's.
pub(crate) const OLD_SDK: PythonSuite = PythonSuite {
    environment: "venv-old-sdk",
    requirements: "tests/old_sdk/requirements.txt",
    directory: "tests/old_sdk",
    objects: "tests/old_sdk/platform.yaml",
};

/// What a suite's output said.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Count {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Runs the suites, all of them even after a failure, and fails if any test did.
pub(crate) fn run(args: &Args) -> Result<()> {
    let suites: Vec<Suite> = if args.suites.is_empty() {
        let all = Suite::value_variants().iter().copied();
        all.filter(|suite| *suite != Suite::Scale).collect()
    } else {
        args.suites.clone()
    };
    let mut total = Count::default();
    let mut broken = Vec::new();
    for suite in suites {
        let name = suite.name();
        report::step(&format!("suite {name}"));
        let (count, sound) = suite.run().with_context(|| format!("suite {name}"))?;
        report::line(&format!("suite {name}: {count}"));
        if !sound || !count.is_success() {
            broken.push(name);
        }
        total.add(count);
    }
    report::line(&total.to_string());
    if !broken.is_empty() {
        bail!("failed: {}", broken.join(", "));
    }
    Ok(())
}

impl Suite {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The count and whether the runner itself was content.
    fn run(self) -> Result<(Count, bool)> {
        match self {
            Self::Unit => watch(&mut cargo::cargo(&[
                "test",
                "--workspace",
                "--exclude",
                TESTS,
                "--no-fail-fast",
                "--lib",
                "--bins",
                "--tests",
            ])?),
            Self::Doc => watch(&mut cargo::cargo(&[
                "test",
                "--workspace",
                "--doc",
                "--no-fail-fast",
            ])?),
            Self::Simulation => {
                // Optimised, because a seed costs ten times as much otherwise.
                let mut command = cargo::cargo(&[
                    "test",
                    "--profile",
                    "quick",
                    "--package",
                    CONTROLLER,
                    "--test",
                    "simulation",
                    "--",
                    // Each test keeps all cores busy, and tells how far it is.
                    "--test-threads=1",
                    "--nocapture",
                ])?;
                command
                    .env("SIM_SEEDS", SEEDS)
                    .env("SIM_WORKLOADS", WORKLOADS);
                watch(&mut command)
            }
            Self::Conformance => watch(&mut cargo::cargo(&[
                "test",
                "--package",
                TESTS,
                "--test",
                "conformance",
            ])?),
            Self::E2e => {
                // The suites start the programs as a user does, so the binaries must be fresh.
                cargo::run(&["build", "--workspace", "--bins"])?;
                watch(&mut cargo::cargo(&[
                    "test",
                    "--package",
                    TESTS,
                    "--test",
                    "e2e",
                    "--lib",
                ])?)
            }
            Self::Cli => {
                let program = demo::build(false)?;
                let python = python::environment(python::USUAL, PYTHON_PACKAGES)?;
                let mut command = Command::new(python);
                watch(pytest(&mut command, "tests/cli")?.env("AGENT_SANDBOX_BIN", program))
            }
            Self::Sdk => {
                let outcome = SDK.run()?;
                report::line(&format!(
                    "NOT RUN without a cluster: {}: the SDK's tunnel is `kubectl port-forward`, which the embedded \
                     API server does not serve, and images need nodes that run them; `cargo xtask e2e \
                     sdk-cluster` runs it",
                    SDK_CLUSTER.directory
                ));
                Ok(outcome)
            }
            Self::OldSdk => OLD_SDK.run(),
            Self::Grpc => {
                cargo::run(&["build", "--package", ROUTER, "--package", RUNTIME, "--bins"])?;
                let programs = cargo::target_directory()?.join("debug");
                let python = python::environment("venv-grpc", "tests/grpc/requirements.txt")?;
                let mut command = Command::new(python);
                watch(
                    pytest(&mut command, "tests/grpc")?
                        .env("AGENT_SANDBOX_ROUTER_BIN", programs.join(ROUTER))
                        .env("AGENT_SANDBOX_RUNTIME_BIN", programs.join(RUNTIME)),
                )
            }
            Self::Load => load(),
            Self::Scale => scale(),
        }
    }
}

/// Builds the programs with optimisation, because what is tried is how much they carry, and loads them.
fn load() -> Result<(Count, bool)> {
    cargo::run(&[
        "build",
        "--profile",
        cargo::QUICK,
        "--package",
        ROUTER,
        "--package",
        RUNTIME,
        "--package",
        LOAD,
        "--bins",
    ])?;
    watch(&mut cargo::cargo(&[
        "test",
        "--profile",
        cargo::QUICK,
        "--package",
        LOAD,
        "--test",
        "load",
        "--",
        "--ignored",
        // Each has the machine to itself, and tells how far it is.
        "--test-threads=1",
        "--nocapture",
    ])?)
}

/// Builds the operator with optimisation, and lets it run among very many sandboxes.
fn scale() -> Result<(Count, bool)> {
    cargo::run(&[
        "build",
        "--profile",
        cargo::QUICK,
        "--package",
        "agent-sandbox-controller",
        // With the suite's own package, so that both share what they depend on.
        "--package",
        TESTS,
        "--bins",
    ])?;
    watch(&mut cargo::cargo(&[
        "test",
        "--profile",
        cargo::QUICK,
        "--package",
        TESTS,
        "--test",
        "e2e",
        "--",
        "--ignored",
        "--nocapture",
        "idle::",
    ])?)
}

impl PythonSuite {
    /// Runs it inside a platform of its own.
    fn run(&self) -> Result<(Count, bool)> {
        let program = demo::build(false)?;
        let python = python::environment(self.environment, self.requirements)?;
        // A directory of its own: the user's platform may be up meanwhile.
        let state = cargo::target_directory()?.join("xtask").join("sdk");
        let mut command = Command::new(program);
        command.args(["up", "--router-port", "0", "--api-port", "0", "--state-dir"]);
        command
            .arg(state)
            .args(["--apply", self.objects, "--"])
            .arg(python);
        watch(pytest(&mut command, self.directory)?)
    }
}

impl Count {
    /// A suite that ran nothing has not passed, whatever its exit status.
    pub(crate) fn is_success(self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Reads one line of a runner's output: cargo's `test result:` or pytest's closing line.
    fn read(line: &str) -> Option<Self> {
        let pytest = line.starts_with("==") && line.contains(" in ");
        if !pytest && !line.starts_with("test result:") {
            return None;
        }
        let mut count = Self::default();
        let words: Vec<&str> = line
            .split([' ', ',', ';', '=', '.'])
            .filter(|word| !word.is_empty())
            .collect();
        for pair in words.windows(2) {
            let [number, what] = pair else { continue };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match *what {
                "passed" => count.passed += number,
                "failed" | "error" | "errors" => count.failed += number,
                "ignored" | "skipped" => count.skipped += number,
                _ => {}
            }
        }
        Some(count)
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Adds what runs the Python suite in a directory.
pub(crate) fn pytest<'a>(command: &'a mut Command, directory: &str) -> Result<&'a mut Command> {
    // Otherwise pytest leaves the directories of its last three runs with the system's temporary files.
    let scratch = cargo::target_directory()?.join("xtask").join("pytest");
    command
        .current_dir(cargo::root()?)
        .stdin(Stdio::null())
        .args(["-m", "pytest", "-p", "no:cacheprovider", "-v"])
        .arg("--basetemp")
        .arg(scratch);
    Ok(command.arg(directory))
}

/// Runs a test runner, passes its output on as it comes, and adds up what it counted.
fn watch(command: &mut Command) -> Result<(Count, bool)> {
    watch_unless(command, &AtomicBool::new(false))
}

/// The same, but ends the runner once `interrupted` becomes true.
pub(crate) fn watch_unless(
    command: &mut Command,
    interrupted: &AtomicBool,
) -> Result<(Count, bool)> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("the runner does not start")?;
    let output = child
        .stdout
        .take()
        .context("the runner's output is a pipe")?;
    thread::scope(|scope| {
        let reader = scope.spawn(|| read(output));
        while !reader.is_finished() {
            if interrupted.load(Ordering::Relaxed) {
                children::terminate(&child)?;
                break;
            }
            thread::sleep(PAUSE);
        }
        let count = reader
            .join()
            .map_err(|_| anyhow!("the reader of the runner's output panicked"))??;
        let status = child.wait().context("the runner cannot be waited for")?;
        Ok((count, status.success()))
    })
}

fn read(output: impl std::io::Read) -> Result<Count> {
    let mut count = Count::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("the runner's output is text")?;
        report::line(&line);
        if let Some(more) = Count::read(&line) {
            count.add(more);
        }
    }
    Ok(count)
}

/// How soon an interruption is noticed.
const PAUSE: Duration = Duration::from_millis(100);
/// The package of the suites.
pub(crate) const TESTS: &str = "agent-sandbox-tests";
const CONTROLLER: &str = "agent-sandbox-controller";
/// The package of load on the router.
const LOAD: &str = "agent-sandbox-load";
/// The router: its package, and its program.
const ROUTER: &str = "agent-sandbox-router";
/// The in-pod server.
const RUNTIME: &str = "agent-sandbox-runtime";
/// How many runs of the simulation there are, and for how many of its workloads an operator is killed
/// at every single write.
const SEEDS: &str = "10000";
const WORKLOADS: &str = "6";
/// What the Python suites need.
pub(crate) const PYTHON_PACKAGES: &str = "tests/sdk/requirements.txt";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted() {
        let cargo = "test result: FAILED. 16 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.09s";
        assert_eq!(
            Count::read(cargo),
            Some(Count {
                passed: 16,
                failed: 2,
                skipped: 1
            })
        );
        let pytest = "=========== 1 failed, 31 passed, 2 skipped, 1 error in 12.31s ===========";
        assert_eq!(
            Count::read(pytest),
            Some(Count {
                passed: 31,
                failed: 2,
                skipped: 2
            })
        );
        assert_eq!(Count::read("test foo ... ok"), None);
        assert_eq!(
            Count {
                passed: 3,
                failed: 0,
                skipped: 0
            }
            .to_string(),
            "3 passed, 0 failed"
        );
    }

    #[test]
    fn a_runner_that_fails_is_noticed() {
        let (count, sound) = watch(Command::new("false").stdin(Stdio::null())).unwrap();
        assert_eq!((count, sound), (Count::default(), false));
    }

    #[test]
    fn an_interruption_ends_the_runner() {
        let mut command = Command::new("sleep");
        command.arg("600").stdin(Stdio::null());
        let (_, sound) = watch_unless(&mut command, &AtomicBool::new(true)).unwrap();
        assert!(!sound);
    }
}
