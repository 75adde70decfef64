//! All volumes of this server, by name.
//!
//! Laws
//! - One object per volume and process.
//! - A volume that cannot be opened is no reason not to start, or to hide the others.
//! - `noop` is always there and never listed, unless it is configured.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::backend::Backend;
use crate::capability::Kind;
use crate::cephfs::{self, CephFs};
use crate::error::VolumeError;
use crate::exascaler::{self, Exascaler};
use crate::gpfs::{self, Gpfs};
use crate::hammerspace::{self, Hammerspace, HammerspaceBase};
use crate::limits::Limits;
use crate::netapp::{self, NetApp};
use crate::noop::Noop;
use crate::onefs::{self, OneFs};
use crate::outside::Outside;
use crate::privilege::{OwnRight, QuotaPrivilege};
use crate::purestorage::{self, PureStorage};
use crate::tree::LAYOUT_CURRENT;
use crate::vast::{self, Vast};
use crate::vendor::options::BackendOption;
use crate::vendor::rest::REST_OPTIONS;
use crate::vfs::Vfs;
use crate::volume::Volume;
use crate::weka::{self, Weka};
use crate::xfs::{self, Xfs, XfsOptions};

/// The name of the stand-in volume.
const NOOP: &str = "noop";

/// A volume as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// The `backend` string.
    pub backend: String,
    /// The mount point.
    pub path: PathBuf,
    /// Reported, used nowhere.
    pub fsprefix: String,
    /// What the backend wants to know; `vfs` and `noop` want nothing.
    pub options: Map<String, Value>,
}

/// Why a list of volumes makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// No backend of this build has this name.
    #[error("volume {volume}: unknown backend {backend:?}, known are {}", known())]
    UnknownBackend {
        /// The volume.
        volume: String,
        /// What its configuration says.
        backend: String,
    },
    /// An option of a backend is missing, of the wrong kind, or makes no sense.
    #[error("volume.{volume}.options.{key}: {fault}")]
    Option {
        /// The volume.
        volume: String,
        /// The key, as in the configuration.
        key: String,
        /// What is wrong, and what would be right.
        fault: String,
    },
    /// Two volumes have one name.
    #[error("volume {0} is configured twice")]
    Twice(String),
}

/// The backend of a volume; its options are checked, and nothing is opened or asked.
fn build(
    kind: Kind,
    spec: &Spec,
    limits: &Limits,
    quota: &dyn Fn(&Spec) -> Arc<dyn QuotaPrivilege>,
    outside: &Arc<Outside>,
) -> Result<Arc<dyn Backend>, SpecError> {
    let (name, path) = (&spec.name, spec.path.clone());
    let limits = &Limits {
        reserved_name: kind.snapshot_dir().map(str::to_owned),
        ..limits.clone()
    };
    Ok(match kind {
        Kind::Vfs => Arc::new(Vfs::new(name, path, limits)),
        Kind::Xfs => {
            let options = XfsOptions::read(spec)?;
            Arc::new(Xfs::new(name, path, limits, options, quota(spec)))
        }
        Kind::CephFs => Arc::new(CephFs::new(spec, path, limits)?),
        Kind::Noop => Arc::new(Noop),
        Kind::OneFs => Arc::new(OneFs::new(spec, limits)?),
        Kind::Weka => Arc::new(Weka::new(spec, limits)?),
        Kind::Vast => Arc::new(Vast::new(spec, limits)?),
        Kind::NetApp => Arc::new(NetApp::new(spec, spec.path.clone(), limits)?),
        Kind::PureStorage => Arc::new(PureStorage::new(spec, spec.path.clone(), limits)?),
        Kind::Gpfs => Arc::new(Gpfs::new(spec, limits)?),
        Kind::Exascaler => Arc::new(Exascaler::new(spec, limits, outside)?),
        Kind::Hammerspace => Arc::new(Hammerspace::new(spec, limits, outside)?),
        Kind::HammerspaceBase => Arc::new(HammerspaceBase::new(name, path, limits)),
    })
}

/// The options of a kind of backend, in the order in which people read about them.
pub fn options_of(kind: Kind) -> Vec<&'static BackendOption> {
    let tables: &[&'static [BackendOption]] = match kind {
        Kind::OneFs => &[onefs::OPTIONS, REST_OPTIONS],
        Kind::Weka => &[weka::OPTIONS, REST_OPTIONS],
        Kind::Vast => &[vast::OPTIONS, REST_OPTIONS],
        Kind::NetApp => &[netapp::OPTIONS, REST_OPTIONS],
        Kind::Xfs => &[xfs::OPTIONS],
        Kind::CephFs => &[cephfs::OPTIONS],
        Kind::PureStorage => &[purestorage::OPTIONS, REST_OPTIONS],
        Kind::Gpfs => &[gpfs::OPTIONS, REST_OPTIONS],
        Kind::Exascaler => &[exascaler::OPTIONS],
        Kind::Hammerspace => &[hammerspace::OPTIONS, REST_OPTIONS],
        _ => &[],
    };
    tables.iter().copied().flatten().collect()
}

/// A name as the name of a file, two names never as one.
fn as_file_name(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn known() -> String {
    Kind::all().map(Kind::wire).collect::<Vec<_>>().join(", ")
}

/// See the module.
pub struct Volumes {
    listed: Vec<Arc<Volume>>,
    noop: Arc<Volume>,
    outside: Arc<Outside>,
}

impl Volumes {
    /// The volumes of a configuration, in its order. Nothing is opened yet.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn new(specs: Vec<Spec>, limits: &Limits) -> Result<Self, SpecError> {
        Self::with_privilege(specs, limits, &|_| Arc::new(OwnRight))
    }

    /// As [`Self::new`]; limits of projects of a volume are asked for through what `quota` gives.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn with_privilege(
        specs: Vec<Spec>,
        limits: &Limits,
        quota: &dyn Fn(&Spec) -> Arc<dyn QuotaPrivilege>,
    ) -> Result<Self, SpecError> {
        let outside = Arc::default();
        let mut listed: Vec<Arc<Volume>> = Vec::new();
        for spec in specs {
            if listed.iter().any(|other| other.name() == spec.name) {
                return Err(SpecError::Twice(spec.name));
            }
            let Some(kind) = Kind::parse(&spec.backend) else {
                let (volume, backend) = (spec.name, spec.backend);
                return Err(SpecError::UnknownBackend { volume, backend });
            };
            let backend = build(kind, &spec, limits, quota, &outside)?;
            listed.push(Arc::new(Volume::new(spec, backend)));
        }
        let noop = Spec {
            name: NOOP.to_owned(),
            backend: Kind::Noop.wire().to_owned(),
            path: PathBuf::from("."),
            fsprefix: ".".to_owned(),
            options: Map::new(),
        };
        Ok(Self {
            listed,
            noop: Arc::new(Volume::new(noop, Arc::new(Noop))),
            outside,
        })
    }

    /// Opens every volume and reads its layout version; what fails is logged and tried again when
    /// it is used. Returns how many are open.
    pub async fn open_all(&self) -> usize {
        let mut open = 0;
        for volume in &self.listed {
            let name = volume.name();
            if let Err(error) = volume.open().await {
                tracing::error!(volume = name, %error, "volume cannot be opened yet");
                continue;
            }
            open += 1;
            match volume.layout_version().await {
                Ok(version) if version != LAYOUT_CURRENT => {
                    tracing::warn!(volume = name, version, "volume does not say layout 3");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(volume = name, %error, "layout version unreadable"),
            }
        }
        open
    }

    /// The volume of a name.
    ///
    /// # Errors
    /// [`VolumeError::UnknownVolume`].
    pub fn find(&self, name: &str) -> Result<Arc<Volume>, VolumeError> {
        let found = self.listed.iter().find(|volume| volume.name() == name);
        match found.or_else(|| (name == NOOP).then_some(&self.noop)) {
            Some(volume) => Ok(Arc::clone(volume)),
            None => Err(VolumeError::UnknownVolume(name.to_owned())),
        }
    }

    /// Lets scans remember what they saw below `dir`, each volume in a directory of its own.
    pub fn remember_usage_in(&self, dir: &Path) {
        for volume in &self.listed {
            volume.remember_usage_in(dir.join(as_file_name(volume.name())));
        }
    }

    /// What the volumes need of others, to be set once those are there.
    pub fn outside(&self) -> &Outside {
        &self.outside
    }

    /// The configured volumes, in order.
    pub fn listed(&self) -> &[Arc<Volume>] {
        &self.listed
    }
}
