//! Dell PowerScale OneFS: a directory below `/ifs`; SmartQuotas, snapshots, statistics, hardware.
//!
//! A quota on a directory that is not empty is counted first: `ready` comes after it was looked at.
//! A snapshot is a copy in `.snapshot` of the very directory, which real clusters do not list.
//!
//! Source: OneFS platform API, proved by `isilon-sdk` 0.7.0.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::{Reply, Request, Route, Running, Simulator, Vendor, disk};

/// The account that may.
pub const USER: &str = "root";
/// Its password.
pub const PASSWORD: &str = "isilon1!";
/// The directory of the cluster that the directory of the simulator is.
pub const IFS_PATH: &str = "/ifs/data/backend";
/// The cluster's nodes.
const NODES: [u64; 3] = [1, 2, 3];
const SIZE_BYTES: u64 = 1 << 42;
/// Length of ids of quotas.
const ID_BYTES: usize = 32;

/// See the module.
pub struct OneFs {
    dir: PathBuf,
    state: Mutex<State>,
}

struct Quota {
    id: String,
    path: String,
    told: Map<String, Value>,
    /// Looks until it is counted.
    counting: usize,
}

struct Snapshot {
    id: u64,
    name: String,
    path: String,
    created: i64,
    expires: Option<i64>,
}

struct State {
    quotas: Vec<Quota>,
    snapshots: Vec<Snapshot>,
    /// Guards by session.
    sessions: BTreeMap<String, String>,
    made: u64,
    /// What the next quotas on full directories need.
    looks: usize,
    page: usize,
    has_sessions: bool,
    has_rates: bool,
    down: Option<u64>,
}

impl OneFs {
    /// A cluster without quotas and snapshots.
    pub fn new(dir: &Path) -> Self {
        let state = State {
            quotas: Vec::new(),
            snapshots: Vec::new(),
            sessions: BTreeMap::new(),
            made: 0,
            looks: 1,
            page: 1000,
            has_sessions: true,
            has_rates: true,
            down: None,
        };
        Self {
            dir: dir.to_owned(),
            state: Mutex::new(state),
        }
    }

    /// Quotas to come on directories that are not empty are ready after so many looks.
    pub fn count_slowly(&self, looks: usize) {
        self.state.lock().looks = looks;
    }

    /// Lists come in pages of so many.
    pub fn page(&self, items: usize) {
        self.state.lock().page = items;
    }

    /// The account may not open sessions.
    pub fn refuse_sessions(&self) {
        let mut state = self.state.lock();
        state.has_sessions = false;
        state.sessions.clear();
    }

    /// An older version that does not tell reads and writes apart.
    pub fn forget_rates(&self) {
        self.state.lock().has_rates = false;
    }

    /// A node is down, or none.
    pub fn node_down(&self, node: Option<u64>) {
        self.state.lock().down = node;
    }

    /// Ids and paths of the quotas.
    pub fn quotas(&self) -> Vec<(String, String)> {
        let state = self.state.lock();
        let quotas = state.quotas.iter();
        quotas
            .map(|quota| (quota.id.clone(), quota.path.clone()))
            .collect()
    }

    /// A quota that somebody else made.
    pub fn add_quota(&self, path: &str, hard: u64) -> String {
        let told = json!({"thresholds": {"hard": hard}, "type": "directory"});
        let told = told.as_object().cloned().unwrap_or_default();
        self.state.lock().add(path, told, 0)
    }

    /// All quotas are gone, as after somebody tidied up.
    pub fn drop_quotas(&self) {
        self.state.lock().quotas.clear();
    }

    /// Where a path of the cluster is here.
    fn here(&self, path: &str) -> Option<PathBuf> {
        let below = path.strip_prefix(IFS_PATH)?;
        let good = below.is_empty() || below.starts_with('/');
        let plain = below.split('/').all(|part| part != "..");
        (good && plain).then(|| self.dir.join(below.trim_matches('/')))
    }

    fn session(&self, ask: &Request) -> Reply {
        let told = ask.json();
        let mut state = self.state.lock();
        if !state.has_sessions {
            return fault(404, "AEC_NOT_FOUND", "Path not found.");
        }
        if told["username"] != USER || told["password"] != PASSWORD {
            return fault(
                401,
                "AEC_UNAUTHORIZED",
                "Username or password is incorrect.",
            );
        }
        let (session, guard) = (state.token("s"), state.token("c"));
        state.sessions.insert(session.clone(), guard.clone());
        let body = json!({
            "username": USER, "services": told["services"],
            "timeout_absolute": 14400, "timeout_inactive": 900,
        });
        Reply::json(201, body)
            .header(
                "set-cookie",
                &format!("isisessid={session}; path=/; HttpOnly; Secure"),
            )
            .header("set-cookie", &format!("isicsrf={guard}; path=/; Secure"))
    }

    fn end_session(&self, ask: &Request) -> Reply {
        let session = ask.cookie("isisessid").unwrap_or_default();
        self.state.lock().sessions.remove(session);
        Reply::empty(204)
    }

    fn latest(&self, _: &Request) -> Reply {
        Reply::json(200, json!({"latest": "19"}))
    }

    fn quota_list(&self, ask: &Request) -> Reply {
        let mut state = self.state.lock();
        let fits = |quota: &Quota| {
            let path = ask.query("path").is_none_or(|path| path == quota.path);
            let kind = ask
                .query("type")
                .is_none_or(|kind| quota.told["type"] == kind);
            path && kind
        };
        let places: Vec<usize> = (0..state.quotas.len())
            .filter(|at| ask.query("resume").is_some() || fits(&state.quotas[*at]))
            .collect();
        let all = places
            .into_iter()
            .map(|at| self.shown(&mut state.quotas[at]))
            .collect();
        listed(ask, "quotas", all, state.page)
    }

    fn one_quota(&self, ask: &Request) -> Reply {
        let mut state = self.state.lock();
        match state
            .quotas
            .iter_mut()
            .find(|quota| quota.id == ask.params[1])
        {
            Some(quota) => Reply::json(200, json!({"quotas": [self.shown(quota)]})),
            None => unknown("quota"),
        }
    }

    fn shown(&self, quota: &mut Quota) -> Value {
        let ready = quota.counting == 0;
        quota.counting = quota.counting.saturating_sub(1);
        let dir = self.here(&quota.path).unwrap_or_default();
        let (bytes, inodes) = disk::sums(&dir, &[]);
        let told = &quota.told["thresholds"];
        let hard = told["hard"].as_u64();
        let mut usage = Map::new();
        for key in [
            "applogical",
            "fslogical",
            "fsphysical",
            "physical",
            "physical_data",
            "physical_protection",
        ] {
            usage.insert(key.to_owned(), json!(if ready { bytes } else { 0 }));
            usage.insert(format!("{key}_ready"), json!(ready));
        }
        for (key, value) in [("inodes", inodes), ("shadow_refs", 0)] {
            usage.insert(key.to_owned(), json!(value));
            usage.insert(format!("{key}_ready"), json!(ready));
        }
        json!({
            "id": quota.id, "path": quota.path, "type": quota.told["type"], "persona": null,
            "enforced": quota.told.get("enforced").unwrap_or(&json!(false)),
            "container": quota.told.get("container").unwrap_or(&json!(false)),
            "include_snapshots": false, "linked": false, "notifications": "default",
            "ready": ready, "labels": "", "description": "",
            "efficiency_ratio": null, "reduction_ratio": null,
            "thresholds_on": quota.told.get("thresholds_on").unwrap_or(&json!("fslogicalsize")),
            "thresholds": {
                "advisory": told["advisory"], "advisory_exceeded": false,
                "advisory_last_exceeded": null, "hard": hard,
                "hard_exceeded": hard.is_some_and(|hard| hard < bytes),
                "hard_last_exceeded": null, "percent_advisory": null, "percent_soft": null,
                "soft": told["soft"], "soft_exceeded": false, "soft_grace": null,
                "soft_last_exceeded": null,
            },
            "usage": usage,
        })
    }

    fn create_quota(&self, ask: &Request) -> Reply {
        let Value::Object(told) = ask.json() else {
            return bad("", "The body is no JSON object.");
        };
        for key in ["path", "type"] {
            if !told.get(key).is_some_and(Value::is_string) {
                return bad(key, "Field is required.");
            }
        }
        if !told.get("include_snapshots").is_some_and(Value::is_boolean) {
            return bad("include_snapshots", "Field is required.");
        }
        if let Err(refusal) = thresholds(&told) {
            return refusal;
        }
        let path = told["path"].as_str().unwrap_or_default().to_owned();
        let Some(here) = self.here(&path).filter(|here| here.is_dir()) else {
            return bad("path", "Path does not exist.");
        };
        let mut state = self.state.lock();
        let same = |quota: &&Quota| quota.path == path && quota.told["type"] == told["type"];
        if state.quotas.iter().find(same).is_some() {
            return fault(409, "AEC_CONFLICT", "The quota domain exists already.");
        }
        let full = disk::sums(&here, &[]).1 > 0;
        let looks = if full { state.looks } else { 0 };
        let id = state.add(&path, told, looks);
        Reply::json(201, json!({ "id": id }))
    }

    fn change_quota(&self, ask: &Request) -> Reply {
        let Value::Object(told) = ask.json() else {
            return bad("", "The body is no JSON object.");
        };
        if told.contains_key("path") || told.contains_key("type") {
            return bad("path", "Field cannot be changed.");
        }
        if let Err(refusal) = thresholds(&told) {
            return refusal;
        }
        let mut state = self.state.lock();
        match state
            .quotas
            .iter_mut()
            .find(|quota| quota.id == ask.params[1])
        {
            Some(quota) => {
                quota.told.extend(told);
                Reply::empty(204)
            }
            None => unknown("quota"),
        }
    }

    fn delete_quota(&self, ask: &Request) -> Reply {
        let mut state = self.state.lock();
        let before = state.quotas.len();
        state.quotas.retain(|quota| quota.id != ask.params[1]);
        if state.quotas.len() == before {
            return unknown("quota");
        }
        Reply::empty(204)
    }

    fn pools(&self, _: &Request) -> Reply {
        let (used, _) = disk::sums(&self.dir, &[]);
        let mut usage = Map::new();
        for (kind, part) in [("", 1), ("hdd_", 0), ("ssd_", 1)] {
            let free = SIZE_BYTES - used;
            for (key, bytes) in [
                ("avail", free),
                ("free", free),
                ("total", SIZE_BYTES),
                ("usable", SIZE_BYTES),
                ("used", used),
            ] {
                // Numbers are texts here.
                usage.insert(
                    format!("{key}_{kind}bytes"),
                    json!((bytes * part).to_string()),
                );
            }
        }
        for key in ["pct_used", "pct_used_hdd", "pct_used_ssd"] {
            usage.insert(key.to_owned(), json!("1"));
        }
        usage.insert("balanced".to_owned(), json!(true));
        let pool = json!({
            "id": 1, "name": "pool1", "type": "nodepool", "lnns": NODES, "children": [],
            "health_flags": [], "manual": false, "l3": false, "can_disable_l3": false,
            "can_enable_l3": false, "l3_status": "storage", "node_type_ids": [1],
            "protection_policy": "+2d:1n", "transfer_limit_pct": 90,
            "transfer_limit_state": "default", "usage": usage,
        });
        Reply::json(200, json!({"storagepools": [pool], "total": 1}))
    }

    fn config(&self, _: &Request) -> Reply {
        let down = self.state.lock().down;
        let devices = NODES.iter().map(|lnn| {
            let is_up = Some(*lnn) != down;
            json!({"devid": lnn, "lnn": lnn, "guid": format!("0007{lnn}"), "is_up": is_up})
        });
        let body = json!({
            "name": "simulated", "guid": "000723", "description": "", "encoding": "utf-8",
            "availability_zone": "", "region": "", "node_id": "", "is_compliance": false,
            "is_powerscale_ve": false, "is_virtual": false, "is_vonefs": false,
            "has_quorum": true, "join_mode": "manual", "local_devid": 1, "local_lnn": 1,
            "local_serial": "S1", "devices": devices.collect::<Vec<_>>(),
            "onefs_version": {
                "release": "v9.12.0.0", "build": "B_9_12_0_001(RELEASE)", "revision": "1",
                "reldate": "1",
                "type": "Isilon OneFS", "version": "Isilon OneFS v9.12.0.0", "copyright": "",
            },
            "timezone": {"name": "UTC", "path": "UTC", "abbreviation": "UTC", "custom": ""},
        });
        Reply::json(200, body)
    }

    fn interfaces(&self, _: &Request) -> Reply {
        let one = json!({
            "id": "1:ext-1", "lnn": 1, "name": "ext-1", "status": "up", "type": "gige",
            "ip_addrs": ["10.0.0.1"], "nic_name": "em0", "owners": [], "flags": [],
            "linklayer": "ethernet", "vlans": [],
        });
        Reply::json(
            200,
            json!({"interfaces": [one], "resume": null, "total": 1}),
        )
    }

    fn hardware(&self, ask: &Request) -> Reply {
        let lnn: u64 = ask.params[1].parse().unwrap_or_default();
        if !NODES.contains(&lnn) {
            return unknown("node");
        }
        let node = json!({
            "id": lnn, "lnn": lnn, "product": "F200", "configuration_id": "400-0049-03",
            "serial_number": format!("SV200-{lnn}"), "chassis": "1U",
            "node_id": "", "region": "", "resource_group": "", "subscription_id": "",
            "top_level_assembly_serial_number": "", "volume_type": "",
        });
        Reply::json(200, json!({"nodes": [node], "errors": [], "total": 1}))
    }

    fn nvram(&self, ask: &Request) -> Reply {
        let lnn: u64 = ask.params[1].parse().unwrap_or_default();
        if !NODES.contains(&lnn) {
            return unknown("node");
        }
        let battery = json!({"id": 1, "status": "OK", "color": "green", "voltage": "4.0"});
        let node = json!({
            "id": lnn, "lnn": lnn, "batteries": [battery], "battery_count": 1,
            "charge_status": "GREEN", "charge_status_number": 0, "present": true,
            "present_flash": true, "present_size": 0, "present_type": "vault", "status": 200,
            "supported": true, "supported_flash": true, "supported_type": "vault",
        });
        Reply::json(200, json!({"nodes": [node], "errors": [], "total": 1}))
    }

    fn protocol_stats(&self, _: &Request) -> Reply {
        let network = json!({
            "errors_per_sec": 0.0, "megabytes_per_sec": 1.0, "packets_per_sec": 100.0,
        });
        let body = json!({"protocol-stats": {
            "time": now(), "node": null,
            "cpu": {"idle": 90.0, "system": 6.0, "user": 4.0},
            "disk": {"iops": 300.4, "read": 2.5, "write": 1.5},
            "network": {"in": network, "out": network},
            "onefs": {"in": 1.5, "out": 2.5, "total": 4.0},
            "protocol": {"data": []},
        }});
        Reply::json(200, body)
    }

    fn workload(&self, ask: &Request) -> Reply {
        let name = ask.query("system_names").unwrap_or("nfs3");
        let one = json!({
            "system_name": name, "node": 1.0, "time": now(), "cpu": 1.0, "ops": 300.0,
            "l2": 0.0, "l3": 0.0,
            "reads": 200.0, "writes": 100.0, "bytes_in": 1.5e6, "bytes_out": 2.5e6,
            "latency_read": 350.5, "latency_write": 720.25, "latency_other": 10.0,
            "workload_type": null,
        });
        let all = if name == "nobody" { vec![] } else { vec![one] };
        Reply::json(200, json!({ "workload": all }))
    }

    fn current(&self, ask: &Request) -> Reply {
        if !self.state.lock().has_rates {
            return bad("keys", "Unknown statistics key.");
        }
        let keys = ask.query("keys").or(ask.query("key")).unwrap_or_default();
        let stats = keys.split(',').map(|key| {
            let value = match key {
                "cluster.disk.xfers.out.rate" => json!(200.4),
                "cluster.disk.xfers.in.rate" => json!(100.4),
                _ => Value::Null,
            };
            json!({
                "devid": 0, "node": null, "error": null, "error_code": null, "key": key,
                "time": now(), "value": value,
            })
        });
        Reply::json(200, json!({"stats": stats.collect::<Vec<_>>()}))
    }

    /// Removes snapshots whose time has come.
    fn expire_snapshots(&self, state: &mut State) {
        let now = now();
        let gone = |one: &Snapshot| one.expires.is_some_and(|at| at <= now);
        for one in state.snapshots.iter().filter(|one| gone(one)) {
            self.remove_copy(one);
        }
        state.snapshots.retain(|one| !gone(one));
    }

    fn copy_of(&self, path: &str, name: &str) -> Option<PathBuf> {
        Some(self.here(path)?.join(".snapshot").join(name))
    }

    fn remove_copy(&self, one: &Snapshot) {
        if let Some(copy) = self.copy_of(&one.path, &one.name) {
            disk::drop_copy(&copy);
        }
    }

    fn snapshot_list(&self, ask: &Request) -> Reply {
        let mut state = self.state.lock();
        self.expire_snapshots(&mut state);
        let all = state.snapshots.iter().map(snapshot).collect();
        listed(ask, "snapshots", all, state.page)
    }

    fn one_snapshot(&self, ask: &Request) -> Reply {
        let mut state = self.state.lock();
        self.expire_snapshots(&mut state);
        match state
            .snapshots
            .iter()
            .find(|one| is_called(one, &ask.params[1]))
        {
            Some(one) => Reply::json(200, json!({"snapshots": [snapshot(one)]})),
            None => unknown("snapshot"),
        }
    }

    fn create_snapshot(&self, ask: &Request) -> Reply {
        let told = ask.json();
        let (name, path) = (told["name"].as_str(), told["path"].as_str());
        let (Some(name), Some(path)) = (name, path) else {
            return bad("name", "Field is required.");
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || 255 < name.len() || !name.chars().all(plain) {
            return bad("name", "Invalid snapshot name.");
        }
        let expires = told["expires"].as_i64();
        if expires.is_some_and(|at| at <= now()) {
            return bad("expires", "Expiration must be in the future.");
        }
        let mut state = self.state.lock();
        self.expire_snapshots(&mut state);
        if state.snapshots.iter().any(|one| one.name == name) {
            return fault(409, "AEC_CONFLICT", "Snapshot name is in use.");
        }
        let Some(here) = self.here(path).filter(|here| here.is_dir()) else {
            return bad("path", "Path does not exist.");
        };
        let copied = self
            .copy_of(path, name)
            .map(|to| disk::copy(&here, &to, &[".snapshot"]));
        if !matches!(copied, Some(Ok(()))) {
            return fault(500, "AEC_EXCEPTION", "The directory cannot be kept.");
        }
        state.made += 1;
        let one = Snapshot {
            id: state.made,
            name: name.to_owned(),
            path: path.to_owned(),
            created: now(),
            expires,
        };
        let shown = snapshot(&one);
        state.snapshots.push(one);
        Reply::json(201, shown)
    }

    fn delete_snapshot(&self, ask: &Request) -> Reply {
        let mut state = self.state.lock();
        let at = state
            .snapshots
            .iter()
            .position(|one| is_called(one, &ask.params[1]));
        let Some(at) = at else {
            return unknown("snapshot");
        };
        let one = state.snapshots.remove(at);
        self.remove_copy(&one);
        Reply::empty(204)
    }
}

impl State {
    fn token(&mut self, kind: &str) -> String {
        self.made += 1;
        let number = uuid::Uuid::from_u128(u128::from(self.made) << 64 | 0x1517_0000);
        format!("{kind}{}", number.simple())
    }

    fn add(&mut self, path: &str, told: Map<String, Value>, counting: usize) -> String {
        self.made += 1;
        let id = format!("AABpAQEAAAAAAAAAAAAAQA0A{:08}", self.made);
        assert_eq!(id.len(), ID_BYTES, "clients refuse other ones");
        self.quotas.push(Quota {
            id: id.clone(),
            path: path.to_owned(),
            told,
            counting,
        });
        id
    }
}

fn is_called(one: &Snapshot, text: &str) -> bool {
    one.name == text || text.parse() == Ok(one.id)
}

fn snapshot(one: &Snapshot) -> Value {
    json!({
        "id": one.id, "name": one.name, "path": one.path, "created": one.created,
        "expires": one.expires, "state": "active", "size": 2048, "shadow_bytes": 0,
        "has_locks": false, "schedule": null, "alias": null, "target_id": null,
        "target_name": null, "pct_filesystem": 0.0, "pct_reserve": 0.0,
    })
}

fn thresholds(told: &Map<String, Value>) -> Result<(), Reply> {
    let hard = &told.get("thresholds").unwrap_or(&Value::Null)["hard"];
    if hard.is_null() || hard.as_u64().is_some_and(|hard| hard > 0) {
        return Ok(());
    }
    Err(bad("thresholds.hard", "Must be an integer of at least 1."))
}

/// One page of a list; the token says where the next one begins.
fn listed(ask: &Request, key: &str, all: Vec<Value>, page: usize) -> Reply {
    let from: usize = ask
        .query("resume")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let asked = ask.query("limit").and_then(|text| text.parse().ok());
    let page = asked.unwrap_or(page).max(1);
    let total = all.len();
    let items: Vec<Value> = all.into_iter().skip(from).take(page).collect();
    let next = from + items.len();
    let resume = (next < total).then(|| next.to_string());
    let mut body = json!({"resume": resume, "total": total});
    body[key] = Value::Array(items);
    Reply::json(200, body)
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn fault(status: u16, code: &str, text: &str) -> Reply {
    Reply::json(status, json!({"errors": [{"code": code, "message": text}]}))
}

fn bad(field: &str, text: &str) -> Reply {
    let error = json!({"code": "AEC_BAD_REQUEST", "field": field, "message": text});
    Reply::json(400, json!({ "errors": [error] }))
}

fn unknown(what: &str) -> Reply {
    fault(404, "AEC_NOT_FOUND", &format!("The {what} does not exist."))
}

impl Vendor for OneFs {
    const NAME: &'static str = "dellemc-onefs";

    fn routes() -> &'static [Route<Self>] {
        const fn on(
            method: &'static str,
            pattern: &'static str,
            handle: fn(&OneFs, &Request) -> Reply,
        ) -> Route<OneFs> {
            Route {
                method,
                pattern,
                handle,
            }
        }
        const ROUTES: &[Route<OneFs>] = &[
            on("POST", "/session/1/session", OneFs::session),
            on("DELETE", "/session/1/session", OneFs::end_session),
            on("GET", "/platform/latest", OneFs::latest),
            on("GET", "/platform/{}/quota/quotas", OneFs::quota_list),
            on("POST", "/platform/{}/quota/quotas", OneFs::create_quota),
            on("GET", "/platform/{}/quota/quotas/{}", OneFs::one_quota),
            on("PUT", "/platform/{}/quota/quotas/{}", OneFs::change_quota),
            on(
                "DELETE",
                "/platform/{}/quota/quotas/{}",
                OneFs::delete_quota,
            ),
            on("GET", "/platform/{}/storagepool/storagepools", OneFs::pools),
            on("GET", "/platform/{}/cluster/config", OneFs::config),
            on("GET", "/platform/{}/network/interfaces", OneFs::interfaces),
            on(
                "GET",
                "/platform/{}/cluster/nodes/{}/hardware",
                OneFs::hardware,
            ),
            on(
                "GET",
                "/platform/{}/cluster/nodes/{}/status/nvram",
                OneFs::nvram,
            ),
            on(
                "GET",
                "/platform/{}/statistics/summary/protocol-stats",
                OneFs::protocol_stats,
            ),
            on(
                "GET",
                "/platform/{}/statistics/summary/workload",
                OneFs::workload,
            ),
            on("GET", "/platform/{}/statistics/current", OneFs::current),
            on(
                "GET",
                "/platform/{}/snapshot/snapshots",
                OneFs::snapshot_list,
            ),
            on(
                "POST",
                "/platform/{}/snapshot/snapshots",
                OneFs::create_snapshot,
            ),
            on(
                "GET",
                "/platform/{}/snapshot/snapshots/{}",
                OneFs::one_snapshot,
            ),
            on(
                "DELETE",
                "/platform/{}/snapshot/snapshots/{}",
                OneFs::delete_snapshot,
            ),
        ];
        ROUTES
    }

    fn admit(&self, request: &Request) -> Result<(), Reply> {
        if request.path == "/session/1/session" && request.method == "POST" {
            return Ok(());
        }
        let state = self.state.lock();
        let guard = request
            .cookie("isisessid")
            .and_then(|session| state.sessions.get(session));
        if let Some(guard) = guard {
            let told = request.header("x-csrf-token");
            let guarded = told == Some(guard) && request.header("referer").is_some();
            if guarded || request.basic().is_some() {
                return Ok(());
            }
            let text = "Invalid CSRF token or no referer.";
            return Err(fault(403, "AEC_FORBIDDEN", text));
        }
        if request.basic() == Some((USER.to_owned(), PASSWORD.to_owned())) {
            return Ok(());
        }
        Err(fault(401, "AEC_UNAUTHORIZED", "Authorization required."))
    }

    fn expire(&self) {
        self.state.lock().sessions.clear();
    }

    fn error(&self, status: u16, text: &str) -> Reply {
        let code = match status {
            400 => "AEC_BAD_REQUEST",
            401 => "AEC_UNAUTHORIZED",
            403 => "AEC_FORBIDDEN",
            404 => "AEC_NOT_FOUND",
            409 => "AEC_CONFLICT",
            429 | 503 => "AEC_TRANSIENT",
            _ => "AEC_EXCEPTION",
        };
        fault(status, code, text)
    }
}

/// A cluster on a directory, with the usual credentials.
pub(crate) fn start(dir: &Path, port: u16) -> Box<dyn Running> {
    Box::new(Simulator::start_on(
        OneFs::new(dir),
        &std::env::temp_dir(),
        port,
    ))
}
