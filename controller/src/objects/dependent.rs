//! `Service` and `PersistentVolumeClaim` as kept: enough to see who owns them and whether the
//! managed part has drifted.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::{DecodeError, Head, Labels, Metadata, Row};
use crate::ident::Text;
use crate::intern::Interner;
use crate::json_text::JsonText;

/// A Service.
#[derive(Clone, Debug)]
pub struct ServiceRow {
    /// Identity.
    pub head: Head,
    /// Labels.
    pub labels: Arc<Labels>,
    /// `spec.selector`.
    pub selector: Arc<Labels>,
    /// `spec.ports` as JSON text; `[]` when there are none.
    pub ports: Text,
    /// Whether the Service has no cluster address (`None`, or not assigned yet).
    pub headless: bool,
}

/// The members of a Service that are read.
#[derive(Clone, Debug, Deserialize)]
pub struct ServiceWire {
    metadata: Metadata,
    #[serde(default)]
    spec: ServiceSpecWire,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceSpecWire {
    selector: Option<BTreeMap<String, String>>,
    ports: Option<JsonText>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
}

impl Row for ServiceRow {
    type Wire = ServiceWire;
    const KIND: &'static str = "Service";

    fn from_wire(wire: ServiceWire, interner: &Interner) -> Result<Self, DecodeError> {
        let ServiceWire { metadata, spec } = wire;
        let ports = spec.ports.as_ref().map_or("[]", JsonText::as_str);
        Ok(Self {
            head: Head::read(Self::KIND, &metadata, interner)?,
            labels: Labels::read(metadata.labels.as_ref(), interner),
            selector: Labels::read(spec.selector.as_ref(), interner),
            ports: interner.text(if ports == "null" { "[]" } else { ports }),
            headless: matches!(spec.cluster_ip.as_deref(), None | Some("" | "None")),
        })
    }

    fn head(&self) -> &Head {
        &self.head
    }
}

/// A `PersistentVolumeClaim`.
#[derive(Clone, Debug)]
pub struct VolumeClaimRow {
    /// Identity.
    pub head: Head,
    /// Labels.
    pub labels: Arc<Labels>,
    /// How many owners it has, the controlling one included.
    pub owners: usize,
}

/// The members of a `PersistentVolumeClaim` that are read.
#[derive(Clone, Debug, Deserialize)]
pub struct VolumeClaimWire {
    metadata: Metadata,
}

impl Row for VolumeClaimRow {
    type Wire = VolumeClaimWire;
    const KIND: &'static str = "PersistentVolumeClaim";

    fn from_wire(wire: VolumeClaimWire, interner: &Interner) -> Result<Self, DecodeError> {
        Ok(Self {
            head: Head::read(Self::KIND, &wire.metadata, interner)?,
            labels: Labels::read(wire.metadata.labels.as_ref(), interner),
            owners: wire.metadata.owner_references.len(),
        })
    }

    fn head(&self) -> &Head {
        &self.head
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_without_an_address_is_headless() {
        for (ip, headless) in [
            (json!("None"), true),
            (json!(""), true),
            (json!(null), true),
            (json!("10.0.0.7"), false),
        ] {
            let wire = serde_json::from_value(json!({
                "metadata": {"name": "s", "namespace": "n", "resourceVersion": "1"},
                "spec": {"clusterIP": ip, "selector": {"a": "b"}},
            }))
            .unwrap();
            let row = ServiceRow::from_wire(wire, &Interner::default()).unwrap();
            assert_eq!(row.headless, headless, "{ip}");
            assert_eq!(&*row.ports, "[]");
            assert!(row.selector.has("a", "b"));
        }
    }
}
