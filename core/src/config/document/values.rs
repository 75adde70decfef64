//! Asking a document for values: what was set, or else the default.
//!
//! Paths and types are those of the table. Asking for a path that is not in it, or for another
//! type than its grammar gives, is a programmer's mistake and panics; the tests of the table and
//! of the settings ask for every key.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Document, Entry, Origin, fill};
use crate::config::grammar::{Account, HostPort, Level, Value};
use crate::config::keys::WhenAbsent;
use crate::config::raw::{Member, parse_value, table_json};
use crate::config::table;
use crate::units::BinarySize;

impl Document {
    /// The entry of a key, if it is set.
    pub fn entry(&self, path: &str, names: &[String]) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| entry.key.path == path && entry.names == names)
    }

    /// Whether a section stands in the file or was made by an override.
    pub fn has_section(&self, pattern: &str) -> bool {
        self.sections
            .iter()
            .any(|section| section.pattern == pattern)
    }

    /// Whether a section stands in the file itself.
    pub fn file_has_section(&self, pattern: &str) -> bool {
        let in_file = |origin: &Origin| matches!(origin, Origin::Line(_));
        self.sections
            .iter()
            .any(|found| found.pattern == pattern && in_file(&found.origin))
    }

    /// The names that stand for the last `*` of a pattern, in the order of the file.
    pub fn names(&self, pattern: &str) -> Vec<String> {
        let sections = self
            .sections
            .iter()
            .filter(|section| section.pattern == pattern);
        sections
            .filter_map(|section| section.names.last().cloned())
            .collect()
    }

    /// What was set or else the default, if there is one.
    pub fn value(&self, path: &str, names: &[String]) -> Option<Value> {
        let key = table::find(path).unwrap_or_else(|| panic!("{path} is not in the key table"));
        if let Some(entry) = self.entry(path, names) {
            return Some(entry.value.clone());
        }
        match key.default {
            WhenAbsent::Required | WhenAbsent::Means(_) => None,
            WhenAbsent::Toml(toml) => {
                let raw = parse_value(toml)?;
                key.kind.read(&raw, false).ok()
            }
        }
    }

    fn pick<T>(&self, path: &str, names: &[String], pick: fn(Value) -> Option<T>) -> Option<T> {
        let value = self.value(path, names)?;
        let picked = pick(value);
        assert!(picked.is_some(), "{} has another type", fill(path, names));
        picked
    }

    fn must<T>(&self, path: &str, pick: fn(Value) -> Option<T>) -> T {
        self.pick(path, &[], pick)
            .unwrap_or_else(|| panic!("{path} has no default"))
    }

    /// A boolean with a default.
    pub fn flag(&self, path: &str) -> bool {
        self.must(path, |value| {
            if let Value::Bool(yes) = value {
                Some(yes)
            } else {
                None
            }
        })
    }

    /// A boolean without a default.
    pub fn flag_if_set(&self, path: &str) -> Option<bool> {
        self.pick(path, &[], |value| {
            if let Value::Bool(yes) = value {
                Some(yes)
            } else {
                None
            }
        })
    }

    /// A whole number with a default.
    pub fn int(&self, path: &str) -> i64 {
        self.must(path, |value| {
            if let Value::Int(int) = value {
                Some(int)
            } else {
                None
            }
        })
    }

    /// The texts of all keys that are secret.
    pub fn secrets(&self) -> Vec<String> {
        let secret = self.entries.iter().filter(|entry| entry.key.secret);
        secret
            .filter_map(|entry| match &entry.value {
                Value::Text(text) => Some(text.clone()),
                _ => None,
            })
            .collect()
    }

    /// A number with a default.
    pub fn float(&self, path: &str) -> f64 {
        self.must(path, |value| {
            if let Value::Float(float) = value {
                Some(float)
            } else {
                None
            }
        })
    }

    /// A whole number without a default.
    pub fn int_if_set(&self, path: &str) -> Option<i64> {
        self.pick(path, &[], |value| {
            if let Value::Int(int) = value {
                Some(int)
            } else {
                None
            }
        })
    }

    /// A string, path or choice. Empty strings count as set.
    pub fn text(&self, path: &str, names: &[String]) -> Option<String> {
        self.pick(path, names, |value| {
            if let Value::Text(text) = value {
                Some(text)
            } else {
                None
            }
        })
    }

    /// A host and port with a default.
    pub fn host_port(&self, path: &str) -> HostPort {
        self.must(path, |value| {
            if let Value::HostPort(addr) = value {
                Some(addr)
            } else {
                None
            }
        })
    }

    /// A duration with a default.
    pub fn duration(&self, path: &str) -> Duration {
        self.must(path, |value| {
            if let Value::Duration(time) = value {
                Some(time)
            } else {
                None
            }
        })
    }

    /// A size with a default; `None` is no limit.
    pub fn size(&self, path: &str) -> Option<u64> {
        let size = |value| {
            if let Value::Size(size) = value {
                Some(size)
            } else {
                None
            }
        };
        match self.must(path, size) {
            BinarySize::Bytes(bytes) => Some(bytes),
            BinarySize::Infinite => None,
        }
    }

    /// A user or group without a default.
    pub fn account(&self, path: &str) -> Option<Account> {
        self.pick(path, &[], |value| {
            if let Value::Account(who) = value {
                Some(who)
            } else {
                None
            }
        })
    }

    /// A log level with a default.
    pub fn level(&self, path: &str) -> Level {
        self.must(path, |value| {
            if let Value::Level(level) = value {
                Some(level)
            } else {
                None
            }
        })
    }

    /// A table of log levels with a default.
    pub fn levels(&self, path: &str) -> BTreeMap<String, Level> {
        self.must(path, |value| {
            if let Value::Levels(levels) = value {
                Some(levels)
            } else {
                None
            }
        })
    }

    /// A list of strings with a default.
    pub fn texts(&self, path: &str) -> Vec<String> {
        self.must(path, |value| {
            if let Value::Texts(texts) = value {
                Some(texts)
            } else {
                None
            }
        })
    }

    /// A free table as JSON; empty when it is not set.
    pub fn table(
        &self,
        path: &str,
        names: &[String],
    ) -> serde_json::Map<String, serde_json::Value> {
        let table = |value| {
            if let Value::Table(members) = value {
                Some(members)
            } else {
                None
            }
        };
        let members: Vec<Member> = self.pick(path, names, table).unwrap_or_default();
        table_json(&members)
    }

    /// Hosts and ports with a default.
    pub fn host_ports(&self, path: &str) -> Vec<HostPort> {
        self.must(path, |value| {
            if let Value::HostPorts(addrs) = value {
                Some(addrs)
            } else {
                None
            }
        })
    }

    /// A number within an element of a list.
    pub fn int_of(&self, path: &str, names: &[String]) -> Option<i64> {
        self.pick(path, names, |value| {
            if let Value::Int(int) = value {
                Some(int)
            } else {
                None
            }
        })
    }

    /// Everything that is set below a section, nested, with canonical names.
    ///
    /// The form in which etcd gives the same settings: addresses are text, everything else is
    /// as it was understood.
    pub fn nested(&self, section: &str) -> serde_json::Map<String, serde_json::Value> {
        let mut out = serde_json::Map::new();
        for entry in &self.entries {
            let Some(below) = entry.key.path.strip_prefix(section) else {
                continue;
            };
            let Some(below) = below.strip_prefix('.') else {
                continue;
            };
            let mut names = entry.names.iter().cloned();
            let path: Vec<String> = below
                .split('.')
                .map(|part| match part {
                    "*" => names.next().unwrap_or_default(),
                    part => part.to_owned(),
                })
                .collect();
            put(&mut out, &path, as_json(entry));
        }
        out
    }
}

/// A value as it was understood; of the other kinds, as it was written.
fn as_json(entry: &Entry) -> serde_json::Value {
    match &entry.value {
        Value::Bool(yes) => (*yes).into(),
        Value::Int(int) => (*int).into(),
        Value::Float(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
        Value::HostPort(addr) => addr.to_string().into(),
        _ => entry.raw.to_json(),
    }
}

fn put(
    into: &mut serde_json::Map<String, serde_json::Value>,
    path: &[String],
    value: serde_json::Value,
) {
    match path {
        [] => {}
        [name] => {
            into.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let below = into
                .entry(name.clone())
                .or_insert_with(|| serde_json::Map::new().into());
            if let Some(below) = below.as_object_mut() {
                put(below, rest, value);
            }
        }
    }
}
