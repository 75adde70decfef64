//! Goal: the simulators are what the vendors' own clients expect.
//! Method: each client, unmodified and of a pinned version, runs a script against a simulator. It
//! is installed into an environment below the build's directory; what cannot be had is said.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proxy_simulators::{Simulator, Vendor, netapp, onefs, purestorage, vast, weka};

/// The exit status by which setup.sh says that something cannot be had here.
const UNAVAILABLE: i32 = 75;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The interpreter with a client's packages, or the reason why there is none.
fn environment(name: &str) -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vendors");
    let output = Command::new("bash")
        .arg(here().join("../clients/setup.sh"))
        .arg(format!("vendor-{name}"))
        .arg(&dir)
        .stdin(Stdio::null())
        .output()
        .expect("bash runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            Ok(PathBuf::from(text.lines().last().unwrap_or_default()))
        }
        Some(UNAVAILABLE) => Err(said.lines().last().unwrap_or("no reason given").to_owned()),
        _ => panic!("setup of {name}: {said}"),
    }
}

/// Runs `use_NAME.py` with the packages of `NAME.txt` against a simulator.
fn prove<V: Vendor>(name: &str, make: fn(&Path) -> V, user: &str, secret: &str) {
    let python = match environment(name) {
        Ok(python) => python,
        Err(reason) => return println!("skipped: {name}: {reason}"),
    };
    let home = tempfile::tempdir().unwrap();
    let mount = home.path().join("mount");
    std::fs::create_dir(&mount).unwrap();
    let sim = Simulator::start(make(&mount), home.path());
    let script = format!("use_{}.py", name.replace('-', "_"));
    let output = Command::new("timeout")
        .arg("240")
        .arg(python)
        .arg(here().join("clients").join(&script))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SIM_PORT", sim.port().to_string())
        .env("SIM_URL", sim.url())
        .env("SIM_CA", sim.ca_file())
        .env("REQUESTS_CA_BUNDLE", sim.ca_file())
        .env("SSL_CERT_FILE", sim.ca_file())
        .env("SIM_DIR", &mount)
        .env("SIM_USER", user)
        .env("SIM_SECRET", secret)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wailed = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default();
    println!("{script}: {last}");
    assert!(output.status.success(), "{said}\n{wailed}");
    assert!(last.ends_with(" passed, 0 failed"), "{said}");
}

#[test]
fn netapp_ontap_is_content() {
    prove(
        "netapp-ontap",
        netapp::NetApp::new,
        netapp::USER,
        netapp::PASSWORD,
    );
}

#[test]
fn isilon_sdk_is_content() {
    prove(
        "isilon-sdk",
        onefs::OneFs::new,
        onefs::USER,
        onefs::PASSWORD,
    );
}

#[test]
fn vastpy_is_content() {
    prove("vastpy", vast::Vast::new, vast::USER, vast::PASSWORD);
}

#[test]
fn wekalib_is_content() {
    let new = weka::Weka::untouched;
    prove("wekalib", new, weka::USER, weka::FIRST_PASSWORD);
}

#[test]
fn purity_fb_is_content() {
    let new = purestorage::FlashBlade::new;
    prove("purity-fb", new, "", purestorage::API_TOKEN);
}

#[test]
fn py_pure_client_is_content() {
    let new = purestorage::FlashBlade::new;
    prove("py-pure-client", new, "", purestorage::API_TOKEN);
}
