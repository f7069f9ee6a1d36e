//! The init helper as a program of its own, for hosts that do not want to re-execute themselves.
//! See `agent_sandbox_node::init`.

fn main() -> std::process::ExitCode {
    agent_sandbox_node::init::main()
}
