//! Goal: the state file is made whole, has one user, and is never taken for what it is not.
//! Method: files of every kind at the path of the store; damage from a printed seed.
#![allow(clippy::unwrap_used)]

#[path = "support/random.rs"]
mod random;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Barrier;

use proxy_core::id::{SessionId, VFolderId};
use proxy_core::relpath::RelPath;
use proxy_core::units::Offset;
use proxy_state::{EmbeddedStore, OpenError, Session, SessionState, Sessions, StoreOptions};
use random::Random;
use redb::TableDefinition;

fn open(path: &Path) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(path, StoreOptions::default())
}

fn sessions(count: u64) -> Vec<Session> {
    let session = |at: u64| Session {
        id: SessionId::random(),
        volume: "local".into(),
        vfid: VFolderId::parse("aabbccddeeff00112233445566778899").unwrap(),
        relpath: RelPath::parse(&format!("some/folder/file-{at}.bin")).unwrap(),
        size: at,
        offset: Offset::ZERO,
        ranges: Default::default(),
        pieces: Default::default(),
        metadata: None,
        ino: at,
        dev: 8,
        exp: at,
        state: SessionState::Open,
    };
    (0..count).map(session).collect()
}

#[track_caller]
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_new_file_is_private_and_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    // What a crash in the middle of making it leaves.
    fs::write(dir.path().join("state.redb.new"), "half").unwrap();
    let store = open(&path).unwrap();
    assert_eq!(store.path(), path);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    drop(store);
    assert_eq!(names(dir.path()), ["state.redb"]);
}

#[test]
fn a_file_that_others_may_read_is_closed_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    drop(open(&path).unwrap());
    fs::set_permissions(&path, Permissions::from_mode(0o664)).unwrap();
    drop(open(&path).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn a_file_in_use_is_told_with_its_user() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let first = open(&path).unwrap();
    match open(&path).err().unwrap() {
        OpenError::InUse {
            path: named,
            owner_pid,
        } => {
            assert_eq!(named, path);
            // Where the kernel tells at all, it tells the truth.
            if let Some(pid) = owner_pid {
                assert_eq!(pid, std::process::id());
            }
        }
        other => panic!("{other}"),
    }
    drop(first);
    drop(open(&path).unwrap());
}

#[test]
fn of_two_starts_at_once_one_wins() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let (start, end) = (Barrier::new(4), Barrier::new(4));
        let opened = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        let opened = open(&path);
                        end.wait();
                        opened.map(drop)
                    })
                })
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect::<Vec<_>>()
        });
        let won = opened.iter().filter(|opened| opened.is_ok()).count();
        assert_eq!(won, 1, "{opened:?}");
        for refused in opened.into_iter().filter_map(Result::err) {
            assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
        }
    }
}

/// What is at the path, and a part of the error's text; the path must stay as it was.
#[track_caller]
fn check_refused(make: impl Fn(&Path), want: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    make(&path);
    let before = fs::read(&path).ok();
    let error = open(&path).err().expect("is refused");
    let text = error.to_string();
    assert!(text.contains(want), "{text:?} lacks {want:?}");
    assert!(
        text.contains("state.redb"),
        "{text:?} does not name the file"
    );
    assert_eq!(fs::read(&path).ok(), before, "changed: {want}");
}

fn foreign(path: &Path, format: Option<u64>) {
    let database = redb::Database::create(path).unwrap();
    let txn = database.begin_write().unwrap();
    if let Some(format) = format {
        let meta: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
        txn.open_table(meta)
            .unwrap()
            .insert("format", format)
            .unwrap();
    }
    txn.commit().unwrap();
}

#[test]
fn what_is_no_state_file_is_refused_and_left_alone() {
    check_refused(
        |path| fs::write(path, "").unwrap(),
        "damaged (the file is empty)",
    );
    check_refused(|path| fs::write(path, "hello").unwrap(), "damaged");
    check_refused(|path| fs::write(path, vec![0; 100_000]).unwrap(), "damaged");
    check_refused(
        |path| fs::write(path, vec![b'x'; 100_000]).unwrap(),
        "damaged",
    );
    check_refused(|path| fs::create_dir(path).unwrap(), "open state file");
}

#[test]
fn a_database_that_is_not_ours_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    for (format, want) in [
        (None, "not a state file"),
        (Some(2), "format 2"),
        (Some(1), ""),
    ] {
        let _ = fs::remove_file(&path);
        foreign(&path, format);
        match open(&path) {
            Ok(_) => assert_eq!(want, ""),
            Err(error) => {
                assert!(
                    !want.is_empty() && error.to_string().contains(want),
                    "{error}"
                );
                assert!(path.exists());
            }
        }
    }
}

#[test]
fn a_missing_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing/state.redb");
    let text = open(&path).err().unwrap().to_string();
    assert!(text.contains("missing"), "{text:?}");
    assert!(text.contains("No such file"), "{text:?}");
}

#[tokio::test]
async fn damage_is_noticed_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.redb");
    let sessions = sessions(300);
    {
        let store = open(&path).unwrap();
        for session in &sessions {
            store.create(session.clone()).await.unwrap();
        }
        store.flush().await.unwrap();
    }
    let sound = fs::read(&path).unwrap();
    let mut noticed = 0;
    let first = random::seed();
    for seed in first..first + 200 {
        let mut random = Random(seed);
        let mut damaged = sound.clone();
        match random.below(3) {
            0 => damaged.truncate(random.below(sound.len() as u64) as usize),
            1 => {
                let at = random.below(sound.len() as u64) as usize;
                damaged[at] ^= 1 << random.below(8);
            }
            _ => {
                let at = random.below(sound.len() as u64 / 4096) as usize * 4096;
                damaged[at..at + 4096].fill(0);
            }
        }
        fs::write(&path, &damaged).unwrap();
        match open(&path) {
            Ok(store) => {
                for want in &sessions {
                    let got = store.look(want.id).await.unwrap();
                    assert_eq!(got.as_ref(), Some(want), "seed {seed}");
                }
            }
            Err(OpenError::Damaged { .. }) => {
                noticed += 1;
                assert!(
                    fs::read(&path).unwrap() == damaged,
                    "seed {seed}: file was changed"
                );
            }
            Err(other) => panic!("seed {seed}: {other}"),
        }
    }
    eprintln!("{noticed} of 200 damages noticed, the others harmless");
    assert!(noticed > 0);
}
