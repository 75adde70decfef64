//! Where the two planes are put together.
//!
//! Everything is resolved, bound and locked when this is called, and the process is whoever it
//! will be. Order: the store, the volumes, the tasks, then the two planes; down again in reverse.

mod collect;
mod counters;
mod fleet;
mod keeper;
mod links;
mod snapshot;
mod stats;
mod tls;

pub use tls::Certificates;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use proxy_api::{ApiState, Health, internal_router, manager_router};
use proxy_server::{Server, ServerConfig, bridge};
use proxy_state::{EmbeddedStore, Runner, RunnerOptions, StoreOptions};
use proxy_volume::{Spec, Volumes};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::failure::{Failure, plain};
use crate::listen::Listeners;
use crate::settings::{Settings, VolumeSettings};
use crate::shutdown::Shutdown;
use fleet::Fleet;

/// Calls of the data plane that may wait for the control plane.
const BRIDGE_CALLS_MAX: usize = 4096;
/// How long the start waits for the volumes.
const OPEN_WAIT: Duration = Duration::from_secs(5);

/// Serves on `listeners` until `shutdown` is requested, then drains and returns.
///
/// Called inside the control plane's runtime. `ready` is called once, when connections are
/// answered on all ports.
///
/// # Errors
/// A plane could not start, or ended by itself.
pub async fn run(
    settings: Settings,
    listeners: Listeners,
    certificates: Certificates,
    ready: impl FnOnce() -> Result<(), Failure>,
    mut shutdown: Shutdown,
) -> Result<(), Failure> {
    let settings = Arc::new(settings);
    let store = open_store(&settings)?;
    let volumes = Arc::new(open_volumes(&settings)?);
    // A mount that hangs must not keep the others waiting; it is looked for again later.
    let _ = tokio::time::timeout(OPEN_WAIT, volumes.open_all()).await;
    let mut fleet = Fleet::join(&settings, &store, &volumes).await;
    let runner = start_runner(&settings, &fleet, &volumes).await?;

    let entries = Arc::new(ArcSwap::from_pointee(snapshot::build(&settings, &volumes)));
    let (bridge, calls) = bridge::channel(BRIDGE_CALLS_MAX);
    let mut server = proxy_server::start(ServerConfig {
        listeners: listeners.client,
        pin: settings.threads.pin,
        snapshot: Arc::clone(&entries),
        bridge,
        tls: certificates.client.clone(),
        engine: snapshot::engine(&settings),
    })
    .map_err(data_plane)?;

    let state = api_state(&settings, &store, &mut fleet, &volumes, &runner, &server);
    let sessions = Arc::clone(&fleet.sessions);
    let mut background = JoinSet::new();
    for work in fleet.background.drain(..) {
        background.spawn(work);
    }
    background.spawn(keeper::serve(calls, Arc::clone(&sessions)));
    let health = Arc::clone(&state.health);
    background.spawn(async move { health.watch().await });
    let (known, watched) = (Arc::clone(&settings), Arc::clone(&volumes));
    background.spawn(snapshot::follow(known, watched, entries));
    let (known, swept) = (Arc::clone(&settings), Arc::clone(&volumes));
    background.spawn(collect::run(known, swept, sessions));

    let manager = (
        listeners.manager,
        manager_router(state.clone()),
        certificates.manager.clone(),
    );
    background.spawn(certificates.follow());
    let internal = (listeners.internal, internal_router(state), None);
    let mut planes = JoinSet::new();
    for (at, router, tls) in [manager, internal] {
        let mut until = shutdown.clone();
        let asked = async move { until.requested().await };
        let limits = api_limits(&settings);
        planes.spawn(proxy_api::serve(listener(at)?, router, tls, asked, limits));
    }

    ready()?;
    tokio::select! {
        () = shutdown.requested() => {}
        ended = server.ended() => {
            let early = ended.err().unwrap_or_else(|| io::Error::other("it ended by itself"));
            return Err(data_plane(early));
        }
    }
    server.drain(settings.drain_timeout);
    let data = server.join().await;
    while planes.join_next().await.is_some() {}
    let left = runner.shutdown(settings.drain_timeout).await;
    if left > 0 {
        tracing::info!(tasks = left, "unfinished tasks go on at the next start");
    }
    fleet.leave().await;
    background.shutdown().await;
    if let Err(error) = store.flush().await {
        tracing::error!(%error, "the last records did not reach the disk");
    }
    data.map_err(data_plane)
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
fn open_volumes(settings: &Settings) -> Result<Volumes, Failure> {
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
    let limits = proxy_volume::Limits::default();
    Volumes::new(specs, &limits).map_err(|error| Failure::new(error.to_string()))
}

async fn start_runner(
    settings: &Settings,
    fleet: &Fleet,
    volumes: &Arc<Volumes>,
) -> Result<Runner, Failure> {
    let options = RunnerOptions {
        running_per_key_max: settings.limits.task_concurrency,
        ..RunnerOptions::default()
    };
    let (tasks, events) = (Arc::clone(&fleet.tasks), Arc::clone(&fleet.events));
    let handlers = proxy_volume::tasks::handlers(volumes);
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
    };
    let sessions = Arc::clone(&fleet.sessions);
    let (volumes, runner) = (Arc::clone(volumes), Arc::new(runner.clone()));
    let limits = api_limits(settings);
    let mut state = ApiState::new(volumes, sessions, runner, api, Arc::new(health), &limits);
    state.stats = fleet.stats.clone();
    state
        .metrics
        .add_source(Box::new(counters::DataPlane::new(server.metrics())));
    state
}

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
