//! `scripted-sandboxes`: [scripted sandboxes](agent_sandbox_load::sandbox) in a process of their own, so
//! that what they hold is not counted for their clients. Ends on SIGTERM, or when its standard input
//! does, and so never outlives who started it.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use agent_sandbox_load::sandbox::{Identity, PORT, Sandbox};
use agent_sandbox_service::shutdown::{self, Shutdown};
use anyhow::{Context, Result};
use clap::Parser;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::AsyncReadExt;

/// What the user says.
#[derive(Debug, Parser)]
#[command(
    name = "scripted-sandboxes",
    version,
    about = "Sandboxes that say who they are, for load on a router"
)]
struct Args {
    /// The sandboxes, in the notation of the router's --static-sandboxes
    #[arg(
        required = true,
        value_delimiter = ',',
        value_name = "NAMESPACE/NAME=IP,..."
    )]
    sandboxes: Vec<Given>,
    /// The port on which each listens
    #[arg(long, default_value_t = PORT, value_name = "PORT")]
    port: u16,
}

/// One sandbox as it is given.
#[derive(Clone, Debug)]
struct Given {
    identity: Identity,
    ip: IpAddr,
}

impl FromStr for Given {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let expected = || format!("{text:?}: expected NAMESPACE/NAME=IP");
        let (sandbox, ip) = text.split_once('=').with_context(expected)?;
        let (namespace, name) = sandbox.split_once('/').with_context(expected)?;
        Ok(Self {
            identity: Identity::first(namespace, name),
            ip: ip.parse().with_context(expected)?,
        })
    }
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(run(Args::parse()));
    // Reading standard input holds a thread for as long as it blocks.
    runtime.shutdown_background();
    outcome
}

async fn run(Args { sandboxes, port }: Args) -> Result<()> {
    let mut descriptors = getrlimit(Resource::Nofile);
    descriptors.current = descriptors.maximum;
    setrlimit(Resource::Nofile, descriptors).context("cannot raise the limit of descriptors")?;
    let signalled = shutdown::signals(&Shutdown::new()).context("cannot listen for signals")?;
    let running = sandboxes
        .into_iter()
        .map(|given| Sandbox::start(given.identity, SocketAddr::new(given.ip, port)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut input = tokio::io::stdin();
    let mut ignored = [0; 64];
    tokio::select! {
        _ = signalled => {}
        () = async { while input.read(&mut ignored).await.is_ok_and(|n| n > 0) {} } => {}
    }
    drop(running);
    Ok(())
}
