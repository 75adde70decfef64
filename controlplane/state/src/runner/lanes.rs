//! Who runs next: one lane per key, turns between lanes, limits on both.
//!
//! Decides, never waits.
//!
//! Laws
//! - At most `running_max` jobs run, at most `per_key_max` of one key.
//! - Within a key, first come, first served; between keys, turns: a thousand jobs of one volume
//!   delay another volume's job by one job at most.
//! - A lane that is empty and idle takes no room.

use std::collections::{HashMap, VecDeque};

/// See the module.
#[derive(Debug)]
pub(super) struct Lanes<J> {
    lanes: HashMap<String, Lane<J>>,
    /// Lanes that could start a job, each at most once.
    turns: VecDeque<String>,
    running: usize,
    /// Jobs in lanes, and places promised to jobs on their way.
    queued: usize,
    limits: Limits,
    closed: bool,
}

/// Bounds of [`Lanes`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) running_max: usize,
    pub(super) per_key_max: usize,
    pub(super) queued_max: usize,
}

#[derive(Debug)]
struct Lane<J> {
    jobs: VecDeque<J>,
    running: usize,
    in_turns: bool,
}

/// Why no place was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    Full,
    Closed,
}

impl<J> Lanes<J> {
    pub(super) fn new(limits: Limits) -> Self {
        assert!(0 < limits.running_max);
        assert!(0 < limits.per_key_max);
        Self {
            lanes: HashMap::new(),
            turns: VecDeque::new(),
            running: 0,
            queued: 0,
            limits,
            closed: false,
        }
    }

    /// Promises a place to a job that [`Lanes::push`] or [`Lanes::give_back`] follows.
    pub(super) fn reserve(&mut self) -> Result<(), NoPlace> {
        if self.closed {
            return Err(NoPlace::Closed);
        }
        if self.limits.queued_max <= self.queued {
            return Err(NoPlace::Full);
        }
        self.queued += 1;
        Ok(())
    }

    /// Promises a place beyond the limit: for jobs that are on record already.
    pub(super) fn reserve_anyway(&mut self) {
        self.queued += 1;
    }

    /// Returns a promised place unused.
    pub(super) fn give_back(&mut self) {
        assert!(0 < self.queued);
        self.queued -= 1;
    }

    /// Puts a job into its promised place.
    pub(super) fn push(&mut self, key: &str, job: J) {
        assert!(0 < self.queued);
        let lane = self.lanes.entry(key.to_owned()).or_insert_with(|| Lane {
            jobs: VecDeque::new(),
            running: 0,
            in_turns: false,
        });
        lane.jobs.push_back(job);
        self.line_up(key);
    }

    /// The next job to start, with its key; [`Lanes::done`] must follow.
    pub(super) fn next(&mut self) -> Option<(String, J)> {
        if self.closed || self.limits.running_max <= self.running {
            return None;
        }
        let key = self.turns.pop_front()?;
        let lane = self.lanes.get_mut(&key)?;
        assert!(lane.in_turns);
        assert!(lane.running < self.limits.per_key_max);
        lane.in_turns = false;
        let job = lane.jobs.pop_front()?;
        lane.running += 1;
        self.running += 1;
        self.queued -= 1;
        self.line_up(&key);
        Some((key, job))
    }

    /// A job of `key` has ended.
    pub(super) fn done(&mut self, key: &str) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        assert!(0 < lane.running);
        assert!(0 < self.running);
        lane.running -= 1;
        self.running -= 1;
        self.line_up(key);
        self.drop_if_empty(key);
    }

    /// Takes a job out of its lane before it starts.
    pub(super) fn remove(&mut self, key: &str, wanted: impl Fn(&J) -> bool) -> Option<J> {
        let lane = self.lanes.get_mut(key)?;
        let at = lane.jobs.iter().position(wanted)?;
        let job = lane.jobs.remove(at);
        self.queued -= 1;
        self.drop_if_empty(key);
        job
    }

    /// Starts nothing any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether nothing is started any more.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Jobs that run.
    pub(super) const fn running(&self) -> usize {
        self.running
    }

    /// Jobs that wait, and places promised.
    pub(super) const fn queued(&self) -> usize {
        self.queued
    }

    fn line_up(&mut self, key: &str) {
        let per_key_max = self.limits.per_key_max;
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        if !lane.in_turns && !lane.jobs.is_empty() && lane.running < per_key_max {
            lane.in_turns = true;
            self.turns.push_back(key.to_owned());
        }
    }

    fn drop_if_empty(&mut self, key: &str) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        if !lane.jobs.is_empty() {
            return;
        }
        if lane.in_turns {
            // Rare: only a cancelled job leaves its lane out of turn.
            lane.in_turns = false;
            self.turns.retain(|waiting| waiting != key);
        }
        if lane.running == 0 {
            self.lanes.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Pushes `jobs` (key, name) and yields the names in the order of start, where `done` says
    /// after which started job that job ends.
    #[track_caller]
    fn check_order(limits: (usize, usize), jobs: &[(&str, &str)], want: &[&str]) {
        let (running_max, per_key_max) = limits;
        let mut lanes = Lanes::new(Limits {
            running_max,
            per_key_max,
            queued_max: 100,
        });
        for (key, name) in jobs {
            lanes.reserve().unwrap();
            lanes.push(key, (*name).to_owned());
        }
        let mut started = Vec::new();
        let mut running = VecDeque::new();
        loop {
            while let Some((key, name)) = lanes.next() {
                started.push(name);
                running.push_back(key);
                assert!(lanes.running() <= running_max);
            }
            let Some(key) = running.pop_front() else {
                break;
            };
            lanes.done(&key);
        }
        assert_eq!(started, want, "{jobs:?}");
        assert_eq!(
            (lanes.running(), lanes.queued(), lanes.lanes.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn jobs_start_in_turns_between_keys() {
        check_order((1, 1), &[], &[]);
        check_order((1, 1), &[("a", "a1"), ("a", "a2")], &["a1", "a2"]);
        let mixed = [
            ("a", "a1"),
            ("a", "a2"),
            ("a", "a3"),
            ("b", "b1"),
            ("c", "c1"),
        ];
        check_order((1, 1), &mixed, &["a1", "b1", "c1", "a2", "a3"]);
        check_order((2, 1), &mixed, &["a1", "b1", "c1", "a2", "a3"]);
        check_order((9, 2), &mixed, &["a1", "b1", "c1", "a2", "a3"]);
        check_order((9, 9), &mixed, &["a1", "b1", "c1", "a2", "a3"]);
    }

    #[test]
    fn one_key_never_takes_more_than_its_share() {
        let mut lanes = Lanes::new(Limits {
            running_max: 9,
            per_key_max: 2,
            queued_max: 100,
        });
        for job in 0..5 {
            lanes.reserve().unwrap();
            lanes.push("a", job);
        }
        assert_eq!(lanes.next().unwrap().1, 0);
        assert_eq!(lanes.next().unwrap().1, 1);
        assert!(lanes.next().is_none());
        lanes.done("a");
        assert_eq!(lanes.next().unwrap().1, 2);
        assert!(lanes.next().is_none());
    }

    #[test]
    fn places_are_promised_up_to_the_limit() {
        let mut lanes = Lanes::new(Limits {
            running_max: 1,
            per_key_max: 1,
            queued_max: 2,
        });
        assert_eq!(lanes.reserve(), Ok(()));
        assert_eq!(lanes.reserve(), Ok(()));
        assert_eq!(lanes.reserve(), Err(NoPlace::Full));
        lanes.give_back();
        assert_eq!(lanes.reserve(), Ok(()));
        lanes.push("a", 1);
        assert_eq!(lanes.reserve(), Err(NoPlace::Full));
        assert!(lanes.next().is_some());
        assert_eq!(lanes.reserve(), Ok(()));
        lanes.close();
        assert_eq!(lanes.reserve(), Err(NoPlace::Closed));
        assert!(lanes.next().is_none());
    }

    #[test]
    fn a_waiting_job_can_be_taken_out() {
        let mut lanes = Lanes::new(Limits {
            running_max: 1,
            per_key_max: 1,
            queued_max: 9,
        });
        for (key, job) in [("a", 1), ("a", 2), ("b", 3)] {
            lanes.reserve().unwrap();
            lanes.push(key, job);
        }
        assert_eq!(lanes.remove("a", |job| *job == 9), None);
        assert_eq!(lanes.remove("x", |job| *job == 1), None);
        assert_eq!(lanes.remove("a", |job| *job == 2), Some(2));
        assert_eq!(lanes.remove("b", |job| *job == 3), Some(3));
        lanes.reserve().unwrap();
        lanes.push("b", 4);
        assert_eq!(lanes.turns, ["a", "b"]);
        assert_eq!(lanes.next().unwrap().1, 1);
        lanes.done("a");
        assert_eq!(lanes.next().unwrap().1, 4);
        lanes.done("b");
        assert!(lanes.next().is_none());
        assert_eq!((lanes.queued(), lanes.lanes.len()), (0, 0));
    }
}
