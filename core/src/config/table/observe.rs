//! Keys of logging, debugging and profiling.

use super::super::keys::Key;
use super::super::keys::Kind::{
    Bool, Choice, Choices, Float, Free, HostPort, Int, Level, Levels, LogSize, Path, Text, Word,
};

const PYTHON: &str = "belongs to Python's logging schema";
const LOGSTASH: &str = "the Logstash driver";
const GRAYLOG: &str = "the Graylog driver";
const PROFILE: &str = "continuous profiling";
const OTEL: &str = "OpenTelemetry export";

pub(super) const KEYS: &[Key] = &[
    Key::used(
        "logging.level",
        Level,
        "Least severe level that is written. `--log-level` and `--debug` go before it.",
    )
    .default("\"INFO\""),
    Key::used(
        "logging.drivers",
        Choices(&["console", "file", "logstash", "graylog"]),
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
    Key::later("logging.logstash.endpoint", HostPort, LOGSTASH).required(),
    Key::later(
        "logging.logstash.protocol",
        Choice(&["tcp", "udp", "zmq.push", "zmq.pub"]),
        LOGSTASH,
    )
    .default("\"tcp\""),
    Key::later("logging.logstash.ssl-enabled", Bool, LOGSTASH).default("true"),
    Key::later("logging.logstash.ssl-verify", Bool, LOGSTASH).default("true"),
    Key::later("logging.graylog.host", Word, GRAYLOG).required(),
    Key::later("logging.graylog.port", Int(1, 65535), GRAYLOG).required(),
    Key::later("logging.graylog.level", Level, GRAYLOG).default("\"INFO\""),
    Key::later("logging.graylog.localname", Text, GRAYLOG),
    Key::later("logging.graylog.fqdn", Text, GRAYLOG),
    Key::later("logging.graylog.ssl-verify", Bool, GRAYLOG).default("true"),
    Key::later("logging.graylog.ca-certs", Path, GRAYLOG),
    Key::later("logging.graylog.keyfile", Path, GRAYLOG),
    Key::later("logging.graylog.certfile", Path, GRAYLOG),
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
    Key::later("debug.log-events", Bool, "events of a fleet").default("false"),
    Key::later("pyroscope.enabled", Bool, PROFILE).default("false"),
    Key::later("pyroscope.app-name", Text, PROFILE),
    Key::later("pyroscope.server-addr", Text, PROFILE),
    Key::later("pyroscope.sample-rate", Int(1, 1_000_000), PROFILE),
    Key::later("otel.enabled", Bool, OTEL).default("false"),
    Key::later("otel.log-level", Level, OTEL).default("\"INFO\""),
    Key::later("otel.endpoint", Word, OTEL).default("\"http://localhost:4317\""),
    Key::later("otel.max-queue-size", Int(1, i64::MAX), OTEL).default("65536"),
    Key::later("otel.max-export-batch-size", Int(1, i64::MAX), OTEL).default("4096"),
    Key::later(
        "reservoir-client.timeout-total",
        Float(0.0),
        "artifact import",
    )
    .default("300.0"),
    Key::later(
        "reservoir-client.timeout-connect",
        Float(0.0),
        "artifact import",
    ),
    Key::later(
        "reservoir-client.timeout-sock-connect",
        Float(0.0),
        "artifact import",
    )
    .default("30.0"),
    Key::later(
        "reservoir-client.timeout-sock-read",
        Float(0.0),
        "artifact import",
    ),
];
