//! Keys of logging, debugging, profiling and tracing.

use super::super::keys::Key;
use super::super::keys::Kind::{
    Bool, Choice, Choices, Duration, Free, HostPort, Int, Level, Levels, LogSize, Path, Text,
    TextMap, Word,
};

const PYTHON: &str = "belongs to Python's logging schema";
const PROFILE: &str = "continuous profiling";

pub(super) const KEYS: &[Key] = &[
    Key::used(
        "logging.level",
        Level,
        "Least severe level that is written. `--log-level` and `--debug` go before it.",
    )
    .default("\"INFO\""),
    Key::used(
        "logging.drivers",
        Choices(&["console", "file", "logstash", "graylog", "loki"]),
        "Where log records go; each but `console` needs its table.",
    )
    .default("[\"console\"]"),
    Key::used(
        "logging.pkg-ns",
        Levels,
        "Level by logger name, the longest matching prefix counts. Names here begin with \
         `ai.backend.storage`.",
    )
    .default("{ \"\" = \"WARNING\", \"ai.backend\" = \"INFO\", \"tests\" = \"DEBUG\" }"),
    Key::used(
        "logging.queue-records",
        Int(16, 10_000_000),
        "Records that may wait for each place they go to; further ones are dropped and counted. \
         Nothing ever waits for a log.",
    )
    .default("8192"),
    Key::ignored("logging.version", Int(1, 1), PYTHON).default("1"),
    Key::ignored("logging.disable-existing-loggers", Bool, PYTHON).default("false"),
    Key::ignored("logging.handlers", Free, PYTHON),
    Key::ignored("logging.loggers", Free, PYTHON),
    Key::used(
        "logging.console.colored",
        Bool,
        "Whether levels are coloured.",
    )
    .absent("coloured when standard error is a terminal"),
    Key::used(
        "logging.console.format",
        Choice(&["verbose", "simple", "json"]),
        "`verbose` has time, level, logger, process and message; `simple` level and message; \
         `json` is one object per line, for collectors.",
    )
    .default("\"verbose\""),
    Key::used(
        "logging.file.path",
        Path,
        "Directory of the file; made if missing.",
    )
    .required(),
    Key::used("logging.file.filename", Word, "Name of the file.").required(),
    Key::used(
        "logging.file.backup-count",
        Int(0, 10_000),
        "Rotated files that are kept. `BACKEND_LOG_FILE_COUNT` sets it.",
    )
    .default("5")
    .env("BACKEND_LOG_FILE_COUNT"),
    Key::used(
        "logging.file.rotation-size",
        LogSize,
        "Size at which the file is rotated. `BACKEND_LOG_FILE_SIZE` sets it, in MB.",
    )
    .default("\"10MB\""),
    Key::ignored(
        "logging.file.format",
        Choice(&["verbose", "simple"]),
        "the file is always JSON",
    )
    .default("\"verbose\""),
    Key::used(
        "logging.logstash.endpoint",
        HostPort,
        "The Logstash server. Records are JSON objects, one a line over TCP, one a datagram over \
         UDP.",
    )
    .required(),
    Key::used(
        "logging.logstash.protocol",
        Choice(&["tcp", "udp", "zmq.push", "zmq.pub"]),
        "How to reach it. The `zmq` protocols are refused: use `tcp` with the `json_lines` codec.",
    )
    .default("\"tcp\""),
    Key::used("logging.logstash.ssl-enabled", Bool, "TLS, for `tcp`.").default("true"),
    Key::used(
        "logging.logstash.ssl-verify",
        Bool,
        "Whether the server's certificate is verified.",
    )
    .default("true"),
    Key::used(
        "logging.logstash.ca-certs",
        Path,
        "Certificates to verify it by, in PEM.",
    )
    .absent("those of the system"),
    Key::used(
        "logging.graylog.host",
        Word,
        "The Graylog server: GELF over TLS.",
    )
    .required(),
    Key::used("logging.graylog.port", Int(1, 65535), "Its port.").required(),
    Key::used(
        "logging.graylog.level",
        Level,
        "Least severe level that is sent there.",
    )
    .default("\"INFO\""),
    Key::used("logging.graylog.localname", Text, "What is sent as `host`.")
        .absent("the name of this machine"),
    Key::ignored(
        "logging.graylog.fqdn",
        Text,
        "`localname` says what is sent",
    ),
    Key::used(
        "logging.graylog.ssl-verify",
        Bool,
        "Whether the server's certificate is verified.",
    )
    .default("true"),
    Key::used(
        "logging.graylog.ca-certs",
        Path,
        "Certificates to verify it by, in PEM.",
    )
    .absent("those of the system"),
    Key::used(
        "logging.graylog.keyfile",
        Path,
        "Own key in PEM, for servers that ask.",
    ),
    Key::used(
        "logging.graylog.certfile",
        Path,
        "Own certificate in PEM, for servers that ask.",
    ),
    Key::used(
        "logging.loki.endpoint",
        Word,
        "Base URL of Loki, such as `http://loki:3100`. Records go to `/loki/api/v1/push`.",
    )
    .required(),
    Key::used("logging.loki.tenant", Text, "Sent as `X-Scope-OrgID`."),
    Key::used("logging.loki.username", Text, "For basic authentication."),
    Key::used("logging.loki.password", Text, "For basic authentication.").secret(),
    Key::used(
        "logging.loki.ca-certs",
        Path,
        "Certificates to verify the server by, in PEM.",
    )
    .absent("those of the system"),
    Key::used(
        "logging.loki.ssl-verify",
        Bool,
        "Whether the server's certificate is verified.",
    )
    .default("true"),
    Key::used(
        "logging.loki.labels",
        TextMap,
        "Labels of every stream, beside `service_name`, `node`, `level`, `backend` and \
         `operation`.",
    )
    .default("{}"),
    Key::used(
        "logging.loki.vfolder-id-label",
        Bool,
        "Whether `vfolder_id` is a label of the stream instead of structured metadata. Every \
         folder is a stream then: for small sites only.",
    )
    .default("false"),
    Key::used(
        "logging.loki.batch-records",
        Int(1, 100_000),
        "Records of one push.",
    )
    .default("1000"),
    Key::used(
        "logging.loki.batch-time",
        Duration(0, 3600),
        "How long a record waits for others before it is pushed.",
    )
    .default("\"1s\""),
    Key::used("debug.enabled", Bool, "As `--debug`: log at DEBUG.").default("false"),
    Key::ignored(
        "debug.asyncio",
        Bool,
        "Python event loops have no counterpart here",
    )
    .default("false"),
    Key::ignored(
        "debug.enhanced-aiomonitor-task-info",
        Bool,
        "Python event loops have no counterpart here",
    )
    .default("false"),
    Key::used(
        "debug.log-events",
        Bool,
        "Whether every event that is sent to the fleet, or asked of this server, is logged at \
         INFO.",
    )
    .default("false"),
    Key::later("pyroscope.enabled", Bool, PROFILE).default("false"),
    Key::later("pyroscope.app-name", Text, PROFILE),
    Key::later("pyroscope.server-addr", Text, PROFILE),
    Key::later("pyroscope.sample-rate", Int(1, 1_000_000), PROFILE),
    Key::used(
        "otel.enabled",
        Bool,
        "Whether traces and log records go to an OpenTelemetry collector, over gRPC.",
    )
    .default("false"),
    Key::used(
        "otel.log-level",
        Level,
        "Least severe level that is sent there.",
    )
    .default("\"INFO\""),
    Key::used("otel.endpoint", Word, "The collector.").default("\"http://localhost:4317\""),
    Key::used(
        "otel.max-queue-size",
        Int(1, i64::MAX),
        "Spans that may wait for the collector; further ones are dropped.",
    )
    .default("65536"),
    Key::used(
        "otel.max-export-batch-size",
        Int(1, i64::MAX),
        "Spans of one export.",
    )
    .default("4096"),
];
