//! `/upload`: tus 1.0.0 with its extensions, parts with a place, and Resumable Uploads for HTTP.
//!
//! Source: tus 1.0.0; RFC 9110 §14.5; draft-ietf-httpbis-resumable-upload;
//! `docs/semantics.md#uploads`.

use std::rc::Rc;

use proxy_core::problem::{Kind, Problem};
use proxy_wire::head::{Method, RequestHead};
use proxy_wire::response::ResponseHead;
use proxy_wire::{draft as words, part, tus};

use crate::body::Body;
use crate::reply::{Content, Reply};
use crate::snapshot::Snapshot;
use crate::story::About;
use crate::thread::Thread;

mod answer;
mod checked;
mod concat;
mod create;
mod draft;
mod head;
mod ledger;
mod patch;
mod put;
mod remove;
mod request;

use request::Request;

/// What is to be done.
enum Wish<'h> {
    Head,
    Patch,
    Part(&'h [u8]),
    Create,
    Remove,
    DraftHead,
    DraftPatch,
    DraftCreate(bool),
}

/// Answers a request; `None` for a method that says nothing to this resource.
pub(crate) async fn answer(
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    head: &RequestHead,
    body: &mut Body<'_>,
) -> Option<Reply> {
    if head.method == Method::Options {
        return Some(options(snapshot));
    }
    let wish = wish(head)?;
    let mut about = None;
    let answered = async {
        let request = Request::parse(thread, snapshot, head)?;
        about = Some(About::new(request.volume, request.claims.vfid));
        let is_of_piece = matches!(wish, Wish::Head | Wish::Patch | Wish::Remove);
        if request.part.is_some() && !is_of_piece {
            return Err(bad(
                "a partial upload knows HEAD, PATCH and DELETE".to_owned()
            ));
        }
        match wish {
            Wish::Head => head::answer(&request).await,
            Wish::Patch => patch::answer(&request, head, body).await,
            Wish::Part(place) => put::answer(&request, head, place, body).await,
            Wish::Create => create::answer(&request, head, body).await,
            Wish::Remove => remove::answer(&request).await,
            Wish::DraftHead => draft::head(&request).await,
            Wish::DraftPatch => draft::patch(&request, head, body).await,
            Wish::DraftCreate(complete) => draft::create(&request, head, complete, body).await,
        }
    };
    let (Ok(mut reply) | Err(mut reply)) = answered.await;
    reply.about = about;
    Some(reply)
}

fn wish(head: &RequestHead) -> Option<Wish<'_>> {
    let is_draft = words::speaks(&head.headers);
    let complete = head.headers.get(words::UPLOAD_COMPLETE_LOWER);
    let complete = complete.and_then(words::parse_bool).filter(|_| is_draft);
    let place = head.headers.get(part::CONTENT_RANGE_LOWER);
    match head.method {
        Method::Head if is_draft => Some(Wish::DraftHead),
        Method::Head => Some(Wish::Head),
        Method::Patch if is_draft => Some(Wish::DraftPatch),
        Method::Patch => Some(Wish::Patch),
        Method::Put if complete.is_none() => place.map(Wish::Part),
        Method::Put | Method::Post if complete.is_some() => complete.map(Wish::DraftCreate),
        Method::Post if create::is_creation(head) => Some(Wish::Create),
        // Without a token there is nothing that could be meant.
        Method::Delete if head.query.is_some() => Some(Wish::Remove),
        _ => None,
    }
}

/// `OPTIONS /upload`: what the server can do.
fn options(snapshot: &Snapshot) -> Reply {
    let mut head = ResponseHead::new(200);
    head.extend(tus::options_headers(snapshot.upload_size_max));
    head.push(
        "Accept-Patch",
        format!("{OFFSET_STREAM}, {}", words::PARTIAL_UPLOAD),
    );
    let limit = words::limit(snapshot.upload_size_max.get(), None);
    head.push(words::UPLOAD_LIMIT, limit);
    Reply::new(head, Content::Bytes(Vec::new()))
}

/// Media type of the body of a PATCH in tus.
const OFFSET_STREAM: &str = "application/offset+octet-stream";

/// 400, with what is wrong.
fn bad(text: String) -> Reply {
    Problem::new(Kind::InvalidAPIParameters).msg(text).into()
}
