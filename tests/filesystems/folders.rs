//! Scopes and folders on file systems with quotas: what the Manager asks of them.

use std::fs;
use std::path::Path;

use proxy_testkit::data::{Pattern, Random};
use proxy_testkit::folder::{names, picture};
use proxy_testkit::server::VOLUME;
use proxy_testkit::tus::Upload;
use proxy_testkit::{Folder, wait};
use serde_json::{Value, json};

use super::scene::{MIB, Scene, TASK_BOUND};

/// A deleted folder gives back what it held, and its scope stays.
pub fn deletions_give_back(scene: &Scene) {
    let folder = scene.limited(20 * MIB);
    scene.put(&folder, "d/e/f", 6 * MIB, Pattern(4));
    scene.counted(&folder, 6 * MIB);
    scene.delete(&folder);
    wait::until("it is given back", TASK_BOUND, || {
        let gone = !folder.path.exists();
        (gone && scene.describe(&folder).0? < MIB).then_some(())
    });
    assert_eq!(scene.describe(&folder).1, Some(20 * MIB));
}

/// What the Manager asks of a scope. `default_limit` is that of a scope without options.
pub fn scopes_follow_the_contract(scene: &Scene, default_limit: Option<u64>) {
    let server = &scene.server;
    let folder = Folder::unmade(server);
    let scope = json!({"volume": VOLUME, "qsid": folder.qsid});
    let _ = server.ask("GET", "/quota-scope", &scope).expect(404);
    let _ = server.ask("POST", "/quota-scope", &scope).expect(204);
    let _ = server.ask("POST", "/quota-scope", &scope).expect(409);
    let (used, limit_bytes) = scene.describe(&folder);
    assert!(used.is_some_and(|used| used < MIB), "{used:?}");
    assert_eq!(limit_bytes, default_limit);
    for bytes in [5 * MIB, 1 << 50, MIB] {
        scene.limit(&folder, bytes);
        assert_eq!(scene.describe(&folder).1, Some(bytes));
    }
    // More than the kernel's own numbers hold: a limit all the same, and no error.
    scene.limit(&folder, i64::MAX as u64);
    let told = scene.describe(&folder).1;
    assert!(told.is_some_and(|told| 1 << 62 < told), "{told:?}");
    let lifted = server.ask("DELETE", "/quota-scope/quota", &scope);
    let _ = lifted.expect(204);
    assert_eq!(scene.describe(&folder).1, None);
    scene.create(&folder);
    scene.put(&folder, "f", 2 * MIB, Pattern(5));
}

/// Kills the server while it makes scopes: each is whole, or says that it has no limit, and the
/// next try makes it whole.
pub fn scopes_survive_crashes(scene: &mut Scene) {
    let mut random = Random::printed("crashes of scopes");
    let rounds = proxy_testkit::env_number("STORAGE_TEST_SCOPE_CRASHES", 6);
    for _ in 0..rounds {
        let folders: Vec<_> = (0..40).map(|_| Folder::unmade(&scene.server)).collect();
        let to = scene.server.manager();
        let requests = folders.iter().map(|folder| {
            let options = json!({"limit_bytes": 3 * MIB});
            let body = json!({"volume": VOLUME, "qsid": folder.qsid, "options": options});
            scene
                .server
                .manager_request("POST", "/quota-scope")
                .json(&body)
        });
        let requests: Vec<_> = requests.collect();
        let many = std::thread::spawn(move || {
            let mut made = 0;
            for request in requests {
                let way = proxy_testkit::Connection::open(to);
                match way.and_then(|mut way| way.ask(&request)) {
                    Ok(answer) if answer.status == 204 => made += 1,
                    Ok(answer) => panic!("{answer}"),
                    Err(_) => break,
                }
            }
            made
        });
        let first = &folders[random.below(30) as usize].path;
        let first = first.ancestors().nth(3).expect("a scope");
        wait::until("some scopes are made", TASK_BOUND, || {
            first.exists().then_some(())
        });
        scene.server.kill();
        let made = many.join().expect("answers are 204");
        scene.server.restart();
        for (n, folder) in folders.iter().enumerate() {
            let scope = json!({"volume": VOLUME, "qsid": folder.qsid});
            let told = scene.server.ask("GET", "/quota-scope", &scope);
            match told.status {
                404 => assert!(made <= n, "{n} of {made} acknowledged"),
                200 => {
                    let limit = told.json()["limit_bytes"].clone();
                    let half = limit == Value::Null && made <= n;
                    assert!(half || limit == 3 * MIB, "{n}: {told}");
                }
                _ => panic!("{told}"),
            }
            let mut again = scope.clone();
            again["options"] = json!({"limit_bytes": 3 * MIB});
            let again = scene.server.ask("POST", "/quota-scope", &again);
            assert!(matches!(again.status, 204 | 409), "{again}");
            let (used, limit) = scene.describe(folder);
            assert_eq!(limit, Some(3 * MIB), "{n}");
            assert!(
                used.is_some_and(|used| used < MIB),
                "{n}: the project of another: {used:?}"
            );
        }
    }
}

/// A file that is open while its folder is deleted keeps another name until it is closed.
pub fn open_files_hold_a_deletion_up(scene: &Scene) {
    let folder = Folder::unmade(&scene.server);
    scene.create(&folder);
    scene.put(&folder, "open", MIB, Pattern(6));
    let file = fs::File::open(folder.at("open")).expect("open");
    let scope = folder.path.ancestors().nth(3).expect("a scope").to_owned();
    scene.delete(&folder);
    let detached = || (!folder.path.exists()).then_some(());
    wait::until("the name is gone at once", TASK_BOUND, detached);
    let trash = || {
        let mut names = names(&scope).into_iter();
        names.any(|name| name.starts_with(".trash-"))
    };
    assert!(trash(), "the open file keeps its tree");
    drop(file);
    wait::until("the tree goes when the file is closed", TASK_BOUND, || {
        if trash() {
            scene.delete(&folder);
        }
        (!trash()).then_some(())
    });
}

/// A folder that is removed on the server, under our descriptors, is missing and no failure.
pub fn folders_removed_elsewhere_are_missing(scene: &Scene, under: &Path) {
    let server = &scene.server;
    let folder = Folder::unmade(server);
    scene.create(&folder);
    scene.put(&folder, "f", MIB, Pattern(7));
    let upload = Upload::begin(server, &folder, "g", MIB);
    let scope = folder.path.ancestors().nth(3).expect("a scope");
    let there = under
        .join("volume")
        .join(scope.file_name().expect("its name"));
    fs::remove_dir_all(there).expect("removed on the server");
    let answer = wait::until("it is missing", TASK_BOUND, || {
        let answer = upload.head();
        assert!(matches!(answer.status, 200 | 404), "{answer}");
        (answer.status == 404).then_some(answer)
    });
    assert_eq!(answer.status, 404);
    let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": "."});
    let listed = server.ask("POST", "/folder/file/list", &body);
    assert_eq!(listed.status, 404, "{listed}");
    let patched = upload.patch(0, &[1; 1000]);
    assert_eq!(patched.status, 404, "{patched}");
}

/// A staging file that is removed on the server while a PATCH writes to it: the answer says to try
/// again, and the next one that the upload is gone. Never a failure of ours.
pub fn uploads_removed_elsewhere_are_told(scene: &Scene, under: &Path) {
    let server = &scene.server;
    let folder = scene.limited(40 * MIB);
    let upload = Upload::begin(server, &folder, "lost", 8 * MIB);
    let mut writer = upload.begin_patch(0, 8 * MIB, b"").expect("a connection");
    let bytes = Pattern(14).bytes(0, 8 * MIB);
    writer
        .write(&bytes[..4 * MIB as usize])
        .expect("the first half");
    let scope = folder
        .path
        .strip_prefix(server.volume(VOLUME))
        .expect("below");
    let staged = under.join("volume").join(scope).join(".upload");
    wait::until("bytes are there", TASK_BOUND, || {
        let name = names(&staged).pop()?;
        (0 < fs::metadata(staged.join(name)).ok()?.len()).then_some(())
    });
    fs::remove_dir_all(&staged).expect("removed on the server");
    let _ = writer.write(&bytes[4 * MIB as usize..]);
    let answer = writer.answer(false).expect("an answer");
    match answer.status {
        503 => assert!(answer.header("Retry-After").is_some(), "{answer}"),
        // NFS 4 keeps an open file, which then has no name to be found by.
        404 | 409 => {}
        _ => panic!("{answer}"),
    }
    wait::until("it is missing", TASK_BOUND, || {
        let answer = upload.head();
        assert!(matches!(answer.status, 200 | 404), "{answer}");
        (answer.status == 404).then_some(())
    });
    assert!(!folder.at("lost").exists());
}

/// Folders with snapshots in any of their directories, whoever made them, can be deleted.
pub fn snapshots_do_not_keep_a_folder(scene: &Scene) {
    let server = &scene.server;
    let folder = scene.limited(20 * MIB);
    scene.put(&folder, "a/b/f", MIB, Pattern(9));
    for dir in ["", "a", "a/b"] {
        for name in ["mine", "theirs"] {
            let snapshot = folder.at(dir).join(".snap").join(name);
            fs::create_dir(snapshot).expect("a snapshot");
        }
    }
    let listed = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": "."});
    let listed = server.ask("POST", "/folder/file/list", &listed).expect(200);
    assert!(!listed.text().contains(".snap"), "{listed}");
    let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": ".snap/stolen"});
    let _ = server.ask("POST", "/folder/file/mkdir", &body).expect(422);
    let scope = folder.path.ancestors().nth(3).expect("a scope").to_owned();
    scene.delete(&folder);
    wait::until("folder and snapshots are gone", TASK_BOUND, || {
        names(&scope).is_empty().then_some(())
    });
}

/// States are kept by shared extents, brought back in place and as new, and removed.
pub fn states_come_back(scene: &Scene) {
    let folder = scene.limited(60 * MIB);
    scene.put(&folder, "d/f", 8 * MIB, Pattern(15));
    let kept = picture(&folder.path);
    let with = |more: Value| {
        let mut body = json!({"volume": VOLUME, "vfid": folder.vfid, "name": "one"});
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        body
    };
    let (state, text) = scene.task("/snapshot/create", &with(json!({})));
    assert_eq!(state, "done", "{text}");
    scene.put(&folder, "d/f", MIB, Pattern(16));
    folder.write("more", b"more");
    let new = Folder::unmade(&scene.server);
    scene.limit(&new, 30 * MIB);
    for (to, more) in [(&new, json!({"dst_vfid": new.vfid})), (&folder, json!({}))] {
        let (state, text) = scene.task("/snapshot/restore", &with(more));
        assert_eq!(state, "done", "{text}");
        let seen = picture(&to.path).replace(to.path.to_str().expect("plain"), "");
        let want = kept.replace(folder.path.to_str().expect("plain"), "");
        assert!(seen == want, "the state is another");
    }
    let (state, text) = scene.task("/snapshot/delete", &with(json!({})));
    assert_eq!(state, "done", "{text}");
}

/// Bringing a state back in place, killed while its entries change places: the next run of the
/// task, which begins with the server, ends it.
pub fn a_killed_restore_is_finished(scene: &mut Scene) {
    let folder = scene.limited(100 * MIB);
    const ENTRIES: usize = 1500;
    for n in 0..ENTRIES {
        fs::write(folder.at(&format!("old-{n:04}")), format!("{n}")).expect("a file");
    }
    folder.write("d/e/f", b"deep");
    let kept = picture(&folder.path);
    let body = json!({"volume": VOLUME, "vfid": folder.vfid, "name": "one"});
    let (state, text) = scene.task("/snapshot/create", &body);
    assert_eq!(state, "done", "{text}");
    for n in 0..ENTRIES {
        let name = format!("old-{n:04}");
        fs::rename(folder.at(&name), folder.at(&format!("new-{n:04}"))).expect("renamed");
    }
    folder.write("d/e/f", b"changed");
    let begun = scene
        .server
        .ask("POST", "/snapshot/restore", &body)
        .expect(202);
    let id = begun.json()["bgtask_id"].clone();
    // In the middle of the exchange: some entries of the present state are gone from their place.
    wait::until("entries change places", TASK_BOUND, || {
        let left = names(&folder.path).len();
        (left < ENTRIES - 20).then_some(())
    });
    scene.server.kill();
    let half = picture(&folder.path);
    assert!(half != kept, "the kill came too late to prove anything");
    scene.server.restart();
    wait::until("the task goes on by itself", TASK_BOUND, || {
        let task = scene
            .server
            .ask("GET", "/task", &json!({"bgtask_id": id}))
            .json();
        (task["state"] == "done").then_some(())
    });
    assert!(picture(&folder.path) == kept, "the state is another");
    let scope = folder.path.ancestors().nth(3).expect("a scope");
    let hidden = names(scope)
        .into_iter()
        .filter(|name| name.starts_with(".clone-"));
    assert_eq!(hidden.count(), 0);
}
