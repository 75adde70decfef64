//! Goal: what the Manager asks of a volume on a vendor's storage system is answered as it expects,
//! also while that system is down; and nobody ever sees how we prove who we are.
//! Method: the program with a volume on each simulator and a plain one beside it. Statuses, keys
//! and units of the answers are compared; the log, all answers and the metrics page are searched
//! for what was configured and for every token and session that went over the wire.
//!
//! Source: docs/backends.md; manager-facing API 2 and 3.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use proxy_simulators::{
    Running, Simulator, gpfs, hammerspace, netapp, onefs, purestorage, vast, weka,
};
use proxy_testkit::server::{OTHER_VOLUME, VOLUME};
use proxy_testkit::{Request, Server, Settings, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const SCOPE: &str = "user:11111111-2222-3333-4444-555555555555";
const MIB: u64 = 1 << 20;
const METRIC: [&str; 6] = [
    "iops_read",
    "iops_write",
    "io_bytes_read",
    "io_bytes_write",
    "io_usec_read",
    "io_usec_write",
];

/// A vendor: what is in its table of options beside the address and the authorities.
struct Row {
    backend: &'static str,
    /// The options of the address, with what follows it, and of the authorities.
    at: (&'static str, &'static str, &'static str),
    options: &'static str,
    secret: &'static str,
    /// Reads and writes per second, bytes of both, microseconds of both; `None` without metrics.
    metric: Option<[f64; 6]>,
    /// Facts of `hwinfo`; `None` where nobody is asked.
    facts: Option<&'static [&'static str]>,
    has_quota: bool,
    /// Kind and status of the answer while it is down.
    down: (&'static str, u16),
}

/// What most simulators tell of their cluster.
const CLUSTER: [f64; 6] = [200.0, 100.0, 2_500_000.0, 1_500_000.0, 350.5, 720.25];
const EXTERNAL: (&str, u16) = ("storage/external/failed", 500);

const TABLE: &[Row] = &[
    Row {
        backend: "netapp",
        at: ("netapp_ontap_endpoint", "", "netapp_ca_file"),
        options: "netapp_ontap_user = \"admin\"\nnetapp_ontap_password = \"netapp1!\"\n\
                  netapp_volume_name = \"vol1\"\n",
        secret: "netapp1!",
        metric: Some([200.0, 100.0, 2e6, 1e6, 350.0, 720.0]),
        facts: Some(&["quota", "files"]),
        has_quota: true,
        down: ("storage/netapp/api-error", 500),
    },
    Row {
        backend: "purestorage",
        at: ("purity_endpoint", "", "purity_ca_file"),
        options: "purity_api_token = \"T-11111111-2222-3333-4444-555555555555\"\n\
                  purity_api_version = \"1.8\"\npurity_fs_name = \"fs1\"\n",
        secret: "T-11111111-2222-3333-4444-555555555555",
        metric: Some([120.0, 61.0, 1_000_001.0, 500_000.0, 810.5, 1210.25]),
        facts: Some(&[
            "id",
            "name",
            "os",
            "revision",
            "version",
            "blade_count",
            "console_url",
        ]),
        has_quota: false,
        down: EXTERNAL,
    },
    Row {
        backend: "dellemc-onefs",
        at: ("dell_endpoint", "", "dell_ca_file"),
        options: "dell_username = \"root\"\ndell_password = \"isilon1!\"\n\
                  dell_api_version = \"12\"\ndell_ifs_path = \"/ifs/data/backend\"\n",
        secret: "isilon1!",
        metric: Some(CLUSTER),
        facts: Some(&["cluster", "nodes"]),
        has_quota: true,
        down: EXTERNAL,
    },
    Row {
        // Another name of `gpfs`.
        backend: "spectrumscale",
        at: ("gpfs_endpoint", "", "gpfs_ca_file"),
        options: "gpfs_username = \"csiadmin\"\ngpfs_password = \"scale-1234\"\n\
                  gpfs_fs_name = \"fs1\"\ngpfs_fileset_prefix = \"\"\n",
        secret: "scale-1234",
        metric: Some([200.0, 100.0, 2e6, 1e6, 350.5, 0.0]),
        facts: Some(&["quota", "cluster_info"]),
        has_quota: true,
        down: EXTERNAL,
    },
    Row {
        backend: "weka",
        at: ("weka_endpoint", "", "weka_ca_file"),
        options: "weka_username = \"admin\"\nweka_password = \"weka-1!\"\n\
                  weka_organization = \"Root\"\nweka_fs_name = \"backend\"\n",
        secret: "weka-1!",
        metric: Some(CLUSTER),
        facts: Some(&["quota", "cluster_info"]),
        has_quota: true,
        down: EXTERNAL,
    },
    Row {
        backend: "vast",
        at: ("vast_endpoint", "", "vast_ca_file"),
        options: "vast_username = \"admin\"\nvast_password = \"vast1!\"\n\
                  vast_storage_base_dir = \"/backend\"\nvast_cluster_info_cache_ttl = 0\n\
                  vast_force_login = \"no\"\n",
        secret: "vast1!",
        metric: Some(CLUSTER),
        facts: Some(&["quota", "cluster_info"]),
        has_quota: true,
        down: EXTERNAL,
    },
    Row {
        backend: "hammerspace",
        at: ("address", "/mgmt/v1.2/rest", "ssl_ca_file"),
        options: "username = \"admin\"\npassword = \"hammer-1!\"\nmount_source = \"10.0.0.7\"\n\
                  mount_shares = false\nshare_query_wait_sec = 0\n",
        secret: "hammer-1!",
        metric: None,
        facts: None,
        has_quota: true,
        down: EXTERNAL,
    },
];

fn simulator(backend: &str, home: &Path) -> Box<dyn Running> {
    let mount = home.join("mount");
    std::fs::create_dir(&mount).unwrap();
    match backend {
        "netapp" => Box::new(Simulator::start(netapp::NetApp::new(&mount), home)),
        "purestorage" => {
            let vendor = purestorage::FlashBlade::new(&mount);
            Box::new(Simulator::start(vendor, home))
        }
        "dellemc-onefs" => Box::new(Simulator::start(onefs::OneFs::new(&mount), home)),
        "spectrumscale" => Box::new(Simulator::start(gpfs::Gpfs::new(&mount), home)),
        "weka" => Box::new(Simulator::start(weka::Weka::new(&mount), home)),
        "vast" => Box::new(Simulator::start(vast::Vast::new(&mount), home)),
        "hammerspace" => {
            let vendor = hammerspace::Hammerspace::new(&mount);
            Box::new(Simulator::start(vendor, home))
        }
        other => panic!("no simulator of {other}"),
    }
}

/// A server with a volume of this kind, and everything that it said.
struct Bed {
    row: &'static Row,
    sim: Box<dyn Running>,
    server: Server,
    said: Vec<String>,
    _home: TempDir,
}

impl Bed {
    fn new(row: &'static Row) -> Self {
        let home = TempDir::with_prefix("vendor-test-").unwrap();
        let sim = simulator(row.backend, home.path());
        let (address, below, authorities) = row.at;
        let tables = format!(
            "[logging]\nlevel = \"TRACE\"\nqueue-records = 1000000\n\
             pkg-ns = {{ \"\" = \"TRACE\", \"ai.backend\" = \"TRACE\" }}\n\
             [volume.{VOLUME}.options]\n\
             {address} = \"{}{below}\"\n{authorities} = {:?}\n\
             api_calls_per_second = 1000\n{}",
            sim.url(),
            sim.ca_file(),
            row.options
        );
        let server = Server::start_with(
            PROGRAM,
            Settings {
                volume: Some((row.backend, home.path().join("mount"))),
                tables,
                ..Settings::default()
            },
        );
        Self {
            row,
            sim,
            server,
            said: Vec::new(),
            _home: home,
        }
    }

    fn ask(&mut self, method: &str, path: &str, more: Value) -> (u16, Value) {
        let mut body = json!({ "volume": VOLUME });
        let all = body.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        let answer = self.server.ask(method, path, &body);
        self.said
            .push(String::from_utf8_lossy(&answer.body).into_owned());
        let body = match answer.body.is_empty() {
            true => Value::Null,
            false => answer.json(),
        };
        (answer.status, body)
    }

    fn good(&mut self, method: &str, path: &str, more: Value) -> Value {
        let (status, body) = self.ask(method, path, more);
        let backend = self.row.backend;
        assert!(
            (200..300).contains(&status),
            "{backend} {path}: {status} {body}"
        );
        body
    }

    fn check_numbers(&mut self) {
        let backend = self.row.backend;
        let usage = self.good("GET", "/folder/fs-usage", json!({}));
        for key in ["capacity_bytes", "used_bytes"] {
            assert!(usage[key].is_u64(), "{backend}: {usage}");
        }
        assert!(0 < usage["capacity_bytes"].as_u64().unwrap(), "{usage}");
        let info = self.good("GET", "/volume/hwinfo", json!({}));
        assert_eq!(info["status"], "healthy", "{backend}: {info}");
        let facts = info["metadata"].as_object().unwrap();
        let keys: Vec<&str> = facts.keys().map(String::as_str).collect();
        assert_eq!(keys, self.row.facts.unwrap_or_default(), "{backend}");
        assert!(facts.values().all(Value::is_string), "{backend}: {info}");
        let (status, body) = self.ask("GET", "/volume/performance-metric", json!({}));
        let Some(want) = self.row.metric else {
            assert_eq!(status, 400, "{backend}: {body}");
            return;
        };
        assert_eq!(status, 200, "{backend}: {body}");
        let metric = body["metric"].as_object().unwrap();
        let keys: Vec<&str> = metric.keys().map(String::as_str).collect();
        assert_eq!(keys, METRIC, "{backend}");
        for ((key, value), want) in metric.iter().zip(want) {
            assert_eq!(value.as_f64(), Some(want), "{backend} {key}: {body}");
            assert_eq!(value.is_u64(), !key.contains("usec"), "{backend} {key}");
        }
        let at = body["observed_at"].as_str().unwrap();
        assert!(at.ends_with("+00:00"), "{backend}: {at}");
    }

    fn check_scope(&mut self) {
        let scope = json!({"qsid": SCOPE});
        let limited = |bytes: u64| json!({"qsid": SCOPE, "options": {"limit_bytes": bytes}});
        let (status, body) = self.ask("GET", "/quota-scope", scope.clone());
        assert_eq!(status, 404, "{body}");
        self.good("POST", "/quota-scope", limited(MIB));
        let (status, body) = self.ask("POST", "/quota-scope", limited(MIB));
        let taken = json!({"msg": "Volume already exists with given quota scope."});
        assert_eq!((status, body), (409, taken), "{}", self.row.backend);
        self.good("PATCH", "/quota-scope", limited(2 * MIB));
        let told = self.good("GET", "/quota-scope", scope.clone());
        let want = self.row.has_quota.then_some(2 * MIB);
        assert_eq!(told["limit_bytes"], json!(want), "{}", self.row.backend);
        self.good("DELETE", "/quota-scope/quota", scope.clone());
        let told = self.good("GET", "/quota-scope", scope);
        assert_eq!(told["limit_bytes"], Value::Null, "{}", self.row.backend);
    }

    fn check_down(&mut self) {
        let backend = self.row.backend;
        self.sim.stop();
        let (kind, want) = self.row.down;
        let path = match self.row.metric {
            Some(_) => "/volume/performance-metric",
            None => "/folder/fs-usage",
        };
        let (status, body) = self.ask("GET", path, json!({}));
        assert_eq!(status, want, "{backend}: {body}");
        let found = body["type"].as_str().unwrap();
        assert!(found.ends_with(kind), "{backend}: {body}");
        assert_eq!(body["data"]["retry"], true, "{backend}: {body}");
        let system = body["data"]["system"].as_str().unwrap().to_owned();
        assert!(body["msg"].as_str().unwrap().contains(&system), "{body}");
        if self.row.facts.is_some() {
            let info = self.good("GET", "/volume/hwinfo", json!({}));
            assert_eq!(info["status"], "unavailable", "{backend}: {info}");
            assert!(info["status_info"].as_str().unwrap().contains(&system));
        }
        // The plain volume beside it, and files of this one, are served as ever.
        let plain = json!({ "volume": OTHER_VOLUME });
        let answer = self.server.ask("GET", "/folder/fs-usage", &plain);
        assert_eq!(answer.status, 200, "{backend}");
        let folder = format!("{SCOPE}/0123456789abcdef0123456789abcdef");
        self.good("POST", "/folder/create", json!({ "vfid": folder }));
        let listed = json!({"vfid": folder, "relpath": ""});
        self.good("POST", "/folder/file/list", listed);
        let request = self.server.manager_request("GET", "/volumes");
        let volumes = request.send(self.server.manager()).expect(200).json();
        let listed = volumes["volumes"].as_array().unwrap();
        let backends: Vec<_> = listed.iter().map(|one| one["backend"].as_str()).collect();
        assert_eq!(backends, [Some(backend), Some("vfs")], "as configured");
    }

    fn check_back(&mut self) {
        self.sim.resume();
        self.sim.expire();
        wait::until("the system is back", Duration::from_secs(60), || {
            let (status, _) = self.ask("GET", "/folder/fs-usage", json!({}));
            (status == 200).then_some(())
        });
        self.check_numbers();
        let page = self.server.metrics();
        let kind = self.row.backend.replace("spectrumscale", "gpfs");
        let of = format!("backend=\"{kind}\"");
        for name in [
            "up",
            "requests_total",
            "retries_total",
            "call_duration_seconds_count",
        ] {
            let name = format!("storage_proxy_vendor_{name}{{{of}");
            assert!(page.contains(&name), "{name} is not on\n{page}");
        }
        self.said.push(page);
        for path in ["/health", "/readyz"] {
            let answer = Request::new("GET", path).send(self.server.internal());
            self.said
                .push(String::from_utf8_lossy(&answer.body).into_owned());
        }
    }

    /// Everything that proves who we are, as it went over the wire.
    fn secrets(&self) -> Vec<String> {
        let mut all = vec![self.row.secret.to_owned()];
        for recorded in self.sim.requests() {
            for name in ["authorization", "cookie", "x-auth-token", "x-csrf-token"] {
                let value = recorded.request.header(name).unwrap_or_default();
                let parts = value.split([' ', ';', '=']).map(str::trim);
                all.extend(parts.filter(|part| 10 < part.len()).map(str::to_owned));
            }
        }
        all.sort();
        all.dedup();
        all
    }
}

fn check(backend: &str) {
    let row = TABLE.iter().find(|row| row.backend == backend).unwrap();
    let mut bed = Bed::new(row);
    bed.check_numbers();
    bed.check_scope();
    bed.check_down();
    bed.check_back();
    let (secrets, log) = (bed.secrets(), bed.server.log());
    assert!(log.contains("call to the storage system"), "{log}");
    for secret in secrets {
        assert!(!log.contains(&secret), "{backend}: {secret} is in the log");
        let told = bed.said.iter().find(|said| said.contains(&secret));
        assert_eq!(told, None, "{backend}: {secret}");
    }
}

#[test]
fn netapp_is_served() {
    check("netapp");
}

#[test]
fn purestorage_is_served_by_its_first_interface() {
    check("purestorage");
}

#[test]
fn onefs_is_served() {
    check("dellemc-onefs");
}

#[test]
fn gpfs_is_served() {
    check("spectrumscale");
}

#[test]
fn weka_is_served() {
    check("weka");
}

#[test]
fn vast_is_served() {
    check("vast");
}

#[test]
fn hammerspace_is_served() {
    check("hammerspace");
}

#[test]
fn a_share_of_unknown_size_says_so() {
    let server = Server::start_with(
        PROGRAM,
        Settings {
            volume: Some(("hammerspace-base", TempDir::new().unwrap().keep())),
            ..Settings::default()
        },
    );
    let body = json!({ "volume": VOLUME });
    let usage = server.ask("GET", "/folder/fs-usage", &body).expect(200);
    let unknown = json!({"capacity_bytes": -1, "used_bytes": -1});
    assert_eq!(usage.json(), unknown);
    let info = server.ask("GET", "/volume/hwinfo", &body).expect(200);
    let healthy = json!({"status": "healthy", "status_info": null, "metadata": {}});
    assert_eq!(info.json(), healthy);
    let _ = server
        .ask("GET", "/volume/performance-metric", &body)
        .expect(400);
    let _ = std::fs::remove_dir_all(server.volume(VOLUME));
}
