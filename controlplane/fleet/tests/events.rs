//! Goal: events reach the stream and the channel once Redis is there, in order, none lost, and
//! never faster than the Manager reads.
//! Method: a bus over a real Redis that is killed and read; the outbox is opened again as a new
//! process would.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use proxy_core::id::{TaskId, VFolderId};
use proxy_fleet::events::{BusOptions, EventBus};
use proxy_fleet::frame::CHANNEL;
use proxy_fleet::link::{Address, Link, Target, subscribe};
use proxy_state::{Event, EventSink};
use proxy_testkit::redis::{RedisServer, Reply};
use proxy_testkit::wait;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(20);

fn link(redis: &RedisServer) -> Link {
    let (host, port) = ("127.0.0.1".to_owned(), redis.port());
    Link::open(Target::plain(Address { host, port }), 4, "stream")
}

/// A bus at work; aborting the handle is its death.
fn bus(redis: &RedisServer, dir: &TempDir, options: BusOptions) -> (EventBus, JoinHandle<()>) {
    let bus = EventBus::open(link(redis), dir.path(), options).unwrap();
    let running = tokio::spawn(bus.clone().run());
    (bus, running)
}

fn folder(number: usize) -> VFolderId {
    VFolderId::parse(&format!("{number:032x}")).unwrap()
}

fn deleted(number: usize) -> Event {
    let vfid = folder(number);
    Event::VFolderDeleted { vfid }
}

/// `(name, last two digits of the folder)` of all entries of the stream.
fn stream(redis: &RedisServer) -> Vec<(String, String)> {
    let Reply::List(entries) = redis.command(4, &["XRANGE", "events", "-", "+"]) else {
        return Vec::new();
    };
    entries.iter().map(entry).collect()
}

fn entry(entry: &Reply) -> (String, String) {
    let Reply::List(parts) = entry else {
        panic!("{entry:?}");
    };
    let fields = parts[1].texts();
    let at = |name: &str| fields.iter().position(|field| field == name).unwrap();
    let payload: Value = serde_json::from_str(&fields[at("payload") + 1]).unwrap();
    let vfid = payload["vfid"].as_str().unwrap();
    (fields[at("name") + 1].clone(), vfid[28..].to_owned())
}

fn done(task: TaskId) -> Event {
    let message = "Task completed successfully".to_owned();
    Event::TaskDone { task, message }
}

fn updated(task: TaskId, current: u64) -> Event {
    Event::TaskUpdated {
        task,
        current,
        total: 9,
        message: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_task_come_in_order_and_the_last_is_kept_for_late_comers() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let (bus, _running) = bus(&redis, &dir, BusOptions::default());
    let link = link(&redis);
    let mut heard = subscribe(&link, CHANNEL, 100);
    wait::until("someone listens", SOON, || {
        let count = redis.command(4, &["PUBSUB", "NUMSUB", CHANNEL]).texts();
        (count.get(1).map(String::as_str) == Some("1")).then_some(())
    });
    let task = TaskId::random();
    bus.emit_for(updated(task, 0), Some("req-9"));
    bus.emit_for(deleted(1), Some("req-9"));
    let last = done(task);
    bus.secure(&last, Some("req-9")).await;
    bus.emit_for(last, Some("req-9"));
    wait::until("redis", SOON, || bus.link().is_up().then_some(()));
    assert!(bus.flush(SOON).await);
    let mut names = Vec::new();
    while names.len() < 2 {
        let message = tokio::time::timeout(SOON, heard.recv())
            .await
            .unwrap()
            .unwrap();
        let message: Value = serde_json::from_slice(&message).unwrap();
        assert_eq!(message["metadata"], r#"{"request_id":"req-9","user":null}"#);
        names.push(message["name"].as_str().unwrap().to_owned());
    }
    assert_eq!(names, ["bgtask_updated", "bgtask_done"]);
    let name = "vfolder_deletion_success".to_owned();
    assert_eq!(stream(&redis), [(name, "0001".to_owned())]);
    let key = format!("bgtask.{task}");
    let cached = redis.command(4, &["GET", &key]).text().unwrap();
    assert!(cached.starts_with(r#"{"name":"bgtask_done","source":"storage","args":""#));
    let ttl: u64 = redis
        .command(4, &["TTL", &key])
        .text()
        .unwrap()
        .parse()
        .unwrap();
    assert!((290..=300).contains(&ttl), "{ttl}");
    assert_eq!(
        redis.command(4, &["XINFO", "GROUPS", "events"]),
        Reply::List(vec![])
    );
    let stats = bus.stats();
    assert_eq!((stats.sent, stats.spooled, stats.dropped), (3, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_must_arrive_is_lost_while_redis_or_the_process_is_away() {
    let Some(mut redis) = RedisServer::start() else {
        return;
    };
    let dir = TempDir::new().unwrap();
    redis.kill();
    let tasks: Vec<TaskId> = (0..3).map(|_| TaskId::random()).collect();
    let (first, running) = bus(&redis, &dir, BusOptions::default());
    for number in 0..50 {
        first.emit(deleted(number));
    }
    // Recorded as ended, recorded as unfinished, and ended with everything said.
    first.secure(&done(tasks[0]), None).await;
    first.secure(&done(tasks[1]), None).await;
    first.secure(&done(tasks[2]), None).await;
    first.emit(done(tasks[2]));
    assert!(!first.flush(Duration::from_millis(1)).await);
    running.abort();
    drop(first);

    let (second, _running) = bus(&redis, &dir, BusOptions::default());
    second.resume(&[tasks[1]]);
    second.emit(deleted(50));
    redis.restart();
    wait::until("all is sent", SOON, || {
        (second.stats().spooled == 0).then_some(())
    });
    let want: Vec<String> = (0..=50).map(|number| format!("{number:04x}")).collect();
    let got: Vec<String> = stream(&redis)
        .into_iter()
        .map(|(_, folder)| folder)
        .collect();
    assert_eq!(got, want);
    for (task, is_said) in tasks.iter().zip([true, false, true]) {
        let cached = redis.command(4, &["GET", &format!("bgtask.{task}")]);
        assert_eq!(cached.text().is_some(), is_said, "{task}");
    }
    assert_eq!(second.stats().replayed, 52);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mass_of_events_waits_for_the_manager_to_read() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let dir = TempDir::new().unwrap();
    redis.command(
        4,
        &["XGROUP", "CREATE", "events", "manager", "$", "MKSTREAM"],
    );
    let (bus, _running) = bus(&redis, &dir, BusOptions::default());
    const ALL: usize = 700;
    for number in 0..ALL {
        bus.emit(deleted(number));
    }
    wait::until("the stream is full", SOON, || {
        let len = redis.command(4, &["XLEN", "events"]).text()?;
        (len == "128").then_some(())
    });
    let mut seen = BTreeSet::new();
    while seen.len() < ALL {
        let words = [
            "XREADGROUP",
            "GROUP",
            "manager",
            "c",
            "COUNT",
            "64",
            "STREAMS",
            "events",
            ">",
        ];
        let Reply::List(streams) = redis.command(4, &words) else {
            continue;
        };
        let Reply::List(parts) = &streams[0] else {
            continue;
        };
        let Reply::List(entries) = &parts[1] else {
            continue;
        };
        for read in entries {
            let Reply::List(parts) = read else { continue };
            seen.insert(entry(read).1);
            let id = parts[0].text().unwrap();
            redis.command(4, &["XACK", "events", "manager", &id]);
        }
    }
    assert!(bus.flush(SOON).await);
    let stats = bus.stats();
    assert_eq!(
        (stats.sent, stats.forced, stats.dropped),
        (ALL as u64, 0, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_never_reads_is_waited_for_only_so_long() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let dir = TempDir::new().unwrap();
    redis.command(
        4,
        &["XGROUP", "CREATE", "events", "manager", "$", "MKSTREAM"],
    );
    let options = BusOptions {
        lag_wait: Duration::from_millis(300),
        ..BusOptions::default()
    };
    let (bus, _running) = bus(&redis, &dir, options);
    for number in 0..132 {
        bus.emit(deleted(number));
    }
    let task = TaskId::random();
    bus.emit(updated(task, 1));
    wait::until("redis", SOON, || bus.link().is_up().then_some(()));
    assert!(bus.flush(SOON).await);
    assert_eq!(bus.stats().forced, 4);
    assert!(
        redis
            .command(4, &["GET", &format!("bgtask.{task}")])
            .text()
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_merged_and_bounded_while_redis_is_away() {
    let Some(mut redis) = RedisServer::start() else {
        return;
    };
    let dir = TempDir::new().unwrap();
    redis.kill();
    let options = BusOptions {
        passing_max: 10,
        ..BusOptions::default()
    };
    let (bus, _running) = bus(&redis, &dir, options);
    let task = TaskId::random();
    for current in 0..9 {
        bus.emit(updated(task, current));
    }
    assert_eq!((bus.stats().passing, bus.stats().dropped), (2, 7));
    for _ in 0..20 {
        bus.emit(updated(TaskId::random(), 0));
    }
    assert_eq!((bus.stats().passing, bus.stats().spooled), (10, 0));
    bus.emit(updated(task, 9));
    redis.restart();
    wait::until("all is sent", SOON, || {
        (bus.stats().passing == 0).then_some(())
    });
    let cached = redis
        .command(4, &["GET", &format!("bgtask.{task}")])
        .text()
        .unwrap();
    assert!(cached.contains(r#"\"current_progress\":9.0"#), "{cached}");
}
