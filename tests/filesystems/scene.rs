//! A server on a file system with quotas, and what every test there says to it.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use proxy_testkit::data::Pattern;
use proxy_testkit::server::VOLUME;
use proxy_testkit::tus::Upload;
use proxy_testkit::{Folder, Response, Server, Settings, wait};
use serde_json::{Value, json};

pub const MIB: u64 = 1 << 20;
pub const TASK_BOUND: Duration = Duration::from_secs(60);

/// Who sets limits and tells usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quotas {
    /// The server, as this volume.
    Volume(&'static str),
    /// The program `btrfs`: a scope is a subvolume.
    Subvolumes,
}

/// How a directory in a folder gets a quota of its own, which a user's own tools may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Realms {
    /// Another project, by `xfs_quota` (the mount point, and below it the volume).
    Xfs(&'static str),
    /// Another project, by `chattr`.
    Ext4,
    /// An attribute.
    Ceph,
    /// A subvolume.
    Btrfs,
}

pub struct Scene {
    pub server: Server,
    pub quotas: Quotas,
    pub realms: Realms,
    pub mount: PathBuf,
    task: Cell<usize>,
}

/// What the server does for itself: ext4 lets this right write past quotas.
pub fn heed_quotas() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut sets = capabilities(None).expect("own capabilities");
    sets.effective.remove(CapabilitySet::SYS_RESOURCE);
    set_capabilities(None, sets).expect("fewer capabilities");
}

/// Runs a program of the operator's.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    let command = command
        .args(args)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"));
    let ended = command
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{program} {args:?}: {said}");
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

/// A server whose first volume is a directory on the file system.
pub fn server_on(backend: &'static str, mount: &Path, tables: &str) -> Server {
    let volume = mount.join("volume");
    fs::create_dir(&volume).expect("a directory for the volume");
    let settings = Settings {
        volume: Some((backend, volume)),
        tables: tables.to_owned(),
        ..Settings::default()
    };
    Server::start_with(super::PROGRAM, settings)
}

impl Scene {
    pub fn new(server: Server, quotas: Quotas, realms: Realms, mount: &Path) -> Self {
        Self {
            server,
            quotas,
            realms,
            mount: mount.to_owned(),
            task: Cell::new(0),
        }
    }

    fn scope_dir(&self, folder: &Folder) -> PathBuf {
        folder.path.ancestors().nth(3).expect("a scope").to_owned()
    }

    pub fn limit(&self, folder: &Folder, bytes: u64) {
        match self.quotas {
            Quotas::Volume(volume) => {
                let options = json!({"limit_bytes": bytes});
                let body = json!({"volume": volume, "qsid": folder.qsid, "options": options});
                let _ = self.server.ask("PATCH", "/quota-scope", &body).expect(204);
            }
            Quotas::Subvolumes => {
                let dir = self.scope_dir(folder);
                let dir = dir.to_str().expect("a plain path");
                if !Path::new(dir).exists() {
                    run("btrfs", &["subvolume", "create", dir]);
                }
                run("btrfs", &["qgroup", "limit", &bytes.to_string(), dir]);
            }
        }
    }

    /// Used bytes and the limit.
    pub fn describe(&self, folder: &Folder) -> (Option<u64>, Option<u64>) {
        match self.quotas {
            Quotas::Volume(volume) => {
                let body = json!({"volume": volume, "qsid": folder.qsid});
                let told = self
                    .server
                    .ask("GET", "/quota-scope", &body)
                    .expect(200)
                    .json();
                (told["used_bytes"].as_u64(), told["limit_bytes"].as_u64())
            }
            Quotas::Subvolumes => {
                let dir = self.scope_dir(folder);
                let dir = dir.to_str().expect("a plain path");
                run("sync", &["-f", dir]);
                let told = run("btrfs", &["qgroup", "show", "-ref", "--raw", dir]);
                let row = told.lines().last().expect("a row");
                let row: Vec<_> = row.split_whitespace().collect();
                (row[1].parse().ok(), row[3].parse().ok())
            }
        }
    }

    pub fn create(&self, folder: &Folder) {
        let body = json!({"volume": VOLUME, "vfid": folder.vfid});
        let _ = self.server.ask("POST", "/folder/create", &body).expect(204);
    }

    /// A folder in a new scope with a limit.
    pub fn limited(&self, bytes: u64) -> Folder {
        let folder = Folder::unmade(&self.server);
        self.limit(&folder, bytes);
        self.create(&folder);
        folder
    }

    pub fn ask_upload(&self, folder: &Folder, name: &str, size: u64) -> Response {
        let body = json!({"volume": VOLUME, "vfid": folder.vfid, "relpath": name, "size": size});
        self.server.ask("POST", "/folder/file/upload", &body)
    }

    pub fn put(&self, folder: &Folder, name: &str, size: u64, pattern: Pattern) {
        let upload = Upload::begin(&self.server, folder, name, size);
        let answer = upload.patch(0, &pattern.bytes(0, size));
        assert_eq!(answer.status, 204, "{answer}");
    }

    /// CephFS counts some seconds late, NFS when the server was told; the others at once.
    pub fn counted(&self, folder: &Folder, bytes: u64) {
        wait::until("usage is counted", TASK_BOUND, || {
            (bytes <= self.describe(folder).0?).then_some(())
        });
    }

    /// Fills a scope to its limit, beside the server. What the file system takes late is counted.
    pub fn fill(&self, folder: &Folder) {
        heed_quotas();
        let filler = fs::File::create(folder.at("filler")).expect("a filler");
        let limit = self.describe(folder).1.expect("a limit");
        if self.realms == Realms::Ceph {
            // Its client would let more through before it has counted.
            let whole = vec![1; limit as usize];
            rustix::io::pwrite(&filler, &whole, 0).expect("not counted yet");
            return filler.sync_all().expect("not counted yet");
        }
        let mut step = MIB / 4;
        let mut at = 0;
        while step >= 4096 && at < 2 * limit {
            let written = rustix::io::pwrite(&filler, &vec![1; step as usize], at);
            match written {
                Ok(n) if n as u64 == step && filler.sync_all().is_ok() => at += step,
                _ => step /= 2,
            }
        }
        assert!(at < 2 * limit, "the scope takes more than its limit: {at}");
    }

    /// A directory in the folder that has a quota of its own.
    pub fn realm(&self, folder: &Folder, name: &str) {
        let dir = folder.at(name);
        let text = dir.to_str().expect("a plain path");
        if self.realms != Realms::Btrfs {
            fs::create_dir(&dir).expect("a directory");
        }
        match self.realms {
            Realms::Xfs(mount) => {
                let below = folder.path.strip_prefix(&self.mount).expect("below");
                let there = Path::new(mount).join(below).join(name);
                let project = format!("project -s -p {} 77001", there.display());
                run("xfs_quota", &["-x", "-c", &project, mount]);
            }
            Realms::Ext4 => drop(run("chattr", &["+P", "-p", "77001", text])),
            Realms::Ceph => {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(&dir, c"ceph.quota.max_bytes", b"100000000", flags)
                    .expect("a quota");
            }
            Realms::Btrfs => drop(run("btrfs", &["subvolume", "create", text])),
        }
    }

    pub fn delete(&self, folder: &Folder) {
        let body = json!({"volume": VOLUME, "vfid": folder.vfid});
        let _ = self.server.ask("POST", "/folder/delete", &body).expect(202);
    }

    /// Begins a background task and gives its end: its state and what it says.
    pub fn task(&self, path: &str, body: &Value) -> (String, String) {
        self.task.set(self.task.get() + 1);
        let begun = self.server.ask("POST", path, body);
        assert!(matches!(begun.status, 200 | 202), "{begun}");
        let id = begun.json()["bgtask_id"].clone();
        wait::until("the end of the task", TASK_BOUND, || {
            let task = self
                .server
                .ask("GET", "/task", &json!({"bgtask_id": id}))
                .json();
            let state = task["state"].as_str()?.to_owned();
            let text = task["message"].as_str().unwrap_or_default().to_owned();
            (!["registered", "running"].contains(&state.as_str())).then_some((state, text))
        })
    }

    pub fn clone(&self, from: &Folder, to: &Folder) -> (String, String) {
        let body = json!({
            "src_volume": VOLUME, "src_vfid": from.vfid,
            "dst_volume": VOLUME, "dst_vfid": to.vfid,
        });
        self.task("/folder/clone", &body)
    }
}

/// The one answer of a quota, with its numbers; what else is in its data.
#[track_caller]
pub fn over_quota(answer: &Response) -> Value {
    let body = answer.json();
    let told = (answer.status, body["type"].as_str().unwrap_or_default());
    let want = "https://api.backend.ai/probs/storage/quota-exceeded";
    assert_eq!(told, (507, want), "{answer}");
    let data = body["data"].clone();
    for number in ["used_bytes", "limit_bytes"] {
        assert!(data[number].is_u64(), "no {number} in {answer}");
    }
    data
}
