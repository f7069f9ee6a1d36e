//! The platform around the SDK suites: the operator and the router as children of this command, and
//! the objects that the suite works on.

use std::net::TcpListener;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Run;
use super::cluster::{NAMESPACE, OURS, image_trouble};
use super::image::missing;
use crate::children::Child;
use crate::suites::{Count, PythonSuite};
use crate::{python, suites};

impl Run<'_> {
    /// Runs a Python suite, and leaves nothing running.
    pub(super) fn sdk(&self, suite: &PythonSuite) -> Result<(Count, bool)> {
        let python = python::environment(suite.environment, suite.requirements)?;
        // The operator comes after the objects on purpose: it must find what was there before it.
        self.cluster
            .kubectl(&["apply", "--filename", suite.objects])?;
        let [operator_health, router_health, router] = free_ports()?;
        let health = format!("--health-probe-bind-address=127.0.0.1:{operator_health}");
        let operator = self.start(
            "agent-sandbox-controller",
            &[
                "--extensions",
                "--leader-elect=false",
                "--metrics-bind-address=0",
                &health,
            ],
        )?;
        let http = format!("--http-bind-address=127.0.0.1:{router}");
        let health = format!("--health-probe-bind-address=127.0.0.1:{router_health}");
        let router_program = self.start(
            "agent-sandbox-router",
            &[
                "--authz-mode=allow-all",
                "--metrics-bind-address=",
                "--shutdown-delay=0s",
                &http,
                &health,
            ],
        )?;
        let mut children = [operator, router_program];
        for (child, port) in children.iter_mut().zip([operator_health, router_health]) {
            self.until(&format!("{} to become ready", child.name()), || {
                child.check()?;
                Ok(crate::children::answers_ready(port))
            })?;
        }
        self.until("the pool `warm` to fill", || {
            self.pool_is_full(suite.objects)
        })?;

        let mut command = Command::new(&python);
        suites::pytest(&mut command, suite.directory)?
            .env("KUBECONFIG", &self.cluster.kubeconfig)
            .env("SANDBOX_ROUTER_URL", format!("http://127.0.0.1:{router}"));
        let outcome = self.watch(&mut command)?;
        for child in &mut children {
            child.check()?;
        }
        // The operator still runs: it helps to take its objects apart.
        self.cluster.remove_objects()?;
        Ok(outcome)
    }

    fn start(&self, name: &'static str, arguments: &[&str]) -> Result<Child> {
        let mut command = Command::new(self.programs.join(name));
        command
            .args(arguments)
            .env("KUBECONFIG", &self.cluster.kubeconfig);
        Child::start(name, command, &self.logs.join(format!("{name}.log")))
    }

    /// Whether every member of the pool is ready. An image that no node has ends the wait.
    fn pool_is_full(&self, objects: &str) -> Result<bool> {
        let pods = self
            .cluster
            .json(&["pods", "--selector", OURS, "--namespace", NAMESPACE])?;
        if let Some(trouble) = image_trouble(&pods) {
            bail!(missing(&trouble, &format!("the objects of {objects}")));
        }
        let pool = self
            .cluster
            .json(&["sandboxwarmpool", "warm", "--namespace", NAMESPACE])?;
        let wanted = pool.pointer("/spec/replicas").and_then(Value::as_u64);
        let ready = pool
            .pointer("/status/readyReplicas")
            .and_then(Value::as_u64);
        Ok(wanted.is_some() && ready == wanted)
    }
}

/// Ports nobody listens on. All are held until all are known, so that they differ.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let listeners: Vec<TcpListener> = (0..N)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<std::io::Result<_>>()
        .context("no port is free")?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_are_free() {
        // Any other program may take a port between the two looks, but not every time.
        let free = (0..20).any(|_| {
            let [one, two, three] = free_ports().unwrap();
            assert!(one != two && two != three && one != three);
            TcpListener::bind(("127.0.0.1", one)).is_ok()
        });
        assert!(free);
    }
}
