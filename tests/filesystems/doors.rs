//! Every door by which bytes or names come in, on a scope that is full: one answer, with numbers,
//! and nothing of what was there is lost.

use std::fs;

use proxy_testkit::data::Pattern;
use proxy_testkit::server::VOLUME;
use proxy_testkit::tus::{Upload, offset};
use proxy_testkit::{Folder, Request, Response, wait};
use serde_json::json;

use super::scene::{MIB, Realms, Scene, TASK_BOUND, over_quota};

/// Requests that would begin, or go on with, an upload of `MIB` bytes that has `at` already.
fn upload_doors(upload: &Upload, at: u64) -> Vec<(&'static str, Request)> {
    let rest = Pattern(11).bytes(at, upload.size - at);
    let target = upload.target();
    let length = upload.size.to_string();
    let new = |method: &str| Request::new(method, &target);
    let tus = |method: &str| new(method).header("Tus-Resumable", "1.0.0");
    let draft = |method: &str| {
        let request = new(method).header("Upload-Draft-Interop-Version", "8");
        request.header("Upload-Complete", "?0")
    };
    let at = at.to_string();
    vec![
        ("create", tus("POST").header("Upload-Length", &length)),
        (
            "create, length later",
            tus("POST").header("Upload-Defer-Length", "1"),
        ),
        (
            "create with bytes",
            tus("POST").header("Upload-Length", &length).body(&rest),
        ),
        (
            "create a piece",
            tus("POST")
                .header("Upload-Length", &length)
                .header("Upload-Concat", "partial"),
        ),
        ("go on", upload.patch_request(offset_of(&at)).body(&rest)),
        (
            "go on, in chunks",
            upload.patch_request(offset_of(&at)).chunked(&[&rest]),
        ),
        ("a part", upload.part_request(offset_of(&at), &rest)),
        ("create by the draft", draft("POST").body(&rest)),
        (
            "go on by the draft",
            draft("PATCH")
                .header("Content-Type", "application/partial-upload")
                .header("Upload-Offset", &at)
                .body(&rest),
        ),
    ]
}

fn offset_of(text: &str) -> u64 {
    text.parse().expect("a number")
}

/// See the module. The scope is filled by somebody beside the server, as containers do.
pub fn all_say_the_same(scene: &Scene) {
    let folder = scene.limited(6 * MIB);
    scene.put(&folder, "kept", MIB, Pattern(10));
    // Tokens from before the scope was full.
    let fresh = Upload::begin(&scene.server, &folder, "fresh", MIB);
    let begun = Upload::begin(&scene.server, &folder, "begun", 2 * MIB);
    let answer = begun.patch(0, &Pattern(11).bytes(0, MIB));
    assert_eq!(answer.status, 204, "{answer}");
    scene.counted(&folder, 2 * MIB);
    scene.fill(&folder);
    scene.counted(&folder, 5 * MIB);
    // The server's own look at the numbers, where they come late.
    wait::until("a full scope gives no token", TASK_BOUND, || {
        let asked = scene.ask_upload(&folder, "late", 2 * MIB);
        (asked.status == 507).then(|| over_quota(&asked))
    });
    for upload in [&fresh, &begun] {
        let at = upload.offset();
        for (door, request) in upload_doors(upload, at) {
            let answer = request.send(scene.server.client());
            let told = over_quota(&answer);
            assert_eq!(told["limit_bytes"], 6 * MIB, "{door}: {told}");
            // Whatever the file system took before it refused is on record.
            let now = upload.offset();
            assert!(at <= now && now < upload.size, "{door}: {now}");
            if let Some(durable) = told["upload_offset"].as_u64() {
                assert_eq!(durable, now, "{door}");
            }
        }
        assert!(!folder.at("fresh").exists() && !folder.at("begun").exists());
    }
    names_are_made_or_refused(scene, &folder);
    let bytes = fs::read(folder.at("kept")).expect("what was there");
    assert_eq!(
        (bytes.len() as u64, Pattern(10).mismatch(0, &bytes)),
        (MIB, None)
    );
    // Room comes by deletion, which needs none.
    let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpaths": ["filler", "renamed"]});
    let _ = scene
        .server
        .ask("POST", "/folder/file/delete", &body)
        .expect(200);
    for (upload, name) in [(&fresh, "fresh"), (&begun, "begun")] {
        wait::until("the upload goes on", TASK_BOUND, || {
            let at = upload.offset();
            let answer = upload.patch(at, &Pattern(11).bytes(at, upload.size - at));
            (answer.status == 204 && offset(&answer) == upload.size).then_some(())
        });
        let bytes = fs::read(folder.at(name)).expect("uploaded");
        assert_eq!(Pattern(11).mismatch(0, &bytes), None, "{name}");
    }
}

/// Names may need room or not, as the file system is made: both are fine, other answers are not.
fn names_are_made_or_refused(scene: &Scene, folder: &Folder) {
    let with = |more: &[(&str, &str)]| {
        let mut body = json!({"volume": VOLUME, "vfid": folder.vfid});
        for (key, value) in more {
            body[*key] = json!(value);
        }
        body
    };
    let empty = scene.ask_upload(folder, "empty", 0);
    let rename = with(&[("relpath", "filler"), ("new_name", "renamed")]);
    let moved = with(&[("src_relpath", "kept"), ("dst_relpath", "moved")]);
    let back = with(&[("src_relpath", "moved"), ("dst_relpath", "kept")]);
    let move_by = |body| scene.server.ask("POST", "/folder/file/move", body);
    let renamed = scene.server.ask("POST", "/folder/file/rename", &rename);
    let moved = move_by(&moved);
    if moved.status == 204 {
        let _ = move_by(&back).expect(204);
    }
    for answer in [empty, renamed, moved] {
        if !matches!(answer.status, 200 | 204) {
            let _ = over_quota(&answer);
        }
    }
    let mut failed = None;
    for n in 0..400 {
        let name = format!("{n:0200}");
        let made = scene
            .server
            .ask("POST", "/folder/file/mkdir", &with(&[("relpath", &name)]));
        if made.status != 200 {
            failed = Some(made);
            break;
        }
    }
    // CephFS counts no directories.
    let Some(failed) = failed else {
        return assert_eq!(scene.realms, Realms::Ceph);
    };
    let failed = failed.expect(422).json();
    let text = failed["results"]["failed"][0]["msg"]
        .as_str()
        .expect("text");
    let numbers = text.contains(&format!("of {} bytes used", 6 * MIB));
    assert!(text.starts_with("quota exceeded: ") && numbers, "{text}");
}

/// A clone is charged to its scope in full, and refused where that has no room.
pub fn clones_heed_the_quota(scene: &Scene) {
    let (source, small, large) = (
        scene.limited(40 * MIB),
        Folder::unmade(&scene.server),
        Folder::unmade(&scene.server),
    );
    scene.put(&source, "f", 8 * MIB, Pattern(3));
    scene.counted(&source, 8 * MIB);
    scene.limit(&small, 4 * MIB);
    scene.limit(&large, 20 * MIB);
    let (state, text) = scene.clone(&source, &small);
    assert_eq!(state, "failed", "{text}");
    let limit = format!("of {} bytes used, ", 4 * MIB);
    assert!(
        text.contains("quota exceeded: ") && text.contains(&limit),
        "{text}"
    );
    assert!(!small.path.exists());
    let (state, text) = scene.clone(&source, &large);
    assert_eq!(state, "done", "{text}");
    let bytes = fs::read(large.at("f")).expect("cloned");
    assert_eq!(Pattern(3).mismatch(0, &bytes), None);
    scene.counted(&large, 8 * MIB);
}

/// A directory with a quota of its own in a folder: no rename leads there. What is moved there is
/// copied as a whole, then removed; an upload there is refused in words, and can go elsewhere.
pub fn realms_within_a_folder(scene: &Scene) {
    let folder = scene.limited(40 * MIB);
    scene.realm(&folder, "realm");
    scene.put(&folder, "d/f", 2 * MIB, Pattern(12));
    let moved = |from: &str, to: &str| {
        let body = json!({
            "volume": VOLUME, "vfid": folder.vfid, "src_relpath": from, "dst_relpath": to,
        });
        let _ = scene
            .server
            .ask("POST", "/folder/file/move", &body)
            .expect(204);
    };
    for (from, to, at) in [
        ("d/f", "realm/f", "realm/f"),
        ("realm/f", "d", "d/f"),
        ("d", "realm", "realm/d/f"),
    ] {
        moved(from, to);
        let bytes = fs::read(folder.at(at)).expect("moved");
        assert_eq!(Pattern(12).mismatch(0, &bytes), None, "{from} to {to}");
        assert!(!folder.at(from).exists(), "{from} to {to}");
        let left = proxy_testkit::folder::names(&folder.at("realm"));
        assert!(!left.iter().any(|name| name.starts_with('.')), "{left:?}");
    }
    let upload = Upload::begin(&scene.server, &folder, "g", MIB);
    let there = Request::new("PATCH", &format!("{}&dst_dir=realm", upload.target()))
        .header("Upload-Offset", "0")
        .body(&Pattern(13).bytes(0, MIB));
    let answer = there.send(scene.server.client());
    conflict(&answer);
    let at = upload.offset();
    let answer = upload.patch(at, &Pattern(13).bytes(at, MIB - at));
    assert_eq!(answer.status, 204, "{answer}");
    moved("g", "realm");
    let bytes = fs::read(folder.at("realm/g")).expect("moved");
    assert_eq!(Pattern(13).mismatch(0, &bytes), None);
}

#[track_caller]
fn conflict(answer: &Response) {
    let body = answer.json();
    let told = (answer.status, body["type"].as_str().unwrap_or_default());
    let want = "https://api.backend.ai/probs/storage/target-conflict";
    assert_eq!(told, (409, want), "{answer}");
    let text = body["msg"].as_str().unwrap_or_default();
    assert!(text.contains("a quota of its own"), "{text}");
}
