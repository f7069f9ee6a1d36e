//! What all legs share: where things run, who is there, and what a leg starts.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::args::Plan;
use super::grpc;
use super::peers::{Kind, Who};
use super::report::Report;
use super::server::{Server, Site};
use crate::bench::figures::Peer as _;
use crate::bench::placement::Placement;
use crate::bench::rounds::Gate;
use crate::bench::tree::Tree;
use crate::bench::watch;
use crate::machine;

/// What runs where.
const PLACES: [&str; 2] = ["the server and what it starts", "the client"];

/// The scenery. Dropping it removes its directories.
#[derive(Debug)]
pub struct Stage {
    /// What to do.
    pub plan: Plan,
    /// Where things run.
    pub placement: Placement,
    /// Whether memory of other processes may be looked at: the runtime hides its own from all but root.
    pub sees_memory: bool,
    directory: TempDir,
}

/// The servers of a leg. Dropping it ends them.
#[derive(Debug)]
pub struct Cast {
    /// Who is measured.
    pub kinds: Vec<Kind>,
    /// Who serves.
    pub servers: Vec<Server>,
}

impl Stage {
    /// Sets it, and notes in the report what it is made of.
    pub fn set(plan: Plan, report: &mut Report) -> Result<Self> {
        let placement = Placement::choose()?;
        placement.settle()?;
        report.about("machine", machine::description()?);
        report.about("placement", placement.text(PLACES));
        let sees_memory = rustix::process::geteuid().is_root();
        if !sees_memory {
            report.about(
                "memory",
                "left out: the runtime hides its memory from all but root".to_owned(),
            );
        }
        if plan.grown.is_some() {
            report.about(
                "embedded",
                "the runtime in grown-runtime, built like the bench: compare its two columns with each other"
                    .to_owned(),
            );
        }
        for kind in [Kind::Grown, Kind::Python] {
            if let Some(why) = kind.who().and_then(|who| who.missing(&plan)) {
                report.absent(kind, why);
            }
        }
        let directory = temporary(&std::env::temp_dir())?;
        Ok(Self {
            plan,
            placement,
            sees_memory,
            directory,
        })
    }

    /// A directory of this name, made if need be, for servers that need one only to have one.
    pub fn root(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    }

    /// Starts the servers of these that are there. `more` is for the runtime only.
    pub async fn cast(
        &self,
        kinds: &[Kind],
        root: &Path,
        more: &[&str],
        report: &mut Report,
    ) -> Result<Cast> {
        let mut cast = Cast {
            kinds: Vec::new(),
            servers: Vec::new(),
        };
        for kind in kinds.iter().copied() {
            if let Some(who) = kind.who() {
                if who.missing(&self.plan).is_some() {
                    continue;
                }
                if cast.of(kind).is_none() {
                    cast.servers.push(self.start(who, root, more).await?);
                }
            }
            if let (Kind::Grpc, Some(server)) = (kind, cast.of(kind))
                && let Some(why) = grpc::missing(server.address).await?
            {
                report.absent(kind, &format!("not served ({why})"));
                continue;
            }
            cast.kinds.push(kind);
        }
        Ok(cast)
    }

    /// Starts one.
    pub async fn start(&self, who: Who, root: &Path, more: &[&str]) -> Result<Server> {
        let site = Site {
            plan: &self.plan,
            directory: self.directory.path(),
            placement: self.placement,
        };
        Server::start(who, site, root, more).await
    }

    /// A gate for all rounds of the run.
    pub fn gate(&self) -> Gate {
        Gate::new(self.plan.patience, self.plan.look)
    }
}

impl Cast {
    /// Who serves for one.
    pub fn of(&self, kind: Kind) -> Option<&Server> {
        let who = kind.who()?;
        self.servers.iter().find(|server| server.who == who)
    }

    /// The same, where there must be one.
    pub fn server(&self, kind: Kind) -> Result<&Server> {
        self.of(kind)
            .with_context(|| format!("{} has no server", kind.name()))
    }

    /// Moves all servers to one processor, and so what they start from now on.
    pub fn pin(&self, processor: usize) -> Result<()> {
        let processors = [processor];
        self.spread(&processors)
    }

    /// Lets all servers use these processors, and so what they start from now on.
    pub fn spread(&self, processors: &[usize]) -> Result<()> {
        for server in &self.servers {
            server.tree()?.place(processors)?;
        }
        Ok(())
    }

    /// Measures, and measures again if others worked meanwhile, for as long as patience lasts.
    pub async fn undisturbed<T>(
        &self,
        gate: &mut Gate,
        report: &mut Report,
        measure: impl AsyncFn() -> Result<T>,
    ) -> Result<T> {
        let trees: Result<Vec<Tree>> = self.servers.iter().map(Server::tree).collect();
        let found = watch::undisturbed(&trees?, gate, report, measure).await;
        for server in &self.servers {
            server.forget_output()?;
        }
        found
    }
}

/// A directory that goes with its owner.
pub fn temporary(parent: &Path) -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("bench-runtime-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot create a directory in {}", parent.display()))
}
