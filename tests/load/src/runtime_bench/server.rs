//! A server under test: how it is started, where it listens, and what it spends.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep, timeout};

use super::args::Plan;
use super::peers::Who;
use crate::bench::client::{Connection, Request};
use crate::bench::installed::free_address;
use crate::bench::placement::Placement;
use crate::bench::program::Program;
use crate::bench::tree::Tree;

const SCRIPT: &str = include_str!("../../python/runtime.py");
/// How long one may take until it serves; a grown one touches its memory first.
const START: Duration = Duration::from_secs(60);
/// How long one answer may take while it starts.
const ANSWER: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    /// Which.
    pub who: Who,
    /// Where it listens.
    pub address: SocketAddr,
    program: Program,
}

/// What a server needs.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The programs.
    pub plan: &'a Plan,
    /// Where output goes.
    pub directory: &'a Path,
    /// Where it runs.
    pub placement: Placement,
}

impl Who {
    /// Why it cannot be measured here, if so, and what to do about it.
    pub fn missing(self, plan: &Plan) -> Option<&'static str> {
        match self {
            Self::Runtime => None,
            Self::Embedded | Self::Grown => plan.grown.is_none().then_some(
                "the program grown-runtime is not named; --grown FILE names it",
            ),
            Self::Python | Self::PythonGrown => plan.python.is_none().then_some(
                "no interpreter with FastAPI, uvicorn and python-multipart is named; --python FILE names one",
            ),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Embedded => "embedded",
            Self::Grown => "grown",
            Self::Python => "python",
            Self::PythonGrown => "python-grown",
        }
    }
}

impl Server {
    /// Starts it, serving this directory, and waits until it answers. `more` is for the runtime only.
    pub async fn start(who: Who, site: Site<'_>, root: &Path, more: &[&str]) -> Result<Self> {
        // Logs of servers that were started before may still be there.
        let output = unused(site.directory, who.name())?;
        let mut listens = None;
        let mut command = if who.is_python() {
            let address = free_address()?;
            listens = Some(address);
            python(who, site, address, root)?
        } else {
            runtime(who, site.plan, root, more)?
        };
        command.env("PATH", search_path());
        let program = site
            .placement
            .with_measured(|| Program::start(who.name(), command, &output))??;
        let mut server = Self {
            who,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            program,
        };
        server.serves(listens, &output).await?;
        server.program.forget_output()?;
        if who.is_grown() {
            let resident = server.tree()?.resident()?;
            ensure!(
                resident >= site.plan.held << 20,
                "{} should hold {} MiB and has {resident} bytes resident",
                who.name(),
                site.plan.held
            );
        }
        Ok(server)
    }

    /// Its processes.
    pub fn tree(&self) -> Result<Tree> {
        self.program.tree()
    }

    /// Forgets what it printed: an access log grows.
    pub fn forget_output(&self) -> Result<()> {
        self.program.forget_output()
    }

    /// A request to it.
    pub fn request(&self, path: &str) -> Request {
        Request {
            address: self.address,
            path: path.to_owned(),
            headers: Vec::new(),
        }
    }

    /// Waits until it answers: where it listens is known, or in its log.
    async fn serves(&mut self, listens: Option<SocketAddr>, output: &Path) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            self.program.check()?;
            let text = std::fs::read_to_string(output)
                .with_context(|| format!("cannot read {}", output.display()))?;
            let problem = match listens.or_else(|| logged_address(&text)) {
                None => "its log does not say where".to_owned(),
                Some(address) => {
                    self.address = address;
                    match timeout(ANSWER, get(&self.request("/"))).await {
                        Ok(Ok(200)) => return Ok(()),
                        Ok(Ok(status)) => format!("it answers {status}"),
                        Ok(Err(error)) => format!("{error:#}"),
                        Err(_) => format!("no answer within {} s", ANSWER.as_secs()),
                    }
                }
            };
            if Instant::now() >= deadline {
                bail!(
                    "{} does not serve within {} s: {problem}",
                    self.who.name(),
                    START.as_secs()
                );
            }
            sleep(PAUSE).await;
        }
    }
}

fn runtime(who: Who, plan: &Plan, root: &Path, more: &[&str]) -> Result<Command> {
    let mut command = if who == Who::Runtime {
        Command::new(&plan.runtime)
    } else {
        let held = if who.is_grown() { plan.held } else { 0 };
        let mut command = Command::new(plan.grown.as_ref().context("--grown is not given")?);
        command.arg(held.to_string());
        command
    };
    command
        .args(["--address", "127.0.0.1", "--port", "0", "--root-dir"])
        .arg(root)
        .args(["--log-format", "json", "--log-filter", "info"])
        .args(more);
    Ok(command)
}

fn python(who: Who, site: Site<'_>, address: SocketAddr, root: &Path) -> Result<Command> {
    let interpreter = site.plan.python.as_ref();
    let script = site.directory.join("runtime.py");
    std::fs::write(&script, SCRIPT)
        .with_context(|| format!("cannot write {}", script.display()))?;
    let held = if who.is_grown() { site.plan.held } else { 0 };
    let mut command = Command::new(interpreter.context("--python is not given")?);
    command.args([
        script.into_os_string(),
        address.ip().to_string().into(),
        address.port().to_string().into(),
        root.as_os_str().to_owned(),
        OsString::from(held.to_string()),
    ]);
    Ok(command)
}

/// Where servers look for the programs of commands: as in the images, so that a machine with more places
/// does not measure those; and then wherever else this machine has programs.
fn search_path() -> OsString {
    let mut path = OsString::from("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    if let Some(own) = std::env::var_os("PATH") {
        path.push(":");
        path.push(own);
    }
    path
}

/// A file of this name that is not there yet.
fn unused(directory: &Path, name: &str) -> Result<PathBuf> {
    (0..u32::MAX)
        .map(|number| directory.join(format!("{name}-{number}.txt")))
        .find(|path| !path.exists())
        .context("the directory is full")
}

/// The address in the line in which the runtime says that it serves.
fn logged_address(text: &str) -> Option<SocketAddr> {
    text.lines().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let field = |name| line.get(name).and_then(serde_json::Value::as_str);
        (field("message") == Some("serving")).then(|| field("address")?.parse().ok())?
    })
}

/// The status of the answer to a request on a connection of its own.
async fn get(request: &Request) -> Result<u16> {
    let mut connection = Connection::open(request.address).await?;
    let answer = connection
        .exchange(request.head("GET", "").as_bytes())
        .await?;
    Ok(answer.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_where_it_serves() {
        let text = "not json\n{\"level\":\"INFO\",\"message\":\"ready\"}\n{\"message\":\"serving\",\"address\":\"127.0.0.1:4711\",\"root\":\"/x\"}\n";
        let address = logged_address(text).unwrap();
        assert_eq!(address, SocketAddr::from(([127, 0, 0, 1], 4711)));
        assert_eq!(logged_address("{\"message\":\"serving\"}"), None);
        // Half a line is none yet.
        assert_eq!(logged_address("{\"message\":\"serving\",\"addr"), None);
    }
}
