//! `cargo xtask bench`: builds the programs with optimisation and measures them. What is measured, and
//! how, lives with the suites (`tests/src/load` and `tests/load`), because this crate does not link the
//! platform.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::image::program;
use crate::{cargo, python, report};

/// What to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Claims against the Kubernetes cluster that KUBECONFIG names
    ///
    /// Needs a cluster where you may install kinds and a namespace; pods may be simulated. The
    /// operator runs on this machine. What was created is deleted in the end, whatever happened.
    /// Memory of the API server and processor time of the cluster are measured when it runs on this
    /// machine too.
    Claims(Claims),
    /// The router beside nginx, HAProxy and the upstream routers, on this machine alone
    ///
    /// What is installed is measured (apt-get install nginx-light haproxy wrk), what is not is named.
    /// The Python stack of an upstream router is installed into a virtual environment.
    Router(Router),
    /// The in-pod runtime beside bare spawns, cp and the upstream Python runtime's stack, on this machine alone
    ///
    /// The Python stack is installed into a virtual environment. Memory is measured for root only. Large
    /// files are written to memory and to the disk with the temporary files, and removed.
    Runtime(Runtime),
}

/// How claims are measured.
#[derive(clap::Args, Debug)]
struct Claims {
    /// The cluster's kubeconfig
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<OsString>,
    /// Fewer claims and rounds, no large pool: minutes instead of half an hour, for orientation only
    #[arg(long)]
    quick: bool,
    /// Where the results go as JSON [default: xtask/bench-claims.json in the target directory]
    #[arg(long, value_name = "FILE")]
    json: Option<OsString>,
    /// More arguments for the bench, such as `--legs burst,floor`; `-- --help` tells all
    #[arg(last = true)]
    more: Vec<OsString>,
}

/// How the router is measured.
#[derive(clap::Args, Debug)]
struct Router {
    /// Fewer and shorter rounds: minutes instead of half an hour, for orientation only
    #[arg(long)]
    quick: bool,
    /// Where the results go as JSON [default: xtask/bench-router.json in the target directory]
    #[arg(long, value_name = "FILE")]
    json: Option<OsString>,
    /// Measure the upstream Go router too: its program, built
    #[arg(long = "go-router", value_name = "FILE")]
    go: Option<OsString>,
    /// Leave the Python stack out; nothing is installed for it then
    #[arg(long)]
    no_python: bool,
    /// More arguments for the bench, such as `--legs throughput,idle`; `-- --help` tells all
    #[arg(last = true)]
    more: Vec<OsString>,
}

/// How the runtime is measured.
#[derive(clap::Args, Debug)]
struct Runtime {
    /// What to measure, such as `exec,rate`; everything when nothing is named
    #[arg(long, value_name = "LEG,...")]
    legs: Option<OsString>,
    /// Rounds of every leg
    #[arg(long, value_name = "N")]
    rounds: Option<OsString>,
    /// Fewer and shorter rounds: minutes instead of a quarter of an hour, for orientation only
    #[arg(long)]
    quick: bool,
    /// Where the results go as JSON [default: xtask/bench-runtime.json in the target directory]
    #[arg(long, value_name = "FILE")]
    json: Option<OsString>,
    /// Leave the Python stack out; nothing is installed for it then
    #[arg(long)]
    no_python: bool,
    /// More arguments for the bench, such as `--runs 2000`; `-- --help` tells all
    #[arg(last = true)]
    more: Vec<OsString>,
}

/// What the Python stack of the router needs, and that of the runtime.
const ROUTER_REQUIREMENTS: &str = "tests/load/python/requirements.txt";
const RUNTIME_REQUIREMENTS: &str = "tests/load/python/runtime-requirements.txt";

/// Builds and runs the bench.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.bench {
        Bench::Claims(claims) => claims.run(),
        Bench::Router(router) => router.run(),
        Bench::Runtime(runtime) => runtime.run(),
    }
}

/// Builds the named programs of the named packages and returns the directory they are in.
fn build(what: &str, profile: &str, packages: &[&str], programs: &[&str]) -> Result<PathBuf> {
    report::step(&format!("building {what} (the first time takes minutes)"));
    let mut arguments = vec!["build", "--profile", profile];
    arguments.extend(packages.iter().flat_map(|package| ["--package", package]));
    arguments.extend(programs.iter().flat_map(|program| ["--bin", program]));
    cargo::run(&arguments)?;
    Ok(cargo::target_directory()?.join(profile))
}

/// Where the results go: where the user wants them, or beside the build.
fn results(json: Option<&OsString>, name: &str) -> Result<OsString> {
    let path = if let Some(path) = json {
        path.clone()
    } else {
        let directory = cargo::target_directory()?.join("xtask");
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        directory.join(name).into()
    };
    report::step(&format!("results go to {}", Path::new(&path).display()));
    Ok(path)
}

/// Replaces this process, so that an interrupt reaches the bench alone, which removes what it made.
fn become_bench(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("{} does not start", command.get_program().display()))
}

/// Names the interpreter of a Python stack to the bench, if the stack can be installed.
fn add_python(command: &mut Command, environment: &str, requirements: &str) {
    match python::environment(environment, requirements) {
        Ok(python) => {
            command.arg("--python").arg(python);
        }
        Err(error) => report::step(&format!(
            "the Python stack is left out, for it cannot be installed: {error:#}"
        )),
    }
}

impl Claims {
    fn run(&self) -> Result<()> {
        let kubeconfig = self
            .kubeconfig
            .as_ref()
            .filter(|value| !value.is_empty())
            .context("no cluster is named: set KUBECONFIG, or give --kubeconfig FILE")?;
        let programs = build(
            "the operator and the bench",
            cargo::QUICK,
            &["agent-sandbox-controller", "agent-sandbox-tests"],
            &["agent-sandbox-controller", "bench-claims"],
        )?;
        let json = results(self.json.as_ref(), "bench-claims.json")?;
        let mut command = Command::new(programs.join("bench-claims"));
        command
            .arg("--controller")
            .arg(programs.join("agent-sandbox-controller"))
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--json")
            .arg(json);
        if self.quick {
            command.arg("--quick");
        }
        become_bench(command.args(&self.more))
    }
}

impl Router {
    fn run(&self) -> Result<()> {
        let router = build(
            "the router as it is shipped",
            cargo::DIST,
            &["agent-sandbox-router"],
            &["agent-sandbox-router"],
        )?;
        let bench = build(
            "the bench",
            cargo::QUICK,
            &["agent-sandbox-load"],
            &["bench-router"],
        )?;
        let json = results(self.json.as_ref(), "bench-router.json")?;
        let mut command = Command::new(bench.join("bench-router"));
        command
            .arg("--router")
            .arg(router.join("agent-sandbox-router"))
            .arg("--json")
            .arg(json);
        if !self.no_python {
            add_python(&mut command, "bench-router", ROUTER_REQUIREMENTS);
        }
        if let Some(program) = &self.go {
            command.arg("--go-router").arg(program);
        }
        if self.quick {
            command.arg("--quick");
        }
        become_bench(command.args(&self.more))
    }
}

impl Runtime {
    fn run(&self) -> Result<()> {
        report::step("building the runtime as it is shipped (the first time takes minutes)");
        let runtime = program::build()?;
        let bench = build(
            "the bench",
            cargo::QUICK,
            &["agent-sandbox-load"],
            &["bench-runtime", "grown-runtime"],
        )?;
        let json = results(self.json.as_ref(), "bench-runtime.json")?;
        let mut command = Command::new(bench.join("bench-runtime"));
        command
            .arg("--runtime")
            .arg(runtime)
            .arg("--grown")
            .arg(bench.join("grown-runtime"))
            .arg("--json")
            .arg(json);
        if !self.no_python {
            add_python(&mut command, "bench-runtime", RUNTIME_REQUIREMENTS);
        }
        if let Some(legs) = &self.legs {
            command.arg("--legs").arg(legs);
        }
        if let Some(rounds) = &self.rounds {
            command.arg("--rounds").arg(rounds);
        }
        if self.quick {
            command.arg("--quick");
        }
        become_bench(command.args(&self.more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_must_be_named() {
        for kubeconfig in [None, Some(OsString::new())] {
            let claims = Claims {
                kubeconfig,
                quick: true,
                json: None,
                more: Vec::new(),
            };
            let error = claims.run().unwrap_err().to_string();
            assert!(error.contains("KUBECONFIG"), "{error}");
        }
    }
}
