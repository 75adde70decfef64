//! What a backend can do, as one table: names on the wire, and which backend has which.
//!
//! Laws
//! - The order of the table is the order on the wire.
//! - Capabilities are a property of the backend's kind: a volume that is down keeps them.
//!
//! Source: the capability strings that the Manager knows.

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
        }
    }
}

/// The backends of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any mounted directory.
    Vfs,
    /// Nothing at all: folders whose data somebody else manages.
    Noop,
}

impl Kind {
    /// All of them, in the order in which an unknown name is answered.
    pub const ALL: &[Self] = &[Self::Vfs, Self::Noop];

    /// The `backend` string of the configuration.
    pub const fn wire(self) -> &'static str {
        match self {
            Self::Vfs => "vfs",
            Self::Noop => "noop",
        }
    }

    /// Finds a kind by its `backend` string.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.wire() == text)
    }

    /// What this kind can do, in the order of the wire.
    pub const fn capabilities(self) -> &'static [Capability] {
        match self {
            Self::Vfs => &[Capability::VFolder],
            Self::Noop => &[],
        }
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
                "fast-size"
            ]
        );
        for kind in Kind::ALL {
            let places: Vec<_> = kind
                .capabilities()
                .iter()
                .map(|ability| Capability::ALL.iter().position(|other| other == ability))
                .collect();
            assert!(places.is_sorted(), "{} lists them in order", kind.wire());
            assert_eq!(Kind::parse(kind.wire()), Some(*kind));
        }
        assert_eq!(Kind::parse("vfat"), None);
    }
}
