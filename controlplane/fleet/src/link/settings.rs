//! Where Redis is: the nested settings of etcd's `config/redis`, or of the local `[redis]` table.
//!
//! Laws
//! - What the original accepts is accepted: kebab and snake spellings, numbers and booleans as
//!   text, unknown keys.
//! - An override replaces the whole target of its role: nothing is taken from the base.
//! - No secret shows in `Debug`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use thiserror::Error;

/// The response bound where none is set.
pub const RESPONSE_BOUND: Duration = Duration::from_secs(1);
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Address {
    /// Reads `host:port`, `[v6]:port`, `v6:port`, or a host alone, which gets `port_default`.
    pub fn parse(text: &str, port_default: u16) -> Option<Self> {
        let text = text.trim();
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']')?;
                match after.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if after.is_empty() => (host, None),
                    None => return None,
                }
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            Some(port) => port.trim().parse().ok()?,
            None => port_default,
        };
        let host = host.trim();
        (!host.is_empty()).then(|| Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// How a server is found.
#[derive(Clone, PartialEq, Eq)]
pub enum Servers {
    /// Nobody has said yet; a link to it waits to be switched.
    Unknown,
    /// It is there.
    One(Address),
    /// Sentinels know where it is.
    Sentinels {
        /// Those that may be asked.
        all: Vec<Address>,
        /// The name they know the master by.
        service: String,
        /// What they are told. `None`: what the server is told.
        password: Option<String>,
    },
}

/// How the connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Whether the certificate is looked at.
    pub verify: bool,
    /// The authorities to trust, as a PEM file. `None`: those of the system.
    pub ca: Option<PathBuf>,
}

/// One Redis, without the database.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// How it is found.
    pub servers: Servers,
    /// The name to log in with. `None`: the default user.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// Protection; `None` for plain TCP.
    pub tls: Option<Tls>,
    /// How long an answer may take.
    pub response_bound: Duration,
}

impl Target {
    /// Somewhere that is not known yet.
    pub fn unknown() -> Self {
        Self {
            servers: Servers::Unknown,
            user: None,
            password: None,
            tls: None,
            response_bound: RESPONSE_BOUND,
        }
    }

    /// A server without password, for tests and tools.
    pub fn plain(address: Address) -> Self {
        Self {
            servers: Servers::One(address),
            user: None,
            password: None,
            tls: None,
            response_bound: RESPONSE_BOUND,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.servers {
            Servers::Unknown => f.write_str("not known yet"),
            Servers::One(address) => address.fmt(f),
            Servers::Sentinels { all, service, .. } => {
                write!(f, "{service} of the sentinels")?;
                all.iter().try_for_each(|at| write!(f, " {at}"))
            }
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |secret: &Option<String>| secret.is_some();
        f.debug_struct("Target")
            .field("at", &format_args!("{self}"))
            .field("user", &self.user)
            .field("has_password", &set(&self.password))
            .field("tls", &self.tls)
            .field("response_bound", &self.response_bound)
            .finish_non_exhaustive()
    }
}

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Caches.
    Statistics,
    /// Service discovery.
    Live,
    /// Events.
    Stream,
    /// Background tasks.
    BgTask,
    /// Upload sessions.
    Tus,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Statistics,
        Self::Live,
        Self::Stream,
        Self::BgTask,
        Self::Tus,
    ];

    /// As in the settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Statistics => "statistics",
            Self::Live => "live",
            Self::Stream => "stream",
            Self::BgTask => "bgtask",
            Self::Tus => "tus",
        }
    }

    /// The number of its database. Discovery records live beside the caches.
    pub const fn database(self) -> i64 {
        match self {
            Self::Statistics | Self::Live => 0,
            Self::Stream => 4,
            Self::BgTask => 7,
            Self::Tus => 8,
        }
    }

    /// Whether an override is looked at: the original ignores those of caches and uploads, and
    /// what it shares with us has to be in the same place.
    const fn takes_override(self) -> bool {
        match self {
            Self::Live | Self::Stream | Self::BgTask => true,
            Self::Statistics | Self::Tus => false,
        }
    }
}

/// Where Redis is, for every role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    /// For roles without an override.
    pub base: Target,
    /// Those of single roles.
    pub overrides: BTreeMap<Role, Target>,
}

/// What is wrong with the settings. Values are not shown: they may be secrets.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// Neither a server nor Sentinels.
    #[error("{at}: neither `addr` nor `sentinel` is set")]
    NoAddress {
        /// Which table.
        at: String,
    },
    /// Sentinels have to be asked by name.
    #[error("{at}: `sentinel` needs `service_name`")]
    NoService {
        /// Which table.
        at: String,
    },
    /// A value that can not be read.
    #[error("{at}: `{key}` is not {wanted}")]
    Bad {
        /// Which table.
        at: String,
        /// Which key.
        key: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
}

impl RedisSettings {
    /// Reads the nested map. `None`: nothing is said of Redis.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn from_nested(map: &Map<String, Value>) -> Result<Option<Self>, SettingsError> {
        let base = Table { at: "redis", map };
        if !base.says_where() && base.value("override_configs").is_none() {
            return Ok(None);
        }
        let mut overrides = BTreeMap::new();
        if let Some(Value::Object(tables)) = base.value("override_configs") {
            for role in Role::ALL {
                if let Some(Value::Object(map)) = tables.get(role.name()) {
                    let at = format!("redis.override_configs.{}", role.name());
                    let target = Table { at: &at, map }.target()?;
                    overrides.insert(role, target);
                }
            }
        }
        let base = base.target()?;
        Ok(Some(Self { base, overrides }))
    }

    /// Where the Redis of a role is.
    pub fn target(&self, role: Role) -> Target {
        let special = self.overrides.get(&role);
        let special = special.filter(|_| role.takes_override());
        special.unwrap_or(&self.base).clone()
    }
}

struct Table<'m> {
    at: &'m str,
    map: &'m Map<String, Value>,
}

impl Table<'_> {
    /// The value of a key in snake or kebab spelling. Where a key has both a value and children,
    /// the value is below the empty name.
    fn value(&self, key: &str) -> Option<&Value> {
        let found = self.map.get(key);
        let found = found.or_else(|| self.map.get(&key.replace('_', "-")))?;
        match found {
            Value::Null => None,
            Value::String(text) if text.trim().is_empty() => None,
            Value::Object(children) if children.is_empty() => None,
            other => Some(other),
        }
    }

    fn text(&self, key: &'static str) -> Result<Option<String>, SettingsError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(Value::Object(map)) => match map.get("") {
                Some(Value::String(text)) => Ok(Some(text.clone())),
                _ => Err(self.bad(key, "text")),
            },
            Some(_) => Err(self.bad(key, "text")),
        }
    }

    fn flag(&self, key: &'static str) -> Result<bool, SettingsError> {
        match self.value(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
                "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
                _ => Err(self.bad(key, "true or false")),
            },
            Some(Value::Number(number)) if number.as_u64() == Some(0) => Ok(false),
            Some(Value::Number(number)) if number.as_u64() == Some(1) => Ok(true),
            Some(_) => Err(self.bad(key, "true or false")),
        }
    }

    fn bad(&self, key: &'static str, wanted: &'static str) -> SettingsError {
        SettingsError::Bad {
            at: self.at.to_owned(),
            key,
            wanted,
        }
    }

    fn says_where(&self) -> bool {
        self.value("addr").is_some() || self.value("sentinel").is_some()
    }

    fn target(&self) -> Result<Target, SettingsError> {
        let password = self.text("password")?;
        let user = match self.text("user")? {
            Some(user) => Some(user),
            None => self.text("username")?,
        };
        Ok(Target {
            servers: self.servers()?,
            user,
            password,
            tls: self.tls()?,
            response_bound: self.response_bound()?,
        })
    }

    fn servers(&self) -> Result<Servers, SettingsError> {
        if let Some(all) = self.sentinels()? {
            let at = self.at.to_owned();
            let service = self.text("service_name")?;
            return Ok(Servers::Sentinels {
                all,
                service: service.ok_or(SettingsError::NoService { at })?,
                password: self.text("sentinel_password")?,
            });
        }
        let found = self.value("addr").ok_or_else(|| SettingsError::NoAddress {
            at: self.at.to_owned(),
        })?;
        let address = address(found, PORT);
        address
            .map(Servers::One)
            .ok_or_else(|| self.bad("addr", "host:port"))
    }

    /// `h1:p1,h2:p2`, or a list of such.
    fn sentinels(&self) -> Result<Option<Vec<Address>>, SettingsError> {
        let Some(found) = self.value("sentinel") else {
            return Ok(None);
        };
        let all: Option<Vec<Address>> = match found {
            Value::String(text) => {
                let parts = text.split(',').map(str::trim);
                let parts = parts.filter(|part| !part.is_empty());
                parts.map(|at| Address::parse(at, SENTINEL_PORT)).collect()
            }
            Value::Array(parts) => parts.iter().map(|at| address(at, SENTINEL_PORT)).collect(),
            other => address(other, SENTINEL_PORT).map(|at| vec![at]),
        };
        match all {
            Some(all) if !all.is_empty() => Ok(Some(all)),
            _ => Err(self.bad("sentinel", "host:port,host:port")),
        }
    }

    fn tls(&self) -> Result<Option<Tls>, SettingsError> {
        let verify = !self.flag("tls_skip_verify")?;
        let ca = self.text("tls_ca")?.map(PathBuf::from);
        Ok(self.flag("use_tls")?.then_some(Tls { verify, ca }))
    }

    /// In milliseconds, as the original has it.
    fn response_bound(&self) -> Result<Duration, SettingsError> {
        let bad = || self.bad("request_timeout", "a number of milliseconds");
        let ms = match self.value("request_timeout") {
            None => return Ok(RESPONSE_BOUND),
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(_) => None,
        };
        let ms = ms.filter(|ms: &f64| *ms > 0.0).ok_or_else(bad)?;
        Duration::try_from_secs_f64(ms / 1000.0).map_err(|_| bad())
    }
}

/// Text, or a table of host and port.
fn address(value: &Value, port_default: u16) -> Option<Address> {
    match value {
        Value::String(text) => Address::parse(text, port_default),
        Value::Object(map) => {
            let Some(host) = map.get("host").and_then(Value::as_str) else {
                let text = map.get("").and_then(Value::as_str)?;
                return Address::parse(text, port_default);
            };
            let port = match map.get("port") {
                None => port_default,
                Some(Value::Number(number)) => number.as_u64()?.try_into().ok()?,
                Some(Value::String(text)) => text.trim().parse().ok()?,
                Some(_) => return None,
            };
            let host = host.trim();
            let host = host.strip_prefix('[').unwrap_or(host);
            let host = host.strip_suffix(']').unwrap_or(host).to_owned();
            (!host.is_empty()).then_some(Address { host, port })
        }
        _ => None,
    }
}
