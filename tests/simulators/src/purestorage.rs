//! Pure Storage FlashBlade: one file system on a directory; snapshots, performance, blades.
//!
//! Both generations of the interface: 1.x and 2.x differ in envelopes, not in what they do. A
//! session is a token, which is forgotten when the array says so.
//!
//! Source: FlashBlade REST 1.0–1.12 and 2.x, proved by `purity_fb` and `py-pure-client`.

mod snapshots;

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{Reply, Request, Route, Running, Simulator, Vendor, disk};
use snapshots::Snapshot;

/// The token of an account of the array.
pub const API_TOKEN: &str = "T-11111111-2222-3333-4444-555555555555";
/// The one file system.
pub const FILE_SYSTEM: &str = "fs1";
const SIZE_BYTES: u64 = 1 << 40;

/// See the module.
pub struct FlashBlade {
    dir: PathBuf,
    state: Mutex<State>,
}

struct State {
    versions: Vec<&'static str>,
    sessions: Vec<String>,
    given: u64,
    provisioned: u64,
    shows_snapshots: bool,
    blades: Vec<&'static str>,
    snapshots: Vec<Snapshot>,
}

impl FlashBlade {
    /// A file system on a directory, with two blades.
    pub fn new(dir: &Path) -> Self {
        let state = State {
            versions: vec!["1.0", "1.8", "1.12", "2.0", "2.12", "2.19"],
            sessions: Vec::new(),
            given: 0,
            provisioned: SIZE_BYTES,
            shows_snapshots: true,
            blades: vec!["healthy", "healthy"],
            snapshots: Vec::new(),
        };
        Self {
            dir: dir.to_owned(),
            state: Mutex::new(state),
        }
    }

    /// Which versions of the interface the array has.
    pub fn set_versions(&self, versions: &[&'static str]) {
        self.state.lock().versions = versions.to_vec();
    }

    /// The size of the file system; 0 is without a limit of its own.
    pub fn set_provisioned(&self, bytes: u64) {
        self.state.lock().provisioned = bytes;
    }

    /// Whether `.snapshot` is there.
    pub fn show_snapshots(&self, shows: bool) {
        self.state.lock().shows_snapshots = shows;
    }

    /// The state of each blade.
    pub fn set_blades(&self, blades: &[&'static str]) {
        self.state.lock().blades = blades.to_vec();
    }

    /// Names of the snapshots that are not destroyed.
    pub fn snapshot_names(&self) -> Vec<String> {
        let state = self.state.lock();
        let there = state.snapshots.iter().filter(|one| !one.destroyed);
        there
            .map(|one| format!("{FILE_SYSTEM}.{}", one.suffix))
            .collect()
    }

    fn login(&self, ask: &Request) -> Reply {
        if ask.header("api-token") != Some(API_TOKEN) {
            return Reply::json(
                400,
                json!({"error": [{
                "code": 1, "context": "", "message": "API token invalid.",
            }], "errors": [{"context": "", "message": "API token invalid."}]}),
            );
        }
        let mut state = self.state.lock();
        state.given += 1;
        let token = format!("session-{}", state.given);
        state.sessions.push(token.clone());
        Reply::json(200, json!({"username": "pureuser"})).header("x-auth-token", &token)
    }

    fn logout(&self, ask: &Request) -> Reply {
        let token = ask.header("x-auth-token").unwrap_or_default();
        self.state.lock().sessions.retain(|known| known != token);
        Reply::json(200, json!({}))
    }

    fn versions(&self, _: &Request) -> Reply {
        Reply::json(200, json!({"versions": self.state.lock().versions}))
    }

    fn arrays(&self, ask: &Request) -> Reply {
        let array = json!({
            "id": "00000000-0000-4000-8000-0000000000aa", "name": "fb1", "os": "Purity//FB",
            "revision": "a1b2c3", "version": "4.1.0", "_as_of": 1_700_000_000_000_u64,
        });
        page(ask, vec![array], None)
    }

    fn arrays_space(&self, ask: &Request) -> Reply {
        let (used, _) = self.used();
        let array = json!({
            "id": "00000000-0000-4000-8000-0000000000aa", "name": "fb1",
            "capacity": 4 * SIZE_BYTES, "parity": 1.0, "time": 1_700_000_000_000_u64,
            "space": {"total_physical": used, "unique": used, "virtual": used},
        });
        page(ask, vec![array], None)
    }

    fn blades(&self, ask: &Request) -> Reply {
        let state = self.state.lock();
        let blades = state.blades.iter().enumerate().map(|(number, status)| {
            json!({
                "id": format!("00000000-0000-4000-8000-0000000001{number:02x}"),
                "name": format!("CH1.FB{number}"), "status": status, "raw_capacity": SIZE_BYTES,
            })
        });
        page(ask, blades.collect(), None)
    }

    fn used(&self) -> (u64, u64) {
        disk::sums(&self.dir, &[".snapshot", ".fast-remove"])
    }

    fn file_systems(&self, ask: &Request) -> Reply {
        if let Err(refusal) = known_names(ask) {
            return refusal;
        }
        let state = self.state.lock();
        let (used, _) = self.used();
        let space = json!({
            "virtual": used, "data_reduction": 1.0, "unique": used, "snapshots": 0,
            "total_physical": used,
        });
        let item = json!({
            "id": "00000000-0000-4000-8000-0000000000f1", "name": FILE_SYSTEM,
            "provisioned": state.provisioned, "hard_limit_enabled": true,
            "default_user_quota": 0, "default_group_quota": 0, "space": space,
            "created": 1_600_000_000_000_u64, "destroyed": false,
            "fast_remove_directory_enabled": self.dir.join(".fast-remove").is_dir(),
            "snapshot_directory_enabled": state.shows_snapshots,
            "nfs": {"v3_enabled": true, "v4_1_enabled": true, "rules": "*(rw,no_root_squash)"},
        });
        let total = json!({"provisioned": state.provisioned, "space": space});
        page(ask, vec![item], Some(total))
    }

    fn performance(&self, ask: &Request) -> Reply {
        if let Err(refusal) = known_names(ask) {
            return refusal;
        }
        let item = json!({
            "name": FILE_SYSTEM, "id": "00000000-0000-4000-8000-0000000000f1",
            "time": 1_767_268_815_000_u64, "reads_per_sec": 120.4, "writes_per_sec": 60.6,
            "others_per_sec": 5.0, "read_bytes_per_sec": 1_000_000.5,
            "write_bytes_per_sec": 500_000.0, "usec_per_read_op": 810.5,
            "usec_per_write_op": 1210.25, "usec_per_other_op": 90.0, "bytes_per_read": 8305.0,
            "bytes_per_write": 8250.0, "bytes_per_op": 8000.0,
        });
        let total = if is_second(ask) { json!([]) } else { json!({}) };
        page(ask, vec![item], Some(total))
    }
}

impl Vendor for FlashBlade {
    const NAME: &'static str = "purestorage";

    fn routes() -> &'static [Route<Self>] {
        const fn on(
            method: &'static str,
            pattern: &'static str,
            handle: fn(&FlashBlade, &Request) -> Reply,
        ) -> Route<FlashBlade> {
            Route {
                method,
                pattern,
                handle,
            }
        }
        const ROUTES: &[Route<FlashBlade>] = &[
            on("GET", "/api/api_version", FlashBlade::versions),
            on("POST", "/api/login", FlashBlade::login),
            on("POST", "/api/logout", FlashBlade::logout),
            on("GET", "/api/{}/arrays", FlashBlade::arrays),
            on("GET", "/api/{}/arrays/space", FlashBlade::arrays_space),
            on("GET", "/api/{}/blades", FlashBlade::blades),
            on("GET", "/api/{}/file-systems", FlashBlade::file_systems),
            on(
                "GET",
                "/api/{}/file-systems/performance",
                FlashBlade::performance,
            ),
            on(
                "GET",
                "/api/{}/file-system-snapshots",
                FlashBlade::snapshots,
            ),
            on(
                "POST",
                "/api/{}/file-system-snapshots",
                FlashBlade::create_snapshot,
            ),
            on(
                "PATCH",
                "/api/{}/file-system-snapshots",
                FlashBlade::change_snapshot,
            ),
            on(
                "DELETE",
                "/api/{}/file-system-snapshots",
                FlashBlade::delete_snapshot,
            ),
        ];
        ROUTES
    }

    fn admit(&self, request: &Request) -> Result<(), Reply> {
        let open = ["/api/api_version", "/api/login", "/api/logout"];
        if open.contains(&request.path.as_str()) {
            return Ok(());
        }
        let state = self.state.lock();
        let token = request.header("x-auth-token");
        if !token.is_some_and(|token| state.sessions.iter().any(|known| known == token)) {
            return Err(Reply::empty(401));
        }
        let version = request.path.split('/').nth(2).unwrap_or_default();
        if state.versions.contains(&version) {
            return Ok(());
        }
        Err(self.error(404, "no such version"))
    }

    fn error(&self, status: u16, text: &str) -> Reply {
        if status == 401 {
            return Reply::empty(401);
        }
        Reply::json(
            status,
            json!({
                "error": [{"code": 0, "context": "", "message": text}],
                "errors": [{"context": "", "message": text}],
            }),
        )
    }

    fn expire(&self) {
        self.state.lock().sessions.clear();
    }
}

/// Over a directory, with the usual token.
pub(crate) fn start(dir: &Path, port: u16) -> Box<dyn Running> {
    let vendor = FlashBlade::new(dir);
    Box::new(Simulator::start_on(vendor, &std::env::temp_dir(), port))
}

/// Whether the request is for 2.x.
fn is_second(ask: &Request) -> bool {
    ask.path.starts_with("/api/2.")
}

/// An error in the envelope of the version that was asked.
fn fault(ask: &Request, code: u32, context: &str, text: &str) -> Reply {
    if is_second(ask) {
        let errors = json!({"errors": [{"context": context, "message": text}]});
        return Reply::json(400, errors);
    }
    let error = json!({"error": [{"code": code, "context": context, "message": text}]});
    Reply::json(400, error)
}

/// Refuses names of other file systems.
fn known_names(ask: &Request) -> Result<(), Reply> {
    match ask.query("names") {
        None | Some(FILE_SYSTEM) => Ok(()),
        Some(other) => Err(fault(ask, 6, other, "File system does not exist.")),
    }
}

/// The page of a list that was asked for, in the envelope of the version.
fn page(ask: &Request, items: Vec<Value>, total: Option<Value>) -> Reply {
    let second = is_second(ask);
    let token = if second {
        "continuation_token"
    } else {
        "token"
    };
    let number = |key| ask.query(key).and_then(|text| text.parse::<usize>().ok());
    let from = number(token).or(number("start")).unwrap_or(0);
    let limit = number("limit").unwrap_or(10_000).max(1);
    let count = items.len();
    let rest = (from + limit < count).then(|| (from + limit).to_string());
    let items: Vec<_> = items.into_iter().skip(from).take(limit).collect();
    let mut body = json!({ "items": items });
    if second {
        body["continuation_token"] = json!(rest);
        body["total_item_count"] = json!(count);
    } else {
        body["pagination_info"] = json!({
            "total_item_count": count, "continuation_token": rest,
        });
    }
    if let Some(total) = total {
        body["total"] = total;
    }
    Reply::json(200, body)
}
