//! The quota of a btrfs subvolume: its quota group, as sysfs shows it to everybody.
//!
//! Which group that is, is in `f_fsid` of statfs(2): two words made from the identifier of the file
//! system and the number of the subvolume.
//!
//! Law: what does not fit together is no quota.
//!
//! Source: `btrfs_statfs` and `fs/btrfs/sysfs.c` of Linux (5.9 or later); btrfs-quota(5).

use std::path::{Path, PathBuf};

use rustix::fs::StatVfs;

use crate::room::Quota;
use crate::stat::Stat;

/// Mounted btrfs, by identifier.
const MOUNTED: &str = "/sys/fs/btrfs";
/// Inode number of the root of every subvolume.
const ROOT_INO: u64 = 256;
/// `BTRFS_QGROUP_LIMIT_MAX_RFER`.
const LIMITS_REFERENCED: u64 = 1;

/// The quota of a directory that is a subvolume; `None` on any other file system, and without one.
pub(crate) fn quota(dir: &Stat, fs: &StatVfs) -> Option<Quota> {
    // Its inode number is rare enough that others rarely pay for the rest.
    if dir.ino != ROOT_INO {
        return None;
    }
    let mounted = std::fs::read_dir(MOUNTED).ok()?;
    let groups = mounted.filter_map(|entry| group(&entry.ok()?.path(), fs.f_fsid));
    groups.filter_map(|group| limit(&group)).next()
}

/// The directory of the quota group in that of its file system.
fn group(mounted: &Path, fsid: u64) -> Option<PathBuf> {
    let number = subvolume(mounted.file_name()?.to_str()?, fsid)?;
    let group = mounted.join(format!("qgroups/0_{number}"));
    group.is_dir().then_some(group)
}

/// The number of the subvolume, if this is its file system.
fn subvolume(uuid: &str, fsid: u64) -> Option<u64> {
    let hex: String = uuid.split('-').collect();
    if hex.len() != 32 || !hex.is_ascii() {
        return None;
    }
    let word = |at: usize| u32::from_str_radix(&hex[8 * at..8 * at + 8], 16).ok();
    let low_half = |number: u64| (number & u64::from(u32::MAX)) as u32;
    let (first, second) = (low_half(fsid), low_half(fsid >> 32));
    let high = first ^ word(0)? ^ word(2)?;
    let low = second ^ word(1)? ^ word(3)?;
    Some(u64::from(high) << 32 | u64::from(low))
}

fn limit(group: &Path) -> Option<Quota> {
    let number = |name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(group.join(name)).ok()?;
        text.trim().parse().ok()
    };
    if number("limit_flags")? & LIMITS_REFERENCED == 0 {
        return None;
    }
    // What is written and not yet in the tree is reserved.
    let reserved = number("rsv_data").unwrap_or(0);
    Some(Quota {
        used_bytes: number("referenced")?.saturating_add(reserved),
        limit_bytes: number("max_referenced")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subvolume_is_known_by_its_file_system() {
        let uuid = "132348db-70a9-4319-8ab8-fe978e64df1c";
        // As statfs(2) was seen to give them: the first word is the low half.
        let fsid = |words: u64| words.rotate_left(32);
        for (words, number) in [(0x999b_b64c_fecd_9c00, 5), (0x999b_b64c_fecd_9d05, 256)] {
            assert_eq!(subvolume(uuid, fsid(words)), Some(number));
        }
        let others = subvolume(
            "00000000-70a9-4319-8ab8-fe978e64df1c",
            fsid(0x999b_b64c_fecd_9d05),
        );
        assert!(others.is_some_and(|number| u64::from(u32::MAX) < number));
        for odd in ["features", "", "132348db-70a9-4319-8ab8-fe978e64df1ü"] {
            assert_eq!(subvolume(odd, 0), None, "{odd}");
        }
    }
}
