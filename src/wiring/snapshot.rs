//! What the data plane must know, made from the settings and the volumes that are open.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use proxy_anchor::VolumeRoot;
use proxy_core::units::ByteLen;
use proxy_server::snapshot::{Http2Limits, Limits, Snapshot, VolumeEntry};
use proxy_server::{EngineLimits, PoolLimits};
use proxy_volume::{Kind, Volume, Volumes};
use tokio::sync::{Notify, Semaphore};

use crate::settings::Settings;

/// Calls on names that may wait per volume.
const NAMES_PER_VOLUME: usize = 32;
/// How often a volume that is not there is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The snapshot as of now.
pub fn build(settings: &Settings, volumes: &Volumes) -> Snapshot {
    let stand_in = volumes.find("noop").ok();
    let listed = volumes.listed().iter().chain(stand_in.iter());
    let entries: HashMap<_, _> = listed
        .map(|volume| (volume.name().to_owned(), Arc::new(entry(volume))))
        .collect();
    Snapshot {
        volumes: entries,
        secret: settings.secrets.token.clone(),
        upload_size_max: ByteLen::new(settings.upload_bytes_max),
        archives: Arc::new(Semaphore::new(settings.limits.archives_max)),
        limits: limits(settings),
    }
}

fn entry(volume: &Arc<Volume>) -> VolumeEntry {
    let root = volume.root();
    let abilities = root.as_ref().map(VolumeRoot::abilities).unwrap_or_default();
    VolumeEntry {
        name: volume.name().to_owned(),
        backend: volume.kind().wire().to_owned(),
        root,
        reserves: abilities.reserve && !is_in_memory(volume),
        direct: abilities.direct_io,
        // Where blocks can not be reserved first, as over NFS 3, refusals come with the sync.
        late_quota: volume.kind() == Kind::CephFs || !abilities.reserve,
        names: Arc::new(Semaphore::new(NAMES_PER_VOLUME)),
    }
}

/// Whether the volume is a tmpfs (statfs(2)).
fn is_in_memory(volume: &Volume) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    rustix::fs::statfs(volume.path()).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC)
}

/// Opens volumes that were not there at the start, and anew those over which something was
/// mounted since, and tells the data plane.
///
/// `look` hurries it: whoever has mounted something does not want to wait.
pub async fn follow(
    (settings, volumes): (Arc<Settings>, Arc<Volumes>),
    entries: Arc<ArcSwap<Snapshot>>,
    look: Arc<Notify>,
) {
    loop {
        let pause = tokio::time::sleep(LOOK_AGAIN);
        tokio::select! {
            () = pause => {}
            () = look.notified() => {}
        }
        let mut changed = false;
        for volume in volumes.listed() {
            let known = entries.load();
            let entry = known.volumes.get(volume.name());
            let was_open = entry.is_some_and(|entry| entry.root.is_some());
            drop(known);
            // A mount that hangs is bounded by the volume's own lanes.
            let refreshed = volume.refresh().await.unwrap_or(false);
            changed |= refreshed || was_open != volume.root().is_some();
        }
        if changed {
            tracing::info!("a volume has appeared, or something else is mounted there now");
            entries.store(Arc::new(build(&settings, &volumes)));
        }
    }
}

fn limits(settings: &Settings) -> Limits {
    let configured = &settings.limits;
    let mut limits = Limits {
        connections_max: configured.connections_max,
        head_timeout: configured.head_timeout,
        idle_timeout: configured.idle_timeout,
        progress_timeout: configured.progress_timeout,
        archive_entries_max: configured.archive_entries_max as u64,
        http2: http2(configured),
        ..Limits::default()
    };
    limits.head.head_bytes_max = configured.header_bytes_max;
    limits.head.headers_count_max = configured.headers_max;
    limits.range.ranges_count_max = configured.ranges_max;
    limits
}

fn http2(configured: &crate::settings::Limits) -> Http2Limits {
    // The key table keeps windows below 2^31.
    let window = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX >> 1);
    Http2Limits {
        enabled: configured.http2,
        streams_max: configured.http2_streams_max,
        stream_window_bytes: window(configured.http2_stream_window_bytes),
        connection_window_bytes: window(configured.http2_connection_window_bytes),
        ..Http2Limits::default()
    }
}

/// Sizes of the engines: the configured buffers are shared out among the threads.
pub fn engine(settings: &Settings) -> EngineLimits {
    let default = EngineLimits::default();
    let threads = settings.threads.data.max(1) as u64;
    let share = usize::try_from(settings.limits.buffer_bytes_max / threads).unwrap_or(usize::MAX);
    let budget_bytes = share.max(default.pool.buffer_bytes);
    let pool = PoolLimits {
        budget_bytes,
        keep_bytes: default.pool.keep_bytes.min(budget_bytes),
        ..default.pool
    };
    EngineLimits {
        pool,
        archives_compressing_max: settings.limits.archives_compressing_max,
        archive_checksums_max: settings.limits.archive_checksums_max,
        hot_entries_max: settings.limits.hot_files_max.min(descriptors_max() / 2),
        ..default
    }
}

/// Descriptors that this process may have (getrlimit(2)).
fn descriptors_max() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}
