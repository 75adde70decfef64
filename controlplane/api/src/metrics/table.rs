//! The one table of metrics: the page, the reference and the dashboards are checked against it.

/// Whether a name may still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// Dashboards rely on it.
    Stable,
    /// It follows the inside of the program.
    Internal,
}

/// One metric as the reference page lists it.
#[derive(Clone, Copy, Debug)]
pub struct MetricRow {
    /// Name on the page.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Unit of its value.
    pub unit: &'static str,
    /// Labels, in the order of the page.
    pub labels: &'static [&'static str],
    /// What it counts; also the help text on the page.
    pub help: &'static str,
    /// Whether the name may still change.
    pub stability: Stability,
}

/// Labels of the request metrics, in the order of the page.
pub(super) const REQUEST_LABELS: &[&str] = &[
    "domain",
    "endpoint",
    "error_detail",
    "method",
    "operation",
    "status_code",
];

/// Upper bounds of durations in seconds, as the specification has them.
pub const DURATION_BUCKETS_S: &[f64] = &[0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
/// Upper bounds of task durations in seconds; the original's.
pub const TASK_BUCKETS_S: &[f64] = &[0.1, 1.0, 10.0, 30.0, 60.0, 300.0, 600.0];
/// Upper bounds of looks at a volume in seconds; the original's.
pub const LOOK_BUCKETS_S: &[f64] = &[0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

macro_rules! rows {
    ($($stability:ident { $(
        $id:ident: $kind:ident $name:literal [$($label:literal)*] $unit:literal, $help:literal;
    )+ })+) => {
        /// The rows, by what they are.
        pub mod row {
            use super::{MetricRow, Stability};
            $($(
                #[doc = $help]
                pub static $id: MetricRow = MetricRow {
                    name: $name,
                    kind: stringify!($kind),
                    unit: $unit,
                    labels: &[$($label),*],
                    help: $help,
                    stability: Stability::$stability,
                };
            )+)+
        }

        /// Every metric of the program, in the order of the reference page.
        pub static TABLE: &[&MetricRow] = &[$($(&row::$id,)+)+];
    };
}

rows! {
Stable {
    REQUEST_COUNT: counter "backendai_api_request_count_total"
        ["domain" "endpoint" "error_detail" "method" "operation" "status_code"] "requests",
        "Requests answered, by endpoint and outcome";
    REQUEST_DURATION: histogram "backendai_api_request_duration_sec"
        ["domain" "endpoint" "error_detail" "method" "operation" "status_code"] "seconds",
        "Seconds from a request's head to the last byte of its answer";
    CPU_PERCENT: gauge "backendai_cpu_usage_percent" [] "percent of one core",
        "Processor use of the process since the previous scrape";
    MEMORY_RSS: gauge "backendai_memory_used_rss" [] "bytes",
        "Resident memory of the process";
    MEMORY_VMS: gauge "backendai_memory_used_vms" [] "bytes",
        "Address space of the process";
    TASKS_NOW: gauge "backendai_bgtask_count" ["task_name"] "tasks",
        "Background tasks that run";
    TASKS_DONE: counter "backendai_bgtask_done_count_total"
        ["domain" "error_detail" "operation" "status" "task_name"] "tasks",
        "Background tasks that ended, by how";
    TASK_DURATION: histogram "backendai_bgtask_processing_time_sec"
        ["domain" "error_detail" "operation" "status" "task_name"] "seconds",
        "Seconds that background tasks ran";
    EVENTS: counter "backendai_event_count_total" ["event_type"] "events",
        "Events published";
    EVENT_FAILURES: counter "backendai_event_failure_count_total"
        ["domain" "error_detail" "event_type" "exception" "operation"] "events",
        "Events received that could not be handled";
    EVENT_DURATION: histogram "backendai_event_processing_time_sec"
        ["domain" "error_detail" "event_type" "operation" "status"] "seconds",
        "Seconds to handle events received";
    LAYER_NOW: gauge "backendai_layer_operation_triggered_count"
        ["domain" "layer" "operation"] "operations",
        "Operations on Redis in flight";
    LAYER_COUNT: counter "backendai_layer_operation_count_total"
        ["domain" "layer" "operation" "success"] "operations",
        "Operations on Redis, by outcome";
    LAYER_ERRORS: counter "backendai_layer_operation_error_count_total"
        ["domain" "error_code" "layer" "operation"] "operations",
        "Operations on Redis that failed, by error";
    LAYER_RETRIES: counter "backendai_layer_retry_count_total"
        ["domain" "layer" "operation"] "operations",
        "Operations on Redis that were tried again";
    LAYER_DURATION: histogram "backendai_layer_operation_duration_sec"
        ["domain" "layer" "operation" "success"] "seconds",
        "Seconds of operations on Redis";
    VOLUME_IOPS_READ: gauge "backendai_storage_volume_iops_read" ["volume"] "reads per second",
        "Reads per second, as the backend says";
    VOLUME_IOPS_WRITE: gauge "backendai_storage_volume_iops_write" ["volume"] "writes per second",
        "Writes per second, as the backend says";
    VOLUME_BYTES_READ: gauge "backendai_storage_volume_throughput_bytes_read" ["volume"]
        "bytes per second", "Bytes read per second, as the backend says";
    VOLUME_BYTES_WRITE: gauge "backendai_storage_volume_throughput_bytes_write" ["volume"]
        "bytes per second", "Bytes written per second, as the backend says";
    VOLUME_USEC_READ: gauge "backendai_storage_volume_latency_usec_read" ["volume"]
        "microseconds", "Microseconds per read, as the backend says";
    VOLUME_USEC_WRITE: gauge "backendai_storage_volume_latency_usec_write" ["volume"]
        "microseconds", "Microseconds per write, as the backend says";
    VOLUME_SEEN_AT: gauge "backendai_storage_volume_metric_last_updated_timestamp" ["volume"]
        "seconds since 1970", "When the volume was last looked at with success";
    VOLUME_LOOKS: counter "backendai_storage_volume_stats_observe_total" ["status" "volume"]
        "looks", "Looks at the volume, by outcome";
    VOLUME_LOOK_DURATION: histogram "backendai_storage_volume_stats_observe_duration_seconds"
        ["volume"] "seconds", "Seconds that looks at the volume took";
    OPERATION_DURATION: histogram "storage_proxy_operation_duration_seconds"
        ["backend" "operation" "success" "volume"] "seconds",
        "Seconds of storage operations, until the last byte";
    OPERATIONS_NOW: gauge "storage_proxy_operations_in_flight" ["operation"] "operations",
        "Storage operations at work";
    RECEIVED: counter "storage_proxy_operation_received_bytes_total"
        ["backend" "operation" "volume"] "bytes", "Bytes of file content received";
    SENT: counter "storage_proxy_operation_sent_bytes_total"
        ["backend" "operation" "volume"] "bytes", "Bytes of answers with file content sent";
    VOLUME_UP: gauge "storage_proxy_volume_up" ["backend" "volume"] "1 or 0",
        "Whether the volume answered when it was last looked at";
    VOLUME_CAPACITY: gauge "storage_proxy_volume_capacity_bytes" ["backend" "volume"] "bytes",
        "Size of the volume's file system";
    VOLUME_USED: gauge "storage_proxy_volume_used_bytes" ["backend" "volume"] "bytes",
        "Bytes in use or reserved on the volume's file system";
    VFOLDERS: gauge "storage_proxy_volume_vfolders" ["volume"] "vfolders",
        "Vfolders of the volume, at the last scan of their sizes";
    VFOLDER_ENTRIES: gauge "storage_proxy_volume_vfolder_entries" ["volume"] "entries",
        "Files, links and directories of all vfolders, at the last scan";
    VFOLDER_BYTES: gauge "storage_proxy_volume_vfolder_bytes" ["volume"] "bytes",
        "Allocated bytes of all vfolders, at the last scan";
    USAGE_SCANS: counter "storage_proxy_usage_scans_total" ["status" "volume"] "vfolders",
        "Vfolders whose size was brought up to date in the background, by outcome";
    USAGE_DIRS: counter "storage_proxy_usage_scan_directories_total" ["how" "volume"]
        "directories", "Directories of these scans: read, or skipped because they had not changed";
    USAGE_SEEN_AT: gauge "storage_proxy_usage_scan_timestamp" ["volume"] "seconds since 1970",
        "When the last scan of the sizes of all vfolders began";
    QUOTA_USED: gauge "storage_proxy_quota_used_bytes" ["scope" "volume"] "bytes",
        "Bytes in use of a quota scope, as last seen; scopes asked for lately only";
    QUOTA_LIMIT: gauge "storage_proxy_quota_limit_bytes" ["scope" "volume"] "bytes",
        "Bytes that a quota scope may use, as last seen; absent without a limit";
    VENDOR_UP: gauge "storage_proxy_vendor_up" ["backend" "volume"] "1 or 0",
        "Whether the storage system's own interface is called; 0 after it failed repeatedly";
    VENDOR_CALLS: histogram "storage_proxy_vendor_call_duration_seconds"
        ["backend" "operation" "outcome" "volume"] "seconds",
        "Seconds of operations of the storage system's own interface, repetitions included";
    VENDOR_NOW: gauge "storage_proxy_vendor_requests_in_flight" ["backend" "volume"] "requests",
        "Requests to the storage system's own interface under way";
    VENDOR_REQUESTS: counter "storage_proxy_vendor_requests_total" ["backend" "volume"]
        "requests", "Requests sent to the storage system's own interface";
    VENDOR_RETRIES: counter "storage_proxy_vendor_retries_total" ["backend" "volume"]
        "requests", "Requests to it that were sent again after one that failed";
    VENDOR_THROTTLED: counter "storage_proxy_vendor_throttled_total" ["backend" "volume"]
        "answers", "Answers by which it asked to wait";
    VENDOR_SUSPENDED: counter "storage_proxy_vendor_suspended_total" ["backend" "volume"]
        "requests", "Requests that were not sent, since it had failed repeatedly";
    VENDOR_LOGINS: counter "storage_proxy_vendor_logins_total" ["backend" "volume"]
        "logins", "Times that it was asked for a session or a token";
    VENDOR_RECEIVED: counter "storage_proxy_vendor_received_bytes_total" ["backend" "volume"]
        "bytes", "Bytes of its answers";
    HEALTHY: gauge "storage_proxy_component_healthy" ["component_id" "service_group"] "1 or 0",
        "Findings of the health probes";
    TASKS_QUEUED: gauge "storage_proxy_tasks_queued" [] "tasks",
        "Background tasks that wait for their turn";
    LINK_UP: gauge "storage_proxy_fleet_link_up" ["role"] "1 or 0",
        "Whether the connection to Redis of this role works";
    OUTBOX: gauge "storage_proxy_fleet_outbox_events" [] "events",
        "Events that wait for Redis";
    FLEET_EVENTS: counter "storage_proxy_fleet_events_total" ["result"] "events",
        "Events by what became of them: sent, spooled, replayed, retried, forced, dropped";
    FLEET_TASKS: gauge "storage_proxy_fleet_tasks" ["state"] "tasks",
        "Tasks on record in Redis: live, unshared, unsettled, elsewhere";
    SESSIONS_DIRTY: gauge "storage_proxy_sessions_dirty" [] "sessions",
        "Upload sessions whose last changes Redis does not have yet";
    SESSIONS_DEGRADED: counter "storage_proxy_sessions_degraded_total" [] "calls",
        "Calls on upload sessions that were answered while Redis was away";
    SESSION_TAKEOVERS: counter "storage_proxy_session_takeovers_total" [] "sessions",
        "Upload sessions taken over from another server";
    SESSIONS_MERGED: counter "storage_proxy_sessions_merged_total" [] "sessions",
        "Upload sessions merged into Redis after it was away";
    LEASES_LOST: counter "storage_proxy_leases_lost_total" [] "writers",
        "Writers that found their lease in Redis gone";
    FLEET_SERVERS: gauge "storage_proxy_fleet_servers" [] "servers",
        "Servers that share upload sessions and hear each other";
    CERTIFICATE_EXPIRY: gauge "storage_proxy_certificate_expiry_timestamp_seconds" ["listener"]
        "seconds since 1970",
        "End of the first certificate to expire of the chain that a listener shows";
    LOG_RECORDS: counter "storage_proxy_log_records_total" ["result" "sink"] "records",
        "Log records by where they went and what became of them: written or dropped";
    CONNECTIONS: gauge "storage_proxy_connections" [] "connections",
        "Open client connections";
    ACCEPTED: counter "storage_proxy_connections_accepted_total" [] "connections",
        "Client connections accepted";
    ALL_RECEIVED: counter "storage_proxy_received_bytes_total" [] "bytes",
        "Bytes of request bodies received";
    ALL_SENT: counter "storage_proxy_sent_bytes_total" [] "bytes",
        "Bytes of answers sent";
    PANICS: counter "storage_proxy_panics_total" [] "requests",
        "Requests that panicked";
    LEASES: gauge "storage_proxy_upload_leases" [] "sessions",
        "Upload sessions with a writer, or one that waits";
    LEASE_CONFLICTS: counter "storage_proxy_lease_conflicts_total" [] "claims",
        "Claims of upload sessions that found a writer on another server";
}
Internal {
    ASYNC_TASKS: gauge "backendai_async_task_count" [] "tasks",
        "Tasks alive on the control plane's runtime";
    HTTP2_CONNECTIONS: gauge "storage_proxy_http2_connections" [] "connections",
        "Open client connections that speak HTTP/2";
    HTTP2_STREAMS: counter "storage_proxy_http2_streams_total" [] "requests",
        "Requests that came over HTTP/2";
    TLS_HANDSHAKES: counter "storage_proxy_tls_handshakes_total" [] "handshakes",
        "TLS handshakes of clients";
    TLS_RESUMPTIONS: counter "storage_proxy_tls_resumptions_total" [] "handshakes",
        "TLS handshakes that resumed a session";
    BUFFERS: gauge "storage_proxy_buffers_in_use" [] "buffers",
        "Transfer buffers that hold bytes on their way";
    BUFFER_BYTES: gauge "storage_proxy_buffer_bytes_mapped" [] "bytes",
        "Memory of all transfer buffers, in use or kept";
    RING_NOW: gauge "storage_proxy_inflight_operations" [] "operations",
        "File operations that are not answered yet";
    PIPES: gauge "storage_proxy_pipes_in_use" [] "pipes",
        "Pipes that carry a download";
    THREADS: gauge "storage_proxy_data_threads" [] "threads",
        "Threads of the data plane";
    COMPRESSING: gauge "storage_proxy_archives_compressing" [] "archives",
        "Archives that are being compressed";
    CHECKSUMS: gauge "storage_proxy_archive_checksums" [] "checksums",
        "Checksums of files that are remembered for archives";
    CHECKSUMS_FOUND: counter "storage_proxy_archive_checksums_found_total" [] "files",
        "Files that an archive did not read for their checksum, because it was remembered";
    HOT_FILES: gauge "storage_proxy_hot_files" [] "files",
        "Downloads remembered with their open file";
    HOT_HITS: counter "storage_proxy_hot_hits_total" [] "downloads",
        "Downloads answered from what was remembered";
    BRIDGE_QUEUE: gauge "storage_proxy_bridge_queue" [] "calls",
        "Calls of the data plane that wait for the control plane";
    STATE_COMMITS: counter "storage_proxy_state_commits_total" [] "commits",
        "Synced commits of the state file";
    STATE_CHANGES: counter "storage_proxy_state_changes_total" [] "changes",
        "Changes in commits of the state file";
    STATE_FAILURES: counter "storage_proxy_state_commit_failures_total" [] "commits",
        "Commits of the state file that failed";
    STATE_QUEUE: gauge "storage_proxy_state_queue" [] "changes",
        "Changes that wait for a commit of the state file";
}
}

/// The reference page, in Markdown.
pub fn reference() -> String {
    let mut out = String::from(HEAD);
    for (stability, title) in [
        (Stability::Stable, "Stable names"),
        (
            Stability::Internal,
            "Names that follow the inside of the program",
        ),
    ] {
        out.push_str(&format!(
            "\n## {title}\n\n| name | type | labels | unit | what |\n|---|---|---|---|---|\n"
        ));
        for row in TABLE.iter().filter(|row| row.stability == stability) {
            let labels: Vec<String> = row.labels.iter().map(|l| format!("`{l}`")).collect();
            out.push_str(&format!(
                "| `{}` | {} | {} | {} | {} |\n",
                row.name,
                row.kind,
                labels.join(" "),
                row.unit,
                row.help
            ));
        }
    }
    out
}

const HEAD: &str = "\
<!-- Made from the metric table: UPDATE_DOCS=1 cargo test -p proxy-api metrics -->

# Metrics

`GET /metrics` on the internal port is for Prometheus, in the classic text format. A dashboard and \
alert rules are in `configs/grafana` and `configs/prometheus`.

- Every label has a closed set of values: no path, method or text of a client becomes a series.
- Durations end with the last byte of the answer, on both ports. Their buckets end at 0.001, 0.01, \
0.1, 0.5, 1, 2, 5, 10, 30 and 60 seconds, written without a decimal point where there is none. \
(Prometheus 3 rewrites `le=\"10\"` to `le=\"10.0\"` while it scrapes, whatever the page says.)
- `service_group` is not on the page: it is a label of the target, which the Manager's service \
discovery sets.

## Endpoints have two names

Real requests go to routes such as `/upload`, `/download` and `/folder/create`; dashboards of the \
original know these. The queries of the specification use names of operations instead. \
`server.metrics-endpoints` says which are on the page:

| value | what is counted | where sums over all endpoints are true |
|---|---|---|
| `operations` | every request once: under its operation if it has one, else under its route | \
everywhere |
| `routes` | every request once, under its route | everywhere |
| `both` | every request under its route, and again under its operation | with \
`endpoint!~\"/vfolder/.*\"` |

The default is `operations`: every query of the specification answers, and every sum is true. A \
site whose dashboards were made for the original sets `routes`; one that has both kinds sets \
`both`, where shares such as error rates hold as they are, but sums over all endpoints count \
twice unless they leave one kind out.

| name | requests | status codes of its own |
|---|---|---|
| `/vfolder/upload` | PATCH, PUT and POST of `/upload` | 401 token refused, 403 with \
`error_detail=\"quota-exceeded\"` (507 on the wire), 504 volume does not answer in time (503 on \
the wire) |
| `/vfolder/download` | GET of `/download` and `/download-archive` | 401, 504 |
| `/vfolder/create` | POST of `/folder/create` | 401, 403, 504 |
| `/vfolder/list` | POST of `/folder/file/list` | 401, 504 |
| `/vfolder/auth` | any other request whose token was refused | 401 |

Their error series begin at zero with the program, so that a rate of errors that never happened is \
0 and not absent. Quota endpoints carry `quota` in their route.
";
