//! Whether the cluster's nodes have the image that the pods of the suites run. A pod tells at once what would
//! otherwise be minutes of tests that wait for pods which cannot start.

use anyhow::{Result, anyhow, bail};

use super::Run;
use super::cluster::{NAMESPACE, image_trouble};
use crate::report;

/// The image of the suites' pods, as `cargo xtask image shell` names it.
const IMAGE: &str = concat!("localhost/agent-sandbox-shell:", env!("CARGO_PKG_VERSION"));
/// The pod that tries it.
const PROBE: &str = "agent-sandbox-e2e-image";

impl Run<'_> {
    /// Starts a pod from the image, and removes it.
    pub(super) fn try_image(&self) -> Result<()> {
        report::step(&format!("a pod of {IMAGE}"));
        let namespace = ["--namespace", NAMESPACE];
        let image = format!("--image={IMAGE}");
        let run = ["run", PROBE, &image, PULL, "--restart=Never"];
        self.cluster.kubectl(&[&run[..], &namespace].concat())?;
        let by_name = format!("--field-selector=metadata.name={PROBE}");
        let tried = self.until("the pod to start", || {
            let list = [&["pods", &by_name][..], &namespace].concat();
            let pods = self.cluster.json(&list)?;
            if let Some(trouble) = image_trouble(&pods) {
                bail!(missing(&trouble, "the suites"));
            }
            let phase = pods.pointer("/items/0/status/phase");
            Ok(phase.is_some_and(|phase| phase != "Pending"))
        });
        let delete = ["delete", "pod", PROBE, "--grace-period=1", "--wait=false"];
        let removed = self.cluster.kubectl(&[&delete[..], &namespace].concat());
        tried?;
        removed.map(drop)
    }
}

/// What to do about an image that no node has.
pub(super) fn missing(trouble: &str, who: &str) -> anyhow::Error {
    anyhow!(
        "{trouble}: the nodes do not have the image that {who} name; build the images with `cargo xtask image` and load \
         their archives into the nodes' image store first, such as with `ctr --namespace k8s.io images import`, \
         `kind load image-archive` or `minikube image load`"
    )
}

const PULL: &str = "--image-pull-policy=IfNotPresent";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{cargo, suites};

    const PYTHON: &str = concat!("localhost/agent-sandbox-python:", env!("CARGO_PKG_VERSION"));
    const DATA: &str = concat!(
        "localhost/agent-sandbox-python-data:",
        env!("CARGO_PKG_VERSION")
    );

    /// Every image that the line of a file names after one of these.
    fn named(file: &str, before: &[&str]) -> Vec<String> {
        let text = fs::read_to_string(cargo::root().unwrap().join(file)).unwrap();
        let images: Vec<String> = text
            .lines()
            .filter_map(|line| before.iter().find_map(|key| line.trim().strip_prefix(key)))
            .map(|image| image.trim_matches(['"', ';', ' ']).to_owned())
            .collect();
        assert!(!images.is_empty(), "{file}");
        images
    }

    #[test]
    fn the_suites_name_the_image_that_is_tried() {
        let constant = ["pub const IMAGE: &str ="];
        assert_eq!(named("tests/src/cluster/target.rs", &constant), [IMAGE]);
        for suite in [&suites::SDK, &suites::OLD_SDK] {
            for image in named(suite.objects, &["image:"]) {
                assert_eq!(image, IMAGE, "{}", suite.objects);
            }
        }
        let three = [IMAGE, PYTHON, DATA];
        assert_eq!(named(suites::SDK_CLUSTER.objects, &["image:"]), three);
    }

    #[test]
    fn the_example_names_an_image_that_is_built() {
        assert_eq!(named("examples/template.yaml", &["image:"]), [PYTHON]);
    }
}
