//! Goal: tasks are shared with other servers of the node identifier as the original shares them,
//! and none is lost or done twice when a process dies, another takes over, or Redis is away.
//! Method: store, bus, tasks and runner over a real Redis, ended and started again on the same
//! directory; other servers are played by commands.
#![allow(clippy::unwrap_used)]

#[path = "support/stage.rs"]
mod stage;

use std::time::Duration;

use proxy_core::id::TaskId;
use proxy_state::{TaskState, TaskStore};
use proxy_testkit::redis::RedisServer;
use proxy_testkit::wait;
use stage::{NODE, Stage};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

fn field(redis: &RedisServer, key: &str, field: &str) -> Option<String> {
    redis.command(7, &["HGET", key, field]).text()
}

fn ttl(redis: &RedisServer, key: &str) -> i64 {
    let text = redis.command(7, &["TTL", key]).text();
    text.unwrap().parse().unwrap()
}

fn members(redis: &RedisServer) -> Vec<String> {
    let key = format!("bgtask:server:{NODE}");
    redis.command(7, &["SMEMBERS", &key]).texts()
}

fn hex(id: TaskId) -> String {
    id.uuid().simple().to_string()
}

/// Name of the last broadcast about a task.
fn last(redis: &RedisServer, id: TaskId) -> Option<String> {
    let text = redis.command(4, &["GET", &format!("bgtask.{id}")]).text()?;
    let message: serde_json::Value = serde_json::from_str(&text).unwrap();
    Some(message["name"].as_str()?.to_owned())
}

fn until_last(redis: &RedisServer, id: TaskId, name: &str) {
    wait::until(name, SOON, || (last(redis, id)? == name).then_some(()));
}

/// What a server of the original leaves of a task.
fn plant(redis: &RedisServer, id: TaskId, name: &str, body: &str, ttl: u64) {
    let text = id.to_string();
    let (meta, subkey) = (format!("bgtask:meta:{id}"), format!("bgtask:subkey:{id}"));
    let subtask = format!("bgtask:subtask:{id}:__whole__");
    let server = format!("bgtask:server:{NODE}");
    let ttl = ttl.to_string();
    for words in [
        vec![
            "HSET",
            &meta,
            "task_id",
            &text,
            "task_name",
            name,
            "task_type",
            "single",
            "body",
            body,
            "ongoing_count",
            "1",
            "success_count",
            "0",
            "failure_count",
            "0",
        ],
        vec!["SADD", &subkey, "__whole__"],
        vec![
            "HSET",
            &subtask,
            "task_id",
            &text,
            "key",
            "__whole__",
            "status",
            "ongoing",
            "last_message",
            "",
        ],
        vec!["SADD", &server, &hex(id)],
        vec!["EXPIRE", &meta, &ttl],
        vec!["EXPIRE", &subkey, &ttl],
        vec!["EXPIRE", &subtask, &ttl],
    ] {
        redis.command(7, &words);
    }
}

/// How Redis shows a task that runs.
fn check_live(redis: &RedisServer, id: TaskId, keys: &[String; 3], what: &str) {
    let get = |name: &str| field(redis, &keys[0], name).unwrap();
    assert_eq!(get("task_id"), id.to_string());
    assert_eq!(get("task_name"), "delete_vfolder");
    assert_eq!(get("task_type"), "single");
    assert_eq!(
        get("body"),
        format!(r#"{{"volume":"v","do":"{what}","number":1}}"#)
    );
    assert_eq!(get("ongoing_count"), "1");
    assert_eq!(field(redis, &keys[2], "status").unwrap(), "ongoing");
    assert_eq!(field(redis, &keys[2], "last_message").unwrap(), "");
    assert_eq!(members(redis), [hex(id)]);
    assert!(keys.iter().all(|key| 86_390 < ttl(redis, key)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_task_is_the_originals() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let stage = Stage::start(&redis, dir.path()).await;
    wait::until("redis", SOON, || stage.bus.link().is_up().then_some(()));
    for (what, name, status, counts, message) in [
        (
            "wait",
            "bgtask_done",
            "success",
            ["0", "1", "0"],
            "Task completed successfully",
        ),
        (
            "fail",
            "bgtask_failed",
            "failure",
            ["0", "0", "1"],
            "Task failed with exception: boom",
        ),
        (
            "obey",
            "bgtask_cancelled",
            "failure",
            ["0", "0", "1"],
            "Task cancelled",
        ),
    ] {
        let id = stage.submit(what, 1).await;
        let keys = [
            format!("bgtask:meta:{id}"),
            format!("bgtask:subkey:{id}"),
            format!("bgtask:subtask:{id}:__whole__"),
        ];
        if what != "fail" {
            until_last(&redis, id, "bgtask_updated");
            check_live(&redis, id, &keys, what);
        }
        match what {
            "wait" => stage.puppet.gate.add_permits(1),
            "obey" => assert!(stage.runner.cancel(id)),
            _ => {}
        }
        until_last(&redis, id, name);
        let get = |name: &str| field(&redis, &keys[0], name).unwrap();
        let got = ["ongoing_count", "success_count", "failure_count"].map(get);
        assert_eq!(got, counts, "{what}");
        assert_eq!(field(&redis, &keys[2], "status").unwrap(), status);
        assert_eq!(field(&redis, &keys[2], "last_message").unwrap(), message);
        assert!(members(&redis).is_empty());
        for key in &keys {
            assert!((1..=60).contains(&ttl(&redis, key)), "{key}");
        }
        let is_idle = || (stage.tasks.stats().unsettled == 0).then_some(());
        wait::until("nothing is left", SOON, is_idle);
        assert_eq!(
            stage.tasks.stats(),
            proxy_fleet::tasks::TasksStats::default()
        );
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_original_server_left_is_taken_up_by_its_rule() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let ids: Vec<TaskId> = (0..6).map(|_| TaskId::random()).collect();
    let good = r#"{"volume":"v","do":"done","number":7}"#;
    plant(&redis, ids[0], "delete_vfolder", good, 500);
    plant(&redis, ids[1], "no_such_task", good, 500);
    plant(&redis, ids[2], "delete_vfolder", r#"{"volume":"v"}"#, 500);
    plant(&redis, ids[3], "delete_vfolder", good, 86_390);
    let dangling = hex(ids[4]);
    redis.command(7, &["SADD", &format!("bgtask:server:{NODE}"), &dangling]);
    plant(&redis, ids[5], "delete_vfolder", "no json", 500);
    let dir = TempDir::new().unwrap();
    let stage = Stage::start(&redis, dir.path()).await;
    until_last(&redis, ids[0], "bgtask_done");
    until_last(&redis, ids[2], "bgtask_failed");
    until_last(&redis, ids[5], "bgtask_failed");
    let unknown = format!("bgtask:subtask:{}:__whole__", ids[1]);
    let said = || field(&redis, &unknown, "last_message").filter(|said| !said.is_empty());
    let said = wait::until("the unknown one is marked", SOON, said);
    assert_eq!(said, "Task handler not registered: no_such_task");
    assert_eq!(field(&redis, &unknown, "status").unwrap(), "failure");
    assert_eq!(last(&redis, ids[1]), None);
    assert_eq!(last(&redis, ids[3]), None);
    assert_eq!(*stage.puppet.begun.lock(), [7]);
    let mut left = members(&redis);
    left.sort();
    let mut want = [hex(ids[1]), hex(ids[3]), dangling];
    want.sort();
    assert_eq!(left, want);
    assert_eq!(
        stage.tasks.get(ids[0]).await.unwrap().unwrap().state,
        TaskState::Done
    );
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_leaves_tasks_registered_and_the_next_start_goes_on() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let stage = Stage::start(&redis, dir.path()).await;
    let id = stage.submit("obey", 3).await;
    until_last(&redis, id, "bgtask_updated");
    stage.stop().await;
    assert_eq!(last(&redis, id).unwrap(), "bgtask_updated");
    assert_eq!(members(&redis), [hex(id)]);
    let stage = Stage::start(&redis, dir.path()).await;
    wait::until("it runs again", SOON, || {
        (!stage.puppet.begun.lock().is_empty()).then_some(())
    });
    assert_eq!(*stage.puppet.begun.lock(), [3]);
    assert!(stage.runner.cancel(id));
    until_last(&redis, id, "bgtask_cancelled");
    stage.stop().await;
}

/// After a stop with one task unfinished, `meanwhile` happens; wants whether the task is run.
async fn check_restart(meanwhile: impl FnOnce(&RedisServer, TaskId), runs: bool) {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let stage = Stage::start(&redis, dir.path()).await;
    let id = stage.submit("obey", 3).await;
    until_last(&redis, id, "bgtask_updated");
    stage.stop().await;
    meanwhile(&redis, id);
    let stage = Stage::start(&redis, dir.path()).await;
    assert_eq!(stage.runner.running() + stage.runner.queued() == 1, runs);
    if runs {
        stage.runner.cancel(id);
        until_last(&redis, id, "bgtask_cancelled");
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_task_is_run_at_once_unless_another_process_has_or_ended_it() {
    check_restart(|_, _| {}, true).await;
    // Redis forgot everything.
    check_restart(|redis, _| redis.flush(), true).await;
    // Another process ended it a moment ago.
    let ended = |redis: &RedisServer, id: TaskId| {
        let subtask = format!("bgtask:subtask:{id}:__whole__");
        redis.command(7, &["HSET", &subtask, "status", "success"]);
        redis.command(7, &["SREM", &format!("bgtask:server:{NODE}"), &hex(id)]);
    };
    check_restart(ended, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_another_process_lets_go_is_taken_back() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let stage = Stage::start(&redis, dir.path()).await;
    let id = stage.submit("obey", 3).await;
    until_last(&redis, id, "bgtask_updated");
    stage.stop().await;
    // Redis heard of us an hour ago, and of the task just now.
    let note = dir.path().join("tasks.beat");
    let beat: u64 = std::fs::read_to_string(&note).unwrap().parse().unwrap();
    std::fs::write(&note, format!("{:020}", beat - 3_600_000)).unwrap();
    let stage = Stage::start(&redis, dir.path()).await;
    assert_eq!(stage.tasks.stats().elsewhere, 1);
    assert_eq!(stage.runner.running() + stage.runner.queued(), 0);
    let meta = format!("bgtask:meta:{id}");
    redis.command(7, &["EXPIRE", &meta, "86200"]);
    wait::until("it is taken back", SOON, || {
        (stage.runner.running() == 1).then_some(())
    });
    assert_eq!(stage.tasks.stats().elsewhere, 0);
    stage.runner.cancel(id);
    until_last(&redis, id, "bgtask_cancelled");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_run_without_redis_and_are_told_when_it_is_back() {
    let Some(mut redis) = RedisServer::start() else {
        return;
    };
    let dir = TempDir::new().unwrap();
    redis.kill();
    let stage = Stage::start(&redis, dir.path()).await;
    let short = stage.submit("done", 1).await;
    let long = stage.submit("wait", 2).await;
    wait::until("both began", SOON, || {
        (stage.puppet.begun.lock().len() == 2).then_some(())
    });
    let only_one = || (stage.tasks.stats().unshared == 1).then_some(());
    wait::until("the short one has ended", SOON, only_one);
    redis.restart();
    until_last(&redis, short, "bgtask_done");
    wait::until("the other is told", SOON, || {
        (members(&redis) == [hex(long)]).then_some(())
    });
    // Emptied: the next heartbeat tells it again.
    redis.flush();
    wait::until("it is told again", SOON, || {
        (members(&redis) == [hex(long)]).then_some(())
    });
    stage.puppet.gate.add_permits(1);
    until_last(&redis, long, "bgtask_done");
    assert!(members(&redis).is_empty());
    stage.stop().await;
}
