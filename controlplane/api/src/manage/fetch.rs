//! Small files for the Manager itself: logs, configurations, model cards.
//!
//! Laws
//! - A missing file is 200 with an empty body. The Manager shows a log that does not exist yet as
//!   an empty one, and tries several names for a configuration.
//! - At most two pieces of a file are in memory, however slowly they are taken.
//! - A file that cannot be read to its end breaks the connection: it never looks shorter.
//!
//! Source: manager-facing API 5.5; contract 9.1.

use std::io;

use axum::body::{Body, Bytes};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use proxy_core::grammar;
use proxy_volume::{Fetch, VolumeError};
use rustix::io::Errno;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::call::Call;
use crate::reply::{Failure, Outcome};

type Piece = Result<Frame<Bytes>, io::Error>;

/// `POST /folder/file/fetch`.
pub(crate) async fn fetch(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let path = fields.required("relpath", grammar::rel_path);
    let (volume, vfid, path) = fields
        .finish((volume, vfid, path))
        .map_err(Failure::parameters)?;
    let opened = match call.state.volumes.find(&volume) {
        Ok(volume) => volume.open_for_fetch(vfid, path).await,
        Err(error) => Err(error),
    };
    // One piece waits here, one is being read.
    let (pieces, body) = mpsc::channel(1);
    match opened {
        Ok(file) => drop(tokio::spawn(pump(file, pieces))),
        Err(error) if is_absence(&error) => {}
        Err(error) => return Err(error.into()),
    }
    // A stream of unknown length is sent in chunks, also when it is empty.
    let body = Body::new(StreamBody::new(ReceiverStream::new(body)));
    let mut response = Response::new(body);
    let value = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, value);
    Ok(response)
}

/// Reads piece by piece as the client takes them. Ends when the client is gone, and at the size
/// that the file had when it was opened: a log that grows as fast as it is read has no end.
async fn pump(mut file: Fetch, pieces: mpsc::Sender<Piece>) {
    let mut read_bytes = 0;
    while read_bytes == 0 || read_bytes < file.size() {
        let piece = match file.next().await {
            Ok(None) => return,
            Ok(Some(bytes)) => {
                read_bytes += bytes.len() as u64;
                Ok(Frame::data(Bytes::from(bytes)))
            }
            Err(error) => {
                tracing::warn!(%error, "fetch broke off");
                Err(io::Error::other(error.to_string()))
            }
        };
        let broken = piece.is_err();
        if pieces.send(piece).await.is_err() || broken {
            return;
        }
    }
}

/// Whether there is no such file to be seen, as opposed to one that cannot be read. A volume that
/// is down shows none of its files.
fn is_absence(error: &VolumeError) -> bool {
    match error {
        VolumeError::UnknownVolume(_)
        | VolumeError::Unavailable { .. }
        | VolumeError::VFolderNotFound(_)
        | VolumeError::InvalidSubpath { .. }
        | VolumeError::InvalidName { .. }
        | VolumeError::Refused(_)
        | VolumeError::Unsupported => true,
        VolumeError::Os { errno, .. } => matches!(
            Errno::from_raw_os_error(*errno),
            Errno::NOENT
                | Errno::NOTDIR
                | Errno::ISDIR
                | Errno::LOOP
                | Errno::NAMETOOLONG
                // What is no regular file: a FIFO, a socket, a device.
                | Errno::INVAL
                | Errno::NXIO
                | Errno::NODEV
        ),
        _ => false,
    }
}
