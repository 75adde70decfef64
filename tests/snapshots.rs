//! Goal: states of vfolders are kept, shown, brought back and removed over the manager port.
//! Method: the program on an XFS of its own; background tasks are waited for.
//!
//! Source: `docs/semantics.md#snapshots`.

#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::Duration;

use proxy_testkit::server::{Settings, VOLUME};
use proxy_testkit::testbed::Testbed;
use proxy_testkit::{Folder, Server, wait};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const BOUND: Duration = Duration::from_secs(30);

/// The XFS, the server on it, and a folder in it; the folder goes first.
struct Scene {
    folder: Folder,
    server: Server,
    _testbed: Testbed,
}

fn scene() -> Option<Scene> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let testbed = match Testbed::up(&tests, "xfs", &[]) {
        Ok(testbed) => testbed,
        Err(reason) => {
            println!("skipped: {reason}");
            return None;
        }
    };
    let settings = Settings {
        root: Some(testbed.mount().to_owned()),
        ..Settings::default()
    };
    let server = Server::start_with(PROGRAM, settings);
    let folder = Folder::empty(&server);
    Some(Scene {
        folder,
        server,
        _testbed: testbed,
    })
}

impl Scene {
    fn call(&self, method: &str, path: &str, more: Value, status: u16) -> Value {
        let mut body = json!({"volume": VOLUME, "vfid": self.folder.vfid});
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        let answer = self.server.ask(method, path, &body);
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.text());
        if answer.body.is_empty() {
            Value::Null
        } else {
            answer.json()
        }
    }

    /// Begins a task and waits for its end, which it yields.
    fn task(&self, path: &str, more: Value) -> String {
        let begun = self.call("POST", path, more, 202);
        wait::until("the end of the task", BOUND, || {
            let asked = json!({"bgtask_id": begun["bgtask_id"]});
            let task = self.server.ask("GET", "/task", &asked).json();
            let state = task["state"].as_str()?.to_owned();
            (!["registered", "running"].contains(&state.as_str())).then_some(state)
        })
    }

    fn names(&self) -> Vec<String> {
        let items = self.call("GET", "/snapshot", json!({}), 200);
        let items = items["items"].as_array().cloned().unwrap_or_default();
        let name = |item: &Value| item["name"].as_str().unwrap_or_default().to_owned();
        items.iter().map(name).collect()
    }
}

#[test]
fn states_are_kept_brought_back_and_removed() {
    let Some(scene) = scene() else { return };
    let request = scene.server.manager_request("GET", "/volumes");
    let abilities = request.send(scene.server.manager()).text();
    assert!(abilities.contains("\"snapshot\""), "{abilities}");
    scene.folder.write("a.txt", b"first");
    assert_eq!(
        scene.task("/snapshot/create", json!({"name": "one"})),
        "done"
    );
    scene.folder.write("a.txt", b"second");
    assert_eq!(
        scene.task(
            "/snapshot/create",
            json!({"name": "two", "keep_seconds": 0})
        ),
        "done"
    );
    assert_eq!(scene.names(), ["one", "two"]);

    let other = "user:11111111-2222-3333-4444-555555555555/0123456789abcdef0123456789abcdef";
    let as_new = json!({"name": "one", "dst_vfid": other});
    assert_eq!(scene.task("/snapshot/restore", as_new.clone()), "done");
    assert_eq!(
        scene.task("/snapshot/restore", as_new),
        "failed",
        "it is there already"
    );
    assert_eq!(
        std::fs::read(scene.folder.at("a.txt")).expect("a file"),
        b"second"
    );
    assert_eq!(
        scene.task("/snapshot/restore", json!({"name": "one"})),
        "done"
    );
    assert_eq!(
        std::fs::read(scene.folder.at("a.txt")).expect("a file"),
        b"first"
    );

    assert_eq!(scene.task("/snapshot/retain", json!({})), "done");
    assert_eq!(scene.names(), ["one"], "the other had expired");
    assert_eq!(
        scene.task("/snapshot/delete", json!({"name": "one"})),
        "done"
    );
    assert_eq!(scene.names(), [""; 0]);
}

#[test]
fn what_makes_no_sense_is_refused_at_once() {
    let Some(scene) = scene() else { return };
    assert_eq!(
        scene.task("/snapshot/create", json!({"name": "one"})),
        "done"
    );
    for (path, more, status) in [
        ("/snapshot/create", json!({"name": "one"}), 409),
        ("/snapshot/create", json!({"name": "../one"}), 400),
        (
            "/snapshot/create",
            json!({"name": "x", "keep_seconds": -1}),
            400,
        ),
        ("/snapshot/create", json!({"name": "x", "more": 1}), 400),
        ("/snapshot/create", json!({}), 400),
        ("/snapshot/restore", json!({"name": "two"}), 404),
        ("/snapshot/retain", json!({"count_max": "a"}), 400),
    ] {
        scene.call("POST", path, more, status);
    }
    assert_eq!(scene.names(), ["one"]);
}
