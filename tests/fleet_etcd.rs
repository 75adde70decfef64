//! Goal: a server in a fleet works with etcd, and goes on without it.
//! Method: a real etcd that is killed, frozen and started again under a running server.

#![allow(clippy::unwrap_used)]

use proxy_testkit::etcd::Etcd;

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
