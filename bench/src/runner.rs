//! Runs workloads: makes files, starts servers, lets them take turns, and notes what it cost.
//!
//! Laws
//! - Peers take turns within a round, and the order turns round with each: what drifts in the
//!   machine hits all alike.
//! - Servers run on their cores, the generator on its own.
//! - After the last turn our server must be at rest: no buffer, no operation, no connection.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use proxy_ring::measure::process_cpu;

use crate::call::Call;
use crate::content::Pattern;
use crate::fixture::{FileId, Fixture, UPLOADS, verify};
use crate::load::{self, Plan, Source, Tally};
use crate::peer::{Peer, Reason, Running, Start, Upload};
use crate::process::{self, Usage};
use crate::results::{Cell, LoadTurn, Row, Turn};
use crate::tls::{self, Certificate};
use crate::unpack;
use crate::workload::{ArchiveKind, Cache, Kind, Load, Medium, Protocol, Workload};

/// How a run is made.
pub struct Settings {
    /// Turns of each peer.
    pub rounds: u32,
    /// Cores of the load generator.
    pub client_cores: Vec<usize>,
    /// Cores of the servers.
    pub server_cores: Vec<usize>,
    /// Where files on disk lie.
    pub dir: PathBuf,
    /// Where files in memory lie.
    pub tmpfs: PathBuf,
    /// Check every byte.
    pub verify: bool,
    /// Instead of the workload's own.
    pub seconds: Option<f64>,
}

/// Before the first turn, so that servers have started in earnest.
const WARM_UP: Duration = Duration::from_millis(200);

/// A peer with its server.
struct Seat<'a> {
    peer: &'a dyn Peer,
    cell: Cell,
    server: Option<Box<dyn Running>>,
    /// Kept until the server has ended.
    _scratch: tempfile::TempDir,
    /// Numbers of uploads, so that each target is new.
    uploads: u64,
}

/// Runs one workload against these peers; `tick` is called after each turn.
///
/// # Errors
/// This machine cannot: files, cores, descriptors. What a peer cannot is in its cell.
pub fn run(
    settings: &Settings,
    workload: &Workload,
    peers: &[&dyn Peer],
    tick: &dyn Fn(&str),
) -> io::Result<Row> {
    let root = match workload.on {
        Medium::Disk => &settings.dir,
        Medium::Tmpfs => &settings.tmpfs,
    };
    let fixture = Fixture::make(root, workload)?;
    fixture.warm()?;
    let home = tempfile::tempdir()?;
    let certificate = match workload.tls {
        true => Some(tls::make(home.path())?),
        false => None,
    };
    let bench = Bench {
        settings,
        workload,
        fixture: &fixture,
        certificate: certificate.as_ref(),
    };
    let mut seats = Vec::new();
    for peer in peers {
        seats.push(bench.seat(*peer)?);
    }
    for round in 0..settings.rounds {
        let first = round as usize % seats.len().max(1);
        for place in 0..seats.len() {
            let seat = &mut seats[(first + place) % peers.len()];
            tick(seat.peer.name());
            bench.turn(seat)?;
        }
    }
    let cells = seats.into_iter().map(Seat::finish).collect();
    Ok(Row {
        workload: workload.clone(),
        cells,
    })
}

impl Seat<'_> {
    /// The end: the server must be at rest.
    fn finish(mut self) -> Cell {
        if let Some(server) = self.server.take()
            && self.cell.failed.is_none()
        {
            if let Err(reason) = server.at_rest() {
                self.cell.failed = Some(reason.0);
            }
            self.cell.descriptors_end = process::usage(&server.pids()).descriptors;
        }
        self.cell
    }
}

/// One workload on its files.
struct Bench<'a> {
    settings: &'a Settings,
    workload: &'a Workload,
    fixture: &'a Fixture,
    certificate: Option<&'a Certificate>,
}

impl Bench<'_> {
    fn seat<'p>(&self, peer: &'p dyn Peer) -> io::Result<Seat<'p>> {
        let scratch = tempfile::Builder::new()
            .prefix("storage-bench-")
            .tempdir()?;
        let mut seat = Seat {
            peer,
            cell: Cell {
                peer: peer.name().to_owned(),
                ..Cell::default()
            },
            server: None,
            _scratch: scratch,
            uploads: 0,
        };
        let able = peer.available().and_then(|_| peer.supports(self.workload));
        if let Err(reason) = able {
            seat.cell.skipped = Some(reason.0);
            return Ok(seat);
        }
        let start = Start {
            cores: self.settings.server_cores.clone(),
            tls: self.certificate.map(|made| made.files.clone()),
            h2: self.workload.protocol == Protocol::H2,
            scratch: seat._scratch.path().to_owned(),
        };
        match peer.start(self.fixture, &start) {
            Ok(server) => {
                let usage = process::usage(&server.pids());
                seat.cell.rss_start = usage.rss;
                seat.cell.descriptors_start = usage.descriptors;
                seat.server = Some(server);
            }
            Err(reason) => seat.cell.failed = Some(format!("does not start: {reason}")),
        }
        let puts = self.workload.has(Kind::Put);
        if seat.server.is_some() && self.workload.cache == Cache::Warm && !puts {
            self.drive(&mut seat, WARM_UP)?;
        }
        Ok(seat)
    }

    /// One turn, unless the peer takes no part any more.
    fn turn(&self, seat: &mut Seat<'_>) -> io::Result<()> {
        if self.workload.cache == Cache::Cold {
            let first = self.workload.load.first().and_then(|load| load.files);
            let files = first.map_or(Vec::new(), |set| self.fixture.set(&set));
            self.fixture.chill(&files)?;
        }
        let seconds = self.settings.seconds.unwrap_or(self.workload.seconds);
        let turn = self.drive(seat, Duration::from_secs_f64(seconds))?;
        seat.cell.turns.extend(turn);
        Ok(())
    }

    fn drive(&self, seat: &mut Seat<'_>, time: Duration) -> io::Result<Option<Turn>> {
        let first_upload = seat.uploads;
        let Some(server) = seat
            .server
            .as_deref()
            .filter(|_| seat.cell.failed.is_none())
        else {
            return Ok(None);
        };
        let outcome = self.measure(server, time, first_upload);
        let (turn, mut tallies) = match outcome {
            Ok(measured) => measured,
            Err(reason) => {
                seat.cell.failed = Some(with_log(&reason.0, server));
                return Ok(None);
            }
        };
        let problem = self.judge(server, &mut tallies, first_upload);
        if let Err(problem) = problem {
            seat.cell.failed = Some(with_log(&problem, server));
        }
        if self.workload.has(Kind::Put) {
            for (load, tally) in tallies.iter().enumerate() {
                let done = tally.requests + tally.errors;
                for number in first_upload..first_upload + done {
                    // Where the server keeps it elsewhere; in vain where it does not.
                    let target = target(load, number);
                    let _ = std::fs::remove_file(server.landed(self.fixture, &target));
                }
                seat.uploads = seat.uploads.max(first_upload + done);
            }
            self.fixture.empty_uploads()?;
        }
        Ok(Some(turn))
    }

    fn measure(
        &self,
        server: &dyn Running,
        time: Duration,
        first_upload: u64,
    ) -> Result<(Turn, Vec<Tally>), Reason> {
        let pids = server.pids();
        let own = || process_cpu(std::process::id()).unwrap_or_default();
        let before = Mutex::new((Usage::default(), Duration::ZERO, Instant::now()));
        let ready = || {
            let now = (process::usage(&pids), own(), Instant::now());
            *before.lock().unwrap_or_else(PoisonError::into_inner) = now;
        };
        let loads = self.workload.load.iter().enumerate();
        let loads = loads.map(|(index, load)| self.load(server, index, load, first_upload));
        let plan = Plan {
            fixture: self.fixture,
            address: server.address(),
            h2: self.workload.protocol == Protocol::H2,
            tls: self.certificate.map(|made| Arc::clone(&made.client)),
            verify: self.settings.verify,
            time,
            cores: &self.settings.client_cores,
            loads: loads.collect::<Result<_, _>>()?,
            ready: &ready,
        };
        let tallies = load::run(&plan, &self.upload_sources())?;
        let (after, own_after) = (process::usage(&pids), own());
        let (before, own_before, start) = *before.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = Turn {
            loads: tallies.iter().map(load_turn).collect(),
            cpu_s: after.cpu.saturating_sub(before.cpu).as_secs_f64(),
            client_cpu_s: own_after.saturating_sub(own_before).as_secs_f64(),
            seconds: start.elapsed().as_secs_f64(),
            rss_peak: after.rss_peak,
            rss_ready: before.rss,
            threads: after.threads,
        };
        Ok((turn, tallies))
    }

    fn load<'s>(
        &'s self,
        server: &'s dyn Running,
        index: usize,
        load: &Load,
        first_upload: u64,
    ) -> Result<load::Load<'s>, Reason> {
        let files = load.files.map_or(Vec::new(), |set| self.fixture.set(&set));
        let calls = || -> Result<Vec<Call>, Reason> {
            let calls = files.iter().map(|file| {
                let mut call = server.get(self.fixture, *file)?;
                call.fresh |= load.fresh;
                Ok(call)
            });
            calls.collect()
        };
        let archive = |kind| -> Result<Source<'s>, Reason> {
            let set = load.files.ok_or_else(|| Reason::new("no files"))?;
            let bytes = set.bytes.0 * u64::from(set.count);
            Ok(Source::Calls(vec![server.archive(
                &set.dir(),
                bytes,
                kind,
            )?]))
        };
        let source = match (load.kind, load.range) {
            (Kind::Get, None) => Source::Calls(calls()?),
            (Kind::Get, Some(range)) => Source::Ranges(calls()?, range.0),
            (Kind::Zip, _) => archive(ArchiveKind::Zip)?,
            (Kind::Tar, _) => archive(ArchiveKind::Tar)?,
            (Kind::Idle, _) => Source::Idle,
            (Kind::Stalled, _) => Source::Stalled(calls()?),
            (Kind::Put, _) => {
                let way = load.put_way();
                Source::Exchanges(Box::new(move |number| {
                    let source = files[number as usize % files.len()];
                    let upload = Upload {
                        source,
                        bytes: self.fixture.file(source).bytes,
                        target: target(index, first_upload + number),
                        way,
                    };
                    server.put(&upload).map_err(|reason| reason.0)
                }))
            }
        };
        Ok(load::Load {
            connections: load.connections,
            source,
            requests: load.requests,
        })
    }

    fn upload_sources(&self) -> Vec<FileId> {
        let puts = self
            .workload
            .load
            .iter()
            .filter(|load| load.kind == Kind::Put);
        let sets = puts.filter_map(|load| load.files);
        sets.flat_map(|set| self.fixture.set(&set)).collect()
    }

    /// Whether the turn counts.
    fn judge(
        &self,
        server: &dyn Running,
        tallies: &mut [Tally],
        first_upload: u64,
    ) -> Result<(), String> {
        for (index, (load, tally)) in self.workload.load.iter().zip(tallies).enumerate() {
            if 0 < tally.errors {
                let kinds: BTreeMap<_, _> = tally.failures.iter().collect();
                return Err(format!("{}: {} errors: {kinds:?}", load.name, tally.errors));
            }
            let files = load.files.map_or(Vec::new(), |set| self.fixture.set(&set));
            let archive = match load.kind {
                Kind::Zip => ArchiveKind::Zip,
                _ => ArchiveKind::Tar,
            };
            for kept in tally.archives.drain(..) {
                unpack::verify(kept, archive, self.fixture, &files)?;
            }
            if self.settings.verify && load.kind == Kind::Put {
                for number in 0..tally.requests {
                    let source = self.fixture.file(files[number as usize % files.len()]);
                    let path = server.landed(self.fixture, &target(index, first_upload + number));
                    verify(&path, Pattern::of(&source.name), source.bytes)?;
                }
            }
        }
        Ok(())
    }
}

/// A problem, with what the server says about it.
fn with_log(problem: &str, server: &dyn Running) -> String {
    let log = server.log_tail();
    let bad = |line: &&str| line.to_lowercase().contains("error") || line.contains("panicked");
    let last = log.lines().rev().find(bad);
    last.map_or(problem.to_owned(), |line| {
        format!("{problem}; its log: {line}")
    })
}

/// Name of the n-th upload of a load.
fn target(load: usize, number: u64) -> String {
    format!("{UPLOADS}/{load}-{number:08}")
}

fn load_turn(tally: &Tally) -> LoadTurn {
    let ms = |nanos: u64| nanos as f64 / 1e6;
    LoadTurn {
        requests: tally.requests,
        bytes: tally.bytes,
        errors: tally.errors,
        seconds: tally.elapsed.as_secs_f64(),
        first_p50_ms: ms(tally.first_byte.value_at_quantile(0.5)),
        first_p99_ms: ms(tally.first_byte.value_at_quantile(0.99)),
        total_p50_ms: ms(tally.total.value_at_quantile(0.5)),
        total_p99_ms: ms(tally.total.value_at_quantile(0.99)),
    }
}

/// The directory of this run below `dir`.
#[must_use]
pub fn place(dir: &Path) -> PathBuf {
    dir.join("storage-bench-files")
}
