//! Which kinds are watched, in which scope, and whether what the watches brought can be trusted: the
//! readiness gate of the caches opens with the first lists and closes while a watch is silent for long.

use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_crds::labels;
use agent_sandbox_service::readiness::Gate;
use tokio::sync::Notify;

use super::Background;
use crate::api::{
    CLAIMS, NODES, PODS, POLICIES, POOLS, SANDBOXES, SERVICES, TEMPLATES, VOLUME_CLAIMS,
};
use crate::context::Context;
use crate::objects::{
    ClaimRow, NodeRow, PodRow, PolicyRow, PoolRow, Row, SandboxRow, ServiceRow, TemplateRow,
    VolumeClaimRow,
};
use crate::store::Stored;
use crate::watch::{Handle, Scope, Watch};

/// Selects what the operator itself labels: a cluster has many more pods than sandboxes.
const TRACKED: &str = labels::SANDBOX_NAME_HASH;
/// Of network policies, those of templates: a cluster has many more.
const COVERING: &str = labels::SANDBOX_TEMPLATE_REF_HASH;

/// Starts the watches and returns the handles of those whose freshness matters to a new leader.
pub(super) fn start_watches(
    cx: &Arc<Context>,
    background: &Background,
) -> Vec<(&'static str, Handle)> {
    let plain = |resource| Scope {
        resource,
        selector: None,
        optional: false,
    };
    let tracked = |resource| Scope {
        selector: Some(TRACKED),
        ..plain(resource)
    };
    let mut handles = vec![
        start_watch::<SandboxRow>(cx, background, plain(&SANDBOXES)),
        start_watch::<PodRow>(cx, background, tracked(&PODS)),
        start_watch::<ServiceRow>(cx, background, tracked(&SERVICES)),
        start_watch::<VolumeClaimRow>(cx, background, tracked(&VOLUME_CLAIMS)),
    ];
    if cx.config.extensions {
        handles.push(start_watch::<ClaimRow>(cx, background, plain(&CLAIMS)));
        handles.push(start_watch::<TemplateRow>(
            cx,
            background,
            plain(&TEMPLATES),
        ));
        handles.push(start_watch::<PoolRow>(cx, background, plain(&POOLS)));
        let policies = Scope {
            selector: Some(COVERING),
            ..plain(&POLICIES)
        };
        handles.push(start_watch::<PolicyRow>(cx, background, policies));
        if cx.config.watch_nodes {
            let scope = Scope {
                optional: true,
                ..plain(&NODES)
            };
            start_watch::<NodeRow>(cx, background, scope);
        }
    }
    handles
}

fn start_watch<R: Stored>(
    cx: &Arc<Context>,
    background: &Background,
    scope: Scope,
) -> (&'static str, Handle) {
    let namespace = cx
        .config
        .namespace
        .clone()
        .filter(|_| R::KIND != NodeRow::KIND);
    let (watch, handle) = Watch::<R>::new(
        cx.api.clone(),
        cx.store.clone(),
        cx.metrics.clone(),
        scope,
        namespace,
    );
    background.spawn(R::KIND, watch.run());
    (R::KIND, handle)
}

/// How often watches are asked whether they are alive.
const WATCH_CHECK: Duration = Duration::from_secs(5);
/// How long a watch may be without contact before the caches count as stale. Servers restart in less.
const STALE_AFTER: Duration = Duration::from_secs(60);

/// Waits for the first lists, and afterwards closes the gate while any watch has been without contact
/// for long: what such a replica knows is old.
pub(super) async fn keep_watch(watches: &[(&'static str, Handle)], gate: &Gate, synced: &Notify) {
    wait_for_sync(watches, gate).await;
    synced.notify_one();
    loop {
        tokio::time::sleep(WATCH_CHECK).await;
        let stale = watches.iter().find_map(|(kind, watch)| {
            let silence = watch.silent_for()?;
            (silence >= STALE_AFTER).then_some((kind, silence))
        });
        match stale {
            Some((kind, silence)) => gate.set_not_ready(format!(
                "no list or watch of {kind} for {} s",
                silence.as_secs()
            )),
            None => gate.set_ready(),
        }
    }
}

async fn wait_for_sync(watches: &[(&'static str, Handle)], gate: &Gate) {
    for (kind, watch) in watches {
        gate.set_not_ready(format!("waiting for the first list of {kind}"));
        watch.synced().await;
    }
    gate.set_ready();
}
