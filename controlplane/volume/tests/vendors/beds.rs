//! The vendors: a simulator each, with usual credentials.

use proxy_simulators::{Simulator, netapp};
use serde_json::{Value, json};

use crate::bed::Bed;

fn options(value: Value) -> serde_json::Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// A directory for the mount, and one for everything else.
pub fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("mount")).unwrap();
    home
}

pub fn netapp_options(sim: &Simulator<netapp::NetApp>) -> serde_json::Map<String, Value> {
    options(json!({
        "netapp_ontap_endpoint": sim.url(),
        "netapp_ontap_user": netapp::USER,
        "netapp_ontap_password": netapp::PASSWORD,
        "netapp_volume_name": netapp::VOLUME,
        "netapp_nfs_host": "127.0.0.1",
        "netapp_ca_file": sim.ca_file(),
        "api_calls_per_second": 1000,
    }))
}

pub fn netapp() -> Bed {
    let home = home();
    let sim = Simulator::start(netapp::NetApp::new(&home.path().join("mount")), home.path());
    Bed {
        backend: "netapp",
        options: netapp_options(&sim),
        sim: Box::new(sim),
        home,
        endpoint: "netapp_ontap_endpoint",
        ca_option: "netapp_ca_file",
        secret_option: "netapp_ontap_password",
        steps: &[
            ("GET", "/api/storage/volumes"),
            ("POST", "/api/storage/qtrees"),
            ("POST", "/api/storage/quota/rules"),
            ("PATCH", "/api/storage/volumes/"),
        ],
    }
}

/// How a bed of a backend is made.
pub fn of(backend: &str) -> fn() -> Bed {
    match backend {
        "netapp" => netapp,
        other => panic!("no bed for {other}"),
    }
}
