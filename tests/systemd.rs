//! Goal: the units are good, and systemd is told the truth.
//! Method: `systemd-analyze verify` on the units as they are installed; a socket of the test's own
//! in the place of systemd's.

#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use proxy_testkit::{Server, Settings, skip};
use rustix::process::Signal;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const UNITS: [&str; 2] = ["storage-proxy.service", "storage-proxy-mounts.service"];

#[test]
fn the_units_have_no_fault() {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/systemd");
    let mut command = Command::new("systemd-analyze");
    command.arg("verify");
    for unit in UNITS {
        let text = std::fs::read_to_string(from.join(unit)).unwrap();
        let text = text.replace("/usr/bin/storage-proxy", PROGRAM);
        std::fs::write(dir.path().join(unit), text).unwrap();
        command.arg(dir.path().join(unit));
    }
    let Ok(output) = command.output() else {
        return skip("no systemd-analyze");
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("Failed to") && said.contains("manager") {
        return skip(format!("systemd-analyze cannot verify here: {said}"));
    }
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

/// The next message that has this line.
fn heard(socket: &UnixDatagram, line: &str) -> String {
    let mut bytes = [0; 4096];
    loop {
        let count = socket
            .recv(&mut bytes)
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
        if text.lines().any(|one| one.starts_with(line)) {
            return text;
        }
    }
}

#[test]
fn systemd_hears_of_start_reload_life_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let settings = Settings {
        environment: vec![
            ("NOTIFY_SOCKET".into(), path.display().to_string()),
            ("WATCHDOG_USEC".into(), "200000".into()),
        ],
        ..Settings::default()
    };
    let mut server = Server::start_with(PROGRAM, settings);
    let ready = heard(&socket, "READY=1");
    assert!(ready.contains("STATUS=clients at http"), "{ready}");
    heard(&socket, "WATCHDOG=1");
    server.signal(Signal::HUP);
    let reloading = heard(&socket, "RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    heard(&socket, "READY=1");
    heard(&socket, "WATCHDOG=1");
    server.signal(Signal::TERM);
    heard(&socket, "STOPPING=1");
    assert!(server.await_end().success());
}
