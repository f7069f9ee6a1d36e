//! `cargo xtask soak`: builds the programs with optimisation and loads them for as long as one likes.
//! The short forms of the same are the suite `load`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::{cargo, report};

/// What to load.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    soak: Soak,
}

#[derive(Debug, Subcommand)]
enum Soak {
    /// The router: 10,000 tunnels with 1,000 streams, bodies of 10 GiB, and an hour of mixed load while
    /// pods are replaced
    Router(Router),
}

/// How the router is loaded.
#[derive(clap::Args, Debug)]
struct Router {
    /// How long the mixed load goes on [default: 60]
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<u64>,
    /// What differs between runs of the mixed load
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// More arguments, such as `--legs mixed`; `-- --help` tells all
    #[arg(last = true)]
    more: Vec<OsString>,
}

/// Builds and runs it.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.soak {
        Soak::Router(router) => router.run(),
    }
}

impl Router {
    /// The last step replaces this process, so that an interrupt reaches the soak alone, which ends
    /// what it started.
    fn run(&self) -> Result<()> {
        report::step("building the router and its load (the first time takes minutes)");
        cargo::run(&[
            "build",
            "--profile",
            cargo::QUICK,
            "--package",
            "agent-sandbox-router",
            "--package",
            "agent-sandbox-load",
            "--bins",
        ])?;
        let programs = cargo::target_directory()?.join(cargo::QUICK);
        let mut command = Command::new(programs.join("soak-router"));
        if let Some(minutes) = self.minutes {
            command.arg(format!("--minutes={minutes}"));
        }
        if let Some(seed) = self.seed {
            command.arg(format!("--seed={seed}"));
        }
        let error = command.args(&self.more).exec();
        Err(error).context("soak-router does not start")
    }
}
