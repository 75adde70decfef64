//! Records as JSON objects to Logstash: one a line over TCP, plain or TLS, one a datagram over UDP.
//!
//! Source: logging A4; the `json_lines` codec.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UdpSocket;

use super::line::level_name;
use super::record::Record;
use super::secure::{Peer, Stream};
use super::ship::{Refusal, Ship};

/// What fits into a datagram over IPv4.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// A record as Logstash knows them; our fields are top-level members.
fn object(record: &Record, host: &str) -> Value {
    let (path, line) = record.place;
    let mut members = Map::new();
    let time = record
        .at
        .strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00")
        .to_string();
    for (name, value) in [
        ("@timestamp", Value::from(time)),
        ("@version", 1.into()),
        ("host", host.into()),
        ("logger", record.name().into()),
        ("path", path.into()),
        ("func", Value::Null),
        ("lineno", line.into()),
        ("message", record.message.as_str().into()),
        ("level", level_name(record.level).into()),
        ("tags", Value::Array(Vec::new())),
    ] {
        members.insert(name.to_owned(), value);
    }
    for (name, value) in &record.fields {
        members.entry(*name).or_insert_with(|| value.clone());
    }
    Value::Object(members)
}

/// Over TCP.
pub(super) struct Tcp {
    pub(super) peer: Peer,
    pub(super) host: String,
    pub(super) stream: Option<Stream>,
}

#[async_trait]
impl Ship for Tcp {
    async fn ship(&mut self, batch: &[Arc<Record>]) -> Result<(), Refusal> {
        let mut text = String::new();
        for record in batch {
            text.push_str(&object(record, &self.host).to_string());
            text.push('\n');
        }
        send(&self.peer, &mut self.stream, text.as_bytes()).await
    }
}

/// Sends over an open stream, or a new one. A stream that failed is not used again.
pub(super) async fn send(
    peer: &Peer,
    stream: &mut Option<Stream>,
    bytes: &[u8],
) -> Result<(), Refusal> {
    let later = |error: std::io::Error| Refusal::Later(error.to_string());
    let mut open = match stream.take() {
        Some(open) => open,
        None => peer.connect().await.map_err(later)?,
    };
    open.write_all(bytes).await.map_err(later)?;
    open.flush().await.map_err(later)?;
    *stream = Some(open);
    Ok(())
}

/// Over UDP.
pub(super) struct Udp {
    pub(super) to: (String, u16),
    pub(super) host: String,
    pub(super) socket: Option<UdpSocket>,
}

#[async_trait]
impl Ship for Udp {
    async fn ship(&mut self, batch: &[Arc<Record>]) -> Result<(), Refusal> {
        let later = |error: std::io::Error| Refusal::Later(error.to_string());
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let mut all = tokio::net::lookup_host(&self.to).await.map_err(later)?;
                let to = all.next().ok_or(Refusal::Later("unknown host".into()))?;
                let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
                let socket = UdpSocket::bind(any).await.map_err(later)?;
                socket.connect(to).await.map_err(later)?;
                socket
            }
        };
        for record in batch {
            let text = object(record, &self.host).to_string();
            if text.len() <= DATAGRAM_BYTES_MAX {
                // Nobody listening shows as an error of the next one: such is UDP.
                let _ = socket.send(text.as_bytes()).await;
            }
        }
        self.socket = Some(socket);
        Ok(())
    }
}
