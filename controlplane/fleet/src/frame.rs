//! Events as they go over Redis: one frame that consumers of every release understand.
//!
//! Releases up to 26.8.3 read `args`, a MessagePack array of positional members; later ones read
//! `payload`, a JSON object of named members. A frame carries both, and only the metadata that
//! the oldest one knows: an unknown key there makes it refuse the event for ever.
//!
//! Laws
//! - What is sent is UTF-8 and holds no MessagePack extension: those are pickled on the other side.
//! - What is received is not trusted: the name is looked at first, and only the requests in
//!   [`Request`] are read any further, with a bound on size and depth.
//!
//! Source: contract, events 3, 5 and 7.

pub(crate) mod catalogue;
mod pack;
mod receive;

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

pub use self::catalogue::{
    ArtifactKind, DoVolumeMount, DoVolumeUnmount, FetchedModel, FleetEvent, ImportDone,
    ServiceEndpoint, ServiceRecord, VolumeReply,
};
pub use self::pack::{Packed, UnpackError, unpack};
pub use self::receive::{MESSAGE_BYTES_MAX, Request, RequestError, receive};

/// The stream that every consumer group gets each entry of once.
pub const STREAM: &str = "events";
/// The channel that everyone hears who is connected.
pub const CHANNEL: &str = "events_all";
/// How many entries of the stream stay; the same for all producers.
pub const STREAM_LEN_MAX: usize = 128;
/// How long the last broadcast about a task can be asked for, in seconds.
pub const CACHE_TTL_S: u64 = 300;
/// What every storage server calls itself.
const SOURCE: &str = "storage";

/// One event, ready to be sent in either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The name of the event.
    pub name: Cow<'static, str>,
    /// Positional members, MessagePack.
    pub args: Vec<u8>,
    /// Named members, JSON.
    pub payload: String,
    /// Who asked for it, JSON.
    pub metadata: String,
}

#[derive(Serialize)]
struct Metadata<'a> {
    request_id: Option<&'a str>,
    user: Option<&'a str>,
}

#[derive(Serialize)]
struct Message<'a> {
    name: &'a str,
    source: &'a str,
    args: String,
    payload: &'a str,
    metadata: &'a str,
}

impl Frame {
    /// The frame of an event, which a request of this name brought about.
    pub fn of(event: &FleetEvent, request_id: Option<&str>) -> Self {
        let (args, payload) = event.bodies();
        let metadata = Metadata {
            request_id,
            user: None,
        };
        Self {
            name: event.name().into(),
            args,
            payload: payload.to_string(),
            metadata: json(&metadata),
        }
    }

    /// The command that appends it to [`STREAM`].
    pub fn xadd(&self) -> redis::Cmd {
        let mut cmd = redis::cmd("XADD");
        cmd.arg(STREAM).arg("MAXLEN").arg("~").arg(STREAM_LEN_MAX);
        cmd.arg("*").arg("name").arg(self.name.as_ref());
        cmd.arg("source").arg(SOURCE).arg("args").arg(&self.args);
        cmd.arg("payload").arg(&self.payload);
        cmd.arg("metadata").arg(&self.metadata);
        cmd
    }

    /// The text that goes over [`CHANNEL`].
    pub fn message(&self) -> String {
        json(&Message {
            name: &self.name,
            source: SOURCE,
            args: BASE64.encode(&self.args),
            payload: &self.payload,
            metadata: &self.metadata,
        })
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data with text keys")
}

#[cfg(test)]
mod tests;
