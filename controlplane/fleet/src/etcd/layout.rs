//! Names and values of keys: scopes, quoting, nested maps.
//!
//! Decides, never reads.
//!
//! Laws
//! - Each component is quoted by itself; only ASCII letters, digits and `_.-~` stand bare.
//! - The node scope hides a first-level name of the global scope with everything below it.
//! - An empty component is the value of its parent: `{"n": {"": "x"}}` is `n = x`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};

/// What is quoted: all but letters, digits and four signs.
const QUOTED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'_')
    .remove(b'.')
    .remove(b'-')
    .remove(b'~');

/// Where the keys of one fleet and of one of its nodes stand.
#[derive(Clone, Debug)]
pub struct Layout {
    global: String,
    node: String,
}

impl Layout {
    /// The layout of a storage server.
    pub fn new(namespace: &str, node_id: &str) -> Self {
        let global = format!("/sorna/{namespace}/");
        // As the original: the node id stands as it is.
        let node = format!("{global}nodes/storage/{node_id}/");
        Self { global, node }
    }

    /// A key for everybody. One leading slash is of no meaning.
    pub fn global(&self, key: &str) -> String {
        format!("{}{}", self.global, bare(key))
    }

    /// The same for this node alone.
    pub fn node(&self, key: &str) -> String {
        format!("{}{}", self.node, bare(key))
    }
}

fn bare(key: &str) -> &str {
    key.strip_prefix('/').unwrap_or(key)
}

/// One component of a key.
pub fn quote(component: &str) -> String {
    utf8_percent_encode(component, QUOTED).to_string()
}

/// The component that was quoted. What is not UTF-8 afterwards gets replacement characters.
pub fn unquote(quoted: &str) -> String {
    percent_decode_str(quoted).decode_utf8_lossy().into_owned()
}

/// A nested map from the keys below a prefix, the prefix with its slash already taken off.
pub fn nest<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, value) in pairs {
        let path: Vec<String> = key.split('/').map(unquote).collect();
        insert(&mut out, &path, value);
    }
    out
}

fn insert(into: &mut Map<String, Value>, path: &[String], value: &str) {
    let [name, rest @ ..] = path else { return };
    let place = into.entry(name.clone()).or_insert(Value::Null);
    match (rest, place) {
        ([], Value::Object(below)) => {
            below.insert(String::new(), value.into());
        }
        ([], place) => *place = value.into(),
        (rest, Value::Object(below)) => insert(below, rest, value),
        (rest, place) => {
            let mut below = Map::new();
            if !place.is_null() {
                below.insert(String::new(), place.take());
            }
            insert(&mut below, rest, value);
            *place = below.into();
        }
    }
}

/// The keys and values of a nested map below `prefix`. Empty maps leave nothing.
pub fn flatten(prefix: &str, map: &Map<String, Value>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let prefix = prefix.trim_end_matches('/');
    for (name, value) in map {
        let key = match name.as_str() {
            "" => prefix.to_owned(),
            name => format!("{prefix}/{}", quote(name)),
        };
        match value {
            Value::Object(below) => out.extend(flatten(&key, below)),
            value => out.push((key, stringified(value))),
        }
    }
    out
}

/// As Python's `str` has it: readers of the original expect that.
fn stringified(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The global map with the first-level names of the node's laid over.
pub fn overlay(global: Map<String, Value>, node: Map<String, Value>) -> Map<String, Value> {
    let mut out = global;
    out.extend(node);
    out
}

/// Whether a text means yes, in any letter case.
pub fn is_true(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    matches!(text.as_str(), "true" | "t" | "yes" | "y" | "on" | "1")
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
