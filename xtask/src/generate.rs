//! Files generated from code and committed: written, or compared with what is there.

use anyhow::Result;

use crate::{builtin_schemas, cargo, report};

/// What to do with the generated files.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Compare instead of writing; fail and name the files that are stale
    #[arg(long)]
    pub(crate) check: bool,
    /// One set of files instead of the usual ones
    #[command(subcommand)]
    pub(crate) what: Option<What>,
}

/// Files whose sources are outside the repository, written only when asked for by name.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum What {
    /// The schemas of Kubernetes' built-in kinds that the embedded API server serves
    BuiltinSchemas(builtin_schemas::Args),
}

/// Writes or compares the CRD manifests in the chart.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(What::BuiltinSchemas(args)) = &args.what {
        return builtin_schemas::run(args, cargo::root()?);
    }
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
