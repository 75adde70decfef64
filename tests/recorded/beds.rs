//! What the backends stand on: a directory, a mounted file system, a simulator.

use std::path::{Path, PathBuf};

use proxy_simulators::{Running, start_named};
use proxy_simulators::{gpfs, netapp, onefs, purestorage, vast, weka};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// One volume for one side.
pub struct Bed {
    /// The `backend` of the configuration.
    pub backend: &'static str,
    /// Where the volume is.
    pub mount: PathBuf,
    /// Its options, the same for both sides: ours has more, which the original does not look at.
    pub options: Map<String, Value>,
    /// Programs that the original calls and this machine lacks.
    pub programs: Option<PathBuf>,
    /// Whether its sizes are those of a real file system.
    pub is_real: bool,
    sim: Option<Box<dyn Running>>,
    home: TempDir,
}

impl Bed {
    fn new(backend: &'static str) -> Self {
        let home = TempDir::with_prefix("storage-bed-").expect("a directory");
        let mount = home.path().join("mount");
        std::fs::create_dir(&mount).expect("a directory");
        Self {
            backend,
            mount,
            options: Map::new(),
            programs: None,
            is_real: false,
            sim: None,
            home,
        }
    }

    fn simulated(backend: &'static str, options: impl Fn(&str, &Path) -> Value) -> Self {
        let mut bed = Self::new(backend);
        let sim = start_named(backend, &bed.mount, 0).expect("a simulator of that name");
        let options = options(&sim.url(), sim.ca_file());
        bed.options = options.as_object().expect("a table").clone();
        bed.options
            .insert("api_calls_per_second".into(), json!(1000));
        bed.sim = Some(sim);
        bed
    }

    /// A text without what belongs to this bed.
    pub fn plain(&self, text: &str) -> String {
        let mut text = text.replace(&*self.mount.to_string_lossy(), "$mount");
        if let Some(sim) = &self.sim {
            text = text.replace(&sim.url(), "$url");
        }
        text
    }

    /// A program that the original finds first.
    fn program(&mut self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = self.home.path().join("bin");
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join(name);
        std::fs::write(&path, text).expect("a program");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("a mode");
        self.programs = Some(dir);
    }
}

/// On a file system that is mounted already.
pub fn on(backend: &'static str, mount: &Path) -> Bed {
    let mut bed = Bed::new(backend);
    bed.mount = mount.to_path_buf();
    bed.is_real = true;
    // The guest has no name that the real one could look up, and a complaint is a failure to the
    // original.
    bed.program("sudo", SUDO);
    bed
}

/// We are root anyhow.
const SUDO: &str = "#!/bin/bash\n[ \"$1\" != -n ] || shift\nexec \"$@\"\n";

pub fn vfs() -> Bed {
    let mut bed = Bed::new("vfs");
    bed.is_real = true;
    bed
}

pub fn netapp() -> Bed {
    Bed::simulated("netapp", |url, ca| {
        json!({
            "netapp_ontap_endpoint": url, "netapp_ontap_user": netapp::USER,
            "netapp_ontap_password": netapp::PASSWORD, "netapp_volume_name": netapp::VOLUME,
            "netapp_nfs_host": "127.0.0.1", "netapp_xcp_cmd": ["no-xcp"], "netapp_ca_file": ca,
        })
    })
}

pub fn purestorage() -> Bed {
    let mut bed = Bed::simulated("purestorage", |url, ca| {
        json!({
            "purity_endpoint": url, "purity_api_token": purestorage::API_TOKEN,
            "purity_api_version": "1.8", "purity_fs_name": purestorage::FILE_SYSTEM,
            "purity_ca_file": ca,
        })
    });
    // The RapidFile Toolkit, without which the original does not open the volume.
    let pdu = "#!/bin/bash\nset -e\nplace=${!#}\ncase $1 in\n--version) echo 'version p1 \
               (RapidFile) 2.0.0' ;;\n-hs) du -hs \"$place\" ;;\n*) find \"$place\" -printf '%s \
               %p\\0' ;;\nesac\n";
    bed.program("pdu", pdu);
    bed.program("pcopy", "#!/bin/bash\ncp -a -T \"${@: -2:1}\" \"${!#}\"\n");
    bed.program("prm", "#!/bin/bash\nrm -rf \"${!#}\"\n");
    bed
}

pub fn onefs() -> Bed {
    Bed::simulated("dellemc-onefs", |url, ca| {
        json!({
            "dell_endpoint": url, "dell_username": onefs::USER, "dell_admin": onefs::USER,
            "dell_password": onefs::PASSWORD, "dell_api_version": "12",
            "dell_ifs_path": onefs::IFS_PATH, "dell_ca_file": ca,
        })
    })
}

pub fn weka() -> Bed {
    Bed::simulated("weka", |url, ca| {
        json!({
            "weka_endpoint": url, "weka_username": weka::USER, "weka_password": weka::PASSWORD,
            "weka_organization": weka::ORGANIZATION, "weka_fs_name": weka::FS_NAME,
            "weka_ca_file": ca,
        })
    })
}

pub fn vast() -> Bed {
    Bed::simulated("vast", |url, ca| {
        json!({
            "vast_endpoint": url, "vast_username": vast::USER, "vast_password": vast::PASSWORD,
            "vast_storage_base_dir": vast::BASE_DIR, "vast_ca_file": ca,
        })
    })
}

pub fn gpfs() -> Bed {
    Bed::simulated("gpfs", |url, ca| {
        json!({
            "gpfs_endpoint": url, "gpfs_username": gpfs::USER, "gpfs_password": gpfs::PASSWORD,
            "gpfs_fs_name": gpfs::FS_NAME, "gpfs_owner": "1000:1000", "gpfs_ca_file": ca,
        })
    })
}

pub fn exascaler() -> Bed {
    let mut bed = Bed::new("exascaler");
    bed.is_real = true;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lfs = here.join("controlplane/volume/tests/vendors/lfs.sh");
    let table = bed.home.path().join("table");
    std::fs::create_dir(&table).expect("a directory");
    bed.options
        .insert("lfs_command".to_owned(), json!(["bash", lfs, table]));
    let call = format!(
        "#!/bin/bash\nexec bash {} {} \"$@\"\n",
        lfs.display(),
        table.display()
    );
    bed.program("lfs", &call);
    bed.program("sudo", SUDO);
    bed
}
