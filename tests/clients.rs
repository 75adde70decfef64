//! Goal: the real clients, unmodified, upload and download through the running program.
//! Method: one script per client in tests/clients, with pinned versions, installed outside of
//! the repository's own files; each says "skipped: reason" where it cannot be installed.
//!
//! What was seen with which version: tests/clients/README.md.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proxy_testkit::client::{self, Script};
use proxy_testkit::etcd::Etcd;
use proxy_testkit::redis::RedisServer;
use proxy_testkit::{Server, Settings, skip};

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");

/// As [`client::environment`], for this build.
#[track_caller]
fn environment(name: &str) -> Result<PathBuf, String> {
    client::environment(env!("CARGO_TARGET_TMPDIR"), name)
}

/// Runs a script against a server of its own.
#[track_caller]
fn run(program: &Path, script: &str, more: &[(&str, &Path)]) {
    let server = Server::start(PROGRAM);
    run_against(&server, program, script, more);
    server.finish();
}

/// Runs a script against a server.
#[track_caller]
fn run_against(server: &Server, program: &Path, script: &str, more: &[(&str, &Path)]) {
    Script::start(server, program, script, more).end();
}

#[test]
fn aiotusclient_uploads() {
    match environment("tus") {
        Ok(python) => run(&python, "use_aiotusclient.py", &[]),
        Err(reason) => skip(reason),
    }
}

#[test]
fn tuspy_uploads_and_resumes() {
    match environment("tus") {
        Ok(python) => run(&python, "use_tuspy.py", &[]),
        Err(reason) => skip(reason),
    }
}

#[test]
fn tus_js_client_uploads_aborts_and_resumes() {
    match environment("node") {
        Ok(modules) => run(
            Path::new("node"),
            "use_tus_js.mjs",
            &[("STORAGE_NODE", &modules)],
        ),
        Err(reason) => skip(reason),
    }
}

/// docs/semantics.md#concatenation
#[test]
fn tus_js_client_uploads_in_parallel_and_with_checksums() {
    match environment("node") {
        Ok(modules) => run(
            Path::new("node"),
            "use_tus_js_parallel.mjs",
            &[("STORAGE_NODE", &modules)],
        ),
        Err(reason) => skip(reason),
    }
}

/// docs/semantics.md#draft, docs/semantics.md#parts
#[test]
fn curl_speaks_the_draft_and_sends_parts() {
    match Command::new("curl")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
    {
        Ok(status) if status.success() => run(Path::new("bash"), "use_curl_draft.sh", &[]),
        _ => skip("no curl"),
    }
}

#[test]
fn the_sdk_uploads_and_downloads() {
    for version in ["backend-26.9.6", "backend-26.2.0"] {
        match environment(version) {
            Ok(python) => run(&python, "use_sdk.py", &[]),
            Err(reason) => skip(format!("{version}: {reason}")),
        }
    }
}

#[test]
fn the_managers_own_client_is_content() {
    for version in ["backend-26.9.6", "backend-26.2.0"] {
        match environment(version) {
            Ok(python) => run(&python, "use_manager.py", &[]),
            Err(reason) => skip(format!("{version}: {reason}")),
        }
    }
}

/// The Manager finds the server by its announcement, and is content with it.
#[test]
fn a_member_of_a_fleet_is_seen_by_the_original() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let Some(etcd) = Etcd::start() else { return };
    let at = redis.addr().to_string();
    etcd.put("/sorna/local/config/redis/addr", &at);
    let settings = Settings {
        manager_lines: "announce-addr = \"10.0.0.1:6022\"\n\
                        announce-internal-addr = \"10.0.0.1:16023\""
            .to_owned(),
        ..Settings::fleet(
            "i-seen",
            format!(
                "{}[service-discovery.extra-labels]\nrack = \"r1\"\n",
                etcd.table()
            ),
        )
    };
    let more = [
        ("STORAGE_REDIS", Path::new(&at)),
        ("STORAGE_NODE_ID", Path::new("i-seen")),
    ];
    for version in ["backend-26.9.6", "backend-26.2.0"] {
        match environment(version) {
            Ok(python) => {
                let server = Server::start_with(PROGRAM, settings.clone());
                run_against(&server, &python, "use_discovery.py", &more);
                run_against(&server, &python, "use_manager.py", &[]);
                server.finish();
            }
            Err(reason) => skip(format!("{version}: {reason}")),
        }
    }
}

#[test]
fn curl_moves_a_big_file() {
    match Command::new("curl")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
    {
        Ok(status) if status.success() => run(Path::new("bash"), "use_curl.sh", &[]),
        _ => skip("no curl"),
    }
}
