//! Goal: the promises of `Runner`, as an outsider sees them.
//! Method: handlers that do as they are told, and a task store in memory that can be made to fail;
//! where time matters the clock is paused. What has to survive a restart is tested on the real
//! store.
#![allow(clippy::unwrap_used)]

#[path = "support/memory.rs"]
mod memory;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use memory::MemoryStore;
use parking_lot::Mutex;
use proxy_core::id::{TaskId, VFolderId};
use proxy_state::{
    EmbeddedStore, Event, Handler, Outcome, RecordSink, Runner, RunnerOptions, StateError,
    StopReason, StoreOptions, SubmitError, TaskContext, TaskError, TaskRecord, TaskState,
    TaskStore,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Longest wait for anything that should happen at once.
const SOON: Duration = Duration::from_secs(20);
const STARTED: &str = "bgtask_updated";
const OWN: &str = "vfolder_deletion_success";
const LAST_WORDS: &str = "vfolder_deletion_failure";

/// Does what the body says; `{"do": …}`.
struct Puppet {
    /// `wait` waits for a permit here.
    gate: Arc<Semaphore>,
    running: AtomicUsize,
    running_max: AtomicUsize,
    begun: Mutex<Vec<(Value, u32)>>,
}

fn vfid() -> VFolderId {
    VFolderId::parse("aabbccddeeff00112233445566778899").unwrap()
}

#[async_trait]
impl Handler for Puppet {
    fn name(&self) -> &'static str {
        "puppet"
    }

    async fn run(&self, body: &Value, ctx: TaskContext) -> Result<Outcome, TaskError> {
        self.begun.lock().push((body.clone(), ctx.attempt()));
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.running_max.fetch_max(running, Ordering::SeqCst);
        let outcome = self.act(body, &ctx).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    fn last_words(&self, _: &Value, why: &str) -> Vec<Event> {
        vec![Event::VFolderDeleteFailed {
            vfid: vfid(),
            message: why.to_owned(),
        }]
    }
}

impl Puppet {
    async fn act(&self, body: &Value, ctx: &TaskContext) -> Result<Outcome, TaskError> {
        match body["do"].as_str().unwrap() {
            "done" => {
                ctx.emit(Event::VFolderDeleted { vfid: vfid() });
                Ok(Outcome::Done)
            }
            "result" => Ok(Outcome::DoneWith("42".into())),
            "partly" => Ok(Outcome::PartlyDone(vec!["e1".into(), "e2".into()])),
            "fail" => Err(TaskError::Failed("no such folder".into())),
            "long" => Err(TaskError::Failed("x".repeat(9000))),
            "stop" => Err(TaskError::Stopped),
            "panic" => std::panic::resume_unwind(Box::new("on purpose")),
            "wait" => {
                self.gate.acquire().await.unwrap().forget();
                Ok(Outcome::Done)
            }
            "obey" => {
                ctx.stop().wanted().await;
                Err(TaskError::Stopped)
            }
            "defy" => std::future::pending().await,
            other => panic!("{other}"),
        }
    }
}

struct Stage {
    runner: Runner,
    puppet: Arc<Puppet>,
    sink: Arc<RecordSink>,
    store: Arc<dyn TaskStore>,
}

async fn stage(store: Arc<dyn TaskStore>, options: RunnerOptions) -> Stage {
    let puppet = Arc::new(Puppet {
        gate: Arc::new(Semaphore::new(0)),
        running: AtomicUsize::new(0),
        running_max: AtomicUsize::new(0),
        begun: Mutex::default(),
    });
    let sink = Arc::new(RecordSink::default());
    let handlers = [Arc::clone(&puppet) as Arc<dyn Handler>];
    let runner = Runner::start(
        Arc::clone(&store),
        Arc::clone(&sink) as _,
        handlers,
        options,
    )
    .await
    .unwrap();
    Stage {
        runner,
        puppet,
        sink,
        store,
    }
}

impl Stage {
    async fn submit(&self, what: &str, key: &str) -> TaskId {
        self.runner
            .submit("puppet", json!({ "do": what }), key)
            .await
            .unwrap()
    }

    /// Waits until `count` last events were sent.
    async fn ends(&self, count: usize) {
        let is_last = |event: &&Event| event.task().is_some() && event.name() != STARTED;
        let until = self
            .sink
            .until(|events| count <= events.iter().filter(is_last).count());
        tokio::time::timeout(SOON, until)
            .await
            .expect("tasks end soon");
    }

    /// Waits until `count` tasks were begun.
    async fn begins(&self, count: usize) {
        let is_start = |event: &&Event| event.name() == STARTED;
        let until = self
            .sink
            .until(|events| count <= events.iter().filter(is_start).count());
        tokio::time::timeout(SOON, until)
            .await
            .expect("tasks begin soon");
    }

    async fn record(&self, id: TaskId) -> TaskRecord {
        self.store.get(id).await.unwrap().unwrap()
    }
}

fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::default())
}

/// Runs one task; wants its events by name, its end, and its last message.
async fn check_end(what: &str, events: &[&str], state: TaskState, message: &str) {
    let stage = stage(memory(), RunnerOptions::default()).await;
    let id = stage.submit(what, "local").await;
    stage.ends(1).await;
    assert_eq!(stage.sink.names(), events, "{what}");
    let record = stage.record(id).await;
    assert_eq!(record.state, state, "{what}");
    assert_eq!(record.message.as_deref(), Some(message), "{what}");
    assert!(record.finished_ms.is_some(), "{what}");
    let (said, errors) = match stage.sink.events().pop().unwrap() {
        Event::TaskDone { message, .. }
        | Event::TaskFailed { message, .. }
        | Event::TaskCancelled { message, .. } => (message, Vec::new()),
        Event::TaskPartlyDone {
            message, errors, ..
        } => (message, errors),
        other => panic!("{other:?}"),
    };
    assert_eq!(said, message, "{what}");
    assert_eq!(!errors.is_empty(), state == TaskState::PartlyDone, "{what}");
}

#[tokio::test]
async fn a_task_ends_as_its_handler_says() {
    let done = "Task completed successfully";
    check_end(
        "done",
        &[STARTED, OWN, "bgtask_done"],
        TaskState::Done,
        done,
    )
    .await;
    check_end("result", &[STARTED, "bgtask_done"], TaskState::Done, "42").await;
    let partly = "bgtask_partial_success";
    check_end(
        "partly",
        &[STARTED, partly],
        TaskState::PartlyDone,
        "errors: e1\ne2",
    )
    .await;
    let failed = "bgtask_failed";
    check_end(
        "fail",
        &[STARTED, failed],
        TaskState::Failed,
        "no such folder",
    )
    .await;
    check_end(
        "long",
        &[STARTED, failed],
        TaskState::Failed,
        &"x".repeat(1023),
    )
    .await;
    let failed = [STARTED, LAST_WORDS, "bgtask_failed"];
    check_end(
        "panic",
        &failed,
        TaskState::Failed,
        "Task failed: internal error",
    )
    .await;
    check_end(
        "stop",
        &failed,
        TaskState::Failed,
        "Task stopped without being told to",
    )
    .await;
}

#[tokio::test]
async fn the_first_event_says_that_the_task_started() {
    let stage = stage(memory(), RunnerOptions::default()).await;
    let task = stage.submit("done", "local").await;
    stage.ends(1).await;
    let message = Some("Task started".to_owned());
    let want = Event::TaskUpdated {
        task,
        current: 0,
        total: 0,
        message,
    };
    assert_eq!(stage.sink.events()[0], want);
}

#[tokio::test]
async fn events_of_a_task_name_its_request_and_its_last_one_is_secured() {
    let stage = stage(memory(), RunnerOptions::default()).await;
    for (what, last) in [("done", "bgtask_done"), ("panic", "bgtask_failed")] {
        let body = json!({ "do": what });
        let submitted = stage
            .runner
            .submit_for("puppet", body, "local", Some("req-1"));
        let id = submitted.await.unwrap();
        let before = stage.sink.secured().len();
        stage.ends(before.max(1)).await;
        let ended = |events: &[Event]| events.iter().any(|e| e.name() == last);
        let until = stage.sink.until(ended);
        tokio::time::timeout(SOON, until).await.unwrap();
        let secured = stage.sink.secured();
        assert_eq!(secured.last(), stage.sink.events().last(), "{what}");
        assert_eq!(stage.record(id).await.request_id.as_deref(), Some("req-1"));
    }
    let requests = stage.sink.requests();
    assert_eq!(requests.len(), 6);
    assert!(requests.iter().all(|id| id.as_deref() == Some("req-1")));
}

#[tokio::test]
async fn a_task_of_somebody_else_is_adopted_once() {
    let stage = stage(memory(), RunnerOptions::default()).await;
    let waits = TaskRecord::new("puppet", json!({"do": "wait"}), "local", 1);
    assert_eq!(stage.runner.adopt(waits.clone()).await, Ok(true));
    stage.begins(1).await;
    assert_eq!(stage.runner.adopt(waits.clone()).await, Ok(false));
    stage.puppet.gate.add_permits(1);
    stage.ends(1).await;
    assert_eq!(
        stage.runner.adopt(waits.clone()).await,
        Ok(false),
        "it has ended"
    );
    assert_eq!(stage.record(waits.id).await.state, TaskState::Done);
    let nobody = TaskRecord::new("nobody", json!({}), "local", 1);
    let unknown = SubmitError::UnknownHandler("nobody".into());
    assert_eq!(stage.runner.adopt(nobody).await, Err(unknown));
    // On record already, and left alone until now.
    let left = TaskRecord::new("puppet", json!({"do": "done"}), "local", 1);
    stage.store.register(left.clone()).await.unwrap();
    assert_eq!(stage.runner.adopt(left.clone()).await, Ok(true));
    stage.ends(2).await;
    assert_eq!(stage.record(left.id).await.state, TaskState::Done);
    assert_eq!(stage.runner.shutdown(SOON).await, 0);
    assert_eq!(stage.runner.queued(), 0);
    assert_eq!(stage.runner.adopt(left).await, Err(SubmitError::Stopping));
}

#[tokio::test]
async fn nothing_runs_before_it_is_on_record() {
    let store = memory();
    let stage = stage(Arc::clone(&store) as _, RunnerOptions::default()).await;
    store.fail(true);
    let got = stage
        .runner
        .submit("puppet", json!({"do": "done"}), "local")
        .await;
    assert!(matches!(got, Err(SubmitError::Store(_))), "{got:?}");
    store.fail(false);
    let id = stage.submit("done", "local").await;
    stage.ends(1).await;
    assert_eq!(stage.puppet.begun.lock().len(), 1);
    assert_eq!(store.calls(id), ["register", "begin", "end"]);
    assert_eq!(stage.runner.queued(), 0);
}

#[tokio::test]
async fn a_name_without_handler_is_refused() {
    let stage = stage(memory(), RunnerOptions::default()).await;
    let got = stage.runner.submit("nobody", json!({}), "local").await;
    assert_eq!(got, Err(SubmitError::UnknownHandler("nobody".into())));
    assert_eq!(stage.store.recent(10).await.unwrap(), []);
}

#[tokio::test]
async fn a_recorded_name_without_handler_fails_and_stays_visible() {
    let store = memory();
    let task = TaskRecord::new("nobody", json!({}), "local", 1);
    let id = task.id;
    store.register(task).await.unwrap();
    let stage = stage(store, RunnerOptions::default()).await;
    stage.ends(1).await;
    assert_eq!(stage.sink.names(), ["bgtask_failed"]);
    let record = stage.record(id).await;
    assert_eq!(record.state, TaskState::Failed);
    assert_eq!(
        record.message.as_deref(),
        Some("Task handler not registered: nobody")
    );
}

#[tokio::test]
async fn tasks_are_bounded_overall_and_per_key() {
    for (running_max, running_per_key_max, want) in [(1, 1, 1), (4, 1, 3), (4, 2, 4), (99, 99, 30)]
    {
        let options = RunnerOptions {
            running_max,
            running_per_key_max,
            ..RunnerOptions::default()
        };
        let stage = stage(memory(), options).await;
        for at in 0..30 {
            stage.submit("wait", ["a", "b", "c"][at % 3]).await;
        }
        stage.begins(want).await;
        assert_eq!(stage.runner.running(), want);
        assert_eq!(stage.runner.queued(), 30 - want);
        stage.puppet.gate.add_permits(30);
        stage.ends(30).await;
        assert_eq!(stage.puppet.running_max.load(Ordering::SeqCst), want);
        // The last place is given back a moment after the last event.
        assert_eq!(stage.runner.shutdown(SOON).await, 0);
        assert_eq!((stage.runner.running(), stage.runner.queued()), (0, 0));
    }
}

#[tokio::test]
async fn too_many_waiting_tasks_are_refused() {
    let options = RunnerOptions {
        running_max: 1,
        queued_max: 2,
        ..RunnerOptions::default()
    };
    let stage = stage(memory(), options).await;
    stage.submit("wait", "a").await;
    stage.begins(1).await;
    stage.submit("wait", "a").await;
    stage.submit("wait", "a").await;
    let got = stage
        .runner
        .submit("puppet", json!({"do": "wait"}), "a")
        .await;
    assert_eq!(got, Err(SubmitError::Full));
    assert_eq!(stage.store.recent(10).await.unwrap().len(), 3);
    stage.puppet.gate.add_permits(1);
    stage.begins(2).await;
    stage.submit("wait", "a").await;
}

#[tokio::test]
async fn a_submit_whose_caller_goes_away_is_carried_through() {
    let stage = stage(memory(), RunnerOptions::default()).await;
    tokio::select! {
        biased;
        got = stage.runner.submit("puppet", json!({"do": "done"}), "local") => panic!("{got:?}"),
        () = std::future::ready(()) => {} // Polled once, then dropped.
    }
    stage.ends(1).await;
    assert_eq!(stage.sink.names(), [STARTED, OWN, "bgtask_done"]);
}

#[tokio::test]
async fn a_waiting_task_can_be_cancelled() {
    let options = RunnerOptions {
        running_max: 1,
        ..RunnerOptions::default()
    };
    let stage = stage(memory(), options).await;
    stage.submit("wait", "a").await;
    let id = stage.submit("done", "a").await;
    assert!(stage.runner.cancel(id));
    stage.ends(1).await;
    assert_eq!(
        stage.sink.names(),
        [STARTED, LAST_WORDS, "bgtask_cancelled"]
    );
    let record = stage.record(id).await;
    assert_eq!(record.state, TaskState::Cancelled);
    assert_eq!(record.message.as_deref(), Some("Task cancelled"));
    assert!(!stage.runner.cancel(id));
    assert!(!stage.runner.cancel(TaskId::random()));
    stage.puppet.gate.add_permits(1);
    stage.ends(2).await;
}

#[tokio::test]
async fn a_running_task_can_be_cancelled() {
    let stage = stage(memory(), RunnerOptions::default()).await;
    let id = stage.submit("obey", "a").await;
    stage.begins(1).await;
    assert!(stage.runner.cancel(id));
    stage.ends(1).await;
    assert_eq!(
        stage.sink.names(),
        [STARTED, LAST_WORDS, "bgtask_cancelled"]
    );
    assert_eq!(stage.record(id).await.state, TaskState::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_at_most_twice_a_second() {
    struct Counter;
    #[async_trait]
    impl Handler for Counter {
        fn name(&self) -> &'static str {
            "count"
        }
        async fn run(&self, _: &Value, ctx: TaskContext) -> Result<Outcome, TaskError> {
            // 2 s of work in steps of 10 ms, then silence.
            let mut clock = tokio::time::interval(Duration::from_millis(10));
            for step in 1..=200 {
                clock.tick().await;
                ctx.progress(step, 200, Some("counting"));
            }
            tokio::time::timeout(Duration::from_secs(5), ctx.stop().wanted())
                .await
                .ok();
            Ok(Outcome::Done)
        }
    }
    let (store, sink) = (memory(), Arc::new(RecordSink::default()));
    let handlers = [Arc::new(Counter) as Arc<dyn Handler>];
    let runner = Runner::start(
        Arc::clone(&store) as _,
        Arc::clone(&sink) as _,
        handlers,
        RunnerOptions::default(),
    );
    let runner = runner.await.unwrap();
    let id = runner.submit("count", json!({}), "a").await.unwrap();
    sink.until(|events| {
        events
            .last()
            .is_some_and(|event| event.name() == "bgtask_done")
    })
    .await;
    let steps: Vec<_> = sink
        .events()
        .iter()
        .filter_map(|event| match event {
            Event::TaskUpdated {
                current,
                total: 200,
                ..
            } => Some(*current),
            _ => None,
        })
        .collect();
    assert_eq!(steps.len(), 5, "2 s of work: {steps:?}");
    assert!(steps.is_sorted(), "{steps:?}");
    // The last one is told although nothing follows.
    assert_eq!((steps[0], steps[4]), (1, 200), "{steps:?}");
    let progress = store.get(id).await.unwrap().unwrap().progress.unwrap();
    assert_eq!((progress.current, progress.total), (200, 200));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_a_while_delays_a_task() {
    let store = memory();
    let options = RunnerOptions {
        running_max: 1,
        ..RunnerOptions::default()
    };
    let stage = stage(Arc::clone(&store) as _, options).await;
    stage.submit("wait", "a").await;
    let id = stage.submit("done", "a").await;
    stage.begins(1).await;
    store.fail(true);
    stage.puppet.gate.add_permits(1);
    // The first ends without being recorded, the second cannot begin.
    stage.ends(1).await;
    store.until_failed(id).await;
    assert_eq!(stage.puppet.begun.lock().len(), 1);
    store.fail(false);
    stage.ends(2).await;
    assert_eq!(stage.runner.shutdown(SOON).await, 0);
    for task in stage.store.recent(10).await.unwrap() {
        assert_eq!(
            task.state,
            TaskState::Done,
            "also the one that could not be recorded"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_tasks_end_within_the_grace() {
    let stage = stage(memory(), RunnerOptions::default()).await;
    let id = stage.submit("wait", "a").await;
    stage.begins(1).await;
    let runner = stage.runner.clone();
    let shutdown = tokio::spawn(async move { runner.shutdown(SOON).await });
    tokio::task::yield_now().await;
    let late = stage
        .runner
        .submit("puppet", json!({"do": "done"}), "a")
        .await;
    assert_eq!(late, Err(SubmitError::Stopping));
    stage.puppet.gate.add_permits(1);
    assert_eq!(shutdown.await.unwrap(), 0);
    assert_eq!(stage.record(id).await.state, TaskState::Done);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_leaves_the_rest_on_record_in_silence() {
    let options = RunnerOptions {
        running_per_key_max: 2,
        ..RunnerOptions::default()
    };
    let stage = stage(memory(), options).await;
    let obeys = stage.submit("obey", "a").await;
    let defies = stage.submit("defy", "a").await;
    let waits = stage.submit("done", "a").await;
    stage.begins(2).await;
    assert_eq!(stage.runner.shutdown(Duration::from_secs(1)).await, 3);
    assert_eq!(stage.sink.names(), [STARTED, STARTED]);
    for (id, state, attempts) in [
        (obeys, TaskState::Registered, 0),
        (defies, TaskState::Running, 1),
        (waits, TaskState::Registered, 0),
    ] {
        let record = stage.record(id).await;
        assert_eq!(
            (record.state, record.attempts),
            (state, attempts),
            "{record:?}"
        );
    }
    assert_eq!(stage.store.unfinished().await.unwrap().len(), 3);
    assert_eq!(stage.runner.running(), 0);
}

#[tokio::test]
async fn a_cancel_outweighs_a_shutdown() {
    let (switch, stop) = proxy_state::Stop::pair();
    assert_eq!(stop.reason(), None);
    switch.stop(StopReason::Shutdown);
    assert_eq!(stop.wanted().await, StopReason::Shutdown);
    switch.stop(StopReason::Cancelled);
    switch.stop(StopReason::Shutdown);
    assert_eq!(stop.wanted().await, StopReason::Cancelled);
    let gone = proxy_state::Stop::never();
    assert!(
        tokio::time::timeout(Duration::from_millis(1), gone.wanted())
            .await
            .is_err()
    );
}

// ---- on the real store ----

fn open(path: &std::path::Path) -> Arc<EmbeddedStore> {
    Arc::new(EmbeddedStore::open(path, StoreOptions::default()).unwrap())
}

#[tokio::test]
async fn an_interrupted_task_runs_again_until_it_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let id = {
        let store = open(&path);
        let task = TaskRecord::new("puppet", json!({"do": "defy"}), "local", 1);
        let id = task.id;
        store.register(task).await.unwrap();
        id
    };
    let stopped_at_once = RunnerOptions {
        stop_wait: Duration::from_millis(50),
        attempts_max: 5,
        ..RunnerOptions::default()
    };
    for attempt in 1..=5 {
        let stage = stage(open(&path), stopped_at_once.clone()).await;
        stage.begins(1).await;
        assert_eq!(stage.record(id).await.attempts, attempt);
        assert_eq!(stage.runner.shutdown(Duration::ZERO).await, 1);
        assert_eq!(
            stage.puppet.begun.lock()[..],
            [(json!({"do": "defy"}), attempt)]
        );
    }
    let stage = stage(open(&path), stopped_at_once).await;
    stage.ends(1).await;
    assert_eq!(stage.sink.names(), [LAST_WORDS, "bgtask_failed"]);
    let record = stage.record(id).await;
    assert_eq!(record.state, TaskState::Failed);
    let why = "Task was interrupted 5 times and given up";
    assert_eq!(record.message.as_deref(), Some(why));
    assert_eq!(stage.store.unfinished().await.unwrap(), []);
}

#[tokio::test]
async fn finished_tasks_stay_for_a_while_and_then_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("state.redb"));
    let mut ids = Vec::new();
    for at in 0..10 {
        let body = json!({"do": "done", "long": "x".repeat(5000)});
        let task = TaskRecord::new("puppet", body, "local", at);
        ids.push(task.id);
        store.register(task).await.unwrap();
    }
    for id in &ids[..6] {
        store.end(*id, TaskState::Done, "fine").await.unwrap();
    }
    let recent = |tasks: Vec<TaskRecord>| tasks.iter().map(|task| task.id).collect::<Vec<_>>();
    let newest: Vec<_> = ids.iter().rev().copied().collect();
    assert_eq!(recent(store.recent(3).await.unwrap()), newest[..3]);
    let unfinished = store.unfinished().await.unwrap();
    assert_eq!(
        unfinished.iter().map(|task| task.id).collect::<Vec<_>>(),
        ids[6..]
    );
    assert_eq!(
        store.get(ids[0]).await.unwrap().unwrap().body,
        Value::Null,
        "too large to keep"
    );
    // By number: the oldest finished go; the unfinished stay whatever happens.
    assert_eq!(store.prune(0, 4).await, Ok(2));
    assert_eq!(recent(store.recent(99).await.unwrap()), newest[..8]);
    // By age.
    assert_eq!(store.prune(u64::MAX, 100).await, Ok(4));
    assert_eq!(recent(store.recent(99).await.unwrap()), newest[..4]);
    assert_eq!(
        store.end(ids[0], TaskState::Done, "late").await,
        Err(StateError::Unknown)
    );
}

#[tokio::test]
async fn the_first_end_of_a_task_counts() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("state.redb"));
    let task = TaskRecord::new("puppet", json!({}), "local", 1);
    let id = task.id;
    store.register(task.clone()).await.unwrap();
    assert_eq!(store.register(task).await, Err(StateError::Exists));
    store.end(id, TaskState::Cancelled, "first").await.unwrap();
    store.end(id, TaskState::Done, "second").await.unwrap();
    assert_eq!(store.begin(id).await, Err(StateError::Unknown));
    let record = store.get(id).await.unwrap().unwrap();
    assert_eq!(
        (record.state, record.message.as_deref()),
        (TaskState::Cancelled, Some("first"))
    );
}

#[tokio::test]
async fn a_body_past_the_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        task_body_bytes_max: 20,
        ..StoreOptions::default()
    };
    let store = EmbeddedStore::open(&dir.path().join("state.redb"), options).unwrap();
    let stage = stage(Arc::new(store), RunnerOptions::default()).await;
    let body = json!({"do": "done", "more": "x".repeat(20)});
    let got = stage.runner.submit("puppet", body, "local").await;
    assert!(
        matches!(got, Err(SubmitError::Store(StateError::TooLarge { .. }))),
        "{got:?}"
    );
    assert_eq!(stage.runner.queued(), 0);
}
