//! What pods are given: configuration, identity and storage.

use serde_json::Value;

use super::wide_column;
use super::{Kind, age, at, is_deleting, items, name, text, text_column, text_or};

pub(super) static CONFIG_MAPS: Kind = Kind {
    columns: &[text_column("Name"), text_column("Data"), text_column("Age")],
    cells: |object, now| {
        let entries = entries(object, "data") + entries(object, "binaryData");
        vec![name(object), entries.into(), age(object, now)]
    },
};

pub(super) static SECRETS: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Type"),
        text_column("Data"),
        text_column("Age"),
    ],
    cells: |object, now| {
        let entries = entries(object, "data");
        vec![
            name(object),
            text(object, "type").into(),
            entries.into(),
            age(object, now),
        ]
    },
};

pub(super) static SERVICE_ACCOUNTS: Kind = Kind {
    columns: &[text_column("Name"), text_column("Age")],
    cells: |object, now| vec![name(object), age(object, now)],
};

pub(super) static CLAIMS: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Status"),
        text_column("Volume"),
        text_column("Capacity"),
        text_column("Access Modes"),
        text_column("StorageClass"),
        text_column("VolumeAttributesClass"),
        text_column("Age"),
        wide_column("VolumeMode"),
    ],
    cells: |object, now| {
        let volume = text(object, "spec.volumeName");
        let (capacity, modes) = if volume.is_empty() {
            (String::new(), String::new())
        } else {
            let capacity = text_or(object, "status.capacity.storage", "0").to_owned();
            (capacity, access_modes(items(object, "status.accessModes")))
        };
        vec![
            name(object),
            phase(object).into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            storage_class(object).into(),
            text_or(object, "spec.volumeAttributesClassName", "<unset>").into(),
            age(object, now),
            text_or(object, "spec.volumeMode", "<unset>").into(),
        ]
    },
};

pub(super) static VOLUMES: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Capacity"),
        text_column("Access Modes"),
        text_column("Reclaim Policy"),
        text_column("Status"),
        text_column("Claim"),
        text_column("StorageClass"),
        text_column("VolumeAttributesClass"),
        text_column("Reason"),
        text_column("Age"),
        wide_column("VolumeMode"),
    ],
    cells: |object, now| {
        let claim = at(object, "spec.claimRef");
        let claim = if claim.is_null() {
            String::new()
        } else {
            format!("{}/{}", text(claim, "namespace"), text(claim, "name"))
        };
        vec![
            name(object),
            text_or(object, "spec.capacity.storage", "0").into(),
            access_modes(items(object, "spec.accessModes")).into(),
            text(object, "spec.persistentVolumeReclaimPolicy").into(),
            phase(object).into(),
            claim.into(),
            storage_class(object).into(),
            text_or(object, "spec.volumeAttributesClassName", "<unset>").into(),
            text(object, "status.reason").into(),
            age(object, now),
            text_or(object, "spec.volumeMode", "<unset>").into(),
        ]
    },
};

pub(super) static STORAGE_CLASSES: Kind = Kind {
    columns: &[
        text_column("Name"),
        text_column("Provisioner"),
        text_column("ReclaimPolicy"),
        text_column("VolumeBindingMode"),
        text_column("AllowVolumeExpansion"),
        text_column("Age"),
    ],
    cells: |object, now| {
        let annotations = at(object, "metadata.annotations");
        let default = [
            "storageclass.kubernetes.io",
            "storageclass.beta.kubernetes.io",
        ]
        .iter()
        .any(|prefix| {
            annotations
                .get(format!("{prefix}/is-default-class"))
                .is_some_and(|value| value == "true")
        });
        let suffix = if default { " (default)" } else { "" };
        vec![
            format!("{}{suffix}", text(object, "metadata.name")).into(),
            text(object, "provisioner").into(),
            text_or(object, "reclaimPolicy", "Delete").into(),
            text_or(object, "volumeBindingMode", "Immediate").into(),
            (at(object, "allowVolumeExpansion") == true).into(),
            age(object, now),
        ]
    },
};

fn entries(object: &Value, field: &str) -> usize {
    at(object, field)
        .as_object()
        .map_or(0, serde_json::Map::len)
}

fn phase(object: &Value) -> &str {
    if is_deleting(object) {
        "Terminating"
    } else {
        text(object, "status.phase")
    }
}

fn access_modes(modes: &[Value]) -> String {
    let named = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let short: Vec<&str> = named
        .iter()
        .filter(|(long, _)| modes.iter().any(|mode| mode == long))
        .map(|(_, short)| *short)
        .collect();
    short.join(",")
}

/// The class, whose first home was an annotation.
fn storage_class(object: &Value) -> &str {
    let annotation =
        at(object, "metadata.annotations").get("volume.beta.kubernetes.io/storage-class");
    match annotation.and_then(Value::as_str) {
        Some(class) => class,
        None => text(object, "spec.storageClassName"),
    }
}
