//! The value grammars: from TOML, or the text of an override, to a checked value.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::keys::Kind;
use super::raw::{Member, Raw};
use crate::units::{BinarySize, parse_binary_size, parse_decimal_size, parse_duration};

/// A value that fits its key.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Int`].
    Int(i64),
    /// Of [`Kind::Float`].
    Float(f64),
    /// Of the kinds that are strings, paths and choices.
    Text(String),
    /// Of [`Kind::HostPort`].
    HostPort(HostPort),
    /// Of [`Kind::HostPorts`].
    HostPorts(Vec<HostPort>),
    /// Of [`Kind::Duration`].
    Duration(Duration),
    /// Of the size kinds.
    Size(BinarySize),
    /// Of [`Kind::User`] and [`Kind::Group`].
    Account(Account),
    /// Of [`Kind::Level`].
    Level(Level),
    /// Of [`Kind::Levels`].
    Levels(BTreeMap<String, Level>),
    /// Of the list kinds.
    Texts(Vec<String>),
    /// Of the free tables.
    Table(Vec<Member>),
}

/// Where to listen or connect. An empty host means every interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// 0 only in overrides from the command line and the environment: any free port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A user or a group to run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// Whoever the process is already.
    Current,
    /// By number.
    Id(u32),
    /// By name, to be looked up on the host.
    Name(String),
}

/// Severity of the original's log records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    NotSet,
    /// Finer than debug.
    Trace,
    /// For developers.
    Debug,
    /// Nobody has to act.
    Info,
    /// Somebody has to act some day.
    Warning,
    /// Somebody has to act now.
    Error,
    /// The service is down.
    Critical,
}

impl Level {
    /// In the order of the reference.
    pub const NAMES: [&'static str; 7] = [
        "CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG", "TRACE", "NOTSET",
    ];
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.trim().to_ascii_uppercase().as_str() {
            "CRITICAL" | "FATAL" => Self::Critical,
            "ERROR" => Self::Error,
            "WARNING" | "WARN" => Self::Warning,
            "INFO" => Self::Info,
            "DEBUG" => Self::Debug,
            "TRACE" => Self::Trace,
            "NOTSET" => Self::NotSet,
            _ => return Err(format!("{text:?} is not a log level")),
        })
    }
}

impl Kind {
    /// Checks one value. `port_zero` lets addresses ask for any free port.
    ///
    /// # Errors
    /// What is wrong with the value, without the value when it could be long.
    pub fn read(&self, raw: &Raw, port_zero: bool) -> Result<Value, String> {
        match *self {
            Self::Bool => read_bool(raw).map(Value::Bool),
            Self::Int(min, max) => read_int(raw, min, max).map(Value::Int),
            Self::Float(min) => read_float(raw, min).map(Value::Float),
            Self::Text | Self::Path => text(raw).map(|text| Value::Text(text.to_owned())),
            Self::Word => word(raw),
            Self::HostPort => read_host_port(raw, port_zero).map(Value::HostPort),
            Self::HostPorts => read_host_ports(raw).map(Value::HostPorts),
            Self::Duration(min, max) => read_duration(raw, min, max).map(Value::Duration),
            Self::Size(min, max) => read_size(raw, min, max).map(Value::Size),
            Self::SizeOrUnlimited => read_size_or_unlimited(raw).map(Value::Size),
            Self::LogSize => read_log_size(raw).map(Value::Size),
            Self::User | Self::Group => read_account(raw).map(Value::Account),
            Self::Choice(words) => choice(text(raw)?, words).map(Value::Text),
            Self::Choices(words) => read_choices(raw, words).map(Value::Texts),
            Self::Level => text(raw)?.parse().map(Value::Level),
            Self::Levels => read_levels(raw).map(Value::Levels),
            Self::Texts => texts(raw).map(Value::Texts),
            Self::TextMap | Self::Free => read_table(raw, *self == Self::TextMap),
        }
    }
}

fn expected(what: &str, raw: &Raw) -> String {
    format!("expected {what}, found {}", raw.type_name())
}

fn text(raw: &Raw) -> Result<&str, String> {
    match raw {
        Raw::Text(text) => Ok(text),
        other => Err(expected("string", other)),
    }
}

fn word(raw: &Raw) -> Result<Value, String> {
    match text(raw)? {
        "" => Err("value is empty".into()),
        text => Ok(Value::Text(text.to_owned())),
    }
}

fn read_bool(raw: &Raw) -> Result<bool, String> {
    match raw {
        Raw::Bool(yes) => Ok(*yes),
        Raw::Int(0) => Ok(false),
        Raw::Int(1) => Ok(true),
        Raw::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
            "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
            _ => Err(format!("{text:?} is not a boolean")),
        },
        other => Err(expected("boolean", other)),
    }
}

fn read_int(raw: &Raw, min: i64, max: i64) -> Result<i64, String> {
    let int = match raw {
        Raw::Int(int) => *int,
        Raw::Text(text) => text
            .trim()
            .parse()
            .map_err(|_| format!("{text:?} is not a whole number"))?,
        other => return Err(expected("whole number", other)),
    };
    match int {
        int if int < min => Err(format!("{int} is less than {min}")),
        int if max < int => Err(format!("{int} is more than {max}")),
        int => Ok(int),
    }
}

fn read_float(raw: &Raw, min: f64) -> Result<f64, String> {
    let number = match raw {
        Raw::Float(number) => *number,
        // Seconds and rates: far below the 53 bits that a float holds exactly.
        Raw::Int(int) => *int as f64,
        Raw::Text(text) => text
            .trim()
            .parse()
            .map_err(|_| format!("{text:?} is not a number"))?,
        other => return Err(expected("number", other)),
    };
    if !number.is_finite() {
        return Err("value is not a finite number".into());
    }
    if number < min {
        Err(format!("{number} is less than {min}"))
    } else {
        Ok(number)
    }
}

fn read_port(raw: &Raw, port_zero: bool) -> Result<u16, String> {
    let least = if port_zero { 0 } else { 1 };
    let port = read_int(raw, least, i64::from(u16::MAX)).map_err(|why| format!("port: {why}"))?;
    u16::try_from(port).map_err(|_| "port: out of range".into())
}

fn read_host_port(raw: &Raw, port_zero: bool) -> Result<HostPort, String> {
    match raw {
        Raw::Text(text) => split_host_port(text, port_zero),
        Raw::List(items) => match items.as_slice() {
            [host, port] => Ok(HostPort {
                host: text(&host.value)?.to_owned(),
                port: read_port(&port.value, port_zero)?,
            }),
            items => Err(format!(
                "expected host and port, found a list of {}",
                items.len()
            )),
        },
        Raw::Table(members) => table_host_port(members, port_zero),
        other => Err(expected("host and port", other)),
    }
}

fn table_host_port(members: &[Member], port_zero: bool) -> Result<HostPort, String> {
    let (mut host, mut port) = (None, None);
    for member in members {
        match member.name.as_str() {
            "host" => host = Some(text(&member.node.value)?.to_owned()),
            "port" => port = Some(read_port(&member.node.value, port_zero)?),
            other => return Err(format!("unknown part {other:?} beside host and port")),
        }
    }
    match (host, port) {
        (Some(host), Some(port)) => Ok(HostPort { host, port }),
        (None, _) => Err("host is missing".into()),
        (_, None) => Err("port is missing".into()),
    }
}

fn split_host_port(text: &str, port_zero: bool) -> Result<HostPort, String> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("{text:?} has no port after a colon"))?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .ok_or_else(|| format!("{text:?} has an unclosed bracket"))?,
        None if host.contains(':') => {
            return Err(format!("{text:?}: an IPv6 address needs brackets"));
        }
        None => host,
    };
    Ok(HostPort {
        host: host.trim().to_owned(),
        port: read_port(&Raw::Text(port.to_owned()), port_zero)?,
    })
}

fn read_host_ports(raw: &Raw) -> Result<Vec<HostPort>, String> {
    // In list form every element is a host and port of its own; `["h", 1]` is one address only
    // where a single one is meant.
    match raw {
        Raw::List(items) if items.is_empty() => Err("the list is empty".into()),
        Raw::List(items) => items
            .iter()
            .map(|item| read_host_port(&item.value, false))
            .collect(),
        Raw::Text(text) if text.contains(',') => text
            .split(',')
            .map(|part| split_host_port(part.trim(), false))
            .collect(),
        other => Ok(vec![read_host_port(other, false)?]),
    }
}

fn read_duration(raw: &Raw, min: u64, max: u64) -> Result<Duration, String> {
    let duration = match raw {
        Raw::Int(int) => {
            Duration::from_secs(u64::try_from(*int).map_err(|_| format!("{int} is negative"))?)
        }
        Raw::Float(number) => {
            Duration::try_from_secs_f64(*number).map_err(|_| format!("{number} is no duration"))?
        }
        Raw::Text(text) => parse_duration(text).map_err(|why| format!("{text:?}: {why}"))?,
        other => return Err(expected("duration", other)),
    };
    if duration < Duration::from_secs(min) {
        return Err(format!("{}s is too short", duration.as_secs_f64()));
    }
    if Duration::from_secs(max) < duration {
        return Err(format!("{}s is too long", duration.as_secs_f64()));
    }
    Ok(duration)
}

fn binary_size(raw: &Raw) -> Result<BinarySize, String> {
    match raw {
        Raw::Int(int) => u64::try_from(*int)
            .map(BinarySize::Bytes)
            .map_err(|_| format!("{int} is negative")),
        Raw::Text(text) => parse_binary_size(text).map_err(|why| format!("{text:?}: {why}")),
        other => Err(expected("size", other)),
    }
}

fn read_size(raw: &Raw, min: u64, max: u64) -> Result<BinarySize, String> {
    match binary_size(raw)? {
        BinarySize::Bytes(bytes) if bytes < min => Err(format!("{bytes} bytes are too few")),
        BinarySize::Bytes(bytes) if bytes <= max => Ok(BinarySize::Bytes(bytes)),
        _ => Err("the size is too large".into()),
    }
}

fn read_size_or_unlimited(raw: &Raw) -> Result<BinarySize, String> {
    match raw {
        // The original's loader lets -1 pass; it can only mean "no limit".
        Raw::Int(-1) => Ok(BinarySize::Infinite),
        Raw::Text(text) if text.trim() == "-1" => Ok(BinarySize::Infinite),
        other => binary_size(other),
    }
}

fn read_log_size(raw: &Raw) -> Result<BinarySize, String> {
    let bytes = match raw {
        Raw::Int(int) => u64::try_from(*int).map_err(|_| format!("{int} is negative"))?,
        Raw::Text(text) => parse_decimal_size(text).map_err(|why| format!("{text:?}: {why}"))?,
        other => return Err(expected("size", other)),
    };
    if bytes == 0 {
        Err("the size is zero".into())
    } else {
        Ok(BinarySize::Bytes(bytes))
    }
}

fn read_account(raw: &Raw) -> Result<Account, String> {
    match raw {
        Raw::Int(-1) => Ok(Account::Current),
        Raw::Int(int) => u32::try_from(*int)
            .map(Account::Id)
            .map_err(|_| format!("{int} is no id")),
        Raw::Text(text) => match text.trim() {
            "" | "-1" => Ok(Account::Current),
            text => Ok(text
                .parse()
                .map_or_else(|_| Account::Name(text.to_owned()), Account::Id)),
        },
        other => Err(expected("id or name", other)),
    }
}

fn choice(text: &str, words: &[&str]) -> Result<String, String> {
    if words.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is unknown"))
    }
}

fn read_choices(raw: &Raw, words: &[&str]) -> Result<Vec<String>, String> {
    texts(raw)?.iter().map(|text| choice(text, words)).collect()
}

fn texts(raw: &Raw) -> Result<Vec<String>, String> {
    match raw {
        Raw::List(items) => items
            .iter()
            .map(|item| text(&item.value).map(str::to_owned))
            .collect(),
        other => Err(expected("list of strings", other)),
    }
}

fn read_levels(raw: &Raw) -> Result<BTreeMap<String, Level>, String> {
    let Raw::Table(members) = raw else {
        return Err(expected("table", raw));
    };
    let mut levels = BTreeMap::new();
    for member in members {
        let level = text(&member.node.value).and_then(str::parse);
        levels.insert(
            member.name.clone(),
            level.map_err(|why| format!("{}: {why}", member.name))?,
        );
    }
    Ok(levels)
}

fn read_table(raw: &Raw, strings: bool) -> Result<Value, String> {
    let Raw::Table(members) = raw else {
        return Err(expected("table", raw));
    };
    for member in members.iter().filter(|_| strings) {
        text(&member.node.value).map_err(|why| format!("{}: {why}", member.name))?;
    }
    Ok(Value::Table(members.clone()))
}

#[cfg(test)]
#[path = "grammar_tests.rs"]
mod tests;
