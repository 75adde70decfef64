//! Upload sessions that are shared with other servers: the store, its health and figures.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use proxy_api::metrics::{Sample, Source, row};
use proxy_api::{Check, Probe};
use proxy_fleet::link::Link;
use proxy_fleet::sessions::{SessionCounters, SharedSessions};
use proxy_state::EmbeddedStore;
use uuid::Uuid;

/// Names the store for as long as it lives; beside it in the data directory.
const NAME_FILE: &str = "store-id";

/// Shares the sessions of `store` over a link to database 8. To be called inside a runtime.
pub fn share(link: Link, store: &Arc<EmbeddedStore>) -> Arc<SharedSessions> {
    let name = name_of(store.path());
    Arc::new(SharedSessions::start(Arc::clone(store), link, name))
}

/// The same after every start; a new one where none can be kept.
fn name_of(state_file: &Path) -> Uuid {
    let path = state_file.with_file_name(NAME_FILE);
    let kept = std::fs::read_to_string(&path).ok();
    if let Some(name) = kept.and_then(|text| Uuid::parse_str(text.trim()).ok()) {
        return name;
    }
    let name = Uuid::new_v4();
    if let Err(error) = std::fs::write(&path, name.to_string()) {
        tracing::warn!(path = %path.display(), %error, "can not keep the name of the store");
    }
    name
}

/// What health asks: uploads go on without Redis, so it gates nothing.
pub fn check(shared: &Arc<SharedSessions>) -> Check {
    Check {
        service_group: "redis",
        component_id: "uploads".to_owned(),
        gates: false,
        probe: Arc::new(Sharing(Arc::clone(shared))),
    }
}

struct Sharing(Arc<SharedSessions>);

#[async_trait]
impl Probe for Sharing {
    async fn probe(&self) -> Result<(), String> {
        self.0.degraded().map_or(Ok(()), Err)
    }
}

/// The figures of shared sessions, for the page of metrics.
pub struct Figures(pub Arc<SessionCounters>);

impl Source for Figures {
    fn samples(&self) -> Vec<Sample> {
        let counters = &self.0;
        [
            (&row::SESSIONS_DEGRADED, &counters.degraded),
            (&row::LEASE_CONFLICTS, &counters.conflicts),
            (&row::SESSION_TAKEOVERS, &counters.takeovers),
            (&row::SESSIONS_MERGED, &counters.merged),
            (&row::LEASES_LOST, &counters.lost),
            (&row::SESSIONS_DIRTY, &counters.dirty),
            (&row::FLEET_SERVERS, &counters.servers),
        ]
        .map(|(row, value)| Sample::plain(row, value.load(Ordering::Relaxed)))
        .into()
    }
}
