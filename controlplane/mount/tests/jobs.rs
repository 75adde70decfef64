//! Goal: real mounts, owners, mount tables and deletions, over the socket, as root.
//! Method: a keeper on a thread, a client in a runtime, a temporary directory as the volume;
//! tmpfs and bind mounts, which every kernel has. Without root each test says that it was skipped.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proxy_mount::{Client, ClientError, Policy, Task};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(10);

struct Scene {
    dir: TempDir,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Scene {
    /// `None` without root: nothing here works then.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            proxy_testkit::skip("only root can mount");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["volume", "shared", "outside"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("fstab"), "# table\n").unwrap();
        let texts = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        let policy = Policy {
            roots: vec![dir.path().join("volume")],
            limited: vec![dir.path().join("volume")],
            fs_types: texts(&["tmpfs", "bind"]),
            options: texts(&["ro", "size"]),
            sources: vec![dir.path().join("shared").display().to_string()],
            fstab: dir.path().join("fstab"),
            owner: (54321, 54322),
        };
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || proxy_mount::service::serve(theirs, &policy));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let client = runtime.block_on(async { Client::over(ours).unwrap() });
        Some(Self {
            dir,
            client,
            runtime,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, task: Task) -> Result<String, ClientError> {
        self.runtime.block_on(self.client.run(task, LIMIT))
    }

    fn mount(&self, at: &str, fs_type: &str, source: &str, options: &str) -> Task {
        Task::Mount {
            target: self.path(at),
            location: source.to_owned(),
            fs_type: fs_type.to_owned(),
            options: Some(options.to_owned()),
            edit_fstab: true,
            fstab: None,
        }
    }

    fn umount(&self, at: &str) -> Result<String, ClientError> {
        self.run(Task::Umount {
            target: self.path(at),
            edit_fstab: true,
            fstab: None,
        })
    }

    fn table(&self) -> String {
        fs::read_to_string(self.path("fstab")).unwrap()
    }
}

/// Options of what is mounted at a path, as the kernel tells them.
fn mounted(at: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table
        .lines()
        .rfind(|line| line.split(' ').nth(4) == at.to_str())?;
    line.split(' ').nth(5).map(str::to_owned)
}

impl Drop for Scene {
    fn drop(&mut self) {
        // A test that failed half-way must not leave mounts behind.
        for name in ["volume/a", "volume"] {
            let _ = rustix::mount::unmount(self.path(name), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

#[test]
fn projects_are_limited_on_volumes_that_have_them_alone() {
    let Some(scene) = Scene::new() else { return };
    for (at, project, denied) in [
        ("volume", 7, false),
        ("volume", 0, true),
        ("shared", 7, true),
        ("volume/../shared", 7, true),
    ] {
        let target = scene.path(at);
        let limit_bytes = 1 << 20;
        let done = scene.run(Task::SetProjectLimit {
            target,
            project,
            limit_bytes,
        });
        match done {
            Err(ClientError::Refused(text)) if denied => {
                assert!(text.starts_with("denied: "), "{text}");
            }
            // A temporary directory has no quotas: the kernel's own word for it comes through.
            Ok(text) if !denied => assert!(text.contains("\"errno\":"), "{text}"),
            done => panic!("{at} {project}: {done:?}"),
        }
    }
}

#[test]
fn a_mount_is_made_owned_and_taken_back() {
    let Some(scene) = Scene::new() else { return };
    let at = scene.path("volume/a");
    let memory = scene.mount("volume/a", "tmpfs", "memory", "size=1m");
    assert_eq!(scene.run(memory.clone()).unwrap(), "");
    let options = mounted(&at).unwrap();
    assert!(
        options.contains("nosuid") && options.contains("nodev"),
        "{options}"
    );
    let line = format!("# table\nmemory {} tmpfs size=1m 0 0\n", at.display());
    assert_eq!(scene.table(), line);
    // Again: nothing is mounted twice.
    assert!(scene.run(memory).unwrap().contains("already"));
    let owner = |uid, gid| Task::Chown {
        target: at.clone(),
        uid,
        gid,
    };
    scene.run(owner(54321, 54322)).unwrap();
    let found = fs::metadata(&at).unwrap();
    assert_eq!((found.uid(), found.gid()), (54321, 54322));
    assert!(
        scene
            .run(owner(0, 0))
            .unwrap_err()
            .to_string()
            .contains("denied")
    );
    // What is in use stays, and says so.
    let held = fs::File::create(at.join("held")).unwrap();
    assert!(matches!(
        scene.umount("volume/a"),
        Err(ClientError::Busy(_))
    ));
    drop(held);
    assert_eq!(scene.umount("volume/a").unwrap(), "");
    assert_eq!(mounted(&at), None);
    assert_eq!(scene.table(), "# table\n");
    assert!(scene.umount("volume/a").unwrap().contains("is not mounted"));
}

#[test]
fn a_directory_is_bound_read_only_over_the_volume_itself() {
    let Some(scene) = Scene::new() else { return };
    let shared = scene.path("shared").display().to_string();
    scene
        .run(scene.mount("volume", "bind", &shared, "ro"))
        .unwrap();
    let options = mounted(&scene.path("volume")).unwrap();
    for option in ["ro", "nosuid", "nodev"] {
        assert!(options.split(',').any(|one| one == option), "{options}");
    }
    scene.umount("volume").unwrap();
    assert_eq!(mounted(&scene.path("volume")), None);
}

#[test]
fn what_is_not_allowed_changes_nothing() {
    let Some(scene) = Scene::new() else { return };
    let outside = scene.path("outside");
    symlink(&outside, scene.path("volume/link")).unwrap();
    symlink(&outside, scene.path("shared/link")).unwrap();
    let link = scene.path("shared/link").display().to_string();
    for (task, says) in [
        (scene.mount("outside/a", "tmpfs", "m", ""), "not below"),
        (
            scene.mount("volume/../outside", "tmpfs", "m", ""),
            "plain absolute",
        ),
        (scene.mount("volume/link", "tmpfs", "m", ""), "mount at"),
        (scene.mount("volume/link/a", "tmpfs", "m", ""), "find"),
        (scene.mount("volume/no/a", "tmpfs", "m", ""), "find"),
        (
            scene.mount("volume/a", "ext4", "m", ""),
            "server.helper.fs-types",
        ),
        (
            scene.mount("volume/a", "tmpfs", "m", "suid"),
            "mount option suid",
        ),
        (
            scene.mount("volume/a", "bind", "/etc", ""),
            "server.helper.sources",
        ),
        (scene.mount("volume/a", "bind", &link, ""), "mount "),
    ] {
        let error = scene.run(task.clone()).unwrap_err().to_string();
        assert!(error.contains(says), "{task:?}: {error}");
    }
    assert_eq!(scene.table(), "# table\n");
    let none: Vec<_> = fs::read_dir(&outside).unwrap().collect();
    assert!(none.is_empty(), "{none:?}");
    assert_eq!(mounted(&outside), None);
}

#[test]
fn deletions_stay_below_the_volume() {
    let Some(scene) = Scene::new() else { return };
    let kept = scene.path("outside/kept");
    fs::write(&kept, "kept").unwrap();
    for deep in ["a/b/c/d", "a/e/f"] {
        fs::create_dir_all(scene.path("volume").join(deep)).unwrap();
        fs::write(scene.path("volume").join(deep).join("file"), "x").unwrap();
    }
    symlink(scene.path("outside"), scene.path("volume/a/b/link")).unwrap();
    symlink(scene.path("outside"), scene.path("volume/link")).unwrap();
    let delete = |name: &str| {
        scene.run(Task::DeletePath {
            target: scene.path(name),
        })
    };
    assert!(delete("volume/link/kept").is_err());
    assert!(delete("volume").is_err());
    for name in ["volume/a", "volume/a", "volume/link", "volume/missing"] {
        delete(name).unwrap();
        assert!(!scene.path(name).exists(), "{name}");
    }
    assert_eq!(fs::read_to_string(kept).unwrap(), "kept");
}

#[test]
fn many_jobs_get_their_own_answers() {
    let Some(scene) = Scene::new() else { return };
    for number in 0..12 {
        fs::create_dir(scene.path(&format!("volume/{number}"))).unwrap();
    }
    let all = (0..12).map(|number| {
        let target = if number % 2 == 0 {
            scene.path(&format!("volume/{number}"))
        } else {
            scene.path(&format!("outside/{number}"))
        };
        let task = Task::DeletePath { target };
        let client = scene.client.clone();
        scene
            .runtime
            .spawn(async move { (number, client.run(task, LIMIT).await) })
    });
    for job in all.collect::<Vec<_>>() {
        let (number, done) = scene.runtime.block_on(job).unwrap();
        match done {
            Ok(text) => assert_eq!((number % 2, text.as_str()), (0, "")),
            Err(error) => {
                assert_eq!(number % 2, 1);
                let own = format!("outside/{number}");
                assert!(error.to_string().contains(&own), "{error}");
            }
        }
    }
}

#[test]
fn a_client_without_a_keeper_says_so() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let error = runtime.block_on(async {
        let client = Client::over(ours).unwrap();
        drop(theirs);
        client.run(Task::Ping, LIMIT).await.unwrap_err()
    });
    assert!(matches!(error, ClientError::Gone(_)), "{error}");
}
