//! What the key table says about one key.

use super::grammar::Level;

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted path in canonical (kebab) spelling. `*` stands for a name chosen by the operator,
    /// `[]` for the elements of a list of tables.
    pub path: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// What it is when absent.
    pub default: WhenAbsent,
    /// Whether it has an effect.
    pub status: Status,
    /// What it does, in one or two sentences, with the reason of the default.
    pub doc: &'static str,
    /// Other spellings of the last segment, beside the snake one.
    pub aliases: &'static [&'static str],
    /// Environment variable that sets it.
    pub env: Option<&'static str>,
    /// Never shown.
    pub secret: bool,
}

/// The grammar of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// TOML boolean, or `yes`/`no`, `true`/`false`, `on`/`off`, `1`/`0`.
    Bool,
    /// Whole number between the two, both included.
    Int(i64, i64),
    /// Number of at least that.
    Float(f64),
    /// Any string.
    Text,
    /// A string that is not empty.
    Word,
    /// Path of a file; relative ones count from the directory of the configuration file.
    Path,
    /// `{ host, port }`, `"host:port"` or `["host", port]`.
    HostPort,
    /// One host and port, or a list of them.
    HostPorts,
    /// Seconds, or text such as `"1d"`; between the two numbers of seconds.
    Duration(u64, u64),
    /// Bytes, or text in powers of 1024; between the two numbers of bytes.
    Size(u64, u64),
    /// As `Size`, without an upper bound; `inf` and `-1` mean no limit.
    SizeOrUnlimited,
    /// Bytes, or text in powers of 1000 (`10MB`) or 1024 (`10MiB`).
    LogSize,
    /// User id or name; `-1` and `""` keep the user of the process.
    User,
    /// Group id or name; `-1` and `""` keep the group of the process.
    Group,
    /// One of these words, in this spelling.
    Choice(&'static [&'static str]),
    /// A list of these words.
    Choices(&'static [&'static str]),
    /// A log level, in any letter case.
    Level,
    /// A table from logger names to levels.
    Levels,
    /// A list of strings.
    Texts,
    /// A table from strings to strings.
    TextMap,
    /// A table whose content is nobody's business here.
    Free,
}

/// What a key is when it is absent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WhenAbsent {
    /// Its section cannot do without it.
    Required,
    /// Not set, which means this.
    Means(&'static str),
    /// This value, in TOML.
    Toml(&'static str),
}

/// Whether a key has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has.
    Used,
    /// It is accepted for the sake of existing files, and has none, because of this.
    Ignored(&'static str),
    /// It is accepted and checked; what it drives is not built yet.
    Later(&'static str),
}

impl Status {
    /// One word for tables.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Ignored(_) => "accepted, no effect",
            Self::Later(_) => "later",
        }
    }
}

impl Key {
    /// A key that has an effect.
    pub(super) const fn used(path: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self {
            path,
            kind,
            default: WhenAbsent::Means("not set"),
            status: Status::Used,
            doc,
            aliases: &[],
            env: None,
            secret: false,
        }
    }

    /// A key of the original without a meaning here; `why` says why.
    pub(super) const fn ignored(path: &'static str, kind: Kind, why: &'static str) -> Self {
        Self {
            status: Status::Ignored(why),
            ..Self::used(path, kind, "")
        }
    }

    /// A key of the original whose feature comes later; `what` names the feature.
    pub(super) const fn later(path: &'static str, kind: Kind, what: &'static str) -> Self {
        Self {
            status: Status::Later(what),
            ..Self::used(path, kind, "")
        }
    }

    pub(super) const fn default(self, toml: &'static str) -> Self {
        Self {
            default: WhenAbsent::Toml(toml),
            ..self
        }
    }

    pub(super) const fn absent(self, means: &'static str) -> Self {
        Self {
            default: WhenAbsent::Means(means),
            ..self
        }
    }

    pub(super) const fn required(self) -> Self {
        Self {
            default: WhenAbsent::Required,
            ..self
        }
    }

    pub(super) const fn alias(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    pub(super) const fn env(self, name: &'static str) -> Self {
        Self {
            env: Some(name),
            ..self
        }
    }

    pub(super) const fn secret(self) -> Self {
        Self {
            secret: true,
            ..self
        }
    }

    /// The segments of the path.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &'static str> {
        self.path.split('.')
    }

    /// The last segment.
    pub fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }
}

/// Keys at or above this upper bound are printed as "or more".
const OPEN_END: i64 = i64::MAX;

impl Kind {
    /// What is allowed, for problems and for the reference page.
    pub fn allowed(&self) -> String {
        match self {
            Self::Bool => "true or false".into(),
            Self::Int(min, OPEN_END) => format!("whole number, {min} or more"),
            Self::Int(min, max) => format!("whole number, {min} to {max}"),
            Self::Float(min) => format!("number, {min} or more"),
            Self::Text => "string".into(),
            Self::Word => "non-empty string".into(),
            Self::Path => "path".into(),
            Self::HostPort => {
                "{ host = \"…\", port = 1–65535 }, \"host:port\" or [\"host\", port]".into()
            }
            Self::HostPorts => "host and port, or a list of them".into(),
            Self::Duration(min, max) => format!(
                "seconds, or a number with s, m, h, d, w, mo or yr; {} to {}",
                seconds(*min),
                seconds(*max)
            ),
            Self::Size(min, max) => {
                format!(
                    "bytes, or a number with k, m, g, t (of 1024); {} to {}",
                    size(*min),
                    size(*max)
                )
            }
            Self::SizeOrUnlimited => {
                "size such as \"100g\" (powers of 1024), or \"inf\" or \"-1\" for no limit".into()
            }
            Self::LogSize => "bytes, or a size such as \"10MB\" or \"10MiB\"; 1 or more".into(),
            Self::User => "user id or name; -1 or \"\" for the user of the process".into(),
            Self::Group => "group id or name; -1 or \"\" for the group of the process".into(),
            Self::Choice(words) => format!("one of {}", listed(words)),
            Self::Choices(words) => format!("list of {}", listed(words)),
            Self::Level => format!("one of {} in any letter case", listed(&Level::NAMES)),
            Self::Levels => "table from logger names to log levels".into(),
            Self::Texts => "list of strings".into(),
            Self::TextMap => "table of strings".into(),
            Self::Free => "table with any content".into(),
        }
    }
}

fn listed(words: &[&str]) -> String {
    words.join(", ")
}

/// The largest unit without a rest.
fn seconds(seconds: u64) -> String {
    for (unit, name) in [(86_400, "d"), (3_600, "h"), (60, "m")] {
        if seconds != 0 && seconds.is_multiple_of(unit) {
            return format!("{}{name}", seconds / unit);
        }
    }
    format!("{seconds}s")
}

fn size(bytes: u64) -> String {
    crate::units::BinarySize::Bytes(bytes).to_string()
}
