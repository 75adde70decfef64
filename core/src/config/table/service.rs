//! Keys of the service, its listeners and its volumes.

use super::super::keys::Key;
use super::super::keys::Kind::{
    Bool, Choice, Duration, Float, Free, Group, HostPort, Int, Path, SizeOrUnlimited, Text, User,
    Word,
};

const PREFIX: &str = "the keeper of mounts is reached over a pair of sockets without a name";
const YEAR_S: u64 = 366 * 24 * 60 * 60;

pub(super) const KEYS: &[Key] = &[
    Key::used(
        "storage-proxy.node-id",
        Word,
        "Name of this server, unique in a fleet.",
    )
    .absent("the host name; required with `[etcd]`"),
    Key::used(
        "storage-proxy.num-proc",
        Int(1, 4096),
        "Data-plane threads. More than there are CPUs is cut down to their number, with a warning.",
    )
    .absent("one per CPU: they share nothing, so more would only take turns"),
    Key::used(
        "storage-proxy.secret",
        Word,
        "Key that signs the tokens of uploads and downloads. Servers of one fleet share it.",
    )
    .absent("made on first start and kept in the data directory; required with `[etcd]`")
    .secret(),
    Key::used(
        "storage-proxy.session-expire",
        Duration(1, 100 * YEAR_S),
        "Lifetime of a token.",
    )
    .default("\"1d\""),
    Key::used(
        "storage-proxy.max-upload-size",
        SizeOrUnlimited,
        "Largest single upload; announced and enforced.",
    )
    .default("\"100g\""),
    Key::used(
        "storage-proxy.scandir-limit",
        Int(0, i64::MAX),
        "Most entries that one listing returns; 0 for all.",
    )
    .default("1000"),
    Key::used(
        "storage-proxy.allow-auto-quota-scope-creation",
        Bool,
        "Whether creating a folder creates its missing quota scope.",
    )
    .default("true")
    .alias(&["auto-quota-scope-creation"]),
    Key::used(
        "storage-proxy.pid-file",
        Path,
        "Where to write the process id; removed at the end if it is a regular file.",
    )
    .default("\"/dev/null\""),
    Key::used(
        "storage-proxy.user",
        User,
        "User to become after the ports are bound, when started as root; ignored otherwise.",
    )
    .absent("the user stays"),
    Key::used(
        "storage-proxy.group",
        Group,
        "Group to become, as `user`. A name is looked up among the groups first, then among the \
         users (their primary group), where the original looks.",
    )
    .absent("the primary group of `user`"),
    Key::ignored(
        "storage-proxy.ipc-base-path",
        Path,
        "one process: there is no relay socket",
    ),
    Key::ignored(
        "storage-proxy.event-loop",
        Choice(&["asyncio", "uvloop"]),
        "Python event loops have no counterpart here",
    )
    .default("\"asyncio\""),
    Key::ignored(
        "storage-proxy.use-experimental-redis-event-dispatcher",
        Bool,
        "there is one event dispatcher",
    )
    .default("false"),
    Key::ignored(
        "storage-proxy.aiomonitor-termui-port",
        Int(1, 65535),
        "a console that runs code is not offered",
    )
    .default("38300")
    .alias(&["aiomonitor-port"]),
    Key::used(
        "storage-proxy.aiomonitor-webui-port",
        Int(0, 65535),
        "Port on 127.0.0.1 of a page that shows transfers, tasks and threads at work; the original \
         uses 39300. 0 takes any free one. A port that is taken is a warning.",
    )
    .absent("no such page"),
    Key::used(
        "storage-proxy.use-watcher",
        Bool,
        "Whether volumes are mounted and unmounted on request of the fleet, by a small process \
         that keeps root's rights: see `[server.helper]`.",
    )
    .default("false"),
    Key::ignored("storage-proxy.watcher-insock-path-prefix", Text, PREFIX),
    Key::ignored("storage-proxy.watcher-outsock-path-prefix", Text, PREFIX),
    Key::used(
        "storage-proxy.volume-stats.observe-interval",
        Float(1.0),
        "Seconds between two looks at how full and how fast the volumes are.",
    )
    .default("10.0"),
    Key::used(
        "storage-proxy.volume-stats.observe-timeout",
        Float(1.0),
        "Seconds that one look may take; past them the volume counts as down.",
    )
    .default("5.0"),
    Key::used(
        "storage-proxy.volume-stats.cache-ttl",
        Float(1.0),
        "Seconds for which they are kept in Redis and answered from there.",
    )
    .default("30.0"),
    Key::used(
        "api.client.service-addr",
        HostPort,
        "Where clients connect.",
    )
    .default("\"127.0.0.1:6021\""),
    Key::used("api.client.ssl-enabled", Bool, "Whether clients speak TLS.").default("false"),
    Key::used(
        "api.client.ssl-cert",
        Path,
        "Certificate chain in PEM, own certificate first; required with `ssl-enabled`.",
    ),
    Key::used(
        "api.client.ssl-privkey",
        Path,
        "Private key in PEM; required with `ssl-enabled`.",
    ),
    Key::used(
        "api.manager.service-addr",
        HostPort,
        "Where the Manager connects.",
    )
    .default("\"127.0.0.1:6022\""),
    Key::used(
        "api.manager.internal-addr",
        HostPort,
        "Metrics and health probes, in plain HTTP and without authentication: keep it private.",
    )
    .default("\"127.0.0.1:16023\""),
    Key::used(
        "api.manager.ssl-enabled",
        Bool,
        "Whether the Manager speaks TLS.",
    )
    .default("false"),
    Key::used(
        "api.manager.ssl-cert",
        Path,
        "Certificate chain in PEM, own certificate first; required with `ssl-enabled`.",
    ),
    Key::used(
        "api.manager.ssl-privkey",
        Path,
        "Private key in PEM; required with `ssl-enabled`.",
    ),
    Key::used(
        "api.manager.secret",
        Word,
        "What the Manager must send in `X-BackendAI-Storage-Auth-Token`.",
    )
    .absent("made on first start and kept in the data directory; required with `[etcd]`")
    .secret(),
    Key::used(
        "api.manager.announce-addr",
        HostPort,
        "Where others reach the Manager's port; announced to the fleet.",
    )
    .default("\"127.0.0.1:6022\""),
    Key::used(
        "api.manager.announce-internal-addr",
        HostPort,
        "Where Prometheus reaches the internal port; announced to the fleet. The default is the \
         original's and hardly ever right.",
    )
    .default("\"host.docker.internal:6023\""),
    Key::used("volume.*.backend", Word, "What kind of storage it is.").required(),
    Key::used("volume.*.path", Path, "Where it is mounted on this host.").required(),
    Key::used(
        "volume.*.fsprefix",
        Text,
        "Reported to the Manager; not used in any path.",
    )
    .default("\".\""),
    Key::used("volume.*.options", Free, "Options of the backend.").absent("no options"),
];
