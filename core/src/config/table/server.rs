//! Keys of `[server]`: what only this implementation has.

use super::super::keys::Key;
use super::super::keys::Kind::{Bool, Choice, Duration, Int, Path, Size, Texts};
use crate::units::{GIB, KIB, MIB};

const HOUR_S: u64 = 60 * 60;
const DAY_S: u64 = 24 * HOUR_S;

pub(super) const KEYS: &[Key] = &[
    Key::used(
        "server.data-dir",
        Path,
        "Home of secrets, state, lock and the `local` volume. One server at a time uses it. The \
         flag `--data-dir` and `STORAGE_PROXY_DATA_DIR` go before it.",
    )
    .absent(
        "`$XDG_DATA_HOME/storage-proxy`, else `~/.local/share/storage-proxy`, else \
         `/var/lib/storage-proxy`",
    ),
    Key::used(
        "server.state-file",
        Path,
        "The embedded store: upload sessions and tasks. Relative to the data directory.",
    )
    .default("\"state.redb\""),
    Key::used(
        "server.threads",
        Int(1, 4096),
        "Data-plane threads; goes before `storage-proxy.num-proc`, for files shared with the \
         original.",
    )
    .absent("as `storage-proxy.num-proc`"),
    Key::used(
        "server.pin-threads",
        Bool,
        "Whether each data-plane thread stays on its own CPU.",
    )
    .default("true"),
    Key::used(
        "server.control-threads",
        Int(1, 256),
        "Threads that answer the Manager. They only parse and wait, so two are plenty.",
    )
    .default("2"),
    Key::used(
        "server.blocking-threads-max",
        Int(1, 4096),
        "Most threads that wait for disks: tree walks, deletions, copies. A hanging mount holds \
         at most its share of them.",
    )
    .default("64"),
    Key::used(
        "server.backlog",
        Int(1, 65535),
        "Connections that may wait to be accepted.",
    )
    .default("1024"),
    Key::used(
        "server.http2",
        Bool,
        "Whether clients that know HTTP/2 may speak it, with TLS and without.",
    )
    .default("true"),
    Key::used(
        "server.metrics-endpoints",
        Choice(&["operations", "routes", "both"]),
        "Names of endpoints on the metrics page: the specification's operations, the original's \
         routes, or each request under both, so that sums count it twice: docs/metrics.md.",
    )
    .default("\"operations\""),
    Key::used(
        "server.drain-timeout",
        Duration(0, DAY_S),
        "How long running transfers and requests may go on after SIGTERM or SIGINT. A second \
         signal ends the program at once. 30 s lets a healthy client finish a chunk.",
    )
    .default("\"30s\""),
    Key::used(
        "server.limits.connections-max",
        Int(1, 10_000_000),
        "Most open client connections; the next one waits in the backlog.",
    )
    .default("16384"),
    Key::used(
        "server.limits.header-bytes-max",
        Size(KIB, MIB),
        "Most bytes of a request head, request line included. Tokens stand in the request line, \
         and list file names of archives.",
    )
    .default("\"64k\""),
    Key::used(
        "server.limits.headers-max",
        Int(8, 1024),
        "Most header fields of a request.",
    )
    .default("100"),
    Key::used(
        "server.limits.head-timeout",
        Duration(1, HOUR_S),
        "How long a client may take to send a request head, and a TLS handshake.",
    )
    .default("\"10s\""),
    Key::used(
        "server.limits.idle-timeout",
        Duration(1, DAY_S),
        "How long a connection stays open between requests. Longer than the 60 s after which \
         common load balancers give up, so that they close first.",
    )
    .default("\"75s\""),
    Key::used(
        "server.limits.progress-timeout",
        Duration(1, DAY_S),
        "How long a transfer may stand still before it is cut.",
    )
    .default("\"60s\""),
    Key::used(
        "server.limits.buffer-bytes-max",
        Size(MIB, 64 * GIB),
        "Memory for bytes in flight, all threads together. When it is used up, transfers wait.",
    )
    .default("\"64m\""),
    Key::used(
        "server.limits.ranges-max",
        Int(1, 10_000),
        "Most ranges of one download request; more is answered 416.",
    )
    .default("64"),
    Key::used(
        "server.limits.upload-ranges-max",
        Int(1, 4096),
        "Most separate ranges that parts of one upload may leave; a part that would make one more \
         is answered 409 until a gap is filled. HEAD lists them in one header.",
    )
    .default("256"),
    Key::used(
        "server.limits.archive-entries-max",
        Int(1, 100_000_000),
        "Most entries of one archive. Their names are held in memory, about 100 bytes each.",
    )
    .default("1000000"),
    Key::used(
        "server.limits.archives-max",
        Int(1, 10_000),
        "Most archives that are made at once; the next one waits.",
    )
    .default("16"),
    Key::used(
        "server.limits.archives-compressing-max",
        Int(1, 1024),
        "Most archives that are compressed at once, for clients that ask for it; the next one \
         waits. Each takes most of a core while it lasts.",
    )
    .default("4"),
    Key::used(
        "server.limits.archive-checksums-max",
        Int(0, 100_000_000),
        "Checksums of files that are remembered, about 100 bytes each, so that a zip that was \
         broken off goes on without reading again what the client has.",
    )
    .default("262144"),
    Key::used(
        "server.limits.hot-files-max",
        Int(0, 1_000_000),
        "Downloads that are remembered with verified token and open file, while they are asked \
         for again within seconds; at most half of the descriptor limit. 0 remembers none.",
    )
    .default("32768"),
    Key::used(
        "server.limits.http2-streams-max",
        Int(1, 10_000),
        "Most requests at once on one HTTP/2 connection.",
    )
    .default("128"),
    Key::used(
        "server.limits.http2-stream-window-bytes",
        Size(64 * KIB, GIB),
        "Bytes of one HTTP/2 request body that may be on their way before they are wanted. \
         An upload is no faster than this per round trip.",
    )
    .default("\"1m\""),
    Key::used(
        "server.limits.http2-connection-window-bytes",
        Size(64 * KIB, GIB),
        "The same for all request bodies of one HTTP/2 connection together. Bounds what a \
         connection can make the server hold.",
    )
    .default("\"4m\""),
    Key::used(
        "server.limits.json-bytes-max",
        Size(KIB, GIB),
        "Most bytes of a JSON body on the manager port; more is answered 413.",
    )
    .default("\"1m\""),
    Key::used(
        "server.limits.task-concurrency",
        Int(1, 1024),
        "Background tasks that run at once on one volume; the others wait, registered.",
    )
    .default("4"),
    Key::used(
        "server.uploads.collect-interval",
        Duration(1, 30 * DAY_S),
        "How often expired uploads are looked for and removed.",
    )
    .default("\"10m\""),
    Key::used(
        "server.uploads.collect-grace",
        Duration(0, 30 * DAY_S),
        "How long an unfinished upload stays after its token has expired.",
    )
    .default("\"1h\""),
    Key::used(
        "server.usage.answer-time",
        Duration(0, 300),
        "How long the usage of a vfolder is counted for one request; then the answer is what was \
         counted until then, and says so.",
    )
    .default("\"30s\""),
    Key::used(
        "server.usage.scan-interval",
        Duration(0, 30 * DAY_S),
        "How often the sizes of all vfolders are brought up to date in the background, one vfolder \
         of a volume at a time; 0 for never. The first time is one interval after the start.",
    )
    .default("\"1d\""),
    Key::used(
        "server.usage.recount-scans",
        Int(1, 1000),
        "In how many scans a directory is read again at the latest though it looks unchanged: \
         files that were written to in place do not show in it.",
    )
    .default("8"),
    Key::used(
        "server.snapshots.retain-interval",
        Duration(60, 30 * DAY_S),
        "How often snapshots that have expired, and those that the next two keys do not keep, are \
         looked for and removed.",
    )
    .default("\"1h\""),
    Key::used(
        "server.snapshots.count-max",
        Int(0, 1_000_000),
        "Snapshots of one vfolder that stay, the newest; 0 for all.",
    )
    .default("0"),
    Key::used(
        "server.snapshots.age-max",
        Duration(0, 3660 * DAY_S),
        "How old a snapshot may become; 0 for any age.",
    )
    .default("0"),
    Key::used(
        "server.tls.min-version",
        Choice(&["1.2", "1.3"]),
        "Oldest TLS version that is spoken.",
    )
    .default("\"1.2\""),
    Key::used(
        "server.helper.socket",
        Path,
        "Socket of a keeper of mounts that runs on its own, as a unit in `configs/systemd` does. \
         Without it the server starts one, and must itself be started as root for that.",
    ),
    Key::used(
        "server.helper.roots",
        Texts,
        "Directories, beside the paths of volumes, below which it may mount: the mount prefix.",
    )
    .default("[]"),
    Key::used(
        "server.helper.fs-types",
        Texts,
        "Types of file systems that it may mount; `bind` binds a directory.",
    )
    .default("[\"nfs\", \"nfs4\"]"),
    Key::used(
        "server.helper.mount-options",
        Texts,
        "Mount options that may be asked for, without their values. `nosuid` and `nodev` are \
         always set.",
    )
    .default(
        "[\"ro\", \"rw\", \"nosuid\", \"nodev\", \"noexec\", \"noatime\", \"nodiratime\", \
         \"relatime\", \"sync\", \"soft\", \"softerr\", \"hard\", \"vers\", \"nfsvers\", \
         \"proto\", \"port\", \"tcp\", \"timeo\", \"retrans\", \"retry\", \"rsize\", \
         \"wsize\", \"nconnect\", \"lock\", \"nolock\", \"local_lock\", \"noac\", \
         \"actimeo\", \"acregmin\", \"acregmax\", \"acdirmin\", \"acdirmax\", \
         \"lookupcache\", \"nocto\", \"namlen\", \"mountport\", \"mountproto\", \
         \"mountvers\", \"sec\", \"_netdev\"]",
    ),
    Key::used(
        "server.helper.sources",
        Texts,
        "Beginnings of what it may mount, such as `nas:/exports`. Without any: everything of the \
         form `host:/path`, and nothing of this machine.",
    )
    .default("[]"),
    Key::used(
        "server.helper.fstab",
        Path,
        "The mount table that it may change.",
    )
    .default("\"/etc/fstab\""),
    Key::used(
        "server.helper.time-limit",
        Duration(1, HOUR_S),
        "How long a mount may take, and an unmount if the fleet does not say.",
    )
    .default("\"30s\""),
];
