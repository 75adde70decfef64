//! Background tasks that the other servers of a fleet see, and can take up.

use std::sync::Arc;

use proxy_fleet::events::EventBus;
use proxy_fleet::link::Link;
use proxy_fleet::tasks::{SharedTasks, TasksOptions};
use proxy_state::TaskStore;

use crate::settings::Settings;

/// The record over `local` and the link of role `bgtask`; `None`, with a line in the log, where
/// the data directory refuses: tasks are then known to this server alone.
pub fn share(
    settings: &Settings,
    local: Arc<dyn TaskStore>,
    bgtask: Link,
    bus: &EventBus,
) -> Option<SharedTasks> {
    let (node, dir) = (&settings.node_id, &settings.data_dir);
    let options = TasksOptions::default();
    match SharedTasks::open(local, bgtask, node, dir, bus, options) {
        Ok(tasks) => Some(tasks),
        Err(error) => {
            tracing::error!(%error, "tasks are known to this server alone");
            None
        }
    }
}
