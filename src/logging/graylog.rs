//! Records to Graylog: GELF over TLS, each message ended by a NUL byte.
//!
//! Source: logging A5; GELF 1.1.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tracing::Level;

use super::logstash::send;
use super::record::{Record, plain};
use super::secure::{Peer, Stream};
use super::ship::{Refusal, Ship};

/// One Graylog input.
pub(super) struct Graylog {
    pub(super) peer: Peer,
    pub(super) host: String,
    pub(super) stream: Option<Stream>,
}

/// Severity of syslog (RFC 5424 §6.2.1).
const fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

fn message(record: &Record, host: &str) -> Value {
    let (file, line) = record.place;
    let mut members = Map::new();
    for (name, value) in [
        ("version", Value::from("1.0")),
        ("host", host.into()),
        ("short_message", record.message.as_str().into()),
        (
            "timestamp",
            (record.at.as_microsecond() as f64 / 1e6).into(),
        ),
        ("level", severity(record.level).into()),
        ("facility", record.name().into()),
        ("file", file.into()),
        ("line", line.into()),
        ("_pid", std::process::id().into()),
        ("_process_name", "storage-proxy".into()),
    ] {
        members.insert(name.to_owned(), value);
    }
    for (name, value) in &record.fields {
        // Graylog knows numbers and strings; `_id` is its own.
        let name = if *name == "id" {
            "_field_id".to_owned()
        } else {
            format!("_{name}")
        };
        let value = if value.is_number() {
            value.clone()
        } else {
            plain(value).into()
        };
        members.entry(name).or_insert(value);
    }
    Value::Object(members)
}

#[async_trait]
impl Ship for Graylog {
    async fn ship(&mut self, batch: &[Arc<Record>]) -> Result<(), Refusal> {
        let mut text = String::new();
        for record in batch {
            text.push_str(&message(record, &self.host).to_string());
            text.push('\0');
        }
        send(&self.peer, &mut self.stream, text.as_bytes()).await
    }
}
