//! Goal: a Manager is found where Managers announce themselves.
//! Method: records as the original writes them, in a real Redis and a real etcd.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proxy_fleet::discovery::Managers;
use proxy_fleet::etcd::{Etcd, Settings};
use proxy_fleet::link::{Address, Link, Target};
use proxy_testkit::etcd::Etcd as RealEtcd;
use proxy_testkit::redis::RedisServer;

const SOON: Duration = Duration::from_secs(20);

/// Connections to both.
async fn connected(real: &RealEtcd, redis: &RedisServer) -> (Etcd, Link) {
    let etcd = Etcd::open(Settings {
        endpoints: vec![real.address().to_string()],
        namespace: "local".to_owned(),
        node_id: "n1".to_owned(),
        credentials: None,
        tls: None,
        request_time_max: Duration::from_secs(2),
    });
    assert!(etcd.is_up_within(SOON).await);
    let address = Address::parse(&redis.addr().to_string(), 6379).unwrap();
    let link = Link::open(Target::plain(address), 0, "live");
    let mut state = link.watch();
    tokio::time::timeout(SOON, state.wait_for(|state| state.up))
        .await
        .unwrap()
        .unwrap();
    (etcd, link)
}

#[tokio::test(flavor = "multi_thread")]
async fn managers_are_found_where_they_announce_themselves() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let Some(real) = RealEtcd::start() else {
        return;
    };
    let (etcd, link) = connected(&real, &redis).await;
    let managers = Managers::new(None, link.clone(), Some(etcd.clone()));
    assert_eq!(managers.find().await, [""; 0]);
    for (id, address, beat) in [("m1", "10.0.0.1:8081", 10.5), ("m2", "10.0.0.2:8081", 30.5)] {
        let endpoint = format!(r#"{{"address":"{address}","port":8081,"protocol":"http"}}"#);
        let health = format!(r#"{{"registration_time":1.0,"last_heartbeat":{beat}}}"#);
        let key = format!("service_discovery.manager.{id}");
        redis.command(
            0,
            &[
                "HSET",
                &key,
                "endpoint",
                &endpoint,
                "health_status",
                &health,
            ],
        );
    }
    // Neither a Manager, nor whole.
    redis.command(
        0,
        &[
            "HSET",
            "service_discovery.storage-proxy.x",
            "endpoint",
            "{}",
        ],
    );
    redis.command(
        0,
        &[
            "HSET",
            "service_discovery.manager.x",
            "endpoint",
            "nonsense",
        ],
    );
    let record = "/sorna/local/ai/backend/service_discovery/manager/m3";
    for (name, value) in [
        ("endpoint/address", "10.0.0.3"),
        ("endpoint/port", "8081"),
        ("endpoint/protocol", "https"),
        ("health_status/last_heartbeat", "20.5"),
    ] {
        real.put(&format!("{record}/{name}"), value);
    }
    let want = [
        "http://10.0.0.2:8081",
        "https://10.0.0.3:8081",
        "http://10.0.0.1:8081",
    ];
    assert_eq!(managers.find().await, want);

    real.put("/sorna/local/nodes/manager/i-m1", "up");
    real.put("/sorna/local/nodes/manager/i-m2", "down");
    assert_eq!(managers.names().await, ["i-m1"]);
    let told = Managers::new(Some("http://here:1".to_owned()), link, Some(etcd));
    assert_eq!(told.find().await, ["http://here:1"]);
}
