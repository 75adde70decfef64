//! What a handler decided to answer, before it is sent.

use proxy_core::problem::{Answer, Problem};
use proxy_ring::FileRef;
use proxy_transfer::download::Piece;
use proxy_wire::head::{Method, RequestHead};
use proxy_wire::response::ResponseHead;

use crate::archive::Archive;
use crate::metrics::{Cause, Key};
use crate::story::About;

/// `error_code` of an upload that a quota ended.
const QUOTA_EXCEEDED: &str = "vfolder_update_forbidden";

/// The body of an answer.
pub(crate) enum Content {
    /// None, and no `Content-Length` of our own making.
    None,
    /// Made by us; `Content-Length` is added.
    Bytes(Vec<u8>),
    /// Spans of a file; the head says how long.
    File { file: FileRef, pieces: Vec<Piece> },
    /// A folder; the head says how long.
    Archive(Box<Archive>),
}

/// One answer.
pub(crate) struct Reply {
    pub(crate) head: ResponseHead,
    pub(crate) content: Content,
    /// `error_code` for the metrics; empty without an error.
    pub(crate) code: &'static str,
    /// The route, for the metrics.
    pub(crate) endpoint: &'static str,
    /// The connection can not go on after this.
    pub(crate) close: bool,
    /// What its code does not tell.
    pub(crate) cause: Cause,
    /// The folder it is about, once that is known.
    pub(crate) about: Option<About>,
}

impl Reply {
    /// A success.
    pub(crate) fn new(head: ResponseHead, content: Content) -> Self {
        Self {
            head,
            content,
            code: "",
            endpoint: "unmatched",
            close: false,
            cause: Cause::Plain,
            about: None,
        }
    }

    /// Plain text as the routing layer sends it.
    pub(crate) fn text(status: u16, text: &str) -> Self {
        proxy_core::problem::text(status, text).into()
    }

    pub(crate) fn key(&self, head: &RequestHead) -> Key {
        let method = match &head.method {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Options => "OPTIONS",
            Method::Patch => "PATCH",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            // Any token may come; a label must not.
            Method::Other(_) => "other",
        };
        let mut parts = self.code.splitn(3, '_');
        let labels = [(); 3].map(|()| parts.next().unwrap_or(""));
        let is_quota = self.code == QUOTA_EXCEEDED && self.head.status() == 507;
        let cause = if is_quota { Cause::Quota } else { self.cause };
        Key {
            method,
            endpoint: self.endpoint,
            status: self.head.status(),
            labels,
            cause,
        }
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        let code = answer.code.unwrap_or("");
        let mut head = ResponseHead::new(answer.status);
        if let Some(content_type) = answer.content_type {
            head.push("Content-Type", content_type);
        }
        Self {
            code,
            ..Self::new(head, Content::Bytes(answer.body))
        }
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        problem.answer().into()
    }
}
