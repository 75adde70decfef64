//! Snapshots of single directories that a storage system shows below `.snapshot`.
//!
//! What is kept is the directory that holds the vfolder's own one: that never moves, so that a
//! vfolder that was replaced as a whole still has its snapshots. It holds no other vfolder, save
//! by an odd chance of one in 65,536.
//!
//! Laws
//! - Names that are not made from the vfolder and a name of ours are not seen and not touched.

use proxy_core::id::VFolderId;

use crate::capability::DOT_SNAPSHOT;
use crate::restore::Place;
use crate::snapshot::SnapshotName;

/// Begins the names of all our snapshots.
const PREFIX: &str = "proxy-";
/// Shows snapshots, in every directory, without being listed.
const DIR: &str = DOT_SNAPSHOT;

/// Begins the names of a vfolder's snapshots.
pub(crate) fn prefix(vfid: VFolderId) -> String {
    format!("{PREFIX}{}-", vfid.folder.simple())
}

/// What the storage system calls it.
pub(crate) fn vendor_name(vfid: VFolderId, name: &SnapshotName) -> String {
    format!("{}{name}", prefix(vfid))
}

/// Our name of what the storage system calls so, if it is a snapshot of this vfolder.
pub(crate) fn own_name(vfid: VFolderId, vendor: &str) -> Option<SnapshotName> {
    SnapshotName::parse(vendor.strip_prefix(&prefix(vfid))?)
}

/// The directory that is kept, below the volume's own one: with a slash at its begin, and none
/// at its end.
pub(crate) fn kept(vfid: VFolderId) -> String {
    let mut parts = vfid.components();
    parts.pop();
    parts.iter().map(|part| format!("/{part}")).collect()
}

/// Where the state of a vfolder may be seen.
pub(crate) fn places(vfid: VFolderId, name: &SnapshotName) -> Vec<Place> {
    let vendor = vendor_name(vfid, name);
    let whole = vfid.components();
    let below = whole.len() - usize::from(vfid.scope.is_some());
    let mut near = whole[whole.len() - below..].to_vec();
    let at = near.len() - 1;
    near.splice(at..at, [DIR.to_owned(), vendor.clone()]);
    // Systems that show all snapshots at the top show the whole path below them.
    let mut far = vec![DIR.to_owned(), vendor];
    far.extend(whole);
    vec![Place::Scope(near), Place::Volume(far)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_vfolder_finds_its_own_snapshots() {
        let scope = "user:11111111-2222-3333-4444-555555555555";
        let folder = "0123456789abcdef0123456789abcdef";
        let vfid = VFolderId::parse(&format!("{scope}/{folder}")).unwrap();
        let name = SnapshotName::parse("daily.1").unwrap();
        let vendor = vendor_name(vfid, &name);
        assert_eq!(vendor, format!("proxy-{folder}-daily.1"));
        assert_eq!(own_name(vfid, &vendor), Some(name.clone()));
        for other in ["daily", "proxy-0-daily", &format!("proxy-{folder}-a_b")] {
            assert_eq!(own_name(vfid, other), None, "{other}");
        }
        let hex = "11111111222233334444555555555555";
        assert_eq!(kept(vfid), format!("/{hex}/01/23"));
        let names = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
        let rest = &folder[4..];
        let near = Place::Scope(names(&format!("01/23/.snapshot/{vendor}/{rest}")));
        let far = Place::Volume(names(&format!(".snapshot/{vendor}/{hex}/01/23/{rest}")));
        assert_eq!(places(vfid, &name), [near.clone(), far]);
        let old = VFolderId::parse(folder).unwrap();
        assert_eq!(kept(old), "/01/23");
        assert_eq!(places(old, &name)[0], near, "without a scope as well");
    }
}
