//! `agent-sandbox-controller`: the operator as a program of its own.

use agent_sandbox_controller::args::Args;
use clap::Parser;

fn main() -> anyhow::Result<()> {
    Args::parse().run()
}
