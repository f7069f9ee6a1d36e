//! The tasks that write events and send spans. Started with the operator, ended after its workers.

use std::time::Duration;

use agent_sandbox_service::otlp::Exporter;
use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;

use crate::context::Context;
use crate::events::Recorder;

/// How long the events that they left may take to be written.
const EVENTS_DRAIN: Duration = Duration::from_secs(2);

/// The tasks that write events and send spans. They outlive the workers, so that the last ones are
/// written too.
#[derive(Debug)]
pub(super) struct Recording {
    tasks: Tasks,
    end: Shutdown,
}

impl Recording {
    pub(super) fn start(cx: &Context, recorder: Recorder, traces: Option<Exporter>) -> Self {
        let instance = cx.config.leader_election.as_ref().map_or_else(
            || "agent-sandbox-controller".to_owned(),
            |settings| settings.identity.clone(),
        );
        let (tasks, end) = (Tasks::new("controller-events"), Shutdown::new());
        let (api, lanes, clock) = (cx.api.clone(), cx.lanes.clone(), cx.clock.clone());
        tasks.spawn(
            "events",
            recorder.run(api, lanes, clock, instance, end.clone()),
        );
        if let Some(exporter) = traces {
            tasks.spawn("traces", exporter.run(end.clone()));
        }
        Self { tasks, end }
    }

    pub(super) async fn end(self) {
        self.end.trigger();
        self.tasks.shutdown(EVENTS_DRAIN).await;
    }
}
