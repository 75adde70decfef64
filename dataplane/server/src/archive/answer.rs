//! The answer to a request for an archive: its head by conditions and ranges, and its sending.
//!
//! An archive with a length is a resource like a file: strong tag, ranges, conditions. It has no
//! modification time, since one of its files may be replaced by an older one, so dates in
//! conditions count for nothing. One that is compressed while it is sent has neither.
//!
//! Source: RFC 9110 §13, §14; `docs/semantics.md#archives`.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use proxy_ring::FileRef;
use proxy_transfer::Sink;
use proxy_transfer::archive;
use proxy_transfer::seam::SinkError;
use proxy_wire::condition::{self, MTIME_NONE_S, Outcome, Representation};
use proxy_wire::head::{Method, RequestHead, Version};
use proxy_wire::query::Package;
use proxy_wire::range::{self, RangeOutcome};
use proxy_wire::response::ResponseHead;
use proxy_wire::{disposition, range::content_range_unsatisfied};
use tokio::sync::OwnedSemaphorePermit;

use super::compress;
use super::contents::Contents;
use super::listing::Listing;
use crate::metrics::ThreadMetrics;
use crate::reply::{Content, Reply};
use crate::snapshot::{Limits, Snapshot, VolumeEntry};
use crate::thread::Thread;

/// What a client wants.
pub(super) struct Asked<'h> {
    pub(super) head: &'h RequestHead,
    pub(super) package: Package,
    /// What the file is called.
    pub(super) name: String,
}

impl Asked<'_> {
    fn answer(&self, status: u16) -> ResponseHead {
        ResponseHead::new(status)
            .with("Content-Type", self.package.media_type())
            .with(
                "Content-Disposition",
                disposition::attachment(self.name.as_bytes()),
            )
    }

    fn is_streamed(&self) -> bool {
        match self.package {
            Package::Zip | Package::Tar => false,
            Package::ZipDeflate | Package::TarGz | Package::TarZst => true,
        }
    }
}

/// An archive that is ready to be sent.
pub(crate) struct Archive {
    /// Its share of [`Snapshot::archives`].
    _turn: OwnedSemaphorePermit,
    volume: Arc<VolumeEntry>,
    listing: Arc<Listing>,
    content: What,
}

/// What of an archive is sent.
enum What {
    /// Bytes of it.
    Window(Range<u64>),
    /// All of it, compressed.
    Compressed {
        /// Its share of those that may compress.
        _turn: OwnedSemaphorePermit,
        package: Package,
        /// As HTTP/1.1 sends bodies without a length.
        chunked: bool,
    },
}

/// Answers with `listing` as it was asked for.
pub(super) async fn answer(
    thread: &Rc<Thread>,
    snapshot: &Snapshot,
    volume: &Arc<VolumeEntry>,
    turn: OwnedSemaphorePermit,
    listing: Listing,
    asked: Asked<'_>,
) -> Result<Reply, Reply> {
    let unreadable = listing.unreadable();
    if unreadable > 0 {
        tracing::warn!(
            volume = volume.name,
            vfolder_id = %listing.folder.id(),
            unreadable,
            "an archive leaves out what can not be read"
        );
    }
    let archive = |content| Archive {
        _turn: turn,
        volume: Arc::clone(volume),
        listing: Arc::new(listing),
        content,
    };
    if !asked.is_streamed() {
        return Ok(ranged(snapshot, &asked, archive));
    }
    let mut reply = Reply::new(asked.answer(200), Content::None);
    let chunked = asked.head.version == Version::Http11;
    if chunked {
        reply.head.push("Transfer-Encoding", "chunked");
    } else if asked.head.version == Version::Http10 {
        // Its end is the end of the body.
        reply.close = true;
    }
    if asked.head.method != Method::Head {
        let compressing = &thread.setup.archives.compressing;
        let content = What::Compressed {
            _turn: super::turn(compressing, snapshot).await?,
            package: asked.package,
            chunked,
        };
        reply.content = Content::Archive(Box::new(archive(content)));
    }
    Ok(reply)
}

/// An archive with a length, by conditions and ranges.
fn ranged(snapshot: &Snapshot, asked: &Asked<'_>, archive: impl FnOnce(What) -> Archive) -> Reply {
    let archive = archive(What::Window(0..0));
    let listing = Arc::clone(&archive.listing);
    let size = listing.plan().total_len();
    let known = Representation {
        etag: listing.tag(),
        mtime_s: MTIME_NONE_S,
        mtime_ns: 0,
        size: size.get(),
    };
    let head = asked.head;
    let ranges = match condition::evaluate(&head.headers, &known, &head.method) {
        Outcome::NotModified => {
            let answer = asked.answer(304).with("Etag", listing.tag());
            return Reply::new(answer, Content::None);
        }
        Outcome::PreconditionFailed => {
            return Reply::new(asked.answer(412), Content::Bytes(Vec::new()));
        }
        Outcome::Proceed { honour_range } if !honour_range => RangeOutcome::Whole,
        Outcome::Proceed { .. } => range::of_request(&head.headers, size, &snapshot.limits.range),
    };
    let (status, window) = match ranges {
        RangeOutcome::One(span) => (206, span.start().get()..span.end().get()),
        // Whoever wants several parts of an archive can have it whole.
        RangeOutcome::Whole | RangeOutcome::Many(_) => (200, 0..size.get()),
        RangeOutcome::Unsatisfiable => {
            let unsatisfied = content_range_unsatisfied(size);
            let answer = asked.answer(416).with("Content-Range", unsatisfied);
            return Reply::new(answer, Content::Bytes(Vec::new()));
        }
    };
    let mut answer = asked
        .answer(status)
        .with("Etag", listing.tag())
        .with("Accept-Ranges", "bytes")
        .with("Content-Length", window.end - window.start);
    if let RangeOutcome::One(span) = ranges {
        answer.push("Content-Range", span.content_range(size));
    }
    let content = What::Window(window);
    Reply::new(
        answer,
        Content::Archive(Box::new(Archive { content, ..archive })),
    )
}

/// Counts an archive for as long as it is compressed.
struct Counted<'m>(&'m ThreadMetrics);

impl<'m> Counted<'m> {
    fn new(metrics: &'m ThreadMetrics) -> Self {
        metrics.compressing.add(1);
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.compressing.sub(1);
    }
}

impl Archive {
    /// Sends head and archive.
    pub(crate) async fn send<S: Sink<File = FileRef>>(
        self: Box<Self>,
        sink: &mut S,
        head: &[u8],
        thread: &Rc<Thread>,
        limits: &Limits,
    ) -> Result<(), SinkError> {
        let contents = Contents {
            listing: &self.listing,
            volume: &self.volume,
            thread,
            limits,
        };
        match &self.content {
            What::Window(window) => {
                let plan = self.listing.plan();
                archive::send(&contents, plan, window.clone(), head, sink).await
            }
            What::Compressed {
                package, chunked, ..
            } => {
                let _counted = Counted::new(&thread.setup.metrics);
                compress::send(&contents, *package, *chunked, head, sink).await
            }
        }
    }
}
