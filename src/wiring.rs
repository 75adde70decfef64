//! Where the two planes are put together.
//!
//! Everything is resolved, bound and locked when this is called, and the process is whoever it
//! will be. Order: the store, the volumes, the tasks, then the two planes; down again in reverse.

mod collect;
mod counters;
pub mod dependencies;
mod expiry;
mod figures;
mod fleet;
mod inspect;
mod keeper;
mod levels;
mod links;
mod manager;
mod mounting;
mod outside;
mod running;
mod sizes;
mod snapshot;
mod stats;
mod tasks;
mod tls;
mod uploads;
mod watched;

pub use tls::Certificates;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use proxy_api::{ApiState, Health, internal_router, manager_router};
use proxy_server::snapshot::Snapshot;
use proxy_server::{Server, ServerConfig, bridge};
use proxy_state::{EmbeddedStore, Runner, RunnerOptions, StoreOptions};
use proxy_volume::{QuotaPrivilege, Spec, Volumes};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::failure::{Failure, plain};
use crate::handover::{Asked, Control, Spare};
use crate::limiting;
use crate::listen::Listeners;
use crate::mounts::Keeper;
use crate::notify;
use crate::serve::State;
use crate::settings::{Settings, VolumeSettings};
use crate::shutdown::Shutdown;
use fleet::{Fleet, Neighbours};
use running::Running;

/// Calls of the data plane that may wait for the control plane.
const BRIDGE_CALLS_MAX: usize = 4096;
/// Volumes are looked at at least this often.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the start waits for the volumes.
const OPEN_WAIT: Duration = Duration::from_secs(5);

/// What the planes are made of.
pub struct Parts {
    /// Everything that was configured.
    pub settings: Settings,
    /// Bound sockets.
    pub listeners: Listeners,
    /// For both ports.
    pub certificates: Certificates,
    /// The way to the keeper of mounts.
    pub keeper: Option<Keeper>,
    /// The data directory, perhaps still in other hands.
    pub state: State,
}

/// Serves until `shutdown` is requested or a successor takes over, then drains and returns.
///
/// Called inside the control plane's runtime. `ready` is called once, when connections are
/// answered on all ports.
///
/// # Errors
/// A plane could not start, or ended by itself.
pub async fn run(
    parts: Parts,
    ready: impl FnOnce() -> Result<(), Failure>,
    shutdown: Shutdown,
) -> Result<(), Failure> {
    let Parts {
        settings,
        listeners,
        certificates,
        keeper,
        state,
    } = parts;
    let settings = Arc::new(settings);
    let limiting = limiting::Way::default();
    let volumes = look_for_volumes(&settings, &limiting, keeper.is_some()).await?;
    let neighbours = Neighbours::meet(&settings).await;
    // Everything that takes long is done: from here on a server before us has stopped accepting.
    let (state, control, asked) = take_over(state, &listeners, keeper.as_ref()).await?;
    let store = open_store(&settings)?;
    let mut fleet = Fleet::join(&settings, neighbours, &store, &volumes).await;
    let look = Arc::new(Notify::new());
    use_keeper(&settings, (keeper, &limiting), &mut fleet, &volumes, &look)?;
    let watched = watched::Watched::default();
    let runner = start_runner(&settings, &fleet, &volumes, &watched).await?;

    let entries = Arc::new(ArcSwap::from_pointee(snapshot::build(&settings, &volumes)));
    let (bridge, calls) = bridge::channel(BRIDGE_CALLS_MAX);
    fleet
        .figures
        .push(Box::new(counters::Queue(bridge.queue())));
    let (clients, shown) = (listeners.client, Arc::clone(&entries));
    let server = start_data_plane(&settings, clients, &certificates, shown, bridge)?;

    let api = api_state(&settings, &store, &mut fleet, &volumes, &runner, &server);
    let sessions = Arc::clone(&fleet.sessions);
    let mut background = fleet.work(&runner);
    let (end_uploads, ending) = watch::channel(false);
    background.spawn(keeper::serve(calls, Arc::clone(&sessions), ending));
    background.spawn(show_counters(&api, watched, &settings, &volumes));
    let known = || (Arc::clone(&settings), Arc::clone(&volumes));
    background.spawn(snapshot::follow(known(), entries, Arc::clone(&look)));
    background.spawn(collect::run(known(), sessions, runner.clone()));
    background.spawn(notify::watchdog());

    let manager = (
        listeners.manager,
        manager_router(api.clone()),
        certificates.manager.clone(),
    );
    api.metrics.add_source(Box::new(certificates.clone()));
    background.spawn(certificates.follow());
    let internal = (listeners.internal, internal_router(api), None);
    let (end_planes, end) = watch::channel(false);
    let mut planes = JoinSet::new();
    let inspected = inspect::Inspected::new(&server, &store, &runner);
    inspect::spawn(&settings, inspected, end.clone(), &mut planes).await;
    for (at, router, tls) in [manager, internal] {
        let mut end = end.clone();
        let asked = async move { drop(end.wait_for(|end| *end).await) };
        let limits = api_limits(&settings);
        planes.spawn(proxy_api::serve(listener(at)?, router, tls, asked, limits));
    }

    ready()?;
    let running = Running {
        settings,
        store,
        fleet,
        runner,
        server,
        planes,
        background,
        end_planes,
        end_uploads,
        control,
        state,
    };
    running.until_the_end(shutdown, asked, &look).await
}

/// Opens what is there.
async fn look_for_volumes(
    settings: &Settings,
    limiting: &limiting::Way,
    keeper_comes: bool,
) -> Result<Arc<Volumes>, Failure> {
    let right = |spec: &Spec| limiting.right(spec, keeper_comes);
    let volumes = Arc::new(open_volumes(settings, &right)?);
    // A mount that hangs must not keep the others waiting; it is looked for again later.
    let _ = tokio::time::timeout(OPEN_WAIT, volumes.open_all()).await;
    Ok(volumes)
}

/// Makes the state ours, and lets the next server ask for it.
async fn take_over(
    mut state: State,
    listeners: &Listeners,
    keeper: Option<&Keeper>,
) -> Result<(State, Control, mpsc::Receiver<Asked>), Failure> {
    let spare = Spare::of(listeners, keeper.and_then(Keeper::descriptor));
    let spare = spare.map_err(|error| Failure::new(format!("copy descriptors: {error}")))?;
    let taken = tokio::task::spawn_blocking(move || state.take().map(|()| state)).await;
    let state = taken.map_err(|error| Failure::new(format!("take the state: {error}")))??;
    let (ask, asked) = mpsc::channel(1);
    let control = Control::start(state.data(), spare, ask)?;
    Ok((state, control, asked))
}

fn start_data_plane(
    settings: &Settings,
    listeners: Vec<std::net::TcpListener>,
    certificates: &Certificates,
    snapshot: Arc<ArcSwap<Snapshot>>,
    bridge: bridge::Bridge,
) -> Result<Server, Failure> {
    proxy_server::start(ServerConfig {
        listeners,
        pin: settings.threads.pin,
        snapshot,
        bridge,
        tls: certificates.client.clone(),
        engine: snapshot::engine(settings),
    })
    .map_err(data_plane)
}

/// Lets the keeper limit projects, and act upon requests of the fleet, if that is wanted.
fn use_keeper(
    settings: &Settings,
    (keeper, limiting): (Option<Keeper>, &limiting::Way),
    fleet: &mut Fleet,
    volumes: &Arc<Volumes>,
    look: &Arc<Notify>,
) -> Result<(), Failure> {
    let Some(keeper) = keeper else {
        return Ok(());
    };
    let keeper = keeper
        .client()
        .map_err(|error| Failure::new(format!("reach the keeper of mounts: {error}")))?;
    limiting.open(&keeper);
    fleet.checks.push(mounting::check(&keeper));
    if !settings.mounts {
        return Ok(());
    }
    let Some(ear) = fleet.ear.clone() else {
        tracing::warn!("storage-proxy.use-watcher: without Redis nobody can ask for a mount");
        return Ok(());
    };
    let mounting = mounting::Mounting::new(keeper, volumes, look, settings.mount_limit);
    let link = ear.bus.link().clone();
    let requests = Arc::new(mounting::Requests {
        mounting: Arc::new(mounting),
        ear,
    });
    fleet
        .background
        .push(Box::pin(proxy_fleet::events::listen(link, requests)));
    Ok(())
}

/// Puts the program's other counters on the page; what is returned looks at the volumes, and asks
/// the health probes.
fn show_counters(
    state: &ApiState,
    watched: watched::Watched,
    settings: &Settings,
    volumes: &Arc<Volumes>,
) -> impl Future<Output = ()> + use<> {
    let levels = levels::Levels::default();
    state.metrics.add_source(Box::new(watched));
    state.metrics.add_source(Box::new(crate::logging::Counts));
    state.metrics.add_source(Box::new(levels.clone()));
    let vendors = proxy_api::metrics::Vendors::new(Arc::clone(volumes));
    state.metrics.add_source(Box::new(vendors));
    let sizes = sizes::Sizes::default();
    state.metrics.add_source(Box::new(sizes.clone()));
    let stats = &settings.volume_stats;
    let every = stats.observe_interval.min(LOOK_INTERVAL_MAX);
    let looks = levels.watch(Arc::clone(volumes), every, stats.observe_timeout);
    let scans = sizes.watch(Arc::clone(volumes), settings.usage.scan_interval);
    let health = Arc::clone(&state.health);
    async move {
        tokio::join!(looks, scans, health.watch());
    }
}

fn data_plane(error: io::Error) -> Failure {
    Failure::new(format!("the data plane: {}", plain(&error)))
}

fn open_store(settings: &Settings) -> Result<Arc<EmbeddedStore>, Failure> {
    let options = StoreOptions {
        ranges_max: settings.limits.upload_ranges_max,
        ..StoreOptions::default()
    };
    let store = EmbeddedStore::open(&settings.state_file, options);
    store
        .map(Arc::new)
        .map_err(|error| Failure::new(error.to_string()))
}

/// The volumes whose backends this build has; the others are told, and the rest works.
fn open_volumes(
    settings: &Settings,
    right: &dyn Fn(&Spec) -> Arc<dyn QuotaPrivilege>,
) -> Result<Volumes, Failure> {
    let known = |volume: &&VolumeSettings| {
        let known = proxy_volume::Kind::parse(&volume.backend).is_some();
        if !known {
            tracing::error!(
                volume = volume.name,
                backend = volume.backend,
                "this build has no such backend, the volume is not served"
            );
        }
        known
    };
    let spec = |volume: &VolumeSettings| Spec {
        name: volume.name.clone(),
        backend: volume.backend.clone(),
        path: volume.path.clone(),
        fsprefix: volume.fsprefix.clone(),
        options: volume.options.clone(),
    };
    let specs = settings.volumes.iter().filter(known).map(spec).collect();
    let limits = proxy_volume::Limits {
        scan_time_max: settings.usage.answer_time,
        usage_recount_scans: settings.usage.recount_scans,
        ..proxy_volume::Limits::default()
    };
    let volumes = Volumes::with_privilege(specs, &limits, right);
    let volumes = volumes.map_err(|error| Failure::new(error.to_string()))?;
    volumes.remember_usage_in(&settings.data_dir.join("usage"));
    Ok(volumes)
}

async fn start_runner(
    settings: &Settings,
    fleet: &Fleet,
    volumes: &Arc<Volumes>,
    watched: &watched::Watched,
) -> Result<Runner, Failure> {
    let options = RunnerOptions {
        running_per_key_max: settings.limits.task_concurrency,
        ..RunnerOptions::default()
    };
    let tasks = Arc::clone(&fleet.tasks);
    let events = watched.events(Arc::clone(&fleet.events));
    let handlers = watched.handlers(proxy_volume::tasks::handlers(volumes));
    let started = Runner::start(tasks, events, handlers, options).await;
    started.map_err(|error| Failure::new(format!("take up unfinished tasks: {error}")))
}

fn api_state(
    settings: &Settings,
    store: &Arc<EmbeddedStore>,
    fleet: &mut Fleet,
    volumes: &Arc<Volumes>,
    runner: &Runner,
    server: &Server,
) -> ApiState {
    let mut checks = proxy_api::probes::standalone(store, volumes);
    checks.append(&mut fleet.checks);
    let health = Health::new(checks);
    let api = proxy_api::Settings {
        manager_secret: settings.secrets.manager.clone(),
        token_secret: settings.secrets.token.clone(),
        token_ttl: settings.session_expire,
        upload_bytes_max: Some(settings.upload_bytes_max).filter(|max| *max != u64::MAX),
        json_bytes_max: settings.limits.json_bytes_max,
        list_entries_max: settings.list_entries_max.unwrap_or(0),
        scopes_on_demand: settings.auto_quota_scope,
        usage_time_max: settings.usage.answer_time,
    };
    let sessions = Arc::clone(&fleet.sessions);
    let control = counters::ControlPlane {
        store: Arc::clone(store),
        runner: runner.clone(),
        health: Arc::new(health),
    };
    let (volumes, runner) = (Arc::clone(volumes), Arc::new(runner.clone()));
    let (limits, health) = (api_limits(settings), Arc::clone(&control.health));
    let mut state = ApiState::new(volumes, sessions, runner, api, health, &limits);
    state.stats = fleet.stats.clone();
    let metrics = &state.metrics;
    metrics.set_endpoints(settings.metrics_endpoints);
    metrics.add_source(Box::new(counters::DataPlane::new(server.metrics())));
    metrics.add_source(Box::new(control));
    for figures in fleet.figures.drain(..) {
        metrics.add_source(figures);
    }
    state
}

/// Bounds of the control plane's listeners.
fn api_limits(settings: &Settings) -> proxy_api::Limits {
    proxy_api::Limits {
        drain_time_max: settings.drain_timeout,
        head_bytes_max: settings.limits.header_bytes_max,
        write_stall_max: settings.limits.progress_timeout,
        ..proxy_api::Limits::default()
    }
}

fn listener(listener: std::net::TcpListener) -> Result<TcpListener, Failure> {
    TcpListener::from_std(listener)
        .map_err(|error| Failure::new(format!("watch a listener: {}", plain(&error))))
}
