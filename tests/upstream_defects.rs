//! Goal: every known defect of upstream is either mended here, and a test holds it, or it is
//! stated as deliberate in `docs/semantics.md`.
//! Method: the list of wire contract section 10 as a table; the named tests and anchors must exist.
//! Defects that no other file covers are tried here.
//!
//! Source: wire contract section 10, items 1 to 52.

use std::path::Path;
use std::process::{Command, Stdio};

use proxy_testkit::table::Report;
use proxy_testkit::tus::Upload;
use proxy_testkit::{Folder, Request, Server, problem, wait};
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");

/// Where an item stands.
enum Stand {
    /// Mended; the test of this file and name fails without it.
    Held(&'static str, &'static str),
    /// Deliberately so, or not reachable from here: this anchor says why.
    Stated(&'static str),
}
use Stand::{Held, Stated};

/// Number in the list, what upstream does, where we stand.
const DEFECTS: &[(u8, &str, Stand)] = &[
    (
        1,
        "uploads write outside the vfolder",
        Held("containment", "no_path_leaves_the_folder"),
    ),
    (
        2,
        "archives and clones follow links outward",
        Held(
            "conformance_folders",
            "a_clone_has_the_same_tree_and_nothing_from_outside",
        ),
    ),
    (
        3,
        "deletes and moves act on link targets",
        Held("conformance_delete", "things_are_deleted"),
    ),
    (
        4,
        "path parameters of /v1 leak between requests",
        Stated("v1"),
    ),
    (
        5,
        "deleting . removes the folder itself",
        Held("conformance_delete", "things_are_deleted"),
    ),
    (
        6,
        "unmanaged_path opens any directory",
        Held("containment", "an_unmanaged_path_opens_nothing"),
    ),
    (
        7,
        "tokens without exp live for ever",
        Held(
            "conformance_tokens",
            "forged_tokens_open_neither_download_nor_upload",
        ),
    ),
    (
        8,
        "tokens stand in access logs",
        Held("upstream_defects", "d08_no_token_stands_in_the_log"),
    ),
    (
        9,
        "the manager secret is compared byte by byte",
        Held(
            "conformance_status",
            "the_token_is_checked_before_anything_else",
        ),
    ),
    (
        10,
        "errors show absolute server paths",
        Held("containment", "no_path_leaves_the_folder"),
    ),
    (
        11,
        "a .gz beside a file is served instead",
        Held(
            "conformance_download",
            "a_compressed_sibling_is_never_sent_instead",
        ),
    ),
    (
        12,
        "renaming to .. moves one level up",
        Held("conformance_files", "things_are_renamed"),
    ),
    (
        13,
        "a failing archive never ends",
        Held(
            "conformance_archive",
            "a_file_that_changes_while_it_is_packed_breaks_the_transfer_or_not_but_never_hangs",
        ),
    ),
    (
        14,
        "an abandoned archive goes on",
        Held(
            "conformance_archive",
            "an_abandoned_archive_stops_the_work_at_once",
        ),
    ),
    (
        15,
        "one hanging mount stops the worker",
        Stated("bulkheads"),
    ),
    (
        16,
        "fetch fills memory",
        Held(
            "conformance_reading",
            "a_big_file_is_fetched_whole_and_in_bounded_memory",
        ),
    ),
    (
        17,
        "usage gives up after 30 s, used-bytes is rounded",
        Held("upstream_defects", "d17_used_bytes_are_exact"),
    ),
    (
        18,
        "listings are cut at 1000 without a hint",
        Stated("listing"),
    ),
    (
        19,
        "metrics take raw paths as labels",
        Held(
            "conformance_status",
            "metrics_keep_the_names_of_upstream_and_a_closed_set_of_endpoints",
        ),
    ),
    (
        20,
        "one sick backend breaks GET /volumes",
        Held(
            "upstream_defects",
            "a_volume_that_is_gone_stops_nobody_else",
        ),
    ),
    (
        21,
        "bytes of a broken PATCH are thrown away",
        Held(
            "conformance_upload",
            "bytes_of_a_broken_patch_are_kept_and_told",
        ),
    ),
    (
        22,
        "finalisation is neither atomic nor repeatable",
        Held("conformance_upload", "a_lost_last_answer_is_given_again"),
    ),
    (
        23,
        "more bytes than announced are stored",
        Held(
            "conformance_upload",
            "more_bytes_than_announced_are_refused_and_not_stored",
        ),
    ),
    (
        24,
        "the size limit is not enforced",
        Held(
            "conformance_tokens",
            "minting_an_upload_refuses_what_could_never_be_finished",
        ),
    ),
    (
        25,
        "empty files are never created",
        Held(
            "conformance_tokens",
            "an_empty_file_is_there_when_its_token_is",
        ),
    ),
    (
        26,
        "abandoned staging files stay for ever",
        Held(
            "conformance_upload",
            "abandoned_sessions_are_collected_and_running_ones_are_not",
        ),
    ),
    (
        27,
        "a stalled writer and its successor write together",
        Held("conformance_upload", "two_writers_never_mix_their_bytes"),
    ),
    (28, "a lost Redis stops all uploads", Stated("state")),
    (
        29,
        "minting races with the end of the last session",
        Held(
            "conformance_upload",
            "many_sessions_of_one_folder_do_not_disturb_each_other",
        ),
    ),
    (
        30,
        "errors of /upload cannot be read by a browser",
        Held(
            "conformance_cors",
            "every_answer_of_an_upload_can_be_read_across_origins",
        ),
    ),
    (31, "no checksums", Stated("tus-extensions")),
    (
        32,
        "a client dies on any non-204",
        Held(
            "conformance_upload",
            "a_newer_patch_ends_a_stalled_older_one",
        ),
    ),
    (
        33,
        "If-Range ignores entity tags",
        Held(
            "conformance_download",
            "conditions_are_evaluated_in_their_order",
        ),
    ),
    (
        34,
        "HEAD is 405",
        Held(
            "conformance_download",
            "a_head_has_the_headers_of_the_get_and_no_body",
        ),
    ),
    (
        35,
        "several ranges and other units are 416",
        Held(
            "conformance_download",
            "several_ranges_come_as_parts_or_as_the_whole",
        ),
    ),
    (
        36,
        "a newline in a name closes the connection",
        Held("conformance_download", "names_are_offered_in_both_forms"),
    ),
    (
        37,
        "Last-Modified must be stable for resumption",
        Held("conformance_download", "a_file_is_served_with_its_headers"),
    ),
    (
        38,
        "an empty dst_dir is a 500",
        Held("conformance_download", "a_file_is_served_with_its_headers"),
    ),
    (
        39,
        "unmanaged folders cannot be downloaded",
        Stated("unmanaged"),
    ),
    (
        40,
        "a relative volume path makes every download a 404",
        Held("upstream_defects", "d40_a_relative_volume_path_works"),
    ),
    (
        41,
        "500 for the client's mistakes",
        Held(
            "conformance_parameters",
            "a_body_that_is_no_object_is_a_400_everywhere",
        ),
    ),
    (42, "fetch masks every failure as empty", Stated("fetch")),
    (
        43,
        "deletions that silently do nothing",
        Held("conformance_delete", "things_are_deleted"),
    ),
    (44, "422 for an empty list of directories", Stated("mkdir")),
    (
        45,
        "subpath: Bad Request",
        Held("conformance_folders", "folders_follow_the_contract"),
    ),
    (
        46,
        "errors that stand in the reason phrase only",
        Held("conformance_status", "the_manager_port_tells_its_state"),
    ),
    (47, "domains that the Manager cannot map", Stated("domains")),
    (48, "stubs: /v1 uploads, folder metadata", Stated("v1")),
    (49, "health fails for the wrong reasons", Stated("health")),
    (50, "no request id, 403s are not counted", Stated("metrics")),
    (
        51,
        "clone fails on one dangling link",
        Held(
            "conformance_folders",
            "a_clone_has_the_same_tree_and_nothing_from_outside",
        ),
    ),
    (
        52,
        "mode: true makes a folder of mode 0001",
        Held("conformance_folders", "folders_follow_the_contract"),
    ),
];

#[test]
fn every_defect_is_held_by_a_test_or_stated() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let semantics = std::fs::read_to_string(root.join("docs/semantics.md")).unwrap_or_default();
    let mut report = Report::default();
    for (number, what, stand) in DEFECTS {
        let result = match stand {
            Held(file, test) => {
                let text = std::fs::read_to_string(root.join(format!("tests/{file}.rs")));
                let found = text.is_ok_and(|t| t.contains(&format!("fn {test}()")));
                found
                    .then_some(())
                    .ok_or_else(|| format!("no test {file}::{test}"))
            }
            Stated(anchor) => semantics
                .contains(&format!("<a id=\"{anchor}\"></a>"))
                .then_some(())
                .ok_or_else(|| format!("docs/semantics.md has no anchor {anchor}")),
        };
        report.note(&format!("{number} {what}"), result);
    }
    report.end("defects");
    let numbers: Vec<u8> = DEFECTS.iter().map(|d| d.0).collect();
    assert_eq!(numbers, (1..=52).collect::<Vec<u8>>());
}

#[test]
fn d08_no_token_stands_in_the_log() {
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let upload = Upload::begin(&server, &folder, "f", 3);
    let download = folder.download_token("a.txt");
    let gone = folder.download_token("gone");
    let _ = upload.patch(9, b"abc");
    let _ = upload.patch(0, b"abc").expect(204);
    for token in [&download, &gone] {
        let _ = Request::new("GET", &format!("/download?token={token}")).send(server.client());
    }
    let log = server.log();
    for token in [&upload.token, &download, &gone] {
        let signature = token.rsplit('.').next().unwrap_or_default();
        assert!(!log.contains(signature), "a token stands in the log");
    }
    assert!(!log.contains(proxy_testkit::server::MANAGER_SECRET));
    assert!(!log.contains(proxy_testkit::server::TOKEN_SECRET));
    server.finish();
}

#[test]
fn d17_used_bytes_are_exact() {
    let server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let body = json!({"volume": "volume1", "vfid": folder.vfid});
    let used = |server: &Server| {
        let answer = server
            .ask("GET", "/folder/used-bytes", &body)
            .expect(200)
            .json();
        answer["used_bytes"].as_u64().expect("a number")
    };
    let before = used(&server);
    folder.write("f", &[1; 1_234_567]);
    let grown = used(&server) - before;
    // Apparent bytes or whole blocks, but not two rounded digits of them.
    assert!((1_234_567..1_234_567 + 8192).contains(&grown), "{grown}");
    server.finish();
}

#[test]
fn d40_a_relative_volume_path_works() {
    // Every test server names its volumes relative to the configuration file; this one is also
    // started from another directory than the file's.
    let server = Server::start(PROGRAM);
    let folder = Folder::full(&server);
    let target = format!("/download?token={}", folder.download_token("a.txt"));
    assert_eq!(
        Request::new("GET", &target).send(server.client()).text(),
        "hello"
    );
    let listed = server
        .manager_request("GET", "/volumes")
        .send(server.manager())
        .json();
    let paths = listed["volumes"].as_array().cloned().unwrap_or_default();
    assert_eq!(
        paths[0]["path"],
        server.volume("volume1").display().to_string()
    );
    server.finish();
}

#[test]
fn a_volume_that_is_gone_stops_nobody_else() {
    let settings = proxy_testkit::Settings {
        gone_volume: true,
        ..Default::default()
    };
    let server = Server::start_with(PROGRAM, settings);
    let listed = server
        .manager_request("GET", "/volumes")
        .send(server.manager())
        .expect(200);
    let listed = listed.json()["volumes"].as_array().map(Vec::len);
    assert_eq!(listed, Some(3), "the list holds the sick one too");
    let folder = Folder::full(&server);
    for (path, more) in [
        ("/folder/file/list", json!({"relpath": ""})),
        ("/folder/file/mkdir", json!({"relpath": "x"})),
        ("/folder/create", json!({})),
    ] {
        let mut body = json!({"volume": "gone", "vfid": folder.vfid});
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let answer = server.ask("POST", path, &body);
        assert!(400 <= answer.status, "{path}: {answer}");
        problem::refused(&answer, answer.status).expect(path);
        assert!(
            !server.volume("gone").exists(),
            "{path} made the mount point"
        );
    }
    let body = json!({"volume": "volume1", "vfid": folder.vfid, "relpath": "a.txt"});
    assert_eq!(
        server.ask("POST", "/folder/file/fetch", &body).text(),
        "hello"
    );
    server.finish();
}

/// Ways to start that must fail, and a word that the message must hold.
const BAD_STARTS: &[(&str, &str)] = &[
    ("[storage-proxy]\nnode-id = 5 5\n", "storage-proxy.toml"),
    ("[storage-proxi]\nnode-id = \"x\"\n", "storage-proxy"),
    (
        "[volume.v]\nbackend = \"nonesuch\"\npath = \"v\"\n",
        "nonesuch",
    ),
];

#[test]
fn a_start_that_fails_says_why_and_exits_non_zero() {
    let dir = tempfile::tempdir().expect("a directory");
    for (text, word) in BAD_STARTS {
        let config = dir.path().join("storage-proxy.toml");
        std::fs::write(&config, text).expect("written");
        let mut child = Command::new(proxy_testkit::server::program_under_test(PROGRAM))
            .args([
                "serve",
                "--client-addr",
                "127.0.0.1:0",
                "--manager-addr",
                "127.0.0.1:0",
            ])
            .args(["--internal-addr", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(dir.path().join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let status = wait::within(std::time::Duration::from_secs(20), || {
            child.try_wait().expect("our own child")
        });
        if status.is_none() {
            child.kill().expect("our own child");
        }
        let output = child.wait_with_output().expect("its output");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            status.is_some_and(|s| !s.success()),
            "{text}: {status:?} {said}"
        );
        assert!(said.contains(word), "{text}: {said}");
    }
}

#[test]
fn a_signal_lets_running_transfers_finish_and_takes_no_new_ones() {
    let mut server = Server::start(PROGRAM);
    let folder = Folder::empty(&server);
    let upload = Upload::begin(&server, &folder, "f", 1000);
    let mut running = upload.begin_patch(0, 1000, &[1; 400]).expect("sent");
    wait::until("it runs", std::time::Duration::from_secs(10), || {
        let open = proxy_testkit::server::gauge(&server.metrics(), "connections");
        (open == Some(1.0)).then_some(())
    });
    server.signal(rustix::process::Signal::TERM);
    wait::until(
        "no new connections",
        std::time::Duration::from_secs(10),
        || {
            std::net::TcpStream::connect(server.client())
                .is_err()
                .then_some(())
        },
    );
    running.write(&[1; 600]).expect("sent");
    let answer = running.answer(false).expect("an answer").expect(204);
    assert_eq!(answer.header("Upload-Offset"), Some("1000"));
    assert!(server.await_end().success());
    assert_eq!(std::fs::read(folder.at("f")).expect("f"), [1; 1000]);
}
