//! Who is measured: the router, what it is compared with, and the backend without any proxy.
//!
//! All proxies are given the same work: the headers `X-Sandbox-ID` and `X-Sandbox-Namespace` select one
//! of two sandboxes, `Authorization` is removed, `X-Forwarded-For` names the caller, bodies are not
//! buffered. [`Peer::check`] sees to it. Each has one worker or thread, and no access log unless its
//! name says so. Their configuration is generated into the run's directory.

pub mod go;
pub mod haproxy;
pub mod nginx;
pub mod python;
pub mod router;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use super::backend::Seen;
use crate::bench::client::{Connection, Request};
use crate::bench::figures::{self, Peer as _};
use crate::bench::installed::{free_address, is_installed, version};
use crate::bench::placement::Placement;
use crate::bench::program::Program;
use crate::bench::tree::Tree;

/// The namespace of both sandboxes.
pub const NAMESPACE: &str = "default";
/// How long a proxy may take until it serves.
const START: Duration = Duration::from_secs(30);
/// How long one answer may take while it starts.
const ANSWER: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// One of those that are measured.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The backend, without a proxy
    Direct,
    /// Our router without its access log, as its peers
    Router,
    /// Our router with its access log, as shipped
    RouterLog,
    /// nginx
    Nginx,
    /// HAProxy
    Haproxy,
    /// The upstream Go router
    Go,
    /// uvicorn, FastAPI and httpx
    Python,
}

/// One of the two sandboxes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sandbox {
    /// Small answers, as cheap as can be.
    Fixed,
    /// Streams and tunnels.
    Scripted,
}

/// What proxies must know.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where configuration and output go.
    pub directory: PathBuf,
    /// Where [`Sandbox::Fixed`] listens.
    pub fixed: SocketAddr,
    /// Where [`Sandbox::Scripted`] listens.
    pub scripted: SocketAddr,
    /// Connections a proxy must be able to hold to one side.
    pub connections: u64,
    /// Our router.
    pub router: PathBuf,
    /// A Python interpreter that has the packages.
    pub python: Option<PathBuf>,
    /// The upstream Go router.
    pub go: Option<PathBuf>,
}

/// One that runs.
#[derive(Debug)]
pub struct Peer {
    /// Which.
    pub kind: Kind,
    /// Where it listens; the backend itself has two addresses.
    address: Option<SocketAddr>,
    program: Option<Program>,
}

impl Kind {
    /// What it says about its version, where it says so.
    pub fn version(self) -> Option<String> {
        match self {
            Self::Nginx => version("nginx", "-v"),
            Self::Haproxy => version("haproxy", "-v"),
            Self::Direct | Self::Router | Self::RouterLog | Self::Go | Self::Python => None,
        }
    }

    /// Why it cannot be measured here, if so, and what to do about it.
    pub fn missing(self, site: &Site) -> Option<String> {
        let package = |program: &str, package: &str| {
            (!is_installed(program)).then(|| {
                format!(
                    "{program} is not installed; on Debian and Ubuntu: apt-get install {package}"
                )
            })
        };
        match self {
            Self::Direct | Self::Router | Self::RouterLog => None,
            Self::Nginx => package("nginx", "nginx-light"),
            Self::Haproxy => package("haproxy", "haproxy"),
            Self::Go => site.go.is_none().then(|| {
                "no program is named; --go-router FILE names a built upstream router".to_owned()
            }),
            Self::Python => site.python.is_none().then(|| {
                "no interpreter with FastAPI, uvicorn and httpx is named; --python FILE names one"
                    .to_owned()
            }),
        }
    }
}

impl figures::Peer for Kind {
    const OURS: Self = Self::Router;
    const RATIOS: &'static str = "router_to";

    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Router => "router",
            Self::RouterLog => "router+log",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Go => "go",
            Self::Python => "python",
        }
    }

    fn is_ours(self) -> bool {
        matches!(self, Self::Router | Self::RouterLog)
    }
}

impl Sandbox {
    /// The name in `X-Sandbox-ID`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fixed => "box",
            Self::Scripted => "stream",
        }
    }
}

impl Site {
    /// Where a sandbox listens.
    pub fn address(&self, sandbox: Sandbox) -> SocketAddr {
        match sandbox {
            Sandbox::Fixed => self.fixed,
            Sandbox::Scripted => self.scripted,
        }
    }

    /// A directory of this name, made if need be.
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    }
}

impl Peer {
    /// Starts it on the proxies' processor and waits until it serves.
    pub async fn start(kind: Kind, site: &Site, placement: Placement) -> Result<Self> {
        let address = free_address()?;
        let command = match kind {
            Kind::Direct => {
                return Ok(Self {
                    kind,
                    address: None,
                    program: None,
                });
            }
            Kind::Router => router::command(site, address, false),
            Kind::RouterLog => router::command(site, address, true),
            Kind::Nginx => nginx::proxy(site, address)?,
            Kind::Haproxy => haproxy::proxy(site, address)?,
            Kind::Go => go::command(site, address)?,
            Kind::Python => python::command(site, address)?,
        };
        let output = site
            .directory
            .join(format!("{}-{}.txt", kind.name(), address.port()));
        let program =
            placement.with_measured(|| Program::start(kind.name(), command, &output))??;
        let mut peer = Self {
            kind,
            address: Some(address),
            program: Some(program),
        };
        peer.serves(site).await?;
        peer.check(site).await?;
        Ok(peer)
    }

    /// A proxy in this process.
    #[cfg(test)]
    pub(super) fn here(kind: Kind, address: Option<SocketAddr>) -> Self {
        Self {
            kind,
            address,
            program: None,
        }
    }

    /// Its processes, unless there is no proxy.
    pub fn tree(&self) -> Result<Option<Tree>> {
        self.program.as_ref().map(Program::tree).transpose()
    }

    /// A request to a sandbox through it.
    pub fn request(&self, site: &Site, sandbox: Sandbox, path: &str) -> Request {
        let backend = site.address(sandbox);
        let mut headers = vec![
            ("X-Sandbox-ID", sandbox.name().to_owned()),
            ("X-Sandbox-Namespace", NAMESPACE.to_owned()),
            ("X-Sandbox-Port", backend.port().to_string()),
            ("Authorization", "Bearer of-the-caller".to_owned()),
        ];
        if self.kind == Kind::Go {
            headers.push(("X-Sandbox-Pod-IP", backend.ip().to_string()));
        }
        Request {
            address: self.address.unwrap_or(backend),
            path: path.to_owned(),
            headers,
        }
    }

    /// Forgets what it printed: an access log grows.
    pub fn forget_output(&self) -> Result<()> {
        self.program.as_ref().map_or(Ok(()), Program::forget_output)
    }

    /// Waits until it answers for the backend.
    async fn serves(&mut self, site: &Site) -> Result<()> {
        let deadline = Instant::now() + START;
        let request = self.request(site, Sandbox::Fixed, "/2");
        loop {
            if let Some(program) = &mut self.program {
                program.check()?;
            }
            let problem = match timeout(ANSWER, get(&request)).await {
                Ok(Ok(200)) => return Ok(()),
                Ok(Ok(status)) => format!("it answers {status}"),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => format!("no answer within {} s", ANSWER.as_secs()),
            };
            if Instant::now() >= deadline {
                bail!(
                    "{} does not serve within {} s: {problem}",
                    self.kind.name(),
                    START.as_secs()
                );
            }
            sleep(PAUSE).await;
        }
    }

    /// Fails unless it does the work that is compared.
    pub(super) async fn check(&self, site: &Site) -> Result<()> {
        let name = self.kind.name();
        let request = self.request(site, Sandbox::Scripted, "/seen");
        let mut connection = Connection::open(request.address).await?;
        connection.send(request.head("GET", "").as_bytes()).await?;
        let (_, text) = timeout(ANSWER, connection.text()).await??;
        let expected = Seen {
            authorization: false,
            forwarded_for: true,
        };
        ensure!(
            Seen::parse(&text) == Some(expected),
            "{name} forwards other headers than it should: {text}"
        );
        // The upstream router takes the caller's word for the address.
        if self.kind != Kind::Go {
            let mut stranger = self.request(site, Sandbox::Fixed, "/2");
            for (header, value) in &mut stranger.headers {
                if *header == "X-Sandbox-ID" {
                    "nobody".clone_into(value);
                }
            }
            let status = timeout(ANSWER, get(&stranger)).await??;
            ensure!(
                (400..600).contains(&status),
                "{name} answers {status} for a sandbox that does not exist"
            );
        }
        Ok(())
    }
}

/// The status of the answer to a request on a connection of its own.
async fn get(request: &Request) -> Result<u16> {
    let mut connection = Connection::open(request.address).await?;
    let answer = connection
        .exchange(request.head("GET", "").as_bytes())
        .await?;
    Ok(answer.status)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
