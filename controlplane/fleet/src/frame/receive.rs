//! What a storage server is asked over the channel.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::catalogue::{DoVolumeMount, DoVolumeUnmount, etc_fstab, nfs};
use super::pack::{Packed, UnpackError, unpack};

/// Longest message that is looked at. A request has a few hundred bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// A broadcast that a storage server acts upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Mount something.
    Mount(DoVolumeMount),
    /// Unmount something.
    Unmount(DoVolumeUnmount),
}

/// Why a message is not understood.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Too long.
    #[error("{bytes} bytes exceed the limit of {MESSAGE_BYTES_MAX}")]
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// Not the JSON of an event.
    #[error("not an event: {0}")]
    Json(#[from] serde_json::Error),
    /// The old body is not Base64.
    #[error("args: {0}")]
    Base64(#[from] base64::DecodeError),
    /// The old body is not MessagePack, or not of the kinds that are read.
    #[error("args: {0}")]
    Unpack(#[from] UnpackError),
    /// A member is missing or of another type, or there is no body.
    #[error("{0} is missing or of another type")]
    Member(&'static str),
}

/// The envelope, as far as it is read: members borrow from the message where they can.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    args: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    payload: Option<Cow<'a, str>>,
}

/// Reads one message of the channel. `None`: it is nothing for a storage server.
///
/// # Errors
/// See [`RequestError`]. Nothing of the text is in the error but its position.
pub fn receive(message: &[u8]) -> Result<Option<Request>, RequestError> {
    if MESSAGE_BYTES_MAX < message.len() {
        let bytes = message.len();
        return Err(RequestError::TooLong { bytes });
    }
    // Most messages are of other kinds: they are not even parsed.
    if !contains(message, b"do_volume_") {
        return Ok(None);
    }
    let envelope: Envelope<'_> = serde_json::from_slice(message)?;
    match envelope.name.as_ref() {
        "do_volume_mount" => read(&envelope, mount).map(|asked| Some(Request::Mount(asked))),
        "do_volume_unmount" => read(&envelope, unmount).map(|asked| Some(Request::Unmount(asked))),
        _ => Ok(None),
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// The new body if there is one, else the old one.
fn read<T: DeserializeOwned>(
    envelope: &Envelope<'_>,
    positional: fn(&mut Members) -> Result<T, RequestError>,
) -> Result<T, RequestError> {
    if let Some(payload) = &envelope.payload {
        return Ok(serde_json::from_str(payload)?);
    }
    let args = envelope.args.as_ref().ok_or(RequestError::Member("body"))?;
    match unpack(&BASE64.decode(args.as_bytes())?)? {
        Packed::List(members) => positional(&mut Members(members.into_iter())),
        _ => Err(RequestError::Member("args")),
    }
}

struct Members(std::vec::IntoIter<Packed>);

impl Members {
    fn text(&mut self, name: &'static str) -> Result<String, RequestError> {
        self.optional(name)?.ok_or(RequestError::Member(name))
    }

    fn optional(&mut self, name: &'static str) -> Result<Option<String>, RequestError> {
        match self.0.next() {
            None | Some(Packed::Nil) => Ok(None),
            Some(Packed::Text(text)) => Ok(Some(text)),
            Some(_) => Err(RequestError::Member(name)),
        }
    }

    fn flag(&mut self, name: &'static str) -> Result<bool, RequestError> {
        match self.0.next() {
            None => Ok(false),
            Some(Packed::Bool(is)) => Ok(is),
            Some(_) => Err(RequestError::Member(name)),
        }
    }
}

fn mount(members: &mut Members) -> Result<DoVolumeMount, RequestError> {
    Ok(DoVolumeMount {
        dir_name: members.text("dir_name")?,
        volume_backend_name: members.text("volume_backend_name")?,
        quota_scope_id: members.text("quota_scope_id")?,
        fs_location: members.text("fs_location")?,
        fs_type: members.optional("fs_type")?.unwrap_or_else(nfs),
        cmd_options: members.optional("cmd_options")?,
        scaling_group: members.optional("scaling_group")?,
        edit_fstab: members.flag("edit_fstab")?,
        fstab_path: members.optional("fstab_path")?.unwrap_or_else(etc_fstab),
    })
}

fn unmount(members: &mut Members) -> Result<DoVolumeUnmount, RequestError> {
    Ok(DoVolumeUnmount {
        dir_name: members.text("dir_name")?,
        volume_backend_name: members.text("volume_backend_name")?,
        quota_scope_id: members.text("quota_scope_id")?,
        scaling_group: members.optional("scaling_group")?,
        edit_fstab: members.flag("edit_fstab")?,
        fstab_path: members.optional("fstab_path")?,
    })
}
