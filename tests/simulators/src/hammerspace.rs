//! Hammerspace: one cluster whose shares are directories below one directory; tasks, sizes,
//! snapshots of shares, capacity.
//!
//! What changes a share is a task, which begins at once. Used bytes are the sum of what lies in a
//! share. A snapshot is a copy in `.snapshot`, which real shares do not list; its name is made
//! here, and the present state is listed among them. Rows of metrics may have holes.
//!
//! Source: Hammerspace management API v1.2, as its CSI driver uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::jobs::{Jobs, Progress, Trouble};
use crate::server::pairs;
use crate::{Reply, Request, Route, Running, Simulator, Vendor, disk};

/// The account that may.
pub const USER: &str = "admin";
/// Its password.
pub const PASSWORD: &str = "hammer-1!";
/// What the address of the interface ends with.
pub const BASE: &str = "/mgmt/v1.2/rest";
const SIZE_BYTES: u64 = 1 << 42;
const SNAPSHOTS: &str = ".snapshot";

/// See the module.
pub struct Hammerspace {
    dir: PathBuf,
    state: Arc<Mutex<State>>,
    tasks: Jobs,
}

struct Share {
    path: String,
    limit: u64,
    comment: String,
    snapshots: Vec<String>,
    /// As it was asked for.
    told: Value,
    objectives: Vec<Value>,
}

struct State {
    shares: BTreeMap<String, Share>,
    sessions: BTreeSet<String>,
    made: u64,
    has_state: bool,
    keeps_limit: bool,
}

type Effect = Box<dyn FnOnce(&Path, &mut State) -> Result<(), Trouble> + Send>;

impl Hammerspace {
    /// A cluster without shares, which are directories below `dir`.
    pub fn new(dir: &Path) -> Self {
        let state = State {
            shares: BTreeMap::new(),
            sessions: BTreeSet::new(),
            made: 0,
            has_state: true,
            keeps_limit: false,
        };
        Self {
            dir: dir.to_owned(),
            state: Arc::new(Mutex::new(state)),
            tasks: Jobs::default(),
        }
    }

    /// An older release: the capacity is among the metrics only.
    pub fn only_metrics(&self) {
        self.state.lock().has_state = false;
    }

    /// A size is lifted by 0 only, and not by leaving it out.
    pub fn keep_limits(&self) {
        self.state.lock().keeps_limit = true;
    }

    /// Names and limits of the shares; 0 for none.
    pub fn shares(&self) -> Vec<(String, u64)> {
        let state = self.state.lock();
        let all = state.shares.iter();
        all.map(|(name, one)| (name.clone(), one.limit)).collect()
    }

    /// Names of all snapshots.
    pub fn snapshots(&self) -> Vec<String> {
        let state = self.state.lock();
        let all = state.shares.values();
        all.flat_map(|one| one.snapshots.iter().cloned()).collect()
    }

    fn place(&self, path: &str) -> PathBuf {
        self.dir.join(path.trim_matches('/'))
    }

    fn login(&self, ask: &Request) -> Reply {
        let text = String::from_utf8_lossy(&ask.body).into_owned();
        let told: BTreeMap<_, _> = pairs(&text).into_iter().collect();
        let is = |key: &str, want: &str| told.get(key).is_some_and(|got| got == want);
        if !is("username", USER) || !is("password", PASSWORD) {
            return refuse(401, "Bad credentials");
        }
        let mut state = self.state.lock();
        state.made += 1;
        let session = format!("{:016X}", state.made);
        state.sessions.insert(session.clone());
        let cookie = format!("JSESSIONID={session}; Path=/mgmt; Secure; HttpOnly");
        Reply::json(200, json!({"username": USER})).header("set-cookie", &cookie)
    }

    fn task(&self, ask: &Request, effect: Effect) -> Reply {
        let (dir, state) = (self.dir.clone(), Arc::clone(&self.state));
        let what = format!("{} {}", ask.method, ask.path);
        let number = self
            .tasks
            .start(&what, move || effect(&dir, &mut state.lock()));
        self.tasks.look(number);
        let host = ask.header("host").unwrap_or("anvil");
        let place = format!("https://{host}{BASE}/tasks/{}", task_uuid(number));
        Reply::empty(202).header("location", &place)
    }

    fn one_task(&self, ask: &Request) -> Reply {
        let number = ask.params[0].rsplit('-').next().unwrap_or_default();
        let number = u64::from_str_radix(number, 16).unwrap_or_default();
        let Some((what, progress)) = self.tasks.look(number) else {
            return refuse(404, "no such task");
        };
        let (word, done, text) = match progress {
            Progress::Queued | Progress::Running => ("EXECUTING", json!("50"), String::new()),
            Progress::Done => ("COMPLETED", json!(100), String::new()),
            Progress::Failed(why) => {
                let text = format!("{}: {}", why.code, why.text);
                ("FAILED", json!(50), text)
            }
        };
        Reply::json(
            200,
            json!({
                "uuid": ask.params[0], "name": what, "status": word, "progress": done,
                "statusMessage": text, "paramsMap": {},
            }),
        )
    }

    fn shown(&self, name: &str, one: &Share) -> Value {
        let (used, entries) = disk::sums(&self.place(&one.path), &[SNAPSHOTS]);
        let total = if one.limit > 0 { one.limit } else { SIZE_BYTES };
        let space = |used: u64, total: u64| {
            let left = total.saturating_sub(used);
            json!({"used": used, "total": total, "available": left, "percent": used * 100 / total})
        };
        let mut share = json!({
            "uoid": {"uuid": uuid_of(name), "objectType": "SHARE"}, "name": name,
            "path": one.path, "comment": one.comment, "modified": 1_767_268_800_000_u64,
            "totalNumberOfFiles": entries, "shareState": "PUBLISHED",
            "shareLifecycle": "CREATED", "space": space(used, total),
            "inodes": space(entries, 1 << 30), "shareObjectives": [],
            "exportOptions": one.told["exportOptions"], "extendedInfo": one.told["extendedInfo"],
            "objectives": {"appliedObjectives": one.objectives},
        });
        if one.limit > 0 {
            share["shareSizeLimit"] = json!(one.limit);
        }
        share
    }

    fn share_list(&self, ask: &Request) -> Reply {
        let state = self.state.lock();
        let wanted = ask
            .query("spec")
            .and_then(|spec| spec.strip_prefix("name=eq="));
        let all = state.shares.iter();
        let all = all.filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name));
        let all = all.map(|(name, one)| self.shown(name, one)).collect();
        Reply::json(200, Value::Array(all))
    }

    fn one_share(&self, ask: &Request) -> Reply {
        let name = &ask.params[0];
        match self.state.lock().shares.get(name) {
            Some(one) => Reply::json(200, self.shown(name, one)),
            None => refuse(404, "no such share"),
        }
    }

    fn create(&self, ask: &Request) -> Reply {
        let told = ask.json();
        let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
        let (name, path) = (text("name"), text("path"));
        if name.is_empty() || !path.starts_with('/') {
            return refuse(400, "name and path are needed");
        }
        let state = self.state.lock();
        if state
            .shares
            .iter()
            .any(|(n, one)| *n == name || one.path == path)
        {
            return refuse(400, "A share with this name or path exists already");
        }
        drop(state);
        let one = Share {
            path,
            limit: told["shareSizeLimit"].as_u64().unwrap_or(0),
            comment: text("comment"),
            snapshots: Vec::new(),
            told: json!({
                "exportOptions": told.get("exportOptions").cloned().unwrap_or(json!([])),
                "extendedInfo": told.get("extendedInfo").cloned().unwrap_or(json!({})),
            }),
            objectives: Vec::new(),
        };
        self.task(
            ask,
            Box::new(move |dir, state| {
                let place = dir.join(one.path.trim_matches('/'));
                fs::create_dir_all(place).map_err(|error| trouble(&error))?;
                state.shares.insert(name, one);
                Ok(())
            }),
        )
    }

    fn change(&self, ask: &Request) -> Reply {
        let (name, told) = (ask.params[0].clone(), ask.json());
        if told["name"] != *name || told["path"].as_str().is_none() {
            return refuse(400, "the whole share is needed");
        }
        if !self.state.lock().shares.contains_key(&name) {
            return refuse(404, "no such share");
        }
        self.task(
            ask,
            Box::new(move |_, state| {
                let keeps = state.keeps_limit;
                if let Some(one) = state.shares.get_mut(&name) {
                    match told["shareSizeLimit"].as_u64() {
                        None if keeps => {}
                        limit => one.limit = limit.unwrap_or(0),
                    }
                }
                Ok(())
            }),
        )
    }

    fn delete(&self, ask: &Request) -> Reply {
        let name = ask.params[0].clone();
        if !self.state.lock().shares.contains_key(&name) {
            return refuse(404, "no such share");
        }
        let with_path = ask.query("delete-path") == Some("true");
        self.task(
            ask,
            Box::new(move |dir, state| {
                if let Some(one) = state.shares.remove(&name)
                    && with_path
                {
                    let _ = fs::remove_dir_all(dir.join(one.path.trim_matches('/')));
                }
                Ok(())
            }),
        )
    }

    fn set_objective(&self, ask: &Request) -> Reply {
        let Some(name) = ask.query("objective-identifier") else {
            return refuse(400, "objective-identifier is needed");
        };
        let mut state = self.state.lock();
        let Some(one) = state.shares.get_mut(&ask.params[0]) else {
            return refuse(404, "no such share");
        };
        if ask.query("clear-existing") == Some("true") {
            one.objectives.clear();
        }
        one.objectives.push(json!({"name": name}));
        Reply::empty(200)
    }

    fn task_list(&self, _: &Request) -> Reply {
        // None is under way: they are looked at as soon as they begin.
        Reply::json(200, json!([]))
    }

    fn objectives(&self, _: &Request) -> Reply {
        let names = ["keep-online", "no-atime", "layout-get-on-open"];
        Reply::json(
            200,
            names.iter().map(|name| json!({"name": name})).collect(),
        )
    }

    fn portals(&self, _: &Request) -> Reply {
        let portal = |kind: &str, state: &str| {
            json!({
                "operState": state, "adminState": "UP", "dataPortalType": kind, "exported": ["/"],
                "uoid": {"uuid": uuid_of(kind), "objectType": "DATA_PORTAL"},
                "node": {"name": "node1",
                    "mgmtIpAddress": {"address": "127.0.0.1", "prefixLength": 32}},
            })
        };
        let all = [portal("NFS_V3", "UP"), portal("SMB", "UP")];
        Reply::json(200, all.into_iter().collect())
    }

    fn file(&self, ask: &Request) -> Reply {
        let path = ask.query("path").unwrap_or_default();
        let place = self.place(path);
        let Ok(meta) = fs::metadata(&place) else {
            return refuse(500, "no such file");
        };
        let name = |path: &Path| {
            path.file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
        };
        let below = fs::read_dir(&place).into_iter().flatten().flatten();
        let children = below.map(|entry| {
            let size = entry.metadata().map_or(0, |meta| meta.len());
            json!({"name": name(&entry.path()), "path": path, "size": size, "createTime": 0})
        });
        let children: Vec<Value> = children.collect();
        Reply::json(
            200,
            json!({"name": name(&place), "path": path, "size": meta.len(), "children": children}),
        )
    }

    fn create_snapshot(&self, ask: &Request) -> Reply {
        let mut state = self.state.lock();
        state.made += 1;
        let name = format!("2026-01-01T10-00-00.{:06}", state.made);
        let Some(one) = state.shares.get_mut(&ask.params[0]) else {
            return refuse(404, "no such share");
        };
        let from = self.place(&one.path);
        let to = from.join(SNAPSHOTS).join(&name);
        if disk::copy(&from, &to, &[SNAPSHOTS]).is_err() {
            return refuse(500, "the share cannot be kept");
        }
        one.snapshots.push(name.clone());
        Reply::json(200, Value::String(name)).header("content-type", "text/plain")
    }

    fn snapshot_list(&self, ask: &Request) -> Reply {
        match self.state.lock().shares.get(&ask.params[0]) {
            Some(one) => {
                let present = std::iter::once("current");
                let names = present.chain(one.snapshots.iter().map(String::as_str));
                Reply::json(200, names.collect())
            }
            None => refuse(404, "no such share"),
        }
    }

    fn delete_snapshot(&self, ask: &Request) -> Reply {
        let mut state = self.state.lock();
        let one = state.shares.get_mut(&ask.params[0]);
        let Some(one) = one.filter(|one| one.snapshots.contains(&ask.params[1])) else {
            return refuse(404, "no such snapshot");
        };
        one.snapshots.retain(|name| *name != ask.params[1]);
        let at = self.place(&one.path).join(SNAPSHOTS);
        let _ = fs::remove_dir_all(at.join(&ask.params[1]));
        // The directory for snapshots is gone with the last of them.
        let _ = fs::remove_dir(at);
        Reply::empty(200)
    }

    fn used(&self) -> u64 {
        disk::sums(&self.dir, &[]).0
    }

    fn cluster(&self, _: &Request) -> Reply {
        if !self.state.lock().has_state {
            return refuse(404, "not found");
        }
        let (used, total) = (self.used(), SIZE_BYTES);
        let free = total.saturating_sub(used);
        let capacity = json!({"total": total, "used": used, "free": free});
        let portals = json!([{"address": "127.0.0.1", "prefixLength": 32}]);
        Reply::json(
            200,
            json!({"name": "simulated", "capacity": capacity, "portalFloatingIps": portals}),
        )
    }

    fn sites(&self, _: &Request) -> Reply {
        let uoid = json!({"uuid": uuid_of("site"), "objectType": "SITE"});
        Reply::json(200, json!([{"name": "local", "uoid": uoid}]))
    }

    fn metrics(&self, ask: &Request) -> Reply {
        if ask.params[0] != uuid_of("site") {
            return refuse(404, "no such site");
        }
        let (used, total) = (self.used(), SIZE_BYTES);
        let row = |used: Value| json!({"time": 1, "total": total, "used": used, "free": total});
        let rows = json!([row(json!(1)), row(json!(used)), row(Value::Null)]);
        Reply::json(200, json!({"series": [{"name": "capacity", "rows": rows}]}))
    }
}

fn trouble(error: &std::io::Error) -> Trouble {
    Trouble {
        code: "500".to_owned(),
        text: error.to_string(),
    }
}

fn task_uuid(number: u64) -> String {
    format!("6f0c0f5e-0000-4000-8000-{number:012x}")
}

fn uuid_of(name: &str) -> String {
    let mixed = name.bytes().fold(7_u64, |mixed, byte| {
        mixed.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    format!(
        "7a1b0000-0000-4000-{:04x}-{:012x}",
        mixed >> 48,
        mixed & 0xffff_ffff_ffff
    )
}

fn refuse(status: u16, text: &str) -> Reply {
    Reply::json(status, json!({"message": text, "error": text}))
}

impl Vendor for Hammerspace {
    const NAME: &'static str = "hammerspace";

    fn routes() -> &'static [Route<Self>] {
        const fn on(
            method: &'static str,
            pattern: &'static str,
            handle: fn(&Hammerspace, &Request) -> Reply,
        ) -> Route<Hammerspace> {
            Route {
                method,
                pattern,
                handle,
            }
        }
        macro_rules! at {
            ($rest:literal) => {
                concat!("/mgmt/v1.2/rest", $rest)
            };
        }
        use Hammerspace as H;
        const ROUTES: &[Route<Hammerspace>] = &[
            on("POST", at!("/login"), H::login),
            on("GET", at!("/tasks"), H::task_list),
            on("GET", at!("/tasks/{}"), H::one_task),
            on("GET", at!("/objectives"), H::objectives),
            on("GET", at!("/data-portals/"), H::portals),
            on("GET", at!("/files"), H::file),
            on("POST", at!("/shares/{}/objective-set"), H::set_objective),
            on("GET", at!("/shares"), H::share_list),
            on("POST", at!("/shares"), H::create),
            on("GET", at!("/shares/{}"), H::one_share),
            on("PUT", at!("/shares/{}"), H::change),
            on("DELETE", at!("/shares/{}"), H::delete),
            on(
                "POST",
                at!("/share-snapshots/snapshot-create/{}"),
                H::create_snapshot,
            ),
            on(
                "GET",
                at!("/share-snapshots/snapshot-list/{}"),
                H::snapshot_list,
            ),
            on(
                "POST",
                at!("/share-snapshots/snapshot-delete/{}/{}"),
                H::delete_snapshot,
            ),
            on("GET", at!("/cntl/state"), H::cluster),
            on("GET", at!("/sites"), H::sites),
            on("GET", at!("/metrics/capacity/CLUSTER/{}"), H::metrics),
        ];
        ROUTES
    }

    fn admit(&self, request: &Request) -> Result<(), Reply> {
        let session = request.cookie("JSESSIONID").unwrap_or_default();
        if request.path.ends_with("/login") || self.state.lock().sessions.contains(session) {
            return Ok(());
        }
        Err(refuse(403, "not logged in"))
    }

    fn expire(&self) {
        self.state.lock().sessions.clear();
    }

    fn error(&self, status: u16, text: &str) -> Reply {
        refuse(status, text)
    }

    fn jobs(&self) -> Option<&Jobs> {
        Some(&self.tasks)
    }
}

/// A cluster on a directory, with the usual credentials.
pub(crate) fn start(dir: &Path, port: u16) -> Box<dyn Running> {
    Box::new(Simulator::start_on(
        Hammerspace::new(dir),
        &std::env::temp_dir(),
        port,
    ))
}
