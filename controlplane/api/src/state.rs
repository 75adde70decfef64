//! What all requests of the control plane share.
//!
//! Laws
//! - Settings are one immutable snapshot, swapped as a whole: a request sees either the old or
//!   the new ones, never a mixture.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use proxy_core::token::Secret;
use proxy_state::Runner;
use proxy_state::Sessions;
use proxy_volume::Volumes;
use tokio::sync::Semaphore;

use crate::health::Health;
use crate::metrics::Metrics;
use crate::stats::StatsCache;

/// Everything that handlers reach. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// The volumes, by name.
    pub volumes: Arc<Volumes>,
    /// Upload sessions.
    pub sessions: Arc<dyn Sessions>,
    /// Registers and runs background tasks.
    pub runner: Arc<Runner>,
    /// Secrets and limits; swap it to change them while running.
    pub settings: Arc<ArcSwap<Settings>>,
    /// The registry of both planes.
    pub metrics: Arc<Metrics>,
    /// The last findings of the health probes.
    pub health: Arc<Health>,
    /// Performance figures that the fleet shares, in a fleet.
    pub stats: Option<Arc<dyn StatsCache>>,
    /// Bounds the requests at work, see [`Limits::requests_in_flight_max`].
    pub in_flight: Arc<Semaphore>,
}

impl ApiState {
    /// Puts the parts together; `limits` bound the requests at work.
    pub fn new(
        volumes: Arc<Volumes>,
        sessions: Arc<dyn Sessions>,
        runner: Arc<Runner>,
        settings: Settings,
        health: Arc<Health>,
        limits: &Limits,
    ) -> Self {
        Self {
            volumes,
            sessions,
            runner,
            settings: Arc::new(ArcSwap::from_pointee(settings)),
            metrics: Arc::new(Metrics::new()),
            health,
            stats: None,
            in_flight: Arc::new(Semaphore::new(limits.requests_in_flight_max)),
        }
    }
}

/// What an operator sets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the Manager must send in `X-BackendAI-Storage-Auth-Token`.
    pub manager_secret: Secret,
    /// Key of the tokens.
    pub token_secret: Secret,
    /// How long a token is valid.
    pub token_ttl: Duration,
    /// Largest upload that gets a token; `None` for any.
    pub upload_bytes_max: Option<u64>,
    /// Largest JSON body; a Manager request has a few hundred bytes.
    pub json_bytes_max: u64,
    /// Most entries of one listing; 0 for as many as one answer may hold.
    pub list_entries_max: usize,
    /// Whether creating a folder creates its quota scope.
    pub scopes_on_demand: bool,
    /// How long the size of a vfolder is counted for one request.
    pub usage_time_max: Duration,
}

/// Bounds of the control plane's listeners, with the reasons for their defaults.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests at work at once; further ones wait. A handler holds a few KiB and one lane of
    /// one volume, so this bounds memory, not speed.
    pub requests_in_flight_max: usize,
    /// Connections open at once; further ones wait in the listen queue. A Manager keeps a pool of
    /// 100.
    pub connections_max: usize,
    /// From the end of one answer, or from accepting, to the end of the next request head. 75 s:
    /// the idle time after which the original hangs up, and well above a client pool's 15 s.
    pub head_time_max: Duration,
    /// Bytes of a request head.
    pub head_bytes_max: usize,
    /// How long a TLS handshake may take.
    pub handshake_time_max: Duration,
    /// How long a client may accept no byte of an answer before it is cut off.
    pub write_stall_max: Duration,
    /// How long requests may go on after the order to stop.
    pub drain_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_in_flight_max: 1024,
            connections_max: 4096,
            head_time_max: Duration::from_secs(75),
            head_bytes_max: 32 * 1024,
            handshake_time_max: Duration::from_secs(10),
            write_stall_max: Duration::from_secs(60),
            drain_time_max: Duration::from_secs(30),
        }
    }
}
