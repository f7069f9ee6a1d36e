//! A router without a cluster: every sandbox is given on the command line.
//!
//! ```text
//! cargo run --example fixed -- 127.0.0.1:8080 default/box=127.0.0.1
//! ```
//!
//! Useful to try the router in front of any HTTP server, and to measure it.

use std::net::{IpAddr, SocketAddr};

use agent_sandbox_router::authz::Authorizer;
use agent_sandbox_router::resolve::fixed::Fixed;
use agent_sandbox_router::{Config, Router};
use agent_sandbox_service::listen;
use agent_sandbox_service::shutdown::{self, Shutdown};
use anyhow::Context;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address: SocketAddr = arguments
        .next()
        .context("expected an address to listen on")?
        .parse()?;
    let mut sandboxes = Fixed::new();
    for argument in arguments {
        let (name, ip) = argument
            .split_once('=')
            .context("expected NAMESPACE/NAME=IP")?;
        let (namespace, name) = name.split_once('/').context("expected NAMESPACE/NAME=IP")?;
        let ip: IpAddr = ip.parse()?;
        sandboxes = sandboxes.sandbox(namespace, name, ip);
    }
    let mut config = Config::new(Authorizer::AllowAll);
    config.access_log = false;
    let router = Router::builder(config)
        .resolver(sandboxes.into_table())
        .build()?;
    let order = Shutdown::new();
    let serving = router.serve(listen::bind(address)?, order.clone());
    let ((), signal) = tokio::join!(serving, shutdown::signals(&order));
    signal?;
    Ok(())
}
