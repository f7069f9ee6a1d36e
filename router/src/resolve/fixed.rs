//! A table that never changes: for tests, load generators and routers without a cluster.

use std::net::IpAddr;
use std::sync::Arc;

use super::table::{Addresses, Kind, Phase, PodFacts, SandboxFacts, Table, Trust, Uid};

/// Builds a loaded [`Table`] from sandboxes given one by one.
#[derive(Debug)]
pub struct Fixed(Table);

impl Default for Fixed {
    fn default() -> Self {
        Self::new()
    }
}

impl Fixed {
    /// No sandboxes.
    pub fn new() -> Self {
        let table = Table::new(Trust::Sandboxes, None);
        table.set_loaded(Kind::Pods);
        table.set_loaded(Kind::Sandboxes);
        Self(table)
    }

    /// Adds a running sandbox whose pod has `address`. Its UID is `uid-<namespace>-<name>`.
    #[must_use]
    pub fn sandbox(self, namespace: &str, name: &str, address: IpAddr) -> Self {
        let (namespace, name): (Arc<str>, Arc<str>) = (namespace.into(), name.into());
        let uid = |kind: &str| Uid::Text(format!("{kind}-{namespace}-{name}").into());
        self.0.update(|index| {
            index.apply_sandbox(SandboxFacts {
                uid: uid("uid"),
                namespace: namespace.clone(),
                name: name.clone(),
                pod_name: None,
                phase: Phase::Running,
                pooled: false,
            });
            index.apply_pod(PodFacts {
                uid: uid("pod"),
                namespace: namespace.clone(),
                name: name.clone(),
                sandbox_uid: uid("uid"),
                sandbox_name: name.clone(),
                addresses: Addresses::new([address]),
                ready: true,
                deleting: false,
                pooled: false,
            });
        });
        self
    }

    /// The table, to share.
    pub fn into_table(self) -> Arc<Table> {
        Arc::new(self.0)
    }
}
