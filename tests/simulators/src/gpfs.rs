//! IBM Storage Scale: one file system mounted at a directory; filesets, their quotas and
//! snapshots, pools, health, performance.
//!
//! What changes something is a job, which begins at once. A fileset is a directory where it is
//! linked; its usage is the sum of what lies there. A snapshot is a copy in `.snapshots`, which
//! real file systems do not list. Lists come in pages of [`PAGE`].
//!
//! Source: Scale management API v2, as IBM's CSI driver uses it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};

mod driver;

use crate::jobs::{Jobs, Progress, Trouble};
use crate::{Reply, Request, Route, Running, Simulator, Vendor, disk};

/// The account that may.
pub const USER: &str = "csiadmin";
/// Its password.
pub const PASSWORD: &str = "scale-1234";
/// The one file system.
pub const FS_NAME: &str = "fs1";
/// Items of one page of a list.
pub const PAGE: usize = 2;
const SIZE_KIB: u64 = 1 << 30;
const POOLS: [&str; 3] = ["system", "data", "external"];
const SNAPSHOTS: &str = ".snapshots";
const BASE: &str = "/scalemgmt/v2";

/// See the module.
pub struct Gpfs {
    dir: PathBuf,
    state: Arc<Mutex<State>>,
    jobs: Jobs,
}

#[derive(Clone)]
struct Fileset {
    id: u64,
    path: Option<String>,
    owner: String,
    independent: bool,
    comment: String,
    snapshots: BTreeMap<String, jiff::Timestamp>,
}

#[derive(Default)]
struct State {
    filesets: BTreeMap<String, Fileset>,
    /// Soft and hard limits in KiB.
    quotas: BTreeMap<String, (u64, u64)>,
    made: u64,
    fail_link: bool,
    health: String,
    no_metric: bool,
}

type Effect = Box<dyn FnOnce(&Path, &mut State) -> Result<(), Trouble> + Send>;

fn trouble(code: &str, text: &str) -> Trouble {
    let (code, text) = (code.to_owned(), text.to_owned());
    Trouble { code, text }
}

impl Gpfs {
    /// A file system without filesets.
    pub fn new(dir: &Path) -> Self {
        let state = State {
            health: "HEALTHY".to_owned(),
            ..State::default()
        };
        Self {
            dir: fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()),
            state: Arc::new(Mutex::new(state)),
            jobs: Jobs::default(),
        }
    }

    /// The next fileset is made and cannot be linked.
    pub fn fail_next_link(&self) {
        self.state.lock().fail_link = true;
    }

    /// The state of one part of one node.
    pub fn set_health(&self, word: &str) {
        word.clone_into(&mut self.state.lock().health);
    }

    /// Nothing collects performance.
    pub fn lose_metrics(&self) {
        self.state.lock().no_metric = true;
    }

    /// Makes a fileset that belongs to somebody else, linked nowhere or at a path.
    pub fn add_fileset(&self, name: &str, path: Option<&str>) {
        let mut state = self.state.lock();
        state.made += 1;
        let one = Fileset {
            id: state.made,
            path: path.map(str::to_owned),
            owner: "root:root".to_owned(),
            independent: false,
            comment: String::new(),
            snapshots: BTreeMap::new(),
        };
        state.filesets.insert(name.to_owned(), one);
    }

    /// Names, owners and whether they are independent.
    pub fn filesets(&self) -> Vec<(String, String, bool)> {
        let state = self.state.lock();
        let all = state.filesets.iter();
        all.map(|(name, one)| (name.clone(), one.owner.clone(), one.independent))
            .collect()
    }

    /// Names of all snapshots.
    pub fn snapshots(&self) -> Vec<String> {
        let state = self.state.lock();
        let all = state.filesets.values();
        all.flat_map(|one| one.snapshots.keys().cloned()).collect()
    }

    /// Begins a job, and tells its number.
    fn job(&self, ask: &Request, effect: Effect) -> Reply {
        let (dir, state) = (self.dir.clone(), Arc::clone(&self.state));
        let what = format!("{} {}", ask.method, ask.path);
        let number = self
            .jobs
            .start(&what, move || effect(&dir, &mut state.lock()));
        self.jobs.look(number);
        Reply::json(
            202,
            json!({
                "status": {"code": 202, "message": "The request was accepted for processing."},
                "jobs": [shown_job(number, &what, &Progress::Running)],
            }),
        )
    }

    fn one_job(&self, ask: &Request) -> Reply {
        let number = ask.params[0].parse().unwrap_or_default();
        match self.jobs.look(number) {
            Some((what, progress)) => good("jobs", vec![shown_job(number, &what, &progress)]),
            None => bad(400, "Invalid value in 'jobId'"),
        }
    }

    fn filesystem(&self, ask: &Request) -> Reply {
        let mount = self.dir.display().to_string();
        let one = json!({
            "name": FS_NAME, "uuid": "0A0B0C0D:5F0F0E0D",
            "mount": {"mountPoint": mount, "status": "mounted",
                "nodesMountedReadWrite": ["node1"]},
            "quota": {"quotasEnforced": "user;group;fileset", "filesetdfEnabled": true,
                "perfilesetQuotas": false, "defaultQuotasEnabled": "none"},
        });
        // Of the list and of the one alike.
        page(ask, "filesystems", filtered(ask, vec![one]))
    }

    fn create(&self, ask: &Request) -> Reply {
        let told = ask.json();
        let text = |key: &str| told[key].as_str().map(str::to_owned);
        let Some(name) = text("filesetName").filter(|name| !name.is_empty()) else {
            return bad(400, "Missing value of 'filesetName'");
        };
        let (path, owner) = (text("path"), text("owner").unwrap_or_default());
        let independent = text("inodeSpace").as_deref() == Some("new");
        let comment = text("comment").unwrap_or_default();
        let mount = format!("{}/", self.dir.display());
        if path.as_ref().is_some_and(|path| !path.starts_with(&mount)) {
            return bad(400, "The junction path is not below the mount point");
        }
        self.job(
            ask,
            Box::new(move |_, state| {
                if state.filesets.contains_key(&name) {
                    let text = format!("Fileset {name} already exists.");
                    return Err(trouble("EFSSP1102C", &text));
                }
                state.made += 1;
                let one = Fileset {
                    id: state.made,
                    path: None,
                    owner,
                    independent,
                    comment,
                    snapshots: BTreeMap::new(),
                };
                state.filesets.insert(name.clone(), one);
                match path {
                    Some(_) if std::mem::take(&mut state.fail_link) => {
                        Err(trouble("EFSSG0099C", "The junction could not be made."))
                    }
                    Some(path) => link(state, &name, path),
                    None => Ok(()),
                }
            }),
        )
    }

    fn link(&self, ask: &Request) -> Reply {
        let name = ask.params[1].clone();
        let path = ask.json()["path"].as_str().unwrap_or_default().to_owned();
        self.job(ask, Box::new(move |_, state| link(state, &name, path)))
    }

    fn unlink(&self, ask: &Request) -> Reply {
        let name = ask.params[1].clone();
        self.job(
            ask,
            Box::new(move |_, state| {
                let one = state.filesets.get_mut(&name);
                match one.and_then(|one| one.path.take()) {
                    Some(path) => {
                        let _ = fs::remove_dir_all(path);
                        Ok(())
                    }
                    None => Err(trouble("EFSSG2006C", "The fileset is not linked.")),
                }
            }),
        )
    }

    fn delete(&self, ask: &Request) -> Reply {
        let name = ask.params[1].clone();
        if !self.state.lock().filesets.contains_key(&name) {
            return bad(400, "Invalid value in 'fsetName'");
        }
        self.job(
            ask,
            Box::new(move |_, state| match state.filesets.get(&name) {
                Some(one) if one.path.is_some() => {
                    Err(trouble("EFSSG0098C", "The fileset is still linked."))
                }
                Some(one) if !one.snapshots.is_empty() => {
                    Err(trouble("EFSSG0096C", "The fileset has snapshots."))
                }
                Some(_) => {
                    state.filesets.remove(&name);
                    state.quotas.remove(&name);
                    Ok(())
                }
                None => Err(trouble("EFSSG0072C", "The fileset does not exist.")),
            }),
        )
    }

    fn fileset_list(&self, ask: &Request) -> Reply {
        let state = self.state.lock();
        let all = state.filesets.iter();
        let all = all.map(|(name, one)| fileset(name, one)).collect();
        page(ask, "filesets", filtered(ask, all))
    }

    fn one_fileset(&self, ask: &Request) -> Reply {
        let name = &ask.params[1];
        match self.state.lock().filesets.get(name) {
            Some(one) => good("filesets", vec![fileset(name, one)]),
            None => bad(400, "Invalid value in 'filesetName'"),
        }
    }

    fn quota_list(&self, ask: &Request) -> Reply {
        let state = self.state.lock();
        let mut all = vec![quota("", 0, 0, (0, 0), true)];
        for (name, one) in &state.filesets {
            let place = PathBuf::from(one.path.clone().unwrap_or_default());
            let (bytes, _) = disk::sums(&place, &[SNAPSHOTS]);
            let limits = state.quotas.get(name).copied().unwrap_or_default();
            all.push(quota(name, one.id, bytes.div_ceil(1024), limits, false));
        }
        page(ask, "quotas", filtered(ask, all))
    }

    fn set_quota(&self, ask: &Request) -> Reply {
        let told = ask.json();
        let kind = told["quotaType"].as_str().unwrap_or_default();
        let known = told["operationType"] == "setQuota" && kind.eq_ignore_ascii_case("fileset");
        let bytes = |key: &str| told[key].as_str().and_then(|text| text.parse::<u64>().ok());
        let (Some(soft), Some(hard), true) =
            (bytes("blockSoftLimit"), bytes("blockHardLimit"), known)
        else {
            return bad(400, "Invalid value in 'blockHardLimit'");
        };
        let name = told["objectName"].as_str().unwrap_or_default().to_owned();
        self.job(
            ask,
            Box::new(move |_, state| {
                if !state.filesets.contains_key(&name) {
                    return Err(trouble("EFSSG0072C", "The fileset does not exist."));
                }
                state.quotas.insert(name, (soft / 1024, hard / 1024));
                Ok(())
            }),
        )
    }

    fn snapshot_list(&self, ask: &Request) -> Reply {
        let state = self.state.lock();
        let Some(one) = state.filesets.get(&ask.params[1]) else {
            return bad(400, "Invalid value in 'filesetName'");
        };
        page(ask, "snapshots", snapshots_of(&ask.params[1], one))
    }

    fn create_snapshot(&self, ask: &Request) -> Reply {
        let name = ask.json()["snapshotName"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let fileset = ask.params[1].clone();
        if name.is_empty() || 255 < name.len() || name.contains('/') {
            return bad(400, "Invalid value in 'snapshotName'");
        }
        self.job(
            ask,
            Box::new(move |_, state| {
                let Some(one) = state.filesets.get_mut(&fileset) else {
                    return Err(trouble("EFSSG0072C", "The fileset does not exist."));
                };
                if !one.independent {
                    return Err(trouble("EFSSP1200C", "The fileset is not independent."));
                }
                if one.snapshots.contains_key(&name) {
                    return Err(trouble("EFSSP1102C", "The snapshot already exists."));
                }
                let from = PathBuf::from(one.path.clone().unwrap_or_default());
                let to = from.join(SNAPSHOTS).join(&name);
                disk::copy(&from, &to, &[SNAPSHOTS])
                    .map_err(|error| trouble("EFSSP1201C", &error.to_string()))?;
                one.snapshots.insert(name, jiff::Timestamp::now());
                Ok(())
            }),
        )
    }

    fn delete_snapshot(&self, ask: &Request) -> Reply {
        let (fileset, name) = (ask.params[1].clone(), ask.params[2].clone());
        self.job(
            ask,
            Box::new(move |_, state| {
                let one = state.filesets.get_mut(&fileset);
                let gone = one.and_then(|one| {
                    one.snapshots.remove(&name)?;
                    Some(one.path.clone().unwrap_or_default())
                });
                let Some(path) = gone else {
                    return Err(trouble("EFSSP1113C", "The snapshot does not exist."));
                };
                // One that is linked nowhere shows nothing.
                let at = PathBuf::from(path).join(SNAPSHOTS);
                let _ = fs::remove_dir_all(at.join(&name));
                // The directory for snapshots is gone with the last of them.
                let _ = fs::remove_dir(at);
                Ok(())
            }),
        )
    }

    fn pool_list(&self, ask: &Request) -> Reply {
        let pool = |name: &&str| json!({"storagePoolName": name, "filesystemName": FS_NAME});
        page(ask, "storagePool", POOLS.iter().map(pool).collect())
    }

    fn one_pool(&self, ask: &Request) -> Reply {
        let (bytes, _) = disk::sums(&self.dir, &[]);
        let used = bytes / 1024;
        if !POOLS.contains(&ask.params[1].as_str()) {
            return bad(400, "Invalid value in 'storagePool'");
        }
        let mut pool = json!({"storagePoolName": ask.params[1], "filesystemName": FS_NAME});
        match ask.params[1].as_str() {
            "system" => {
                pool["totalDataInKB"] = json!(SIZE_KIB);
                pool["freeDataInKB"] = json!(SIZE_KIB.saturating_sub(used));
            }
            "data" => {
                pool["totalDataInKB"] = json!(SIZE_KIB);
                pool["freeDataInKB"] = json!(SIZE_KIB);
            }
            // External pools tell no numbers.
            _ => {}
        }
        good("storagePool", vec![pool])
    }

    fn nodes(&self, ask: &Request) -> Reply {
        let all = ["node1", "node2", "node3"];
        let all = all.map(|name| {
            json!({"adminNodename": name, "status": {"nodeState": "HEALTHY"},
                "roles": {"gatewayNode": name == "node2"}})
        });
        page(ask, "nodes", all.to_vec())
    }

    fn states(&self, ask: &Request) -> Reply {
        let word = self.state.lock().health.clone();
        let state = |component: &str, state: &str| {
            json!({
                "oid": 1, "component": component, "reportingNode": ask.params[0],
                "activeSince": "2026-01-01 10:00:00,000", "entityType": "NODE",
                "entityName": ask.params[0], "parentName": "", "state": state, "reasons": [],
            })
        };
        let second = if ask.params[0] == "node2" {
            word.as_str()
        } else {
            "HEALTHY"
        };
        let all = vec![
            state("GPFS", "HEALTHY"),
            state("NETWORK", "TIPS"),
            state("DISK", second),
        ];
        page(ask, "states", filtered(ask, all))
    }

    fn cluster(&self, _: &Request) -> Reply {
        let summary = json!({"clusterName": "simulated.local", "clusterId": 1, "uidDomain": "x"});
        let cluster = json!({"clusterSummary": summary});
        Reply::json(
            200,
            json!({"status": status(200, "ok"), "cluster": cluster}),
        )
    }

    fn info(&self, _: &Request) -> Reply {
        let info = json!({
            "serverVersion": "5.2.1.0", "name": "Spectrum Scale REST Management",
            "paths": {driver::SNAPSHOT_COPY: ["PUT"]},
        });
        Reply::json(200, json!({"status": status(200, "ok"), "info": info}))
    }

    fn performance(&self, ask: &Request) -> Reply {
        let query = ask.query("query").unwrap_or_default();
        let names = query.matches("avg(").count();
        if !query.starts_with("metrics ") || names != 6 {
            return bad(400, "Invalid value in 'query'");
        }
        let values = json!([200.4, 100.4, 2_000_000.4, 1_000_000.4, 350.5, null]);
        let rows = if self.state.lock().no_metric {
            json!([])
        } else {
            json!([{"values": [1, 1, 1, 1, 1, 1], "tstamp": 1_767_268_800},
                {"values": values, "tstamp": 1_767_268_810}])
        };
        let data = json!({"legend": [], "rows": rows});
        Reply::json(
            200,
            json!({"status": status(200, "ok"), "performanceData": data}),
        )
    }
}

fn link(state: &mut State, name: &str, path: String) -> Result<(), Trouble> {
    let taken = state
        .filesets
        .values()
        .any(|one| one.path.as_deref() == Some(path.as_str()));
    if taken || Path::new(&path).exists() {
        return Err(trouble("EFSSG0762C", "The directory already exists."));
    }
    let Some(one) = state.filesets.get_mut(name) else {
        return Err(trouble("EFSSG0072C", "The fileset does not exist."));
    };
    fs::create_dir(&path).map_err(|error| trouble("EFSSG0100C", &error.to_string()))?;
    one.path = Some(path);
    Ok(())
}

fn fileset(name: &str, one: &Fileset) -> Value {
    json!({
        "filesetName": name, "filesystemName": FS_NAME,
        "config": {
            "path": one.path.as_deref().unwrap_or("--"), "id": one.id, "parentId": 0,
            "inodeSpace": if one.independent { one.id } else { 0 }, "status": "Linked",
            "isInodeSpaceOwner": one.independent, "comment": one.comment, "maxNumInodes": 0,
            "created": "2026-01-01 10:00:00,000", "permissionChangeMode": "chmodAndSetAcl",
        },
    })
}

fn quota(name: &str, id: u64, used: u64, (soft, hard): (u64, u64), default: bool) -> Value {
    json!({
        "quotaId": id, "filesystemName": FS_NAME, "filesetName": name, "quotaType": "FILESET",
        "objectName": name, "objectId": id, "blockUsage": used, "blockQuota": soft,
        "blockLimit": hard, "blockInDoubt": 0, "blockGrace": "none", "filesUsage": 1,
        "filesQuota": 0, "filesLimit": 0, "filesInDoubt": 0, "filesGrace": "none",
        "isDefaultQuota": default,
    })
}

fn status(code: u16, message: &str) -> Value {
    json!({"code": code, "message": message})
}

fn good(resource: &str, items: Vec<Value>) -> Reply {
    let message = "The request finished successfully.";
    Reply::json(
        200,
        json!({"status": status(200, message), resource: items}),
    )
}

/// One page of a list, with the address of the next one.
fn page(ask: &Request, resource: &str, all: Vec<Value>) -> Reply {
    let begin: usize = ask
        .query("lastId")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let rest = all.len().saturating_sub(begin + PAGE);
    let items: Vec<Value> = all.into_iter().skip(begin).take(PAGE).collect();
    let mut body = json!({"status": status(200, "ok"), resource: items});
    if rest > 0 {
        let filter = ask.query("filter").unwrap_or_default();
        let last = begin + PAGE;
        let next = format!("{}?lastId={last}&filter={filter}", ask.path);
        body["paging"] = json!({"baseUrl": ask.path, "lastId": last, "next": next});
    }
    Reply::json(200, body)
}

/// What fits the filter of a list: `a.b=c` pairs with commas between, a text in three quotes is
/// the begin of a value.
fn filtered(ask: &Request, mut all: Vec<Value>) -> Vec<Value> {
    let filter = ask.query("filter").unwrap_or_default();
    for (key, wanted) in filter.split(',').filter_map(|pair| pair.split_once('=')) {
        let pointer = format!("/{}", key.replace('.', "/"));
        let begin = wanted
            .strip_prefix("'''")
            .map(|text| text.trim_end_matches("'''").trim_end_matches(".*"));
        all.retain(|one| {
            let value = one.pointer(&pointer).cloned().unwrap_or_default();
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            begin.map_or(value == wanted, |begin| value.starts_with(begin))
        });
    }
    all
}

fn snapshots_of(fileset: &str, one: &Fileset) -> Vec<Value> {
    let all = one.snapshots.iter().enumerate().map(|(at, (name, made))| {
        json!({
            "snapshotName": name, "filesystemName": FS_NAME, "filesetName": fileset,
            "oid": at, "snapID": at, "status": "Valid", "quotas": "", "snapType": "",
            "created": made.strftime("%Y-%m-%d %H:%M:%S,000").to_string(),
        })
    });
    all.collect()
}

fn bad(code: u16, message: &str) -> Reply {
    Reply::json(code, json!({"status": status(code, message)}))
}

fn shown_job(number: u64, what: &str, progress: &Progress) -> Value {
    let (word, exit, stderr) = match progress {
        Progress::Queued | Progress::Running => ("RUNNING", 0, Vec::new()),
        Progress::Done => ("COMPLETED", 0, Vec::new()),
        Progress::Failed(why) => ("FAILED", 1, vec![format!("{} {}", why.code, why.text)]),
    };
    let (kind, url) = what.split_once(' ').unwrap_or((what, ""));
    json!({
        "jobId": number, "status": word, "submitted": "2026-01-01 10:00:00,000",
        "completed": "N/A", "runtime": 1, "request": {"type": kind, "url": url, "data": {}},
        "result": {"commands": [], "progress": [], "exitCode": exit, "stderr": stderr,
            "stdout": []},
    })
}

const fn on(
    method: &'static str,
    pattern: &'static str,
    handle: fn(&Gpfs, &Request) -> Reply,
) -> Route<Gpfs> {
    Route {
        method,
        pattern,
        handle,
    }
}
macro_rules! fs {
    ($rest:literal) => {
        concat!("/scalemgmt/v2/filesystems/{}", $rest)
    };
}
const ROUTES: &[Route<Gpfs>] = &[
    on("GET", "/scalemgmt/v2/info", Gpfs::info),
    on("GET", "/scalemgmt/v2/config", Gpfs::config),
    on("GET", "/scalemgmt/v2/filesystems", Gpfs::filesystem),
    on(
        "POST",
        "/scalemgmt/v2/refreshTask/enqueue",
        Gpfs::refresh_task,
    ),
    on("GET", fs!("/owner/{*}"), Gpfs::owner),
    on("GET", fs!("/directory/{*}"), Gpfs::stat_directory),
    on("POST", fs!("/directory/{*}"), Gpfs::make_directory),
    on("DELETE", fs!("/directory/{*}"), Gpfs::remove_directory),
    on("PUT", fs!("/directoryCopy/{*}"), Gpfs::copy_directory),
    on(
        "PUT",
        fs!("/filesets/{}/directoryCopy/{*}"),
        Gpfs::copy_in_fileset,
    ),
    on(
        "PUT",
        fs!("/filesets/{}/snapshotCopy/{}/path/{*}"),
        Gpfs::copy_snapshot,
    ),
    on("PUT", fs!("/filesets/{}"), Gpfs::change_fileset),
    on(
        "GET",
        fs!("/filesets/{}/snapshots/latest"),
        Gpfs::latest_snapshot,
    ),
    on("GET", fs!("/filesets/{}/snapshots/{}"), Gpfs::one_snapshot),
    on("GET", "/scalemgmt/v2/cluster", Gpfs::cluster),
    on("GET", "/scalemgmt/v2/nodes", Gpfs::nodes),
    on("GET", "/scalemgmt/v2/nodes/{}/health/states", Gpfs::states),
    on("GET", "/scalemgmt/v2/perfmon/data", Gpfs::performance),
    on("GET", "/scalemgmt/v2/jobs/{}", Gpfs::one_job),
    on("GET", fs!(""), Gpfs::filesystem),
    on("GET", fs!("/filesets"), Gpfs::fileset_list),
    on("POST", fs!("/filesets"), Gpfs::create),
    on("GET", fs!("/filesets/{}"), Gpfs::one_fileset),
    on("DELETE", fs!("/filesets/{}"), Gpfs::delete),
    on("POST", fs!("/filesets/{}/link"), Gpfs::link),
    on("DELETE", fs!("/filesets/{}/link"), Gpfs::unlink),
    on("GET", fs!("/filesets/{}/snapshots"), Gpfs::snapshot_list),
    on("POST", fs!("/filesets/{}/snapshots"), Gpfs::create_snapshot),
    on(
        "DELETE",
        fs!("/filesets/{}/snapshots/{}"),
        Gpfs::delete_snapshot,
    ),
    on("GET", fs!("/quotas"), Gpfs::quota_list),
    on("POST", fs!("/quotas"), Gpfs::set_quota),
    on("GET", fs!("/pools"), Gpfs::pool_list),
    on("GET", fs!("/pools/{}"), Gpfs::one_pool),
];

impl Vendor for Gpfs {
    const NAME: &'static str = "gpfs";

    fn routes() -> &'static [Route<Self>] {
        ROUTES
    }

    fn admit(&self, request: &Request) -> Result<(), Reply> {
        let known = (USER.to_owned(), PASSWORD.to_owned());
        if request.basic() != Some(known) {
            return Err(bad(401, "Invalid credentials"));
        }
        let mut parts = request
            .path
            .strip_prefix(BASE)
            .unwrap_or_default()
            .split('/');
        let other =
            parts.nth(1) == Some("filesystems") && parts.next().is_some_and(|name| name != FS_NAME);
        if other {
            return Err(bad(400, "Invalid value in 'filesystemName'"));
        }
        Ok(())
    }

    fn error(&self, status: u16, text: &str) -> Reply {
        bad(status, text)
    }

    fn jobs(&self) -> Option<&Jobs> {
        Some(&self.jobs)
    }
}

/// A file system on a directory, with the usual credentials.
pub(crate) fn start(dir: &Path, port: u16) -> Box<dyn Running> {
    Box::new(Simulator::start_on(
        Gpfs::new(dir),
        &std::env::temp_dir(),
        port,
    ))
}
