//! The original's keys about tasks, and the pipelines that change them.
//!
//! Laws
//! - Key names, members, order and times to live are the original's, to the byte.
//! - Groups of commands are pipelines without MULTI, as the original sends them.
//!
//! Source: contract, background tasks 3 and 4.

use proxy_core::id::TaskId;
use redis::{Cmd, Pipeline, Script};

use super::End;

/// The sub-task of a task that is one piece.
pub(super) const WHOLE: &str = "__whole__";
/// How long the keys of a live task stay without a heartbeat, in seconds.
pub(super) const LIVE_TTL_S: u64 = 86_400;
/// How long they stay after the task has ended, in seconds.
const ENDED_TTL_S: u64 = 60;
/// Without a heartbeat for five minutes a task is abandoned.
const STALE_BELOW_S: u64 = LIVE_TTL_S - 300;

/// The key names of one node identifier.
pub(super) struct Keys {
    pub(super) server: String,
    /// Ours: there as long as Redis remembers that we had tasks. Tells a task that somebody ended
    /// from a Redis that was emptied.
    pub(super) memory: String,
    classify: Script,
}

/// What the original's rule says of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its keys are gone.
    Missing,
    /// Its keys never expire: nobody's.
    Eternal,
    /// Somebody had it within five minutes.
    Alive,
    /// Nobody has it. Now we do.
    Stale,
}

pub(super) fn meta(id: TaskId) -> String {
    format!("bgtask:meta:{id}")
}

pub(super) fn subkeys(id: TaskId) -> String {
    format!("bgtask:subkey:{id}")
}

pub(super) fn subtask(id: TaskId, subkey: &str) -> String {
    format!("bgtask:subtask:{id}:{subkey}")
}

fn member(id: TaskId) -> String {
    id.uuid().simple().to_string()
}

impl Keys {
    pub(super) fn new(node_id: &str) -> Self {
        // Refreshed in the same step: of several that ask, one is told that the task is stale.
        let classify = Script::new(
            r"local ttl = redis.call('TTL', KEYS[1])
if ttl == -2 then return 'missing' end
redis.call('EXPIRE', KEYS[1], ARGV[2])
if ttl == -1 then return 'eternal' end
if ttl < tonumber(ARGV[1]) then return 'stale' end
return 'alive'",
        );
        Self {
            server: format!("bgtask:server:{node_id}"),
            memory: format!("storage-proxy:tasks:{node_id}"),
            classify,
        }
    }

    /// A new task.
    pub(super) fn register(&self, id: TaskId, name: &str, body: &str) -> Pipeline {
        let mut pipe = Pipeline::new();
        let (meta, subkeys, subtask) = (meta(id), subkeys(id), subtask(id, WHOLE));
        let text = id.to_string();
        pipe.cmd("HSET").arg(&meta).arg("task_id").arg(&text);
        pipe.arg("task_name")
            .arg(name)
            .arg("task_type")
            .arg("single");
        pipe.arg("body").arg(body).arg("ongoing_count").arg(1);
        pipe.arg("success_count").arg(0).arg("failure_count").arg(0);
        pipe.cmd("EXPIRE").arg(&meta).arg(LIVE_TTL_S);
        pipe.cmd("SADD").arg(&subkeys).arg(WHOLE);
        pipe.cmd("EXPIRE").arg(&subkeys).arg(LIVE_TTL_S);
        pipe.cmd("HSET").arg(&subtask).arg("task_id").arg(&text);
        pipe.arg("key").arg(WHOLE).arg("status").arg("ongoing");
        pipe.arg("last_message").arg("");
        pipe.cmd("EXPIRE").arg(&subtask).arg(LIVE_TTL_S);
        self.own(&mut pipe, id);
        pipe
    }

    /// A task that is taken over belongs to this server again.
    pub(super) fn own(&self, pipe: &mut Pipeline, id: TaskId) {
        pipe.cmd("SADD").arg(&self.server).arg(member(id));
        pipe.cmd("EXPIRE").arg(&self.server).arg(LIVE_TTL_S);
    }

    /// Redis remembers from now on that there are tasks of ours.
    pub(super) fn remember(&self, pipe: &mut Pipeline, now_ms: u64) {
        pipe.cmd("SET").arg(&self.memory).arg(now_ms);
        pipe.arg("EX").arg(LIVE_TTL_S);
    }

    /// One heartbeat; the answers begin with one per task, 0 where its keys are gone.
    pub(super) fn heartbeat(&self, live: &[(TaskId, String)]) -> Pipeline {
        let mut pipe = Pipeline::new();
        let mut expire = |key: String| {
            pipe.cmd("EXPIRE").arg(key).arg(LIVE_TTL_S);
        };
        live.iter().for_each(|(id, _)| expire(meta(*id)));
        live.iter().for_each(|(id, _)| expire(subkeys(*id)));
        live.iter()
            .for_each(|(id, subkey)| expire(subtask(*id, subkey)));
        expire(self.server.clone());
        pipe
    }

    /// What the original's rule says of a task, which is ours then if it is stale.
    pub(super) fn classify(&self, id: TaskId) -> redis::ScriptInvocation<'_> {
        let mut script = self.classify.prepare_invoke();
        script.key(meta(id)).arg(STALE_BELOW_S).arg(LIVE_TTL_S);
        script
    }

    /// A task is nobody's any more; its keys stay for a moment.
    pub(super) fn unregister(&self, id: TaskId, subtasks: &[String]) -> Pipeline {
        let mut pipe = Pipeline::new();
        pipe.cmd("EXPIRE").arg(meta(id)).arg(ENDED_TTL_S);
        pipe.cmd("EXPIRE").arg(subkeys(id)).arg(ENDED_TTL_S);
        for subkey in subtasks {
            pipe.cmd("EXPIRE").arg(subtask(id, subkey)).arg(ENDED_TTL_S);
        }
        pipe.cmd("SREM").arg(&self.server).arg(member(id));
        pipe
    }

    pub(super) fn candidates(&self) -> Cmd {
        let mut cmd = redis::cmd("SMEMBERS");
        cmd.arg(&self.server);
        cmd
    }
}

/// How a sub-task ended.
pub(super) fn finish(id: TaskId, subkey: &str, end: &End) -> Pipeline {
    let (status, count) = if end.is_success {
        ("success", "success_count")
    } else {
        ("failure", "failure_count")
    };
    let mut pipe = Pipeline::new();
    pipe.cmd("HSET")
        .arg(subtask(id, subkey))
        .arg("status")
        .arg(status);
    pipe.arg("last_message").arg(&end.message);
    pipe.cmd("HINCRBY").arg(meta(id)).arg(count).arg(1);
    pipe.cmd("HINCRBY")
        .arg(meta(id))
        .arg("ongoing_count")
        .arg(-1);
    pipe
}

/// The answer of [`Keys::classify`].
pub(super) fn found(answer: &str) -> Found {
    match answer {
        "stale" => Found::Stale,
        "alive" => Found::Alive,
        "eternal" => Found::Eternal,
        _ => Found::Missing,
    }
}
