//! Goal: a server in a fleet works with etcd, goes on without it, and tells the truth about it.
//! Method: a real etcd and a real Redis that are killed, frozen and started again under a running
//! server; transfers go on meanwhile. What is in etcd and Redis is read past the server.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proxy_testkit::etcd::Etcd;
use proxy_testkit::http::{Connection, Request};
use proxy_testkit::redis::{RedisOptions, RedisServer, Reply};
use proxy_testkit::tus::Upload;
use proxy_testkit::{Folder, Server, Settings, wait};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");

/// What a change of health may take.
const TOLD: Duration = Duration::from_secs(10);
/// For everything else that has to happen.
const SOON: Duration = Duration::from_secs(30);

/// etcd and Redis, where both are installed.
fn neighbours() -> Option<(Etcd, RedisServer)> {
    let redis = RedisServer::start_with(RedisOptions {
        password: Some("redis-password".to_owned()),
        ..RedisOptions::default()
    })?;
    let etcd = Etcd::start()?;
    say_where(&etcd, &redis);
    Some((etcd, redis))
}

/// Puts the settings of Redis into etcd.
fn say_where(etcd: &Etcd, redis: &RedisServer) {
    etcd.put("/sorna/local/config/redis/addr", &redis.addr().to_string());
    etcd.put("/sorna/local/config/redis/password", "redis-password");
}

fn health(server: &Server, path: &str) -> (u16, Value) {
    let answer = Request::new("GET", path).send(server.internal());
    (answer.status, answer.json())
}

/// Whether a component is healthy; `None` while it is not listed.
fn is_well(server: &Server, group: &str, id: &str) -> Option<bool> {
    let (_, health) = health(server, "/health");
    let checks = health["connectivity"]["connectivity_checks"]
        .as_array()
        .cloned();
    let is = |check: &&Value| check["service_group"] == group && check["component_id"] == id;
    checks
        .unwrap_or_default()
        .iter()
        .find(is)
        .map(|check| check["is_healthy"] == true)
}

/// Waits for the truth about a component, and checks what follows from it.
#[track_caller]
fn await_health(server: &Server, group: &str, id: &str, well: bool) {
    wait::until(&format!("{group}/{id} well={well}"), TOLD, || {
        (is_well(server, group, id) == Some(well)).then_some(())
    });
    if !well {
        let (code, body) = health(server, "/health");
        assert_eq!(
            (code, body["status"].as_str()),
            (200, Some("degraded")),
            "{body}"
        );
        assert_eq!(body["connectivity"]["overall_healthy"], false);
    }
    for path in ["/livez", "/readyz"] {
        let (code, body) = health(server, path);
        assert_eq!(
            (code, body["status"].as_str()),
            (200, Some("ok")),
            "{path} {body}"
        );
    }
}

/// Uploads a file in two requests and downloads it.
#[track_caller]
fn transfer(server: &Server, name: &str) {
    let folder = Folder::empty(server);
    let content: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let upload = Upload::begin(server, &folder, name, content.len() as u64);
    let (one, two) = content.split_at(100_000);
    for (offset, part) in [(0, one), (100_000, two)] {
        let sent = upload.patch(offset, part);
        assert_eq!(sent.status, 204, "{name} at {offset}: {}", sent.text());
    }
    let url = format!("/download?token={}", folder.download_token(name));
    let got = Request::new("GET", &url).send(server.client()).expect(200);
    assert!(got.body == content, "{name} differs");
}

fn records(redis: &RedisServer) -> Vec<String> {
    redis.keys(0, "service_discovery.storage-proxy.*")
}

/// Whether a text stands anywhere in an answer.
fn holds(reply: &Reply, text: &str) -> bool {
    match reply {
        Reply::List(all) => all.iter().any(|one| holds(one, text)),
        one => one.text().as_deref() == Some(text),
    }
}

#[test]
fn the_test_etcd_keeps_its_data_over_a_crash() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    etcd.put("/sorna/local/a/1", "é");
    etcd.put("/sorna/local/a/2", "");
    etcd.kill();
    etcd.run();
    assert_eq!(etcd.get("/sorna/local/a/1").as_deref(), Some("é"));
    assert_eq!(etcd.get("/sorna/local/a"), None);
    etcd.delete("/sorna/local/a/1");
    let left = [("/sorna/local/a/2".to_owned(), String::new())];
    assert_eq!(etcd.range("/sorna/local/a"), left);
    etcd.enable_auth("member", "secret", "/sorna/");
    etcd.change_password("member", "other");
    assert_eq!(etcd.range("/sorna/local/a"), left);
}

/// docs/semantics.md#health
#[test]
fn an_etcd_that_is_lost_stops_nothing() {
    let Some((mut etcd, _redis)) = neighbours() else {
        return;
    };
    let server = Server::start_with(PROGRAM, Settings::fleet("i-1", etcd.table()));
    for (group, id) in [
        ("etcd", "etcd"),
        ("redis", "bgtask"),
        ("redis", "artifact"),
        ("redis", "stream"),
        ("redis", "tus"),
    ] {
        await_health(&server, group, id, true);
    }
    transfer(&server, "before");

    etcd.freeze();
    await_health(&server, "etcd", "etcd", false);
    transfer(&server, "frozen");
    etcd.thaw();
    await_health(&server, "etcd", "etcd", true);

    etcd.kill();
    await_health(&server, "etcd", "etcd", false);
    assert_eq!(is_well(&server, "redis", "tus"), Some(true));
    transfer(&server, "killed");
    etcd.run();
    await_health(&server, "etcd", "etcd", true);
    transfer(&server, "after");
    let log = server.log();
    let count = |text: &str| log.matches(text).count();
    assert_eq!(
        (count("etcd is lost"), count("etcd is connected")),
        (2, 3),
        "{log}"
    );
    assert!(!log.contains("redis-password"), "{log}");
    server.finish();
}

/// docs/semantics.md#etcd
#[test]
fn a_server_starts_without_etcd_and_joins_later() {
    let Some((mut etcd, redis)) = neighbours() else {
        return;
    };
    etcd.kill();
    let mut server = Server::start_with(PROGRAM, Settings::fleet("i-1", etcd.table()));
    await_health(&server, "etcd", "etcd", false);
    await_health(&server, "redis", "tus", false);
    transfer(&server, "alone");
    assert!(
        server
            .log()
            .contains("etcd does not answer: the local configuration serves")
    );
    assert!(server.log().contains("it is not known where redis is"));
    etcd.run();
    await_health(&server, "etcd", "etcd", true);
    await_health(&server, "redis", "tus", true);
    wait::until("announced", SOON, || {
        (records(&redis).len() == 1).then_some(())
    });
    transfer(&server, "joined");
    assert!(server.stop().success());
    assert_eq!(records(&redis), [""; 0]);
}

#[test]
fn the_local_table_serves_until_etcd_says_otherwise() {
    let Some((mut etcd, redis)) = neighbours() else {
        return;
    };
    let Some(local) = RedisServer::start() else {
        return;
    };
    etcd.kill();
    let tables = format!("{}[redis]\naddr = \"{}\"\n", etcd.table(), local.addr());
    let server = Server::start_with(PROGRAM, Settings::fleet("i-1", tables));
    wait::until("announced locally", SOON, || {
        (records(&local).len() == 1).then_some(())
    });
    assert!(records(&redis).is_empty());
    etcd.run();
    wait::until("announced in the fleet", SOON, || {
        (records(&redis).len() == 1).then_some(())
    });
    server.finish();
}

#[test]
fn changed_settings_are_followed_without_a_restart() {
    let Some((etcd, redis)) = neighbours() else {
        return;
    };
    let Some(other) = RedisServer::start() else {
        return;
    };
    let server = Server::start_with(PROGRAM, Settings::fleet("i-1", etcd.table()));
    wait::until("announced", SOON, || {
        (records(&redis).len() == 1).then_some(())
    });
    // The node's own settings hide first-level names of the global ones.
    etcd.put("/sorna/local/nodes/storage/i-1/config/redis/password", "");
    etcd.put(
        "/sorna/local/nodes/storage/i-1/config/redis/addr",
        &other.addr().to_string(),
    );
    wait::until("announced there", SOON, || {
        (records(&other).len() == 1).then_some(())
    });
    await_health(&server, "redis", "tus", true);
    server.finish();
}

#[test]
fn a_wrong_password_is_told_and_the_right_one_needs_no_restart() {
    let Some((mut etcd, _redis)) = neighbours() else {
        return;
    };
    etcd.enable_auth("member", "right", "/sorna/");
    let login = |password: &str| {
        format!(
            "{}user = \"member\"\npassword = \"{password}\"\n",
            etcd.table()
        )
    };
    let right = Server::start_with(PROGRAM, Settings::fleet("i-1", login("right")));
    await_health(&right, "etcd", "etcd", true);
    await_health(&right, "redis", "tus", true);
    let wrong = Server::start_with(PROGRAM, Settings::fleet("i-2", login("wrong")));
    await_health(&wrong, "etcd", "etcd", false);
    let (_, body) = health(&wrong, "/health");
    assert!(
        body.to_string().contains("invalid user ID or password"),
        "{body}"
    );
    transfer(&wrong, "alone");
    etcd.change_password("member", "wrong");
    await_health(&wrong, "etcd", "etcd", true);
    await_health(&wrong, "redis", "tus", true);
}

/// docs/semantics.md#announcements
#[test]
fn a_record_has_all_seven_fields_and_expires() {
    let Some((etcd, redis)) = neighbours() else {
        return;
    };
    let settings = Settings {
        manager_lines: "announce-addr = \"10.0.0.1:6022\"\n\
                        announce-internal-addr = \"10.0.0.1:16023\""
            .to_owned(),
        ..Settings::fleet(
            "i-1",
            format!(
                "{}[service-discovery.extra-labels]\nrack = \"r1\"\n",
                etcd.table()
            ),
        )
    };
    let mut server = Server::start_with(PROGRAM, settings);
    let key = wait::until("announced", SOON, || records(&redis).pop());
    let field = |name: &str| -> Value {
        let text = redis
            .command(0, &["HGET", &key, name])
            .text()
            .unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{name}: {text:?}"))
    };
    let id = key.rsplit('.').next().unwrap();
    assert_eq!(field("id"), id);
    assert_eq!(field("display_name"), "storage-i-1");
    assert_eq!(field("service_group"), "storage-proxy");
    assert_eq!(field("version"), env!("CARGO_PKG_VERSION"));
    let endpoint = r#"{"address":"10.0.0.1:6022","port":6022,"protocol":"http","#.to_owned()
        + r#""prometheus_address":"10.0.0.1:16023"}"#;
    assert_eq!(field("endpoint").to_string(), endpoint);
    let health = field("health_status");
    assert!(health["registration_time"].as_f64() <= health["last_heartbeat"].as_f64());
    assert_eq!(field("labels").to_string(), r#"{"rack":"r1"}"#);
    let fields = redis.command(0, &["HKEYS", &key]).texts();
    assert_eq!(fields.len(), 7, "{fields:?}");
    let ttl: i64 = redis
        .command(0, &["TTL", &key])
        .text()
        .unwrap_or_default()
        .parse()
        .unwrap();
    assert!((100..=180).contains(&ttl), "{ttl}");
    redis.flush();
    drop(redis.command(0, &["CLIENT", "KILL", "TYPE", "normal"]));
    wait::until("announced again", SOON, || records(&redis).pop());
    assert!(server.stop().success());
    assert!(records(&redis).is_empty());
}

#[test]
fn announcements_can_stand_in_etcd() {
    let Some((etcd, redis)) = neighbours() else {
        return;
    };
    let tables = format!("{}[service-discovery]\ntype = \"etcd\"\n", etcd.table());
    let mut server = Server::start_with(PROGRAM, Settings::fleet("i-1", tables));
    let prefix = "/sorna/local/ai/backend/service_discovery/storage-proxy/";
    let found = wait::until("announced", SOON, || {
        let found = etcd.range(prefix);
        (!found.is_empty()).then_some(found)
    });
    let names: Vec<&str> = found
        .iter()
        .filter_map(|(key, _)| {
            key.strip_prefix(prefix)?
                .split_once('/')
                .map(|(_, name)| name)
        })
        .collect();
    let want = [
        "display_name",
        "endpoint/address",
        "endpoint/port",
        "endpoint/prometheus_address",
        "endpoint/protocol",
        "health_status/last_heartbeat",
        "health_status/registration_time",
        "id",
        "service_group",
        "version",
    ];
    assert_eq!(names, want);
    assert!(records(&redis).is_empty());
    assert!(server.stop().success());
    assert!(etcd.range(prefix).is_empty());
}

#[test]
fn the_catalogue_hears_of_coming_and_going() {
    let Some((etcd, redis)) = neighbours() else {
        return;
    };
    let tables = format!(
        "{}[service-discovery]\nservice-group = \"storage-proxy\"\ninstance-id = \"sp-1\"\n\
         [[service-discovery.endpoints]]\nrole = \"api\"\nscope = \"cluster\"\n\
         address = \"127.0.0.1\"\nport = 6022\nprotocol = \"http\"\n",
        etcd.table()
    );
    let mut server = Server::start_with(PROGRAM, Settings::fleet("i-1", tables));
    let said = |name: &str| holds(&redis.command(4, &["XRANGE", "events", "-", "+"]), name);
    wait::until("registered", SOON, || {
        said("service_registered").then_some(())
    });
    assert!(!said("service_deregistered"));
    assert!(server.stop().success());
    wait::until("deregistered", SOON, || {
        said("service_deregistered").then_some(())
    });
}

#[test]
fn figures_of_performance_come_from_the_shared_cache() {
    let Some((etcd, redis)) = neighbours() else {
        return;
    };
    let server = Server::start_with(PROGRAM, Settings::fleet("i-1", etcd.table()));
    await_health(&server, "redis", "artifact", true);
    let ask = || {
        let body = serde_json::json!({"volume": proxy_testkit::server::VOLUME});
        server.ask("GET", "/volume/performance-metric", &body)
    };
    assert_eq!(ask().status, 400);
    let shared = concat!(
        r#"{"volume_name":"volume1","iops_read":1,"iops_write":2,"io_bytes_read":3,"#,
        r#""io_bytes_write":4,"io_usec_read":5.0,"io_usec_write":6.5,"#,
        r#""observed_at":"2026-11-22T07:37:19.582600Z"}"#
    );
    redis.command(
        0,
        &["SET", "storage:volume_stats:volume1", shared, "EX", "30"],
    );
    let answer = ask().expect(200).json();
    assert_eq!(answer["metric"]["io_usec_write"], 6.5);
    assert_eq!(answer["observed_at"], "2026-11-22T07:37:19.582600+00:00");
    server.finish();
}

#[test]
fn two_servers_on_one_machine_need_different_ports_only() {
    let Some((etcd, redis)) = neighbours() else {
        return;
    };
    let one = Server::start_with(PROGRAM, Settings::fleet("i-1", etcd.table()));
    let two = Server::start_with(PROGRAM, Settings::fleet("i-2", etcd.table()));
    wait::until("both announced", SOON, || {
        (records(&redis).len() == 2).then_some(())
    });
    for server in [&one, &two] {
        assert!(Connection::open(server.client()).is_ok());
    }
    one.finish();
    assert_eq!(records(&redis).len(), 1);
}
