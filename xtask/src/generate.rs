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

/// The packages with generated files, and the example of each that makes them.
const GENERATORS: [(&str, &str); 2] = [
    ("agent-sandbox-crds", "crdgen"),
    ("agent-sandbox-runtime", "protogen"),
];

/// Writes or compares the CRD manifests in the chart and the code of the gRPC services. All of them, also
/// after one was stale.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(What::BuiltinSchemas(args)) = &args.what {
        return builtin_schemas::run(args, cargo::root()?);
    }
    report::step(if args.check {
        "generated files"
    } else {
        "generating files"
    });
    let mut outcome = Ok(());
    for (package, example) in GENERATORS {
        let mut arguments = vec!["run", "--package", package, "--example", example, "--"];
        if args.check {
            arguments.push("--check");
        }
        let ran = cargo::run(&arguments);
        outcome = outcome.and(ran);
    }
    outcome
}
