//! One connection and the request on it: a machine that goes as far as the socket lets it.
//!
//! Laws
//! - Nothing here waits. [`Lane::drive`] is called when the socket may be ready, edge-triggered, so
//!   it goes on until the socket says that it is not.
//! - A connection that the server closed between two requests is opened anew, once, silently: that
//!   is what keep-alive allows (RFC 9112 §9.3.1).

use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::Instant;

use proxy_ring::measure::set_receive_low_water;

use super::answer::{self, Framing, Head};
use super::check::{self, Sink};
use super::wire::{Received, Wire};
use super::{Shared, Tools};
use crate::call::{Answer, Body, Call};

/// From how many bytes on a discarding client wants to be woken.
const LOW_WATER_BYTES: u64 = 256 * 1024;
/// Bodies from here on are dropped unseen; smaller ones come with the head anyway.
const DISCARD_BYTES_MIN: u64 = 64 * 1024;

/// Received by one lane before the others have their turn: a small request that shares the thread
/// with a bulk one must not wait for all of it.
const TURN_BYTES: u64 = 1024 * 1024;
/// Characters of a refusal that are told.
const REFUSAL_CHARS: usize = 200;

/// A connection.
pub struct Lane {
    /// Whose request it carries.
    pub slot: usize,
    /// The other end.
    pub to: SocketAddr,
    /// Counts connections, so that an event of an earlier one is known.
    pub generation: u32,
    /// It waits for its next turn.
    pub queued: bool,
    wire: Option<Wire>,
    state: State,
    call: Option<Call>,
    /// A request was answered on this connection.
    reused: bool,
    begun: Instant,
    first: Option<Instant>,
    low_water: u64,
    /// Received, and not consumed yet.
    input: Vec<u8>,
}

enum State {
    Closed,
    Idle,
    Connecting,
    Sending { head: usize, body: u64 },
    Head,
    Body(Box<Incoming>),
}

/// A body that comes in.
struct Incoming {
    head: Head,
    sink: Sink,
    got: u64,
    /// Over TLS: walked over, not decrypted.
    unseen: bool,
}

/// A request that was answered as expected.
pub struct Finished {
    /// The first byte of the answer.
    pub first: Instant,
    /// Bytes of the body, received or sent.
    pub bytes: u64,
    /// For the exchange.
    pub answer: Answer,
    /// To be unpacked.
    pub archive: Option<File>,
}

/// How far a lane came.
pub enum Progress {
    /// The socket must become ready.
    Pending,
    /// A new socket must be registered; then drive again.
    Opened,
    /// The connection had ended before the request reached the server: drive again.
    Stale,
    /// There is more, but others wait: drive again after them.
    TurnOver,
    /// The answer is there.
    Finished(Box<Finished>),
    /// The request failed.
    Failed(String),
}

/// How far a body came.
enum Reception {
    /// It is there.
    Whole,
    /// Nothing more now.
    Empty,
    /// Enough for one turn.
    TurnOver,
}

impl Lane {
    /// A lane that is not connected.
    pub fn new(slot: usize, to: SocketAddr) -> Self {
        Self {
            slot,
            to,
            generation: 0,
            queued: false,
            wire: None,
            state: State::Closed,
            call: None,
            reused: false,
            begun: Instant::now(),
            first: None,
            low_water: 1,
            input: Vec::new(),
        }
    }

    /// The socket, when there is one.
    pub fn wire(&self) -> Option<&Wire> {
        self.wire.as_ref()
    }

    /// Whether it carries no request.
    pub fn is_free(&self) -> bool {
        self.call.is_none()
    }

    /// Puts a request on it; [`Lane::drive`] sends it.
    pub fn begin(&mut self, call: Call) {
        self.begun = Instant::now();
        self.first = None;
        if call.fresh {
            self.close();
        }
        if matches!(self.state, State::Idle) {
            self.state = State::Sending { head: 0, body: 0 };
        }
        self.call = Some(call);
    }

    /// Drops the connection.
    pub fn close(&mut self) {
        self.wire = None;
        self.state = State::Closed;
        self.reused = false;
        self.low_water = 1;
        self.input.clear();
    }

    /// Gives its request up.
    pub fn abandon(&mut self) {
        self.close();
        self.call = None;
    }

    /// A connected client that does nothing.
    pub fn rest(&mut self) {
        self.state = State::Idle;
    }

    /// Sends the request's head and nothing else: for a client that never reads.
    ///
    /// # Errors
    /// The connection broke.
    pub fn ask(&mut self, shared: &Shared<'_>) -> io::Result<()> {
        if matches!(self.state, State::Connecting) {
            self.state = State::Sending { head: 0, body: 0 };
        }
        match self.send(shared) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }

    /// Opens the connection, without a request.
    ///
    /// # Errors
    /// As connect(2) says.
    pub fn open(&mut self, shared: &Shared<'_>) -> io::Result<()> {
        // A call with an address of its own goes there in the clear.
        let tls = shared
            .plan
            .tls
            .as_ref()
            .filter(|_| self.to == shared.plan.address);
        self.close();
        self.generation = self.generation.wrapping_add(1);
        self.wire = Some(Wire::connect(self.to, tls, shared.turn())?);
        self.state = State::Connecting;
        Ok(())
    }

    /// Goes on as far as the socket lets it.
    pub fn drive(&mut self, shared: &Shared<'_>, tools: &mut Tools) -> Progress {
        match self.advance(shared, tools) {
            Ok(progress) => progress,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Progress::Pending,
            Err(error) => self.broken(&error),
        }
    }

    fn broken(&mut self, error: &io::Error) -> Progress {
        let stale = self.reused && self.first.is_none() && error.kind() != ErrorKind::InvalidData;
        self.close();
        if stale && self.call.is_some() {
            return Progress::Stale;
        }
        self.call = None;
        Progress::Failed(error.to_string())
    }

    fn advance(&mut self, shared: &Shared<'_>, tools: &mut Tools) -> io::Result<Progress> {
        loop {
            match &mut self.state {
                State::Closed if self.call.is_none() => return Ok(Progress::Pending),
                State::Closed => {
                    self.open(shared)?;
                    return Ok(Progress::Opened);
                }
                State::Idle => return self.watch(),
                State::Connecting => {
                    if let Some(wire) = &self.wire {
                        wire.connected()?;
                    }
                    self.state = match self.call {
                        Some(_) => State::Sending { head: 0, body: 0 },
                        None => State::Idle,
                    };
                }
                State::Sending { head, .. } => {
                    let at_once = *head == 0;
                    if let Err(error) = self.send(shared) {
                        self.refused_early(tools, error)?;
                    }
                    // The answer can only come later, and then the socket says so: looking now
                    // would be one system call for nothing per request. A body that went out over
                    // several wake-ups may have been answered before its end.
                    if at_once {
                        return Ok(Progress::Pending);
                    }
                }
                State::Head => {
                    if !self.receive_head(shared, tools)? {
                        return Ok(Progress::Pending);
                    }
                }
                State::Body(_) => {
                    return Ok(match self.receive_body(tools)? {
                        Reception::Whole => self.finish(),
                        Reception::Empty => Progress::Pending,
                        Reception::TurnOver => Progress::TurnOver,
                    });
                }
            }
        }
    }

    /// A connection without a request: whatever comes is the server's end.
    fn watch(&mut self) -> io::Result<Progress> {
        let mut byte = [0];
        let Some(wire) = &mut self.wire else {
            return Ok(Progress::Pending);
        };
        match wire.receive(&mut byte)? {
            Received::Wait => {}
            Received::End | Received::Bytes(_) => self.close(),
        }
        Ok(Progress::Pending)
    }

    fn send(&mut self, shared: &Shared<'_>) -> io::Result<()> {
        let (Some(wire), Some(call)) = (&mut self.wire, &self.call) else {
            return Err(io::Error::other("nothing to send"));
        };
        let State::Sending { head, body } = &mut self.state else {
            return Ok(());
        };
        let more = !matches!(call.body, Body::None);
        while *head < call.head.len() {
            *head += wire.send(&call.head[*head..], more)?;
        }
        match &call.body {
            Body::None => {}
            Body::Bytes(bytes) => {
                while *body < bytes.len() as u64 {
                    *body += wire.send(&bytes[*body as usize..], false)? as u64;
                }
            }
            Body::File { file, from, len } => {
                let file = shared.source(*file)?;
                while *body < *len {
                    let sent = wire.send_file(file.as_fd(), from + *body, len - *body)?;
                    if sent == 0 {
                        return Err(io::Error::other("the source is shorter than it was"));
                    }
                    *body += sent as u64;
                }
            }
        }
        self.state = State::Head;
        Ok(())
    }

    /// While a body goes out, an answer can only be a refusal: says which.
    fn refused_early(&mut self, tools: &mut Tools, error: io::Error) -> io::Result<()> {
        let Some(wire) = &mut self.wire else {
            return Err(error);
        };
        match wire.receive(&mut tools.room) {
            Ok(Received::Bytes(count)) => Err(invalid(refusal(&tools.room[..count]))),
            _ => Err(error),
        }
    }

    fn receive_head(&mut self, shared: &Shared<'_>, tools: &mut Tools) -> io::Result<bool> {
        let Some(wire) = &mut self.wire else {
            return Err(io::Error::other("not connected"));
        };
        // Only so much that a large body is left to be discarded in the kernel.
        let count = match wire.receive(&mut tools.room[..answer::HEAD_BYTES_MAX])? {
            Received::Bytes(count) => count,
            Received::Wait => return Ok(false),
            Received::End => return Err(ErrorKind::UnexpectedEof.into()),
        };
        self.first.get_or_insert_with(Instant::now);
        self.input.extend_from_slice(&tools.room[..count]);
        let Some(call) = &self.call else {
            return Err(io::Error::other("an answer without a request"));
        };
        let keep = matches!(call.expect.content, crate::call::Content::Kept);
        let Some(head) = answer::head(&self.input, keep).map_err(invalid)? else {
            return Ok(true);
        };
        if head.status < 200 {
            self.input.drain(..head.len);
            return Ok(true);
        }
        if !call.expect.allows(head.status) {
            return Err(invalid(refusal(&self.input)));
        }
        let sink = Sink::new(
            &call.expect.content,
            shared.plan.fixture,
            shared.plan.verify,
        );
        let sink = sink.map_err(invalid)?;
        let mut incoming = Incoming {
            sink,
            head,
            got: 0,
            unseen: false,
        };
        let rest = self.input.split_off(incoming.head.len);
        self.input.clear();
        incoming.take(&rest)?;
        self.state = State::Body(Box::new(incoming));
        Ok(true)
    }

    fn receive_body(&mut self, tools: &mut Tools) -> io::Result<Reception> {
        let (State::Body(incoming), Some(wire)) = (&mut self.state, &mut self.wire) else {
            return Err(io::Error::other("no body"));
        };
        let start = incoming.got;
        loop {
            let Some(left) = incoming.left() else {
                return Ok(Reception::Whole);
            };
            if start + TURN_BYTES <= incoming.got {
                return Ok(Reception::TurnOver);
            }
            let received = if incoming.may_discard(wire.is_tls(), left) {
                let low = LOW_WATER_BYTES.min(left);
                if low != self.low_water {
                    set_receive_low_water(wire.socket(), low as u32)?;
                    self.low_water = low;
                }
                incoming.unseen |= wire.is_tls();
                wire.discard(left, &mut tools.scratch)?
            } else {
                let room = tools
                    .room
                    .len()
                    .min(usize::try_from(left).unwrap_or(usize::MAX));
                wire.receive(&mut tools.room[..room])?
            };
            match received {
                Received::Bytes(count) if incoming.may_discard(wire.is_tls(), left) => {
                    incoming.pass(count as u64)?;
                }
                Received::Bytes(count) => incoming.take(&tools.room[..count])?,
                Received::Wait => return Ok(Reception::Empty),
                Received::End => return incoming.end().map(|()| Reception::Whole),
            }
        }
    }

    fn finish(&mut self) -> Progress {
        let State::Body(incoming) = std::mem::replace(&mut self.state, State::Idle) else {
            return Progress::Failed("no body".to_owned());
        };
        let Some(call) = self.call.take() else {
            return Progress::Failed("no request".to_owned());
        };
        if let Err(problem) = check::length(&call.expect.content, incoming.got) {
            self.close();
            return Progress::Failed(problem);
        }
        let until_close = matches!(incoming.head.framing, Framing::UntilClose);
        if incoming.head.close || call.fresh || incoming.unseen || until_close {
            self.close();
        } else {
            self.reused = true;
            if self.low_water != 1 {
                if let Some(wire) = &self.wire {
                    // An open socket takes it.
                    let _ = set_receive_low_water(wire.socket(), 1);
                }
                self.low_water = 1;
            }
        }
        let sent = match &call.body {
            Body::File { len, .. } => *len,
            _ => 0,
        };
        let (body, archive) = match incoming.sink {
            Sink::Keep(body) => (body, None),
            Sink::Archive(bytes) => (Vec::new(), Some(bytes)),
            _ => (Vec::new(), None),
        };
        Progress::Finished(Box::new(Finished {
            first: self.first.unwrap_or(self.begun),
            bytes: if sent > 0 { sent } else { incoming.got },
            answer: Answer {
                status: incoming.head.status,
                headers: incoming.head.headers,
                body,
            },
            archive,
        }))
    }
}

impl Incoming {
    /// How many bytes may still come; `None` when the body is over.
    fn left(&self) -> Option<u64> {
        match &self.head.framing {
            Framing::Length(len) if self.got == *len => None,
            Framing::Length(len) => Some(len - self.got),
            Framing::Chunked(chunked) if chunked.ended() => None,
            Framing::Chunked(_) | Framing::UntilClose => Some(u64::MAX),
        }
    }

    fn may_discard(&self, tls: bool, left: u64) -> bool {
        let framed = matches!(self.head.framing, Framing::Length(_));
        let large = DISCARD_BYTES_MIN <= left || self.unseen || !tls;
        matches!(self.sink, Sink::Discard) && framed && large
    }

    /// Counts bytes that nobody saw.
    fn pass(&mut self, count: u64) -> io::Result<()> {
        self.got += count;
        match &self.head.framing {
            Framing::Length(len) if *len < self.got => Err(invalid("more than announced")),
            _ => Ok(()),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (sink, got) = (&mut self.sink, &mut self.got);
        if let Framing::Chunked(chunked) = &mut self.head.framing {
            let taken = chunked.take(bytes, |part| {
                *got += part.len() as u64;
                sink.take(part)
            });
            return match taken.map_err(invalid)? {
                count if count == bytes.len() => Ok(()),
                _ => Err(invalid("bytes behind the last chunk")),
            };
        }
        sink.take(bytes).map_err(invalid)?;
        self.pass(bytes.len() as u64)
    }

    /// The server closed: right only where nothing else ends the body.
    fn end(&self) -> io::Result<()> {
        match self.head.framing {
            Framing::UntilClose => Ok(()),
            _ => Err(io::Error::new(
                ErrorKind::InvalidData,
                format!("cut off after {} bytes", self.got),
            )),
        }
    }
}

fn invalid(problem: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, problem.into())
}

/// An answer that was not expected, in one line: its status and the begin of its body.
fn refusal(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let status = text.lines().next().unwrap_or_default();
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    let body: String = body.chars().take(REFUSAL_CHARS).collect();
    format!("{status}: {}", body.escape_debug())
}
