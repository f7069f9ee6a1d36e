//! The config maps and secrets that one pod refers to, from environments and volumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::env;
use crate::objects::{Kind, Known, ObjectWatches, Payload, Subscription};
use crate::volume::projected::{self, Source};

/// Subscriptions to everything a pod refers to; held for the pod's whole life.
#[derive(Debug)]
pub(crate) struct References {
    subscriptions: BTreeMap<(Kind, String), Subscription>,
}

/// The objects as they were at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    objects: BTreeMap<(Kind, String), Arc<Payload>>,
}

impl References {
    /// Subscribes to what `spec` names.
    pub(crate) fn of(spec: &PodSpec, namespace: &str, watches: &ObjectWatches) -> Self {
        let subscribe = |(kind, name): (Kind, String)| {
            let subscription = watches.subscribe(kind, namespace, &name);
            ((kind, name), subscription)
        };
        Self {
            subscriptions: names(spec).into_iter().map(subscribe).collect(),
        }
    }

    /// The current state, once every object has been read.
    pub(crate) async fn snapshot(&mut self) -> Snapshot {
        let mut objects = BTreeMap::new();
        for (key, subscription) in &mut self.subscriptions {
            if let Known::Present(payload) = subscription.read().await {
                objects.insert(key.clone(), payload);
            }
        }
        Snapshot { objects }
    }

    /// Waits until an object differs from the last [`Self::snapshot`]; for ever when there is none.
    pub(crate) async fn changed(&mut self) {
        let mut changes: FuturesUnordered<_> = self
            .subscriptions
            .values_mut()
            .map(Subscription::changed)
            .collect();
        if changes.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the pod refers to anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
    }
}

impl Snapshot {
    /// The objects by kind and name.
    pub(crate) fn objects(&self) -> &BTreeMap<(Kind, String), Arc<Payload>> {
        &self.objects
    }

    fn get(&self, kind: Kind, name: &str) -> Option<&Payload> {
        self.objects
            .get(&(kind, name.to_owned()))
            .map(AsRef::as_ref)
    }
}

impl env::Objects for Snapshot {
    fn config_map(&self, name: &str) -> Option<&Payload> {
        self.get(Kind::ConfigMap, name)
    }

    fn secret(&self, name: &str) -> Option<&Payload> {
        self.get(Kind::Secret, name)
    }
}

/// Every object that a pod names, each once.
fn names(spec: &PodSpec) -> Vec<(Kind, String)> {
    let mut names = Vec::new();
    let containers = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    for container in containers {
        names.extend(of_container(container));
    }
    for volume in spec.volumes.iter().flatten() {
        let projection = projected::parse(volume).ok().flatten();
        for source in projection.into_iter().flat_map(|found| found.sources) {
            if let Source::Object { kind, name, .. } = source {
                names.push((kind, name));
            }
        }
    }
    names.retain(|(_, name)| !name.is_empty());
    names.sort_unstable();
    names.dedup();
    names
}

fn of_container(container: &Container) -> Vec<(Kind, String)> {
    let mut names = Vec::new();
    for from in container.env_from.iter().flatten() {
        let config_map = from.config_map_ref.as_ref();
        names.extend(config_map.map(|source| (Kind::ConfigMap, source.name.clone())));
        let secret = from.secret_ref.as_ref();
        names.extend(secret.map(|source| (Kind::Secret, source.name.clone())));
    }
    for source in container
        .env
        .iter()
        .flatten()
        .filter_map(|env| env.value_from.as_ref())
    {
        let config_map = source.config_map_key_ref.as_ref();
        names.extend(config_map.map(|selector| (Kind::ConfigMap, selector.name.clone())));
        let secret = source.secret_key_ref.as_ref();
        names.extend(secret.map(|selector| (Kind::Secret, selector.name.clone())));
    }
    names
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_place_that_can_name_an_object_is_searched() {
        let spec: PodSpec = serde_json::from_value(json!({
            "initContainers": [{"name": "i", "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "k"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "b", "key": "k"}}},
            ]}],
            "containers": [{"name": "c", "envFrom": [
                {"configMapRef": {"name": "c"}}, {"secretRef": {"name": "d"}},
                {"configMapRef": {"name": "a"}},
            ]}],
            "volumes": [
                {"name": "1", "configMap": {"name": "e"}},
                {"name": "2", "secret": {"secretName": "f"}},
                {"name": "3", "projected": {"sources": [
                    {"configMap": {"name": "g"}}, {"secret": {"name": "h"}}]}},
                {"name": "4", "emptyDir": {}},
            ],
        }))
        .unwrap();
        let found = names(&spec);
        let names_of = |wanted: Kind| {
            let names = found.iter().filter(|(kind, _)| *kind == wanted);
            names.map(|(_, name)| name.as_str()).collect::<String>()
        };
        assert_eq!(names_of(Kind::ConfigMap), "aceg");
        assert_eq!(names_of(Kind::Secret), "bdfh");
    }
}
