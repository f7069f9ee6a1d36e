//! Files generated from code and committed: written, or compared with what is there.

use anyhow::Result;

use crate::{cargo, report};

/// What to do with the generated files.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Compare instead of writing; fail and name the files that are stale
    #[arg(long)]
    pub(crate) check: bool,
}

/// Writes or compares the CRD manifests in the chart.
pub(crate) fn run(args: &Args) -> Result<()> {
    report::step(if args.check {
        "generated files"
    } else {
        "generating files"
    });
    let mut arguments = vec![
        "run",
        "--package",
        "agent-sandbox-crds",
        "--example",
        "crdgen",
        "--",
    ];
    if args.check {
        arguments.push("--check");
    }
    cargo::run(&arguments)
}
