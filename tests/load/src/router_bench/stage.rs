//! What all legs share: the two sandboxes behind the proxies, where things run, and who is there.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::args::Plan;
use super::backend::Backend;
use super::peers::{Kind, Peer, Site, nginx};
use super::report::Report;
use crate::bench::client::Connection;
use crate::bench::figures::Peer as _;
use crate::bench::generator::Generator;
use crate::bench::installed::{free_address, is_installed};
use crate::bench::placement::Placement;
use crate::bench::program::Program;
use crate::bench::rounds::Gate;
use crate::bench::tree::Tree;
use crate::machine;

/// What runs where.
const PLACES: [&str; 2] = ["proxies", "generator and backend"];
/// Files a proxy or the bench opens for a connection that passes through: two sockets.
const FILES: u64 = 2;
/// Files that are open besides.
const OTHER_FILES: u64 = 500;
const START: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// The scenery. Dropping it ends every program and removes the directory.
#[derive(Debug)]
pub struct Stage {
    /// What to do.
    pub plan: Plan,
    /// Where things run.
    pub placement: Placement,
    /// What proxies must know.
    pub site: Site,
    /// What makes the load.
    pub generator: Generator,
    /// Who is measured.
    pub peers: Vec<Kind>,
    /// nginx as the sandbox, and the bench's own server.
    programs: (Option<Program>, Backend),
    /// It goes last: programs still write to it.
    _directory: TempDir,
}

impl Stage {
    /// Sets it with what is installed, and notes in the report what it is made of.
    pub async fn set(plan: Plan, report: &mut Report) -> Result<Self> {
        let generator = Generator::choose();
        Self::with(plan, generator, is_installed("nginx"), report).await
    }

    /// Sets it with this generator, and with nginx as the sandbox or not.
    pub async fn with(
        plan: Plan,
        generator: Generator,
        has_nginx: bool,
        report: &mut Report,
    ) -> Result<Self> {
        let placement = Placement::choose()?;
        placement.settle()?;
        report.about("machine", machine::description()?);
        report.about("placement", placement.text(PLACES));
        let connections = raise_limit(plan.connections, report)?;
        let directory = tempfile::Builder::new()
            .prefix("bench-router-")
            .tempdir()
            .context("cannot create a temporary directory")?;
        let backend = Backend::start()?;
        let mut site = Site {
            directory: directory.path().to_owned(),
            fixed: backend.address(),
            scripted: backend.address(),
            connections: connections.into(),
            router: plan.router.clone(),
            python: plan.python.clone(),
            go: plan.go.clone(),
        };
        let mut programs = (None, backend);
        if has_nginx {
            site.fixed = free_address()?;
            let home = site.subdirectory("sandbox")?;
            let command = nginx::sandbox(&home, site.fixed, site.connections)?;
            programs.0 = Some(sandbox(command, &site).await?);
            report.about(
                "sandbox",
                "nginx for the small answers, the bench's own server for streams and tunnels"
                    .to_owned(),
            );
        } else {
            report.about(
                "sandbox",
                "the bench's own server, for nginx is not installed".to_owned(),
            );
        }
        report.about("generator", generator.text());
        let mut peers = Vec::new();
        for kind in plan.peers.iter().copied() {
            match kind.missing(&site) {
                None => {
                    peers.push(kind);
                    if let Some(version) = kind.version() {
                        report.about(kind.name(), version);
                    }
                }
                Some(why) => report.absent(kind, &why),
            }
        }
        Ok(Self {
            plan: Plan {
                connections,
                ..plan
            },
            placement,
            site,
            generator,
            peers,
            programs,
            _directory: directory,
        })
    }

    /// Starts everybody who is measured.
    pub async fn cast(&self) -> Result<Vec<Peer>> {
        let mut cast = Vec::new();
        for kind in &self.peers {
            cast.push(self.start(*kind).await?);
        }
        Ok(cast)
    }

    /// Who is measured, without the sandbox itself.
    pub fn proxies(&self) -> Vec<Kind> {
        let all = self.peers.iter().copied();
        all.filter(|kind| *kind != Kind::Direct).collect()
    }

    /// Starts one.
    pub async fn start(&self, kind: Kind) -> Result<Peer> {
        Peer::start(kind, &self.site, self.placement)
            .await
            .with_context(|| format!("{} cannot be measured", kind.name()))
    }

    /// The processes of the sandbox, if it has any besides this one.
    pub fn sandbox(&self) -> Result<Option<Tree>> {
        self.programs.0.as_ref().map(Program::tree).transpose()
    }

    /// A gate for all rounds of the run.
    pub fn gate(&self) -> Gate {
        Gate::new(self.plan.patience, self.plan.look)
    }
}

/// Starts nginx as the sandbox and waits until it listens.
async fn sandbox(command: Command, site: &Site) -> Result<Program> {
    let output = site.directory.join("sandbox.txt");
    let mut program = Program::start("nginx, as the sandbox", command, &output)?;
    let deadline = Instant::now() + START;
    while let Err(error) = timeout(START, Connection::open(site.fixed)).await? {
        program.check()?;
        if Instant::now() >= deadline {
            return Err(error);
        }
        sleep(PAUSE).await;
    }
    Ok(program)
}

/// Lets this process and its children open as many files as the hard limit allows, and returns how
/// many connections that is enough for.
fn raise_limit(connections: u32, report: &mut Report) -> Result<u32> {
    let limit = getrlimit(Resource::Nofile);
    if let Some(maximum) = limit.maximum {
        let raised = Rlimit {
            current: Some(maximum),
            ..limit
        };
        setrlimit(Resource::Nofile, raised).context("cannot raise the limit on open files")?;
    }
    let possible = affordable(limit.maximum);
    let text = |limit: Option<u64>| limit.map_or_else(|| "none".to_owned(), |it| it.to_string());
    let enough = connections.min(possible);
    let shrunk = if enough < connections {
        format!(", which is enough for {enough} connections instead of {connections}")
    } else {
        String::new()
    };
    let about = format!(
        "raised from {} to {}{shrunk}",
        text(limit.current),
        text(limit.maximum)
    );
    report.about("open files", about);
    Ok(enough)
}

/// Connections for which this many open files are enough.
fn affordable(files: Option<u64>) -> u32 {
    let Some(files) = files else {
        return u32::MAX;
    };
    u32::try_from(files.saturating_sub(OTHER_FILES) / FILES).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_files_mean_few_connections() {
        assert_eq!(affordable(Some(20_000)), 9_750);
        assert_eq!(affordable(Some(1024)), 262);
        assert_eq!(affordable(Some(10)), 0);
        assert_eq!(affordable(None), u32::MAX);
    }
}
