//! The load generator: many clients on few threads, each thread on a core of its own.
//!
//! A thread is an edge-triggered epoll loop over lanes (connections) that belong to slots
//! (clients). On loopback `recv(MSG_TRUNC)` costs the client 0.07 s of CPU per GiB, and a small
//! request 9 µs; a ring would save little, because there is one system call per 256 KiB.
//!
//! Laws
//! - What is received is dropped in the kernel (MSG_TRUNC), and the client is woken once per
//!   256 KiB (SO_RCVLOWAT); what is sent leaves by sendfile. Verifying looks at every byte.
//! - No pipelining: a connection carries one request at a time.
//! - The round ends with the first load: the others begin nothing new then.

mod answer;
mod check;
mod h2;
mod lane;
mod wire;
mod worker;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use rustls::ClientConfig;

use crate::call::{Call, Exchange};
use crate::fixture::{FileId, Fixture};
use crate::process;

/// What a round is.
pub struct Plan<'a> {
    /// Whose files are meant.
    pub fixture: &'a Fixture,
    /// Where clients connect.
    pub address: SocketAddr,
    /// One HTTP/2 connection instead of many of HTTP/1.1.
    pub h2: bool,
    /// TLS to that address.
    pub tls: Option<Arc<ClientConfig>>,
    /// Look at every byte.
    pub verify: bool,
    /// No request is begun after that.
    pub time: Duration,
    /// Cores of the generator: one thread each.
    pub cores: &'a [usize],
    /// What goes on at the same time; the first decides when it is over.
    pub loads: Vec<Load<'a>>,
    /// Called when everybody is connected and the clock is about to start.
    pub ready: &'a (dyn Fn() + Sync),
}

/// Clients that all do the same.
pub struct Load<'a> {
    /// How many.
    pub connections: u32,
    /// What they do.
    pub source: Source<'a>,
    /// At most so many requests in all.
    pub requests: Option<u64>,
}

/// Makes the n-th exchange.
pub type MakeExchange<'a> = dyn Fn(u64) -> Result<Box<dyn Exchange>, String> + Send + Sync + 'a;

/// What clients do.
pub enum Source<'a> {
    /// These calls, one after the other, over and over.
    Calls(Vec<Call>),
    /// Parts of this size at random places of these calls' files.
    Ranges(Vec<Call>, u64),
    /// Exchanges that are made as they are needed.
    Exchanges(Box<MakeExchange<'a>>),
    /// Nothing: they are connected.
    Idle,
    /// They ask, and never read.
    Stalled(Vec<Call>),
}

/// What one load did.
#[derive(Debug)]
pub struct Tally {
    /// Requests (uploads, archives) that ended well.
    pub requests: u64,
    /// Bytes of content that moved.
    pub bytes: u64,
    /// Requests that did not end well.
    pub errors: u64,
    /// How often each kind of failure was seen.
    pub failures: BTreeMap<String, u64>,
    /// From the start of the clock to the end of the last request.
    pub elapsed: Duration,
    /// To the first byte of the answer, nanoseconds.
    pub first_byte: Histogram<u64>,
    /// To the end of the request, nanoseconds.
    pub total: Histogram<u64>,
    /// Bodies to be unpacked, when verifying.
    pub archives: Vec<File>,
}

/// Longest latency that is told apart.
const LATENCY_MAX: Duration = Duration::from_secs(600);
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;
/// Kinds of failures that are kept.
const FAILURES_MAX: usize = 8;
/// Errors after which a round is given up.
const ERRORS_MAX: u64 = 200;
/// Room to look at what is received.
const ROOM_BYTES: usize = 256 * 1024;
/// Room that the kernel is told of when it discards.
const SCRATCH_BYTES: usize = 1024 * 1024;

impl Tally {
    fn new() -> Self {
        let histogram = || {
            let max = LATENCY_MAX.as_nanos() as u64;
            Histogram::new_with_bounds(1, max, LATENCY_DIGITS).expect("bounds that are constant")
        };
        Self {
            requests: 0,
            bytes: 0,
            errors: 0,
            failures: BTreeMap::new(),
            elapsed: Duration::ZERO,
            first_byte: histogram(),
            total: histogram(),
            archives: Vec::new(),
        }
    }

    fn fail(&mut self, problem: String) {
        self.errors += 1;
        if let Some(count) = self.failures.get_mut(&problem) {
            *count += 1;
        } else if self.failures.len() < FAILURES_MAX {
            self.failures.insert(problem, 1);
        }
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.elapsed = self.elapsed.max(other.elapsed);
        for (problem, count) in other.failures {
            *self.failures.entry(problem).or_insert(0) += count;
        }
        self.first_byte += other.first_byte;
        self.total += other.total;
        self.archives.extend(other.archives);
    }
}

/// What the threads of a round share.
struct Shared<'a> {
    plan: &'a Plan<'a>,
    /// Open sources of uploads, by [`FileId`].
    sources: Vec<Option<File>>,
    /// Requests begun, by load.
    begun: Vec<AtomicU64>,
    /// Clients of the first load that are not done.
    active: AtomicUsize,
    stop: AtomicBool,
    errors: AtomicU64,
    turn: AtomicU32,
    connected: std::sync::Barrier,
}

/// Memory of one thread.
struct Tools {
    room: Vec<u8>,
    scratch: Vec<u8>,
}

impl Shared<'_> {
    fn source(&self, id: FileId) -> io::Result<&File> {
        let file = self.sources.get(id.0 as usize).and_then(Option::as_ref);
        file.ok_or_else(|| io::Error::other("a source that was not opened"))
    }

    /// A number that differs from connection to connection.
    fn turn(&self) -> u32 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    fn fail(&self, tally: &mut Tally, problem: String) {
        tally.fail(problem);
        if ERRORS_MAX < self.errors.fetch_add(1, Ordering::Relaxed) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs a round; one tally per load.
///
/// # Errors
/// The machine refuses descriptors, cores or connections. What servers do wrong is in the tallies.
pub fn run(plan: &Plan<'_>, upload_sources: &[FileId]) -> io::Result<Vec<Tally>> {
    process::allow_descriptors()?;
    let threads = if plan.h2 { 1 } else { plan.cores.len().max(1) };
    let mut sources: Vec<Option<File>> = Vec::new();
    sources.resize_with(plan.fixture.files.len(), || None);
    for id in upload_sources {
        sources[id.0 as usize] = Some(File::open(plan.fixture.path(*id))?);
    }
    let active = plan
        .loads
        .first()
        .map_or(0, |load| load.connections as usize);
    let shared = Shared {
        plan,
        sources,
        begun: plan.loads.iter().map(|_| AtomicU64::new(0)).collect(),
        active: AtomicUsize::new(active),
        stop: AtomicBool::new(false),
        errors: AtomicU64::new(0),
        turn: AtomicU32::new(std::process::id()),
        connected: std::sync::Barrier::new(threads + 1),
    };
    let shared = &shared;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|index| {
                scope.spawn(move || match plan.h2 {
                    true => h2::run(shared),
                    false => worker::run(shared, index, threads),
                })
            })
            .collect();
        shared.connected.wait();
        (plan.ready)();
        shared.connected.wait();
        let mut sums: Vec<Tally> = plan.loads.iter().map(|_| Tally::new()).collect();
        for worker in workers {
            let tallies = worker
                .join()
                .map_err(|_| io::Error::other("a thread panicked"))??;
            sums.iter_mut()
                .zip(tallies)
                .for_each(|(sum, one)| sum.add(one));
        }
        Ok(sums)
    })
}

/// The call that a client makes next.
fn next_call(source: &Source<'_>, number: u64) -> Option<Call> {
    let pick = |calls: &[Call]| {
        let index = usize::try_from(number % calls.len().max(1) as u64).ok()?;
        calls.get(index).cloned()
    };
    match source {
        Source::Calls(calls) | Source::Stalled(calls) => pick(calls),
        Source::Ranges(calls, len) => {
            let call = pick(calls)?;
            let crate::call::Content::File { len: whole, .. } = call.expect.content else {
                return None;
            };
            let places = whole - len + 1;
            let mut word = [0; 8];
            crate::content::Pattern(number).fill(0, &mut word);
            Some(call.ranged(u64::from_le_bytes(word) % places, *len))
        }
        Source::Exchanges(_) | Source::Idle => None,
    }
}
