//! A tree with everything in it that trees have on real volumes, and an exact description of one:
//! two trees are copies of each other when their descriptions are equal.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, SeekFrom, Timespec, Timestamps, XattrFlags, lgetxattr,
    llistxattr, lsetxattr, mknodat, utimensat,
};

use crate::data::{Pattern, Random};

/// Levels of the chain of directories.
const LEVELS: usize = 200;

/// Plants a tree in the empty directory `root`: about `files` files of up to a few KiB, hard links
/// within and across directories, holes, attributes, links of all kinds, special files, closed
/// directories, a deep chain, odd names, modes and times.
///
/// # Panics
/// When the disk refuses.
pub fn plant(root: &Path, files: usize, random: &mut Random) {
    let mut dirs = vec![root.to_path_buf()];
    for number in 0..files / 25 {
        let dir = random.pick(&dirs).join(format!("d{number}"));
        std::fs::create_dir(&dir).expect("a directory");
        dirs.push(dir);
    }
    let mut made: Vec<PathBuf> = Vec::new();
    for number in 0..files {
        let path = random.pick(&dirs).join(name(number, random));
        match random.below(12) {
            0 if !made.is_empty() => {
                std::fs::hard_link(random.pick(&made), &path).expect("a second name");
            }
            1 => link(root, number, &path),
            _ => {
                let size = random.below(4000);
                std::fs::write(&path, Pattern(number as u64).bytes(0, size)).expect("a file");
                made.push(path);
            }
        }
    }
    for number in 0..6 {
        sparse(&random.pick(&dirs).join(format!("sparse{number}")), random);
    }
    specials(&root.join("d0"));
    let mut deep = root.join("deep");
    for _ in 0..LEVELS {
        std::fs::create_dir(&deep).expect("a level");
        deep.push("d");
    }
    std::fs::write(deep.with_file_name("end"), "x").expect("a file");
    std::fs::create_dir(root.join(".upload")).expect("the staging area");
    std::fs::write(root.join(".upload/00112233445566778899aabbccddeeff"), "x").expect("staged");
    for path in &made {
        dress(path, random);
    }
    // From below: a time that was set stays only if nothing is added afterwards.
    for dir in dirs.iter().rev().filter(|dir| *dir != root) {
        dress(dir, random);
    }
}

fn name(number: usize, random: &mut Random) -> std::ffi::OsString {
    match random.below(20) {
        0 => std::ffi::OsString::from_vec([b"bad\xff\xfe", number.to_string().as_bytes()].concat()),
        1 => format!("line\nbreak {number}").into(),
        2 => format!("파일{number}").into(),
        3 => format!(".hidden{number}").into(),
        4 => format!("{number}{}", "x".repeat(240)).into(),
        _ => format!("f{number}").into(),
    }
}

fn link(root: &Path, number: usize, path: &Path) {
    let target = match number % 6 {
        0 => "nowhere".to_owned(),
        1 => "/etc/passwd".to_owned(),
        2 => "../../../../../../../../../../etc".to_owned(),
        3 => root.join("d0").display().to_string(),
        4 => ".".to_owned(),
        _ => "f1".to_owned(),
    };
    symlink(target, path).expect("a link");
}

fn sparse(path: &Path, random: &mut Random) {
    let file = std::fs::File::create(path).expect("a file");
    file.set_len(8 << 20).expect("a length");
    for _ in 0..random.below(4) {
        let at = random.below(120) * 65_536;
        file.write_all_at(&Pattern(at).bytes(0, 65_536), at)
            .expect("data");
    }
}

/// A FIFO, a socket, and a device where that is allowed.
fn specials(dir: &Path) {
    let mode = Mode::from_raw_mode(0o644);
    mknodat(CWD, dir.join("fifo"), FileType::Fifo, mode, 0).expect("a fifo");
    mknodat(CWD, dir.join("socket"), FileType::Socket, mode, 0).expect("a socket");
    let null = rustix::fs::makedev(1, 3);
    let _ = mknodat(CWD, dir.join("null"), FileType::CharacterDevice, mode, null);
}

/// Gives a file or a directory attributes, a mode and times.
fn dress(path: &Path, random: &mut Random) {
    if random.below(8) == 0 {
        let value = Pattern(random.draw()).bytes(0, random.below(300));
        let set = lsetxattr(path, "user.test", &value, XattrFlags::empty());
        set.expect("an attribute");
    }
    let is_dir = path.is_dir();
    let closed = rustix::process::geteuid().is_root();
    let mode = match random.below(12) {
        0 if closed => 0o000,
        1 if closed => 0o500,
        2 => 0o2775,
        3 if is_dir => 0o1777,
        4 if !is_dir => 0o4755,
        _ if is_dir => 0o755,
        _ => 0o640,
    };
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
    let at = Timespec {
        tv_sec: 1_000_000_000 + random.below(600_000_000) as i64,
        tv_nsec: random.below(1_000_000_000) as rustix::fs::Nsecs,
    };
    let times = Timestamps {
        last_access: at,
        last_modification: at,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times");
}

/// Everything below `root` that a copy has: by path, what it is. Special files and the staging
/// area are left out.
///
/// # Panics
/// When the tree cannot be read.
#[must_use]
pub fn describe(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let mut names: HashMap<u64, BTreeSet<Vec<u8>>> = HashMap::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            let short = path
                .strip_prefix(root)
                .expect("below")
                .as_os_str()
                .as_bytes();
            let meta = path.symlink_metadata().expect("an entry");
            let mut text = format!("{:o} {}.{}", meta.mode(), meta.mtime(), meta.mtime_nsec());
            if meta.is_dir() {
                if short == b".upload" {
                    continue;
                }
                todo.push(path.clone());
            } else if meta.is_symlink() {
                let target = std::fs::read_link(&path).expect("a link");
                text += &format!(" -> {}", target.display());
            } else if meta.is_file() {
                text += &format!(" {} {}", meta.size(), content(&path));
                let group = names.entry(meta.ino()).or_default();
                group.insert(short.to_vec());
            } else {
                continue;
            }
            if !meta.is_symlink() {
                text += &attributes(&path);
            }
            found.insert(short.to_vec(), text);
        }
    }
    for group in names.values().filter(|group| 1 < group.len()) {
        let first = group.first().expect("it has names");
        for name in group {
            let text = found.get_mut(name).expect("it was found");
            *text += &format!(" one with {}", String::from_utf8_lossy(first));
        }
    }
    found
}

/// Where two trees differ; empty when they do not.
#[must_use]
pub fn differences(one: &Path, other: &Path) -> Vec<String> {
    let (one, other) = (describe(one), describe(other));
    let names: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let differs = names
        .into_iter()
        .filter(|name| one.get(*name) != other.get(*name));
    let show = |name: &Vec<u8>| {
        let name_shown = String::from_utf8_lossy(name);
        format!("{name_shown}: {:?} / {:?}", one.get(name), other.get(name))
    };
    differs.take(10).map(show).collect()
}

fn attributes(path: &Path) -> String {
    let mut list = vec![0; 4096];
    let got = llistxattr(path, &mut list[..]).unwrap_or(0);
    let mut text = String::new();
    for name in list[..got].split(|byte| *byte == 0) {
        let name = String::from_utf8_lossy(name);
        if name.starts_with("user.") {
            let mut value = vec![0; 4096];
            let got = lgetxattr(path, &*name, &mut value[..]).expect("a value");
            text += &format!(" {name}={:?}", &value[..got]);
        }
    }
    text
}

/// Hash of a file's bytes, and where its data lies.
fn content(path: &Path) -> String {
    let bytes = std::fs::read(path).expect("a file");
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let mut text = format!("{:x}", hasher.finish());
    if bytes.len() < 1 << 20 {
        return text;
    }
    let file = std::fs::File::open(path).expect("a file");
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) {
        let end = rustix::fs::seek(&file, SeekFrom::Hole(start)).expect("an end");
        text += &format!(" {start}..{end}");
        at = end;
    }
    text
}
