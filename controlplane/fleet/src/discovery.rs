//! Service discovery: how this server announces itself to its fleet, and how it finds a Manager.
//!
//! Laws
//! - A record always has all seven fields: one that lacks a field breaks the Manager's list of all.
//! - It is written at the start, every minute, and whenever the store has come back.
//! - On a graceful stop it is taken away; after a crash it expires, or is swept.
//!
//! Source: reference of the original: state 6, etcd 6, events 5.4; `docs/operations.md`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::etcd::{Etcd, Scope};
use crate::events::EventBus;
use crate::frame::{FleetEvent, ServiceEndpoint, ServiceRecord};
use crate::link::{Link, LinkError};

mod managers;

pub use managers::Managers;

/// The group of this program in records.
const GROUP: &str = "storage-proxy";
/// Where records stand in etcd.
const IN_ETCD: &str = "ai/backend/service_discovery";
/// Between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// How long a record in Redis lives without one, in seconds.
const EXPIRE_S: i64 = 180;
/// Between two searches for dead records in etcd, where nothing expires.
const SWEEP: Duration = Duration::from_secs(10 * 60);
/// How old a heartbeat in etcd may be, in seconds.
const DEAD_AFTER_S: f64 = 300.0;
/// For the first connection.
const START_BOUND: Duration = Duration::from_secs(5);
/// For the last words.
const LEAVE_BOUND: Duration = Duration::from_secs(1);

/// Where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Hashes in Redis.
    Redis,
    /// Keys in etcd.
    Etcd,
}

/// What is announced.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the record goes.
    pub place: Place,
    /// Name for people.
    pub display_name: String,
    /// `host:port` of the manager port, as others reach it.
    pub address: String,
    /// Its port alone.
    pub port: u16,
    /// `host:port` of the internal port, as Prometheus reaches it.
    pub prometheus_address: String,
    /// Labels of the record.
    pub labels: BTreeMap<String, String>,
    /// Name in the Manager's catalogue; made at each start when `None`.
    pub instance_id: Option<String>,
    /// Group in the Manager's catalogue; without one the server does not enter itself there.
    pub service_group: Option<String>,
    /// What the catalogue says about the addresses.
    pub endpoints: Vec<ServiceEndpoint>,
}

/// Keeps this server announced.
#[derive(Clone)]
pub struct Announcer {
    settings: Settings,
    id: Uuid,
    begun: Timestamp,
    /// Role `live`.
    link: Link,
    etcd: Option<Etcd>,
    events: Option<EventBus>,
    /// The record was taken away and must not come back.
    gone: Arc<AtomicBool>,
}

impl Announcer {
    /// Announces nothing before [`Self::run`]. `link` is that of the role `live`.
    pub fn new(
        settings: Settings,
        link: Link,
        etcd: Option<Etcd>,
        events: Option<EventBus>,
    ) -> Self {
        Self {
            settings,
            id: Uuid::new_v4(),
            begun: Timestamp::now(),
            link,
            etcd,
            events,
            gone: Arc::default(),
        }
    }

    /// Name of the record.
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// Announces, for ever.
    pub async fn run(self) {
        let (mut redis, etcd) = (self.link.watch(), self.etcd.clone());
        let mut etcd = etcd.map(|etcd| etcd.watch_state());
        self.await_store().await;
        let mut well = true;
        let mut sweep = tokio::time::interval(SWEEP);
        let mut beat = tokio::time::interval(HEARTBEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let in_etcd = async {
                match &mut etcd {
                    Some(state) => drop(state.changed().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = beat.tick() => self.register(),
                _ = redis.changed(), if self.settings.place == Place::Redis => {}
                () = in_etcd, if self.settings.place == Place::Etcd => {}
                _ = sweep.tick(), if self.settings.place == Place::Etcd => self.sweep().await,
            }
            let done = self.announce().await;
            match &done {
                Err(why) if std::mem::replace(&mut well, false) => {
                    tracing::warn!(why, "this server is not announced, Prometheus may miss it");
                }
                Ok(()) if !std::mem::replace(&mut well, true) => {
                    tracing::info!("this server is announced again");
                }
                _ => {}
            }
        }
    }

    /// Gives the connection of a server that has just started its time.
    async fn await_store(&self) {
        match (&self.etcd, self.settings.place) {
            (_, Place::Redis) => {
                let mut state = self.link.watch();
                // Without it in time, the first attempt says so.
                let _ = timeout(START_BOUND, state.wait_for(|state| state.up)).await;
            }
            (Some(etcd), Place::Etcd) => drop(etcd.is_up_within(START_BOUND).await),
            (None, Place::Etcd) => {}
        }
    }

    /// Writes the record once.
    ///
    /// # Errors
    /// Why it could not be written.
    pub async fn announce(&self) -> Result<(), String> {
        if self.gone.load(Ordering::Relaxed) {
            return Ok(());
        }
        let record = self.record();
        match self.settings.place {
            Place::Redis => {
                let key = self.key();
                let mut pipe = redis::pipe();
                let set = pipe.cmd("HSET").arg(&key);
                for (field, value) in &record {
                    set.arg(field).arg(value.to_string());
                }
                pipe.cmd("EXPIRE").arg(&key).arg(EXPIRE_S);
                let done: Result<(), LinkError> = self.link.pipe(pipe.ignore()).await;
                done.map_err(|error| error.to_string())
            }
            Place::Etcd => {
                let Some(etcd) = &self.etcd else {
                    return Err("it has to go to etcd, which is not configured".to_owned());
                };
                let done = etcd.put_prefix(&self.place_in_etcd(), &record).await;
                done.map_err(|error| error.to_string())
            }
        }
    }

    /// Takes the record away, and leaves the catalogue. Bounded in time.
    pub async fn leave(&self) {
        self.withdraw().await;
        if let (Some(events), Some(group)) = (&self.events, &self.settings.service_group) {
            let left = FleetEvent::ServiceDeregistered {
                instance_id: self.instance_id(),
                service_group: group.clone(),
            };
            events.publish(&left, None);
            events.flush(LEAVE_BOUND).await;
        }
    }

    /// Takes the record away for good, and stays in the catalogue: for a server whose successor has
    /// the same name there. Bounded in time.
    pub async fn withdraw(&self) {
        self.gone.store(true, Ordering::Relaxed);
        let gone = timeout(LEAVE_BOUND, async {
            match (&self.etcd, self.settings.place) {
                (_, Place::Redis) => {
                    let mut del = redis::cmd("DEL");
                    let gone: Result<(), LinkError> = self.link.query(del.arg(self.key())).await;
                    gone.is_ok()
                }
                (Some(etcd), Place::Etcd) => {
                    etcd.delete_prefix(&self.place_in_etcd()).await.is_ok()
                }
                (None, Place::Etcd) => false,
            }
        });
        if !gone.await.unwrap_or(false) {
            tracing::info!("the announcement could not be taken back, it expires");
        }
    }

    /// Enters this server into the Manager's catalogue, if it is to be there.
    fn register(&self) {
        if let (Some(events), Some(group)) = (&self.events, &self.settings.service_group) {
            let labels = self.settings.labels.iter();
            let record = ServiceRecord {
                instance_id: self.instance_id(),
                service_group: group.clone(),
                display_name: self.settings.display_name.clone(),
                version: proxy_core::VERSION.to_owned(),
                labels: labels
                    .map(|(name, value)| (name.clone(), value.as_str().into()))
                    .collect(),
                endpoints: self.settings.endpoints.clone(),
                startup_time: format!("{:.6}", self.begun),
                config_hash: String::new(),
            };
            events.publish(&FleetEvent::ServiceRegistered(record), None);
        }
    }

    fn instance_id(&self) -> String {
        let named = self.settings.instance_id.clone();
        named.unwrap_or_else(|| self.id.to_string())
    }

    fn key(&self) -> String {
        format!("service_discovery.{GROUP}.{}", self.id)
    }

    fn place_in_etcd(&self) -> String {
        format!("{IN_ETCD}/{GROUP}/{}", self.id)
    }

    /// The seven fields, in the order of the original.
    fn record(&self) -> Map<String, Value> {
        let settings = &self.settings;
        let record = json!({
            "id": self.id.to_string(),
            "display_name": settings.display_name,
            "service_group": GROUP,
            "version": proxy_core::VERSION,
            "endpoint": {
                "address": settings.address,
                "port": settings.port,
                // As the original, whatever the port speaks.
                "protocol": "http",
                "prometheus_address": settings.prometheus_address,
            },
            "health_status": {
                "registration_time": seconds(self.begun),
                "last_heartbeat": seconds(Timestamp::now()),
            },
            "labels": settings.labels,
        });
        match record {
            Value::Object(record) => record,
            _ => Map::new(),
        }
    }

    /// Removes records in etcd whose server has said nothing for long.
    async fn sweep(&self) {
        let Some(etcd) = &self.etcd else { return };
        let Ok(groups) = etcd.get_prefix(IN_ETCD, Scope::Global).await else {
            return;
        };
        let now = seconds(Timestamp::now());
        for (group, records) in &groups {
            for (id, record) in records.as_object().into_iter().flatten() {
                let beat = record.pointer("/health_status/last_heartbeat");
                let beat = beat
                    .and_then(Value::as_str)
                    .and_then(|text| text.parse::<f64>().ok());
                if beat.is_some_and(|beat| beat + DEAD_AFTER_S < now) {
                    let place = format!("{IN_ETCD}/{group}/{id}");
                    tracing::debug!(place, "a dead announcement is removed");
                    // Another sweeper may have been faster.
                    let _ = etcd.delete_prefix(&place).await;
                }
            }
        }
    }
}

/// Seconds since 1970 with microseconds, as Python's clock has them.
fn seconds(time: Timestamp) -> f64 {
    time.as_microsecond() as f64 / 1e6
}
