//! The vendors: a simulator each, with usual credentials.

use std::path::Path;

use proxy_simulators::{Simulator, gpfs, hammerspace, netapp, onefs, purestorage, vast, weka};
use serde_json::{Value, json};

use crate::bed::{Bed, Nobody};

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

pub fn onefs_options(sim: &Simulator<onefs::OneFs>) -> serde_json::Map<String, Value> {
    options(json!({
        "dell_endpoint": sim.url(),
        "dell_username": onefs::USER,
        "dell_password": onefs::PASSWORD,
        "dell_api_version": "12",
        "dell_ifs_path": onefs::IFS_PATH,
        "dell_ca_file": sim.ca_file(),
        "api_calls_per_second": 1000,
    }))
}

pub fn onefs() -> Bed {
    let home = home();
    let sim = Simulator::start(onefs::OneFs::new(&home.path().join("mount")), home.path());
    Bed {
        backend: "dellemc-onefs",
        options: onefs_options(&sim),
        sim: Box::new(sim),
        home,
        endpoint: "dell_endpoint",
        ca_option: "dell_ca_file",
        secret_option: "dell_password",
        steps: &[
            ("POST", "/session"),
            ("GET", "/quota/quotas"),
            ("POST", "/quota/quotas"),
        ],
    }
}

pub fn vast_options(sim: &Simulator<vast::Vast>) -> serde_json::Map<String, Value> {
    options(json!({
        "vast_endpoint": sim.url(),
        "vast_username": vast::USER,
        "vast_password": vast::PASSWORD,
        "vast_storage_base_dir": vast::BASE_DIR,
        "vast_cluster_info_cache_ttl": 1e-9,
        "vast_ca_file": sim.ca_file(),
        "api_calls_per_second": 1000,
    }))
}

pub fn vast() -> Bed {
    let home = home();
    let sim = Simulator::start(vast::Vast::new(&home.path().join("mount")), home.path());
    Bed {
        backend: "vast",
        options: vast_options(&sim),
        sim: Box::new(sim),
        home,
        endpoint: "vast_endpoint",
        ca_option: "vast_ca_file",
        secret_option: "vast_password",
        steps: &[
            ("POST", "/token/"),
            ("GET", "/quotas/"),
            ("POST", "/quotas/"),
        ],
    }
}

pub fn weka_options(sim: &Simulator<weka::Weka>) -> serde_json::Map<String, Value> {
    options(json!({
        "weka_endpoint": sim.url(),
        "weka_username": weka::USER,
        "weka_password": weka::PASSWORD,
        "weka_organization": weka::ORGANIZATION,
        "weka_fs_name": weka::FS_NAME,
        "weka_ca_file": sim.ca_file(),
        "api_calls_per_second": 1000,
    }))
}

pub fn weka() -> Bed {
    let home = home();
    let sim = Simulator::start(weka::Weka::new(&home.path().join("mount")), home.path());
    Bed {
        backend: "weka",
        options: weka_options(&sim),
        sim: Box::new(sim),
        home,
        endpoint: "weka_endpoint",
        ca_option: "weka_ca_file",
        secret_option: "weka_password",
        steps: &[
            ("POST", "/api/v2/login"),
            ("GET", "/api/v2/fileSystems"),
            ("GET", "/resolvePath"),
            ("PUT", "/quota/"),
            ("GET", "/quota/"),
        ],
    }
}

pub fn purestorage_options(
    sim: &Simulator<purestorage::FlashBlade>,
    version: &str,
) -> serde_json::Map<String, Value> {
    options(json!({
        "purity_endpoint": sim.url(),
        "purity_api_token": purestorage::API_TOKEN,
        "purity_api_version": version,
        "purity_fs_name": purestorage::FILE_SYSTEM,
        "purity_ca_file": sim.ca_file(),
        "api_calls_per_second": 1000,
    }))
}

fn purestorage_of(version: &str) -> Bed {
    let home = home();
    let sim = purestorage::FlashBlade::new(&home.path().join("mount"));
    let sim = Simulator::start(sim, home.path());
    Bed {
        backend: "purestorage",
        options: purestorage_options(&sim, version),
        sim: Box::new(sim),
        home,
        endpoint: "purity_endpoint",
        ca_option: "purity_ca_file",
        secret_option: "purity_api_token",
        // A scope is made without the array.
        steps: &[],
    }
}

pub fn purestorage() -> Bed {
    purestorage_of("2.12")
}

pub fn purestorage_1() -> Bed {
    purestorage_of("1.8")
}

pub fn gpfs_options(sim: &Simulator<gpfs::Gpfs>) -> serde_json::Map<String, Value> {
    options(json!({
        "gpfs_endpoint": sim.url(),
        "gpfs_username": gpfs::USER,
        "gpfs_password": gpfs::PASSWORD,
        "gpfs_fs_name": gpfs::FS_NAME,
        "gpfs_independent_filesets": true,
        "gpfs_ca_file": sim.ca_file(),
        "api_calls_per_second": 1000,
    }))
}

pub fn gpfs() -> Bed {
    let home = home();
    let sim = Simulator::start(gpfs::Gpfs::new(&home.path().join("mount")), home.path());
    Bed {
        backend: "gpfs",
        options: gpfs_options(&sim),
        sim: Box::new(sim),
        home,
        endpoint: "gpfs_endpoint",
        ca_option: "gpfs_ca_file",
        secret_option: "gpfs_password",
        steps: &[
            ("POST", "/filesets"),
            ("GET", "/jobs/"),
            ("POST", "/quotas"),
        ],
    }
}

pub fn hammerspace_options(
    sim: &Simulator<hammerspace::Hammerspace>,
) -> serde_json::Map<String, Value> {
    options(json!({
        "address": format!("{}{}", sim.url(), hammerspace::BASE),
        "username": hammerspace::USER,
        "password": hammerspace::PASSWORD,
        "mount_source": "10.0.0.7",
        "share_query_wait_sec": 0.01,
        "mount_shares": false,
        "ssl_ca_file": sim.ca_file(),
        "api_calls_per_second": 1000,
    }))
}

pub fn hammerspace() -> Bed {
    let home = home();
    let vendor = hammerspace::Hammerspace::new(&home.path().join("mount"));
    let sim = Simulator::start(vendor, home.path());
    Bed {
        backend: "hammerspace",
        options: hammerspace_options(&sim),
        sim: Box::new(sim),
        home,
        endpoint: "address",
        ca_option: "ssl_ca_file",
        secret_option: "password",
        steps: &[
            ("POST", "/login"),
            ("GET", "/shares/"),
            ("POST", "/shares"),
            ("GET", "/tasks/"),
        ],
    }
}

/// A bed without an interface of its own.
fn bare(backend: &'static str, options: serde_json::Map<String, Value>) -> Bed {
    Bed {
        backend,
        options,
        sim: Box::new(Nobody),
        home: home(),
        endpoint: "",
        ca_option: "",
        secret_option: "",
        steps: &[],
    }
}

pub fn exascaler() -> Bed {
    let mut bed = bare("exascaler", options(json!({})));
    let table = bed.home.path().join("table");
    std::fs::create_dir(&table).unwrap();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vendors/lfs.sh");
    bed.options
        .insert("lfs_command".to_owned(), json!(["bash", program, table]));
    bed
}

pub fn hammerspace_base() -> Bed {
    bare("hammerspace-base", options(json!({})))
}

/// How a bed of a backend is made.
pub fn of(backend: &str) -> fn() -> Bed {
    match backend {
        "netapp" => netapp,
        "purestorage" => purestorage,
        "dellemc-onefs" => onefs,
        "vast" => vast,
        "weka" => weka,
        "gpfs" => gpfs,
        "hammerspace" => hammerspace,
        other => panic!("no bed for {other}"),
    }
}
