//! Pods that were here before this node: finished ones stay finished, the processes of the others
//! are gone and count as ended.

use k8s_openapi::api::core::v1::ContainerStatus;

use super::super::phase::{Current, Ended, Role};
use super::Worker;
use super::containers::container_id;

/// Exit status of a process that nobody saw end.
const UNKNOWN: i32 = 137;

impl Worker {
    /// Takes in the status that an earlier node wrote.
    pub(super) fn restore(&mut self) {
        let Some(status) = self.pod.status.clone() else {
            return;
        };
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            self.dormant = true;
            return;
        }
        let init = status.init_container_statuses.unwrap_or_default();
        let apps = status.container_statuses.unwrap_or_default();
        let known: Vec<ContainerStatus> = init.into_iter().chain(apps).collect();
        let now = self.context.clock.now();
        let policy = self.policy;
        let mut again = false;
        for container in &mut self.containers {
            let Some(found) = known.iter().find(|status| status.name == container.name) else {
                continue;
            };
            container.restarts = u32::try_from(found.restart_count).unwrap_or(0);
            let state = found.state.clone().unwrap_or_default();
            let ended = match (state.running, state.terminated) {
                (Some(running), _) => Ended {
                    id: short_id(found),
                    exit_code: UNKNOWN,
                    reason: "ContainerStatusUnknown",
                    message: "The node was restarted and the process is gone".into(),
                    started: running.started_at.map_or(now, |time| time.0),
                    finished: now,
                },
                (None, Some(ended)) => Ended {
                    id: short_id(found),
                    exit_code: ended.exit_code,
                    reason: if ended.exit_code == 0 {
                        "Completed"
                    } else {
                        "Error"
                    },
                    message: ended.message.unwrap_or_default(),
                    started: ended.started_at.map_or(now, |time| time.0),
                    finished: ended.finished_at.map_or(now, |time| time.0),
                },
                (None, None) => continue,
            };
            let restart = container.restarts_after(ended.exit_code, policy);
            again |= restart;
            container.end(ended, restart);
        }
        if again {
            self.run_init_again();
        }
    }

    /// What init containers prepared may have lived in files that are gone.
    fn run_init_again(&mut self) {
        for container in &mut self.containers {
            if container.role != Role::Init {
                continue;
            }
            if let Current::Ended(ended) = container.current.clone() {
                container.end(ended, true);
            }
        }
    }
}

fn short_id(status: &ContainerStatus) -> String {
    let id = status.container_id.as_deref();
    id.and_then(|id| id.strip_prefix("process://"))
        .map_or_else(container_id, str::to_owned)
}
