//! Snapshots of the file system: copies below `.snapshot`, which the array hides from listings.

use std::fs;

use serde_json::{Value, json};

use super::{FILE_SYSTEM, FlashBlade, fault, is_second, page};
use crate::{Reply, Request, disk};

/// One state of the file system.
pub(super) struct Snapshot {
    pub(super) suffix: String,
    created_ms: i64,
    pub(super) destroyed: bool,
    number: usize,
}

/// 1 to 63 letters, digits and `-`, neither at its begin nor its end, not digits alone.
fn is_suffix(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let word = bytes.iter().any(|byte| !byte.is_ascii_digit());
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && word
        && bytes.iter().copied().all(inner)
}

fn record(ask: &Request, one: &Snapshot) -> Value {
    let source = if is_second(ask) {
        json!({"name": FILE_SYSTEM, "id": "00000000-0000-4000-8000-0000000000f1"})
    } else {
        json!(FILE_SYSTEM)
    };
    let mut record = json!({
        "id": format!("00000000-0000-4000-8000-0000000002{:02x}", one.number % 256),
        "name": format!("{FILE_SYSTEM}.{}", one.suffix), "suffix": one.suffix,
        "created": one.created_ms, "destroyed": one.destroyed, "source": source,
    });
    if is_second(ask) {
        record["owner"] = source;
    }
    record
}

impl FlashBlade {
    pub(super) fn snapshots(&self, ask: &Request) -> Reply {
        let keys = [
            "names_or_sources",
            "names_or_owner_names",
            "names",
            "source_names",
        ];
        let wanted = keys.iter().find_map(|key| ask.query(key));
        let destroyed = ask.query("destroyed");
        let state = self.state.lock();
        let fits = |one: &&Snapshot| {
            let name = format!("{FILE_SYSTEM}.{}", one.suffix);
            let named = wanted.is_none_or(|wanted| wanted == FILE_SYSTEM || wanted == name);
            named && destroyed.is_none_or(|text| (text == "true") == one.destroyed)
        };
        let items: Vec<_> = state.snapshots.iter().filter(fits).collect();
        if items.is_empty() && wanted.is_some_and(|wanted| wanted != FILE_SYSTEM) {
            let context = wanted.unwrap_or_default();
            return fault(ask, 6, context, "File system snapshot does not exist.");
        }
        let items = items.into_iter().map(|one| record(ask, one));
        page(ask, items.collect(), None)
    }

    pub(super) fn create_snapshot(&self, ask: &Request) -> Reply {
        let source = ask.query("sources").or(ask.query("source_names"));
        if source != Some(FILE_SYSTEM) {
            let context = source.unwrap_or_default();
            return fault(ask, 6, context, "File system does not exist.");
        }
        let told = ask.json();
        let suffix = told["suffix"].as_str().unwrap_or_default();
        if !is_suffix(suffix) {
            return fault(ask, 9, suffix, "Invalid snapshot suffix.");
        }
        let mut state = self.state.lock();
        if state.snapshots.iter().any(|one| one.suffix == suffix) {
            return fault(ask, 7, suffix, "File system snapshot already exists.");
        }
        let at = self.dir.join(".snapshot").join(suffix);
        if let Err(error) = disk::copy(&self.dir, &at, &[".snapshot", ".fast-remove"]) {
            return fault(ask, 1, suffix, &error.to_string());
        }
        let made = Snapshot {
            suffix: suffix.to_owned(),
            created_ms: jiff::Timestamp::now().as_millisecond(),
            destroyed: false,
            number: state.snapshots.len(),
        };
        let reply = page(ask, vec![record(ask, &made)], None);
        state.snapshots.push(made);
        reply
    }

    fn place(&self, ask: &Request) -> Result<usize, Reply> {
        let name = ask.query("name").or(ask.query("names")).unwrap_or_default();
        let suffix = name.split_once('.').map_or("", |(_, suffix)| suffix);
        let state = self.state.lock();
        let found = state.snapshots.iter().position(|one| one.suffix == suffix);
        found.ok_or_else(|| fault(ask, 6, name, "File system snapshot does not exist."))
    }

    pub(super) fn change_snapshot(&self, ask: &Request) -> Reply {
        let at = match self.place(ask) {
            Ok(at) => at,
            Err(refusal) => return refusal,
        };
        let mut state = self.state.lock();
        let one = &mut state.snapshots[at];
        if let Some(destroyed) = ask.json()["destroyed"].as_bool() {
            one.destroyed = destroyed;
        }
        page(ask, vec![record(ask, one)], None)
    }

    pub(super) fn delete_snapshot(&self, ask: &Request) -> Reply {
        let at = match self.place(ask) {
            Ok(at) => at,
            Err(refusal) => return refusal,
        };
        let mut state = self.state.lock();
        if !state.snapshots[at].destroyed {
            return fault(ask, 4, "", "File system snapshot is not destroyed.");
        }
        let one = state.snapshots.remove(at);
        let _ = fs::remove_dir_all(self.dir.join(".snapshot").join(one.suffix));
        Reply::empty(200)
    }
}
