//! One thread of the load generator.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::net::{RecvFlags, sockopt};

use super::lane::{Finished, Lane, Progress};
use super::{Load, ROOM_BYTES, SCRATCH_BYTES, Shared, Source, Tally, Tools, next_call};
use crate::call::{Answer, Call, Exchange, Step};
use crate::process;

/// Between two looks at the clock when nothing happens.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
/// No waiting.
const NONE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};
/// A round in which nothing moves for so long is given up.
const STALL: Duration = Duration::from_secs(60);
/// Until idle and stalled clients are as they should be.
const SETUP: Duration = Duration::from_secs(30);
/// Receive buffer of a client that does not read.
const STALLED_BUFFER_BYTES: usize = 64 * 1024;
/// Events per wake-up.
const EVENTS: usize = 256;

/// A client: what it does now.
struct Slot {
    load: usize,
    lanes: Vec<usize>,
    job: Option<Job>,
    /// It begins nothing any more.
    over: bool,
}

/// A request, or requests that follow from each other.
struct Job {
    exchange: Option<Box<dyn Exchange>>,
    /// Lanes of the present step, and their answers.
    waiting: usize,
    step: Vec<usize>,
    answers: Vec<Answer>,
    begun: Instant,
    first: Option<Instant>,
    bytes: u64,
}

struct Worker<'a> {
    shared: &'a Shared<'a>,
    epoll: OwnedFd,
    tools: Tools,
    lanes: Vec<Lane>,
    slots: Vec<Slot>,
    tallies: Vec<Tally>,
    start: Instant,
    moved: Instant,
    /// Slots that are not over.
    busy: usize,
    /// Lanes that have more to do, but gave way.
    again: Vec<usize>,
}

/// Runs this thread's share of the clients.
pub fn run(shared: &Shared<'_>, index: usize, threads: usize) -> io::Result<Vec<Tally>> {
    let prepared = Worker::prepare(shared, index, threads);
    // Both barriers whatever happened: the others wait there.
    shared.connected.wait();
    shared.connected.wait();
    let mut worker = prepared?;
    worker.start = Instant::now();
    worker.moved = worker.start;
    worker.work()?;
    Ok(worker.tallies)
}

impl<'a> Worker<'a> {
    fn prepare(shared: &'a Shared<'a>, index: usize, threads: usize) -> io::Result<Self> {
        process::pin(shared.plan.cores.get(index..=index).unwrap_or(&[]))?;
        let now = Instant::now();
        let mut worker = Self {
            shared,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            tools: Tools {
                room: vec![0; ROOM_BYTES],
                scratch: vec![0; SCRATCH_BYTES],
            },
            lanes: Vec::new(),
            slots: Vec::new(),
            tallies: shared.plan.loads.iter().map(|_| Tally::new()).collect(),
            start: now,
            moved: now,
            busy: 0,
            again: Vec::new(),
        };
        for (number, load) in shared.plan.loads.iter().enumerate() {
            let mine = (0..load.connections as usize).filter(|n| n % threads == index);
            match &load.source {
                Source::Idle => worker.settle(number, mine.count(), None)?,
                Source::Stalled(_) => worker.settle(number, mine.count(), Some(load))?,
                _ => mine.for_each(|_| worker.add_slot(number)),
            }
        }
        Ok(worker)
    }

    fn add_slot(&mut self, load: usize) {
        self.busy += 1;
        self.slots.push(Slot {
            load,
            lanes: Vec::new(),
            job: None,
            over: false,
        });
    }

    /// Connects clients that do nothing, or ask and do not read.
    fn settle(
        &mut self,
        number: usize,
        count: usize,
        stalled: Option<&Load<'_>>,
    ) -> io::Result<()> {
        let end = Instant::now() + SETUP;
        let mut sockets = Vec::with_capacity(count);
        for index in 0..count {
            let slot = self.slots.len();
            let mut lane = Lane::new(slot, self.shared.plan.address);
            lane.open(self.shared)?;
            let mut slot = Slot {
                load: number,
                lanes: Vec::new(),
                job: None,
                over: true,
            };
            slot.lanes.push(self.lanes.len());
            self.slots.push(slot);
            if let Some(load) = stalled {
                let wire = lane.wire().ok_or(io::ErrorKind::NotConnected)?;
                sockopt::set_socket_recv_buffer_size(wire.socket(), STALLED_BUFFER_BYTES)?;
                let call = next_call(&load.source, index as u64);
                lane.begin(call.ok_or(io::ErrorKind::InvalidInput)?);
            }
            sockets.push(self.lanes.len());
            self.lanes.push(lane);
        }
        for lane in sockets {
            self.await_settled(lane, stalled.is_some(), end)?;
        }
        Ok(())
    }

    /// Waits until a settled client is connected; a stalled one until it is answered.
    fn await_settled(&mut self, lane: usize, stalled: bool, end: Instant) -> io::Result<()> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "a client is not served");
        loop {
            let lane = &mut self.lanes[lane];
            let wire = lane.wire().ok_or(io::ErrorKind::NotConnected)?;
            if sockopt::socket_error(wire.socket())?.is_err() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let connected = rustix::net::getpeername(wire.socket()).is_ok();
            if connected && !stalled {
                lane.rest();
                return Ok(());
            }
            if connected {
                lane.ask(self.shared)?;
                let wire = lane.wire().ok_or(io::ErrorKind::NotConnected)?;
                let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
                let mut byte = [0_u8; 1];
                if matches!(
                    rustix::net::recv(wire.socket(), &mut byte, flags),
                    Ok((_, 1))
                ) {
                    return Ok(());
                }
            }
            if end < Instant::now() {
                return Err(late());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn work(&mut self) -> io::Result<()> {
        for slot in 0..self.slots.len() {
            if !self.slots[slot].over {
                self.begin(slot);
            }
        }
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        while 0 < self.busy {
            events.clear();
            let patience = if self.again.is_empty() { &LOOK } else { &NONE };
            epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(patience),
            )?;
            for event in &events {
                let data = event.data.u64();
                let (lane, generation) = ((data & 0xffff_ffff) as usize, (data >> 32) as u32);
                if self.lanes[lane].generation == generation {
                    self.drive(lane);
                }
            }
            let again = std::mem::take(&mut self.again);
            let moved = !events.is_empty() || !again.is_empty();
            for lane in again {
                self.lanes[lane].queued = false;
                self.drive(lane);
            }
            if moved {
                self.moved = Instant::now();
            } else if STALL < self.moved.elapsed() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing moves"));
            }
        }
        Ok(())
    }

    /// Begins jobs until one waits, or the client is over.
    fn begin(&mut self, slot: usize) {
        let load = self.slots[slot].load;
        loop {
            let Some(number) = self.take_number(load) else {
                return self.end(slot);
            };
            let begun = Instant::now();
            let mut job = Job {
                exchange: None,
                waiting: 0,
                step: Vec::new(),
                answers: Vec::new(),
                begun,
                first: None,
                bytes: 0,
            };
            let calls = match &self.shared.plan.loads[load].source {
                Source::Exchanges(make) => make(number).and_then(|mut exchange| {
                    let step = exchange.next(&[]);
                    job.exchange = Some(exchange);
                    step
                }),
                source => Ok(Step::Calls(next_call(source, number).into_iter().collect())),
            };
            match calls {
                Ok(Step::Calls(calls)) if !calls.is_empty() => {
                    self.slots[slot].job = Some(job);
                    return self.send_step(slot, calls);
                }
                Ok(_) => self
                    .shared
                    .fail(&mut self.tallies[load], "nothing to do".to_owned()),
                Err(problem) => self.shared.fail(&mut self.tallies[load], problem),
            }
        }
    }

    /// The number of the next request, unless the load begins nothing any more.
    fn take_number(&self, load: usize) -> Option<u64> {
        let shared = self.shared;
        if shared.stop.load(Ordering::Relaxed) || shared.plan.time <= self.start.elapsed() {
            return None;
        }
        let number = shared.begun[load].fetch_add(1, Ordering::Relaxed);
        let limit = shared.plan.loads[load].requests;
        limit.is_none_or(|limit| number < limit).then_some(number)
    }

    fn end(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.over = true;
        self.busy -= 1;
        // The round ends with the first load.
        if slot.load == 0 && self.shared.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Puts each call on a lane of its own and drives them.
    fn send_step(&mut self, slot: usize, calls: Vec<Call>) {
        let mut step = Vec::with_capacity(calls.len());
        for call in calls {
            let to = call.to.unwrap_or(self.shared.plan.address);
            let lanes = &self.slots[slot].lanes;
            let free = |lane: &&usize| {
                let lane = &self.lanes[**lane];
                lane.to == to && lane.is_free()
            };
            let lane = match lanes.iter().find(free) {
                Some(lane) => *lane,
                None => {
                    self.lanes.push(Lane::new(slot, to));
                    self.slots[slot].lanes.push(self.lanes.len() - 1);
                    self.lanes.len() - 1
                }
            };
            self.lanes[lane].begin(call);
            step.push(lane);
        }
        if let Some(job) = &mut self.slots[slot].job {
            job.waiting = step.len();
            job.answers.clear();
            job.answers.resize_with(step.len(), Answer::default);
            job.step.clone_from(&step);
        }
        for lane in step {
            self.drive(lane);
        }
    }

    fn drive(&mut self, lane: usize) {
        loop {
            match self.lanes[lane].drive(self.shared, &mut self.tools) {
                Progress::Pending => return,
                Progress::TurnOver => {
                    // Once is enough, however many events came for it.
                    if !std::mem::replace(&mut self.lanes[lane].queued, true) {
                        self.again.push(lane);
                    }
                    return;
                }
                Progress::Stale => {}
                Progress::Opened => {
                    if let Err(error) = self.register(lane) {
                        return self.fail(lane, error.to_string());
                    }
                    // The socket says by itself when it is connected.
                    return;
                }
                Progress::Finished(finished) => return self.finished(lane, *finished),
                Progress::Failed(problem) => return self.fail(lane, problem),
            }
        }
    }

    fn register(&self, lane: usize) -> io::Result<()> {
        let (index, lane) = (lane as u64, &self.lanes[lane]);
        let wire = lane.wire().ok_or(io::ErrorKind::NotConnected)?;
        let data = epoll::EventData::new_u64((u64::from(lane.generation) << 32) | index);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, wire.socket(), data, flags)?)
    }

    fn fail(&mut self, lane: usize, problem: String) {
        let slot = self.lanes[lane].slot;
        let load = self.slots[slot].load;
        let Some(job) = self.slots[slot].job.take() else {
            return;
        };
        self.shared.fail(&mut self.tallies[load], problem);
        for other in job.step {
            if !self.lanes[other].is_free() {
                self.lanes[other].abandon();
            }
        }
        self.begin(slot);
    }

    fn finished(&mut self, lane: usize, finished: Finished) {
        let slot = self.lanes[lane].slot;
        let load = self.slots[slot].load;
        let Some(job) = &mut self.slots[slot].job else {
            return;
        };
        // Of several steps the last one counts: it is the answer that the client waits for.
        job.first = Some(finished.first);
        job.bytes += finished.bytes;
        self.tallies[load].archives.extend(finished.archive);
        if let Some(place) = job.step.iter().position(|other| *other == lane) {
            job.answers[place] = finished.answer;
        }
        job.waiting -= 1;
        if 0 < job.waiting {
            return;
        }
        if let Some(exchange) = &mut job.exchange {
            let answers = std::mem::take(&mut job.answers);
            match exchange.next(&answers) {
                Ok(Step::Calls(calls)) if !calls.is_empty() => return self.send_step(slot, calls),
                Ok(_) => {}
                Err(problem) => return self.fail(lane, problem),
            }
        }
        let Some(job) = self.slots[slot].job.take() else {
            return;
        };
        let (now, tally) = (Instant::now(), &mut self.tallies[load]);
        let nanos = |from: Instant, to: Instant| (to - from).as_nanos() as u64;
        tally.requests += 1;
        tally.bytes += job.bytes;
        tally.total.saturating_record(nanos(job.begun, now));
        let first = job.first.unwrap_or(now);
        tally.first_byte.saturating_record(nanos(job.begun, first));
        tally.elapsed = now - self.start;
        self.begin(slot);
    }
}
