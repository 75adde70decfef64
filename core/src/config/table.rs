//! The one table of keys, in the order of the reference page.

mod artifacts;
mod fleet;
mod logging;
mod observe;
mod server;
mod service;

use super::keys::Key;

/// Every key of the configuration, section by section.
pub static TABLE: [&[Key]; 6] = [
    service::KEYS,
    fleet::KEYS,
    server::KEYS,
    logging::KEYS,
    observe::KEYS,
    artifacts::KEYS,
];

/// All keys, in the order of the table.
pub(super) fn keys() -> impl Iterator<Item = &'static Key> + Clone {
    TABLE.iter().flat_map(|keys| keys.iter())
}

/// The key of a canonical path with its `*` and `[]` in place.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    keys().find(|key| key.path == path)
}

/// What a section is for: one sentence per section that the table mentions.
pub(super) static SECTIONS: &[(&str, &str)] = &[
    (
        "storage-proxy",
        "The service as a whole. Shared with the original.",
    ),
    (
        "storage-proxy.volume-stats",
        "Statistics of vendor backends.",
    ),
    ("api.client", "The listener for uploads and downloads."),
    (
        "api.manager",
        "The listener for the Manager, and the internal one for probes and metrics.",
    ),
    (
        "volume.*",
        "One volume; `*` is the name under which the Manager knows it. Without any `[volume]` \
         table there is one volume `local` under the data directory.",
    ),
    (
        "etcd",
        "Membership in a fleet. Without this section and `[redis]` the program runs standalone.",
    ),
    (
        "redis",
        "Redis or Valkey. In a fleet these settings stand in etcd under `config/redis`, with the \
         same keys, and go before this table, which counts without etcd and until etcd answers.",
    ),
    (
        "redis.redis-helper-config",
        "Times of the original's client.",
    ),
    (
        "redis.override-configs.*",
        "Another server for one role; `*` is `stream` (events), `bgtask` (tasks) or `live` \
         (announcements). Overrides for other roles are accepted and not used, as with the \
         original.",
    ),
    ("manager", "The Manager as this server calls it."),
    (
        "server",
        "What only this implementation has: where state lives, threads, shutdown.",
    ),
    (
        "server.limits",
        "Everything has a limit, and this is where it stands.",
    ),
    ("server.uploads", "Life of unfinished uploads."),
    ("server.usage", "How the sizes of vfolders are counted."),
    (
        "server.snapshots",
        "Which snapshots of vfolders stay; every one unless a key says otherwise.",
    ),
    (
        "server.helper",
        "The keeper of mounts: what the process that keeps root's rights may do.",
    ),
    (
        "server.tls",
        "TLS of both listeners; certificates stand with the listener they are for.",
    ),
    ("logging", "What is logged, and where to."),
    ("logging.console", "Log lines on standard error."),
    (
        "logging.file",
        "JSON lines in a file that is rotated by size.",
    ),
    ("logging.logstash", "Log records to a Logstash server."),
    ("logging.graylog", "Log records to a Graylog server."),
    ("logging.loki", "Log records straight to Grafana Loki."),
    ("debug", "For developers."),
    ("pyroscope", "Continuous profiling."),
    ("otel", "OpenTelemetry export."),
    (
        "service-discovery",
        "How the service announces itself to a fleet.",
    ),
    ("service-discovery.endpoints[]", "One announced address."),
    (
        "artifact-storages.*",
        "Storage for model artifacts; `*` is its name.",
    ),
    (
        "artifact-storages.*.object-storage",
        "An S3-compatible object store.",
    ),
    (
        "artifact-storages.*.object-storage.presigned-upload",
        "Limits of presigned uploads.",
    ),
    (
        "artifact-storages.*.object-storage.presigned-download",
        "Limits of presigned downloads.",
    ),
    (
        "artifact-storages.*.vfs-storage",
        "A directory that holds artifacts.",
    ),
    (
        "artifact-registries.*",
        "Where model artifacts come from; `*` is its name.",
    ),
    ("artifact-registries.*.huggingface", "A Hugging Face hub."),
    (
        "artifact-registries.*.reservoir",
        "Another installation's artifact reservoir.",
    ),
    ("reservoir-client", "Time limits towards reservoirs."),
    ("storages[]", "Object stores in the older, flat form."),
    (
        "storages[].presigned-upload",
        "Limits of presigned uploads.",
    ),
    (
        "storages[].presigned-download",
        "Limits of presigned downloads.",
    ),
    ("registries[]", "Registries in the older, flat form."),
    (
        "registries[].config",
        "The registry; `type` decides which keys matter.",
    ),
];

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
