//! Everything that the two planes need to know, resolved and checked against this machine.
//!
//! Laws
//! - What is in [`Settings`] can be used as it stands: paths are absolute, names are looked up,
//!   numbers are within their bounds.
//! - Nothing here starts, binds or writes anything.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use proxy_core::config::Document;
use proxy_core::token::Secret;
use serde_json::{Map, Value};

use crate::load::Loaded;

mod fleet;
mod look;

pub use fleet::{FleetSettings, ManagerKeys, VolumeStats, is_member};
pub use look::{Outside, look};

/// The service, ready to be wired.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of this server.
    pub node_id: String,
    /// Where to listen, as configured; the bound addresses are those of the listeners.
    pub addresses: Addresses,
    /// TLS of the client port.
    pub client_tls: Option<TlsFiles>,
    /// TLS of the manager port.
    pub manager_tls: Option<TlsFiles>,
    /// Oldest TLS version is 1.3 instead of 1.2.
    pub tls_1_3_only: bool,
    /// Both secrets.
    pub secrets: Secrets,
    /// In the order of the configuration.
    pub volumes: Vec<VolumeSettings>,
    /// Bounds.
    pub limits: Limits,
    /// Threads.
    pub threads: Threads,
    /// Connections that may wait to be accepted.
    pub backlog: i32,
    /// Home of secrets and state, absolute.
    pub data_dir: PathBuf,
    /// The embedded store, absolute.
    pub state_file: PathBuf,
    /// Lifetime of tokens.
    pub session_expire: Duration,
    /// Largest upload in bytes; `u64::MAX` for no limit.
    pub upload_bytes_max: u64,
    /// Most entries of one listing; `None` for all.
    pub list_entries_max: Option<usize>,
    /// Whether creating a folder creates its quota scope.
    pub auto_quota_scope: bool,
    /// How often expired uploads are collected.
    pub collect_interval: Duration,
    /// How long an upload stays after its token expired.
    pub collect_grace: Duration,
    /// How sizes of vfolders are counted.
    pub usage: UsageSettings,
    /// How often snapshots are looked through.
    pub retain_interval: Duration,
    /// Which snapshots stay.
    pub retention: proxy_volume::Retention,
    /// How long running work may go on after the first signal.
    pub drain_timeout: Duration,
    /// Whom to become after binding; only ever set for a process of root.
    pub identity: Option<Identity>,
    /// How long a mount may take.
    pub mount_limit: Duration,
    /// The fleet may ask for mounts (`storage-proxy.use-watcher`).
    pub mounts: bool,
    /// Port of the introspection page, if there is to be one.
    pub inspect_port: Option<u16>,
    /// Names of endpoints on the metrics page.
    pub metrics_endpoints: proxy_api::metrics::Endpoints,
    /// Where to write the process id; `None` for `/dev/null`.
    pub pid_file: Option<PathBuf>,
    /// The fleet, unless the server stands alone.
    pub fleet: Option<FleetSettings>,
    /// Performance figures of volumes.
    pub volume_stats: VolumeStats,
    /// Whether events are logged.
    pub log_events: bool,
}

/// The three listeners. The first address that a name resolved to comes first.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Uploads and downloads.
    pub client: SocketAddr,
    /// The Manager.
    pub manager: SocketAddr,
    /// Health and metrics.
    pub internal: SocketAddr,
}

/// Files of one TLS listener; both were readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Chain in PEM, own certificate first.
    pub cert: PathBuf,
    /// Key in PEM.
    pub key: PathBuf,
}

/// What must not be known to others.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// Signs tokens.
    pub token: Secret,
    /// Proves that the Manager is the Manager.
    pub manager: Secret,
}

/// One `[volume.<name>]`.
#[derive(Clone, Debug)]
pub struct VolumeSettings {
    /// Name under which the Manager knows it.
    pub name: String,
    /// A name of `proxy_core::config::BACKENDS`.
    pub backend: String,
    /// Absolute; need not exist.
    pub path: PathBuf,
    /// Reported, not used.
    pub fsprefix: String,
    /// Options of the backend, as written.
    pub options: Map<String, Value>,
}

/// `[server.limits]`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open client connections, all threads together.
    pub connections_max: usize,
    /// Bytes of a request head.
    pub header_bytes_max: usize,
    /// Header fields of a request.
    pub headers_max: usize,
    /// Time for a request head, and for a TLS handshake.
    pub head_timeout: Duration,
    /// Time between requests.
    pub idle_timeout: Duration,
    /// Time without a byte in either direction.
    pub progress_timeout: Duration,
    /// Transfer buffers, all threads together.
    pub buffer_bytes_max: u64,
    /// Ranges of one request.
    pub ranges_max: usize,
    /// Separate ranges of durable bytes in one upload.
    pub upload_ranges_max: usize,
    /// Entries of one archive.
    pub archive_entries_max: usize,
    /// Archives made at once.
    pub archives_max: usize,
    /// Archives compressed at once.
    pub archives_compressing_max: usize,
    /// Checksums remembered for archives.
    pub archive_checksums_max: usize,
    /// Downloads remembered, all threads together.
    pub hot_files_max: usize,
    /// Whether clients may speak HTTP/2.
    pub http2: bool,
    /// Requests at once on one HTTP/2 connection.
    pub http2_streams_max: usize,
    /// Window of one request body.
    pub http2_stream_window_bytes: u64,
    /// Window of all request bodies of a connection.
    pub http2_connection_window_bytes: u64,
    /// Bytes of a JSON body.
    pub json_bytes_max: u64,
    /// Background tasks at once on one volume.
    pub task_concurrency: usize,
}

/// How sizes of vfolders are counted.
#[derive(Clone, Copy, Debug)]
pub struct UsageSettings {
    /// For one request.
    pub answer_time: Duration,
    /// Between two scans of all vfolders; zero for none.
    pub scan_interval: Duration,
    /// Scans in which every directory is read at least once.
    pub recount_scans: u32,
}

/// How many threads do what.
#[derive(Clone, Debug)]
pub struct Threads {
    /// Data plane; never more than CPUs.
    pub data: usize,
    /// Whether each data-plane thread stays on one CPU.
    pub pin: bool,
    /// Control plane.
    pub control: usize,
    /// Most threads that wait for disks.
    pub blocking_max: usize,
}

/// A user and groups to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

impl Settings {
    /// Puts together what was configured, what was found on this machine, and the secrets.
    pub fn new(loaded: &Loaded, outside: Outside, secrets: Secrets) -> Self {
        let document = &loaded.document;
        let pid_file = document
            .text("storage-proxy.pid-file", &[])
            .map(|path| loaded.path(path));
        let state_file = document.text("server.state-file", &[]).unwrap_or_default();
        let node_id = document
            .text("storage-proxy.node-id", &[])
            .unwrap_or_else(crate::host::name);
        Self {
            fleet: FleetSettings::of(loaded, &node_id, outside.etcd_tls),
            volume_stats: VolumeStats::of(document),
            log_events: document.flag("debug.log-events"),
            node_id,
            addresses: outside.addresses,
            client_tls: outside.client_tls,
            manager_tls: outside.manager_tls,
            tls_1_3_only: document.text("server.tls.min-version", &[]).as_deref() == Some("1.3"),
            secrets,
            volumes: volumes(loaded),
            limits: limits(document),
            threads: Threads {
                data: outside.data_threads,
                pin: document.flag("server.pin-threads"),
                control: count(document, "server.control-threads"),
                blocking_max: count(document, "server.blocking-threads-max"),
            },
            backlog: i32::try_from(document.int("server.backlog")).unwrap_or(i32::MAX),
            data_dir: loaded.data_dir.clone(),
            state_file: loaded.data_dir.join(state_file),
            session_expire: document.duration("storage-proxy.session-expire"),
            upload_bytes_max: document
                .size("storage-proxy.max-upload-size")
                .unwrap_or(u64::MAX),
            list_entries_max: Some(count(document, "storage-proxy.scandir-limit"))
                .filter(|limit| *limit != 0),
            auto_quota_scope: document.flag("storage-proxy.allow-auto-quota-scope-creation"),
            collect_interval: document.duration("server.uploads.collect-interval"),
            collect_grace: document.duration("server.uploads.collect-grace"),
            usage: UsageSettings {
                answer_time: document.duration("server.usage.answer-time"),
                scan_interval: document.duration("server.usage.scan-interval"),
                recount_scans: u32::try_from(document.int("server.usage.recount-scans"))
                    .unwrap_or(u32::MAX),
            },
            retain_interval: document.duration("server.snapshots.retain-interval"),
            retention: proxy_volume::Retention {
                count_max: Some(count(document, "server.snapshots.count-max"))
                    .filter(|count| *count != 0),
                age_max: Some(document.duration("server.snapshots.age-max"))
                    .filter(|age| !age.is_zero()),
            },
            drain_timeout: document.duration("server.drain-timeout"),
            identity: outside.identity,
            mount_limit: document.duration("server.helper.time-limit"),
            mounts: document.flag("storage-proxy.use-watcher"),
            inspect_port: document
                .int_if_set("storage-proxy.aiomonitor-webui-port")
                .and_then(|port| u16::try_from(port).ok()),
            metrics_endpoints: proxy_api::metrics::Endpoints::parse(
                &document
                    .text("server.metrics-endpoints", &[])
                    .unwrap_or_default(),
            ),
            pid_file: pid_file.filter(|path| path.as_os_str() != "/dev/null"),
        }
    }
}

/// A number that the table keeps from being negative.
fn count(document: &Document, path: &str) -> usize {
    usize::try_from(document.int(path)).unwrap_or(usize::MAX)
}

fn limits(document: &Document) -> Limits {
    let count = |name: &str| count(document, &format!("server.limits.{name}"));
    let time = |name: &str| document.duration(&format!("server.limits.{name}"));
    let size = |name: &str| {
        document
            .size(&format!("server.limits.{name}"))
            .unwrap_or(u64::MAX)
    };
    Limits {
        connections_max: count("connections-max"),
        header_bytes_max: usize::try_from(size("header-bytes-max")).unwrap_or(usize::MAX),
        headers_max: count("headers-max"),
        head_timeout: time("head-timeout"),
        idle_timeout: time("idle-timeout"),
        progress_timeout: time("progress-timeout"),
        buffer_bytes_max: size("buffer-bytes-max"),
        ranges_max: count("ranges-max"),
        upload_ranges_max: count("upload-ranges-max"),
        archive_entries_max: count("archive-entries-max"),
        archives_max: count("archives-max"),
        archives_compressing_max: count("archives-compressing-max"),
        archive_checksums_max: count("archive-checksums-max"),
        hot_files_max: count("hot-files-max"),
        http2: document.flag("server.http2"),
        http2_streams_max: count("http2-streams-max"),
        http2_stream_window_bytes: size("http2-stream-window-bytes"),
        http2_connection_window_bytes: size("http2-connection-window-bytes"),
        json_bytes_max: size("json-bytes-max"),
        task_concurrency: count("task-concurrency"),
    }
}

/// Name of the volume that is there when none is configured.
pub const LOCAL_VOLUME: &str = "local";

/// The configured volumes; without any `[volume]` table, one under the data directory.
pub fn volumes(loaded: &Loaded) -> Vec<VolumeSettings> {
    let document = &loaded.document;
    if !document.has_section("volume") {
        return vec![VolumeSettings {
            name: LOCAL_VOLUME.into(),
            backend: "vfs".into(),
            path: loaded.data_dir.join("volumes").join(LOCAL_VOLUME),
            fsprefix: ".".into(),
            options: Map::new(),
        }];
    }
    let volume = |name: String| {
        let names = [name.clone()];
        let text = |path: &str| document.text(path, &names).unwrap_or_default();
        VolumeSettings {
            name,
            backend: text("volume.*.backend"),
            path: loaded.path(text("volume.*.path")),
            fsprefix: text("volume.*.fsprefix"),
            options: document.table("volume.*.options", &names),
        }
    };
    document.names("volume.*").into_iter().map(volume).collect()
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
