//! Keys of a fleet: etcd, Redis, service discovery, the Manager.

use super::super::keys::Key;
use super::super::keys::Kind::{
    Bool, Choice, Duration, Float, Free, HostPort, HostPorts, Int, Path, Text, TextMap, Word,
};

/// Why the four times of the original's client have no effect.
const HELPER: &str = "`request-timeout` bounds every call, and connections are made anew for ever";

const fn role(path: &'static str, kind: super::super::keys::Kind) -> Key {
    let doc = "As in `[redis]`, for this role alone; nothing is taken from there.";
    Key::used(path, kind, doc)
}

pub(super) const KEYS: &[Key] = &[
    Key::used(
        "etcd.namespace",
        Word,
        "Keys stand below `/sorna/<namespace>/`.",
    )
    .default("\"local\"")
    .env("BACKEND_NAMESPACE"),
    Key::used(
        "etcd.addr",
        HostPorts,
        "Members of the cluster; any one that answers is used.",
    )
    .default("\"127.0.0.1:2379\"")
    .env("BACKEND_ETCD_ADDR"),
    Key::used(
        "etcd.user",
        Text,
        "User; credentials are sent when user and password are not empty.",
    )
    .env("BACKEND_ETCD_USER"),
    Key::used("etcd.password", Text, "Password of `user`.")
        .env("BACKEND_ETCD_PASSWORD")
        .secret(),
    Key::used(
        "etcd.ssl-enabled",
        Bool,
        "Whether etcd speaks TLS. The original can not, so leave it off while one shares this \
         file.",
    )
    .default("false"),
    Key::used(
        "etcd.ssl-ca",
        Path,
        "Authorities in PEM that may sign etcd's certificate; required with `ssl-enabled`.",
    ),
    Key::used(
        "etcd.ssl-cert",
        Path,
        "Certificate in PEM to show to etcd, with `ssl-privkey`.",
    ),
    Key::used(
        "etcd.ssl-privkey",
        Path,
        "Private key of `ssl-cert` in PEM.",
    ),
    Key::used(
        "etcd.ssl-server-name",
        Word,
        "Name that etcd's certificate must have.",
    )
    .absent("the host of `addr`"),
    Key::used(
        "etcd.request-timeout",
        Duration(1, 60),
        "How long one call may take. The original waits as long for its health probe.",
    )
    .default("\"2s\""),
    Key::used(
        "redis.addr",
        HostPort,
        "The server; without effect when `sentinel` is set.",
    ),
    Key::used(
        "redis.sentinel",
        Text,
        "Sentinels, as in `\"10.0.0.1:26379,10.0.0.2:26379\"`.",
    ),
    Key::used(
        "redis.service-name",
        Text,
        "Name of the master at the Sentinels; required with `sentinel`.",
    ),
    Key::used("redis.user", Text, "User, where the server has several."),
    Key::used("redis.password", Text, "Password of the server.").secret(),
    Key::used(
        "redis.sentinel-password",
        Text,
        "Password of the Sentinels.",
    )
    .absent("as `password`")
    .secret(),
    Key::used(
        "redis.request-timeout",
        Int(1, 600_000),
        "Milliseconds that one call may take.",
    )
    .absent("1000"),
    Key::used("redis.use-tls", Bool, "Whether the server speaks TLS.").absent("no"),
    Key::used(
        "redis.tls-skip-verify",
        Bool,
        "Whether any certificate will do.",
    )
    .absent("no"),
    Key::used(
        "redis.tls-ca",
        Path,
        "Authorities in PEM that may sign the server's certificate; in etcd, a path on each host.",
    )
    .absent("those of the system"),
    Key::ignored(
        "redis.redis-helper-config.socket-timeout",
        Float(0.0),
        HELPER,
    ),
    Key::ignored(
        "redis.redis-helper-config.socket-connect-timeout",
        Float(0.0),
        HELPER,
    ),
    Key::ignored(
        "redis.redis-helper-config.reconnect-poll-timeout",
        Float(0.0),
        HELPER,
    ),
    Key::ignored(
        "redis.redis-helper-config.connection-ready-timeout",
        Float(0.0),
        HELPER,
    ),
    role("redis.override-configs.*.addr", HostPort),
    role("redis.override-configs.*.sentinel", Text),
    role("redis.override-configs.*.service-name", Text),
    role("redis.override-configs.*.user", Text),
    role("redis.override-configs.*.password", Text).secret(),
    role("redis.override-configs.*.sentinel-password", Text).secret(),
    role("redis.override-configs.*.request-timeout", Int(1, 600_000)),
    role("redis.override-configs.*.use-tls", Bool),
    role("redis.override-configs.*.tls-skip-verify", Bool),
    role("redis.override-configs.*.tls-ca", Path),
    Key::ignored("redis.override-configs.*.redis-helper-config", Free, HELPER),
    Key::used(
        "manager.endpoint",
        Word,
        "URL of the Manager's API; goes before what is found in etcd and Redis.",
    )
    .absent("looked for among the announced services"),
    Key::used(
        "manager.access-key",
        Word,
        "Keypair for the Manager's API; with it, health says whether the Manager answers.",
    )
    .absent("the Manager is not asked"),
    Key::used(
        "manager.secret-key",
        Word,
        "Its other half; required with `access-key`.",
    )
    .secret(),
    Key::used(
        "manager.connect-timeout",
        Duration(1, 60),
        "How long a connection to the Manager may take.",
    )
    .default("\"2s\""),
    Key::used(
        "manager.request-timeout",
        Duration(1, 300),
        "How long one call of the Manager may take.",
    )
    .default("\"10s\""),
    Key::used(
        "service-discovery.type",
        Choice(&["redis", "etcd"]),
        "Where this server announces itself.",
    )
    .default("\"redis\""),
    Key::used(
        "service-discovery.instance-id",
        Text,
        "Name of this instance in the Manager's catalogue of services.",
    )
    .absent("made at each start"),
    Key::used(
        "service-discovery.service-group",
        Text,
        "Group in the Manager's catalogue of services; the server enters itself once a minute.",
    )
    .absent("it does not enter itself"),
    Key::used("service-discovery.display-name", Text, "Name for people.")
        .absent("`storage-` and the node id"),
    Key::used(
        "service-discovery.extra-labels",
        TextMap,
        "Labels of the announced service; Prometheus gets them.",
    )
    .default("{}"),
    Key::used(
        "service-discovery.endpoints[].role",
        Word,
        "What it is for.",
    )
    .required(),
    Key::used(
        "service-discovery.endpoints[].scope",
        Word,
        "From where it can be reached.",
    )
    .required(),
    Key::used(
        "service-discovery.endpoints[].address",
        Word,
        "Host name or address.",
    )
    .required(),
    Key::used("service-discovery.endpoints[].port", Int(1, 65535), "Port.").required(),
    Key::used(
        "service-discovery.endpoints[].protocol",
        Word,
        "`http` or `https`.",
    )
    .required(),
    Key::used(
        "service-discovery.endpoints[].metadata",
        Free,
        "Anything else; passed on.",
    )
    .default("{}"),
];
