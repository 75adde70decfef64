//! Weka: one cluster with one file system on a directory; quotas by inode number, snapshots of the
//! whole file system, REST v2 and the older JSON-RPC v1.
//!
//! A quota is counted first: `ADDING` until it was looked at so often. One whose directory is gone
//! is gone. A snapshot is a copy of all in `.snapshots`, which real file systems do not list.
//!
//! Source: Weka REST v2 as its CSI driver uses it; v1 is proved by `wekalib` 1.5.0.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::server::pairs;
use crate::{Reply, Request, Route, Running, Simulator, Vendor, disk};

/// The account that may; the old client cannot use another one.
pub const USER: &str = "admin";
/// Its password.
pub const PASSWORD: &str = "weka-1!";
/// Its password as long as nobody has changed it; the old client cannot use another one.
pub const FIRST_PASSWORD: &str = "admin";
/// Its organization.
pub const ORGANIZATION: &str = "Root";
/// The one file system.
pub const FS_NAME: &str = "backend";
const SIZE_BYTES: u64 = 1 << 41;
const SNAPSHOTS: &str = ".snapshots";
const UNLIMITED: u64 = i64::MAX as u64;
/// Longest name of a snapshot.
const NAME_BYTES_MAX: usize = 32;

/// See the module.
pub struct Weka {
    dir: PathBuf,
    password: &'static str,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QuotaState {
    /// Active after so many looks.
    Adding(usize),
    Active,
    Error,
    /// Gone after so many looks.
    Deleting(usize),
}

struct Quota {
    hard: u64,
    soft: u64,
    grace: u64,
    path: String,
    state: QuotaState,
}

struct Snapshot {
    uid: String,
    name: String,
    point: String,
    created: jiff::Timestamp,
    writable: bool,
    /// Looks until it is gone.
    removing: Option<usize>,
}

struct State {
    fs_uid: String,
    quotas: BTreeMap<u64, Quota>,
    snapshots: Vec<Snapshot>,
    access: BTreeSet<String>,
    refresh: BTreeSet<String>,
    made: u64,
    looks: usize,
    fail_next: bool,
    only_v1: bool,
    resolves: bool,
    no_quota: u16,
    health: String,
}

impl Weka {
    /// A cluster without quotas and snapshots.
    pub fn new(dir: &Path) -> Self {
        let state = State {
            fs_uid: "b3a8f3a2-0000-0000-0000-000000000001".to_owned(),
            quotas: BTreeMap::new(),
            snapshots: Vec::new(),
            access: BTreeSet::new(),
            refresh: BTreeSet::new(),
            made: 0,
            looks: 1,
            fail_next: false,
            only_v1: false,
            resolves: true,
            no_quota: 404,
            health: "OK".to_owned(),
        };
        Self {
            dir: dir.to_owned(),
            password: PASSWORD,
            state: Mutex::new(state),
        }
    }

    /// As [`Self::new`], with [`FIRST_PASSWORD`].
    pub fn untouched(dir: &Path) -> Self {
        Self {
            password: FIRST_PASSWORD,
            ..Self::new(dir)
        }
    }

    /// Quotas to come are active after so many looks.
    pub fn count_slowly(&self, looks: usize) {
        self.state.lock().looks = looks;
    }

    /// The next quota ends in error.
    pub fn fail_next_quota(&self) {
        self.state.lock().fail_next = true;
    }

    /// An older release: quotas are set by v1 alone, and paths are not resolved.
    pub fn only_v1(&self) {
        let mut state = self.state.lock();
        state.only_v1 = true;
        state.resolves = false;
    }

    /// The status with which a directory without a quota is told: 404, or 500 in some releases.
    pub fn no_quota_status(&self, status: u16) {
        self.state.lock().no_quota = status;
    }

    /// The word for health.
    pub fn set_health(&self, word: &str) {
        word.clone_into(&mut self.state.lock().health);
    }

    /// The file system was made anew.
    pub fn change_fs_uid(&self, uid: &str) {
        uid.clone_into(&mut self.state.lock().fs_uid);
    }

    /// Tokens end now; those to renew them with are kept.
    pub fn expire_access(&self) {
        self.state.lock().access.clear();
    }

    /// Inode numbers and hard limits.
    pub fn quotas(&self) -> Vec<(u64, u64)> {
        let state = self.state.lock();
        let quotas = state.quotas.iter();
        quotas.map(|(inode, quota)| (*inode, quota.hard)).collect()
    }

    /// The directory with this inode number, among those at the top.
    fn directory(&self, inode: u64) -> Option<PathBuf> {
        if disk::inode(&self.dir) == Some(inode) {
            return Some(self.dir.clone());
        }
        let entries = fs::read_dir(&self.dir).ok()?.flatten();
        let mut paths = entries.map(|entry| entry.path());
        paths.find(|path| disk::inode(path) == Some(inode) && path.is_dir())
    }

    /// Quotas of directories that are gone are gone.
    fn tidy(&self, state: &mut State) {
        state
            .quotas
            .retain(|inode, _| self.directory(*inode).is_some());
    }

    fn tokens(&self, told: &Value) -> Result<Value, String> {
        let org = told["org"].as_str().unwrap_or(ORGANIZATION);
        if told["username"] != USER
            || told["password"] != self.password
            || !org.eq_ignore_ascii_case(ORGANIZATION)
        {
            return Err("Invalid credentials".to_owned());
        }
        let mut state = self.state.lock();
        let refresh = state.token("refresh");
        state.refresh.insert(refresh.clone());
        Ok(state.grant(&refresh))
    }

    fn renewed(&self, told: &Value) -> Result<Value, String> {
        let mut state = self.state.lock();
        let token = told["refresh_token"].as_str().unwrap_or_default();
        if !state.refresh.contains(token) {
            return Err("Refresh token has expired".to_owned());
        }
        let token = token.to_owned();
        Ok(state.grant(&token))
    }

    fn login(&self, ask: &Request) -> Reply {
        granted(self.tokens(&body_of(ask)))
    }

    fn renew(&self, ask: &Request) -> Reply {
        granted(self.renewed(&body_of(ask)))
    }

    fn whoami(&self, _: &Request) -> Reply {
        data(json!({"username": USER, "org_id": 0, "role": "ClusterAdmin", "source": "Internal"}))
    }

    fn expiry(&self, _: &Request) -> Reply {
        data(json!({"access_token_expiry": 300, "refresh_token_expiry": 31_536_000}))
    }

    fn fs(&self, state: &State) -> Value {
        let (used, _) = disk::sums(&self.dir, &[SNAPSHOTS]);
        let free = SIZE_BYTES.saturating_sub(used);
        json!({
            "id": "FSId: 0", "name": FS_NAME, "uid": state.fs_uid, "group_id": "FSGroupId: 0",
            "group_name": "default", "is_creating": false, "is_removing": false,
            "is_ready": true, "status": "READY", "auth_required": false, "is_encrypted": false,
            "total_budget": SIZE_BYTES, "ssd_budget": SIZE_BYTES, "metadata_budget": 1 << 30,
            "used_total": used, "used_total_data": used, "free_total": free,
            "available_total": free, "used_ssd": used, "used_ssd_data": used,
            "used_ssd_metadata": 4096, "free_ssd": free, "available_ssd": free,
            "available_ssd_metadata": 1 << 30, "obs_buckets": [],
        })
    }

    fn fs_list(&self, _: &Request) -> Reply {
        let fs = self.fs(&self.state.lock());
        data(json!([fs]))
    }

    fn one_fs(&self, ask: &Request) -> Reply {
        match self.right_fs(ask) {
            Ok(()) => data(self.fs(&self.state.lock())),
            Err(refusal) => refusal,
        }
    }

    fn right_fs(&self, ask: &Request) -> Result<(), Reply> {
        if ask.params[0] == self.state.lock().fs_uid {
            return Ok(());
        }
        Err(message(404, "File system not found"))
    }

    fn resolve(&self, ask: &Request) -> Reply {
        if let Err(refusal) = self.right_fs(ask) {
            return refusal;
        }
        if !self.state.lock().resolves {
            return message(404, "Not Found");
        }
        let path = ask
            .query("path")
            .unwrap_or_default()
            .trim_matches('/')
            .to_owned();
        match disk::inode(&self.dir.join(path)) {
            Some(inode) => data(json!({"inode_id": inode.to_string()})),
            None => message(404, "Path does not exist"),
        }
    }

    fn quota_list(&self, ask: &Request) -> Reply {
        if let Err(refusal) = self.right_fs(ask) {
            return refusal;
        }
        let mut state = self.state.lock();
        self.tidy(&mut state);
        let all = state.quotas.iter().map(|(inode, quota)| {
            let mut shown = self.shown(*inode, quota);
            shown["quota_id"] = json!(format!("0:{inode}"));
            shown
        });
        data(Value::Array(all.collect()))
    }

    fn shown(&self, inode: u64, quota: &Quota) -> Value {
        let (used, _) = disk::sums(&self.directory(inode).unwrap_or_default(), &[]);
        let status = match quota.state {
            QuotaState::Adding(_) => "ADDING",
            QuotaState::Active => "ACTIVE",
            QuotaState::Error => "ERROR",
            QuotaState::Deleting(_) => "DELETING",
        };
        let counted = if status == "ACTIVE" { used } else { 0 };
        json!({
            "inode_id": inode, "hard_limit_bytes": quota.hard, "soft_limit_bytes": quota.soft,
            "grace_seconds": quota.grace, "path": quota.path, "owner": "", "status": status,
            "total_bytes": counted, "used_bytes": counted, "data_blocks": counted / 4096,
            "metadata_blocks": 1, "snap_view_id": 0,
        })
    }

    fn one_quota(&self, ask: &Request) -> Reply {
        if let Err(refusal) = self.right_fs(ask) {
            return refusal;
        }
        let inode: u64 = ask.params[1].parse().unwrap_or_default();
        let mut state = self.state.lock();
        self.tidy(&mut state);
        let none = message(state.no_quota, "Directory has no quota");
        let Some(quota) = state.quotas.get_mut(&inode) else {
            return none;
        };
        let shown = self.shown(inode, quota);
        match &mut quota.state {
            QuotaState::Adding(0 | 1) => quota.state = QuotaState::Active,
            QuotaState::Deleting(0 | 1) => {
                state.quotas.remove(&inode);
            }
            QuotaState::Adding(left) | QuotaState::Deleting(left) => *left -= 1,
            QuotaState::Active | QuotaState::Error => {}
        }
        data(shown)
    }

    fn set(&self, inode: u64, told: &Value) -> Result<(), String> {
        let limit = |key: &str| told.get(key).map_or(Some(UNLIMITED), Value::as_u64);
        let (hard, soft) = (limit("hard_limit_bytes"), limit("soft_limit_bytes"));
        let (Some(hard), Some(soft)) = (hard, soft) else {
            return Err("limits must be whole numbers".to_owned());
        };
        if self.directory(inode).is_none() {
            return Err(format!("no directory has inode {inode}"));
        }
        let mut state = self.state.lock();
        let first = !state.quotas.contains_key(&inode);
        let failing = std::mem::take(&mut state.fail_next);
        let new = match (failing, first) {
            (true, _) => QuotaState::Error,
            (false, true) if state.looks > 0 => QuotaState::Adding(state.looks),
            _ => QuotaState::Active,
        };
        let quota = Quota {
            hard,
            soft,
            grace: told["grace_seconds"].as_u64().unwrap_or(0),
            path: told["path"].as_str().unwrap_or_default().to_owned(),
            state: new,
        };
        state.quotas.insert(inode, quota);
        Ok(())
    }

    fn set_quota(&self, ask: &Request) -> Reply {
        if let Err(refusal) = self.right_fs(ask) {
            return refusal;
        }
        if self.state.lock().only_v1 {
            return message(404, "Not Found");
        }
        let inode: u64 = ask.params[1].parse().unwrap_or_default();
        match self.set(inode, &ask.json()) {
            Ok(()) => data(json!({"inode_id": inode})),
            Err(text) => message(400, &text),
        }
    }

    fn delete_quota(&self, ask: &Request) -> Reply {
        if let Err(refusal) = self.right_fs(ask) {
            return refusal;
        }
        let inode: u64 = ask.params[1].parse().unwrap_or_default();
        let mut state = self.state.lock();
        let status = state.no_quota;
        match state.quotas.get_mut(&inode) {
            Some(quota) => {
                quota.state = QuotaState::Deleting(1);
                data(Value::Null)
            }
            None => message(status, "Directory has no quota"),
        }
    }

    fn health(&self, _: &Request) -> Reply {
        let word = self.state.lock().health.clone();
        Reply::json(200, Value::String(word)).header("content-type", "text/plain")
    }

    fn cluster(&self, _: &Request) -> Reply {
        data(json!({
            "name": "simulated", "guid": "7f3c", "release": "4.4.2", "status": "OK",
            "io_status": "STARTED", "capacity": {"total_bytes": SIZE_BYTES},
            "hosts": {"total_count": 6, "active_count": 6},
        }))
    }

    fn stats(&self, ask: &Request) -> Reply {
        let since = ask.query("start_time").unwrap_or_default();
        if since.parse::<jiff::Timestamp>().is_err() {
            return message(400, "start_time is no time");
        }
        let one = |reads: f64| {
            json!({
                "timestamp": since, "resolution": 60,
                "stats": {
                    "READS": reads, "WRITES": 100.4, "READ_BYTES": 2_500_000.4,
                    "WRITE_BYTES": 1_500_000.4, "READ_LATENCY": 350.5, "WRITE_LATENCY": 720.25,
                },
            })
        };
        data(json!({"all": {"ops": [one(1.0), one(200.4)]}}))
    }

    fn snapshot_list(&self, ask: &Request) -> Reply {
        let mut state = self.state.lock();
        let fs_uid = state.fs_uid.clone();
        let own = ask.query("filesystem").is_none_or(|name| name == FS_NAME);
        let all = state.snapshots.iter().filter(|_| own);
        let all: Vec<Value> = all.map(|one| snapshot(one, &fs_uid)).collect();
        for one in &mut state.snapshots {
            one.removing = one.removing.map(|left| left.saturating_sub(1));
        }
        state.snapshots.retain(|one| one.removing != Some(0));
        data(Value::Array(all))
    }

    fn create_snapshot(&self, ask: &Request) -> Reply {
        let told = ask.json();
        let mut state = self.state.lock();
        if told["fs_uid"] != *state.fs_uid {
            return message(404, "File system not found");
        }
        let name = told["name"].as_str().unwrap_or_default().to_owned();
        if name.is_empty() || NAME_BYTES_MAX < name.len() {
            return message(400, "name must have 1 to 32 characters");
        }
        let point = told["access_point"].as_str().unwrap_or(&name).to_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        if !point.chars().all(plain) || 255 < point.len() || point.starts_with('.') {
            return message(400, "invalid access point");
        }
        if state
            .snapshots
            .iter()
            .any(|one| one.name == name || one.point == point)
        {
            return message(409, "Snapshot already exists");
        }
        let to = self.dir.join(SNAPSHOTS).join(&point);
        if disk::copy(&self.dir, &to, &[SNAPSHOTS]).is_err() {
            return message(500, "the file system cannot be kept");
        }
        let one = Snapshot {
            uid: state.token("snap"),
            name,
            point,
            created: jiff::Timestamp::now(),
            writable: told["is_writable"] == true,
            removing: None,
        };
        let shown = snapshot(&one, &state.fs_uid);
        state.snapshots.push(one);
        data(shown)
    }

    fn delete_snapshot(&self, ask: &Request) -> Reply {
        let mut state = self.state.lock();
        let found = state
            .snapshots
            .iter_mut()
            .find(|one| one.uid == ask.params[0]);
        let Some(one) = found else {
            return message(404, "Snapshot not found");
        };
        one.removing = Some(1);
        let at = self.dir.join(SNAPSHOTS);
        let _ = fs::remove_dir_all(at.join(&one.point));
        // The directory for snapshots is gone with the last of them.
        let _ = fs::remove_dir(at);
        data(Value::Null)
    }

    /// JSON-RPC: the older interface.
    fn rpc(&self, ask: &Request) -> Reply {
        let told = ask.json();
        let params = &told["params"];
        let done = match told["method"].as_str().unwrap_or_default() {
            "userlogin" => self.tokens(params).map_err(|text| (-32_000, text)),
            "user_refresh_token" => self.renewed(params).map_err(|text| (-32_000, text)),
            "filesystems_list" => {
                let fs = self.fs(&self.state.lock());
                Ok(json!({"FSId: 0": fs}))
            }
            "snapshots_list" => {
                let state = self.state.lock();
                let all = state.snapshots.iter().enumerate();
                let all = all
                    .map(|(at, one)| (format!("SnapshotId: {at}"), snapshot(one, &state.fs_uid)));
                Ok(Value::Object(all.collect()))
            }
            "set_directory_quota" => {
                let inode = params["inode_context"].as_u64().unwrap_or_default();
                let set = self.set(inode, params);
                set.map(|()| json!({"inode_id": inode}))
                    .map_err(|text| (-32_000, text))
            }
            "directory_quota_list" => {
                let state = self.state.lock();
                let all = state.quotas.iter();
                Ok(all
                    .map(|(inode, quota)| self.shown(*inode, quota))
                    .collect())
            }
            "status" => Ok(json!({"name": "simulated", "release": "4.4.2", "status": "OK"})),
            _ => Err((-32_601, "Method not found".to_owned())),
        };
        let body = match done {
            Ok(result) => json!({"jsonrpc": "2.0", "id": told["id"], "result": result}),
            Err((code, text)) => json!({
                "jsonrpc": "2.0", "id": told["id"], "error": {"code": code, "message": text},
            }),
        };
        Reply::json(200, body)
    }
}

impl State {
    fn token(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}-{:08}", self.made)
    }

    fn grant(&mut self, refresh: &str) -> Value {
        let access = self.token("access");
        self.access.insert(access.clone());
        json!({
            "access_token": access, "token_type": "Bearer", "expires_in": 300,
            "refresh_token": refresh,
        })
    }
}

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

fn snapshot(one: &Snapshot, fs_uid: &str) -> Value {
    json!({
        "uid": one.uid, "id": format!("SnapshotId: {}", one.uid), "name": one.name,
        "filesystem": FS_NAME, "filesystemUid": fs_uid, "accessPoint": one.point,
        "isWritable": one.writable, "isRemoving": one.removing.is_some(), "progress": "N/A",
        "locator": "", "stowStatus": "NONE", "creationTime": one.created.to_string(),
    })
}

fn granted(tokens: Result<Value, String>) -> Reply {
    match tokens {
        Ok(tokens) => data(tokens),
        Err(text) => message(401, &text),
    }
}

fn data(value: Value) -> Reply {
    Reply::json(200, json!({ "data": value }))
}

fn message(status: u16, text: &str) -> Reply {
    Reply::json(status, json!({ "message": text }))
}

impl Vendor for Weka {
    const NAME: &'static str = "weka";

    fn routes() -> &'static [Route<Self>] {
        const fn on(
            method: &'static str,
            pattern: &'static str,
            handle: fn(&Weka, &Request) -> Reply,
        ) -> Route<Weka> {
            Route {
                method,
                pattern,
                handle,
            }
        }
        const ROUTES: &[Route<Weka>] = &[
            on("POST", "/api/v1", Weka::rpc),
            on("POST", "/api/v2/login", Weka::login),
            on("POST", "/api/v2/login/refresh", Weka::renew),
            on("GET", "/api/v2/users/whoami", Weka::whoami),
            on("GET", "/api/v2/security/defaultTokensExpiry", Weka::expiry),
            on("GET", "/api/v2/fileSystems", Weka::fs_list),
            on("GET", "/api/v2/fileSystems/{}", Weka::one_fs),
            on("GET", "/api/v2/fileSystems/{}/resolvePath", Weka::resolve),
            on("GET", "/api/v2/fileSystems/{}/quota", Weka::quota_list),
            on("GET", "/api/v2/fileSystems/{}/quota/{}", Weka::one_quota),
            on("PUT", "/api/v2/fileSystems/{}/quota/{}", Weka::set_quota),
            on(
                "DELETE",
                "/api/v2/fileSystems/{}/quota/{}",
                Weka::delete_quota,
            ),
            on(
                "DELETE",
                "/api/v2/fileSystems/{}/quotas/{}",
                Weka::delete_quota,
            ),
            on("GET", "/api/v2/healthcheck", Weka::health),
            on("GET", "/api/v2/cluster", Weka::cluster),
            on("GET", "/api/v2/stats", Weka::stats),
            on("GET", "/api/v2/snapshots", Weka::snapshot_list),
            on("POST", "/api/v2/snapshots", Weka::create_snapshot),
            on("DELETE", "/api/v2/snapshots/{}", Weka::delete_snapshot),
        ];
        ROUTES
    }

    fn admit(&self, request: &Request) -> Result<(), Reply> {
        let method = request.json();
        let method = method["method"].as_str().unwrap_or_default();
        let rpc_login = matches!(method, "userlogin" | "user_refresh_token");
        let login = request.path.contains("/login") || request.path.ends_with("/healthcheck");
        if login || (request.path == "/api/v1" && rpc_login) {
            return Ok(());
        }
        let told = request.header("authorization").unwrap_or_default();
        let token = told.strip_prefix("Bearer ").unwrap_or_default();
        if self.state.lock().access.contains(token) {
            return Ok(());
        }
        Err(message(401, "Access token is invalid or expired"))
    }

    fn expire(&self) {
        let mut state = self.state.lock();
        state.access.clear();
        state.refresh.clear();
    }

    fn error(&self, status: u16, text: &str) -> Reply {
        Reply::json(
            status,
            json!({"message": text, "error_code": format!("E{status}")}),
        )
    }
}

/// A cluster on a directory, with the usual credentials.
pub(crate) fn start(dir: &Path, port: u16) -> Box<dyn Running> {
    Box::new(Simulator::start_on(
        Weka::new(dir),
        &std::env::temp_dir(),
        port,
    ))
}
