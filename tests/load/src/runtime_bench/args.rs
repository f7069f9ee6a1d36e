//! The command line of `bench-runtime`, and the plan it is turned into.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde::Serialize;

use crate::bench::generator::Generator;

/// What the user says.
#[derive(Debug, clap::Parser)]
#[command(
    name = "bench-runtime",
    version,
    about = "Measures the in-pod runtime beside bare spawns, cp and the upstream Python stack",
    after_help = "The server under test, and what it starts, has a processor of its own; the client has another. \
                  Rounds are interleaved, their order rotates, figures are medians with the smallest and \
                  the largest. A wrong answer voids what it belongs to. Peers that are not there are named."
)]
pub struct Args {
    /// The runtime's program
    #[arg(long, value_name = "FILE")]
    runtime: PathBuf,
    /// The program grown-runtime; without, the runtime is not measured with 1 GiB resident
    #[arg(long, value_name = "FILE")]
    grown: Option<PathBuf>,
    /// A Python interpreter with FastAPI, uvicorn and python-multipart; without, that stack is not measured
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// Where the results go as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fewer and shorter rounds: minutes instead of a quarter of an hour, for orientation only
    #[arg(long)]
    quick: bool,
    /// What to measure; everything when none is named
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LEG,...")]
    legs: Vec<Leg>,
    /// Rounds of every leg; of large files and memory 3 at most [default: 5, with --quick 2, and 3 and 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Commands one after the other in one round of one peer [default: 1000, with --quick 500]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: Option<u32>,
    /// Seconds of load in one round of one peer [default: 2, with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: Option<u32>,
    /// A directory on a disk, where large files are written [default: that of temporary files]
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
    /// A directory in memory, where large files are written
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    memory: PathBuf,
    /// Seconds in all to wait for the machine to be quiet; after that, rounds begin whatever runs [default: 120, with --quick 15]
    #[arg(long, value_name = "N")]
    patience: Option<u32>,
}

/// One part of the bench.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Leg {
    /// The time of a command, one at a time
    Exec,
    /// The same while the server holds 1 GiB
    Grown,
    /// Commands a second, 8 and 32 at a time, and their processor time
    Rate,
    /// 10 MiB of output
    Output,
    /// Files of 4 KiB
    Small,
    /// Files of 256 MiB and 1 GiB, up and down
    Transfer,
    /// Memory without anything to do
    Idle,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The runtime's program.
    pub runtime: PathBuf,
    /// The program grown-runtime.
    pub grown: Option<PathBuf>,
    /// A Python interpreter with the packages.
    pub python: Option<PathBuf>,
    /// Where the results go.
    pub json: Option<PathBuf>,
    /// What is measured.
    pub legs: Vec<Leg>,
    /// Rounds.
    pub rounds: usize,
    /// Rounds of what takes long and differs little.
    pub long_rounds: usize,
    /// Commands one after the other.
    pub runs: usize,
    /// Commands with much output, one after the other.
    pub outputs: usize,
    /// How long load lasts in one round of one peer.
    pub time: Duration,
    /// MiB that a grown server holds.
    pub held: u64,
    /// Large files are this many times smaller than their names say.
    pub divisor: u64,
    /// Whether there are files of 1 GiB.
    pub largest: bool,
    /// What makes the load of small requests.
    pub generator: Generator,
    /// A directory on a disk.
    pub disk: PathBuf,
    /// A directory in memory.
    pub memory: PathBuf,
    /// How long a server is left alone before its memory is read after load.
    pub rest: Duration,
    /// How long to wait for quiet, in all.
    pub patience: Duration,
    /// How long to look whether it is quiet.
    pub look: Duration,
}

impl Args {
    /// The plan, or what is wrong with the arguments.
    ///
    /// # Errors
    /// Names the argument and what was expected.
    pub fn plan(self) -> Result<Plan> {
        let Self {
            runtime,
            grown,
            python,
            json,
            quick,
            mut legs,
            rounds,
            runs,
            seconds,
            disk,
            memory,
            patience,
        } = self;
        let programs = [
            ("runtime", Some(&runtime)),
            ("grown", grown.as_ref()),
            ("python", python.as_ref()),
        ];
        for (flag, program) in programs {
            if let Some(program) = program {
                ensure!(
                    program.is_file(),
                    "--{flag} {}: there is no such program",
                    program.display()
                );
            }
        }
        if let Some(disk) = &disk {
            ensure!(
                disk.is_dir(),
                "--disk {}: there is no such directory",
                disk.display()
            );
        }
        if legs.is_empty() {
            legs = Leg::value_variants().to_vec();
        }
        legs.sort();
        legs.dedup();
        let or =
            |given: Option<u32>, full, short| given.unwrap_or(if quick { short } else { full });
        Ok(Plan {
            runtime,
            grown,
            python,
            json,
            legs,
            rounds: usize::try_from(or(rounds, 5, 2))?,
            long_rounds: usize::try_from(or(rounds, 3, 1).min(3))?,
            runs: usize::try_from(or(runs, 1000, 500))?,
            outputs: if quick { 3 } else { 5 },
            time: Duration::from_secs(or(seconds, 2, 1).into()),
            held: 1024,
            divisor: 1,
            largest: !quick,
            generator: Generator::choose(),
            disk: disk.unwrap_or_else(std::env::temp_dir),
            memory,
            // Threads that had to do with files stay for ten seconds.
            rest: Duration::from_secs(if quick { 1 } else { 11 }),
            patience: Duration::from_secs(or(patience, 120, 15).into()),
            look: Duration::from_secs(1),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// A program that exists, for arguments that need one.
    const PROGRAM: &str = "/bin/sh";

    fn plan(more: &[&str]) -> Result<Plan> {
        let all = ["bench-runtime", "--runtime", PROGRAM].iter().chain(more);
        Args::try_parse_from(all)?.plan()
    }

    #[test]
    fn everything_is_measured_unless_parts_are_named() {
        let all = plan(&[]).unwrap();
        assert_eq!(all.legs, Leg::value_variants());
        assert_eq!((all.rounds, all.long_rounds, all.runs), (5, 3, 1000));
        let some = plan(&["--legs", "idle,exec,idle", "--rounds", "9"]).unwrap();
        assert_eq!(some.legs, [Leg::Exec, Leg::Idle]);
        assert_eq!((some.rounds, some.long_rounds), (9, 3));
    }

    #[test]
    fn quick_is_shorter_and_yields_to_what_is_named() {
        let quick = plan(&["--quick", "--runs", "700"]).unwrap();
        assert_eq!((quick.rounds, quick.runs, quick.largest), (2, 700, false));
    }

    #[test]
    fn mistakes_are_named() {
        for (arguments, part) in [
            (["--rounds", "0"], "--rounds"),
            (["--python", "/nowhere"], "--python /nowhere"),
            (["--grown", "/nowhere"], "--grown /nowhere"),
            (["--disk", "/nowhere"], "--disk /nowhere"),
        ] {
            let error = plan(&arguments).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
