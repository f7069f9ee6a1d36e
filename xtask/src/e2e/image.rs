//! Whether the cluster's nodes have the image that the pods of the suites run. A pod tells at once what would
//! otherwise be minutes of tests that wait for pods which cannot start.

use anyhow::{Result, anyhow, bail};

use super::Run;
use super::cluster::{NAMESPACE, image_trouble};
use crate::report;

/// The image of the Rust suites' pods.
const IMAGE: &str = "agent-sandbox-runtime:0.1.0";
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
        "{trouble}: the nodes do not have the image that {who} name; load it into their image store first, such \
         as with `ctr --namespace k8s.io images import`, `kind load` or `minikube image load`"
    )
}

const PULL: &str = "--image-pull-policy=IfNotPresent";
