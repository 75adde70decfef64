//! Jobs that a storage system works on by itself: they end after they were looked at so often.
//!
//! A job's effect happens when it ends, so a client that does not wait sees nothing of it. A job
//! can be told to fail, or never to end.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// What a job does when it ends.
type Effect = Box<dyn FnOnce() -> Result<(), Trouble> + Send>;

/// Why a job failed: the vendor's code, and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The vendor's code.
    pub code: String,
    /// Its words.
    pub text: String,
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not begun.
    Queued,
    /// Under way.
    Running,
    /// Done, its effect is there.
    Done,
    /// Failed, without effect or with a part of it.
    Failed(Trouble),
}

struct Job {
    what: String,
    looks_left: usize,
    ends: bool,
    effect: Option<Effect>,
    progress: Progress,
}

/// All jobs of one system.
#[derive(Default)]
pub struct Jobs {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    jobs: BTreeMap<u64, Job>,
    next: u64,
    looks: usize,
    failing: Vec<Trouble>,
    endless: usize,
}

impl Jobs {
    /// Jobs to come end when they are looked at for the `looks`-th time; 0 or 1: at the first.
    pub fn take(&self, looks: usize) {
        self.state.lock().looks = looks;
    }

    /// The next job fails, without its effect. Called twice: the next two.
    pub fn fail_next(&self, code: &str, text: &str) {
        let (code, text) = (code.to_owned(), text.to_owned());
        self.state.lock().failing.push(Trouble { code, text });
    }

    /// The next job never ends.
    pub fn never_end_next(&self) {
        self.state.lock().endless += 1;
    }

    /// Begins a job and gives its number, from 1 on. `what` is the vendor's description.
    pub fn start(
        &self,
        what: &str,
        effect: impl FnOnce() -> Result<(), Trouble> + Send + 'static,
    ) -> u64 {
        let mut state = self.state.lock();
        state.next += 1;
        let mut effect: Effect = Box::new(effect);
        if !state.failing.is_empty() {
            let trouble = state.failing.remove(0);
            effect = Box::new(move || Err(trouble));
        }
        let ends = state.endless == 0;
        state.endless = state.endless.saturating_sub(1);
        let job = Job {
            what: what.to_owned(),
            looks_left: state.looks,
            ends,
            effect: Some(effect),
            progress: Progress::Queued,
        };
        let number = state.next;
        state.jobs.insert(number, job);
        number
    }

    /// Looks at a job, which may end it; `None` for one that is not known.
    pub fn look(&self, number: u64) -> Option<(String, Progress)> {
        let mut state = self.state.lock();
        let job = state.jobs.get_mut(&number)?;
        job.looks_left = job.looks_left.saturating_sub(1);
        let effect = (job.ends && job.looks_left == 0)
            .then(|| job.effect.take())
            .flatten();
        if job.effect.is_some() {
            job.progress = Progress::Running;
        }
        let Some(effect) = effect else {
            return Some((job.what.clone(), job.progress.clone()));
        };
        // The effect may lock what the handler's state has, never these jobs.
        drop(state);
        let progress = match effect() {
            Ok(()) => Progress::Done,
            Err(trouble) => Progress::Failed(trouble),
        };
        let mut state = self.state.lock();
        let job = state.jobs.get_mut(&number)?;
        job.progress = progress.clone();
        Some((job.what.clone(), progress))
    }

    /// Ends all jobs that can end, as time would.
    pub fn finish_all(&self) {
        let numbers: Vec<u64> = self.state.lock().jobs.keys().copied().collect();
        for number in numbers {
            let looks = self
                .state
                .lock()
                .jobs
                .get(&number)
                .map_or(0, |j| j.looks_left);
            for _ in 0..=looks {
                self.look(number);
            }
        }
    }

    /// Forgets all jobs that have ended, as systems do after a while.
    pub fn forget_ended(&self) {
        let ended = |job: &Job| matches!(job.progress, Progress::Done | Progress::Failed(_));
        self.state.lock().jobs.retain(|_, job| !ended(job));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_job_ends_when_it_was_looked_at_often_enough() {
        let jobs = Jobs::default();
        let done = Arc::new(AtomicUsize::new(0));
        let effect = |done: &Arc<AtomicUsize>| {
            let done = Arc::clone(done);
            move || {
                done.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        };
        jobs.take(3);
        let one = jobs.start("make", effect(&done));
        for want in [
            Progress::Running,
            Progress::Running,
            Progress::Done,
            Progress::Done,
        ] {
            assert_eq!(jobs.look(one), Some(("make".to_owned(), want)));
        }
        assert_eq!(done.load(Ordering::Relaxed), 1);
        jobs.fail_next("7", "no");
        jobs.never_end_next();
        let stuck = jobs.start("make", effect(&done));
        jobs.finish_all();
        assert_eq!(jobs.look(stuck).unwrap().1, Progress::Running);
        jobs.fail_next("7", "no");
        let failed = jobs.start("make", effect(&done));
        jobs.finish_all();
        assert!(matches!(jobs.look(failed).unwrap().1, Progress::Failed(_)));
        jobs.forget_ended();
        assert_eq!(jobs.look(one), None);
        assert_eq!(done.load(Ordering::Relaxed), 1);
    }
}
