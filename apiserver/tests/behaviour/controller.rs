//! A real controller against the server: it settles instead of feeding itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api as Resources, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::harness::*;

struct Context {
    client: Client,
    begun: AtomicU32,
    ended: AtomicU32,
}

/// Applies a child and a status-like annotation on every run, whatever it finds.
async fn reconcile(map: Arc<ConfigMap>, context: Arc<Context>) -> Result<Action, kube::Error> {
    context.begun.fetch_add(1, Ordering::SeqCst);
    let parameters = PatchParams::apply("controller").force();
    let pods: Resources<Pod> = Resources::default_namespaced(context.client.clone());
    let child = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": map.name_any(), "ownerReferences": [{"apiVersion": "v1",
            "kind": "ConfigMap", "name": map.name_any(), "uid": map.uid(), "controller": true}]},
        "spec": {"containers": [{"name": "main", "image": "busybox:1"}]},
    });
    pods.patch(&map.name_any(), &parameters, &Patch::Apply(&child))
        .await?;
    let maps: Resources<ConfigMap> = Resources::default_namespaced(context.client.clone());
    let patch = json!({"metadata": {"annotations": {"seen": "yes"}}});
    maps.patch(
        &map.name_any(),
        &PatchParams::default(),
        &Patch::Merge(&patch),
    )
    .await?;
    context.ended.fetch_add(1, Ordering::SeqCst);
    Ok(Action::await_change())
}

#[tokio::test]
async fn a_controller_that_always_writes_comes_to_rest() {
    let api = Api::start();
    let client = api.server.client();
    let context = Arc::new(Context {
        client: client.clone(),
        begun: AtomicU32::new(0),
        ended: AtomicU32::new(0),
    });
    let maps: Resources<ConfigMap> = Resources::default_namespaced(client.clone());
    let pods: Resources<Pod> = Resources::default_namespaced(client);
    let selected = watcher::Config::default().labels("watched");
    let runs = Controller::new(maps, selected)
        .owns(pods, watcher::Config::default())
        .run(reconcile, |_, error, _| panic!("{error}"), context.clone())
        .for_each(|_| async {});
    let test = async {
        api.post(CONFIG_MAPS, &labelled("a", json!({"watched": "1"})))
            .await
            .ok();
        eventually("the child exists", || {
            api.exists("/api/v1/namespaces/default/pods/a")
        })
        .await;
        // How much is written when something changes, until the controller has dealt with it.
        let nudges = AtomicU32::new(0);
        let writes_per_nudge = async || {
            let (revision, begun) = (api.revision(), context.begun.load(Ordering::SeqCst));
            let nudge = nudges.fetch_add(1, Ordering::SeqCst).to_string();
            let change = json!({"data": {"nudge": nudge}});
            api.merge(&format!("{CONFIG_MAPS}/a"), &change).await.ok();
            eventually("the controller ran again", || async {
                context.ended.load(Ordering::SeqCst) > begun
            })
            .await;
            api.revision() - revision
        };
        eventually("the controller is at rest", || async {
            writes_per_nudge().await == 1
        })
        .await;
        assert_eq!(writes_per_nudge().await, 1, "only the nudge is written");
    };
    tokio::select! {
        () = test => {}
        () = runs => panic!("the controller ended"),
    }
}

#[tokio::test]
async fn streaming_lists_and_plain_lists_fill_the_same_cache() {
    use kube::runtime::{WatchStreamExt, reflector};

    let api = Api::start();
    for n in 0..20 {
        api.post(CONFIG_MAPS, &labelled(&format!("c{n}"), json!({"t": "1"})))
            .await
            .ok();
    }
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let maps: Resources<ConfigMap> = Resources::default_namespaced(api.server.client());
        let (reader, writer) = reflector::store();
        let watch = reflector(writer, watcher(maps, config.labels("t=1")))
            .default_backoff()
            .for_each(|_| async {});
        let test = async {
            reader.wait_until_ready().await.unwrap();
            assert_eq!(reader.len(), 20);
            let path = format!("{CONFIG_MAPS}/c3");
            api.delete(&path).await.ok();
            eventually("the deletion arrives", || async { reader.len() == 19 }).await;
            api.post(CONFIG_MAPS, &labelled("c3", json!({"t": "1"})))
                .await
                .ok();
            eventually("the creation arrives", || async { reader.len() == 20 }).await;
        };
        tokio::select! {
            () = test => {}
            () = watch => panic!("the watch ended"),
        }
    }
}
