//! Lifecycle hooks of containers: what they ask for, and asking it.
//!
//! Run after a start and before an end; what a failure means is decided by those who run them.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container as ContainerSpec, LifecycleHandler};

use super::super::probe::Answer;
use super::super::probe::ask::Question;
use crate::context::Context;
use crate::process::container::Container;
use crate::process::init::message::Process;

/// A lifecycle hook.
pub(super) enum Hook {
    Ask(Question),
    Sleep(Duration),
}

impl Hook {
    /// What a handler asks for; an error when this node cannot do it.
    pub(super) fn of(
        handler: &LifecycleHandler,
        container: &ContainerSpec,
        ip: Option<IpAddr>,
    ) -> Result<Self, String> {
        if let Some(action) = &handler.exec {
            return Ok(Self::Ask(Question::of_exec(action)));
        }
        if let Some(action) = &handler.sleep {
            return Ok(Self::Sleep(Duration::from_secs(
                action.seconds.unsigned_abs(),
            )));
        }
        match (&handler.http_get, ip) {
            (Some(action), Some(ip)) => Question::of_http(action, container, ip).map(Self::Ask),
            _ => Err("the hook has no action that this node knows".into()),
        }
    }
}

/// Runs a hook to its end, or for as long as it may take.
pub(super) async fn run_hook(
    context: &Context,
    hook: Result<Hook, String>,
    container: &Container,
    process: &Process,
    limit: Option<Duration>,
) -> Answer {
    let limit = limit.unwrap_or(Duration::MAX);
    match hook {
        Err(message) => Answer::Failure(message),
        Ok(Hook::Sleep(time)) => {
            tokio::time::sleep(time.min(limit)).await;
            Answer::Success
        }
        Ok(Hook::Ask(question)) => {
            context
                .asker
                .ask(&question, limit, container, process)
                .await
        }
    }
}
