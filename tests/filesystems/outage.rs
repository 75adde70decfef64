//! A storage server that stops for a while, and comes back.

use std::fs;
use std::time::Duration;

use proxy_testkit::data::Pattern;
use proxy_testkit::server::OTHER_VOLUME;
use proxy_testkit::tus::{Upload, offset};
use proxy_testkit::{Folder, Request, Response, wait};
use serde_json::json;

use super::scene::{MIB, Scene, TASK_BOUND, run};

/// Longer than a soft mount waits, shorter than a client that is told to be patient.
const OUTAGE: Duration = Duration::from_secs(12);

/// What was acknowledged is there, other volumes answer, and the upload goes on with its server.
/// A hard mount waits meanwhile, a soft one says in time that the storage is away.
pub fn uploads_survive(scene: &Scene, is_soft: bool) {
    let folder = Folder::unmade(&scene.server);
    scene.create(&folder);
    let (upload, pattern) = (
        Upload::begin(&scene.server, &folder, "f", 6 * MIB),
        Pattern(20),
    );
    let answer = upload.patch(0, &pattern.bytes(0, 2 * MIB));
    assert_eq!(offset(&answer), 2 * MIB, "{answer}");
    run("rpc.nfsd", &["0"]);
    let writer = {
        let (upload, bytes) = (upload.clone(), pattern.bytes(2 * MIB, 2 * MIB));
        std::thread::spawn(move || upload.patch(2 * MIB, &bytes))
    };
    others_answer(scene);
    let ended = wait::within(OUTAGE, || writer.is_finished().then_some(()));
    assert_eq!(ended.is_some(), is_soft, "an answer within {OUTAGE:?}");
    others_answer(scene);
    run("rpc.nfsd", &["-V", "3", "-V", "4.2", "4"]);
    let answer = writer.join().expect("an answer");
    is_patient(&answer, is_soft);
    let done = wait::until("the upload goes on", 2 * TASK_BOUND, || {
        let head = upload.head();
        assert!(matches!(head.status, 200 | 500 | 503), "{head}");
        if head.status != 200 {
            return None;
        }
        let at = offset(&head);
        assert!(2 * MIB <= at, "an acknowledged byte is lost: {at}");
        let answer = upload.patch(at, &pattern.bytes(at, 6 * MIB - at));
        (answer.status == 204).then(|| offset(&answer))
    });
    assert_eq!(done, 6 * MIB);
    let bytes = fs::read(folder.at("f")).expect("uploaded");
    assert_eq!(
        (bytes.len() as u64, pattern.mismatch(0, &bytes)),
        (6 * MIB, None)
    );
}

/// What the writer heard in the middle of it.
fn is_patient(answer: &Response, is_soft: bool) {
    match (is_soft, answer.status) {
        (_, 503) => assert!(answer.header("Retry-After").is_some(), "{answer}"),
        // EIO, which is what a soft mount says: no more is known.
        (true, 500) => {}
        (false, 204) => {}
        _ => panic!("{answer}"),
    }
}

/// One lost mount takes nothing from the others.
fn others_answer(scene: &Scene) {
    let folder = Folder::unmade_in(&scene.server, OTHER_VOLUME);
    let body = json!({"volume": OTHER_VOLUME, "vfid": folder.vfid});
    let _ = scene
        .server
        .ask("POST", "/folder/create", &body)
        .expect(204);
    let status = Request::new("GET", "/").send(scene.server.client());
    assert_eq!(status.status, 200, "{status}");
}
