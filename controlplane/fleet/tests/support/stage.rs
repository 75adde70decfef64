//! A server's half of the fleet, without the server: store, bus, tasks and a handler that does as
//! it is told, over a real Redis.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use proxy_core::id::{TaskId, VFolderId};
use proxy_fleet::events::{BusOptions, EventBus};
use proxy_fleet::link::{Address, Link, Target};
use proxy_fleet::tasks::{SharedTasks, TasksOptions};
use proxy_state::{
    EmbeddedStore, Event, Handler, OpenError, Outcome, Runner, RunnerOptions, StoreOptions,
    TaskContext, TaskError, TaskStore,
};
use proxy_testkit::redis::RedisServer;
use proxy_testkit::wait;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub const NODE: &str = "i-test";

pub fn target(addr: std::net::SocketAddr) -> Target {
    Target::plain(Address {
        host: addr.ip().to_string(),
        port: addr.port(),
    })
}

pub fn folder(number: u64) -> VFolderId {
    VFolderId::parse(&format!("{number:032x}")).expect("32 digits")
}

/// Does `{"volume": …, "do": "done" | "fail" | "wait" | "obey", "number": n}`.
pub struct Puppet {
    pub gate: Semaphore,
    pub begun: Mutex<Vec<u64>>,
}

#[async_trait]
impl Handler for Puppet {
    fn name(&self) -> &'static str {
        "delete_vfolder"
    }

    async fn run(&self, body: &Value, ctx: TaskContext) -> Result<Outcome, TaskError> {
        let Some(number) = body["number"].as_u64() else {
            return Err(TaskError::Failed("invalid task".into()));
        };
        self.begun.lock().push(number);
        match body["do"].as_str() {
            Some("wait") => self.gate.acquire().await.expect("open").forget(),
            Some("obey") => {
                ctx.stop().wanted().await;
                return Err(TaskError::Stopped);
            }
            Some("fail") => {
                let (vfid, message) = (folder(number), "boom".to_owned());
                ctx.emit(Event::VFolderDeleteFailed { vfid, message });
                return Err(TaskError::Failed("boom".into()));
            }
            _ => {}
        }
        let vfid = folder(number);
        ctx.emit(Event::VFolderDeleted { vfid });
        Ok(Outcome::Done)
    }
}

/// One process of a server. Dropping it is its death; [`Stage::stop`] its graceful end.
pub struct Stage {
    pub bus: EventBus,
    pub tasks: SharedTasks,
    pub runner: Runner,
    pub puppet: Arc<Puppet>,
    background: JoinSet<()>,
}

pub fn quick() -> TasksOptions {
    TasksOptions {
        heartbeat: Duration::from_millis(500),
        look: Duration::from_millis(500),
        ..TasksOptions::default()
    }
}

impl Stage {
    pub async fn start(redis: &RedisServer, dir: &Path) -> Self {
        Self::start_with(redis, dir, quick(), BusOptions::default()).await
    }

    pub async fn start_with(
        redis: &RedisServer,
        dir: &Path,
        options: TasksOptions,
        bus_options: BusOptions,
    ) -> Self {
        // A stage that has ended may hold it for a moment: its threads are ours.
        let store = wait::until("the store is let go of", Duration::from_secs(20), || {
            match EmbeddedStore::open(&dir.join("state"), StoreOptions::default()) {
                Err(OpenError::InUse { .. }) => None,
                opened => Some(opened.expect("a store")),
            }
        });
        let store = Arc::new(store);
        let stream = Link::open(target(redis.addr()), 4, "stream");
        let bgtask = Link::open(target(redis.addr()), 7, "bgtask");
        let bus = EventBus::open(stream, dir, bus_options).expect("a bus");
        let local = Arc::clone(&store) as Arc<dyn TaskStore>;
        let tasks = SharedTasks::open(local, bgtask, NODE, dir, &bus, options).expect("tasks");
        let puppet = Arc::new(Puppet {
            gate: Semaphore::new(0),
            begun: Mutex::default(),
        });
        let runner = Runner::start(
            Arc::new(tasks.clone()),
            Arc::new(bus.clone()),
            [Arc::clone(&puppet) as Arc<dyn Handler>],
            RunnerOptions::default(),
        );
        let runner = runner.await.expect("a runner");
        let mut background = JoinSet::new();
        background.spawn(bus.clone().run());
        background.spawn(tasks.clone().run(runner.clone()));
        Self {
            bus,
            tasks,
            runner,
            puppet,
            background,
        }
    }

    pub async fn submit(&self, what: &str, number: u64) -> TaskId {
        let body = serde_json::json!({"volume": "v", "do": what, "number": number});
        let submitted = self
            .runner
            .submit_for("delete_vfolder", body, "v", Some("req-9"));
        submitted.await.expect("submitted")
    }

    /// Ends it as a process ends that has nothing left to do but its unfinished tasks.
    pub async fn stop(mut self) {
        self.runner.shutdown(Duration::ZERO).await;
        self.background.shutdown().await;
    }
}
