//! Goal: a server that has a keypair says whether the Manager answers and takes it, and serves on
//! when it does not.
//! Method: a Manager of the test's own on loopback, announced in a real Redis as real ones are.
//!
//! Source: docs/operations.md, the Manager's API.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use proxy_testkit::redis::RedisServer;
use proxy_testkit::{Request, Server, Settings, wait};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
/// A probe, and the rest after failures, on a busy machine.
const TOLD: Duration = Duration::from_secs(30);
const SECRET: &str = "never-in-a-log";

/// Answers every request with `status`; GraphQL with a keypair.
fn manager(status: &Arc<AtomicU16>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("an address");
    let status = Arc::clone(status);
    // Ends with the test process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let status = Arc::clone(&status);
            std::thread::spawn(move || answer(stream, &status));
        }
    });
    at
}

fn answer(mut stream: TcpStream, status: &AtomicU16) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let line = line.trim_end().to_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        reader.read_exact(&mut vec![0; length]).ok()?;
        let body = match first.starts_with("POST") {
            true => {
                "{\"data\":{\"keypair\":{\"access_key\":\"AKTEST\",\"user_id\":\"a@b\",\
                 \"user\":\"00000000-0000-0000-0000-000000000001\",\"is_active\":true,\
                 \"is_admin\":true}}}"
            }
            false => "{\"version\":\"v8\",\"manager\":\"26.8.1\"}",
        };
        let status = status.load(Ordering::Relaxed);
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body.as_bytes()).ok()?;
    }
}

#[track_caller]
fn until_told(server: &Server, well: bool) {
    wait::until(&format!("the Manager is well: {well}"), TOLD, || {
        let health = Request::new("GET", "/health")
            .send(server.internal())
            .json();
        let checks = health["connectivity"]["connectivity_checks"]
            .as_array()?
            .clone();
        let of_manager = |check: &&Value| check["service_group"] == "manager";
        (checks.iter().find(of_manager)?["is_healthy"] == well).then_some(())
    });
    let ready = Request::new("GET", "/readyz").send(server.internal());
    assert_eq!(ready.status, 200);
}

#[test]
fn the_manager_is_found_asked_and_told_of() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let status = Arc::new(AtomicU16::new(200));
    let at = manager(&status);
    let announce = || {
        let place = format!(
            "{{\"address\":\"{}\",\"port\":{},\"protocol\":\"http\"}}",
            at.ip(),
            at.port()
        );
        let key = "service_discovery.manager.m1";
        redis.command(0, &["HSET", key, "endpoint", &place]);
    };
    let tables = format!(
        "[redis]\naddr = \"{}\"\n[manager]\naccess-key = \"AKTEST\"\nsecret-key = \"{SECRET}\"\n",
        redis.addr()
    );
    let settings = Settings {
        tables: tables.clone(),
        ..Settings::default()
    };
    let server = Server::start_with(PROGRAM, settings);
    until_told(&server, false);
    announce();
    until_told(&server, true);
    status.store(500, Ordering::Relaxed);
    until_told(&server, false);
    status.store(200, Ordering::Relaxed);
    until_told(&server, true);
    for (code, want) in [(200, Some(0)), (401, Some(1))] {
        status.store(code, Ordering::Relaxed);
        assert_eq!(verify(&tables), want, "the Manager says {code}");
    }
    server.finish();
}

/// The exit status of `dependencies verify` with these tables.
fn verify(tables: &str) -> Option<i32> {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("c.toml");
    let text = format!(
        "[storage-proxy]\nnode-id = \"i-verify\"\nsecret = \"s\"\n[api.manager]\nsecret = \"s\"\n\
         [server]\ndata-dir = \"data\"\n[volume.v]\nbackend = \"vfs\"\npath = \".\"\n{tables}"
    );
    std::fs::write(&file, text).expect("a file");
    let output = Command::new(PROGRAM)
        .args(["dependencies", "verify", "--json", "-f"])
        .arg(&file)
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("\"manager\""), "{told}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!told.contains(SECRET) && !errors.contains(SECRET));
    output.status.code()
}
