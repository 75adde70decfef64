//! Goal: what a configuration says reaches the planes, resolved against this machine.
//! Method: small files in a temporary directory.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use super::*;
use crate::cli::Place;
use crate::load::{Unloadable, read};

/// Loads a file with this text in `dir`.
fn loaded(dir: &Path, text: &str) -> Loaded {
    let file = dir.join("c.toml");
    fs::write(&file, text).unwrap();
    let place = Place {
        config: Some(file),
        data_dir: Some(dir.join("data")),
    };
    match read(&place, Vec::new()) {
        Ok(loaded) => loaded,
        Err(Unloadable::Failed(failure)) => panic!("{failure}"),
        Err(Unloadable::Wrong(_, issues)) => panic!("{issues:?}"),
    }
}

fn settings(dir: &Path, text: &str) -> Settings {
    let loaded = loaded(dir, text);
    let outside = look(&loaded).unwrap();
    let secrets = Secrets {
        token: Secret::new("t"),
        manager: Secret::new("m"),
    };
    Settings::new(&loaded, outside, secrets)
}

#[test]
fn an_empty_file_is_a_standalone_server_on_loopback() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path(), "");
    assert_eq!(settings.addresses.client.to_string(), "127.0.0.1:6021");
    assert_eq!(settings.addresses.manager.to_string(), "127.0.0.1:6022");
    assert_eq!(settings.addresses.internal.to_string(), "127.0.0.1:16023");
    assert_eq!(settings.state_file, dir.path().join("data/state.redb"));
    let [volume] = settings.volumes.as_slice() else {
        panic!("one volume")
    };
    assert_eq!(
        (volume.name.as_str(), volume.backend.as_str()),
        ("local", "vfs")
    );
    assert_eq!(volume.path, dir.path().join("data/volumes/local"));
    assert_eq!(settings.session_expire, Duration::from_secs(86_400));
    assert_eq!(settings.upload_bytes_max, 100 << 30);
    assert_eq!(settings.list_entries_max, Some(1000));
    assert_eq!(settings.pid_file, None);
    assert_eq!(settings.threads.data, crate::host::cpus());
    assert!(settings.client_tls.is_none());
    assert_eq!(settings.limits.ranges_max, 64);
}

#[test]
fn paths_count_from_the_directory_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[volume.a]\nbackend = \"vfs\"\npath = \"vols/./a\"\noptions = { x = 1 }\n\
                [volume.b]\nbackend = \"vfs\"\npath = \"/b\"\nfsprefix = \"p\"\n\
                [storage-proxy]\npid-file = \"run/p.pid\"\nscandir-limit = 0\n\
                max-upload-size = \"inf\"\n[server]\nstate-file = \"s.db\"";
    let settings = settings(dir.path(), text);
    let paths: Vec<_> = settings
        .volumes
        .iter()
        .map(|volume| volume.path.clone())
        .collect();
    assert_eq!(paths, [dir.path().join("vols/a"), "/b".into()]);
    assert_eq!(settings.volumes[0].options["x"], 1);
    assert_eq!(settings.volumes[1].fsprefix, "p");
    assert_eq!(settings.pid_file, Some(dir.path().join("run/p.pid")));
    assert_eq!(settings.state_file, dir.path().join("data/s.db"));
    assert_eq!(settings.list_entries_max, None);
    assert_eq!(settings.upload_bytes_max, u64::MAX);
}

#[test]
fn more_threads_than_cpus_are_cut_down() {
    let dir = tempfile::tempdir().unwrap();
    let cpus = crate::host::cpus();
    for (text, want, warned) in [
        ("storage-proxy.num-proc = 1", 1, false),
        ("storage-proxy.num-proc = 4096", cpus, cpus != 4096),
        (
            "storage-proxy.num-proc = 4096\nserver.threads = 1",
            1,
            false,
        ),
    ] {
        let outside = look(&loaded(dir.path(), text)).unwrap();
        assert_eq!(outside.data_threads, want, "{text}");
        assert_eq!(outside.warnings.len(), usize::from(warned), "{text}");
    }
}

#[track_caller]
fn check_issue(dir: &Path, text: &str, want: &str) {
    let issues = look(&loaded(dir, text)).unwrap_err();
    let all: String = issues.iter().map(|issue| format!("{issue}\n")).collect();
    assert!(all.contains(want), "{text}\n{all}");
}

#[test]
fn what_is_not_on_this_machine_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("k.pem"), "x").unwrap();
    let tls = "[api.client]\nssl-enabled = true\nssl-privkey = \"k.pem\"\nssl-cert = ";
    check_issue(dir, &format!("{tls}\"c.pem\""), "api.client.ssl-cert: ");
    check_issue(dir, &format!("{tls}\".\""), "is not a file");
    let off = "[api.manager]\nssl-privkey = \"gone.pem\"";
    check_issue(dir, off, "api.manager.ssl-privkey: ");
    let user = "storage-proxy.user = \"no such user\"";
    check_issue(
        dir,
        user,
        "storage-proxy.user: there is no user \"no such user\"",
    );
    let group = "storage-proxy.group = \"no such group\"";
    check_issue(
        dir,
        group,
        "storage-proxy.group: there is no group \"no such group\"",
    );
    let host = "api.client.service-addr = \"no-such-host.invalid:1\"";
    check_issue(
        dir,
        host,
        "api.client.service-addr: cannot resolve \"no-such-host.invalid\"",
    );
}

#[test]
fn an_empty_host_is_every_interface() {
    let dir = tempfile::tempdir().unwrap();
    let outside = look(&loaded(dir.path(), "api.client.service-addr = \":6021\"")).unwrap();
    assert!(outside.addresses.client.ip().is_unspecified());
}

#[test]
fn only_root_becomes_somebody() {
    let dir = tempfile::tempdir().unwrap();
    let outside = look(&loaded(dir.path(), "storage-proxy.user = 4711")).unwrap();
    let root = rustix::process::geteuid().is_root();
    let want = Identity {
        uid: 4711,
        gid: 4711,
        groups: Vec::new(),
    };
    assert_eq!(outside.identity, root.then_some(want));
    let outside = look(&loaded(dir.path(), "storage-proxy.user = -1")).unwrap();
    assert_eq!(outside.identity, None);
}

#[test]
fn missing_volume_paths_are_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[volume.a]\nbackend = \"vfs\"\npath = \"gone\"";
    let outside = look(&loaded(dir.path(), text)).unwrap();
    let gone = dir.path().join("gone");
    let want = format!("volume.a.path: {} is not a directory", gone.display());
    assert_eq!(outside.warnings, [want]);
}

/// What a member must say, before anything else.
const MEMBER: &str = "[storage-proxy]\nnode-id = \"n1\"\nsecret = \"hunter1\"\n\
                      [api.manager]\nsecret = \"hunter2\"\n";

#[test]
fn etcd_or_redis_make_a_fleet() {
    let dir = tempfile::tempdir().unwrap();
    for (text, endpoints, redis) in [
        ("[etcd]", Some(vec!["127.0.0.1:2379"]), "{}"),
        ("[redis]", None, "{}"),
        (
            "[etcd]\naddr = [\"a:1\", { host = \"::1\", port = 2 }]\n[redis]\naddr = \"r:3\"",
            Some(vec!["a:1", "[::1]:2"]),
            r#"{"addr":"r:3"}"#,
        ),
    ] {
        let fleet = settings(dir.path(), &format!("{MEMBER}{text}"))
            .fleet
            .unwrap();
        let etcd = fleet.etcd.as_ref();
        let got = etcd.map(|etcd| {
            etcd.endpoints
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
        });
        assert_eq!(got, endpoints, "{text}");
        assert_eq!(
            Value::from(fleet.redis.clone()).to_string(),
            redis,
            "{text}"
        );
        assert_eq!(fleet.discovery.display_name, "storage-n1");
        assert_eq!(fleet.discovery.address, "127.0.0.1:6022");
    }
    assert!(settings(dir.path(), "").fleet.is_none());
}

#[test]
fn sentinels_need_a_name() {
    let dir = tempfile::tempdir().unwrap();
    for (text, want) in [
        (
            "sentinel = \"a:1\"",
            "redis: redis: `sentinel` needs `service_name`",
        ),
        (
            "addr = \"h:1\"\n[redis.override-configs.stream]\nsentinel = \"a:1\"",
            "redis: redis.override_configs.stream: `sentinel` needs `service_name`",
        ),
    ] {
        check_issue(dir.path(), &format!("{MEMBER}[redis]\n{text}"), want);
    }
}

#[test]
fn credentials_of_etcd_need_both_parts_and_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    for (text, want) in [
        ("", None),
        ("user = \"u\"\npassword = \"\"", None),
        ("user = \"\"\npassword = \"hunter3\"", None),
        ("user = \"u\"\npassword = \"hunter3\"", Some("u")),
    ] {
        let text = format!("{MEMBER}[etcd]\n{text}\n[redis]\npassword = \"hunter4\"");
        let settings = settings(dir.path(), &text);
        let etcd = settings.fleet.as_ref().unwrap().etcd.clone().unwrap();
        let user = etcd.credentials.map(|(user, _)| user);
        assert_eq!(user.as_deref(), want, "{text}");
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hunter"), "{shown}");
    }
}

#[test]
fn discovery_has_labels_and_endpoints() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[service-discovery]\ntype = \"etcd\"\nservice-group = \"storage-proxy\"\n\
                instance-id = \"i\"\ndisplay-name = \"d\"\n[service-discovery.extra-labels]\n\
                \"x.y/z\" = \"1\"\n[[service-discovery.endpoints]]\nrole = \"api\"\nscope = \"c\"\n\
                address = \"h\"\nport = 9\nprotocol = \"http\"\nmetadata = { a = { b = 1 } }\n\
                [api.manager]\nannounce-addr = \"10.0.0.1:6022\"\nsecret = \"m\"\n\
                announce-internal-addr = \"[::1]:1\"\n\
                [storage-proxy]\nnode-id = \"n\"\nsecret = \"s\"\n[redis]";
    let found = settings(dir.path(), text).fleet.unwrap().discovery;
    assert_eq!(found.place, proxy_fleet::discovery::Place::Etcd);
    assert_eq!(found.service_group.as_deref(), Some("storage-proxy"));
    assert_eq!(
        (found.address.as_str(), found.port),
        ("10.0.0.1:6022", 6022)
    );
    assert_eq!(found.prometheus_address, "[::1]:1");
    assert_eq!(found.labels["x.y/z"], "1");
    let shown = serde_json::to_string(&found.endpoints).unwrap();
    let want = concat!(
        r#"[{"role":"api","scope":"c","address":"h","port":9,"protocol":"http","#,
        r#""metadata":{"a":{"b":1}}}]"#
    );
    assert_eq!(shown, want);
}

#[test]
fn files_of_tls_to_etcd_are_read_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.pem"), "ca").unwrap();
    let tls = |file: &str| {
        format!("{MEMBER}[etcd]\nssl-enabled = true\nssl-ca = \"{file}\"\nssl-server-name = \"e\"")
    };
    let etcd = settings(dir.path(), &tls("ca.pem"))
        .fleet
        .unwrap()
        .etcd
        .unwrap();
    let found = etcd.tls.unwrap();
    assert_eq!(
        (found.ca.as_slice(), found.server_name.as_deref()),
        (&b"ca"[..], Some("e"))
    );
    check_issue(dir.path(), &tls("gone.pem"), "etcd.ssl-ca: ");
}
