//! Goal: calls, watches and the way back, against a real etcd.
//! Method: the etcd of the test kit, read and written past the client under test.

#![allow(clippy::unwrap_used)]

use proxy_testkit::etcd::{Etcd as Real, Tls as RealTls};
use serde_json::json;

use super::*;

/// For everything that has to happen.
const SOON: Duration = Duration::from_secs(20);

fn settings(endpoints: &[String]) -> Settings {
    Settings {
        endpoints: endpoints.to_vec(),
        namespace: "local".to_owned(),
        node_id: "n1".to_owned(),
        credentials: None,
        tls: None,
        request_time_max: Duration::from_secs(2),
    }
}

async fn connected(real: &Real) -> Etcd {
    let etcd = Etcd::open(settings(&[real.address().to_string()]));
    assert!(etcd.is_up_within(SOON).await, "{:?}", etcd.fault());
    etcd
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

async fn until(etcd: &Etcd, up: bool) {
    let mut state = etcd.watch_state();
    let seen = timeout(SOON, state.wait_for(|state| state.up == up)).await;
    assert!(seen.is_ok(), "not up={up}: {:?}", etcd.fault());
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_are_merged_as_the_original_does() {
    let Some(real) = Real::start() else { return };
    for (key, value) in [
        ("/sorna/local/config/redis/addr", "h:1"),
        (
            "/sorna/local/config/redis/redis_helper_config/socket_timeout",
            "9",
        ),
        ("/sorna/local/config/redisfoo/bar", "x"),
        ("/sorna/local/both", "global"),
        ("/sorna/local/only", "global"),
        ("/sorna/local/nodes/storage/n1/both", ""),
        (
            "/sorna/local/nodes/storage/n1/config/redis/redis_helper_config/socket_connect_timeout",
            "8",
        ),
        ("/sorna/local/n", "self"),
        ("/sorna/local/n/a%2Fb%20c", "2"),
        ("/sorna/other/only", "other"),
    ] {
        real.put(key, value);
    }
    let etcd = connected(&real).await;
    for (key, scope, want) in [
        ("both", Scope::Merged, Some("")),
        ("both", Scope::Global, Some("global")),
        ("/only", Scope::Merged, Some("global")),
        ("none", Scope::Merged, None),
    ] {
        assert_eq!(
            etcd.get(key, scope).await.unwrap().as_deref(),
            want,
            "{key} {scope:?}"
        );
    }
    for (prefix, scope, want) in [
        (
            "config/redis",
            Scope::Merged,
            json!({"addr": "h:1", "redis_helper_config": {"socket_connect_timeout": "8"}}),
        ),
        (
            "config/redis/",
            Scope::Global,
            json!({"addr": "h:1", "redis_helper_config": {"socket_timeout": "9"}}),
        ),
        ("n", Scope::Merged, json!({"": "self", "a/b c": "2"})),
        ("none", Scope::Merged, json!({})),
    ] {
        let got = etcd.get_prefix(prefix, scope).await.unwrap();
        assert_eq!(Value::from(got), want, "{prefix} {scope:?}");
    }
    let nested = json!({"x": {"a/b": true, "": "me"}, "none": {}, "f": 1.5});
    etcd.put_prefix("made", &map(nested)).await.unwrap();
    let want = [
        ("/sorna/local/made/f", "1.5"),
        ("/sorna/local/made/x", "me"),
        ("/sorna/local/made/x/a%2Fb", "True"),
    ];
    let want = want.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(real.range("/sorna/local/made"), want);
    etcd.put("madeup", "stays").await.unwrap();
    etcd.delete_prefix("made").await.unwrap();
    assert_eq!(real.range("/sorna/local/made").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_keys_are_read_as_meant() {
    let Some(real) = Real::start() else { return };
    let etcd = connected(&real).await;
    assert_eq!(etcd.mount_prefix().await.unwrap(), None);
    for (value, want) in [("/mnt/v", Some("/mnt/v")), ("", None)] {
        real.put("/sorna/local/volumes/_mount", value);
        assert_eq!(
            etcd.mount_prefix().await.unwrap().as_deref(),
            want,
            "{value:?}"
        );
    }
    assert_eq!(etcd.file_io_timeout().await.unwrap(), None);
    for (value, want) in [
        ("60", Ok(Some(60_000))),
        (" 1.5 ", Ok(Some(1500))),
        ("", Ok(None)),
        ("None", Ok(None)),
        ("soon", Err(())),
        ("-1", Err(())),
    ] {
        real.put("/sorna/local/config/watcher/file-io-timeout", value);
        let got = etcd
            .file_io_timeout()
            .await
            .map(|bound| bound.map(|b| b.as_millis()));
        assert_eq!(got.map_err(drop), want, "{value:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_taken_once() {
    let Some(real) = Real::start() else { return };
    let etcd = connected(&real).await;
    let key = "ddn/main-project-id";
    let takers: Vec<_> = (0..8)
        .map(|_| {
            let etcd = etcd.clone();
            tokio::spawn(async move { etcd.next_project_id(100).await.unwrap() })
        })
        .collect();
    let mut taken = Vec::new();
    for taker in takers {
        taken.push(taker.await.unwrap());
    }
    taken.sort_unstable();
    assert_eq!(taken, (100..108).collect::<Vec<i64>>());
    assert_eq!(
        real.get("/sorna/local/ddn/main-project-id").as_deref(),
        Some("108")
    );
    real.put("/sorna/local/ddn/main-project-id", "many");
    let refused = etcd.next_number(key, 100).await.unwrap_err();
    assert!(!refused.may_retry(), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_seen_also_those_of_an_outage() {
    let Some(mut real) = Real::start() else {
        return;
    };
    real.put("/sorna/local/config/redis/addr", "h:1");
    let etcd = connected(&real).await;
    let mut followed = etcd.follow("config/redis", Scope::Merged);
    let mut next = async || timeout(SOON, followed.changed()).await.unwrap()["addr"].clone();
    assert_eq!(next().await, "h:1");
    real.put("/sorna/local/config/redis/addr", "h:2");
    assert_eq!(next().await, "h:2");
    real.put("/sorna/local/nodes/storage/n1/config/redis/addr", "h:3");
    assert_eq!(next().await, "h:3");
    real.kill();
    until(&etcd, false).await;
    assert_eq!(etcd.get("x", Scope::Global).await, Err(EtcdError::Down));
    real.run();
    real.delete("/sorna/local/nodes/");
    assert_eq!(next().await, "h:2");
    real.freeze();
    until(&etcd, false).await;
    real.thaw();
    until(&etcd, true).await;
    real.put("/sorna/local/config/redis/addr", "h:4");
    assert_eq!(next().await, "h:4");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_member_takes_over() {
    let (Some(mut one), Some(two)) = (Real::start(), Real::start()) else {
        return;
    };
    // Two clusters of one member each: what answers says which it is.
    one.put("/sorna/local/who", "one");
    two.put("/sorna/local/who", "two");
    let members = [one.address().to_string(), two.address().to_string()];
    let etcd = Etcd::open(settings(&members));
    assert!(etcd.is_up_within(SOON).await);
    assert_eq!(
        etcd.get("who", Scope::Global).await.unwrap().as_deref(),
        Some("one")
    );
    one.kill();
    let mut state = etcd.watch_state();
    timeout(SOON, state.wait_for(|state| state.up && 1 < state.epoch))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        etcd.get("who", Scope::Global).await.unwrap().as_deref(),
        Some("two")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_sent_and_tokens_made_anew() {
    let Some(mut real) = Real::start() else {
        return;
    };
    real.put("/sorna/local/a", "1");
    let login = |user: &str, password: &str| Settings {
        credentials: Some((user.to_owned(), password.to_owned())),
        ..settings(&[real.address().to_string()])
    };
    let (member, stranger) = (login("member", "right"), login("member", "wrong"));
    let nobody = settings(&member.endpoints);
    // Nobody is asked yet: a password does no harm.
    let early = Etcd::open(member.clone());
    assert!(early.is_up_within(SOON).await, "{:?}", early.fault());
    real.enable_auth("member", "right", "/sorna/");
    let etcd = Etcd::open(member);
    assert!(etcd.is_up_within(SOON).await, "{:?}", etcd.fault());
    for (settings, fault) in [
        (
            stranger,
            "authentication failed, invalid user ID or password",
        ),
        (nobody, "user name is empty"),
    ] {
        let refused = Etcd::open(settings);
        let seen = timeout(SOON, async {
            while !refused.fault().is_some_and(|why| why.contains(fault)) {
                tokio::task::yield_now().await;
            }
        });
        assert!(seen.await.is_ok(), "{fault}: {:?}", refused.fault());
        assert!(!refused.state().up);
    }
    // Tokens are kept in memory: after a crash ours is unknown.
    real.kill();
    until(&etcd, false).await;
    real.run();
    until(&etcd, true).await;
    real.change_password("root", proxy_testkit::etcd::ROOT_PASSWORD);
    assert_eq!(
        etcd.get("a", Scope::Global).await.unwrap().as_deref(),
        Some("1")
    );
    until(&early, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_with_a_certificate_of_our_own() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let Some(real) = Real::start_tls(pki.server()) else {
        return;
    };
    let tls = |identity: bool| Settings {
        tls: Some(Tls {
            ca: pki.ca.clone().into_bytes(),
            identity: identity.then(|| pki.client.clone()),
            server_name: Some("etcd.test".to_owned()),
        }),
        ..settings(&[real.address().to_string()])
    };
    let etcd = Etcd::open(tls(true));
    assert!(etcd.is_up_within(SOON).await, "{:?}", etcd.fault());
    etcd.put("a", "1").await.unwrap();
    assert_eq!(
        etcd.get("a", Scope::Merged).await.unwrap().as_deref(),
        Some("1")
    );
    let without = Etcd::open(tls(false));
    let seen = timeout(SOON, async {
        while without.fault().is_none() {
            tokio::task::yield_now().await;
        }
    });
    assert!(seen.await.is_ok());
    assert!(!without.state().up);
}

/// An authority, a server and a client, all on disk.
struct Pki {
    ca: String,
    client: (Vec<u8>, Vec<u8>),
    dir: std::path::PathBuf,
}

impl Pki {
    fn new(dir: &std::path::Path) -> Self {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        let signed = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            let cert = params.signed_by(&key, &issuer).unwrap();
            (cert.pem(), key.serialize_pem())
        };
        let (server, client) = (signed("etcd.test"), signed("client.test"));
        for (file, content) in [("ca", &ca), ("cert", &server.0), ("key", &server.1)] {
            std::fs::write(dir.join(file), content).unwrap();
        }
        Self {
            ca,
            client: (client.0.into_bytes(), client.1.into_bytes()),
            dir: dir.to_owned(),
        }
    }

    fn server(&self) -> RealTls {
        RealTls {
            cert: self.dir.join("cert"),
            key: self.dir.join("key"),
            client_ca: Some(self.dir.join("ca")),
        }
    }
}
