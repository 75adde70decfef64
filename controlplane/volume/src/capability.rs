//! What a backend can do, as one table: names on the wire, and which backend has which.
//!
//! Laws
//! - The order of the table is the order on the wire.
//! - Capabilities are a property of the backend's kind: a volume that is down keeps them. One is
//!   not: whether a mounted directory has cheap snapshots depends on its file system.
//!
//! Source: the capability strings that the Manager knows; `snapshot` is ours.

/// One ability that the Manager asks for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Folders can be created here.
    VFolder,
    /// A performance metric is available.
    Metric,
    /// Limits of quota scopes are real.
    Quota,
    /// Capacity of the volume is one cheap call.
    FastFsSize,
    /// Counting files is cheap.
    FastScan,
    /// Used bytes of a folder are cheap.
    FastSize,
    /// States of a folder can be kept and brought back.
    Snapshot,
}

impl Capability {
    /// All of them, in the order of the wire.
    pub const ALL: &[Self] = &[
        Self::VFolder,
        Self::Metric,
        Self::Quota,
        Self::FastFsSize,
        Self::FastScan,
        Self::FastSize,
        Self::Snapshot,
    ];

    /// The string that the Manager knows.
    pub const fn wire(self) -> &'static str {
        match self {
            Self::VFolder => "vfolder",
            Self::Metric => "metric",
            Self::Quota => "quota",
            Self::FastFsSize => "fast-fs-size",
            Self::FastScan => "fast-scan",
            Self::FastSize => "fast-size",
            Self::Snapshot => "snapshot",
        }
    }
}

/// Where most storage systems show snapshots, in every directory.
pub(crate) const DOT_SNAPSHOT: &str = ".snapshot";
/// Where the others do.
pub(crate) const DOT_SNAPSHOTS: &str = ".snapshots";

/// What one kind of backend is called and can do.
#[derive(Clone, Copy, Debug)]
struct Row {
    kind: Kind,
    /// The `backend` strings of the configuration; the first is the one that is reported.
    names: &'static [&'static str],
    capabilities: &'static [Capability],
}

/// The backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any mounted directory.
    Vfs,
    /// XFS or ext4 with project quotas.
    Xfs,
    /// CephFS: quotas, usage and snapshots by virtual attributes.
    CephFs,
    /// NetApp ONTAP: a scope is a qtree.
    NetApp,
    /// Pure Storage FlashBlade.
    PureStorage,
    /// Dell EMC PowerScale (Isilon): a scope is a directory with a quota.
    OneFs,
    /// IBM Storage Scale: a scope is a fileset.
    Gpfs,
    /// Weka: a scope is a directory with a quota.
    Weka,
    /// VAST: a scope is a directory with a quota.
    Vast,
    /// DDN EXAScaler (Lustre): project quotas by `lfs`.
    Exascaler,
    /// Hammerspace: a scope is a share.
    Hammerspace,
    /// Hammerspace mounted as a plain directory.
    HammerspaceBase,
    /// Nothing at all: folders whose data somebody else manages.
    Noop,
}

use Capability::{FastFsSize, FastScan, FastSize, Metric, Quota, Snapshot, VFolder};

const TABLE: &[Row] = &[
    row(Kind::Vfs, &["vfs"], &[VFolder]),
    row(Kind::Xfs, &["xfs"], &[VFolder, Quota]),
    row(
        Kind::CephFs,
        &["cephfs"],
        &[VFolder, Quota, FastSize, Snapshot],
    ),
    row(
        Kind::NetApp,
        &["netapp"],
        &[VFolder, Metric, Quota, FastFsSize, FastSize, Snapshot],
    ),
    row(
        Kind::PureStorage,
        &["purestorage"],
        &[VFolder, Metric, FastFsSize, FastScan, Snapshot],
    ),
    row(
        Kind::OneFs,
        &["dellemc-onefs"],
        &[VFolder, Metric, Quota, FastFsSize, Snapshot],
    ),
    row(
        Kind::Gpfs,
        &["gpfs", "spectrumscale"],
        &[VFolder, Metric, Quota, FastFsSize, Snapshot],
    ),
    row(
        Kind::Weka,
        &["weka"],
        &[VFolder, Metric, Quota, FastFsSize, Snapshot],
    ),
    row(
        Kind::Vast,
        &["vast"],
        &[VFolder, Metric, Quota, FastFsSize, FastSize, Snapshot],
    ),
    row(Kind::Exascaler, &["exascaler"], &[VFolder, Quota]),
    row(
        Kind::Hammerspace,
        &["hammerspace"],
        &[VFolder, Quota, Snapshot],
    ),
    row(Kind::HammerspaceBase, &["hammerspace-base"], &[VFolder]),
    row(Kind::Noop, &["noop"], &[]),
];

const fn row(
    kind: Kind,
    names: &'static [&'static str],
    capabilities: &'static [Capability],
) -> Row {
    Row {
        kind,
        names,
        capabilities,
    }
}

impl Kind {
    /// All of them, in the order in which an unknown name is answered.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.kind)
    }

    const fn row(self) -> &'static Row {
        // The table is in the order of the declaration, which a test holds.
        &TABLE[self as usize]
    }

    /// The first `backend` string of the configuration that means it.
    pub const fn wire(self) -> &'static str {
        self.row().names[0]
    }

    /// Finds a kind by any of its `backend` strings.
    pub fn parse(text: &str) -> Option<Self> {
        let row = TABLE.iter().find(|row| row.names.contains(&text));
        row.map(|row| row.kind)
    }

    /// The name under which directories show their snapshots. It is not the clients' to use.
    pub const fn snapshot_dir(self) -> Option<&'static str> {
        match self {
            Self::CephFs => Some(".snap"),
            Self::NetApp
            | Self::PureStorage
            | Self::OneFs
            | Self::Vast
            | Self::Hammerspace
            | Self::HammerspaceBase => Some(DOT_SNAPSHOT),
            Self::Gpfs | Self::Weka => Some(DOT_SNAPSHOTS),
            Self::Vfs | Self::Xfs | Self::Exascaler | Self::Noop => None,
        }
    }

    /// What this kind can do, in the order of the wire.
    pub const fn capabilities(self) -> &'static [Capability] {
        self.row().capabilities
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_on_the_wire_is_fixed() {
        let names: Vec<_> = Capability::ALL
            .iter()
            .map(|ability| ability.wire())
            .collect();
        assert_eq!(
            names,
            [
                "vfolder",
                "metric",
                "quota",
                "fast-fs-size",
                "fast-scan",
                "fast-size",
                "snapshot"
            ]
        );
        for (place, kind) in Kind::all().enumerate() {
            assert_eq!(kind as usize, place, "{kind:?} is where its number says");
            let places: Vec<_> = kind
                .capabilities()
                .iter()
                .map(|ability| Capability::ALL.iter().position(|other| other == ability))
                .collect();
            assert!(places.is_sorted(), "{} lists them in order", kind.wire());
            assert_eq!(Kind::parse(kind.wire()), Some(kind));
        }
        assert_eq!(Kind::parse("spectrumscale"), Some(Kind::Gpfs));
        assert_eq!(Kind::parse("vfat"), None);
    }
}
