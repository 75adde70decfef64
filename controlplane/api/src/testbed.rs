//! What the tests of this crate stand on: one volume in a temporary directory, a store beside
//! it, and requests without a socket.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, Bytes};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use proxy_core::id::VFolderId;
use proxy_core::token::Secret;
use proxy_core::units::KIB;
use proxy_state::{
    EmbeddedStore, Handler, LogSink, Outcome, Runner, RunnerOptions, StoreOptions, TaskContext,
    TaskError,
};
use proxy_volume::{Spec, Volumes};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tower::ServiceExt;

use crate::{ApiState, Health, Limits, Settings, TOKEN_HEADER, manager_router, probes};

/// The Manager's token.
pub(crate) const TOKEN: &str = "manager-shared-secret";
/// A folder that exists.
pub(crate) const VFID: &str =
    "user:11111111-2222-3333-4444-555555555555/aabbccddeeff00112233445566778899";
/// A folder that does not, in the same scope.
pub(crate) const NEW: &str =
    "user:11111111-2222-3333-4444-555555555555/00112233445566778899aabbccddeeff";
/// Largest upload.
pub(crate) const UPLOAD_BYTES_MAX: u64 = 64 * KIB;

/// A task that reached its handler: name and body.
pub(crate) type Task = (&'static str, Value);

/// See the module.
pub(crate) struct Testbed {
    pub(crate) state: ApiState,
    pub(crate) router: Router,
    pub(crate) tasks: mpsc::UnboundedReceiver<Task>,
    pub(crate) dir: TempDir,
}

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Testbed {
    /// Starts with the folder [`VFID`]: `a.txt` of 5 bytes, `dir/b.txt`, the empty `empty`.
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().join("volume");
        std::fs::create_dir(&mount).unwrap();
        let spec = |name: &str, path: PathBuf| Spec {
            name: name.to_owned(),
            backend: "vfs".to_owned(),
            path,
            fsprefix: ".".to_owned(),
            options: serde_json::Map::new(),
        };
        let specs = vec![spec("local", mount), spec("gone", dir.path().join("gone"))];
        let volumes = Volumes::new(specs, &proxy_volume::Limits::default());
        let volumes = Arc::new(volumes.unwrap());
        let store = dir.path().join("state.redb");
        let store = Arc::new(EmbeddedStore::open(&store, StoreOptions::default()).unwrap());
        let (sender, tasks) = mpsc::unbounded_channel();
        let handlers = ["delete_vfolder", "clone_vfolder", "delete_files"].map(|name| {
            let heard: Arc<dyn Handler> = Arc::new(Heard {
                name,
                sender: sender.clone(),
            });
            heard
        });
        let runner = Runner::start(
            store.clone(),
            Arc::new(LogSink),
            handlers,
            RunnerOptions::default(),
        );
        let checks = probes::standalone(&store, &volumes);
        let limits = Limits {
            requests_in_flight_max: 16,
            ..Limits::default()
        };
        let state = ApiState::new(
            volumes,
            store,
            Arc::new(runner.await.unwrap()),
            settings(),
            Arc::new(Health::new(checks)),
            &limits,
        );
        let testbed = Self {
            router: manager_router(state.clone()),
            state,
            tasks,
            dir,
        };
        let folder = testbed.folder(VFID);
        std::fs::create_dir_all(folder.join("dir")).unwrap();
        std::fs::create_dir(folder.join("empty")).unwrap();
        std::fs::write(folder.join("a.txt"), "hello").unwrap();
        std::fs::write(folder.join("dir/b.txt"), "below").unwrap();
        testbed
    }

    /// Where a folder lies.
    pub(crate) fn folder(&self, vfid: &str) -> PathBuf {
        let parts = VFolderId::parse(vfid).unwrap().components();
        self.dir
            .path()
            .join("volume")
            .join(parts.iter().collect::<PathBuf>())
    }

    /// Asks with the token.
    pub(crate) async fn ask(&self, call: &str, body: &str) -> Answer {
        self.send(&self.router, call, &[(TOKEN_HEADER, TOKEN)], body)
            .await
    }

    /// Asks `GET /path` or the like; `$vfid` and `$new` in the body stand for the two folders.
    pub(crate) async fn send(
        &self,
        router: &Router,
        call: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let (method, path) = call.split_once(' ').unwrap();
        let body = body.replace("$vfid", VFID).replace("$new", NEW);
        let mut request = Request::builder().method(method).uri(path);
        if !body.is_empty() {
            request = request.header("content-length", body.len());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// Waits for the next task to reach its handler.
    pub(crate) async fn task(&mut self) -> Task {
        tokio::time::timeout(Duration::from_secs(20), self.tasks.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

impl Answer {
    /// The body as JSON; `null` when it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// A header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

fn settings() -> Settings {
    Settings {
        manager_secret: Secret::new(TOKEN),
        token_secret: Secret::new("token-secret"),
        token_ttl: Duration::from_secs(3600),
        upload_bytes_max: Some(UPLOAD_BYTES_MAX),
        json_bytes_max: 1024 * 1024,
        list_entries_max: 1000,
        scopes_on_demand: true,
        usage_time_max: Duration::from_secs(30),
    }
}

/// Stands in for the handler of one kind of tasks.
struct Heard {
    name: &'static str,
    sender: mpsc::UnboundedSender<Task>,
}

#[async_trait]
impl Handler for Heard {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn run(&self, body: &Value, _: TaskContext) -> Result<Outcome, TaskError> {
        self.sender.send((self.name, body.clone())).unwrap();
        Ok(Outcome::Done)
    }
}

/// Volume and folder, to stand in a JSON body.
pub(crate) const HERE: &str = r#""volume":"local","vfid":"$vfid""#;

/// A request, a status, and members that the answer's document must have.
pub(crate) type Row = (&'static str, &'static str, u16, &'static str);

#[track_caller]
fn assert_holds(got: &Value, want: &Value, at: &str) {
    match (got, want) {
        (Value::Object(got), Value::Object(want)) => {
            for (key, want) in want {
                let got = got.get(key).unwrap_or(&Value::Null);
                assert_holds(got, want, &format!("{at}.{key}"));
            }
        }
        (_, Value::String(any)) if any == "<any>" => assert!(!got.is_null(), "{at}"),
        _ => assert_eq!(got, want, "{at}"),
    }
}

/// Runs the rows in order. `$here` in a body stands for volume and folder.
pub(crate) async fn check(bed: &Testbed, rows: &[Row]) {
    for (call, body, status, holds) in rows {
        let body = body.replace("$here", HERE);
        let answer = bed.ask(call, &body).await;
        let row = format!("{call} {body}");
        assert_eq!(answer.status, *status, "{row}: {}", answer.text());
        if holds.is_empty() {
            assert_eq!(answer.text(), "", "{row}");
            continue;
        }
        let holds = holds.replace("$vfid", VFID).replace("$new", NEW);
        assert_holds(&answer.json(), &serde_json::from_str(&holds).unwrap(), &row);
    }
}
