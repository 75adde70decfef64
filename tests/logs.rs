//! Goal: what operators look for in logs is there, in every place that logs can go to; and no
//! secret is, whatever the level.
//!
//! Method: servers of the test's own stand in for Loki, Logstash, Graylog and an OpenTelemetry
//! collector; a real server ships to them while requests of every kind run.

use std::path::Path;
use std::time::Duration;

use proxy_testkit::server::{MANAGER_SECRET, TOKEN_SECRET};
use proxy_testkit::tus::Upload;
use proxy_testkit::{Folder, Request, Server, Settings, wait};
use serde_json::{Value, json};

#[path = "logs/sinks.rs"]
mod sinks;

use sinks::{Sink, certificates};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const REQUEST_ID: &str = "req-4711.a:b_c";
const BOUND: Duration = Duration::from_secs(20);

/// A server with these tables, under `[logging]` and after it.
fn start(level: &str, drivers: &str, tables: &str) -> Server {
    let tables = format!("[logging]\nlevel = \"{level}\"\ndrivers = [{drivers}]\n{tables}");
    let settings = Settings {
        tables,
        ..Settings::default()
    };
    Server::start_with(PROGRAM, settings)
}

/// Work of every kind, under one request identifier; returns the tokens that were used.
fn work(server: &Server, folder: &Folder) -> Vec<String> {
    let ask = |method: &str, path: &str, body: &Value| {
        server
            .manager_request(method, path)
            .header("X-BackendAI-RequestID", REQUEST_ID)
            .json(body)
            .send(server.manager())
    };
    let body = json!({"volume": "volume1", "vfid": folder.vfid, "relpath": ""});
    let _ = ask("POST", "/folder/file/list", &body).expect(200);
    let nowhere = json!({"volume": "volume1", "vfid": folder.vfid, "relpath": "no/where"});
    let _ = ask("POST", "/folder/file/list", &nowhere);
    let content = vec![5; 3000];
    let upload = Upload::begin(server, folder, "a file", 3000);
    let patch = upload.patch_request(0).body(&content);
    let answer = patch
        .header("X-BackendAI-RequestID", REQUEST_ID)
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .send(server.client())
        .expect(204);
    assert_eq!(answer.header("X-BackendAI-RequestID"), Some(REQUEST_ID));
    let token = folder.download_token("a file");
    let download = Request::new("GET", &format!("/download?token={token}"));
    let _ = download.send(server.client()).expect(200);
    let broken = format!("{}x", &token);
    let download = Request::new("GET", &format!("/download?token={broken}&archive=true"));
    let refused = download
        .header("X-BackendAI-RequestID", REQUEST_ID)
        .send(server.client());
    assert!(400 <= refused.status);
    let _ = Request::new("GET", "/volumes")
        .header("X-BackendAI-Storage-Auth-Token", "not-the-manager-secret")
        .send(server.manager())
        .expect(403);
    vec![
        upload.token,
        token,
        broken,
        "not-the-manager-secret".to_owned(),
    ]
}

/// The record of the finished upload, as any of the places tells it.
#[track_caller]
fn check_upload(folder: &Folder, fields: impl Fn(&str) -> Option<String>) {
    for (name, want) in [
        ("vfolder_id", folder.vfid.as_str()),
        ("volume", "volume1"),
        ("backend", "vfs"),
        ("operation", "upload"),
        ("request_id", REQUEST_ID),
        ("status", "204"),
    ] {
        assert_eq!(fields(name).as_deref(), Some(want), "{name}");
    }
    let number = |name: &str| fields(name).and_then(|text| text.parse::<u64>().ok());
    assert!(number("bytes").is_some_and(|bytes| 3000 <= bytes));
    assert!(number("duration_ms").is_some());
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn is_upload(record: &Value, prefix: &str) -> bool {
    record[format!("{prefix}operation")] == "upload" && !record[format!("{prefix}bytes")].is_null()
}

/// docs/operations.md, the access log.
#[test]
fn the_access_log_has_a_line_for_every_request_where_it_is_asked_for() {
    for is_asked in [true, false] {
        let levels = match is_asked {
            true => {
                "[logging.console]\nformat = \"json\"\n[logging.pkg-ns]\n\
                     \"aiohttp.access\" = \"INFO\"\n"
            }
            false => "[logging.console]\nformat = \"json\"\n",
        };
        let mut server = start("INFO", "\"console\"", levels);
        let folder = Folder::empty(&server);
        let secrets = work(&server, &folder);
        let _ = Request::new("GET", "/").send(server.client()).expect(200);
        server.stop();
        let log = server.log();
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let lines: Vec<Value> = lines
            .filter(|line| line["name"] == "aiohttp.access")
            .collect();
        let mut seen: Vec<String> = lines
            .iter()
            .map(|line| {
                for number in ["bytes", "duration_ms", "status"] {
                    assert!(line[number].is_u64(), "{number} of {line}");
                }
                format!("{} {} {}", line["method"], line["endpoint"], line["status"])
            })
            .collect();
        seen.sort();
        let want = [
            r#""GET" "/" 200"#,
            r#""GET" "/download" 200"#,
            r#""GET" "/download" 400"#,
            r#""GET" "/volumes" 403"#,
            r#""PATCH" "/upload" 204"#,
            r#""POST" "/folder/file/list" 200"#,
            r#""POST" "/folder/file/list" 400"#,
            r#""POST" "/folder/file/upload" 200"#,
        ];
        let want = if is_asked { &want[..] } else { &[] };
        assert_eq!(seen, want, "{log}");
        let mut sizes = lines.iter().filter(|line| line["endpoint"] == "/download");
        assert!(sizes.all(|line| line["status"] != 200 || Some(3000) <= line["bytes"].as_u64()));
        let named = lines.iter().filter(|line| line["request_id"] == REQUEST_ID);
        assert_eq!(named.count(), if is_asked { 4 } else { 0 }, "{log}");
        for secret in secrets {
            assert!(!log.contains(&secret), "{secret} in\n{log}");
        }
    }
}

#[test]
fn the_file_has_json_with_the_fields_of_storage_operations() {
    let dir = tempfile::tempdir().expect("a directory");
    let tables = format!(
        "[logging.file]\npath = \"{}\"\nfilename = \"p.log\"\n",
        dir.path().display()
    );
    let mut server = start("INFO", "\"console\", \"file\"", &tables);
    let folder = Folder::empty(&server);
    work(&server, &folder);
    server.stop();
    let log = std::fs::read_to_string(dir.path().join("p.log")).expect("the log");
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let upload = lines
        .iter()
        .find(|line| is_upload(line, ""))
        .expect("the upload");
    check_upload(&folder, |name| text(&upload[name]));
    let list = lines.iter().find(|line| {
        let message = line["message"].as_str().unwrap_or_default();
        message.starts_with("ManagerAPI::LIST(v:volume1, f:user:") && line["status"] == 200
    });
    let list = list.expect("the listing");
    assert_eq!(list["request_id"], REQUEST_ID);
    assert_eq!(list["operation"], "list");
    assert_eq!(list["vfolder_id"], folder.vfid);
    for begin in [
        "Backend.AI Storage Proxy",
        "Runtime: ",
        "Node ID: ",
        "Started the storage-proxy service.",
        "client error raised inside handlers: (POST /folder/file/list)",
        "Shutting down...",
        "exit.",
    ] {
        let told = lines.iter().any(|line| {
            line["message"]
                .as_str()
                .is_some_and(|message| message.starts_with(begin))
        });
        assert!(told, "{begin}\n{log}");
    }
}

#[test]
fn loki_gets_few_labels_and_structured_metadata() {
    for (promoted, in_labels) in [(false, false), (true, true)] {
        let loki = Sink::http();
        let tables = format!(
            "[logging.loki]\nendpoint = \"http://{}\"\ntenant = \"team\"\nbatch-time = 0\n\
             vfolder-id-label = {promoted}\nlabels = {{ cluster = \"c1\" }}\n",
            loki.addr
        );
        let server = start("INFO", "\"console\", \"loki\"", &tables);
        let folder = Folder::empty(&server);
        work(&server, &folder);
        let (stream, entry) = wait::until("the upload at Loki", BOUND, || {
            loki.bodies().into_iter().find_map(|body| {
                let push: Value = serde_json::from_slice(&body).expect("JSON");
                let streams = push["streams"].as_array()?.clone();
                streams.into_iter().find_map(|stream| {
                    let entries = stream["values"].as_array()?.clone();
                    let upload = entries.into_iter().find(|entry| {
                        let line = entry[1].as_str().expect("a line");
                        is_upload(&serde_json::from_str(line).expect("JSON"), "")
                    });
                    Some((stream["stream"].clone(), upload?))
                })
            })
        });
        let labels = json!({
            "service_name": "storage-proxy", "node": "i-test", "cluster": "c1",
            "level": "info", "backend": "vfs", "operation": "upload",
        });
        for (name, want) in labels.as_object().expect("labels") {
            assert_eq!(&stream[name], want, "{name}");
        }
        assert_eq!(!stream["vfolder_id"].is_null(), in_labels);
        assert_eq!(entry[2]["vfolder_id"].is_null(), in_labels);
        assert_eq!(entry[2]["request_id"], REQUEST_ID);
        assert!(
            loki.heads()
                .iter()
                .any(|head| head.contains("x-scope-orgid: team"))
        );
        assert!(entry[0].as_str().is_some_and(|ns| ns.len() == 19));
        server.finish();
    }
}

#[test]
fn a_log_server_that_is_away_costs_records_and_nothing_else() {
    // A port that nobody listens on.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = gone.local_addr().expect("bound");
    drop(gone);
    let tables = format!(
        "queue-records = 16\n[logging.loki]\nendpoint = \"http://{addr}\"\nbatch-records = 1\n"
    );
    let server = start("DEBUG", "\"console\", \"loki\"", &tables);
    let folder = Folder::empty(&server);
    let body = json!({"volume": "volume1", "vfid": folder.vfid, "relpath": ""});
    let dropped = wait::within(BOUND, || {
        let _ = server.ask("POST", "/folder/file/list", &body).expect(200);
        let line = "storage_proxy_log_records_total{result=\"dropped\",sink=\"loki\"} ";
        let metrics = server.metrics();
        let count = metrics.lines().find_map(|text| text.strip_prefix(line));
        (count.and_then(|count| count.parse::<f64>().ok()) > Some(0.0)).then_some(())
    });
    assert!(dropped.is_some(), "nothing was dropped");
    server.finish();
}

#[test]
fn logstash_gets_lines_over_tcp_and_datagrams_over_udp() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = certificates(dir.path());
    for (protocol, tls) in [("tcp", false), ("tcp", true), ("udp", false)] {
        let sink = match (protocol, tls) {
            ("udp", _) => Sink::udp(),
            (_, true) => Sink::tls(&files, b'\n'),
            _ => Sink::tcp(b'\n'),
        };
        let tables = format!(
            "[logging.logstash]\nendpoint = {{ host = \"localhost\", port = {} }}\n\
             protocol = \"{protocol}\"\nssl-enabled = {tls}\nca-certs = \"{}\"\n",
            sink.addr.port(),
            files.ca.display()
        );
        let server = start("INFO", "\"console\", \"logstash\"", &tables);
        let folder = Folder::empty(&server);
        work(&server, &folder);
        let upload = sink.await_json(&format!("{protocol} {tls}"), |one| is_upload(one, ""));
        check_upload(&folder, |name| text(&upload[name]));
        assert_eq!(upload["@version"], 1);
        assert_eq!(upload["level"], "INFO");
        assert_ne!(upload["host"], "hostname");
        let logger = upload["logger"].as_str().expect("a logger");
        assert!(logger.starts_with("ai.backend.storage."), "{logger}");
        server.finish();
    }
}

#[test]
fn graylog_gets_gelf_over_tls() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = certificates(dir.path());
    for trust in [
        format!("ca-certs = \"{}\"", files.ca.display()),
        "ssl-verify = false".into(),
    ] {
        let sink = Sink::tls(&files, 0);
        let tables = format!(
            "[logging.graylog]\nhost = \"localhost\"\nport = {}\nlocalname = \"sp1\"\n{trust}\n",
            sink.addr.port()
        );
        let server = start("INFO", "\"console\", \"graylog\"", &tables);
        let folder = Folder::empty(&server);
        work(&server, &folder);
        let upload = sink.await_json(&trust, |one| is_upload(one, "_"));
        check_upload(&folder, |name| text(&upload[format!("_{name}")]));
        assert_eq!(upload["version"], "1.0");
        assert_eq!(upload["host"], "sp1");
        assert_eq!(upload["level"], 6);
        assert_eq!(upload["short_message"], "transfer finished");
        server.finish();
    }
}

#[test]
fn a_collector_gets_records_and_spans() {
    let sink = Sink::grpc();
    let tables = format!(
        "[otel]\nenabled = true\nendpoint = \"http://{}\"\n",
        sink.addr
    );
    let mut server = start("INFO", "\"console\"", &tables);
    let folder = Folder::empty(&server);
    work(&server, &folder);
    // The end of the program exports what is left.
    server.stop();
    let logs = sink.bodies_at("/opentelemetry.proto.collector.logs.v1.LogsService/Export");
    let spans = sink.bodies_at("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    let has = |all: &[Vec<u8>], part: &[u8]| {
        all.iter()
            .any(|body| body.windows(part.len()).any(|window| window == part))
    };
    let name = "storage-i-test";
    for part in [
        "service.name",
        "storage-proxy",
        "service.instance.id",
        name,
        "upload",
        "volume1",
    ] {
        assert!(has(&logs, part.as_bytes()), "no {part} in the records");
        assert!(has(&spans, part.as_bytes()), "no {part} in the spans");
    }
    for part in ["vfolder_id", "request_id", REQUEST_ID, "transfer finished"] {
        assert!(has(&logs, part.as_bytes()), "no {part} in the records");
    }
    let trace = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes();
    assert!(has(&spans, &trace), "the client's trace goes on");
}

#[test]
fn protocols_that_are_not_spoken_are_refused_with_a_way_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("c.toml");
    let text = "[logging]\ndrivers = [\"logstash\"]\n[logging.logstash]\nprotocol = \"zmq.push\"\n\
                endpoint = { host = \"localhost\", port = 1 }\n";
    std::fs::write(&config, text).expect("written");
    let output = std::process::Command::new(PROGRAM)
        .args([
            "serve",
            "--client-addr",
            "127.0.0.1:0",
            "--manager-addr",
            "127.0.0.1:0",
        ])
        .args(["--internal-addr", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path().join("state"))
        .arg("--config")
        .arg(&config)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("zmq.push") && said.contains("\"tcp\""),
        "{said}"
    );
}

/// Every secret that the requests of a test used must be absent.
#[track_caller]
fn check_clean(place: &str, text: &str, secrets: &[String]) {
    for secret in secrets {
        let at = text.find(secret.as_str());
        let around = at.map(|at| &text[text.floor_char_boundary(at.saturating_sub(200))..at]);
        assert!(at.is_none(), "{place} has {secret} behind {around:?}");
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn no_secret_is_in_any_log_at_any_level() {
    let dir = tempfile::tempdir().expect("a directory");
    let loki = Sink::http();
    let tables = format!(
        "pkg-ns = {{ \"\" = \"TRACE\", \"ai.backend\" = \"TRACE\" }}\nqueue-records = 1000000\n\
         [logging.file]\npath = \"{}\"\nfilename = \"p.log\"\nrotation-size = \"1GB\"\n\
         [logging.loki]\nendpoint = \"http://{}\"\nusername = \"u\"\npassword = \"loki-password\"\n\
         batch-time = 0\n",
        dir.path().display(),
        loki.addr
    );
    let mut server = start("TRACE", "\"console\", \"file\", \"loki\"", &tables);
    let folder = Folder::empty(&server);
    let mut secrets = work(&server, &folder);
    secrets.retain(|secret| secret != "not-the-manager-secret");
    let shown = [TOKEN_SECRET, MANAGER_SECRET, "loki-password"].map(str::to_owned);
    secrets.extend(shown);
    server.stop();
    let file = read(&dir.path().join("p.log"));
    assert!(
        file.contains("TRACE") || file.contains("DEBUG"),
        "the level is low"
    );
    check_clean("the file", &file, &secrets);
    check_clean("the console", &server.log(), &secrets);
    let pushed: Vec<u8> = loki.bodies().concat();
    assert!(!pushed.is_empty());
    check_clean("Loki", &String::from_utf8_lossy(&pushed), &secrets);
}
