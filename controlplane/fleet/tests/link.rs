//! Goal: a link finds its server, notices within the bound that it is away, and finds it again.
//! Method: a real Redis, and Sentinels, killed, frozen and failed over.
//!
//! Source: redis.io, Sentinel client guidelines.

use std::time::{Duration, Instant};

use proxy_fleet::link::{Address, Link, LinkError, Servers, Target, Tls, subscribe};
use proxy_testkit::redis::{RedisOptions, RedisServer, SERVICE, Watched};
use proxy_testkit::wait;
use redis::Script;

/// For what has to happen soon.
const SOON: Duration = Duration::from_secs(20);

fn target(addr: std::net::SocketAddr) -> Target {
    Target::plain(Address {
        host: addr.ip().to_string(),
        port: addr.port(),
    })
}

/// Waits for the link to be up (or not) after `epoch`.
async fn until(link: &Link, up: bool, after_epoch: u64) -> u64 {
    let mut state = link.watch();
    let found = state.wait_for(|s| s.up == up && after_epoch < s.epoch);
    let found = tokio::time::timeout(SOON, found).await;
    found.expect("in time").expect("the link lives").epoch
}

async fn ping(link: &Link) -> Result<String, LinkError> {
    link.query(&redis::cmd("PING")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_users_and_addresses() {
    let with = |options: RedisOptions| RedisServer::start_with(options);
    let user = Some(("someone".to_owned(), "secret".to_owned()));
    let Some(plain) = RedisServer::start() else {
        return;
    };
    let locked = with(RedisOptions {
        password: Some("open".into()),
        user,
        ..RedisOptions::default()
    });
    let locked = locked.expect("as the first");
    let v6 = std::net::TcpListener::bind("[::1]:0").is_ok().then(|| {
        with(RedisOptions {
            ipv6: true,
            ..RedisOptions::default()
        })
    });
    let login = |user: Option<&str>, password: &str| Target {
        user: user.map(str::to_owned),
        password: Some(password.to_owned()),
        ..target(locked.addr())
    };
    let mut good = vec![
        target(plain.addr()),
        login(None, "open"),
        login(Some("someone"), "secret"),
    ];
    let v6 = v6.flatten();
    good.extend(v6.iter().map(|server| target(server.addr())));
    for target in good {
        let link = Link::open(target.clone(), 8, "test");
        until(&link, true, 0).await;
        assert_eq!(ping(&link).await.as_deref(), Ok("PONG"), "{target:?}");
        let set = redis::cmd("SET").arg("k").arg(1).clone();
        link.query::<()>(&set).await.expect("set");
        let refused = link.query::<()>(&redis::cmd("NOSUCH")).await;
        let refused = refused.expect_err("no such command");
        assert!(!refused.may_retry(), "{refused}");
        assert!(link.is_up());
    }
    assert_eq!(plain.command(8, &["GET", "k"]).text().as_deref(), Some("1"));
    for target in [login(None, "wrong"), target(locked.addr())] {
        let link = Link::open(target.clone(), 0, "test");
        let why = wait::until("a fault", SOON, || link.fault());
        assert!(!why.contains("wrong"), "{why}");
        assert_eq!(ping(&link).await, Err(LinkError::Down), "{target:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified_unless_told_otherwise() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]);
    let made = made.expect("a certificate");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let Some(server) = RedisServer::start_with(RedisOptions {
        tls: Some((cert.clone(), key)),
        ..RedisOptions::default()
    }) else {
        return;
    };
    let tls = |verify, ca| Target {
        tls: Some(Tls { verify, ca }),
        ..target(server.addr())
    };
    for (target, is_up) in [
        (tls(true, Some(cert)), true),
        (tls(false, None), true),
        (tls(true, None), false),
        (tls(true, Some(dir.path().join("missing"))), false),
    ] {
        let link = Link::open(target.clone(), 0, "test");
        if is_up {
            until(&link, true, 0).await;
            assert_eq!(ping(&link).await.as_deref(), Ok("PONG"), "{target:?}");
            let mut heard = subscribe(&link, "channel", 4);
            say_until_heard(&link, &mut heard).await;
        } else {
            wait::until("a fault", SOON, || link.fault());
            assert!(!link.is_up(), "{target:?}");
        }
    }
}

/// Says something again and again until it is heard: a subscription takes a moment.
async fn say_until_heard(link: &Link, heard: &mut tokio::sync::mpsc::Receiver<bytes::Bytes>) {
    let end = Instant::now() + SOON;
    loop {
        let said = redis::cmd("PUBLISH").arg("channel").arg("word").clone();
        let _ = link.query::<i64>(&said).await;
        let got = tokio::time::timeout(Duration::from_millis(20), heard.recv()).await;
        if let Ok(got) = got {
            assert_eq!(got.as_deref(), Some(&b"word"[..]));
            return;
        }
        assert!(Instant::now() < end, "nothing was heard");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_fails_calls_at_once_and_is_found_again() {
    let Some(mut server) = RedisServer::start() else {
        return;
    };
    let link = Link::open(target(server.addr()), 0, "test");
    let mut heard = subscribe(&link, "channel", 4);
    let mut epoch = until(&link, true, 0).await;
    say_until_heard(&link, &mut heard).await;
    for _ in 0..3 {
        server.kill();
        until(&link, false, 0).await;
        let asked = Instant::now();
        assert_eq!(ping(&link).await, Err(LinkError::Down));
        assert!(asked.elapsed() < Duration::from_millis(100));
        server.restart();
        let back = Instant::now();
        let next = until(&link, true, epoch).await;
        assert!(
            back.elapsed() < Duration::from_secs(5),
            "{:?}",
            back.elapsed()
        );
        assert_eq!(next, epoch + 1);
        epoch = next;
        assert_eq!(ping(&link).await.as_deref(), Ok("PONG"));
        say_until_heard(&link, &mut heard).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_noticed_within_the_bound() {
    let Some(server) = RedisServer::start() else {
        return;
    };
    let bound = Duration::from_millis(300);
    let mut to = target(server.addr());
    to.response_bound = bound;
    let (asking, idle) = (Link::open(to.clone(), 0, "asks"), Link::open(to, 0, "idle"));
    let epochs = [until(&asking, true, 0).await, until(&idle, true, 0).await];
    server.freeze();
    let asked = Instant::now();
    assert_eq!(ping(&asking).await, Err(LinkError::Late { bound }));
    assert!(asked.elapsed() < bound * 3, "{:?}", asked.elapsed());
    let again = Instant::now();
    assert_eq!(ping(&asking).await, Err(LinkError::Down));
    assert!(again.elapsed() < Duration::from_millis(100));
    // Nobody asks here.
    until(&idle, false, 0).await;
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    server.thaw();
    let mut heard = subscribe(&asking, "channel", 4);
    until(&asking, true, epochs[0]).await;
    until(&idle, true, epochs[1]).await;
    say_until_heard(&asking, &mut heard).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_and_switches() {
    let (Some(one), Some(other)) = (RedisServer::start(), RedisServer::start()) else {
        return;
    };
    let link = Link::open(target(one.addr()), 3, "test");
    let epoch = until(&link, true, 0).await;
    let script = Script::new("redis.call('SET', KEYS[1], ARGV[1]); return ARGV[1]");
    let mut call = script.key("key");
    let call = call.arg("first");
    for _ in 0..2 {
        assert_eq!(link.script::<String>(call).await.as_deref(), Ok("first"));
        one.command(0, &["SCRIPT", "FLUSH"]);
    }
    link.switch(target(other.addr()));
    until(&link, true, epoch).await;
    assert_eq!(link.script::<String>(call).await.as_deref(), Ok("first"));
    for server in [&one, &other] {
        assert_eq!(
            server.command(3, &["GET", "key"]).text().as_deref(),
            Some("first")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_lead_to_the_master_also_after_a_failover() {
    for (password, own) in [
        (None, None),
        (Some("pw"), None),
        (Some("pw"), Some("other")),
    ] {
        let Some(mut watched) = Watched::start(password, own) else {
            return;
        };
        let nowhere = Address {
            host: "127.0.0.1".into(),
            port: proxy_testkit::redis::free_port(),
        };
        let addr = watched.addr();
        let sentinel = Address {
            host: addr.ip().to_string(),
            port: addr.port(),
        };
        let to = Target {
            servers: Servers::Sentinels {
                all: vec![nowhere.clone(), sentinel],
                service: SERVICE.into(),
                password: own.map(str::to_owned),
            },
            password: password.map(str::to_owned),
            ..Target::plain(nowhere)
        };
        let link = Link::open(to, 8, "test");
        let epoch = until(&link, true, 0).await;
        let write = redis::cmd("INCR").arg("n").clone();
        assert_eq!(link.query::<i64>(&write).await, Ok(1));
        watched.servers[0].kill();
        watched.await_master(1);
        until(&link, true, epoch).await;
        link.query::<i64>(&write).await.expect("a master");
        assert!(
            watched.servers[1]
                .command(8, &["GET", "n"])
                .text()
                .is_some()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_became_a_replica_is_left() {
    let Some(watched) = Watched::start(None, None) else {
        return;
    };
    let addr = watched.addr();
    let sentinel = Address {
        host: addr.ip().to_string(),
        port: addr.port(),
    };
    let to = Target {
        servers: Servers::Sentinels {
            all: vec![sentinel.clone()],
            service: SERVICE.into(),
            password: None,
        },
        ..Target::plain(sentinel)
    };
    let link = Link::open(to, 8, "test");
    let epoch = until(&link, true, 0).await;
    watched.fail_over();
    watched.await_master(1);
    until(&link, true, epoch).await;
    let write = redis::cmd("SET").arg("k").arg("v").clone();
    link.query::<()>(&write).await.expect("a master");
    assert_eq!(
        watched.servers[1]
            .command(8, &["GET", "k"])
            .text()
            .as_deref(),
        Some("v")
    );
}
