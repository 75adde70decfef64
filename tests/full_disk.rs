//! Goal: a full disk is told clearly, costs no acknowledged byte, and the upload goes on when
//! there is space again.
//! Method: volumes on small file systems, filled up by the test.
//!
//! Source: client contract 5; `docs/semantics.md#durability`.

use std::path::Path;
use std::time::Duration;

use proxy_testkit::data::Pattern;
use proxy_testkit::testbed::Testbed;
use proxy_testkit::tus::{Upload, offset};
use proxy_testkit::{Connection, Folder, Response, Server, problem, skip, wait};
use serde_json::json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_storage-proxy");
const MIB: u64 = 1 << 20;

/// A server whose first volume is on the small file system; its state is elsewhere.
fn server_on(mount: &Path) -> Server {
    let server = Server::start(PROGRAM);
    let volume = server.volume(proxy_testkit::server::VOLUME);
    std::fs::remove_dir(&volume).expect("an empty volume");
    std::os::unix::fs::symlink(mount, &volume).expect("a link to the small file system");
    server
}

fn free_bytes(mount: &Path) -> u64 {
    let stat = rustix::fs::statvfs(mount).expect("statvfs");
    stat.f_frsize * stat.f_bavail
}

/// Sends a PATCH that may be refused at any moment; the answer, if one could be read.
fn send(upload: &Upload, at: u64, pattern: Pattern) -> Option<Response> {
    let length = upload.size - at;
    let mut connection = upload.begin_patch(at, length, b"").ok()?;
    let mut done = 0;
    while done < length {
        let n = MIB.min(length - done);
        if connection.write(&pattern.bytes(at + done, n)).is_err() {
            break;
        }
        done += n;
    }
    Connection::answer(&mut connection, false).ok()
}

fn full_on(bed: &Testbed) {
    let mut server = server_on(bed.mount());
    assert!(server.stop().success());
    server.restart();
    let folder = Folder::empty(&server);
    let filler = bed.mount().join("filler");
    let room = 12 * MIB;
    let file = std::fs::File::create(&filler).expect("a filler");
    let fill = free_bytes(bed.mount()).saturating_sub(room);
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, fill).expect("filled");
    let (size, pattern) = (30 * MIB, Pattern(21));
    let upload = Upload::begin(&server, &folder, "f", size);
    // docs/semantics.md#connections: the rest of the body is thrown away, so the answer arrives.
    let answer = send(&upload, 0, pattern).expect("an answer");
    problem::refused(&answer, 507).unwrap_or_else(|why| panic!("{why}\n{answer}"));
    let at = upload.offset();
    assert_eq!(offset(&answer), at, "{answer}");
    assert!(at < size, "{at}");
    assert!(!folder.at("f").exists(), "no partial target");
    let staged = std::fs::read(folder.at(".upload").join(&folder.staged()[0])).expect("staged");
    assert_eq!(
        pattern.mismatch(0, &staged[..at as usize]),
        None,
        "HEAD tells the truth"
    );
    // Still full: refused again, and nothing acknowledged is lost.
    if let Some(answer) = send(&upload, at, pattern) {
        assert_eq!(answer.status, 507, "{answer}");
    }
    let again = upload.offset();
    assert!(at <= again, "{again}");
    // The Manager's calls answer too, with the system's words.
    let body = json!({"volume": "volume1", "vfid": folder.vfid, "relpath": "d"});
    let made = server.ask("POST", "/folder/file/mkdir", &body);
    assert!(matches!(made.status, 200 | 422), "{made}");
    drop(file);
    std::fs::remove_file(&filler).expect("space again");
    let done = wait::until("the upload goes on", Duration::from_secs(20), || {
        let at = upload.offset();
        let answer = send(&upload, at, pattern)?;
        (answer.status == 204).then(|| offset(&answer))
    });
    assert_eq!(done, size);
    let bytes = std::fs::read(folder.at("f")).expect("f");
    assert_eq!(
        (bytes.len() as u64, pattern.mismatch(0, &bytes)),
        (size, None)
    );
    server.assert_at_rest();
    assert!(server.stop().success());
    assert!(!server.log().contains("panicked at"));
}

fn check(name: &str, settings: &[(&str, &str)]) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    match Testbed::up(&tests, name, settings) {
        Ok(bed) => full_on(&bed),
        Err(reason) => skip(reason),
    }
}

#[test]
fn a_full_tmpfs_stops_an_upload_for_a_while() {
    check("tmpfs", &[("TMPFS_BYTES", "64M")]);
}

#[test]
fn a_full_xfs_stops_an_upload_for_a_while() {
    check("xfs", &[("XFS_BYTES", "300M")]);
}
