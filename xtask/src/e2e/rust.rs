//! The Rust suites against the cluster. What cannot be tried there is said, with the reason, and left
//! out; nothing passes without having been tried.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Run;
use crate::suites::{Count, TESTS};
use crate::{cargo, report};

impl Run<'_> {
    pub(super) fn conformance(&self) -> Result<(Count, bool)> {
        self.watch(&mut self.tests("conformance", &[])?)
    }

    pub(super) fn e2e(&self) -> Result<(Count, bool)> {
        let list = cargo::root()?.join(IN_PROCESS_ONLY);
        let text = std::fs::read_to_string(&list)
            .with_context(|| format!("cannot read {}", list.display()))?;
        let mut arguments = vec!["--test-threads=4".to_owned()];
        for (name, reason) in in_process_only(&text)? {
            report::line(&format!("NOT RUN on a cluster: {name}: {reason}"));
            arguments.push("--skip".to_owned());
            arguments.push(if name.contains("::") {
                name.to_owned()
            } else {
                format!("{name}::")
            });
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.watch(&mut self.tests("e2e", &arguments)?)
    }

    pub(super) fn nodes(&self) -> Result<(Count, bool)> {
        let arguments = [
            "--ignored",
            "--nocapture",
            "--test-threads=2",
            "real_nodes::",
        ];
        self.watch(&mut self.tests("e2e", &arguments)?)
    }

    pub(super) fn faults(&self) -> Result<(Count, bool)> {
        // One at a time: the API server is everybody's.
        let mut arguments = vec!["--ignored", "--nocapture", "--test-threads=1", "faults::"];
        if self.control.is_none() {
            report::line(&format!(
                "NOT RUN: {API_SERVER}*: nothing was given that stops and starts the API server; \
                 give its program with --cluster-control FILE"
            ));
            arguments.extend(["--skip", API_SERVER]);
        }
        self.watch(&mut self.tests("e2e", &arguments)?)
    }

    /// The command that runs a target of the suites with these arguments to the test program.
    fn tests(&self, target: &str, arguments: &[&str]) -> Result<Command> {
        let kubeconfig = Path::new(&self.cluster.kubeconfig);
        if !kubeconfig.is_file() {
            bail!(
                "the Rust suites read one kubeconfig, and {} is not a file; merge several with \
                 `kubectl config view --flatten`",
                kubeconfig.display()
            );
        }
        let test = ["test", "--package", TESTS, "--test", target, "--"];
        let mut command = cargo::cargo(&[&test, arguments].concat())?;
        command
            .env("AGENT_SANDBOX_TEST_KUBECONFIG", kubeconfig)
            .env("AGENT_SANDBOX_TEST_RUNTIME_HANDLER", self.runtime_handler);
        if let Some(control) = &self.control {
            command.env("AGENT_SANDBOX_TEST_CLUSTER_CONTROL", control);
        }
        Ok(command)
    }
}

/// Modules or tests, and reasons: one `NAME: REASON` a line.
fn in_process_only(text: &str) -> Result<Vec<(&str, &str)>> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, reason) = line
                .split_once(": ")
                .with_context(|| format!("{IN_PROCESS_ONLY}: expected `NAME: REASON`: {line}"))?;
            Ok((name, reason))
        })
        .collect()
}

const IN_PROCESS_ONLY: &str = "tests/e2e/in_process_only.txt";
/// The tests that stop the API server.
const API_SERVER: &str = "faults::api_server::";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_a_name_and_a_reason() {
        let list = in_process_only("# why\n\na: it is b\nc::d: e: f\n").unwrap();
        assert_eq!(list, [("a", "it is b"), ("c::d", "e: f")]);
        let error = in_process_only("alone\n").unwrap_err().to_string();
        assert!(error.contains("alone"), "{error}");
    }

    #[test]
    fn the_list_in_the_tree_can_be_read() {
        let text = std::fs::read_to_string(cargo::root().unwrap().join(IN_PROCESS_ONLY)).unwrap();
        for (name, _) in in_process_only(&text).unwrap() {
            let (module, function) = name.split_once("::").unwrap_or((name, ""));
            let file = cargo::root()
                .unwrap()
                .join(format!("tests/e2e/{module}.rs"));
            let source = std::fs::read_to_string(&file).unwrap();
            assert!(source.contains(&format!("fn {function}")), "{name}");
        }
    }
}
