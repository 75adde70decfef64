//! VAST: one cluster's management service; quotas by path, snapshots of directories, tokens.
//!
//! Tokens are JSON web tokens that end after a while; name and password, and an API token, are
//! taken with every call as well. A snapshot is a copy in `.snapshot` of the very directory, which
//! real clusters do not list.
//!
//! Source: OpenAPI of VMS 5.3, proved by `vastpy` 0.3.22.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::server::pairs;
use crate::{Reply, Request, Route, Running, Simulator, Vendor, disk};

/// The account that may.
pub const USER: &str = "admin";
/// Its password.
pub const PASSWORD: &str = "vast1!";
/// A token that needs no login.
pub const API_TOKEN: &str = "1Rl4k6vD.simulated";
/// The directory of the element store that the directory of the simulator is.
pub const BASE_DIR: &str = "/backend";
const SIZE_BYTES: u64 = 1 << 43;
/// Seconds that a token lasts.
const TOKEN_SECONDS: i64 = 300;

/// See the module.
pub struct Vast {
    dir: PathBuf,
    state: Mutex<State>,
}

struct Quota {
    id: u64,
    told: Map<String, Value>,
}

struct Snapshot {
    id: u64,
    told: Map<String, Value>,
    created: jiff::Timestamp,
}

struct State {
    quotas: Vec<Quota>,
    snapshots: Vec<Snapshot>,
    /// When each ends, in seconds after 1970.
    access: BTreeMap<String, i64>,
    refresh: BTreeMap<String, ()>,
    made: u64,
    has_pages: bool,
    cluster: String,
    seconds: i64,
}

impl Vast {
    /// A cluster without quotas and snapshots.
    pub fn new(dir: &Path) -> Self {
        let state = State {
            quotas: Vec::new(),
            snapshots: Vec::new(),
            access: BTreeMap::new(),
            refresh: BTreeMap::new(),
            made: 0,
            has_pages: true,
            cluster: "ONLINE".to_owned(),
            seconds: TOKEN_SECONDS,
        };
        Self {
            dir: dir.to_owned(),
            state: Mutex::new(state),
        }
    }

    /// A version that answers lists whole, whatever page is asked for.
    pub fn forget_pages(&self) {
        self.state.lock().has_pages = false;
    }

    /// The state of the cluster.
    pub fn set_cluster(&self, state: &str) {
        state.clone_into(&mut self.state.lock().cluster);
    }

    /// Tokens to come last so long.
    pub fn token_seconds(&self, seconds: i64) {
        self.state.lock().seconds = seconds;
    }

    /// Tokens end now; those to renew them with are kept.
    pub fn expire_access(&self) {
        self.state.lock().access.clear();
    }

    /// Numbers, names and paths of the quotas.
    pub fn quotas(&self) -> Vec<(u64, String, String)> {
        let state = self.state.lock();
        let text = |quota: &Quota, key: &str| quota.told[key].as_str().unwrap_or("").to_owned();
        let quotas = state.quotas.iter();
        quotas
            .map(|quota| (quota.id, text(quota, "name"), text(quota, "path")))
            .collect()
    }

    /// A quota that somebody else made.
    pub fn add_quota(&self, name: &str, path: &str, hard: u64) -> u64 {
        let told = json!({"name": name, "path": path, "hard_limit": hard, "soft_limit": hard});
        let mut state = self.state.lock();
        let id = state.next();
        let told = told.as_object().cloned().unwrap_or_default();
        state.quotas.push(Quota { id, told });
        id
    }

    /// All quotas are gone, as after somebody tidied up.
    pub fn drop_quotas(&self) {
        self.state.lock().quotas.clear();
    }

    /// Where a path of the element store is here.
    fn here(&self, path: &str) -> Option<PathBuf> {
        let below = path.strip_prefix(BASE_DIR)?;
        let good = below.is_empty() || below.starts_with('/');
        let plain = below.split('/').all(|part| part != "..");
        (good && plain).then(|| self.dir.join(below.trim_matches('/')))
    }

    fn token(&self, ask: &Request) -> Reply {
        let told = body_of(ask);
        if told["username"] != USER || told["password"] != PASSWORD {
            let text = "No active account found with the given credentials";
            return detail(401, text);
        }
        let mut state = self.state.lock();
        let (access, refresh) = (state.access(), state.refresh());
        Reply::json(200, json!({"access": access, "refresh": refresh}))
    }

    fn renew(&self, ask: &Request) -> Reply {
        let told = body_of(ask);
        let Some(token) = told["refresh"].as_str() else {
            return Reply::json(400, json!({"refresh": ["This field is required."]}));
        };
        let mut state = self.state.lock();
        if !state.refresh.contains_key(token) {
            return invalid_token(401);
        }
        let access = state.access();
        Reply::json(200, json!({ "access": access }))
    }

    fn quota_list(&self, ask: &Request) -> Reply {
        let state = self.state.lock();
        let fits = |quota: &&Quota| {
            let name = ask
                .query("name")
                .is_none_or(|name| quota.told["name"] == name);
            let part = ask.query("name__contains").unwrap_or_default();
            let own = quota.told["name"].as_str().unwrap_or_default();
            name && own.contains(part)
        };
        let all = state
            .quotas
            .iter()
            .filter(fits)
            .map(|quota| self.shown(quota));
        listed(ask, all.collect(), state.has_pages)
    }

    fn one_quota(&self, ask: &Request) -> Reply {
        let state = self.state.lock();
        match state
            .quotas
            .iter()
            .find(|quota| quota.id.to_string() == ask.params[1])
        {
            Some(quota) => Reply::json(200, self.shown(quota)),
            None => detail(404, "Not found."),
        }
    }

    fn shown(&self, quota: &Quota) -> Value {
        let dir = self.here(quota.told["path"].as_str().unwrap_or_default());
        let (used, inodes) = disk::sums(&dir.unwrap_or_default(), &[]);
        let limit = |key: &str| quota.told.get(key).and_then(Value::as_u64);
        let state = match (limit("soft_limit"), limit("hard_limit")) {
            (_, Some(hard)) if hard < used => "HARD_EXCEEDED",
            (Some(soft), _) if soft < used => "SOFT_EXCEEDED",
            _ => "OK",
        };
        let percent = limit("hard_limit").map(|hard| used * 100 / hard.max(1));
        json!({
            "id": quota.id, "guid": format!("6c1a{:08}", quota.id),
            "name": quota.told["name"], "path": quota.told["path"],
            "tenant_id": 1, "tenant_name": "default", "state": state, "pretty_state": state,
            "sync_state": "SYNCHRONIZED", "grace_period": quota.told.get("grace_period"),
            "soft_limit": limit("soft_limit"), "hard_limit": limit("hard_limit"),
            "soft_limit_inodes": null, "hard_limit_inodes": null,
            "used_capacity": used, "used_effective_capacity": used,
            "used_limited_capacity": used, "used_inodes": inodes,
            "percent_capacity": percent, "percent_inodes": 0, "time_to_block": null,
            "enable_alarms": false, "is_user_quota": false, "cluster": "simulated",
            "cluster_id": 1, "system_id": 1, "url": format!("/api/v2/quotas/{}", quota.id),
        })
    }

    fn create_quota(&self, ask: &Request) -> Reply {
        let Value::Object(told) = ask.json() else {
            return detail(400, "JSON parse error");
        };
        if let Err(refusal) = required(&told, &["name", "path"]).and_then(|()| limits(&told)) {
            return refusal;
        }
        let path = told["path"].as_str().unwrap_or_default().to_owned();
        let here = self.here(&path);
        let there = here.as_ref().is_some_and(|here| here.is_dir());
        if !there && told.get("create_dir") == Some(&json!(true)) {
            let _ = here.map(fs::create_dir_all);
        } else if !there {
            return field("path", &format!("directory {path} does not exist"));
        }
        let mut state = self.state.lock();
        if state
            .quotas
            .iter()
            .any(|quota| quota.told["name"] == told["name"])
        {
            return field("name", "quota with this name already exists.");
        }
        if state
            .quotas
            .iter()
            .any(|quota| quota.told["path"] == told["path"])
        {
            return detail(409, "a quota for this path already exists");
        }
        let id = state.next();
        let quota = Quota { id, told };
        let shown = self.shown(&quota);
        state.quotas.push(quota);
        Reply::json(201, shown)
    }

    fn change_quota(&self, ask: &Request) -> Reply {
        let Value::Object(told) = ask.json() else {
            return detail(400, "JSON parse error");
        };
        if told.contains_key("path") {
            return field("path", "the path of a quota cannot be changed");
        }
        if let Err(refusal) = limits(&told) {
            return refusal;
        }
        let mut state = self.state.lock();
        let found = state
            .quotas
            .iter_mut()
            .find(|quota| quota.id.to_string() == ask.params[1]);
        match found {
            Some(quota) => {
                quota.told.extend(told);
                Reply::json(200, self.shown(quota))
            }
            None => detail(404, "Not found."),
        }
    }

    fn delete_quota(&self, ask: &Request) -> Reply {
        let mut state = self.state.lock();
        let before = state.quotas.len();
        state
            .quotas
            .retain(|quota| quota.id.to_string() != ask.params[1]);
        if state.quotas.len() == before {
            return detail(404, "Not found.");
        }
        Reply::empty(204)
    }

    fn cluster(&self) -> Value {
        let (used, _) = disk::sums(&self.dir, &[]);
        json!({
            "id": 1, "guid": "f1b2", "name": "simulated", "state": self.state.lock().cluster,
            "ip": "10.0.0.1", "mgmt_vip": "10.0.0.2", "sw_version": "5.3.0",
            "physical_space": SIZE_BYTES, "physical_space_in_use": used,
            "logical_space": SIZE_BYTES * 2, "logical_space_in_use": used,
            "usable_capacity_bytes": SIZE_BYTES, "free_usable_capacity": SIZE_BYTES - used,
            "rd_iops": 200.4, "wr_iops": 100.4, "iops": 300.8, "rd_md_iops": 5.0,
            "rd_bw": 2_500_000.4, "wr_bw": 1_500_000.4, "bw": 4_000_000.8,
            "rd_latency": 350.5, "wr_latency": 720.25, "latency": 500.0,
            "rd_latency_ms": 0.3505, "wr_latency_ms": 0.72025,
            "max_performance": 1_000_000.0,
        })
    }

    fn cluster_list(&self, ask: &Request) -> Reply {
        let pages = self.state.lock().has_pages;
        listed(ask, vec![self.cluster()], pages)
    }

    fn one_cluster(&self, ask: &Request) -> Reply {
        if ask.params[1] != "1" {
            return detail(404, "Not found.");
        }
        Reply::json(200, self.cluster())
    }

    fn capacity(&self, ask: &Request) -> Reply {
        let path = ask.query("path").unwrap_or(BASE_DIR);
        let Some(here) = self.here(path) else {
            return detail(404, "Not found.");
        };
        let (used, _) = disk::sums(&here, &[".snapshot"]);
        let data = json!({"data": [used, used, used], "percent": 100, "parent": "/",
            "average_atime": "2026-01-01 00:00"});
        let body = json!({
            "details": [[path, data]], "keys": ["usable", "unique", "logical"],
            "time": jiff::Timestamp::now().to_string(),
        });
        Reply::json(200, body)
    }

    fn copy_of(&self, told: &Map<String, Value>) -> Option<PathBuf> {
        let here = self.here(told["path"].as_str()?.trim_end_matches('/'))?;
        Some(here.join(".snapshot").join(told["name"].as_str()?))
    }

    fn remove_copy(&self, one: &Snapshot) {
        if let Some(copy) = self.copy_of(&one.told) {
            disk::drop_copy(&copy);
        }
    }

    /// Removes snapshots whose time has come.
    fn expire_snapshots(&self, state: &mut State) {
        let now = jiff::Timestamp::now();
        let gone = |one: &Snapshot| ends(&one.told).is_some_and(|at| at <= now);
        for one in state.snapshots.iter().filter(|one| gone(one)) {
            self.remove_copy(one);
        }
        state.snapshots.retain(|one| !gone(one));
    }

    fn snapshot_list(&self, ask: &Request) -> Reply {
        let mut state = self.state.lock();
        self.expire_snapshots(&mut state);
        let fits = |one: &&Snapshot| {
            let path = ask
                .query("path")
                .is_none_or(|path| one.told["path"] == path);
            let part = ask.query("name__contains").unwrap_or_default();
            let name = one.told["name"].as_str().unwrap_or_default();
            path && name.contains(part) && ask.query("name").is_none_or(|own| own == name)
        };
        let all = state.snapshots.iter().filter(fits).map(snapshot);
        listed(ask, all.collect(), state.has_pages)
    }

    fn one_snapshot(&self, ask: &Request) -> Reply {
        let state = self.state.lock();
        match state
            .snapshots
            .iter()
            .find(|one| one.id.to_string() == ask.params[1])
        {
            Some(one) => Reply::json(200, snapshot(one)),
            None => detail(404, "Not found."),
        }
    }

    fn create_snapshot(&self, ask: &Request) -> Reply {
        let Value::Object(told) = ask.json() else {
            return detail(400, "JSON parse error");
        };
        if let Err(refusal) = required(&told, &["name", "path"]) {
            return refusal;
        }
        let path = told["path"].as_str().unwrap_or_default();
        if !path.ends_with('/') {
            return field("path", "path must end with a slash");
        }
        let wrong_time = told
            .get("expiration_time")
            .is_some_and(|time| !time.is_null());
        if wrong_time && ends(&told).is_none_or(|at| at <= jiff::Timestamp::now()) {
            return field("expiration_time", "must be a time in the future");
        }
        let here = self
            .here(path.trim_end_matches('/'))
            .filter(|here| here.is_dir());
        let (Some(here), Some(copy)) = (here, self.copy_of(&told)) else {
            return field("path", "directory does not exist");
        };
        let mut state = self.state.lock();
        self.expire_snapshots(&mut state);
        let same =
            |one: &Snapshot| one.told["name"] == told["name"] && one.told["path"] == told["path"];
        if state.snapshots.iter().any(same) {
            return field("name", "snapshot with this name already exists.");
        }
        if disk::copy(&here, &copy, &[".snapshot"]).is_err() {
            return detail(500, "the directory cannot be kept");
        }
        let one = Snapshot {
            id: state.next(),
            told,
            created: jiff::Timestamp::now(),
        };
        let shown = snapshot(&one);
        state.snapshots.push(one);
        Reply::json(201, shown)
    }

    fn change_snapshot(&self, ask: &Request) -> Reply {
        let told = ask.json();
        let mut state = self.state.lock();
        let found = state
            .snapshots
            .iter_mut()
            .find(|one| one.id.to_string() == ask.params[1]);
        let Some(one) = found else {
            return detail(404, "Not found.");
        };
        if let Some(time) = told.get("expiration_time") {
            one.told.insert("expiration_time".to_owned(), time.clone());
        }
        Reply::json(200, snapshot(one))
    }

    fn delete_snapshot(&self, ask: &Request) -> Reply {
        let mut state = self.state.lock();
        let at = state
            .snapshots
            .iter()
            .position(|one| one.id.to_string() == ask.params[1]);
        let Some(at) = at else {
            return detail(404, "Not found.");
        };
        let one = state.snapshots.remove(at);
        self.remove_copy(&one);
        Reply::empty(204)
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    fn access(&mut self) -> String {
        let now = jiff::Timestamp::now().as_second();
        let ends = now + self.seconds;
        let number = self.next();
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(json!({"alg": "HS256", "typ": "JWT"}));
        let claims = json!({
            "token_type": "access", "exp": ends, "iat": now, "jti": number, "user_id": 1,
        });
        let token = format!("{head}.{}.c2lnbmF0dXJl", part(claims));
        self.access.insert(token.clone(), ends);
        token
    }

    fn refresh(&mut self) -> String {
        let token = format!("refresh-{}", self.next());
        self.refresh.insert(token.clone(), ());
        token
    }
}

/// A body as JSON, also from a form.
fn body_of(ask: &Request) -> Value {
    let is_form = ask
        .header("content-type")
        .is_some_and(|kind| kind.contains("form"));
    if !is_form {
        return ask.json();
    }
    let text = String::from_utf8_lossy(&ask.body);
    let pairs = pairs(&text).into_iter();
    Value::Object(pairs.map(|(key, value)| (key, json!(value))).collect())
}

fn ends(told: &Map<String, Value>) -> Option<jiff::Timestamp> {
    told.get("expiration_time")?.as_str()?.parse().ok()
}

fn snapshot(one: &Snapshot) -> Value {
    json!({
        "id": one.id, "guid": format!("5a{:08}", one.id), "name": one.told["name"],
        "path": one.told["path"], "state": "AVAILABLE", "created": one.created.to_string(),
        "expiration_time": one.told.get("expiration_time"), "locked": false,
        "indestructible": false, "policy_id": null, "tenant_id": 1, "type": "LOCAL",
        "aggr_phys_estimation": 4096, "unique_phys_estimation": 2048,
    })
}

fn required(told: &Map<String, Value>, keys: &[&str]) -> Result<(), Reply> {
    for key in keys {
        let text = told.get(*key).and_then(Value::as_str);
        if text.is_none_or(str::is_empty) {
            return Err(field(key, "This field is required."));
        }
    }
    Ok(())
}

fn limits(told: &Map<String, Value>) -> Result<(), Reply> {
    for key in ["soft_limit", "hard_limit"] {
        let value = told.get(key).unwrap_or(&Value::Null);
        if !value.is_null() && value.as_u64().is_none_or(|limit| i64::MAX as u64 <= limit) {
            return Err(field(key, "A valid integer is required."));
        }
    }
    Ok(())
}

fn listed(ask: &Request, all: Vec<Value>, has_pages: bool) -> Reply {
    let number = |key: &str| ask.query(key).and_then(|text| text.parse::<usize>().ok());
    let Some(page) = number("page").filter(|_| has_pages) else {
        return Reply::json(200, Value::Array(all));
    };
    let size = number("page_size").unwrap_or(50).max(1);
    let (page, count) = (page.max(1), all.len());
    let more = page * size < count;
    let items: Vec<Value> = all.into_iter().skip((page - 1) * size).take(size).collect();
    let others = ask.query.iter().filter(|(key, _)| key != "page");
    let others: String = others
        .map(|(key, value)| format!("&{key}={}", encoded(value)))
        .collect();
    let next = format!("https://10.0.0.2{}?page={}{others}", ask.path, page + 1);
    let next = more.then_some(next);
    Reply::json(200, json!({"count": count, "next": next, "results": items}))
}

fn encoded(text: &str) -> String {
    let set = percent_encoding::NON_ALPHANUMERIC;
    percent_encoding::utf8_percent_encode(text, set).to_string()
}

fn detail(status: u16, text: &str) -> Reply {
    Reply::json(status, json!({ "detail": text }))
}

fn field(key: &str, text: &str) -> Reply {
    let mut body = Map::new();
    body.insert(key.to_owned(), json!([text]));
    Reply::json(400, Value::Object(body))
}

fn invalid_token(status: u16) -> Reply {
    let body = json!({"detail": "Token is invalid or expired", "code": "token_not_valid"});
    Reply::json(status, body)
}

impl Vendor for Vast {
    const NAME: &'static str = "vast";

    fn routes() -> &'static [Route<Self>] {
        const fn on(
            method: &'static str,
            pattern: &'static str,
            handle: fn(&Vast, &Request) -> Reply,
        ) -> Route<Vast> {
            Route {
                method,
                pattern,
                handle,
            }
        }
        const ROUTES: &[Route<Vast>] = &[
            on("POST", "/api/{}/token/", Vast::token),
            on("POST", "/api/{}/token/refresh/", Vast::renew),
            on("GET", "/api/{}/quotas/", Vast::quota_list),
            on("POST", "/api/{}/quotas/", Vast::create_quota),
            on("GET", "/api/{}/quotas/{}/", Vast::one_quota),
            on("PATCH", "/api/{}/quotas/{}/", Vast::change_quota),
            on("DELETE", "/api/{}/quotas/{}/", Vast::delete_quota),
            on("GET", "/api/{}/clusters/", Vast::cluster_list),
            on("GET", "/api/{}/clusters/{}/", Vast::one_cluster),
            on("GET", "/api/{}/capacity/", Vast::capacity),
            on("GET", "/api/{}/snapshots/", Vast::snapshot_list),
            on("POST", "/api/{}/snapshots/", Vast::create_snapshot),
            on("GET", "/api/{}/snapshots/{}/", Vast::one_snapshot),
            on("PATCH", "/api/{}/snapshots/{}/", Vast::change_snapshot),
            on("DELETE", "/api/{}/snapshots/{}/", Vast::delete_snapshot),
        ];
        ROUTES
    }

    fn admit(&self, request: &Request) -> Result<(), Reply> {
        if request.path.contains("/token/") {
            return Ok(());
        }
        if request.basic() == Some((USER.to_owned(), PASSWORD.to_owned())) {
            return Ok(());
        }
        let told = request.header("authorization").unwrap_or_default();
        if told.strip_prefix("Api-Token ") == Some(API_TOKEN) {
            return Ok(());
        }
        let Some(token) = told.strip_prefix("Bearer ") else {
            return Err(detail(401, "Authentication credentials were not provided."));
        };
        let now = jiff::Timestamp::now().as_second();
        match self.state.lock().access.get(token) {
            Some(ends) if now < *ends => Ok(()),
            _ => Err(invalid_token(403)),
        }
    }

    fn expire(&self) {
        let mut state = self.state.lock();
        state.access.clear();
        state.refresh.clear();
    }

    fn error(&self, status: u16, text: &str) -> Reply {
        detail(status, text)
    }
}

/// A cluster on a directory, with the usual credentials.
pub(crate) fn start(dir: &Path, port: u16) -> Box<dyn Running> {
    Box::new(Simulator::start_on(
        Vast::new(dir),
        &std::env::temp_dir(),
        port,
    ))
}
