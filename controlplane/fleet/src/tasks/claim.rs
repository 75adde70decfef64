//! Whose are the unfinished tasks of this data directory, after a start.
//!
//! Laws
//! - Ours, unless Redis shows that another process showed life for them after us, or ended them.
//! - Without Redis they are ours: nobody can have taken them up without it.
//! - A Redis that was emptied says nothing.

use std::time::Duration;

use proxy_core::id::TaskId;
use proxy_state::{StateError, TaskState, UnfinishedTask};
use redis::Pipeline;
use tokio::time::timeout;

use super::keys::{self, LIVE_TTL_S, WHOLE};
use super::{Inner, Known, unix_ms};
use crate::link::LinkError;

/// A heartbeat this much after our own last one is not ours.
const OURS_WITHIN_MS: u64 = 3000;
/// Nobody may take a task up before it was silent for so long.
const SILENT_MS: u64 = 300_000;
/// Two heartbeats were missed, and half a third: whoever had it does not have it any more.
const MISSED_MS: u64 = 150_000;
/// Tasks that are asked for at once.
const ASKED_MAX: usize = 300;

/// What Redis knows of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Milliseconds to live; `None`: its keys are gone.
    ttl_ms: Option<u64>,
    status: Option<String>,
    message: Option<String>,
}

/// Whose a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Whose {
    /// To be run here; and whether Redis has its keys.
    Ours { is_shared: bool },
    /// Another process has it.
    Theirs,
    /// Another process has ended it.
    Ended(TaskState, String),
}

/// Decides; `age_ms` is the time since Redis last heard of us, `remembers` whether Redis was not
/// emptied since, `was_shared` whether it ever knew this task.
fn whose(seen: &Seen, age_ms: u64, remembers: bool, was_shared: bool) -> Whose {
    match seen.status.as_deref() {
        Some("success") => return ended(TaskState::Done, seen),
        Some("failure") => return ended(TaskState::Failed, seen),
        Some(_) | None => {}
    }
    let Some(ttl_ms) = seen.ttl_ms else {
        if remembers && was_shared && SILENT_MS <= age_ms {
            return Whose::Ended(TaskState::Done, "Task was ended by another server".into());
        }
        return Whose::Ours { is_shared: false };
    };
    let silent_ms = (LIVE_TTL_S * 1000).saturating_sub(ttl_ms);
    let is_theirs = silent_ms + OURS_WITHIN_MS < age_ms;
    if is_theirs && silent_ms < MISSED_MS {
        return Whose::Theirs;
    }
    Whose::Ours { is_shared: true }
}

fn ended(state: TaskState, seen: &Seen) -> Whose {
    Whose::Ended(state, seen.message.clone().unwrap_or_default())
}

impl Inner {
    /// Those of `tasks` that are to be run here now.
    pub(super) async fn claim(
        &self,
        tasks: Vec<UnfinishedTask>,
    ) -> Result<Vec<UnfinishedTask>, StateError> {
        self.await_link(self.options.start_wait).await;
        let mut ours = Vec::new();
        for some in tasks.chunks(ASKED_MAX) {
            let verdicts = self.ask(some).await;
            for (task, verdict) in some.iter().zip(verdicts) {
                match verdict {
                    Whose::Ours { is_shared } => {
                        let known = Known::live(is_shared);
                        self.known.lock().insert(task.id, known);
                        ours.push(task.clone());
                    }
                    Whose::Theirs => {
                        tracing::info!(task = %task.id, "another server has taken this task up");
                        self.elsewhere.lock().push(task.clone());
                    }
                    Whose::Ended(state, message) => {
                        self.local.end(task.id, state, &message).await?;
                    }
                }
            }
        }
        Ok(ours)
    }

    /// Looks again at the tasks of ours that another process has; yields those that it let go.
    pub(super) async fn look_elsewhere(&self) -> Vec<UnfinishedTask> {
        let tasks = self.elsewhere.lock().clone();
        let Ok(seen) = self.see(tasks.as_slice()).await else {
            return Vec::new();
        };
        let mut let_go = Vec::new();
        for (task, seen) in tasks.iter().zip(seen) {
            // It was there a moment ago: who ended it has cleared it away.
            let verdict = whose(&seen, u64::MAX, true, true);
            match verdict {
                Whose::Theirs => continue,
                Whose::Ours { is_shared } => {
                    self.known.lock().insert(task.id, Known::live(is_shared));
                    let_go.push(task.clone());
                }
                Whose::Ended(state, message) => {
                    if let Err(error) = self.local.end(task.id, state, &message).await {
                        tracing::warn!(task = %task.id, %error, "an end is not on record yet");
                        continue;
                    }
                }
            }
            self.elsewhere.lock().retain(|other| other.id != task.id);
        }
        let_go
    }

    async fn ask(&self, tasks: &[UnfinishedTask]) -> Vec<Whose> {
        let mut verdicts = Vec::new();
        let known = match self.see(tasks).await {
            Ok(seen) => self.remembers().await.map(|remembers| (seen, remembers)),
            Err(error) => Err(error),
        };
        let (seen, remembers) = match known {
            Ok(known) => known,
            Err(error) => {
                tracing::info!(%error, "unfinished tasks are taken up without asking redis");
                return vec![Whose::Ours { is_shared: false }; tasks.len()];
            }
        };
        let (now, beat) = (unix_ms(), self.beat.at_ms());
        for (task, seen) in tasks.iter().zip(seen) {
            let is_gone = seen.ttl_ms.is_none();
            let was_shared = is_gone && self.was_shared(task.id, beat).await;
            let age_ms = now.saturating_sub(beat);
            verdicts.push(whose(&seen, age_ms, remembers, was_shared));
        }
        verdicts
    }

    /// Every heartbeat tells of everything that is on record then.
    async fn was_shared(&self, id: TaskId, beat_ms: u64) -> bool {
        let task = self.local.get(id).await.ok().flatten();
        task.is_some_and(|task| task.created_ms <= beat_ms)
    }

    async fn remembers(&self) -> Result<bool, LinkError> {
        let mut cmd = redis::cmd("EXISTS");
        cmd.arg(&self.keys.memory);
        self.link.query(&cmd).await
    }

    async fn see(&self, tasks: &[UnfinishedTask]) -> Result<Vec<Seen>, LinkError> {
        let mut pipe = Pipeline::new();
        for task in tasks {
            pipe.cmd("PTTL").arg(keys::meta(task.id));
            pipe.cmd("HMGET").arg(keys::subtask(task.id, WHOLE));
            pipe.arg("status").arg("last_message");
        }
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let answers: Vec<redis::Value> = self.link.pipe(&pipe).await?;
        let seen = answers.chunks_exact(2).map(|pair| {
            let ttl: i64 = redis::from_redis_value(pair[0].clone()).unwrap_or(-2);
            let said: (Option<String>, Option<String>) =
                redis::from_redis_value(pair[1].clone()).unwrap_or_default();
            Seen {
                // Keys that never expire are as silent as keys can be.
                ttl_ms: (ttl != -2).then(|| u64::try_from(ttl).unwrap_or(0)),
                status: said.0,
                message: said.1,
            }
        });
        Ok(seen.collect())
    }

    async fn await_link(&self, bound: Duration) {
        let mut state = self.link.watch();
        // Too late is an answer as well.
        let _ = timeout(bound, state.wait_for(|state| state.up)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Whose = Whose::Ours { is_shared: true };
    const FORGOTTEN: Whose = Whose::Ours { is_shared: false };

    /// `silent_s`: since the last heartbeat of anybody; `age_s`: since our own.
    #[track_caller]
    fn check(silent_s: Option<u64>, status: Option<&str>, age_s: u64, want: Whose) {
        let seen = Seen {
            ttl_ms: silent_s.map(|silent| (LIVE_TTL_S - silent) * 1000),
            status: status.map(str::to_owned),
            message: status.map(|_| "m".to_owned()),
        };
        let got = whose(&seen, age_s * 1000, true, true);
        assert_eq!(got, want, "{seen:?} {age_s}");
    }

    #[test]
    fn unfinished_tasks_are_ours_unless_others_were_seen_with_them() {
        check(Some(0), Some("ongoing"), 0, OURS);
        check(Some(40), Some("ongoing"), 41, OURS);
        check(Some(4000), Some("ongoing"), 4001, OURS);
        check(Some(10), Some("ongoing"), 60, Whose::Theirs);
        check(Some(149), Some("ongoing"), 1000, Whose::Theirs);
        check(Some(151), Some("ongoing"), 1000, OURS);
        let done = Whose::Ended(TaskState::Done, "m".into());
        check(Some(86_390), Some("success"), 1000, done);
        let failed = Whose::Ended(TaskState::Failed, "m".into());
        check(Some(86_390), Some("failure"), 1000, failed);
    }

    #[test]
    fn keys_that_are_gone_mean_an_end_only_where_redis_remembers() {
        let gone = Seen::default();
        let by_another = whose(&gone, SILENT_MS, true, true);
        assert!(matches!(by_another, Whose::Ended(TaskState::Done, _)));
        for (age_ms, remembers, was_shared) in [
            (SILENT_MS - 1, true, true),
            (SILENT_MS, false, true),
            (SILENT_MS, true, false),
        ] {
            assert_eq!(whose(&gone, age_ms, remembers, was_shared), FORGOTTEN);
        }
    }
}
