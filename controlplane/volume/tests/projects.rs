//! Goal: limits reach the kernel as they were meant, whatever their size; and whatever interrupts
//! the making of a quota scope, none is left that says it has a limit and has none.
//! Method: real project quotas of XFS and ext4, in a guest, where this test runs again. The
//! kernel's own view is asked for twice: by quotactl(2), and by statvfs(2), which shows a project's
//! limit as the size. Interruptions are made by a right that fails at the n-th call, and by the
//! states that a crash between two steps leaves.
//!
//! Source: quotactl(2), xfs(5), ext4(5); `docs/semantics.md#quotas`.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use proxy_core::id::QuotaScopeId;
use proxy_ring::quota::{self, LIMIT_BYTES_MAX, ProjectTag};
use proxy_testkit::data::Random;
use proxy_testkit::testbed;
use proxy_volume::{
    Limits, OwnRight, ProjectQuota, QuotaPrivilege, ScopeQuota, Spec, Volume, VolumeError, Volumes,
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use serde_json::json;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const BLOCK: u64 = 4096;

/// The right of this process, until so many calls were made.
struct Failing(AtomicI64);

impl Failing {
    fn count(&self) -> io::Result<()> {
        match self.0.fetch_sub(1, Ordering::Relaxed) {
            1.. => Ok(()),
            _ => Err(io::Error::from_raw_os_error(5)),
        }
    }
}

impl QuotaPrivilege for Failing {
    fn project_quota(&self, place: BorrowedFd<'_>, project: u32) -> io::Result<ProjectQuota> {
        self.count()?;
        OwnRight.project_quota(place, project)
    }

    fn next_project_quota(
        &self,
        place: BorrowedFd<'_>,
        project: u32,
    ) -> io::Result<Option<ProjectQuota>> {
        // One call per project that there is: all of them, or none.
        if self.0.load(Ordering::Relaxed) == 0 {
            return Err(io::Error::from_raw_os_error(5));
        }
        OwnRight.next_project_quota(place, project)
    }

    fn set_project_limit(
        &self,
        place: BorrowedFd<'_>,
        project: u32,
        limit_bytes: u64,
    ) -> io::Result<()> {
        self.count()?;
        OwnRight.set_project_limit(place, project, limit_bytes)
    }
}

struct Scene {
    mount: PathBuf,
    /// Whether lines are kept in project files.
    files: bool,
}

impl Scene {
    fn volume(&self, right: Arc<dyn QuotaPrivilege>) -> Arc<Volume> {
        let files = self.mount.join("files");
        let options = json!({
            "lock_file_path": self.mount.join("lock"),
            "maintain-project-files": self.files,
            "project-files-dir": files,
        });
        let spec = Spec {
            name: "v".to_owned(),
            backend: "xfs".to_owned(),
            path: self.mount.join("volume"),
            fsprefix: ".".to_owned(),
            options: options.as_object().unwrap().clone(),
        };
        let right = |_: &Spec| Arc::clone(&right);
        let volumes = Volumes::with_privilege(vec![spec], &Limits::default(), &right).unwrap();
        volumes.find("v").unwrap()
    }

    fn dir(&self, scope: QuotaScopeId) -> PathBuf {
        self.mount.join("volume").join(scope.dir_name())
    }
}

fn scope(number: u32) -> QuotaScopeId {
    QuotaScopeId::parse(&format!("user:11111111-2222-3333-4444-{number:012x}")).unwrap()
}

fn heed_quotas() {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::SYS_RESOURCE);
    set_capabilities(None, sets).unwrap();
}

fn tag(dir: &Path, project: u32, inherited: bool) {
    let tag = ProjectTag { project, inherited };
    quota::set_project_tag(File::open(dir).unwrap(), tag).unwrap();
}

/// A limit, as quotactl(2) and as statvfs(2) tell it.
fn limits_arrive(mount: &Path) {
    let dir = mount.join("numbers");
    fs::create_dir(&dir).unwrap();
    tag(&dir, 4711, true);
    let place = File::open(&dir).unwrap();
    let fs = rustix::fs::fstatvfs(File::open(mount).unwrap()).unwrap();
    let size = fs.f_frsize * fs.f_blocks;
    let mut random = Random::printed("limits");
    let edges = [
        0,
        1,
        511,
        512,
        513,
        1023,
        1024,
        1025,
        4095,
        4096,
        4097,
        1 << 32,
        1 << 41,
    ];
    let huge = [
        1 << 50,
        (1 << 62) + 1,
        i64::MAX as u64,
        LIMIT_BYTES_MAX,
        u64::MAX - 511,
        u64::MAX,
    ];
    let drawn: Vec<u64> = (0..200)
        .map(|_| random.draw() >> random.below(64))
        .collect();
    for asked in edges.into_iter().chain(huge).chain(drawn) {
        quota::set_project_limit(&place, 4711, asked).unwrap();
        let told = quota::project_quota(&place, 4711).unwrap().limit_bytes;
        let least = asked.min(LIMIT_BYTES_MAX);
        let most = if asked == 0 { 0 } else { least + BLOCK - 1 };
        assert!(
            (least..=most).contains(&told),
            "{asked} bytes became {told}"
        );
        let seen = rustix::fs::fstatvfs(&place).unwrap();
        let seen = seen.f_frsize * seen.f_blocks;
        let want = match told {
            // A directory has a block already; less than one is shown as the whole.
            0..BLOCK => continue,
            told if told < size => told - told % BLOCK,
            _ => size,
        };
        assert_eq!(seen, want, "{asked} bytes, {told} by quotactl");
    }
    for _ in 0..6 {
        let asked = 64 * KIB + random.below(2 * MIB);
        // XFS wants more room for a new name than that name takes.
        quota::set_project_limit(&place, 4711, 0).unwrap();
        let file = File::create(dir.join("filler")).unwrap();
        quota::set_project_limit(&place, 4711, asked).unwrap();
        let mut taken = 0;
        while file.write_all_at(&[1; BLOCK as usize], taken).is_ok() && file.sync_all().is_ok() {
            taken += BLOCK;
            assert!(taken <= asked + BLOCK, "{asked} bytes hold {taken}");
        }
        assert!(asked <= taken + 64 * KIB, "{asked} bytes hold only {taken}");
        drop(file);
        fs::remove_file(dir.join("filler")).unwrap();
    }
}

/// What must hold after a second try: the scope is whole.
async fn is_whole(scene: &Scene, id: QuotaScopeId, what: &str) {
    let volume = scene.volume(Arc::new(OwnRight));
    match volume.create_scope(id, Some(3 * MIB)).await {
        Ok(()) | Err(VolumeError::ScopeExists(_)) => {}
        Err(error) => panic!("{what}: {error}"),
    }
    let told = volume
        .describe_scope(id)
        .await
        .unwrap()
        .expect("it is there");
    assert_eq!(told.limit_bytes, Some(3 * MIB), "{what}");
    // What lies in it counts, and nothing of others does.
    let dir = scene.dir(id);
    fs::create_dir_all(dir.join("d")).unwrap();
    fs::write(dir.join("d/f"), vec![1; MIB as usize]).unwrap();
    rustix::fs::syncfs(File::open(&dir).unwrap()).unwrap();
    let used = volume
        .describe_scope(id)
        .await
        .unwrap()
        .unwrap()
        .used_bytes
        .unwrap();
    assert!((MIB..2 * MIB).contains(&used), "{what}: {used}");
    let over = File::create(dir.join("d/g")).unwrap();
    let over = over
        .write_all_at(&vec![1; 3 * MIB as usize], 0)
        .and_then(|()| over.sync_all());
    assert!(over.is_err(), "{what}: the limit does not hold");
}

/// A right that fails at any of its calls, in making and in taking over.
async fn refusals_leave_nothing_that_lies(scene: &Scene, first: u32) {
    let mut number = first;
    for taken_over in [false, true] {
        for calls in 0.. {
            number += 1;
            let id = scope(number);
            if taken_over {
                fs::create_dir_all(scene.dir(id).join("a")).unwrap();
                fs::write(scene.dir(id).join("a/b"), "there before").unwrap();
            }
            let right = Arc::new(Failing(AtomicI64::new(calls)));
            // The look at the volume when it is opened is not what is to fail.
            let volume = scene.volume(Arc::<Failing>::clone(&right));
            right.0.store(1_000_000, Ordering::Relaxed);
            volume.open().await.unwrap();
            right.0.store(calls, Ordering::Relaxed);
            let made = volume.create_scope(id, Some(3 * MIB)).await;
            let told = scene
                .volume(Arc::new(OwnRight))
                .describe_scope(id)
                .await
                .unwrap();
            let what = format!("{made:?} after {calls} calls, {told:?}");
            let limit = told.and_then(|told: ScopeQuota| told.limit_bytes);
            assert!(limit.is_none_or(|limit| limit == 3 * MIB), "{what}");
            assert!(made.is_err() || limit.is_some(), "{what}");
            is_whole(scene, id, &what).await;
            if made.is_ok() {
                break;
            }
            assert!(calls < 20, "{what}");
        }
    }
}

/// What it is, and how it is made of a directory's place and a number.
type State<'a> = (&'static str, &'a dyn Fn(&Path, u32));

/// What a crash leaves between two steps, made by hand.
async fn halves_are_made_whole(scene: &Scene, first: u32) {
    let volume = scene.volume(Arc::new(OwnRight));
    volume.open().await.unwrap();
    let root = File::open(scene.mount.join("volume")).unwrap();
    let states: [State<'_>; 6] = [
        ("the number has its limit, nothing else", &|_, project| {
            quota::set_project_limit(&root, project, 3 * MIB).unwrap();
        }),
        ("a plain directory", &|dir, _| fs::create_dir(dir).unwrap()),
        (
            "a plain directory, a number with a limit",
            &|dir, project| {
                quota::set_project_limit(&root, project, 3 * MIB).unwrap();
                fs::create_dir(dir).unwrap();
            },
        ),
        ("a tag, not inherited, and no limit", &|dir, project| {
            fs::create_dir(dir).unwrap();
            tag(dir, project, false);
        }),
        ("a tag, not inherited, another limit", &|dir, project| {
            quota::set_project_limit(&root, project, 77 * MIB).unwrap();
            fs::create_dir(dir).unwrap();
            tag(dir, project, false);
        }),
        ("half a tree is tagged", &|dir, project| {
            quota::set_project_limit(&root, project, 3 * MIB).unwrap();
            fs::create_dir_all(dir.join("a/b")).unwrap();
            fs::create_dir_all(dir.join("c/d")).unwrap();
            tag(dir, project, false);
            tag(&dir.join("a"), project, true);
            tag(&dir.join("a/b"), project, true);
        }),
    ];
    for (n, (what, make)) in (1..).zip(states) {
        let id = scope(first + n);
        make(&scene.dir(id), 5000 + first + n);
        let told = volume.describe_scope(id).await.unwrap();
        let limit = told.and_then(|told| told.limit_bytes);
        assert_eq!(limit, None, "{what}: it says that it has a limit");
        is_whole(scene, id, what).await;
    }
}

fn all(mount: &Path) {
    heed_quotas();
    limits_arrive(mount);
    for dir in ["volume", "files"] {
        fs::create_dir(mount.join(dir)).unwrap();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for (files, first) in [(true, 0), (false, 1000)] {
        let scene = Scene {
            mount: mount.to_owned(),
            files,
        };
        runtime.block_on(refusals_leave_nothing_that_lies(&scene, first));
        runtime.block_on(halves_are_made_whole(&scene, first + 500));
    }
    // Each scope has a number of its own.
    let mut numbers: Vec<u32> = fs::read_dir(mount.join("volume"))
        .unwrap()
        .map(|dir| File::open(dir.unwrap().path()).unwrap())
        .map(|dir| quota::project_tag(dir.as_fd()).unwrap().project)
        .collect();
    let scopes = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), scopes);
}

fn on(bed: &str, name: &str) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests");
    testbed::on(&tests, bed, &[], name, all);
}

#[test]
fn limits_and_scopes_on_xfs() {
    on("xfs-prjquota", "limits_and_scopes_on_xfs");
}

#[test]
fn limits_and_scopes_on_ext4() {
    on("ext4-prjquota", "limits_and_scopes_on_ext4");
}
