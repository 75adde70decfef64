//! What is known of a request from its head to the last byte of its answer: counted once, and told
//! in one line.
//!
//! Laws
//! - No query, no token and no path of a client is told; an identifier only when it is harmless.
//! - Small downloads are told at DEBUG: a line costs more than they do.
//! - The access log has a line for every request, under the logger name that it has in the
//!   original, which is off unless `logging.pkg-ns` names it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proxy_core::id::VFolderId;
use proxy_core::units::MIB;
use proxy_wire::head::{Framing, Method, RequestHead};

use crate::metrics::{Key, Operation, Transfer, WorkKey, volume_number, volume_of};
use crate::reply::{Content, Reply};
use crate::snapshot::VolumeEntry;
use crate::thread::Thread;

/// Downloads from this size on are told at INFO.
const TOLD_BYTES_MIN: u64 = MIB;
/// A UUID has 36; anything longer is not an identifier.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// The folder that a request is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    /// A number of [`volume_number`].
    pub(crate) volume: u16,
    pub(crate) vfid: VFolderId,
}

impl About {
    pub(crate) fn new(volume: &VolumeEntry, vfid: VFolderId) -> Self {
        let volume = volume_number(&volume.name, &volume.backend);
        Self { volume, vfid }
    }
}

/// What is known once there is an answer.
pub(crate) struct Facts {
    key: Key,
    code: &'static str,
    about: Option<About>,
    is_archive: bool,
    peer: Option<SocketAddr>,
    /// Announced length of the answer.
    bytes: Option<u64>,
}

impl Facts {
    pub(crate) fn of(reply: &Reply, head: &RequestHead, peer: Option<SocketAddr>) -> Self {
        Self {
            key: reply.key(head),
            code: reply.code,
            about: reply.about,
            is_archive: matches!(reply.content, Content::Archive(_)),
            peer,
            bytes: match &reply.content {
                Content::None | Content::Bytes(_) => Some(0),
                Content::File { .. } | Content::Archive(_) => {
                    let announced = reply.head.get("content-length");
                    announced.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok())
                }
            },
        }
    }
}

/// Numbers of large transfers.
static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// One request at work.
pub(crate) struct Story {
    thread: Rc<Thread>,
    begun: Instant,
    operation: Option<Operation>,
    /// Its number among the large transfers.
    listed: Cell<Option<u64>>,
}

impl Story {
    pub(crate) fn begin(thread: &Rc<Thread>, head: &RequestHead) -> Self {
        let operation = operation(head);
        if let Some(operation) = operation {
            thread.setup.metrics.in_flight[operation as usize].add(1);
        }
        let story = Self {
            thread: Rc::clone(thread),
            begun: Instant::now(),
            operation,
            listed: Cell::new(None),
        };
        if operation == Some(Operation::Upload) {
            let announced = match head.framing {
                Framing::Length(length) => Some(length),
                Framing::None => Some(0),
                Framing::Chunked => None,
            };
            story.list(announced, None, None);
        }
        story
    }

    /// There is an answer: what it sends is listed while it does, if it is large.
    pub(crate) fn answers(&self, facts: &Facts) {
        if self.operation.is_some() && self.operation != Some(Operation::Upload) {
            self.list(facts.bytes, facts.about, facts.peer);
        }
    }

    fn list(&self, bytes: Option<u64>, about: Option<About>, peer: Option<SocketAddr>) {
        let Some(operation) = self
            .operation
            .filter(|_| bytes.is_none_or(|b| TOLD_BYTES_MIN <= b))
        else {
            return;
        };
        let transfer = Transfer {
            operation,
            volume: about.map_or(0, |about| about.volume),
            vfid: about.map(|about| about.vfid),
            peer,
            bytes,
            begun: self.begun,
        };
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let transfers = &self.thread.setup.metrics.transfers;
        transfers.lock().insert(number, transfer);
        self.listed.set(Some(number));
    }

    /// The answer is out, or as much of it as the client took; `bytes` are received and sent ones.
    pub(crate) fn end(self, head: &RequestHead, facts: &Facts, bytes: [u64; 2], is_whole: bool) {
        let (took, metrics) = (self.begun.elapsed(), &self.thread.setup.metrics);
        let status = facts.key.status;
        accessed(head, facts, bytes, took);
        let operation = match self.operation {
            Some(Operation::Download) if facts.is_archive => Some(Operation::Archive),
            other => other,
        };
        let Some(operation) = operation else {
            metrics.record(facts.key, took);
            if 400 <= status {
                refused(head, facts, "");
            }
            return;
        };
        let at = WorkKey {
            operation,
            volume: facts.about.map_or(0, |about| about.volume),
            success: status < 400 && is_whole,
        };
        metrics.record_work(facts.key, took, at, bytes);
        if 400 <= status {
            refused(head, facts, operation.word());
            return;
        }
        let [received, sent] = bytes;
        macro_rules! line {
            ($level:ident) => {{
                let (volume, backend) = volume_of(at.volume);
                tracing::$level!(
                    volume,
                    backend,
                    vfolder_id = facts.about.map(|about| tracing::field::display(about.vfid)),
                    operation = operation.word(),
                    request_id = request_id(head),
                    bytes = received + sent,
                    duration_ms = took.as_millis() as u64,
                    status,
                    peer = facts.peer.map(tracing::field::display),
                    traceparent = traceparent(head),
                    "{}",
                    ENDED[usize::from(is_whole)]
                )
            }};
        }
        if operation == Operation::Upload || TOLD_BYTES_MIN <= received + sent {
            line!(info);
        } else {
            line!(debug);
        }
    }
}

const ENDED: [&str; 2] = ["transfer cut", "transfer finished"];

impl Drop for Story {
    fn drop(&mut self) {
        if let Some(number) = self.listed.get() {
            self.thread.setup.metrics.transfers.lock().remove(&number);
        }
        if let Some(operation) = self.operation {
            self.thread.setup.metrics.in_flight[operation as usize].sub(1);
        }
    }
}

fn operation(head: &RequestHead) -> Option<Operation> {
    match (head.path.as_str(), &head.method) {
        ("/download", Method::Get) => Some(Operation::Download),
        ("/download-archive", Method::Get) => Some(Operation::Archive),
        ("/upload", Method::Patch | Method::Put | Method::Post) => Some(Operation::Upload),
        _ => None,
    }
}

/// One line of the access log.
fn accessed(head: &RequestHead, facts: &Facts, [received, sent]: [u64; 2], took: Duration) {
    let Key {
        method,
        endpoint,
        status,
        ..
    } = facts.key;
    tracing::info!(
        target: "aiohttp::access",
        peer = facts.peer.map(tracing::field::display),
        method,
        endpoint,
        status,
        bytes = received + sent,
        duration_ms = took.as_millis() as u64,
        request_id = request_id(head),
        "{method} {endpoint} {status}"
    );
}

fn refused(head: &RequestHead, facts: &Facts, operation: &'static str) {
    let about = facts.about;
    let (volume, backend) = volume_of(about.map_or(0, |about| about.volume));
    tracing::info!(
        method = facts.key.method,
        endpoint = facts.key.endpoint,
        status = facts.key.status,
        error_code = facts.code,
        volume = about.is_some().then_some(volume),
        backend = about.is_some().then_some(backend),
        vfolder_id = about.map(|about| tracing::field::display(about.vfid)),
        operation = (!operation.is_empty()).then_some(operation),
        request_id = request_id(head),
        peer = facts.peer.map(tracing::field::display),
        "request refused"
    );
}

/// The client's own span, if it has the form of one (W3C Trace Context).
fn traceparent(head: &RequestHead) -> Option<&str> {
    let text = std::str::from_utf8(head.headers.get("traceparent")?).ok()?;
    let fits = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    (text.len() == 55 && text.bytes().all(fits)).then_some(text)
}

/// The request's own identifier, if it is harmless.
fn request_id(head: &RequestHead) -> Option<&str> {
    let id = std::str::from_utf8(head.headers.get("x-backendai-requestid")?).ok()?;
    let fits = !id.is_empty()
        && id.len() <= REQUEST_ID_BYTES_MAX
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
    fits.then_some(id)
}
