//! `cargo xtask`: the one way in. Each command does its own set-up, says what it does, and leaves
//! nothing running.

mod bench;
mod builtin_schemas;
mod cargo;
mod check;
mod children;
mod demo;
mod directions;
mod e2e;
mod fuzz;
mod generate;
mod image;
mod named_tests;
mod python;
mod report;
mod soak;
mod suites;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything a contributor or CI runs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring the platform up on this machine and do the main job with the unmodified Python SDK
    Demo(demo::Args),
    /// Run the test suites, all of them or those named
    Test(suites::Args),
    /// Run the suites against the Kubernetes cluster that KUBECONFIG names
    ///
    /// Needs `kubectl` on the PATH, and a cluster without our kinds where you may install kinds, make
    /// namespaces and use the namespace `default`. The operator and the router run on this machine, so
    /// it must reach the addresses of pods: a cluster on the machine itself usually allows that, a
    /// remote one needs a route. The nodes' image store must have the images that `cargo xtask image
    /// shell python python-data` builds, under the names it gives them; the last two are for the suite
    /// `sdk-cluster` alone.
    /// What was created is deleted in the end, whatever happened. What a cluster cannot run is said, with
    /// the reason.
    E2e(e2e::Args),
    /// Measure the platform, beside the least that is possible in the same run
    Bench(bench::Args),
    /// Load the programs for as long as one likes, and see that they keep nothing
    Soak(soak::Args),
    /// Look for inputs that break the router or the runtime, each property for a while
    Fuzz(fuzz::Args),
    /// Formatting, lints, generated files, dependency direction and dependency policy
    Check,
    /// Write the files that are generated from code, or compare them
    Generate(generate::Args),
    /// Build container images of the in-pod runtime, without a container engine
    ///
    /// Each is written as an archive that `ctr images import`, `docker load` and `kind load image-archive` take.
    /// The packages in them are those of images/packages.lock. docs/images.md says more.
    Image(image::Args),
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => suites::run(&args),
        Command::E2e(args) => e2e::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Check => check::run(),
        Command::Generate(args) => generate::run(&args),
        Command::Image(args) => image::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}
