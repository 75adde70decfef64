//! What this server shares with others: sessions, tasks, events, and how they are.
//!
//! Alone, everything is in the embedded store and events go to the log. In a fleet nothing is
//! waited for: who can not be reached is joined later, and the local store serves meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proxy_api::metrics::Source;
use proxy_api::{Check, Probe, StatsCache};
use proxy_fleet::discovery::{Announcer, Managers};
use proxy_fleet::etcd::Etcd;
use proxy_fleet::events::{BusOptions, EventBus};
use proxy_fleet::link::{Link, RedisSettings};
use proxy_fleet::tasks::SharedTasks;
use proxy_state::{EmbeddedStore, EventSink, LogSink, Runner, Sessions, TaskStore};
use proxy_volume::Volumes;
use tokio::task::JoinSet;

use super::figures::{BusFigures, Heard, LinkFigures, TaskFigures};
use super::links::{self, Links};
use super::manager::{self, Peer};
use super::mounting::Ear;
use super::outside;
use super::stats::SharedStats;
use super::tasks;
use super::uploads;
use crate::settings::{FleetSettings, Settings};

/// How long the start waits for etcd.
const ETCD_WAIT: Duration = Duration::from_secs(3);

/// How long the end waits for the last events.
const EVENTS_WAIT: Duration = Duration::from_secs(2);

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
    /// Where requests to mount come from, and answers go; `None` when there is no channel.
    pub ear: Option<Ear>,
    /// What the page of metrics shows of it.
    pub figures: Vec<Box<dyn Source>>,
    /// To be run until the end.
    pub background: Vec<Background>,
    /// Performance figures that all servers know.
    pub stats: Option<Arc<dyn StatsCache>>,
    /// The Manager, if the configuration says how to ask it.
    #[allow(dead_code)]
    pub manager: Option<Arc<Peer>>,
    /// etcd, for its single keys.
    #[allow(dead_code)]
    pub etcd: Option<Etcd>,
    announcer: Option<Announcer>,
    bus: Option<EventBus>,
    /// The record of tasks, if others see it; to be run beside the runner.
    shared_tasks: Option<SharedTasks>,
}

/// Connections to those who make the fleet, opened before anything depends on them.
pub struct Neighbours {
    etcd: Option<Etcd>,
    redis: Option<RedisSettings>,
    links: Arc<Links>,
}

impl Neighbours {
    /// Looks for them; `None` for a server that stands alone.
    ///
    /// A silent etcd costs its time here, while a server before us still serves.
    pub async fn meet(settings: &Settings) -> Option<Self> {
        let fleet = settings.fleet.as_ref()?;
        let etcd = fleet.etcd.clone().map(Etcd::open);
        let redis = redis_settings(etcd.as_ref(), fleet).await;
        let links = Arc::new(Links::open(redis.as_ref()));
        Some(Self { etcd, redis, links })
    }
}

impl Fleet {
    /// Joins the fleet of the settings; without one, everything is local.
    ///
    /// Never fails and never waits: what can not be reached now is joined later.
    pub async fn join(
        settings: &Settings,
        neighbours: Option<Neighbours>,
        store: &Arc<EmbeddedStore>,
        volumes: &Arc<Volumes>,
    ) -> Self {
        let local = Self::local(store);
        match (&settings.fleet, neighbours) {
            (Some(fleet), Some(neighbours)) => {
                local
                    .join_as_member(settings, fleet, neighbours, store, volumes)
                    .await
            }
            _ => local,
        }
    }

    fn local(store: &Arc<EmbeddedStore>) -> Self {
        Self {
            sessions: Arc::clone(store) as Arc<dyn Sessions>,
            tasks: Arc::clone(store) as Arc<dyn TaskStore>,
            events: Arc::new(LogSink),
            checks: Vec::new(),
            ear: None,
            figures: Vec::new(),
            background: Vec::new(),
            stats: None,
            manager: None,
            etcd: None,
            announcer: None,
            bus: None,
            shared_tasks: None,
        }
    }

    async fn join_as_member(
        mut self,
        settings: &Settings,
        fleet: &FleetSettings,
        neighbours: Neighbours,
        store: &Arc<EmbeddedStore>,
        volumes: &Arc<Volumes>,
    ) -> Self {
        let Neighbours { etcd, redis, links } = neighbours;
        if let Some(etcd) = &etcd {
            let (etcd, links) = (etcd.clone(), Arc::clone(&links));
            self.background
                .push(Box::pin(links::follow(etcd, links, redis)));
        }
        self.checks = checks(etcd.as_ref(), &links);
        self.share_uploads(&links, store);
        let bus = self.share_events(settings, &links);
        outside::lend(volumes, etcd.as_ref(), bus.as_ref());
        let heard = Heard::default();
        self.ear = bus.clone().map(|bus| Ear {
            bus,
            etcd: etcd.clone(),
            node_id: settings.node_id.clone(),
            heard: heard.clone(),
        });
        self.figures.push(Box::new(heard));
        self.figures.push(Box::new(LinkFigures(Arc::clone(&links))));
        if let Some(bus) = &bus {
            let local = Arc::clone(&self.tasks);
            self.shared_tasks = tasks::share(settings, local, links.bgtask.clone(), bus);
            if let Some(shared) = &self.shared_tasks {
                self.tasks = Arc::new(shared.clone());
                self.figures.push(Box::new(TaskFigures(shared.clone())));
            }
        }
        self.bus = bus.clone();
        self.share_stats(settings, &links, Arc::clone(volumes));
        let live = links.live.clone();
        let endpoint = fleet.manager_endpoint.clone();
        let managers = Managers::new(endpoint, live.clone(), etcd.clone());
        self.know_manager(fleet, managers);
        let announcer = Announcer::new(fleet.discovery.clone(), live, etcd.clone(), bus);
        self.background.push(Box::pin(announcer.clone().run()));
        self.announcer = Some(announcer);
        self.etcd = etcd;
        self
    }

    /// The Manager is a peer only for who has a keypair.
    fn know_manager(&mut self, fleet: &FleetSettings, managers: Managers) {
        let Some(keys) = fleet.manager.clone() else {
            return;
        };
        let peer = Arc::new(Peer::new(managers, keys));
        self.checks.push(manager::check(&peer));
        self.manager = Some(peer);
    }

    /// Uploads go on wherever their clients go.
    fn share_uploads(&mut self, links: &Links, store: &Arc<EmbeddedStore>) {
        let shared = uploads::share(links.tus.clone(), store);
        self.checks.push(uploads::check(&shared));
        self.figures
            .push(Box::new(uploads::Figures(shared.counters())));
        self.sessions = shared;
    }

    /// Events go to everybody. Without a place for those that wait, to the log alone.
    fn share_events(&mut self, settings: &Settings, links: &Links) -> Option<EventBus> {
        let options = BusOptions {
            log_events: settings.log_events,
            ..BusOptions::default()
        };
        match EventBus::open(links.stream.clone(), &settings.data_dir, options) {
            Ok(bus) => {
                self.events = Arc::new(bus.clone());
                self.background.push(Box::pin(bus.clone().run()));
                self.figures.push(Box::new(BusFigures(bus.clone())));
                Some(bus)
            }
            Err(error) => {
                tracing::error!(%error, "no place for events: nobody hears of tasks");
                None
            }
        }
    }

    /// Performance figures are read now and then, and kept where all servers look.
    fn share_stats(&mut self, settings: &Settings, links: &Links, volumes: Arc<Volumes>) {
        let times = settings.volume_stats;
        let (link, ttl) = (links.statistics.clone(), times.cache_ttl);
        let cache: Arc<dyn StatsCache> = Arc::new(SharedStats { link, ttl });
        self.stats = Some(Arc::clone(&cache));
        let (interval, time_max) = (times.observe_interval, times.observe_timeout);
        let observed = proxy_api::stats::observe(volumes, cache, interval, time_max);
        self.background.push(Box::pin(observed));
    }

    /// Makes room for the announcement of a successor. Bounded in time.
    pub async fn withdraw(&self) {
        if let Some(announcer) = &self.announcer {
            announcer.withdraw().await;
        }
    }

    /// Sets everything to work that goes on while the server runs.
    pub fn work(&mut self, runner: &Runner) -> JoinSet<()> {
        let mut working: JoinSet<()> = self.background.drain(..).collect();
        if let Some(tasks) = self.shared_tasks.take() {
            working.spawn(tasks.run(runner.clone()));
        }
        working
    }

    /// Tells the others that this server goes. Bounded in time.
    pub async fn leave(&self) {
        if let Some(announcer) = &self.announcer {
            announcer.leave().await;
        }
        if let Some(bus) = &self.bus
            && !bus.flush(EVENTS_WAIT).await
        {
            tracing::info!("events are left for the next start");
        }
    }
}

/// Where Redis is: etcd first, the configuration while etcd does not say.
pub(super) async fn redis_settings(
    etcd: Option<&Etcd>,
    fleet: &FleetSettings,
) -> Option<RedisSettings> {
    let local = || links::read(&fleet.redis, "configuration");
    let (found, from) = match etcd {
        None => (local(), "configuration"),
        Some(etcd) if etcd.is_up_within(ETCD_WAIT).await => match links::from_etcd(etcd).await {
            Some(found) => (Some(found), "etcd"),
            None => (local(), "configuration"),
        },
        Some(etcd) => {
            let why = etcd.fault().unwrap_or_else(|| "it says nothing".to_owned());
            tracing::warn!(
                why,
                "etcd does not answer: the local configuration serves, and etcd is joined as soon \
                 as it is there"
            );
            (local(), "configuration")
        }
    };
    match &found {
        Some(found) => links::tell(found, from),
        None => tracing::warn!(
            "it is not known where redis is: uploads and tasks are known to this server alone, \
             events wait, until config/redis is in etcd or [redis] in the configuration"
        ),
    }
    found
}

/// What health says of the fleet. Nothing of it gates readiness: transfers go on without.
fn checks(etcd: Option<&Etcd>, links: &Links) -> Vec<Check> {
    let check = |service_group, component_id: &str, probe: Arc<dyn Probe>| Check {
        service_group,
        component_id: component_id.to_owned(),
        gates: false,
        probe,
    };
    let etcd = etcd.map(|etcd| check("etcd", "etcd", Arc::new(EtcdProbe(etcd.clone()))));
    // The first two names are the original's.
    let links = [
        ("bgtask", &links.bgtask),
        ("artifact", &links.statistics),
        ("stream", &links.stream),
        ("tus", &links.tus),
    ];
    let links = links.map(|(name, link)| check("redis", name, Arc::new(LinkProbe(link.clone()))));
    etcd.into_iter().chain(links).collect()
}

/// The connection probes by itself, so that asking takes no time.
struct EtcdProbe(Etcd);

#[async_trait]
impl Probe for EtcdProbe {
    async fn probe(&self) -> Result<(), String> {
        match self.0.state().up {
            true => Ok(()),
            false => Err(why(self.0.fault())),
        }
    }
}

struct LinkProbe(Link);

#[async_trait]
impl Probe for LinkProbe {
    async fn probe(&self) -> Result<(), String> {
        match self.0.state().up {
            true => Ok(()),
            false => Err(why(self.0.fault())),
        }
    }
}

fn why(fault: Option<String>) -> String {
    fault.unwrap_or_else(|| "not connected yet".to_owned())
}
