//! NetApp ONTAP: one SVM with one volume on a directory; qtrees, quota rules, reports, snapshots.
//!
//! Quotas are off at first, as on a new volume. Reports have rows only while they are on, and for
//! qtrees with a rule. What changes is a job, unless it is done while the call waits for it.
//!
//! Source: ONTAP REST, proved by `netapp-ontap` 9.19.1.0.

mod quota;
mod snapshots;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::jobs::{Jobs, Progress, Trouble};
use crate::{Reply, Request, Route, Running, Simulator, Vendor, disk};
use quota::{QuotaState, Rule};
use snapshots::Snapshot;

/// The account that may.
pub const USER: &str = "admin";
/// Its password.
pub const PASSWORD: &str = "netapp1!";
/// The one volume.
pub const VOLUME: &str = "vol1";
/// Its identifier.
pub const VOLUME_UUID: &str = "028baa66-41bd-11e9-81d5-00a0986138f7";
/// The identifier of its SVM.
pub const SVM_UUID: &str = "02c9e252-41be-11e9-81d5-00a0986138f7";
const SVM: &str = "svm1";
/// What volumes hold that are simulated.
const SIZE_BYTES: u64 = 1 << 40;
const NAMESPACE: uuid::Uuid = uuid::Uuid::from_u128(0x1a2b_0000_41bd_11e9_81d5_00a0_9861_38f7);

/// See the module.
pub struct NetApp {
    dir: PathBuf,
    state: Arc<Mutex<State>>,
    jobs: Jobs,
    /// Directories of new qtrees appear only when they were asked for so often.
    late: AtomicUsize,
}

struct Qtree {
    id: u32,
    name: String,
    user: u64,
    group: u64,
}

struct State {
    volume_uuid: String,
    volume_state: &'static str,
    qtrees: Vec<Qtree>,
    rules: Vec<Rule>,
    quota: QuotaState,
    snapshots: Vec<Snapshot>,
    /// Qtrees whose directories are still to come.
    hidden: Vec<String>,
    /// The next rules are made, but answered with this code, and do not count until quotas were
    /// switched off and on.
    resize_fails: usize,
    next_id: u32,
    made: u64,
}

impl State {
    fn uuid(&mut self) -> String {
        self.made += 1;
        uuid::Uuid::from_u128(NAMESPACE.as_u128() + u128::from(self.made)).to_string()
    }
}

impl NetApp {
    /// A volume on a directory, without qtrees.
    pub fn new(dir: &Path) -> Self {
        let state = State {
            volume_uuid: VOLUME_UUID.to_owned(),
            volume_state: "online",
            qtrees: Vec::new(),
            rules: Vec::new(),
            quota: QuotaState::Off,
            snapshots: Vec::new(),
            hidden: Vec::new(),
            resize_fails: 0,
            next_id: 1,
            made: 0,
        };
        Self {
            dir: dir.to_owned(),
            state: Arc::new(Mutex::new(state)),
            jobs: Jobs::default(),
            late: AtomicUsize::new(0),
        }
    }

    /// Directories of qtrees to come appear after this many further requests, as behind the
    /// caches of an NFS client.
    pub fn hide_new_directories(&self, requests: usize) {
        self.late.store(requests, Ordering::Relaxed);
    }

    /// The volume is taken offline, or is back.
    pub fn set_online(&self, online: bool) {
        self.state.lock().volume_state = if online { "online" } else { "offline" };
    }

    /// The volume gets another identifier, as after it was moved and made again.
    pub fn change_volume_uuid(&self, uuid: &str) {
        uuid.clone_into(&mut self.state.lock().volume_uuid);
    }

    /// The next rule is made, but quotas cannot be resized.
    pub fn fail_next_resize(&self) {
        self.state.lock().resize_fails += 1;
    }

    /// Names of the qtrees, and of those with a rule.
    pub fn names(&self) -> (Vec<String>, Vec<String>) {
        let state = self.state.lock();
        let qtrees = state.qtrees.iter().map(|qtree| qtree.name.clone());
        let rules = state.rules.iter().map(|rule| rule.qtree.clone());
        (qtrees.collect(), rules.collect())
    }

    /// Whether limits count.
    pub fn quotas_on(&self) -> bool {
        matches!(self.state.lock().quota, QuotaState::On)
    }

    /// Makes directories that were kept back, when their time has come.
    fn tick(&self) {
        let mut state = self.state.lock();
        if state.hidden.is_empty() {
            return;
        }
        let left = self.late.load(Ordering::Relaxed);
        if left > 0 {
            self.late.store(left - 1, Ordering::Relaxed);
            return;
        }
        for name in std::mem::take(&mut state.hidden) {
            let _ = fs::create_dir(self.dir.join(name));
        }
    }

    fn job_reply(&self, ask: &Request, job: u64, good: u16) -> Reply {
        let link = json!({"self": {"href": format!("/api/cluster/jobs/{}", job_uuid(job))}});
        let told = json!({"job": {"uuid": job_uuid(job), "_links": link}});
        let waits = ask.query("return_timeout").is_some_and(|text| text != "0");
        if !waits {
            return hal(202, told);
        }
        match self.jobs.look(job) {
            Some((_, Progress::Done)) => hal(good, told),
            Some((_, Progress::Failed(trouble))) => fault(400, &trouble.code, &trouble.text),
            _ => hal(202, told),
        }
    }

    fn job(&self, ask: &Request) -> Reply {
        let number = ask.params[0].rsplit('-').next().unwrap_or_default();
        let number = u64::from_str_radix(number, 16).unwrap_or_default();
        let Some((what, progress)) = self.jobs.look(number) else {
            return fault(404, "4", "entry doesn't exist");
        };
        let (state, message, code) = match &progress {
            Progress::Queued => ("queued", "queued", "0"),
            Progress::Running => ("running", "in progress", "0"),
            Progress::Done => ("success", "success", "0"),
            Progress::Failed(trouble) => ("failure", trouble.text.as_str(), trouble.code.as_str()),
        };
        let mut job = json!({
            "uuid": job_uuid(number),
            "description": what,
            "state": state,
            "message": message,
            "code": code.parse::<u64>().unwrap_or(1),
            "start_time": "2026-01-01T00:00:00+00:00",
        });
        if let Progress::Failed(_) = progress {
            job["error"] = json!({"code": code, "message": message});
        }
        hal(200, job)
    }

    fn volume(&self, state: &State) -> Value {
        let (used, files) = disk::sums(&self.dir, &[".snapshot"]);
        let rates = |read: u64, write: u64| {
            let total = read + write + 3;
            json!({"read": read, "write": write, "other": 3, "total": total})
        };
        json!({
            "uuid": state.volume_uuid,
            "name": VOLUME,
            "state": state.volume_state,
            "style": "flexvol",
            "nas": {"path": format!("/{VOLUME}")},
            "svm": {"uuid": SVM_UUID, "name": SVM},
            "space": {"size": SIZE_BYTES, "used": used, "available": SIZE_BYTES - used},
            "files": {"maximum": 21_251_126, "used": files},
            "quota": {"state": state.quota.word(), "enabled": state.quota != QuotaState::Off},
            "metric": {
                "timestamp": "2026-01-01T12:00:15Z", "duration": "PT15S", "status": "ok",
                "iops": rates(200, 100),
                "throughput": rates(2_000_000, 1_000_000),
                "latency": rates(350, 720),
            },
            "statistics": {
                "timestamp": "2026-01-01T12:00:15Z", "status": "ok",
                "iops_raw": rates(1 << 40, 1 << 39),
                "throughput_raw": rates(1 << 50, 1 << 49),
                "latency_raw": rates(1 << 45, 1 << 44),
            },
        })
    }

    fn volumes(&self, ask: &Request) -> Reply {
        let volume = self.volume(&self.state.lock());
        collection(ask, vec![volume])
    }

    fn one_volume(&self, ask: &Request) -> Reply {
        let mut state = self.state.lock();
        if ask.params[0] != state.volume_uuid {
            return fault(404, "917927", "The specified volume was not found.");
        }
        let volume = self.volume(&state);
        state.quota.pass();
        hal(200, volume)
    }

    fn change_volume(&self, ask: &Request) -> Reply {
        let state = self.state.lock();
        if ask.params[0] != state.volume_uuid {
            return fault(404, "917927", "The specified volume was not found.");
        }
        drop(state);
        let told = ask.json();
        let Some(on) = field(&told, "quota.enabled").and_then(|on| on.as_bool()) else {
            return fault(400, "2", "nothing to change that this simulator knows");
        };
        let state = Arc::clone(&self.state);
        let job = self.jobs.start("PATCH /api/storage/volumes", move || {
            let mut state = state.lock();
            state.switch_quotas(on)
        });
        self.job_reply(ask, job, 200)
    }

    fn qtrees(&self, ask: &Request) -> Reply {
        let state = self.state.lock();
        let whole = (0, String::new(), 0, 0);
        let made = state.qtrees.iter();
        let made = made.map(|qtree| (qtree.id, qtree.name.clone(), qtree.user, qtree.group));
        let records = std::iter::once(whole)
            .chain(made)
            .map(|(id, name, user, group)| {
                json!({
                    "id": id, "name": name,
                    "svm": {"uuid": SVM_UUID, "name": SVM},
                    "volume": {"uuid": state.volume_uuid, "name": VOLUME},
                    "user": {"id": user.to_string()}, "group": {"id": group.to_string()},
                    "security_style": "unix", "unix_permissions": 755,
                })
            });
        collection(ask, records.collect())
    }

    fn create_qtree(&self, ask: &Request) -> Reply {
        let told = ask.json();
        if let Err(refusal) = self.right_volume(&told) {
            return refusal;
        }
        let Some(name) = text(&told, "name").filter(|name| !name.is_empty()) else {
            return fault(400, "5242953", "A qtree name must be specified.");
        };
        let number = |path| field(&told, path).and_then(|value| number_of(&value));
        let (user, group) = (number("user.id"), number("group.id"));
        let (state, dir, late) = (
            Arc::clone(&self.state),
            self.dir.clone(),
            self.late.load(Ordering::Relaxed) > 0,
        );
        let job = self.jobs.start("POST /api/storage/qtrees", move || {
            let mut state = state.lock();
            let there = dir.join(&name).exists();
            if there || state.qtrees.iter().any(|qtree| qtree.name == name) {
                return Err(trouble(
                    "5242886",
                    "Failed to create qtree. Reason: File exists.",
                ));
            }
            if late {
                state.hidden.push(name.clone());
            } else if fs::create_dir(dir.join(&name)).is_err() {
                return Err(trouble("5242886", "Failed to create qtree."));
            }
            let id = state.next_id;
            state.next_id += 1;
            state.qtrees.push(Qtree {
                id,
                name,
                user: user.unwrap_or(0),
                group: group.unwrap_or(0),
            });
            Ok(())
        });
        self.job_reply(ask, job, 201)
    }

    fn delete_qtree(&self, ask: &Request) -> Reply {
        let id: u32 = ask.params[1].parse().unwrap_or_default();
        let state = self.state.lock();
        let found = state.qtrees.iter().find(|qtree| qtree.id == id);
        let Some(name) = found.map(|qtree| qtree.name.clone()) else {
            return fault(404, "5242927", "Failed to find qtree.");
        };
        drop(state);
        let (state, dir) = (Arc::clone(&self.state), self.dir.clone());
        let job = self.jobs.start("DELETE /api/storage/qtrees", move || {
            let _ = fs::remove_dir_all(dir.join(&name));
            let mut state = state.lock();
            state.qtrees.retain(|qtree| qtree.id != id);
            Ok(())
        });
        self.job_reply(ask, job, 200)
    }

    /// Refuses a body that means another volume.
    fn right_volume(&self, told: &Value) -> Result<(), Reply> {
        let is = |path: &str, want: &str, name: &str| {
            let by_uuid = text(told, &format!("{path}.uuid")).map(|uuid| uuid == want);
            let by_name = text(told, &format!("{path}.name")).map(|other| other == name);
            by_uuid.or(by_name)
        };
        let state = self.state.lock();
        match (
            is("svm", SVM_UUID, SVM),
            is("volume", &state.volume_uuid, VOLUME),
        ) {
            (Some(true), Some(true)) => Ok(()),
            (None, _) => Err(fault(400, "2621707", "No SVM was specified.")),
            (Some(false), _) => Err(fault(400, "2621706", "The SVM was not found.")),
            (_, None) => Err(fault(400, "918232", "No volume was specified.")),
            (_, Some(false)) => Err(fault(404, "917927", "The volume was not found.")),
        }
    }

    fn cluster(&self, _: &Request) -> Reply {
        let version = json!({
            "full": "NetApp Release 9.14.1", "generation": 9, "major": 14, "minor": 1,
        });
        hal(200, json!({"name": "simulated", "version": version}))
    }
}

impl Vendor for NetApp {
    const NAME: &'static str = "netapp";

    fn routes() -> &'static [Route<Self>] {
        const fn on(
            method: &'static str,
            pattern: &'static str,
            handle: fn(&NetApp, &Request) -> Reply,
        ) -> Route<NetApp> {
            Route {
                method,
                pattern,
                handle,
            }
        }
        const ROUTES: &[Route<NetApp>] = &[
            on("GET", "/api/cluster", NetApp::cluster),
            on("GET", "/api/cluster/jobs/{}", NetApp::job),
            on("GET", "/api/storage/volumes", NetApp::volumes),
            on("GET", "/api/storage/volumes/{}", NetApp::one_volume),
            on("PATCH", "/api/storage/volumes/{}", NetApp::change_volume),
            on("GET", "/api/storage/qtrees", NetApp::qtrees),
            on("POST", "/api/storage/qtrees", NetApp::create_qtree),
            on("DELETE", "/api/storage/qtrees/{}/{}", NetApp::delete_qtree),
            on("GET", "/api/storage/quota/rules", NetApp::rules),
            on("POST", "/api/storage/quota/rules", NetApp::create_rule),
            on("GET", "/api/storage/quota/rules/{}", NetApp::one_rule),
            on("PATCH", "/api/storage/quota/rules/{}", NetApp::change_rule),
            on("DELETE", "/api/storage/quota/rules/{}", NetApp::delete_rule),
            on("GET", "/api/storage/quota/reports", NetApp::reports),
            on(
                "GET",
                "/api/storage/volumes/{}/snapshots",
                NetApp::snapshots,
            ),
            on(
                "POST",
                "/api/storage/volumes/{}/snapshots",
                NetApp::create_snapshot,
            ),
            on(
                "GET",
                "/api/storage/volumes/{}/snapshots/{}",
                NetApp::one_snapshot,
            ),
            on(
                "PATCH",
                "/api/storage/volumes/{}/snapshots/{}",
                NetApp::change_snapshot,
            ),
            on(
                "DELETE",
                "/api/storage/volumes/{}/snapshots/{}",
                NetApp::delete_snapshot,
            ),
        ];
        ROUTES
    }

    fn admit(&self, request: &Request) -> Result<(), Reply> {
        self.tick();
        if request.basic() == Some((USER.to_owned(), PASSWORD.to_owned())) {
            return Ok(());
        }
        Err(fault(401, "6691623", "User is not authorized."))
    }

    fn jobs(&self) -> Option<&Jobs> {
        Some(&self.jobs)
    }

    fn error(&self, status: u16, text: &str) -> Reply {
        let code = match status {
            401 => "6691623",
            403 => "6",
            404 => "4",
            429 | 503 => "262160",
            _ => "65536",
        };
        fault(status, code, text)
    }
}

/// Over a directory, with the usual credentials.
pub(crate) fn start(dir: &Path, port: u16) -> Box<dyn Running> {
    Box::new(Simulator::start_on(
        NetApp::new(dir),
        &std::env::temp_dir(),
        port,
    ))
}

fn job_uuid(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

fn trouble(code: &str, text: &str) -> Trouble {
    let (code, text) = (code.to_owned(), text.to_owned());
    Trouble { code, text }
}

fn hal(status: u16, body: Value) -> Reply {
    Reply::json(status, body).header("content-type", "application/hal+json")
}

fn fault(status: u16, code: &str, text: &str) -> Reply {
    hal(status, json!({"error": {"message": text, "code": code}}))
}

/// A field by its dotted path, whether objects are nested or keys have dots.
fn field(value: &Value, path: &str) -> Option<Value> {
    if let Some(found) = value.get(path) {
        return Some(found.clone());
    }
    let (first, rest) = path.split_once('.')?;
    field(value.get(first)?, rest)
}

fn text(value: &Value, path: &str) -> Option<String> {
    match field(value, path)? {
        Value::String(text) => Some(text),
        Value::Null => None,
        other => Some(other.to_string()),
    }
}

fn number_of(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Words in a query that are no fields.
const WORDS: &[&str] = &[
    "fields",
    "max_records",
    "return_records",
    "return_timeout",
    "return_unmatched_nested_array_objects",
    "order_by",
    "start.index",
];

/// The records that the query asks for, a page of them.
fn collection(ask: &Request, records: Vec<Value>) -> Reply {
    let filters = ask
        .query
        .iter()
        .filter(|(key, _)| !WORDS.contains(&key.as_str()));
    let filters: Vec<_> = filters.collect();
    let wanted = |record: &Value| {
        filters.iter().all(|(key, pattern)| {
            let value = text(record, key).unwrap_or_default();
            pattern.split('|').any(|one| fits(one, &value))
        })
    };
    let all: Vec<_> = records.into_iter().filter(wanted).collect();
    let number = |key| ask.query(key).and_then(|text| text.parse::<usize>().ok());
    let (from, page) = (
        number("start.index").unwrap_or(0),
        number("max_records").unwrap_or(10_000),
    );
    let more = from + page < all.len();
    let records: Vec<_> = all.into_iter().skip(from).take(page).collect();
    let pairs = ask.query.iter().filter(|(key, _)| key != "start.index");
    let pairs = pairs.map(|(key, value)| format!("{key}={}", encoded(value)));
    let query = pairs.collect::<Vec<_>>().join("&");
    let own = format!("{}?{query}", ask.path);
    let mut links = Map::new();
    if more {
        let next = format!("{own}&start.index={}", from + page);
        links.insert("next".to_owned(), json!({ "href": next }));
    }
    links.insert("self".to_owned(), json!({ "href": own }));
    let body = json!({"num_records": records.len(), "records": records, "_links": links});
    hal(200, body)
}

fn encoded(text: &str) -> String {
    let set = percent_encoding::NON_ALPHANUMERIC;
    percent_encoding::utf8_percent_encode(text, set).to_string()
}

/// Whether a value is what a pattern with `*` means.
fn fits(pattern: &str, value: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == value,
        Some((begin, end)) => {
            begin.len() + end.len() <= value.len()
                && value.starts_with(begin)
                && value.ends_with(end)
        }
    }
}
