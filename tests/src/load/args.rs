//! The command line of `bench-claims`, and the plan it is turned into.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use super::closed_loop::Length;

/// What the user says.
#[derive(Debug, clap::Parser)]
#[command(
    name = "bench-claims",
    version,
    about = "Measures claims against a Kubernetes cluster"
)]
pub struct Args {
    /// The cluster's kubeconfig
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<OsString>,
    /// The operator's program
    #[arg(long, value_name = "FILE")]
    controller: PathBuf,
    /// Where the results go as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fewer claims and rounds, no large pool: minutes instead of half an hour, for orientation only
    #[arg(long)]
    quick: bool,
    /// What to measure; everything when none is named
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LEG,...")]
    legs: Vec<Leg>,
    /// Rounds of the floor, the filling and the burst
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// The API server's process on this machine; found by its name when not given
    #[arg(long, value_name = "PID")]
    apiserver_pid: Option<i32>,
    /// The namespace that is created for the run and deleted afterwards
    #[arg(long, value_name = "NAME", default_value = "bench-claims")]
    namespace: String,
    /// One more argument for the operator; may be given again
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    controller_arg: Vec<String>,
}

/// One part of the bench.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Leg {
    /// What a plain client reaches with the same calls
    Floor,
    /// How fast a pool of 300 becomes Ready
    Fill,
    /// 4 claims a second
    Quiet,
    /// 10, 20 and 40 claims a second
    Sustained,
    /// 1, 8 and 32 workers that claim, delete and claim again
    ClosedLoop,
    /// 200 claims at once from a pool of 300, and how soon it is full again
    Burst,
    /// Bursts on a pool of 40, each twice the one before, until it is empty
    Recovery,
    /// Memory at 0, 1,000 and 6,000 sandboxes, and the restart with 6,000
    Scale,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The cluster.
    pub kubeconfig: PathBuf,
    /// The operator's program.
    pub controller: PathBuf,
    /// More arguments for it.
    pub controller_args: Vec<String>,
    /// Where the results go.
    pub json: Option<PathBuf>,
    /// The API server's process, if the user knows.
    pub apiserver_pid: Option<i32>,
    /// The namespace of the run.
    pub namespace: String,
    /// What is measured.
    pub legs: Vec<Leg>,
    /// Rounds of the floor, the filling and the burst.
    pub rounds: u32,
    /// Claims of a burst.
    pub burst: u32,
    /// Members of the pool, but for [`Leg::Recovery`] and [`Leg::Scale`].
    pub pool: u32,
    /// Members of the pool of [`Leg::Recovery`].
    pub small_pool: u32,
    /// Workers of the closed loops.
    pub workers: Vec<u32>,
    /// How long each closed loop goes on.
    pub closed_loop: Length,
    /// The rates of the open-loop legs with the number of their claims.
    pub rates: Vec<Rate>,
    /// Sizes of the pool at which memory is measured, in ascending order.
    pub sizes: Vec<u32>,
}

/// An open-loop leg.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Mean claims per second.
    pub per_second: f64,
    /// How many in all.
    pub claims: u32,
}

impl Args {
    /// The plan, or what is wrong with the arguments.
    ///
    /// # Errors
    /// Names the argument and what was expected.
    pub fn plan(self) -> Result<Plan> {
        let Self {
            kubeconfig,
            controller,
            json,
            quick,
            legs,
            rounds,
            apiserver_pid,
            namespace,
            controller_arg,
        } = self;
        let kubeconfig = kubeconfig
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        let Some(kubeconfig) = kubeconfig else {
            anyhow::bail!("no cluster is named: set KUBECONFIG, or give --kubeconfig FILE");
        };
        ensure!(
            controller.is_file(),
            "--controller {}: there is no such program",
            controller.display()
        );
        ensure!(
            is_namespace(&namespace),
            "--namespace {namespace:?}: expected a new namespace's name: lower-case letters, digits and inner dashes, at most 63"
        );
        let legs = if legs.is_empty() {
            Leg::value_variants()
                .iter()
                .copied()
                .filter(|leg| !quick || *leg != Leg::Scale)
                .collect()
        } else {
            legs
        };
        let rate = |per_second: f64, claims: u32, short: u32| Rate {
            per_second,
            claims: if quick { short } else { claims },
        };
        let mut rates = Vec::new();
        if legs.contains(&Leg::Quiet) {
            rates.push(rate(4.0, 500, 60));
        }
        if legs.contains(&Leg::Sustained) {
            rates.extend([
                rate(10.0, 600, 100),
                rate(20.0, 1000, 200),
                rate(40.0, 1200, 200),
            ]);
        }
        Ok(Plan {
            kubeconfig,
            controller,
            controller_args: controller_arg,
            json,
            apiserver_pid,
            namespace,
            rounds: rounds.unwrap_or(if quick { 2 } else { 5 }),
            burst: 200,
            pool: 300,
            small_pool: 40,
            workers: if legs.contains(&Leg::ClosedLoop) {
                vec![1, 8, 32]
            } else {
                Vec::new()
            },
            closed_loop: if quick {
                Length {
                    claims: 50,
                    time: Duration::from_secs(10),
                }
            } else {
                Length {
                    claims: 200,
                    time: Duration::from_secs(45),
                }
            },
            rates,
            sizes: if quick {
                vec![0, 300]
            } else {
                vec![0, 1000, 6000]
            },
            legs,
        })
    }
}

fn is_namespace(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|byte| plain(byte) || byte == b'-')
        && name.bytes().next().is_some_and(plain)
        && name.bytes().last().is_some_and(plain)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// A program that exists, for arguments that need one.
    const PROGRAM: &str = "/bin/sh";

    fn plan(more: &[&str]) -> Result<Plan> {
        let all = ["bench-claims", "--controller", PROGRAM].iter().chain(more);
        Args::try_parse_from(all)?.plan()
    }

    #[test]
    fn everything_is_measured_unless_legs_are_named() {
        let all = plan(&["--kubeconfig", "k"]).unwrap();
        assert_eq!(all.legs, Leg::value_variants());
        let rates: Vec<f64> = all.rates.iter().map(|rate| rate.per_second).collect();
        assert_eq!(rates, [4.0, 10.0, 20.0, 40.0]);
        assert_eq!((all.burst, all.pool, all.rounds), (200, 300, 5));
        assert_eq!(all.workers, [1, 8, 32]);
        assert_eq!(all.sizes, [0, 1000, 6000]);
        // A 99th percentile means nothing below this.
        assert!(all.rates.iter().all(|rate| rate.claims >= 500));

        let some = plan(&["--kubeconfig", "k", "--legs", "burst,floor"]).unwrap();
        assert_eq!(some.legs, [Leg::Burst, Leg::Floor]);
        assert!(some.rates.is_empty() && some.workers.is_empty());
        let churn = plan(&["--kubeconfig", "k", "--legs", "closed-loop"]).unwrap();
        assert_eq!(churn.legs, [Leg::ClosedLoop]);
    }

    #[test]
    fn quick_leaves_the_large_pool_out_unless_asked_for() {
        let quick = plan(&["--kubeconfig", "k", "--quick"]).unwrap();
        assert!(!quick.legs.contains(&Leg::Scale));
        assert!(quick.rates.iter().all(|rate| rate.claims <= 200));
        assert_eq!(quick.rounds, 2);
        let scale = plan(&["--kubeconfig", "k", "--quick", "--legs", "scale"]).unwrap();
        assert_eq!((scale.legs, scale.sizes), (vec![Leg::Scale], vec![0, 300]));
        let rounds = plan(&["--kubeconfig", "k", "--quick", "--rounds", "9"]).unwrap();
        assert_eq!(rounds.rounds, 9);
    }

    #[test]
    fn mistakes_are_named() {
        let error = plan(&["--kubeconfig", ""]).unwrap_err().to_string();
        assert!(error.contains("KUBECONFIG"), "{error}");
        let error = plan(&["--kubeconfig", "k", "--namespace=-A"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("--namespace \"-A\""), "{error}");
        let error = plan(&["--kubeconfig", "k", "--rounds", "0"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("--rounds"), "{error}");
        let missing = [
            "bench-claims",
            "--controller",
            "/nowhere",
            "--kubeconfig",
            "k",
        ];
        let error = Args::try_parse_from(missing)
            .unwrap()
            .plan()
            .unwrap_err()
            .to_string();
        assert!(error.contains("--controller /nowhere"), "{error}");
    }
}
