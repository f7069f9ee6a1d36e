//! The command line of `bench-router`, and the plan it is turned into.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde::Serialize;

use super::peers::Kind;

/// What the user says.
#[derive(Debug, clap::Parser)]
#[command(
    name = "bench-router",
    version,
    about = "Measures the router beside nginx, HAProxy and the upstream routers",
    after_help = "The proxy under test has a processor of its own, generator and backend share another. \
                  Rounds are interleaved, their order rotates, figures are medians with the smallest and \
                  the largest. A wrong answer voids what it belongs to. Peers that are not there are named."
)]
pub struct Args {
    /// The router's program
    #[arg(long, value_name = "FILE")]
    router: PathBuf,
    /// A Python interpreter with FastAPI, uvicorn and httpx; without, that stack is not measured
    #[arg(long, value_name = "FILE")]
    python: Option<PathBuf>,
    /// The upstream Go router, built; without, it is not measured
    #[arg(long, value_name = "FILE")]
    go_router: Option<PathBuf>,
    /// Where the results go as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fewer and shorter rounds: minutes instead of half an hour, for orientation only
    #[arg(long)]
    quick: bool,
    /// What to measure; everything when none is named
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LEG,...")]
    legs: Vec<Leg>,
    /// Whom to measure; everybody who is there when none is named
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PEER,...")]
    peers: Vec<Kind>,
    /// Rounds of every leg; of memory 3 at most [default: 5, with --quick 2, of memory 3 and 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Seconds of load in one round of one peer [default: 4, with --quick 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: Option<u32>,
    /// Idle connections, and idle tunnels, at which memory is measured
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    connections: u32,
    /// Seconds in all to wait for the machine to be quiet; after that, rounds begin whatever runs [default: 180, with --quick 20]
    #[arg(long, value_name = "N")]
    patience: Option<u32>,
}

/// One part of the bench.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Leg {
    /// Requests a second of the proxy's processor time, and by the clock
    Throughput,
    /// What a proxy adds to the time of a request
    Latency,
    /// Memory of an idle keep-alive connection
    Idle,
    /// Memory of an idle WebSocket, and the echo of a message
    Tunnels,
    /// 256 MiB down and up
    Streaming,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The router's program.
    pub router: PathBuf,
    /// A Python interpreter with the packages.
    pub python: Option<PathBuf>,
    /// The upstream Go router.
    pub go: Option<PathBuf>,
    /// Where the results go.
    pub json: Option<PathBuf>,
    /// What is measured.
    pub legs: Vec<Leg>,
    /// Who is measured.
    pub peers: Vec<Kind>,
    /// Rounds.
    pub rounds: usize,
    /// Rounds of memory, which hardly differ.
    pub memory_rounds: usize,
    /// How long load lasts in one round of one peer.
    pub time: Duration,
    /// How long it lasts once before, to warm up.
    pub warm_up: Duration,
    /// Idle connections and tunnels.
    pub connections: u32,
    /// Bytes of a stream.
    pub stream: u64,
    /// Messages of the echo.
    pub messages: usize,
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
            router,
            python,
            go_router,
            json,
            quick,
            legs,
            peers,
            rounds,
            seconds,
            connections,
            patience,
        } = self;
        let programs = [
            ("router", Some(&router)),
            ("python", python.as_ref()),
            ("go-router", go_router.as_ref()),
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
        let or =
            |given: Option<u32>, full, short| given.unwrap_or(if quick { short } else { full });
        Ok(Plan {
            router,
            python,
            go: go_router,
            json,
            legs: all_unless_named(legs),
            peers: all_unless_named(peers),
            rounds: usize::try_from(or(rounds, 5, 2))?,
            memory_rounds: usize::try_from(or(rounds, 3, 1).min(3))?,
            time: Duration::from_secs(or(seconds, 4, 2).into()),
            warm_up: Duration::from_secs(1),
            connections,
            stream: 256 << 20,
            messages: if quick { 1000 } else { 5000 },
            patience: Duration::from_secs(or(patience, 180, 20).into()),
            look: Duration::from_secs(1),
        })
    }
}

fn all_unless_named<T: ValueEnum + Clone + Ord>(mut named: Vec<T>) -> Vec<T> {
    if named.is_empty() {
        return T::value_variants().to_vec();
    }
    named.sort();
    named.dedup();
    named
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// A program that exists, for arguments that need one.
    const PROGRAM: &str = "/bin/sh";

    fn plan(more: &[&str]) -> Result<Plan> {
        let all = ["bench-router", "--router", PROGRAM].iter().chain(more);
        Args::try_parse_from(all)?.plan()
    }

    #[test]
    fn everything_is_measured_unless_parts_are_named() {
        let all = plan(&[]).unwrap();
        assert_eq!(all.legs, Leg::value_variants());
        assert_eq!(all.peers, Kind::value_variants());
        assert_eq!(
            (all.rounds, all.time.as_secs(), all.connections),
            (5, 4, 4000)
        );
        let some = plan(&["--legs", "idle,latency,idle", "--peers", "nginx,router"]).unwrap();
        assert_eq!(some.legs, [Leg::Latency, Leg::Idle]);
        assert_eq!(some.peers, [Kind::Router, Kind::Nginx]);
    }

    #[test]
    fn quick_is_shorter_and_yields_to_what_is_named() {
        let quick = plan(&["--quick"]).unwrap();
        assert_eq!((quick.rounds, quick.time.as_secs()), (2, 2));
        let rounds = plan(&["--quick", "--rounds", "9", "--patience", "0"]).unwrap();
        assert_eq!((rounds.rounds, rounds.patience), (9, Duration::ZERO));
    }

    #[test]
    fn mistakes_are_named() {
        let error = plan(&["--rounds", "0"]).unwrap_err().to_string();
        assert!(error.contains("--rounds"), "{error}");
        let error = plan(&["--go-router", "/nowhere"]).unwrap_err().to_string();
        assert!(error.contains("--go-router /nowhere"), "{error}");
        let missing = ["bench-router", "--router", "/nowhere"];
        let error = Args::try_parse_from(missing).unwrap().plan().unwrap_err();
        assert!(error.to_string().contains("--router /nowhere"), "{error}");
    }
}
