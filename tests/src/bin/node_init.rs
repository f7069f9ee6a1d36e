//! The node's init helper for tests, whose own executables start threads before their `main`.

fn main() -> std::process::ExitCode {
    agent_sandbox_node::init::main()
}
