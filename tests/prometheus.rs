//! Goal: what operators ask of Prometheus, they get: every query of the specification, every panel
//! of the dashboard and every alert rule, from a real Prometheus that scrapes a real server.
//!
//! Method: Debian's `prometheus` scrapes once a second on loopback while requests of every kind
//! run; then the queries are asked over its API. `promtool` judges our page and our rules.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use proxy_testkit::redis::free_port;
use proxy_testkit::tus::Upload;
use proxy_testkit::{Folder, Request, Server, Settings, http, skip, wait};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const QUERIES: &str = include_str!("prometheus/queries.txt");
const DASHBOARD: &str = include_str!("../configs/grafana/storage-proxy.json");
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/prometheus/alerts.yml");
/// Set by the Manager's service discovery, as a label of the target.
const GROUP: &str = "storage-proxy-test";
/// Names that only a fleet has, or backends with numbers of their own, or a quota.
const MAY_BE_ABSENT: &[&str] = &[
    "storage_proxy_fleet_",
    "storage_proxy_sessions_",
    "storage_proxy_quota_",
    "storage_proxy_vendor_",
    "backendai_storage_volume_throughput",
];

/// A running Prometheus; ends with its value.
struct Prometheus {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// `None` where it is not installed.
    fn start(target: std::net::SocketAddr) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nrule_files: [\"{RULES}\"]\n\
             scrape_configs:\n  - job_name: storage-proxy\n    static_configs:\n      \
             - targets: [\"{target}\"]\n        labels: {{service_group: \"{GROUP}\"}}\n"
        );
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config).expect("its configuration");
        let log = std::fs::File::create(dir.path().join("log")).expect("its log");
        // Another process may take the port first: it ends then, and another one is tried.
        for _ in 0..5 {
            let port = free_port();
            let mut child = Command::new("prometheus")
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}/data", dir.path().display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .stderr(log.try_clone().expect("its log"))
                .stdout(Stdio::null())
                .spawn()
                .ok()?;
            let ready = wait::within(Duration::from_secs(30), || {
                if child.try_wait().expect("our child").is_some() {
                    return Some(false);
                }
                let socket = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
                drop(socket);
                let to = ([127, 0, 0, 1], port).into();
                (Request::new("GET", "/-/ready").send(to).status == 200).then_some(true)
            });
            if ready == Some(true) {
                let _dir = dir;
                return Some(Self { child, port, _dir });
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("prometheus does not start");
    }

    /// The values of a query.
    fn ask(&self, query: &str) -> Result<Vec<f64>, String> {
        let target = format!("/api/v1/query?query={}", http::escape(query));
        let answer = Request::new("GET", &target).send(([127, 0, 0, 1], self.port).into());
        let body = answer.json();
        if body["status"] != "success" {
            return Err(body.to_string());
        }
        let series = body["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let value = |one: &Value| one["value"][1].as_str()?.parse().ok();
        Ok(series.iter().filter_map(value).collect())
    }
}

/// One request of every kind that the queries ask for.
fn traffic(server: &Server, folder: &Folder, round: u64) {
    let made = Folder::unmade(server);
    let body = json!({"volume": "volume1", "vfid": made.vfid});
    let created = server.ask("POST", "/folder/create", &body);
    assert!(created.status < 500, "{created:?}");
    let _ = server.ask("POST", "/folder/delete", &body).expect(202);
    let body = json!({"volume": "volume1", "vfid": folder.vfid, "relpath": ""});
    let _ = server.ask("POST", "/folder/file/list", &body).expect(200);
    let name = format!("upload-{round}");
    let content = vec![7; 4096];
    let upload = Upload::begin(server, folder, &name, content.len() as u64);
    let _ = upload.patch(0, &content).expect(204);
    let token = folder.download_token(&name);
    let target = format!("/download?token={token}");
    let answer = Request::new("GET", &target)
        .send(server.client())
        .expect(200);
    assert_eq!(answer.body, content);
    let scope = folder.vfid.split('/').next().expect("a scope");
    let body = json!({"volume": "volume1", "qsid": scope});
    let _ = server.ask("GET", "/quota-scope", &body);
    // 404, a refused token on both ports, and so 403.
    let missing = folder.download_token("not-there");
    let _ = Request::new("GET", &format!("/download?token={missing}")).send(server.client());
    let _ = Request::new("GET", "/download?token=no-token").send(server.client());
    let _ = Request::new("GET", "/volumes")
        .send(server.manager())
        .expect(403);
}

#[test]
fn every_query_of_the_specification_and_every_panel_answers() {
    let server = Server::start(PROGRAM);
    let Some(prometheus) = Prometheus::start(server.internal()) else {
        return skip("prometheus is not installed");
    };
    let folder = Folder::empty(&server);
    let mut round = 0;
    // Rates need two samples of a series: traffic goes on until the last question has an answer.
    let answered = wait::within(Duration::from_secs(60), || {
        round += 1;
        traffic(&server, &folder, round);
        let rate = format!(
            "sum(rate(backendai_api_request_count_total{{service_group=\"{GROUP}\", \
                            endpoint=\"/vfolder/upload\"}}[5m]))"
        );
        let values = prometheus.ask(&rate).expect("a query");
        (5 < round && values.iter().any(|value| 0.0 < *value)).then_some(())
    });
    assert!(answered.is_some(), "nothing was scraped");
    let mut failures = Vec::new();
    for (name, check, query) in queries() {
        let judged = wait::within(Duration::from_secs(15), || {
            round += 1;
            traffic(&server, &folder, round);
            let values = prometheus.ask(&query).expect("a query");
            let fits = match check {
                "positive" => values.iter().any(|value| 0.0 < *value),
                "zero" => !values.is_empty() && values.iter().all(|value| value.abs() < 1e-9),
                "share" => values.iter().all(|value| (0.3..=1.0).contains(value)),
                other => panic!("{other}"),
            };
            (fits && !values.is_empty()).then_some(())
        });
        if judged.is_none() {
            failures.push(format!("{name}: {:?}\n  {query}", prometheus.ask(&query)));
        }
    }
    let panels: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    for query in expressions(&panels) {
        round += 1;
        traffic(&server, &folder, round);
        let query = query
            .replace("$instance", ".*")
            .replace("$__rate_interval", "1m");
        let optional = MAY_BE_ABSENT.iter().any(|name| query.contains(name));
        match prometheus.ask(&query) {
            Ok(values) if optional || !values.is_empty() => {}
            other => failures.push(format!("panel: {other:?}\n  {query}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    server.finish();
}

/// Name, check and text of each query of the file.
fn queries() -> Vec<(&'static str, &'static str, String)> {
    let mut all = Vec::new();
    let mut lines = QUERIES.lines().filter(|line| !line.starts_with('#'));
    while let Some(title) = lines.next() {
        let (name, check) = title[3..].split_once(" | ").expect("name | check");
        let query = lines.next().expect("a query").replace("$G", GROUP);
        all.push((name, check, query));
    }
    assert_eq!(all.len(), 19, "the specification has as many");
    all
}

/// Every `expr` of a dashboard.
fn expressions(of: &Value) -> Vec<String> {
    match of {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| match value.as_str() {
                Some(text) if name == "expr" => vec![text.to_owned()],
                _ => expressions(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(expressions).collect(),
        _ => Vec::new(),
    }
}

/// Runs `promtool`; what it says when it does not agree. `None` where it is not installed.
fn promtool(arguments: &[&str], input: &str) -> Option<Result<(), String>> {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    Some(if output.status.success() {
        Ok(())
    } else {
        Err(said)
    })
}

/// What `promtool` finds and the original's names do not let us change.
const NAMES_OF_THE_ORIGINAL: &[&str] = &["backendai_"];

#[test]
fn promtool_accepts_the_page_and_the_rules() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    traffic(&server, &folder, 1);
    let page = server.metrics();
    let Some(judged) = promtool(&["check", "metrics"], &page) else {
        return skip("promtool is not installed");
    };
    let said = judged.err().unwrap_or_default();
    let ours = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .filter(|line| {
            !NAMES_OF_THE_ORIGINAL
                .iter()
                .any(|name| line.starts_with(name))
        });
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new());
    let rules = promtool(&["check", "rules", RULES], "").expect("it was there before");
    assert_eq!(rules, Ok(()));
    server.finish();
}

#[test]
fn endpoints_have_the_names_that_were_asked_for() {
    for (setting, routes, operations) in [
        ("both", true, true),
        ("routes", true, false),
        ("operations", false, true),
    ] {
        let tables = format!("[server]\nmetrics-endpoints = \"{setting}\"\n");
        let settings = Settings {
            tables,
            ..Settings::default()
        };
        let server = Server::start_with(PROGRAM, settings);
        let folder = Folder::empty(&server);
        traffic(&server, &folder, 1);
        let page = server.metrics();
        for (names, there) in [
            (
                [
                    "/folder/create",
                    "/folder/file/list",
                    "/download",
                    "/upload",
                ],
                routes,
            ),
            (
                [
                    "/vfolder/create",
                    "/vfolder/list",
                    "/vfolder/download",
                    "/vfolder/upload",
                ],
                operations,
            ),
        ] {
            for name in names {
                let label = format!("endpoint=\"{name}\"");
                assert_eq!(page.contains(&label), there, "{setting}: {name}\n{page}");
            }
        }
        server.finish();
    }
}
