//! The entries of a directory, written as they are read.
//!
//! Laws
//! - An answer of one batch has a length; a longer one is sent in chunks, and neither side of it
//!   holds more than two batches, however many entries there are and however slowly they go.
//! - A directory that cannot be read to its end breaks the connection: it never looks shorter.
//!
//! Source: manager-facing API 5.

use std::io::{self, Write as _};

use axum::body::{Body, Bytes};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use proxy_core::grammar::{self, Check, failure};
use proxy_volume::{Batch, Entry, Listing, Order, PAGE_LEN_MAX, PageWish};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::call::Call;
use crate::reply::{Failure, Outcome};

type Piece = Result<Frame<Bytes>, io::Error>;

/// About what one entry takes in the answer, beside its name.
const ENTRY_BYTES: usize = 200;

/// `POST /folder/file/list`.
pub(crate) async fn list(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let path = fields.required("relpath", grammar::rel_path);
    let (volume, vfid, path) = fields
        .finish((volume, vfid, path))
        .map_err(Failure::parameters)?;
    let limit = call.settings.list_entries_max;
    let volume = call.state.volumes.find(&volume)?;
    let mut listing = volume.list(vfid, path, limit).await?;
    let first = listing.next().await?;
    let mut writer = Writer::default();
    let text = writer.batch(&first);
    let mut response = if first.is_last {
        Response::new(Body::from(text))
    } else {
        // One batch waits here, one is being read.
        let (pieces, body) = mpsc::channel(1);
        tokio::spawn(pump(listing, writer, text, pieces));
        Response::new(Body::new(StreamBody::new(ReceiverStream::new(body))))
    };
    let value = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, value);
    Ok(response)
}

/// `POST /folder/file/page`: some entries, and where the next ones begin. Ours: the original lists
/// one directory, as a whole.
pub(crate) async fn page(mut call: Call) -> Outcome {
    let mut fields = call.parameters().await?;
    let volume = fields.required("volume", grammar::string);
    let vfid = fields.required("vfid", grammar::vfolder_id);
    let dir = fields.required("relpath", grammar::rel_path);
    let order = fields.defaulted("order", Order::Name, order);
    let len_max = fields.defaulted("limit", PAGE_LEN_DEFAULT, page_len);
    let cursor = fields.defaulted("cursor", None, grammar::nullable(grammar::string));
    let (volume, vfid, dir, order, len_max, cursor) = fields
        .finish((volume, vfid, dir, order, len_max, cursor))
        .map_err(Failure::parameters)?;
    let wish = PageWish {
        dir,
        order,
        len_max,
        cursor,
    };
    let page = call.state.volumes.find(&volume)?.page(vfid, wish).await?;
    let mut text = b"{\"items\":[".to_vec();
    for (index, (path, entry)) in page.entries.iter().enumerate() {
        text.extend_from_slice(if index == 0 { b"{" } else { b",{" });
        text.extend_from_slice(b"\"path\":");
        write_text(path, &mut text);
        text.push(b',');
        write_facts(entry, &mut text);
    }
    text.extend_from_slice(b"],\"next\":");
    match &page.next {
        Some(cursor) => write_text(cursor, &mut text),
        None => text.extend_from_slice(b"null"),
    }
    text.push(b'}');
    let mut response = Response::new(Body::from(text));
    let value = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, value);
    Ok(response)
}

/// Entries of a page when the caller does not say.
const PAGE_LEN_DEFAULT: usize = 1000;

fn order(value: &Value) -> Check<Order> {
    match value.as_str() {
        Some("raw") => Ok(Order::Raw),
        Some("name") => Ok(Order::Name),
        Some("tree") => Ok(Order::Tree),
        _ => Err(failure("value should be \"raw\", \"name\" or \"tree\"")),
    }
}

fn page_len(value: &Value) -> Check<usize> {
    let len = usize::try_from(grammar::int(value)?).ok();
    let len = len.filter(|len| (1..=PAGE_LEN_MAX).contains(len));
    len.ok_or_else(|| failure("value should be 1 to 10000"))
}

/// Reads batch by batch as the client takes them; ends when the client is gone.
async fn pump(
    mut listing: Listing,
    mut writer: Writer,
    first: Vec<u8>,
    pieces: mpsc::Sender<Piece>,
) {
    let mut text = first;
    let mut is_last = false;
    loop {
        let piece = Frame::data(Bytes::from(text));
        if pieces.send(Ok(piece)).await.is_err() || is_last {
            return;
        }
        let batch = match listing.next().await {
            Ok(batch) => batch,
            Err(error) => {
                tracing::warn!(%error, "listing broke off");
                let _ = pieces.send(Err(io::Error::other(error.to_string()))).await;
                return;
            }
        };
        is_last = batch.is_last;
        text = writer.batch(&batch);
    }
}

/// Makes one document of all batches.
#[derive(Debug, Default)]
struct Writer {
    has_begun: bool,
    has_entries: bool,
}

impl Writer {
    /// The next part of the document, and its end after the last batch.
    fn batch(&mut self, batch: &Batch) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + batch.entries.len() * ENTRY_BYTES);
        if !std::mem::replace(&mut self.has_begun, true) {
            out.extend_from_slice(b"{\"items\":[");
        }
        for entry in &batch.entries {
            if std::mem::replace(&mut self.has_entries, true) {
                out.push(b',');
            }
            write_entry(entry, &mut out);
        }
        if batch.is_last {
            out.extend_from_slice(b"]}");
        }
        out
    }
}

fn write_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.push(b'{');
    write_facts(entry, out);
}

/// All members of an entry and the end of its object.
fn write_facts(entry: &Entry, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"name\":");
    write_text(&entry.name, out);
    // Writing to memory does not fail.
    let _ = write!(
        out,
        ",\"type\":\"{}\",\"stat\":{{\"mode\":{},\"size\":{},\"created\":\"{}\",\
         \"modified\":\"{}\"}},\"symlink_target\":",
        entry.kind.wire(),
        entry.mode,
        entry.size,
        entry.created,
        entry.modified,
    );
    write_text(&entry.symlink_target, out);
    out.push(b'}');
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    // Text of any content is valid JSON text, and writing to memory does not fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use proxy_volume::{EntryType, Stamp};
    use serde_json::json;

    use super::*;

    fn entry(name: &str, kind: EntryType) -> Entry {
        Entry {
            name: name.to_owned(),
            kind,
            mode: 0o100_644,
            size: 7,
            created: Stamp { unix_ns: 0 },
            modified: Stamp { unix_ns: 1_500 },
            symlink_target: String::new(),
        }
    }

    #[test]
    fn batches_make_one_document() {
        let batches = [
            (Vec::new(), false),
            (vec![entry("a", EntryType::File)], false),
            (Vec::new(), false),
            (vec![entry("\"\n\u{1}é", EntryType::Directory)], false),
            (Vec::new(), true),
        ];
        let mut writer = Writer::default();
        let parts = batches.map(|(entries, is_last)| writer.batch(&Batch { entries, is_last }));
        let document: serde_json::Value =
            serde_json::from_slice(&parts.concat()).unwrap_or_default();
        let stat = json!({
            "mode": 33188, "size": 7, "created": "1970-01-01T00:00:00+00:00",
            "modified": "1970-01-01T00:00:00.000001+00:00",
        });
        let item = |name: &str, kind: &str| {
            let target = "";
            json!({"name": name, "type": kind, "stat": stat, "symlink_target": target})
        };
        let items = [item("a", "FILE"), item("\"\n\u{1}é", "DIRECTORY")];
        let want = json!({ "items": items });
        assert_eq!(document, want);
    }
}
