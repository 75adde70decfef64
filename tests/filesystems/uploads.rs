//! Uploads that meet a quota on their way.

use std::fs;
use std::path::Path;

use proxy_testkit::data::Pattern;
use proxy_testkit::folder::names;
use proxy_testkit::server::VOLUME;
use proxy_testkit::tus::{Upload, offset};
use proxy_testkit::wait;

use super::scene::{MIB, Scene, TASK_BOUND, over_quota};

/// Uploads stop at the limit with one answer, lose nothing, and go on when it is raised.
pub fn heed_the_quota(scene: &Scene) {
    let folder = scene.limited(10 * MIB);
    scene.put(&folder, "first", 3 * MIB, Pattern(1));
    scene.counted(&folder, 3 * MIB);
    let told = over_quota(&scene.ask_upload(&folder, "f", 9 * MIB));
    assert_eq!(told["limit_bytes"], 10 * MIB, "{told}");
    assert_eq!(told["needed_bytes"], 9 * MIB, "{told}");
    let used = told["used_bytes"].as_u64().expect("known");
    assert!((3 * MIB..4 * MIB).contains(&used), "{told}");
    // Each of them fits, both do not.
    let server = &scene.server;
    let (one, pattern) = (Upload::begin(server, &folder, "one", 5 * MIB), Pattern(2));
    let two = Upload::begin(server, &folder, "two", 5 * MIB);
    let answer = one.patch(0, &pattern.bytes(0, 5 * MIB));
    assert_eq!(answer.status, 204, "{answer}");
    scene.counted(&folder, 8 * MIB);
    let answer = two.patch(0, &pattern.bytes(0, 5 * MIB));
    let told = over_quota(&answer);
    let at = two.offset();
    assert_eq!(offset(&answer), at, "{answer}");
    assert_eq!(told["upload_offset"], at, "{told}");
    assert!(at <= 2 * MIB, "acknowledged beyond the limit: {at}");
    assert!(!folder.at("two").exists(), "no partial target");
    scene.limit(&folder, 40 * MIB);
    let answer = wait::until("the upload goes on", TASK_BOUND, || {
        let at = two.offset();
        let answer = two.patch(at, &pattern.bytes(at, 5 * MIB - at));
        (answer.status == 204).then_some(answer)
    });
    assert_eq!(offset(&answer), 5 * MIB);
    for name in ["one", "two"] {
        let bytes = fs::read(folder.at(name)).expect("uploaded");
        let seen = (bytes.len() as u64, pattern.mismatch(0, &bytes));
        assert_eq!(seen, (5 * MIB, None));
    }
}

/// Writes past the quota go into the client's memory, and fail when they are synced: no offset is
/// told that the server does not have.
pub fn acknowledged_is_on_the_server(scene: &Scene, under: &Path) {
    let folder = scene.limited(6 * MIB);
    let server = &scene.server;
    let (upload, pattern) = (Upload::begin(server, &folder, "late", 5 * MIB), Pattern(8));
    scene.limit(&folder, 3 * MIB);
    let mut at = 0;
    let answer = loop {
        let answer = upload.patch(at, &pattern.bytes(at, MIB));
        if answer.status != 204 {
            break answer;
        }
        at = offset(&answer);
        assert!(at <= 3 * MIB, "acknowledged beyond the limit");
    };
    let _ = over_quota(&answer);
    assert_eq!(upload.offset(), offset(&answer));
    let scope = folder
        .path
        .strip_prefix(server.volume(VOLUME))
        .expect("below");
    let staged = under.join("volume").join(scope).join(".upload");
    let name = &names(&staged)[0];
    let bytes = fs::read(staged.join(name)).expect("staged on the server");
    let durable = upload.offset() as usize;
    assert!(durable <= bytes.len(), "{durable} of {}", bytes.len());
    assert_eq!(pattern.mismatch(0, &bytes[..durable]), None);
}
