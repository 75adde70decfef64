//! The settings as a table.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;

fn read(value: Value) -> Result<Option<RedisSettings>, SettingsError> {
    RedisSettings::from_nested(value.as_object().unwrap())
}

fn at(host: &str, port: u16) -> Address {
    let host = host.to_owned();
    Address { host, port }
}

#[test]
fn addresses() {
    for (text, want) in [
        ("redis:1234", Some(at("redis", 1234))),
        ("redis", Some(at("redis", 6379))),
        ("127.0.0.1:8100", Some(at("127.0.0.1", 8100))),
        ("[::1]:8100", Some(at("::1", 8100))),
        ("[fe80::1]", Some(at("fe80::1", 6379))),
        ("::1:8100", Some(at("::1", 8100))),
        (":8100", None),
        ("redis:", None),
        ("redis:x", None),
        ("redis:70000", None),
        ("[::1]8100", None),
        ("", None),
    ] {
        assert_eq!(Address::parse(text, 6379), want, "{text:?}");
    }
    assert_eq!(at("::1", 6379).to_string(), "[::1]:6379");
}

#[test]
fn servers_in_all_spellings() {
    let one = |host, port| Servers::One(at(host, port));
    let led = |all: &[Address], password: Option<&str>| Servers::Sentinels {
        all: all.to_vec(),
        service: "main".into(),
        password: password.map(str::to_owned),
    };
    let two = [at("s1", 1), at("s2", 26379)];
    for (value, want) in [
        (json!({"addr": "h:1"}), one("h", 1)),
        (json!({"addr": {"host": "h", "port": "1"}}), one("h", 1)),
        (json!({"addr": {"host": "::1", "port": 1}}), one("::1", 1)),
        (json!({"addr": {"host": "[::1]", "port": 1}}), one("::1", 1)),
        (
            json!({"addr": {"": "h:1"}, "unknown": {"key": 1}}),
            one("h", 1),
        ),
        (
            json!({"sentinel": "s1:1, s2", "service_name": "main"}),
            led(&two, None),
        ),
        (
            json!({"sentinel": ["s1:1", {"host": "s2"}], "service-name": "main"}),
            led(&two, None),
        ),
        (
            json!({"addr": "no:1", "sentinel": "s1:1,s2", "service_name": "main",
                   "sentinel-password": "x"}),
            led(&two, Some("x")),
        ),
    ] {
        let got = read(value.clone()).unwrap().unwrap();
        assert!(got.base.servers == want, "{value}: {got:?}");
    }
}

#[test]
fn what_is_not_said_and_what_is_wrong() {
    let at = || "redis".to_owned();
    assert_eq!(read(json!({})), Ok(None));
    assert_eq!(
        read(json!({"addr": "", "sentinel": null, "password": "x"})),
        Ok(None)
    );
    for (value, want) in [
        (
            json!({"sentinel": "s:1"}),
            SettingsError::NoService { at: at() },
        ),
        (
            json!({"override_configs": {"stream": {"addr": "h:1"}}}),
            SettingsError::NoAddress { at: at() },
        ),
        (
            json!({"addr": "h:1", "override-configs": {"stream": {"password": "x"}}}),
            SettingsError::NoAddress {
                at: "redis.override_configs.stream".into(),
            },
        ),
        (
            json!({"addr": "h:x"}),
            SettingsError::Bad {
                at: at(),
                key: "addr",
                wanted: "host:port",
            },
        ),
        (
            json!({"addr": "h:1", "use-tls": "perhaps"}),
            SettingsError::Bad {
                at: at(),
                key: "use_tls",
                wanted: "true or false",
            },
        ),
        (
            json!({"addr": "h:1", "request_timeout": "soon"}),
            SettingsError::Bad {
                at: at(),
                key: "request_timeout",
                wanted: "a number of milliseconds",
            },
        ),
    ] {
        assert_eq!(read(value.clone()), Err(want), "{value}");
    }
}

#[test]
fn protection_and_bounds() {
    let tls = |verify| Some(Tls { verify, ca: None });
    for (value, want_tls, want_ms) in [
        (json!({}), None, 1000),
        (json!({"use_tls": "true"}), tls(true), 1000),
        (
            json!({"use-tls": true, "tls-skip-verify": "1"}),
            tls(false),
            1000,
        ),
        (
            json!({"use_tls": "no", "tls_skip_verify": true}),
            None,
            1000,
        ),
        (json!({"request_timeout": "250"}), None, 250),
        (json!({"request-timeout": 2500}), None, 2500),
    ] {
        let mut value = value;
        value["addr"] = json!("h:1");
        let got = read(value.clone()).unwrap().unwrap().base;
        assert_eq!(got.tls, want_tls, "{value}");
        assert_eq!(
            got.response_bound,
            Duration::from_millis(want_ms),
            "{value}"
        );
    }
}

#[test]
fn an_override_replaces_all_and_some_roles_have_none() {
    let settings = read(json!({
        "addr": "base:1", "password": "p", "user": "u", "use_tls": "true", "request_timeout": "5",
        "override_configs": {
            "stream": {"addr": "s:2"}, "bgtask": {"addr": "b:3", "password": "q"},
            "live": {"addr": "l:4"}, "statistics": {"addr": "x:5"}, "tus": {"addr": "x:6"},
            "image": {"no": "address"},
        },
    }));
    let settings = settings.unwrap().unwrap();
    for (role, server, password, db) in [
        (Role::Statistics, "base:1", Some("p"), 0),
        (Role::Live, "l:4", None, 0),
        (Role::Stream, "s:2", None, 4),
        (Role::BgTask, "b:3", Some("q"), 7),
        (Role::Tus, "base:1", Some("p"), 8),
    ] {
        let target = settings.target(role);
        assert_eq!(target.to_string(), server, "{role:?}");
        assert_eq!(target.password.as_deref(), password, "{role:?}");
        assert_eq!(role.database(), db);
        assert_eq!(target.user.is_some(), server == "base:1", "{role:?}");
        assert_eq!(target.tls.is_some(), server == "base:1", "{role:?}");
    }
}

#[test]
fn no_secret_is_shown() {
    let settings = read(json!({
        "sentinel": "s:1", "service_name": "main", "password": "hush1",
        "sentinel_password": "hush2",
    }));
    let text = format!("{:?}", settings.unwrap().unwrap());
    assert!(!text.contains("hush") && text.contains("main"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_without_a_server_fails_at_once_and_says_why() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let link = Link::open(Target::plain(at("127.0.0.1", port)), 0, "test");
    let asked = link.query::<String>(&redis::cmd("PING")).await;
    assert_eq!(asked, Err(LinkError::Down));
    assert!(LinkError::Down.may_retry() && !LinkError::Down.is_unknown());
    proxy_testkit::wait::until("a fault", Duration::from_secs(20), || link.fault());
    assert_eq!(link.state(), LinkState::default());
}
