//! A simulator with the options that fit it, and a volume on it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proxy_core::id::{QuotaScopeId, TaskId, VFolderId};
use proxy_core::relpath::RelPath;
use proxy_simulators::jobs::Jobs;
use proxy_simulators::{Fault, Recorded, Running};
use proxy_testkit::wait;
use proxy_volume::{
    Capability, Cause, Control, Limits, ScopeQuota, Spec, VendorError, Volume, VolumeError, Volumes,
};
use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub const SCOPE: &str = "user:11111111-2222-3333-4444-555555555555";
pub const OTHER_SCOPE: &str = "project:99999999-2222-3333-4444-555555555555";
pub const KIB: u64 = 1024;
pub const MIB: u64 = 1024 * KIB;

/// One vendor's simulator and what a volume needs to use it.
pub struct Bed {
    /// The `backend` of the configuration.
    pub backend: &'static str,
    /// Holds the directory of the mount, `mount`.
    pub home: TempDir,
    pub sim: Box<dyn Running>,
    /// The right options, the certificate's file among them.
    pub options: Map<String, Value>,
    /// The option that names the address.
    pub endpoint: &'static str,
    /// The option that names the file of authorities.
    pub ca_option: &'static str,
    /// The option with the secret; a wrong value makes the credentials wrong.
    pub secret_option: &'static str,
    /// What a creation with a limit asks for, in order, as method and part of the path: the
    /// scenario breaks off after each.
    pub steps: &'static [(&'static str, &'static str)],
}

impl Bed {
    pub fn mount(&self) -> PathBuf {
        self.home.path().join("mount")
    }

    pub fn spec(&self) -> Spec {
        Spec {
            name: "v1".to_owned(),
            backend: self.backend.to_owned(),
            path: self.mount(),
            fsprefix: ".".to_owned(),
            options: self.options.clone(),
        }
    }
}

/// Stands where a simulator would, for backends that call nobody.
pub struct Nobody;

impl Running for Nobody {
    fn url(&self) -> String {
        String::new()
    }

    fn ca_file(&self) -> &Path {
        Path::new("")
    }

    fn inject(&self, _: Fault) {}

    fn heal(&self) {}

    fn count(&self, _: &str, _: &str) -> usize {
        0
    }

    fn requests(&self) -> Vec<Recorded> {
        Vec::new()
    }

    fn expire(&self) {}

    fn stop(&self) {}

    fn resume(&self) {}

    fn jobs(&self) -> Option<&Jobs> {
        None
    }
}

/// A volume on a bed.
pub struct Scene {
    pub bed: Bed,
    pub runtime: Runtime,
    pub volume: Arc<Volume>,
}

impl Scene {
    pub fn new(bed: Bed) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let volume = open(&bed.spec());
        Self {
            bed,
            runtime,
            volume,
        }
    }

    /// The program starts anew: nothing is remembered.
    pub fn restart(&mut self) {
        self.volume = open(&self.bed.spec());
    }

    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn can(&self, ability: Capability) -> bool {
        self.volume.capabilities().contains(&ability)
    }

    pub fn create_scope(&self, limit: Option<u64>) -> Result<(), VolumeError> {
        self.run(self.volume.create_scope(scope(), limit))
    }

    pub fn describe(&self) -> Result<Option<ScopeQuota>, VolumeError> {
        self.run(self.volume.describe_scope(scope()))
    }

    /// Asks until the limit is the one that is wanted: some systems take a while to count.
    #[track_caller]
    pub fn settles(&self, want: impl Fn(ScopeQuota) -> bool) -> ScopeQuota {
        for _ in 0..200 {
            let quota = self.describe().unwrap().expect("the scope is there");
            if want(quota) {
                return quota;
            }
        }
        panic!("it stays {:?}", self.describe());
    }

    /// A folder in [`SCOPE`], and its directory.
    pub fn folder(&self, number: u8) -> (VFolderId, PathBuf) {
        let vfid = vfid(number);
        let made = self.volume.create_folder(vfid, 0o755, None, true);
        self.run(made).unwrap();
        (vfid, self.place(vfid))
    }

    pub fn place(&self, vfid: VFolderId) -> PathBuf {
        let path = self.volume.mount_path(vfid, RelPath::root());
        self.run(path).unwrap()
    }

    pub fn scope_dir(&self) -> PathBuf {
        self.bed.mount().join(scope().dir_name())
    }
}

fn open(spec: &Spec) -> Arc<Volume> {
    let volumes = Volumes::new(vec![spec.clone()], &Limits::default()).unwrap();
    volumes.find("v1").unwrap()
}

pub fn scope() -> QuotaScopeId {
    QuotaScopeId::parse(SCOPE).unwrap()
}

pub fn other_scope() -> QuotaScopeId {
    QuotaScopeId::parse(OTHER_SCOPE).unwrap()
}

pub fn vfid(number: u8) -> VFolderId {
    VFolderId::parse(&format!(
        "{SCOPE}/0123456789abcdef0123456789abcd{number:02x}"
    ))
    .unwrap()
}

pub fn reins() -> Arc<Control> {
    Arc::new(Control::default())
}

pub fn task() -> TaskId {
    TaskId::random()
}

pub fn write(dir: &Path, name: &str, bytes: u64) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, vec![b'x'; bytes as usize]).unwrap();
}

/// The vendor's error, which this has to be.
#[track_caller]
pub fn vendor_error<T: std::fmt::Debug>(done: Result<T, VolumeError>) -> VendorError {
    match done {
        Err(VolumeError::Vendor(error)) => *error,
        other => panic!("an error of the storage system was expected: {other:?}"),
    }
}

#[track_caller]
pub fn cause<T: std::fmt::Debug>(done: Result<T, VolumeError>) -> Cause {
    vendor_error(done).cause
}

/// Does it again until it works, as a caller would while a system comes back.
#[track_caller]
pub fn in_the_end<T: std::fmt::Debug>(mut ask: impl FnMut() -> Result<T, VolumeError>) -> T {
    wait::until("an answer", Duration::from_secs(60), || ask().ok())
}
