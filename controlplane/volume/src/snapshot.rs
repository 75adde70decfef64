//! Snapshots of vfolders: their names, and what a backend says of them.
//!
//! A snapshot is a state of a vfolder that can be listed, brought back in place or as a new
//! vfolder, and removed. What the storage system keeps for it may be larger, see [`Unit`]; the
//! vfolder's part of it is what users see and get back.
//!
//! Laws
//! - Names are made by clients from a small alphabet that every storage system takes; a vendor
//!   name is made from the folder and this name, so that what others made is never touched.
//! - A snapshot that expires is removed by the retention task, and by the storage system itself
//!   where that has such a thing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use proxy_core::id::VFolderId;

use crate::stamp::Stamp;

pub(crate) const SECOND_NS: i128 = 1_000_000_000;

/// Longest name; several vendors put prefixes before it, within 64 characters.
const NAME_BYTES_MAX: usize = 40;

/// A name of a snapshot: 1 to 40 letters, digits, `-` and `.`; neither at its begin nor its end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName(Arc<str>);

impl SnapshotName {
    /// Takes a name that every storage system takes.
    pub fn parse(text: &str) -> Option<Self> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = text.as_bytes();
        (bytes.len() <= NAME_BYTES_MAX
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().copied().all(inner))
        .then(|| Self(text.into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the storage system keeps when it keeps a state of one vfolder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The vfolder alone.
    VFolder,
    /// The quota scope it is in.
    Scope,
    /// The whole volume.
    Volume,
}

impl Unit {
    /// The word on the wire.
    pub const fn wire(self) -> &'static str {
        match self {
            Self::VFolder => "vfolder",
            Self::Scope => "quota-scope",
            Self::Volume => "volume",
        }
    }
}

/// One snapshot of a vfolder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub name: SnapshotName,
    /// When it was made.
    pub created: Stamp,
    /// When it will be removed; `None` for never.
    pub expires: Option<Stamp>,
    /// What the storage system keeps for it.
    pub unit: Unit,
    /// Bytes that it holds beside the present state, where that is known.
    pub used_bytes: Option<u64>,
}

/// Which snapshots of a vfolder stay. One that has expired never does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// So many of the newest stay; `None` for all.
    pub count_max: Option<usize>,
    /// Older ones go; `None` for none.
    pub age_max: Option<Duration>,
}

/// What retention did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Snapshots that stay.
    pub kept: u64,
    /// Snapshots that are gone.
    pub removed: u64,
    /// What could not be looked at or removed, a text each.
    pub failed: Vec<String>,
}

impl Retention {
    /// Those of `kept`, oldest first, that have to go.
    pub fn stale(&self, kept: &[Snapshot], now: Stamp) -> Vec<SnapshotName> {
        let age_ns = |age: Duration| i128::try_from(age.as_nanos()).unwrap_or(i128::MAX);
        let too_old = |snapshot: &Snapshot| {
            let oldest = self
                .age_max
                .map(|age| now.unix_ns.saturating_sub(age_ns(age)));
            oldest.is_some_and(|oldest| snapshot.created.unix_ns < oldest)
        };
        let expired = |snapshot: &Snapshot| snapshot.expires.is_some_and(|at| at <= now);
        let (gone, left): (Vec<&Snapshot>, Vec<&Snapshot>) = kept
            .iter()
            .partition(|snapshot| expired(snapshot) || too_old(snapshot));
        let surplus = self
            .count_max
            .map_or(0, |max| left.len().saturating_sub(max));
        let stale = gone.into_iter().chain(left.into_iter().take(surplus));
        stale.map(|snapshot| snapshot.name.clone()).collect()
    }
}

/// How a snapshot is noted in a name where the storage system keeps nothing about it:
/// `<prefix><folder>-<seconds when made>-<seconds when it ends, or 0>-<our name>`.
pub(crate) fn noted_name(
    prefix: &str,
    vfid: VFolderId,
    made: Stamp,
    name: &SnapshotName,
    ends: Option<Stamp>,
) -> String {
    let (made, ends) = (made.unix_ns / SECOND_NS, ends.map_or(0, Stamp::seconds_up));
    format!("{prefix}{}-{made}-{ends}-{name}", vfid.folder.simple())
}

/// What a name by [`noted_name`] says; `None` when it is none, or another vfolder's.
pub(crate) fn noted(prefix: &str, vfid: VFolderId, noted: &str) -> Option<Snapshot> {
    let begin = format!("{prefix}{}-", vfid.folder.simple());
    let mut parts = noted.strip_prefix(&begin)?.splitn(3, '-');
    let mut stamp = || {
        let seconds: i128 = parts.next()?.parse().ok()?;
        Some(Stamp {
            unix_ns: seconds * SECOND_NS,
        })
    };
    let (created, ends) = (stamp()?, stamp()?);
    Some(Snapshot {
        name: SnapshotName::parse(parts.next()?)?,
        created,
        expires: (ends.unix_ns != 0).then_some(ends),
        unit: Unit::Scope,
        used_bytes: None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_oldest_go_first_and_the_expired_in_any_case() {
        let at = |s: i128| Stamp {
            unix_ns: s * 1_000_000_000,
        };
        let kept: Vec<_> = [(10, None), (20, Some(95)), (30, None), (90, Some(200))]
            .into_iter()
            .map(|(created, expires)| Snapshot {
                name: SnapshotName::parse(&format!("s{created}")).unwrap(),
                created: at(created),
                expires: expires.map(at),
                unit: Unit::VFolder,
                used_bytes: None,
            })
            .collect();
        for (count_max, age_s, want) in [
            (None, None, vec!["s20"]),
            (Some(3), None, vec!["s20"]),
            (Some(2), None, vec!["s20", "s10"]),
            (Some(0), None, vec!["s20", "s10", "s30", "s90"]),
            (None, Some(75), vec!["s10", "s20"]),
            (Some(1), Some(75), vec!["s10", "s20", "s30"]),
        ] {
            let age_max = age_s.map(Duration::from_secs);
            let policy = Retention { count_max, age_max };
            let stale = policy.stale(&kept, at(100));
            let stale: Vec<_> = stale.iter().map(SnapshotName::as_str).collect();
            assert_eq!(stale, want, "{policy:?}");
        }
    }

    #[test]
    fn names_are_those_that_every_storage_system_takes() {
        let long = "a".repeat(NAME_BYTES_MAX);
        for (name, taken) in [
            ("a", true),
            ("before-upgrade.2", true),
            (long.as_str(), true),
            ("", false),
            ("-a", false),
            ("a.", false),
            (".snap", false),
            ("_a", false),
            ("a_b", false),
            ("a/b", false),
            ("a b", false),
            ("é", false),
            (&format!("{long}a"), false),
        ] {
            assert_eq!(SnapshotName::parse(name).is_some(), taken, "{name:?}");
        }
    }
}
