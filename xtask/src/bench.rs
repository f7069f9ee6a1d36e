//! `cargo xtask bench`: builds the programs with optimisation and measures them. What is measured, and
//! how, lives with the suites (`tests/src/load`), because this crate does not link the platform.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::{cargo, report};

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

/// Builds and runs the bench.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.bench {
        Bench::Claims(claims) => claims.run(),
    }
}

impl Claims {
    /// The last step replaces this process, so that an interrupt reaches the bench alone, which
    /// removes what it made.
    fn run(&self) -> Result<()> {
        let kubeconfig = self
            .kubeconfig
            .as_ref()
            .filter(|value| !value.is_empty())
            .context("no cluster is named: set KUBECONFIG, or give --kubeconfig FILE")?;
        report::step("building the operator and the bench (the first time takes minutes)");
        cargo::run(&[
            "build",
            "--profile",
            cargo::QUICK,
            "--package",
            "agent-sandbox-controller",
            "--package",
            "agent-sandbox-tests",
            "--bin",
            "agent-sandbox-controller",
            "--bin",
            "bench-claims",
        ])?;
        let target = cargo::target_directory()?;
        let programs = target.join(cargo::QUICK);
        let json = if let Some(path) = &self.json {
            path.clone()
        } else {
            let directory = target.join("xtask");
            std::fs::create_dir_all(&directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
            directory.join("bench-claims.json").into()
        };
        report::step(&format!("results go to {}", json.display()));
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
        let error = command.args(&self.more).exec();
        Err(error).context("bench-claims does not start")
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
